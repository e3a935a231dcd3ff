"""Peaks of the cores: positions, fluxes and significances."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from coblend.core.detect.cores import Cores
from coblend.core.detect.filtering import Template, flux_error
from coblend.core.detect.peaks import brightest_pixels, refine, regional_maxima, span_pixels
from coblend.core.detect.pixels import Pixels
from coblend.core.detection import PEAK_FLAGS
from coblend.core.footprint import SpanIndex


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """n peaks, array coordinates; all arrays have shape (n,).

    Parameters
    ----------
    pixel : array, int64
        Flat index of the peak pixel, usable and in a core.
    y, x : array, float64
        Sub-pixel position.
    snr : array, float64
        Significance, as in the map.
    flux_err : array, float64
        Error of the point-source flux with the variance plane given.
    scale : array, float64
        Filter width in PSF widths.
    core : array, int64
    flags : array, int32
        `PEAK_FLAGS`.
    """

    pixel: NDArray[np.int64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    snr: NDArray[np.float64]
    flux_err: NDArray[np.float64]
    scale: NDArray[np.float64]
    core: NDArray[np.int64]
    flags: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.pixel)

    def rows(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Peaks:
        """Return some of the peaks."""
        return replace(self, **{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def joined(self, other: Peaks) -> Peaks:
        """Return these peaks, then the others."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return replace(self, **{name: np.concatenate(pair) for name, pair in pairs.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """A map of significance and what it was made of.

    Parameters
    ----------
    pixels : Pixels
    template : Template
    snr : array, shape (ny, nx), float32
    scale : float
        Width of the template in PSF widths.
    """

    pixels: Pixels
    template: Template
    snr: NDArray[np.float32]
    scale: float = 1.0


def locate_peaks(
    found: Filtered, cores: Cores, *, level: float, every: bool = False, subpixel: bool = True
) -> Peaks:
    """Regional maxima of a map in the cores that reach ``level``.

    A maximum on an unusable pixel moves to the brightest usable pixel of its core, of its eight
    neighbours if there is one; the position stays.

    Parameters
    ----------
    found : Filtered
    cores : Cores
    level : float
    every : bool
        Report every pixel of a plateau.
    subpixel : bool
        Refine the positions.
    """
    nx = found.snr.shape[1]
    maxima = regional_maxima(found.snr, level, every)
    span = SpanIndex.build(cores.hull).find(*np.divmod(maxima, nx))
    maxima, core = maxima[span >= 0], cores.hull_labels[span[span >= 0]]
    peaks = peaks_at(found, cores, maxima, core, subpixel)
    order = np.lexsort((peaks.flags & PEAK_FLAGS["masked"], peaks.pixel))
    first = np.ones(len(order), bool)
    first[1:] = peaks.pixel[order][1:] != peaks.pixel[order][:-1]
    return peaks.rows(order[first])


def peaks_at(
    found: Filtered,
    cores: Cores,
    places: NDArray[np.int64],
    core: NDArray[np.int64],
    subpixel: bool = False,
) -> Peaks:
    """Peaks at given pixels of the hulls of ``core``; their own pixels are usable ones."""
    pixel, moved = _usable_pixels(found.snr, cores, places, core)
    flags = np.where(moved, PEAK_FLAGS["masked"], 0).astype(np.int32)
    return replace(_measure(found, places, core, flags, subpixel), pixel=pixel)


def fallback_peaks(found: Filtered, cores: Cores, peaks: Peaks) -> Peaks:
    """Brightest pixels of the cores that have no peak (at borders, beside unusable pixels)."""
    empty = np.ones(cores.n, bool)
    empty[peaks.core] = False
    mine = empty[cores.labels]
    spans = cores.spans[mine]
    label = np.repeat(cores.labels[mine], spans[:, 2] - spans[:, 1] + 1)
    snr = found.snr
    pixel, core = brightest_pixels(snr.ravel(), span_pixels(spans, snr.shape[1]), label)
    flags = np.full(len(pixel), PEAK_FLAGS["fallback"], np.int32)
    return _measure(found, pixel, core, flags, False)


def distant_peaks(peaks: Peaks, kept: Peaks, separation: float) -> Peaks:
    """Those of ``peaks`` farther than ``separation`` from every kept one."""
    if not len(kept) or not len(peaks):
        return peaks
    tree = cKDTree(np.stack([kept.y, kept.x], axis=1))
    distance, _ = tree.query(np.stack([peaks.y, peaks.x], axis=1))
    return peaks.rows((distance > separation) & ~np.isin(peaks.pixel, kept.pixel))


def replaced_peaks(peaks: Peaks, local: Peaks, n_core: int) -> Peaks:
    """Peaks after a search with a local background.

    A core of several peaks takes the new list if there is one, else keeps its brightest peak
    (meas_algorithms: SourceDetectionTask with a temporary local background).
    """
    several = np.bincount(peaks.core, minlength=n_core) > 1
    renewed = np.zeros(n_core, bool)
    renewed[local.core] = True
    order = np.lexsort((peaks.pixel, -peaks.snr, peaks.core))
    brightest = np.zeros(len(peaks), bool)
    _, first = np.unique(peaks.core[order], return_index=True)
    brightest[order[first]] = True
    stay = ~several[peaks.core] | (brightest & ~renewed[peaks.core])
    return peaks.rows(stay).joined(local.rows(several[local.core]))


def _usable_pixels(
    snr: NDArray[np.float32],
    cores: Cores,
    maxima: NDArray[np.int64],
    core: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Peak pixels for maxima of which some lie on unusable pixels, and which those are."""
    nx = snr.shape[1]
    none = np.zeros(len(maxima), bool)
    if cores.spans is cores.hull:
        return maxima, none
    index = SpanIndex.build(cores.spans)
    moved = index.find(*np.divmod(maxima, nx)) < 0
    if not moved.any():
        return maxima, none
    pixel = maxima.copy()
    mine = np.isin(cores.labels, core[moved])
    spans = cores.spans[mine]
    label = np.repeat(cores.labels[mine], spans[:, 2] - spans[:, 1] + 1)
    best, present = brightest_pixels(snr.ravel(), span_pixels(spans, nx), label)
    pixel[moved] = best[np.searchsorted(present, core[moved])]
    step = np.array([-nx - 1, -nx, -nx + 1, -1, 1, nx - 1, nx, nx + 1])
    beside = maxima[moved][:, None] + step
    usable = index.find(*np.divmod(beside, nx)) >= 0
    value = np.where(usable, snr.ravel().take(beside, mode="clip"), -np.inf)
    nearest = np.take_along_axis(beside, value.argmax(axis=1)[:, None], axis=1)[:, 0]
    pixel[moved] = np.where(usable.any(axis=1), nearest, pixel[moved])
    return pixel, moved


def _measure(
    found: Filtered,
    pixel: NDArray[np.int64],
    core: NDArray[np.int64],
    flags: NDArray[np.int32],
    subpixel: bool,
) -> Peaks:
    """Peaks at ``pixel`` with positions, significances and errors."""
    snr = found.snr
    y, x = np.divmod(pixel, snr.shape[1])
    dy, dx = np.zeros((2, len(pixel)))
    if subpixel:
        dy, dx, failed = refine(snr, pixel)
        flags = flags | np.where(failed, PEAK_FLAGS["nocentroid"], 0).astype(np.int32)
    return Peaks(
        pixel,
        y + dy,
        x + dx,
        snr.ravel()[pixel].astype(np.float64),
        flux_error(found.pixels, found.template, y, x),
        np.full(len(pixel), found.scale),
        core,
        flags,
    )
