"""Connected components, worked out on spans instead of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from coblend.core.footprint import FootprintSet, SpanIndex, stable_order


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
    order = stable_order(labels)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(labels, minlength=n), out=offsets[1:])
    return FootprintSet(spans[order], offsets)


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
