"""Where option values come from: default, preset, TOML files, environment, command line.

Later sources win, in that order. Every value carries its source, for ``--dump-config`` and the
CONFIG table.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass
from typing import Any, get_args, get_origin, get_type_hints

from coblend.cli.toml_files import line_of, load_file, nearest
from coblend.core.errors import CoblendError, ConfigError, ParameterError
from coblend.core.params.common import CommonParams
from coblend.core.params.field import check_value, options_of

log = logging.getLogger("coblend")

LOCAL_FILE = "coblend.toml"
"""Read from the working directory when it is there."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_COMMA = re.compile(r",(?![^\[]*\])")
"""Between the items of a list; the comma of a section FILE[x1:x2,y1:y2] is none."""
_KEYS = re.compile(r"((?:[^/=]+=)*@?)(.*)", re.DOTALL)
"""``key=`` any number of times and ``@``, then the value."""
_SPECIAL_VARIABLES = ("COBLEND_CONFIG",)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A params object and the source of each of its values."""

    params: Any
    sources: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return key, value and source of every option."""
        return [
            (s.name, text_of(getattr(self.params, s.name)), self.sources[s.name])
            for s in options_of(type(self.params))
        ]


def resolve(
    cls: type,
    command: str,
    *,
    given: Mapping[str, Any],
    assignments: Sequence[str] = (),
    files: Sequence[str] = (),
    preset: str | None = None,
) -> Resolved:
    """Build the params of a command from all sources.

    Parameters
    ----------
    cls : type
        Params dataclass.
    command : str
        Its name: the TOML section and part of the environment names.
    given : mapping
        Values of flags on the command line; None where not given.
    assignments : sequence of str
        ``key=value`` of ``--set``; keys of other classes are ignored, see `check_assignments`.
    files : sequence of str
        TOML files, later ones win.
    preset : str, optional
        Name in the class's ``PRESETS``.

    Raises
    ------
    ConfigError
        A file is wrong: file, section, key and the nearest valid key.
    ParameterError
        A value on the command line or in the environment is wrong.
    """
    specs = {s.name: s for s in options_of(cls)}
    hints = get_type_hints(cls)
    values = {name: spec.default for name, spec in specs.items()}
    sources = dict.fromkeys(values, "default")

    def put(name: str, value: Any, source: str) -> None:
        values[name], sources[name] = value, source

    for name, value in preset_values(cls, preset).items():
        put(name, value, f"preset {preset}")
    for path in files:
        for name, value in _file_values(path, cls, command).items():
            put(name, value, os.path.basename(path))
    section = "" if cls is CommonParams else command
    for name, spec in specs.items():
        variable = variable_of(section, name)
        if variable in os.environ:
            put(name, convert(spec, hints[name], os.environ[variable], variable), "environment")
    for key, text in map(_assignment, assignments):
        found = find_option(cls, key)
        if found is not None:
            value = convert(specs[found], hints[found], text, f"--set {key}")
            put(found, value, "command line")
    for name, value in given.items():
        if value is not None:
            put(name, convert(specs[name], hints[name], value, f"--{flag(name)}"), "command line")
    return Resolved(cls(**values), sources)


def preset_values(cls: type, preset: str | None) -> Mapping[str, Any]:
    """Values of a preset; {} for None."""
    presets: Mapping[str, Mapping[str, Any]] = getattr(cls, "PRESETS", {})
    return presets[preset] if preset is not None and preset in presets else {}


def config_files(given: Sequence[str]) -> list[str]:
    """Files to read: ``./coblend.toml`` if it exists, COBLEND_CONFIG, then those given."""
    local = [LOCAL_FILE] if os.path.exists(LOCAL_FILE) else []
    if local:
        log.info("reading options from ./%s", LOCAL_FILE)
    variable = os.environ.get("COBLEND_CONFIG")
    return [*local, *([variable] if variable else []), *given]


def check_assignments(classes: Iterable[type], assignments: Sequence[str]) -> None:
    """Refuse ``--set`` keys that no class knows.

    Raises
    ------
    ParameterError
        With the nearest valid key.
    """
    classes = tuple(classes)
    for key, value in map(_assignment, assignments):
        if any(_is_fixed(cls, key, value) for cls in classes):
            continue
        if all(find_option(cls, key) is None for cls in classes):
            known = [s.name for cls in classes for s in options_of(cls)]
            gone = next((text for cls in classes if (text := _without(cls, key))), None)
            raise ParameterError(f"--set: no option {key!r}", hint=gone or nearest(key, known))


def check_environment(command: str, cls: type) -> None:
    """Warn of ``COBLEND_*`` variables that nobody reads; ``cls`` holds the command's options."""
    from coblend.cli.main import COMMANDS

    known = {variable_of(command, spec.name) for spec in options_of(cls)}
    known |= {variable_of("", spec.name) for spec in options_of(CommonParams)}
    others = tuple(variable_of(other, "") for other in COMMANDS if other != command)
    for variable in sorted({*os.environ} - known - {*_SPECIAL_VARIABLES}):
        if variable.startswith("COBLEND_") and not variable.startswith(others):
            log.warning("environment variable %s is no option", variable)


def variable_of(command: str, option: str) -> str:
    """Environment variable of an option; ``command`` is "" for those of all commands."""
    section = f"{command}_" if command else ""
    return f"COBLEND_{section}{option}".upper().replace("-", "_")


def find_option(cls: type, key: str) -> str | None:
    """Name of the option that a key means: its name with ``-`` or ``_``, or its alias."""
    plain = key.replace("-", "_")
    for spec in options_of(cls):
        if plain == spec.name or (spec.metadata["alias"] and key == spec.metadata["alias"]):
            return spec.name
    return None


