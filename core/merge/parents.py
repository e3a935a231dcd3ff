"""Parents of a merged catalogue: cores, cut of crowded ones, flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.components import group_spans, label_spans
from coblend.core.detect.assemble import brightest_of_uncut, set_parent_flag
from coblend.core.detect.splitting import Parents, cut_footprints
from coblend.core.detection import PARENT_FLAGS, Detections
from coblend.core.footprint import FootprintSet, SpanIndex, raster_order, union_spans


def union_cores(catalogues: Sequence[Detections]) -> FootprintSet:
    """Find the connected components of all cores."""
    spans = [own.spans for own in _own_cores(catalogues)]
    merged = union_spans(np.concatenate([np.empty((0, 3), np.int32), *spans]))
    labels, n = label_spans(merged)
    return group_spans(merged, labels, n)


def _own_cores(catalogues: Sequence[Detections]) -> list[FootprintSet]:
    """Cores of each catalogue; its footprints if it has none."""
    return [c.footprints if c.cores is None else c.cores for c in catalogues]


def cut_crowded(
    catalogues: Sequence[Detections],
    footprints: FootprintSet,
    cores: FootprintSet,
    peaks: NDArray[Any],
    owner: NDArray[np.int64],
    box: Box,
    max_peaks: int,
) -> Parents:
    """Cut parents of too many peaks into one per core with peaks; parent coordinates.

    ``owner`` is the parent of each peak. A piece of a parent that is connected to no such core,
    but holds a peak, is a parent too.
    """
    first = cores.spans[cores.offsets[:-1]]
    core_parent = containing(footprints, first[:, 0], first[:, 1])
    parents = Parents.whole(footprints, core_parent)
    crowded = np.bincount(owner, minlength=len(footprints)) > (max_peaks or np.inf)
    if not crowded.any():
        return parents
    has_peak = np.zeros(len(cores), bool)
    has_peak[peaks["core"][peaks["core"] >= 0]] = True
    seeds = crowded[core_parent] & has_peak
    pieces, piece_parent = _pieces_without_core(footprints, crowded, first[seeds], peaks)
    n_core = len(cores)
    cores = FootprintSet.concatenate([cores, pieces])
    core_parent = np.concatenate([core_parent, piece_parent])
    seeds = np.concatenate([seeds, np.ones(len(pieces), bool)])
    radius = max(2, *(int(c.meta.get("GROWRAD1", 4)) for c in catalogues))
    corner = np.array([box.y0, box.x0, box.x0], np.int32)
    local = Parents.whole(FootprintSet(footprints.spans - corner, footprints.offsets), core_parent)
    cut = cut_footprints(
        local,
        FootprintSet(cores.spans - corner, cores.offsets),
        seeds,
        box.shape,
        radius,
    )
    moved = FootprintSet(cut.footprints.spans + corner, cut.footprints.offsets)
    return Parents(moved, cut.core_parent[:n_core], cut.origin, cut.cut)


def _pieces_without_core(
    footprints: FootprintSet,
    crowded: NDArray[np.bool_],
    cores: NDArray[np.int32],
    peaks: NDArray[Any],
) -> tuple[FootprintSet, NDArray[np.int64]]:
    """Find connected pieces of crowded parents that have a peak but no core; and their parents.

    Footprints of other programs, and shares of footprints cut before, need not be connected.

    Parameters
    ----------
    cores : array, shape (n, 3), int32
        One span of each core that becomes a parent.
    """
    spans = union_spans(footprints.spans[crowded[footprints.owner]])
    labels, n = label_spans(spans)
    pieces = group_spans(spans, labels, n)
    piece = containing(pieces, peaks["iy"], peaks["ix"])
    wanted = np.zeros(n, bool)
    wanted[piece[piece >= 0]] = True
    wanted[containing(pieces, cores[:, 0], cores[:, 1])] = False
    pieces = pieces.select(np.flatnonzero(wanted))
    first = pieces.spans[pieces.offsets[:-1]]
    return pieces, containing(footprints, first[:, 0], first[:, 1])


def flag_parents(
    rows: NDArray[Any],
    catalogues: Sequence[Detections],
    bands: tuple[str, ...],
    parents: Parents,
    parent_of: NDArray[np.int64],
    cores: FootprintSet,
    max_peaks: int,
) -> None:
    """Set the bands of each parent, and the flags that any of its footprints has."""
    rows = rows[: len(parents.footprints)]  # the others are sky objects
    n_old = int(parent_of.max(initial=-1)) + 1
    first = 0
    has = np.zeros((n_old, len(bands)), bool)
    for i, catalogue in enumerate(catalogues):
        mine = parent_of[first : first + len(catalogue.parents)]
        first += len(catalogue.parents)
        has[mine, i] = True
        for name in PARENT_FLAGS:
            flagged = np.zeros(n_old, bool)
            flagged[mine[catalogue.parents[f"flag_{name}"]]] = True
            set_parent_flag(rows, name, flagged[parents.origin])
    has = has[parents.origin]
    if parents.cut.any():  # a piece has the bands of its cores, if it has cores
        own = np.zeros_like(has)
        for i, part in enumerate(_own_cores(catalogues)):
            core = containing(cores, part.spans[:, 0], part.spans[:, 1])
            own[parents.core_parent[core], i] = True
        known = parents.cut & own.any(axis=1)
        has[known] = own[known]
    for i, band in enumerate(bands):
        rows[f"merge_footprint_{column_suffix(band)}"] = has[:, i]
    set_parent_flag(rows, "split", parents.cut)
    rows["blob"] = brightest_of_uncut(rows, parents)
    if max_peaks:
        set_parent_flag(rows, "crowded", rows["npeak"] > max_peaks)


def containing(
    footprints: FootprintSet, y: NDArray[np.int32], x: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Find the footprint that holds each pixel, -1 if none does."""
    order = raster_order(footprints.spans)
    span = SpanIndex.build(footprints.spans[order]).find(y, x)
    owner = np.append(footprints.owner[order], -1)
    return np.asarray(owner[span])
