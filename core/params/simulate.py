"""Options of `simulate`."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.bands import BAND_NAME, check_suffixes
from coblend.core.errors import ParameterError
from coblend.core.params.field import Checked, option


@dataclass(frozen=True, slots=True)
class SimulateParams(Checked):
    """What the simulated sky holds and how it is observed."""

    bands: tuple[str, ...] = option(("g", "r", "i"), "Bands to observe.", shown=True)
    epochs: int = option(5, "Exposures per band.", minimum=1, maximum=999, shown=True)
    size: int = option(
        320, "Side of the patch.", unit="pixel", minimum=64, maximum=20000, shown=True
    )
    blends: int = option(18, "Groups of 2 to 8 close sources.", minimum=0, shown=True)
    singles: int = option(30, "Sources that stand alone.", minimum=0, shown=True)
    seeing: float = option(
        4.0,
        "Typical FWHM of the PSF at 770 nm.",
        unit="pixel",
        minimum=2.5,
        maximum=12,
        shown=True,
    )
    separation: float = option(
        1.8, "Smallest distance of two sources of a blend, in units of the seeing.", minimum=0.2,
        maximum=5, shown=True,
    )  # fmt: skip
    star_fraction: float = option(0.3, "Fraction of stars.", minimum=0, maximum=1)
    brightest: float = option(18.3, "Magnitude of the brightest sources.", unit="mag")
    faintest: float = option(21.8, "Magnitude of the faintest sources.", unit="mag")
    dither: int = option(
        8, "Largest offset of an exposure along an axis.", unit="pixel", minimum=0, maximum=1000
    )
    zero_point: float = option(30.0, "Mean zero point of the exposures.", unit="mag")
    gain: float = option(
        4.0, "Electrons per unit of the image.", unit="electron/adu", minimum=1e-6
    )
    sky_level: float = option(
        10000.0, "Mean sky level, which sets the noise.", unit="electron", minimum=1
    )
    bad_columns: int = option(1, "Bad columns per exposure.", minimum=0)
    cosmic_rays: int = option(10, "Cosmic rays per exposure.", minimum=0)
    trail: bool = option(True, "Draw a satellite trail in one exposure.")
    mask_artifacts: bool = option(
        True,
        "Show cosmic rays and the trail in the mask (CR, STREAK), as the processing of single "
        "exposures does; otherwise the coadd must find them.",
    )
    pixel_scale: float = option(0.168, "Pixel scale.", unit="arcsec", minimum=1e-6)

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        for i, band in enumerate(self.bands):
            if not BAND_NAME.fullmatch(band):
                raise ParameterError(
                    f"band {band!r}: a band has 1 to 16 letters, digits or _.+-",
                )
            if band in self.bands[:i]:
                raise ParameterError(f"band {band} is given twice")
        if not self.bands:
            raise ParameterError("option bands is empty")
        check_suffixes(self.bands)
        if self.dither >= self.size:
            raise ParameterError(
                f"option dither is {self.dither} pixels, the patch has only {self.size}"
            )
        if self.faintest < self.brightest:
            raise ParameterError(
                f"option faintest is {self.faintest:g} mag, brightest {self.brightest:g} mag"
            )
