"""The order in which footprints join entries, as a tree.

The sequential rule adds footprints one by one to a list of entries. All that matters of it is,
for every footprint that is absorbed, *into* which entry and at what *time*; an entry bears the
number of the footprint that founded it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class EntryTree:
    """Who absorbed whom; all arrays have shape (n_footprint,).

    Parameters
    ----------
    into : array, int64
        The entry that absorbed this one; itself if none did.
    time : array, int64
        When; increasing along every path to the root; `NEVER` for roots.
    root : array, int64
        The entry it ended in.
    """

    into: NDArray[np.int64]
    time: NDArray[np.int64]
    root: NDArray[np.int64]

    def newcomer(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        """Footprint whose addition took place at each time."""
        return time // _ticks(len(self.into))

    def list_positions(self) -> NDArray[np.int64]:
        """Place of each footprint's peaks in the peak list of its final entry.

        An entry's own peaks come first, then those of what it absorbed, by time.
        """
        n = len(self.into)
        depth = np.zeros(n, np.int64)
        node = np.arange(n)
        while True:
            inner = self.into[node] != node
            if not inner.any():
                break
            depth += inner
            node = self.into[node]
        size = np.ones(n, np.int64)
        levels = [np.flatnonzero(depth == d) for d in range(1, int(depth.max(initial=0)) + 1)]
        for level in reversed(levels):
            np.add.at(size, self.into[level], size[level])
        position = np.zeros(n, np.int64)
        for level in levels:
            level = level[np.lexsort((self.time[level], self.into[level]))]
            before = np.cumsum(size[level]) - size[level]
            parent = self.into[level]
            new = np.ones(len(level), bool)
            new[1:] = parent[1:] != parent[:-1]
            group = np.cumsum(new) - 1
            position[level] = position[parent] + 1 + before - before[new][group]
        return position


def entry_tree(
    later: NDArray[np.int64], earlier: NDArray[np.int64], band: NDArray[np.int64]
) -> EntryTree:
    """Follow the sequential rule.

    A footprint without overlap founds an entry; one that overlaps entries joins the oldest,
    which first absorbs the others from old to new (afw: FootprintMergeList). Only footprints
    that bridge several entries need a loop.

    Parameters
    ----------
    later, earlier : array, shape (n_edge,), int64
        Overlaps, ascending in ``later``.
    band : array, shape (n_footprint,), int64
        Ascending.
    """
    n = len(band)
    into = np.arange(n)
    time = np.full(n, NEVER)
    root = np.arange(n)
    for b in range(1, int(band.max(initial=0)) + 1):
        edges = slice(*np.searchsorted(band[later], [b, b + 1]))
        if edges.start == edges.stop:
            continue
        pair = np.unique(later[edges] * n + root[earlier[edges]])
        who, entry = np.divmod(pair, n)
        first = np.flatnonzero(np.concatenate([[True], who[1:] != who[:-1]]))
        degree = np.diff(np.append(first, len(who)))
        bridge = np.flatnonzero(degree > 1)
        stops = first[bridge] + degree[bridge]
        _bridge(who[first[bridge]], first[bridge], stops, entry, into, time)
        single = first[degree == 1]
        _join(who[single], entry[single], into, time)
        root = _roots(into)
    return EntryTree(into, time, _roots(into))


def _bridge(
    footprints: NDArray[np.int64],
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
    entry: NDArray[np.int64],
    into: NDArray[np.int64],
    time: NDArray[np.int64],
) -> None:
    """Join the entries that each footprint overlaps, in order; writes ``into`` and ``time``."""
    tick = _ticks(len(into))
    absorbed: dict[int, int] = {}

    def alive(name: int) -> int:
        while name in absorbed:
            name = absorbed[name]
        return name

    for k, a, b in zip(footprints.tolist(), first.tolist(), stop.tolist(), strict=True):
        live = sorted({alive(name) for name in entry[a:b].tolist()})
        oldest = live[0]
        for i, other in enumerate(live[1:], 1):
            into[other], time[other] = oldest, k * tick + i
            absorbed[other] = oldest
        into[k], time[k] = oldest, k * tick + len(live)


def _join(
    footprints: NDArray[np.int64],
    entry: NDArray[np.int64],
    into: NDArray[np.int64],
    time: NDArray[np.int64],
) -> None:
    """Add footprints that overlap one entry each, after the bridges; writes in place."""
    now = footprints * _ticks(len(into)) + 1
    while True:
        gone = time[entry] < now
        if not gone.any():
            break
        entry = np.where(gone, into[entry], entry)
    into[footprints], time[footprints] = entry, now


def _ticks(n_footprint: int) -> int:
    """Count of the times that the addition of one footprint takes at most."""
    return n_footprint + 2


def _roots(into: NDArray[np.int64]) -> NDArray[np.int64]:
    root = into
    while True:
        above = into[root] if root is into else root[root]
        if np.array_equal(above, root):
            return root
        root = above
