"""Deblended models: parents, blends, objects and their components, as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, per_band
from coblend.core.exposure import HeaderValue
from coblend.core.footprint import FootprintSet

MODEL_PSF_SIGMA = 0.8
"""Width of the model PSF: a pixel-integrated circular Gaussian (pixel)."""
MODEL_PSF_SIDE = 15
"""Side of the model PSF's stamp (pixel)."""
KERNEL_REGULARIZATION = 0.01
"""Default regularisation of difference kernels."""

FACTORIZED, CUBE, POINT = 0, 1, 2
"""Kinds of component: spectrum x morphology, a free cube, a point source."""

FLAGS: dict[str, int] = {
    "isolated": 1,
    "skipped_too_many_peaks": 2,
    "skipped_too_big": 4,
    "skipped_masked": 8,
    "skipped_pseudo": 16,
    "not_converged": 32,
    "failed": 64,
    "bands_missing": 128,
    "null": 256,
    "edge": 512,
    "corrupt": 1024,
    "psf_init": 2048,
    "degenerate": 4096,
    "recentred": 8192,
    "diverged": 16384,
    "no_data": 32768,
    "psf_only": 65536,
    "as_psf": 131072,
    "skipped": 262144,
    "child_failed": 524288,
    "spectrum_init": 1048576,
}
"""Values of the flags shared by PARENTS, BLENDS and OBJECTS."""

BOX_COLUMNS = (
    Column("y0", "i4", "First row of the box, parent coordinates", "pixel",
           "pos.cartesian.y;instr.det"),
    Column("x0", "i4", "First column of the box, parent coordinates", "pixel",
           "pos.cartesian.x;instr.det"),
    Column("ny", "i4", "Rows of the box", "pixel", "meta.number;instr.pixel"),
    Column("nx", "i4", "Columns of the box", "pixel", "meta.number;instr.pixel"),
)  # fmt: skip
"""Where a box is, in all tables that hold boxes."""
BOX_FIELDS = tuple(column.name for column in BOX_COLUMNS)
"""``y0, x0, ny, nx``."""
_FLAG_WORD = Column("flags", "i4", "All flags as bits", "", "meta.code")
_FLAG_TEXT = {
    "isolated": "Single peak, not modelled (deblend_skipped_isolatedParent)",
    "skipped_too_many_peaks": "More peaks than allowed (deblend_skipped_tooManyPeaks)",
    "skipped_too_big": "Footprint larger than allowed (deblend_skipped_parentTooBig)",
    "skipped_masked": "Too many masked pixels (deblend_skipped_masked)",
    "skipped_pseudo": "Sky or other pseudo source (deblend_skipped_isPseudo)",
    "not_converged": "A fit ran and did not converge (deblend_blendConvergenceFailedFlag)",
    "failed": "The fit failed (deblend_failed)",
    "bands_missing": "At least one band was left out (deblend_incompleteData)",
    "null": "No component: zero flux",
    "edge": "Model touches the border of the footprint or image (deblend_edgePixels)",
    "corrupt": "The stored model is damaged",
    "psf_init": "Started as a point source",
    "degenerate": "Same morphology as another component",
    "recentred": "Model maximum is not at the peak pixel",
    "diverged": "The fit was restarted with smaller steps",
    "no_data": "At least one band does not constrain the flux",
    "psf_only": "Fitted as a point source among too many peaks",
    "as_psf": "Single-band template is the PSF in some band (deblend_deblendedAsPsf)",
    "skipped": "Not fitted, by one of the rules skipped_... or the limits (deblend_skipped)",
    "child_failed": "The fit of a part failed (deblend_childFailed)",
    "spectrum_init": "Spectra were solved for before the fit (deblend_spectrumInitFlag)",
}
FLAG_COLUMNS = tuple(
    Column(f"flag_{name}", "?", _FLAG_TEXT[name], "", "meta.code") for name in FLAGS
)


