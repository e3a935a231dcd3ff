"""Which footprints share pixels, and the union of all; on sorted spans, without images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.components import group_spans, join_runs
from coblend.core.footprint import FootprintSet, expand_runs, stable_order


@dataclass(frozen=True, slots=True, eq=False)
class SortedSpans:
    """Spans of all bands in raster order, with flat keys; spans of different bands may overlap.

    Parameters
    ----------
    spans : array, shape (n, 3), int32
    owner : array, shape (n,), int64
        Footprint of each span.
    starts, ends : array, shape (n,), int64
        Flat keys of first and last pixels, with guard columns between rows.
    stride : int
        Key difference of vertical neighbours.
    """

    spans: NDArray[np.int32]
    owner: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    stride: int

    @classmethod
    def build(cls, spans: NDArray[np.int32], owner: NDArray[np.int64]) -> SortedSpans:
        """Sort spans; equal starts keep their order."""
        if not len(spans):
            empty = np.zeros(0, np.int64)
            return cls(spans, owner, empty, empty, 1)
        x0 = int(spans[:, 1].min())
        stride = int(spans[:, 2].max()) - x0 + 3
        line = (spans[:, 0].astype(np.int64) - int(spans[:, 0].min()) + 1) * stride + (1 - x0)
        starts, ends = line + spans[:, 1], line + spans[:, 2]
        order = stable_order(starts)
        return cls(spans[order], owner[order], starts[order], ends[order], stride)


def overlap_edges(
    spans: SortedSpans, n_footprint: int, band: NDArray[np.int64], touch: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of footprints of different bands that share a pixel.

    Parameters
    ----------
    spans : SortedSpans
    n_footprint : int
    band : array, shape (n_footprint,), int64
    touch : bool
        Whether pixels that touch, also at a corner, are enough.

    Returns
    -------
    later, earlier : array, shape (n_edge,), int64
        Footprints, ``later > earlier``, each pair once, ascending.
    """
    edges = [_key(*_pairs(spans, 1 if touch else 0), n_footprint)]
    if touch:
        edges.append(_key(*_pairs_below(spans), n_footprint))
    later, earlier = np.divmod(np.unique(np.concatenate(edges)), max(n_footprint, 1))
    other = band[later] != band[earlier]
    return later[other], earlier[other]


def union_footprints(
    spans: SortedSpans, root: NDArray[np.int64]
) -> tuple[FootprintSet, NDArray[np.int64]]:
    """Union of the footprints with the same root.

    Parameters
    ----------
    spans : SortedSpans
    root : array, shape (n_footprint,), int64
        Footprints that overlap have equal roots.

    Returns
    -------
    footprints : FootprintSet
        In the order of the roots; canonical spans.
    roots : array, shape (n,), int64
    """
    roots, parent = np.unique(root, return_inverse=True)
    if not len(spans.starts):
        return FootprintSet.empty(), roots
    reach = np.maximum.accumulate(spans.ends)
    new = np.ones(len(reach), bool)
    new[1:] = spans.starts[1:] > reach[:-1]
    first = np.flatnonzero(new)
    merged = spans.spans[first].copy()
    merged[:, 2] = np.maximum.reduceat(spans.spans[:, 2], first)
    label = parent[spans.owner[first]]
    order = stable_order(label)
    merged, label = join_runs(merged[order], label[order])
    return group_spans(merged, label, len(roots)), roots


def _pairs(spans: SortedSpans, gap: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owners of spans of the same row that overlap or lie within ``gap`` pixels."""
    index = np.arange(len(spans.starts))
    stop = np.searchsorted(spans.starts, spans.ends + gap, "right")
    counts = stop - index - 1
    second = expand_runs(index + 1, counts)
    return np.repeat(spans.owner, counts), spans.owner[second]


def _pairs_below(spans: SortedSpans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owners of spans of neighbouring rows that touch, 8-connected.

    A span moved one row down and widened by one pixel meets the spans that start inside it; and
    a span moved up and widened those that start inside it. Together that is every pair.
    """
    parts = []
    for shift in (spans.stride, -spans.stride):
        first = np.searchsorted(spans.starts, spans.starts + shift - 1)
        stop = np.searchsorted(spans.starts, spans.ends + shift + 1, "right")
        counts = stop - first
        parts.append((np.repeat(spans.owner, counts), spans.owner[expand_runs(first, counts)]))
    (a, b), (c, d) = parts
    return np.concatenate([a, c]), np.concatenate([b, d])


def _key(a: NDArray[np.int64], b: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    different = a != b
    a, b = a[different], b[different]
    return np.maximum(a, b) * n + np.minimum(a, b)
