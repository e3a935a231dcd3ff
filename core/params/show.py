"""Options of ``coblend show``."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.errors import ParameterError
from coblend.core.params.field import Checked, option


@dataclass(frozen=True, slots=True)
class ShowParams(Checked):
    """What a picture shows and how."""

    section: str = option(
        "",
        "Part to show, X1:X2,Y1:Y2: FITS pixels of the exposures, from 1, both ends included.",
        shown=True,
    )
    bands: tuple[str, ...] = option(
        (),
        "Bands to show, from red to blue; one: grey. Default: all, by wavelength where their "
        "names are known.",
        shown=True,
    )
    blend: int | None = option(
        None, "Show this blend: id of it, of its parent or of one of its objects.", shown=True
    )
    at: tuple[float, ...] = option(
        (), "Show the blend at this pixel: x,y in parent coordinates, as in all tables.",
        shown=True,
    )  # fmt: skip
    stretch: float | None = option(
        None,
        "Brightness from which colours are logarithmic; default: 12 times the noise, in grey 5.",
        unit="image unit",
        minimum=0.0,
        shown=True,
    )
    softening: float = option(
        8.0, "Dynamic range of colours (Q of Lupton et al. 2004).", minimum=0.01, maximum=1000.0
    )
    minimum: float | None = option(
        None, "Brightness shown as black; default: minus the noise.", unit="image unit"
    )
    weights: tuple[float, ...] = option(
        (), "Factors of the bands before they are mixed, in the order shown.", minimum=0.0
    )
    limit: float = option(
        5.0, "Largest residual in the colour scale.", unit="noise", minimum=0.1, maximum=1000.0
    )
    max_sources: int = option(
        12, "Most objects shown by sources, brightest first.", minimum=1, maximum=100
    )
    dpi: int = option(150, "Resolution of the picture.", unit="1/inch", minimum=30, maximum=1200)

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if self.stretch == 0:
            raise ParameterError("stretch is 0; it must be positive")
        if self.at and len(self.at) != 2:
            raise ParameterError(f"at has {len(self.at)} numbers; expected x,y")
