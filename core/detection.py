"""Detections of one band, or merged over bands: parents, peaks and footprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.catalog import Column
from coblend.core.exposure import HeaderValue
from coblend.core.footprint import FootprintSet

PARENT_FLAGS: dict[str, int] = {
    "edge": 0,
    "partial": 1,
    "split": 2,
    "crowded": 3,
    "masked": 4,
    "sat": 5,
    "negative": 7,
    "nopeak_fallback": 8,
}
"""Bits of ``flags`` in PARENTS, each also a boolean column. Bit 6 is free."""

PEAK_FLAGS: dict[str, int] = {"nocentroid": 1, "fallback": 2, "masked": 4}
"""Values of ``flags`` in PEAKS: no sub-pixel position; not a maximum but the brightest pixel of a
footprint without one; the maximum itself is an unusable pixel beside the peak pixel."""

_PIXEL = "pixel"
_POSITION = (
    Column("x", "f8", "Sub-pixel x position, parent coordinates", _PIXEL,
           "pos.cartesian.x;instr.det"),
    Column("y", "f8", "Sub-pixel y position, parent coordinates", _PIXEL,
           "pos.cartesian.y;instr.det"),
    Column("ra", "f8", "Right ascension, ICRS (coord_ra)", "deg", "pos.eq.ra;meta.main"),
    Column("dec", "f8", "Declination, ICRS (coord_dec)", "deg", "pos.eq.dec;meta.main"),
)  # fmt: skip


def parent_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Columns of PARENTS (`detect_merge` design page, section 12.1)."""
    return (
        Column("id", "i8", "Identifier (id)", ucd="meta.id;meta.main"),
        Column("parent", "i8", "Identifier of the parent, 0: none (parent)",
               ucd="meta.id.parent"),
        *_POSITION,
        Column("box_x0", "i4", "First column of the bounding box", _PIXEL,
               "pos.cartesian.x;instr.det;stat.min"),
        Column("box_y0", "i4", "First row of the bounding box", _PIXEL,
               "pos.cartesian.y;instr.det;stat.min"),
        Column("box_nx", "i4", "Columns of the bounding box", _PIXEL,
               "phys.size;instr.pixel"),
        Column("box_ny", "i4", "Rows of the bounding box", _PIXEL,
               "phys.size;instr.pixel"),
        Column("area", "i4", "Pixels of the footprint", "pixel**2",
               "phys.angArea;instr.pixel"),
        Column("span0", "i8", "First row in SPANS (0-based)", ucd="meta.record"),
        Column("nspan", "i4", "Rows in SPANS", ucd="meta.number"),
        Column("peak0", "i8", "First row in PEAKS (0-based)", ucd="meta.record"),
        Column("npeak", "i4", "Rows in PEAKS (deblend_nPeaks)", ucd="meta.number"),
        Column("peak_snr", "f4", "Largest peak significance", "", "stat.snr"),
        Column("flux", "f4", "Sum of the image in the footprint", unit, "phot.flux"),
        Column("blob", "i8", "Brightest peak of the footprint this was cut from, 0: none",
               ucd="meta.id.cross"),
        *(Column(f"merge_footprint_{column_suffix(b)}", "?",
                 f"Detected in {b} (merge_footprint_{b})", ucd="meta.code") for b in bands),
        Column("merge_footprint_sky", "?", "Sky object (merge_footprint_sky)",
               ucd="meta.code"),
        Column("flags", "i4", "All flags as bits", ucd="meta.code"),
        *(Column(f"flag_{name}", "?", f"Bit {bit} of flags: {name}", ucd="meta.code")
          for name, bit in PARENT_FLAGS.items()),
    )  # fmt: skip


