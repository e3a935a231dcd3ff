"""Connected components, worked out on spans instead of pixels.

Spans are sorted by row, then column, and disjoint. Every pixel has the flat key
``(y - y_first) * stride + (x - x_first) + 1`` with two guard columns, so that keys of pixels in
neighbouring rows differ by ``stride`` and nothing wraps from one row into the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from coblend.core.footprint import FootprintSet, expand_runs


@dataclass(frozen=True, slots=True, eq=False)
class SpanIndex:
    """Disjoint spans in raster order, searchable by pixel.

    Parameters
    ----------
    spans : array, shape (n, 3), int32
        ``y, x_first, x_last`` (inclusive).
    starts, ends : array, shape (n,), int64
        Flat keys of the first and last pixels.
    stride : int
        Key difference of vertical neighbours.
    y0, x0 : int
        First row and column that the keys count from.
    """

    spans: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    stride: int
    y0: int
    x0: int

    @classmethod
    def build(cls, spans: NDArray[np.int32]) -> SpanIndex:
        """Index ``spans``, which must be in raster order and disjoint."""
        if not len(spans):
            empty = np.zeros(0, np.int64)
            return cls(spans, empty, empty, 2, 0, 0)
        wide = spans.astype(np.int64)
        y0, x0 = int(wide[0, 0]), int(wide[:, 1].min())
        stride = int(wide[:, 2].max()) - x0 + 3
        line = (wide[:, 0] - y0) * stride + (1 - x0)
        return cls(spans, line + wide[:, 1], line + wide[:, 2], stride, y0, x0)

    def find(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.int64]:
        """Index of the span that holds each pixel, -1 where none does."""
        y, x = np.asarray(y, np.int64), np.asarray(x, np.int64)
        if not len(self.starts):
            return np.full(y.shape, -1, np.int64)
        column = x - self.x0 + 1
        key = (y - self.y0) * self.stride + column
        span = np.searchsorted(self.starts, key, "right") - 1
        inside = (span >= 0) & (column > 0) & (column < self.stride - 1)
        inside &= key <= self.ends[span]
        return np.where(inside, span, -1)

    def touching(self, connectivity: int = 8) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of spans in neighbouring rows that touch.

        Returns
        -------
        counts : array, shape (n,), int64
            Number of spans of the next row that touch each span.
        below : array, shape (sum(counts),), int64
            Their indices, in the order of the spans.
        """
        reach = self.stride + (1 if connectivity == 8 else 0)
        near = self.stride - (1 if connectivity == 8 else 0)
        first = np.searchsorted(self.ends, self.starts + near)
        stop = np.searchsorted(self.starts, self.ends + reach, "right")
        counts = np.maximum(stop - first, 0)
        return counts, expand_runs(first, counts)


def label_spans(spans: NDArray[np.int32], connectivity: int = 8) -> tuple[NDArray[np.int64], int]:
    """Label the connected components of a set of pixels.

    Parameters
    ----------
    spans : array, shape (n, 3), int32
        Raster order, disjoint.
    connectivity : int
        4 or 8.

    Returns
    -------
    labels : array, shape (n,), int64
        Component of every span, numbered from 0 by first pixel in raster order.
    n_component : int
    """
    counts, below = SpanIndex.build(spans).touching(connectivity)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return graph_labels(offsets, below)


def graph_labels(
    offsets: NDArray[np.int64], neighbours: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Label the components of an undirected graph, numbered by their first node.

    Node i has the edges to ``neighbours[offsets[i]:offsets[i + 1]]``; one direction suffices.
    """
    n = len(offsets) - 1
    if not n:
        return np.zeros(0, np.int64), 0
    graph = csr_array((np.ones(len(neighbours), np.int8), neighbours, offsets), shape=(n, n))
    n_component, raw = connected_components(graph, directed=False)
    first = np.empty(n_component, np.int64)
    first[raw[::-1]] = np.arange(n)[::-1]
    rank = np.empty(n_component, np.int64)
    rank[np.argsort(first)] = np.arange(n_component)
    return rank[raw], int(n_component)


def edge_labels(
    a: NDArray[np.int64], b: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], int]:
    """Label the components of ``n`` nodes joined by the edges ``(a_i, b_i)``."""
    order = np.argsort(a, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(a, minlength=n))])
    return graph_labels(offsets.astype(np.int64), b[order])


def group_spans(spans: NDArray[np.int32], labels: NDArray[np.int64], n: int) -> FootprintSet:
    """Footprints 0 to ``n`` - 1 made of the spans with those labels; the span order is kept."""
    order = np.argsort(labels, kind="stable")
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(labels, minlength=n), out=offsets[1:])
    return FootprintSet(spans[order], offsets)


def raster_order(spans: NDArray[np.int32]) -> NDArray[np.int64]:
    """Index that sorts spans by row, then first column."""
    key = (spans[:, 0].astype(np.int64) << 32) + spans[:, 1]
    return np.argsort(key, kind="stable")


def join_runs(
    spans: NDArray[np.int32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Join spans that abut in a row and carry the same label; ``spans`` in (label, raster) order.

    Spans that overlap are joined too, so the result is canonical.
    """
    if not len(spans):
        return spans, labels
    new = np.ones(len(spans), bool)
    new[1:] = (
        (labels[1:] != labels[:-1])
        | (spans[1:, 0] != spans[:-1, 0])
        | (spans[1:, 1] > spans[:-1, 2] + 1)
    )
    first = np.flatnonzero(new)
    out = spans[first].copy()
    out[:, 2] = np.maximum.reduceat(spans[:, 2], first)
    return out, labels[first]
