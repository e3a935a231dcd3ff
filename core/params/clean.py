"""Options of `coblend clean`."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.errors import ParameterError
from coblend.core.params.field import Checked, compress_option, option


@dataclass(frozen=True, slots=True)
class CleanParams(Checked):
    """How neighbours are removed from the stamps of objects."""

    mode: str = option("subtract", "Subtract the models of all others (noise replaces those "
                       "without models), or keep the object's share of the light among noise",
                       choices=("subtract", "noise"), shown=True)  # fmt: skip
    whole: bool = option(False, "Write whole exposures, in which only the objects of --source are "
                         "left, instead of stamps", shown=True)  # fmt: skip
    side: int = option(63, "Side of the stamps, odd", unit="pixel", minimum=3, shown=True)
    source: tuple[int, ...] = option((), "Only these objects, by id", shown=True)
    compress: str = compress_option()

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if self.side % 2 == 0:
            raise ParameterError(f"option side is {self.side}; it must be odd")