def parent_columns() -> tuple[Column, ...]:
    """Columns of PARENTS."""
    return (
        Column("id", "i8", "Identifier (id)", "", "meta.id;meta.main"),
        *BOX_COLUMNS,
        Column("area", "i4", "Pixels of the footprint", "pixel**2", "phys.angArea;instr.pixel"),
        Column("n_peak", "i4", "Peaks before deblending (deblend_nPeaks)", "", "meta.number"),
        Column("n_child", "i4", "Objects produced (deblend_nChild)", "", "meta.number"),
        Column("n_component", "i4", "Components of its objects (deblend_nComponents)", "",
               "meta.number"),
        Column("blend0", "i4", "First row in BLENDS (0-based)", "", "meta.record"),
        Column("n_blend", "i4", "Rows in BLENDS", "", "meta.number"),
        Column("n_pass", "i2", "Coupling passes over its parts", "", "meta.number"),
        Column("n_iter", "i4", "Iterations of all its blends (deblend_iterations)", "",
               "meta.number"),
        Column("chi2", "f4", "Reduced chi-square of the fit (deblend_chi2)", "",
               "stat.fit.chi2"),
        Column("log_likelihood", "f8", "Minus half the weighted sum of squared residuals", "",
               "stat.likelihood"),
        Column("log_likelihood_init", "f8", "The same before the first iteration", "",
               "stat.likelihood"),
        Column("memory", "f4", "Memory that a fit was estimated to need", "Mbyte",
               "meta.number"),
        Column("error", "U25", "Reason of a failure, empty if none (deblend_error)", "",
               "meta.note"),
        _FLAG_WORD,
        *FLAG_COLUMNS,
    )  # fmt: skip


