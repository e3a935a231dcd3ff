"""How an option is declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields
from difflib import get_close_matches
from typing import Any

from coblend.core.errors import ParameterError


def option(
    default: Any,
    help: str,  # noqa: A002 - the word that click users know
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    shown: bool = False,
    alias: str = "",
) -> Any:
    """Declare one option of a params dataclass.

    Parameters
    ----------
    default : object
        Default value; its annotation gives the type (bool, int, float, str, or a tuple of them).
        None is allowed as a value where it is the default.
    help : str
        One sentence.
    unit : str
        Unit of the value, "" if it has none.
    minimum, maximum : float, optional
        Inclusive range.
    choices : sequence of str, optional
        Allowed values.
    shown : bool
        Whether the command line has a flag for it; all others are reached by ``--set`` or TOML.
    alias : str
        Name of the same option in the reference system, accepted by ``--set`` and TOML.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": tuple(choices) if choices else (),
        "shown": shown,
        "alias": alias,
    }
    return field(default=default, metadata=metadata)


def compress_option() -> Any:
    """Declare how a command writes exposures."""
    return option(
        "auto",
        "Compression of exposures: lossless, none, or lossy (steps of a sixteenth of the noise).",
        choices=("auto", "none", "lossy"),
    )


class Checked:
    """Base of the params dataclasses: checks ranges and choices when constructed."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for spec in options_of(type(self)):
            check_value(spec, getattr(self, spec.name))


def options_of(cls: type) -> tuple[Field[Any], ...]:
    """Fields of a params dataclass that were declared with `option`."""
    return tuple(f for f in fields(cls) if "help" in f.metadata)


def check_value(spec: Field[Any], value: Any) -> None:
    """Check a value against its option's range and choices.

    Raises
    ------
    ParameterError
        Naming the option, the value and what is allowed.
    """
    meta: Mapping[str, Any] = spec.metadata
    if value is None:
        if spec.default is not None:
            raise ParameterError(f"option {spec.name} needs a value")
        return
    values = value if isinstance(value, tuple) else (value,)
    for item in values:
        if meta["choices"] and item not in meta["choices"]:
            close = get_close_matches(str(item), meta["choices"], 1)
            hint = f"did you mean {close[0]}?" if close else None
            raise ParameterError(
                f"option {spec.name} is {item!r}; allowed: {', '.join(meta['choices'])}",
                hint=hint,
            )
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            low, high = meta["minimum"], meta["maximum"]
            if (
                item != item
                or (low is not None and item < low)
                or (high is not None and item > high)
            ):
                raise ParameterError(f"option {spec.name} is {item}; allowed: {span(low, high)}")


def span(low: float | None, high: float | None) -> str:
    """Readable form of an inclusive range."""
    if low is not None and high is not None:
        return f"{_plain(low)} to {_plain(high)}"
    if low is not None:
        return f"{_plain(low)} or more"
    if high is not None:
        return f"{_plain(high)} or less"
    return "any number"


def _plain(value: float) -> str:
    """Whole numbers in full, others to six digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"
