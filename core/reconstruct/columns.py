"""Columns that `reconstruct-footprints` measures, per band."""

from __future__ import annotations

from collections.abc import Sequence

from coblend.core.catalog import Column, per_band

MEASURED = (
    Column("model_flux", "f4", "Flux of the unconvolved model (deblend_scarletFlux)", "flux",
           "phot.flux"),
    Column("flux", "f8", "Light in the footprint", "flux", "phot.flux"),
    Column("flux_err", "f4", "Error of flux from the variance plane, pixels independent",
           "flux", "stat.error;phot.flux"),
    Column("peak_flux", "f4", "Light in the peak pixel (deblend_peak_instFlux)", "flux",
           "phot.flux"),
    Column("n_pix", "i4", "Pixels with a share", "pixel**2", "meta.number"),
    Column("coverage", "f4", "Fraction of the footprint with data (deblend_dataCoverage)", "",
           "arith.ratio"),
    Column("bad_frac", "f4", "Fraction of the footprint with bad pixels", "", "arith.ratio"),
    Column("zero_flux", "?", "No light: one-pixel footprint at the peak (deblend_zeroFlux)",
           "", "meta.code"),
    Column("edge", "?", "Footprint touches the border of its parent's box", "", "meta.code"),
    Column("max_overlap", "f4", "Largest neighbour flux in a pixel (deblend_maxOverlap)",
           "flux", "phot.flux"),
    Column("flux_overlap", "f4", "Neighbour flux in the model (deblend_fluxOverlap)", "flux",
           "phot.flux"),
    Column("flux_overlap_frac", "f4",
           "flux_overlap over model_flux (deblend_fluxOverlapFraction)", "", "arith.ratio"),
    Column("blendedness", "f4", "1 - purity of the model (deblend_blendedness)", "",
           "arith.ratio"),
    Column("chi2", "f4", "Mean squared residual over variance in the footprint", "",
           "stat.fit.chi2"),
)  # fmt: skip
"""Per object and band."""

STRAY = (
    Column("n_stray", "i4", "Footprint pixels that no model reaches", "pixel**2", "meta.number"),
    Column("stray_flux", "f8", "Their light", "flux", "phot.flux"),
)
"""Per parent and band."""


def measured_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Columns added to OBJECTS."""
    return per_band(MEASURED, bands, unit)


def parent_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Columns of PARENTS in a `footprints` file."""
    return (
        Column("id", "i8", "Identifier (id)", "", "meta.id;meta.main"),
        *per_band(STRAY, bands, unit),
    )