def blend_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Columns of BLENDS, one row per separately fitted blend."""
    return (
        Column("id", "i8", "Identifier", "", "meta.id;meta.main"),
        Column("parent", "i4", "Row in PARENTS (0-based)", "", "meta.record"),
        *BOX_COLUMNS,
        Column("object0", "i4", "First row in OBJECTS (0-based)", "", "meta.record"),
        Column("n_object", "i4", "Rows in OBJECTS", "", "meta.number"),
        Column("component0", "i4", "First row in COMPONENTS (0-based)", "", "meta.record"),
        Column("n_component", "i4", "Rows in COMPONENTS", "", "meta.number"),
        Column("psf_cell", "i4", "Row in PSF_CELLS (0-based)", "", "meta.record"),
        Column("n_iter", "i4", "Iterations of the fit (deblend_iterations)", "", "meta.number"),
        Column("chi2", "f4", "Reduced chi-square", "", "stat.fit.chi2"),
        Column("log_likelihood", "f8", "Minus half the weighted sum of squared residuals",
               "", "stat.likelihood"),
        Column("log_likelihood_init", "f8", "The same before the first iteration", "",
               "stat.likelihood"),
        *per_band((Column("sigma", "f4", "Pixel noise", "flux", "instr.det.noise"),), bands, unit),
        _FLAG_WORD,
    )  # fmt: skip


def object_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Columns of OBJECTS, one row per input peak."""
    flux = (
        Column("model_flux", "f4", "Flux of the model; isolated: PSF flux, low for galaxies "
               "(deblend_scarletFlux)", "flux", "phot.flux"),
        Column("model_flux_err", "f4", "Error of model_flux, shape fixed, noise uncorrelated",
               "flux", "stat.error;phot.flux"),
        Column("max_overlap", "f4", "Largest neighbour flux in a pixel (deblend_maxOverlap)",
               "flux", "phot.flux"),
        Column("flux_overlap", "f4", "Neighbour flux in the model (deblend_fluxOverlap)",
               "flux", "phot.flux"),
        Column("flux_overlap_frac", "f4",
               "flux_overlap over model_flux (deblend_fluxOverlapFraction)", "", "arith.ratio"),
        Column("blendedness", "f4", "1 - purity of the model (deblend_blendedness)", "",
               "arith.ratio"),
    )  # fmt: skip
    return (
        Column("id", "i8", "Identifier (id)", "", "meta.id;meta.main"),
        Column("parent", "i8", "Identifier of the parent (parent)", "", "meta.id.parent"),
        Column("blend", "i8", "Identifier of the blend, 0: none (deblend_blendId)", "",
               "meta.id.parent"),
        Column("blend_n_child", "i4", "Objects of the blend (deblend_blendNChild)", "",
               "meta.number"),
        Column("parent_n_peak", "i4", "Peaks of the parent (deblend_parentNPeaks)", "",
               "meta.number"),
        Column("parent_n_child", "i4", "Objects of the parent (deblend_parentNChild)", "",
               "meta.number"),
        Column("peak_id", "i8", "Identifier of the peak (deblend_peakId)", "", "meta.id.cross"),
        Column("x", "f8", "Sub-pixel x of the peak, parent coordinates", "pixel",
               "pos.cartesian.x;instr.det"),
        Column("y", "f8", "Sub-pixel y of the peak, parent coordinates", "pixel",
               "pos.cartesian.y;instr.det"),
        Column("ra", "f8", "Right ascension, ICRS (coord_ra)", "deg", "pos.eq.ra;meta.main"),
        Column("dec", "f8", "Declination, ICRS (coord_dec)", "deg", "pos.eq.dec;meta.main"),
        Column("ix", "i4", "Column of the peak pixel (deblend_peak_center_x)", "pixel",
               "pos.cartesian.x;instr.det"),
        Column("iy", "i4", "Row of the peak pixel (deblend_peak_center_y)", "pixel",
               "pos.cartesian.y;instr.det"),
        Column("component0", "i4", "First row in COMPONENTS (0-based)", "", "meta.record"),
        Column("n_component", "i4", "Rows in COMPONENTS (deblend_nComponents)", "",
               "meta.number"),
        Column("n_iter", "i4", "Iterations of the fit (deblend_iterations)", "", "meta.number"),
        Column("chi2", "f4", "Reduced chi-square over the object's pixels (deblend_chi2)", "",
               "stat.fit.chi2"),
        *per_band(flux, bands, unit),
        *per_band((
            Column("merge_peak", "?", "Peak detected in this band (merge_peak)", "", "meta.code"),
            Column("merge_footprint", "?", "Parent detected in this band (merge_footprint)", "",
                   "meta.code"),
        ), bands),
        _FLAG_WORD,
        *FLAG_COLUMNS,
    )  # fmt: skip