def _without(cls: type, key: str) -> str | None:
    """Why there is no such option although the reference system has one."""
    fixed: Mapping[str, tuple[str, str]] = getattr(cls, "FIXED", {})
    if key in fixed:
        value, reason = fixed[key]
        return f"only {key}={value}: {reason}"
    texts: Mapping[str, str] = getattr(cls, "WITHOUT", {})
    return texts.get(key)


def _is_fixed(cls: type, key: str, value: Any) -> bool:
    """Whether this is an option of the reference system with the only value there is here."""
    fixed: Mapping[str, tuple[str, str]] = getattr(cls, "FIXED", {})
    return key in fixed and str(value).lower() == fixed[key][0].lower()


def flag(name: str) -> str:
    """Spelling of an option on the command line and in TOML."""
    return name.replace("_", "-")


def convert(spec: Field[Any], hint: Any, raw: Any, where: str) -> Any:
    """Convert a text or TOML value to the type of an option and check it.

    Raises
    ------
    ParameterError
        Naming ``where`` the value came from.
    """
    try:
        value = _converted(hint, raw)
    except (ValueError, TypeError):
        raise ParameterError(f"{where}: {raw!r} is not {_type_name(hint)}") from None
    try:
        check_value(spec, value)
    except CoblendError as error:
        raise ParameterError(f"{where}: {error.message}", hint=error.hint) from None
    return value


def _converted(hint: Any, raw: Any) -> Any:
    arguments = get_args(hint)
    if type(None) in arguments:
        if raw is None or (isinstance(raw, str) and raw.lower() in ("none", "")):
            return None
        hint = next(a for a in arguments if a is not type(None))
        arguments = get_args(hint)
    if get_origin(hint) is tuple:
        if isinstance(raw, Mapping):  # as the reference system's maskLimits = {SAT = 0.1}
            raw = [f"{key}={value}" for key, value in raw.items()]
        items = [p.strip() for p in _COMMA.split(raw)] if isinstance(raw, str) else list(raw)
        return tuple(_converted(arguments[0], item) for item in items if item != "")
    if hint is bool:
        if isinstance(raw, bool):
            return raw
        text = str(raw).lower()
        if text not in (*_TRUE, *_FALSE):
            raise ValueError(raw)
        return text in _TRUE
    if hint in (int, float):
        if isinstance(raw, bool):
            raise ValueError(raw)
        if hint is int and isinstance(raw, float) and raw != int(raw):
            raise ValueError(raw)
        return hint(raw)
    if not isinstance(raw, str | int | float):
        raise TypeError(raw)
    return str(raw)


def _type_name(hint: Any) -> str:
    inner = [a for a in get_args(hint) if a is not type(None) and a is not Ellipsis]
    if get_origin(hint) is tuple:
        return f"a comma-separated list of {_type_name(inner[0]).removeprefix('a ')}s"
    if inner:
        return _type_name(inner[0])
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(hint, "a text")


def _file_values(path: str, cls: type, command: str) -> dict[str, Any]:
    """Values for one class from its section of a TOML file."""
    own = "common" if cls is CommonParams else command
    table = load_file(path).get(own, {})
    values = (file_value(path, cls, own, key, table) for key in table)
    return dict(pair for pair in values if pair is not None)


def file_value(
    path: str, cls: type, section: str, key: str, table: Mapping[str, Any]
) -> tuple[str, Any] | None:
    """Option and value that ``key`` of a TOML section means; None where it says what holds anyway.

    Raises
    ------
    ConfigError
        There is no such option, it cannot have that value, or an earlier key means it too: file,
        line, and what is near.
    """
    specs, raw = {s.name: s for s in options_of(cls)}, table[key]
    name = find_option(cls, key)
    try:
        if name is not None:
            first = next(k for k in table if find_option(cls, k) == name)
            if first != key:
                raise ParameterError(f"[{section}] {key} is given twice: {first} is the same")
            where = f"[{section}] {key}"
            return name, convert(specs[name], get_type_hints(cls)[name], raw, where)
        if _is_fixed(cls, key, raw):
            return None
        raise ParameterError(
            f"[{section}] has no option {key!r}",
            hint=_without(cls, key) or nearest(key, list(specs)),
        )
    except ParameterError as error:
        message = f"line {line_of(path, section, key)}: {error.message}"
        raise ConfigError(message, path, hint=error.hint) from None


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ParameterError(f"--set {text!r} is not KEY=VALUE")
    return key.strip(), value.strip()


def text_of(value: Any) -> str:
    """Value as the CONFIG table and ``--set`` write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(map(text_of, value))
    return str(value)


def without_folder(text: str) -> str:
    """Drop the folder of a path, also in ``band=a/b.fits``, ``--key=a/b.fits``, ``@a/list``.

    What is written into files must not depend on where they are.
    """
    keys, path = _KEYS.fullmatch(text).groups()  # type: ignore[union-attr]
    return f"{keys}{os.path.basename(path.rstrip(os.sep))}" if os.sep in path else text


def toml_of(value: Any) -> str:
    """Value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


def dump(sections: Mapping[str, Resolved]) -> str:
    """All options of ``sections`` as a TOML file, each with its source as a comment."""
    lines: list[str] = []
    for section, resolved in sections.items():
        lines += [*([""] if lines else []), f"[{section}]"]
        for spec in options_of(type(resolved.params)):
            value = getattr(resolved.params, spec.name)
            text = f"{flag(spec.name)} = {toml_of(value)}"
            text = f"# {flag(spec.name)} is unset" if value is None else text
            lines.append(f"{text}  # {resolved.sources[spec.name]}")
    return "\n".join(lines)