def peak_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Columns of PEAKS (`detect_merge` design page, section 12.1)."""
    return (
        Column("id", "i8", "Identifier", ucd="meta.id;meta.main"),
        Column("parent", "i8", "Identifier of the parent", ucd="meta.id.parent"),
        Column("ix", "i4", "Column of the peak pixel, parent coordinates", _PIXEL,
               "pos.cartesian.x;instr.det"),
        Column("iy", "i4", "Row of the peak pixel, parent coordinates", _PIXEL,
               "pos.cartesian.y;instr.det"),
        *_POSITION,
        Column("flux", "f4", "PSF flux at the peak", unit, "phot.flux"),
        Column("flux_err", "f4", "Error of flux", unit, "stat.error;phot.flux"),
        Column("snr", "f4", "Significance of the peak", "", "stat.snr"),
        Column("value", "f4", "Smoothed image at the peak (peakValue)", unit,
               "phot.flux;stat.max"),
        Column("scale", "f4", "Filter width of the peak in PSF widths", ucd="arith.ratio"),
        Column("rank", "i4", "Rank inside the parent, 0: most significant", "", "stat.rank"),
        Column("core", "i4", "Index of the ungrown component, -1: none", ucd="meta.id"),
        Column("band", "U16", "Band that founded the peak", "", "meta.id"),
        Column("n_band", "i2", "Bands that detected the peak", "", "meta.number"),
        Column("n_near", "i2", "Bands with a near miss", "", "meta.number"),
        *(Column(f"merge_peak_{column_suffix(b)}", "?",
                 f"Peak detected in {b} (merge_peak_{b})", ucd="meta.code") for b in bands),
        *(Column(f"near_{column_suffix(b)}", "?",
                 f"A peak in {b} lay between the same-peak and new-peak limits",
                 ucd="meta.code") for b in bands),
        *(Column(f"src_{column_suffix(b)}", "i8", f"Identifier of the peak in {b}, 0: none",
                 ucd="meta.id.cross") for b in bands),
        Column("merge_peak_sky", "?", "Sky object (merge_peak_sky)", ucd="meta.code"),
        Column("flags", "i4", "Bits: 1 no sub-pixel position, 2 no maximum, 4 maximum masked",
               ucd="meta.code"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detections:
    """Parents with footprints and peaks, of one band (`det/1`) or merged (`merged/1`).

    Guarantees: parents are pairwise disjoint in pixels; each has at least one peak; every peak
    pixel lies in its parent's footprint; peak pixels are unique; ``peaks`` is sorted by parent
    row, then rank; ``parents[i]`` owns ``peaks[peak0:peak0 + npeak]`` and ``footprints`` row i.

    Parameters
    ----------
    bands : tuple of str
        Contributing bands, most trusted first.
    parents : structured array
        `parent_columns`.
    peaks : structured array
        `peak_columns`.
    footprints : FootprintSet
        Of the parents, in the same order.
    box : Box
        The pixel grid searched.
    cores : FootprintSet, optional
        Components before growth; ``peaks["core"]`` counts in it.
    culled : structured array, optional
        Peaks removed by culling, `peak_columns`.
    wcs : tuple of str
        WCS cards of the grid, verbatim.
    unit : str
        Unit of the fluxes.
    meta : mapping
        Header values: thresholds, PSF widths, limits used.
    """

    bands: tuple[str, ...]
    parents: NDArray[Any]
    peaks: NDArray[Any]
    footprints: FootprintSet
    box: Box
    cores: FootprintSet | None = None
    culled: NDArray[Any] | None = None
    wcs: tuple[str, ...] = ()
    unit: str = ""
    meta: Mapping[str, HeaderValue] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Detections(bands={self.bands}, {len(self.parents)} parents, "
            f"{len(self.peaks)} peaks, {self.box})"
        )

    def __len__(self) -> int:
        return len(self.parents)

    def peaks_of(self, index: int) -> NDArray[Any]:
        """Rows of PEAKS of one parent."""
        first = int(self.parents["peak0"][index])
        return self.peaks[first : first + int(self.parents["npeak"][index])]


@dataclass(frozen=True, slots=True)
class SourceList:
    """Sources of another program's catalogue; all arrays have shape (n,), NaN: unknown.

    Parameters
    ----------
    x, y : array, float64
        Positions, parent coordinates.
    flux, flux_err, snr : array, float64
    a, b, theta : array, float64
        Ellipse: semi-axes (pixel) and angle of the first from x to y (radian).
    label : array, int64
        Value in the segmentation image, 0: unknown.
    program : str
        Who wrote it: ``sextractor``, ``sep``, ``photutils`` or ``table``.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_err: NDArray[np.float64]
    snr: NDArray[np.float64]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    theta: NDArray[np.float64]
    label: NDArray[np.int64]
    program: str = "table"

    def __len__(self) -> int:
        return len(self.x)