def star_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Further columns of OBJECTS that were deblended band by band; NaN unless a PSF fits."""
    return per_band((
        Column("psf_x", "f8", "x of the PSF that fits (deblend_psfCenter_x)", "pixel",
               "pos.cartesian.x;instr.det"),
        Column("psf_y", "f8", "y of the PSF that fits (deblend_psfCenter_y)", "pixel",
               "pos.cartesian.y;instr.det"),
        Column("psf_flux", "f4", "Flux of the PSF that fits (deblend_psf_instFlux)", "flux",
               "phot.flux"),
    ), bands, unit)  # fmt: skip


def component_columns(bands: Sequence[str], unit: str = "") -> tuple[Column, ...]:
    """Columns of COMPONENTS."""
    return (
        Column("object", "i4", "Row in OBJECTS (0-based)", "", "meta.record"),
        Column("kind", "i2", "0 factorised, 1 cube, 2 point source", "", "meta.code"),
        *BOX_COLUMNS,
        Column("peak_y", "i4", "Row of the centre, parent coordinates", "pixel",
               "pos.cartesian.y;instr.det"),
        Column("peak_x", "i4", "Column of the centre, parent coordinates", "pixel",
               "pos.cartesian.x;instr.det"),
        *per_band((Column("spectrum", "f4", "Amplitude of the morphology", "flux", "phot.flux"),),
                  bands, unit),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelSet:
    """Everything that `deblend` leaves behind.

    Rows are contiguous: the blends of a parent, the objects of a blend and the components of an
    object follow each other. Objects without a blend (isolated, skipped or failed parents)
    stand in parent order among the others.

    Parameters
    ----------
    bands : tuple of str
    parents, blends, objects, components : structured array
        `parent_columns`, `blend_columns`, `object_columns`, `component_columns`.
    footprints : FootprintSet
        Of the parents, in the same order.
    morph : array, shape (n_value,), float32
        Morphologies of all components, each its box in row-major order (largest value 1);
        ``kind`` CUBE: one such array per band; POINT: nothing.
    morph_offsets : array, shape (n_component + 1,), int64
        Component i owns ``morph[morph_offsets[i]:morph_offsets[i + 1]]``.
    psfs : array, shape (n_cell, n_band, k, k), float32
        Observed PSFs used in the fit.
    psf_cells : array, shape (n_cell, 2), float64
        ``y, x`` where they were evaluated, parent coordinates.
    box : Box
        The pixel grid of the exposures.
    kernel_reg : float
        Regularisation of the difference kernels (``KERNREG``).
    model_psf_sigma : float
        Width of the model PSF (pixel).
    unit : str
        Unit of all fluxes.
    wcs : tuple of str
        WCS cards of the grid, verbatim.
    meta : mapping
        Other header values.
    """

    bands: tuple[str, ...]
    parents: NDArray[Any]
    blends: NDArray[Any]
    objects: NDArray[Any]
    components: NDArray[Any]
    footprints: FootprintSet
    morph: NDArray[np.float32]
    morph_offsets: NDArray[np.int64]
    psfs: NDArray[np.float32]
    psf_cells: NDArray[np.float64]
    box: Box
    kernel_reg: float = KERNEL_REGULARIZATION
    model_psf_sigma: float = MODEL_PSF_SIGMA
    unit: str = ""
    wcs: tuple[str, ...] = ()
    meta: Mapping[str, HeaderValue] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"ModelSet(bands={self.bands}, unit={self.unit!r}, {len(self.parents)} parents, "
            f"{len(self.blends)} blends, {len(self.objects)} objects, "
            f"{len(self.components)} components, {self.box})"
        )

    def morphology(self, component: int) -> NDArray[np.float32]:
        """Morphology of one factorised component over its box, shape (ny, nx)."""
        row = self.components[component]
        part = self.morph[self.morph_offsets[component] : self.morph_offsets[component + 1]]
        return part.reshape(int(row["ny"]), int(row["nx"]))

    def spectra(self) -> NDArray[np.float32]:
        """Spectra of all components, shape (n_component, n_band), float32."""
        names = [c.name for c in per_band((Column("spectrum", "f4", ""),), self.bands)]
        if not len(self.components):
            return np.zeros((0, len(self.bands)), np.float32)
        return np.stack([self.components[n] for n in names], axis=1)


def box_of(row: Any) -> Box:
    """Box of one row of a table."""
    return Box(*(int(row[name]) for name in BOX_FIELDS))


def boxes_of(table: NDArray[Any]) -> NDArray[np.int64]:
    """Boxes ``y0, x0, ny, nx`` of all rows of a table, shape (n, 4), int64."""
    return np.stack([table[name].astype(np.int64) for name in BOX_FIELDS], axis=1)


def set_flag(table: NDArray[Any], rows: Any, name: str) -> None:
    """Set one flag in ``rows`` of PARENTS, BLENDS or OBJECTS: the bit, and its column if any."""
    table["flags"][rows] |= FLAGS[name]
    if f"flag_{name}" in (table.dtype.names or ()):
        table[f"flag_{name}"][rows] = True
