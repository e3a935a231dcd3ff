"""Tables of `Detections` from footprints and peaks; for detecting, merging and importing alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.catalog import empty_table
from coblend.core.detect import identifiers
from coblend.core.detect.splitting import Parents
from coblend.core.detection import PARENT_FLAGS, parent_columns, peak_columns
from coblend.core.footprint import FootprintSet


def blank_peaks(bands: Sequence[str], n: int) -> NDArray[Any]:
    """PEAKS of ``n`` rows, unknown values NaN; not in a core, of no band."""
    peaks = empty_table(peak_columns(bands), n)
    peaks["core"] = -1
    return peaks


def assemble(
    bands: Sequence[str],
    footprints: FootprintSet,
    peaks: NDArray[Any],
    owner: NDArray[np.int64],
    *,
    order: ArrayLike,
    field_id: int,
    code: int,
    sky: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Fill what follows from geometry: offsets, boxes, centroids, ranks, identifiers.

    Parameters
    ----------
    bands : sequence of str
    footprints : FootprintSet
        n parents, parent coordinates; none empty.
    peaks : structured array
        `peak_columns` with pixels and values filled, in any order; every parent has one.
    owner : array, shape (n_peak,), int64
        Parent of each peak.
    order : array_like, shape (n_peak,), float
        What ranks the peaks of a parent, largest first; NaN last; ties by row, then column.
    field_id, code : int
        For `identifiers.encode`.
    sky : array, shape (n,), bool, optional
        Which parents are sky objects.

    Returns
    -------
    parents, peaks : structured array
    rows : array, shape (n_peak,), int64
        Which input row each peak was.
    """
    n = len(footprints)
    parents = empty_table(parent_columns(bands), n)
    is_sky = np.zeros(n, bool) if sky is None else sky
    value = np.nan_to_num(np.asarray(order, np.float64), nan=-np.inf)
    rows = np.lexsort((peaks["ix"], peaks["iy"], -value, owner))
    peaks, owner = peaks[rows], owner[rows]
    counts = np.bincount(owner, minlength=n)
    first = np.cumsum(counts) - counts
    parents["peak0"], parents["npeak"] = first, counts
    parents["span0"], parents["nspan"] = footprints.offsets[:-1], np.diff(footprints.offsets)
    boxes = footprints.boxes().T
    for name, column in zip(("box_y0", "box_x0", "box_ny", "box_nx"), boxes, strict=True):
        parents[name] = column
    parents["area"] = footprints.areas
    parents["y"], parents["x"] = centroids(footprints)
    peaks["rank"] = np.arange(len(peaks)) - first[owner]
    at = (peaks["iy"], peaks["ix"])
    peaks["id"] = np.where(
        is_sky[owner],
        identifiers.encode(field_id, code, identifiers.SKY_PEAK, *at),
        identifiers.encode(field_id, code, identifiers.PEAK, *at),
    )
    if n:
        head = (peaks["iy"][first], peaks["ix"][first])
        parents["id"] = np.where(
            is_sky,
            identifiers.encode(field_id, code, identifiers.SKY_PARENT, *head),
            identifiers.encode(field_id, code, identifiers.PARENT, *head),
        )
        parents["peak_snr"] = np.fmax.reduceat(peaks["snr"], first)
    peaks["parent"] = parents["id"][owner]
    return parents, peaks, rows


def centroids(footprints: FootprintSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area centroids ``y, x`` of footprints."""
    spans = footprints.spans.astype(np.float64)
    length = spans[:, 2] - spans[:, 1] + 1
    owner, n = footprints.owner, len(footprints)
    area = np.maximum(np.bincount(owner, weights=length, minlength=n), 1)
    y = np.bincount(owner, weights=length * spans[:, 0], minlength=n) / area
    x = np.bincount(owner, weights=length * (spans[:, 1] + spans[:, 2]) / 2, minlength=n) / area
    return y, x


def set_parent_flag(
    parents: NDArray[Any], name: str, rows: NDArray[np.bool_] | NDArray[np.int64]
) -> None:
    """Set one flag of some parents: its column and its bit."""
    parents[f"flag_{name}"][rows] = True
    parents["flags"][rows] |= 1 << PARENT_FLAGS[name]


def brightest_of_uncut(rows: NDArray[Any], parents: Parents) -> NDArray[np.int64]:
    """Find the brightest peak of the footprint that each parent was cut from.

    Returns
    -------
    array, shape (n,), int64
        Its identifier; 0 for parents that are no pieces.
    """
    blob = np.zeros(len(rows), np.int64)
    cut = np.flatnonzero(parents.cut)
    if len(cut):
        order = cut[np.lexsort((-rows["peak_snr"][cut], parents.origin[cut]))]
        _, first, group = np.unique(parents.origin[order], return_index=True, return_inverse=True)
        peak_bit = np.int64((identifiers.PEAK ^ identifiers.PARENT) << 31)
        blob[order] = (rows["id"][order[first]] | peak_bit)[group]
    return blob
