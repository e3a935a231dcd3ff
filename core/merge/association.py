"""Which peaks survive when entries are joined.

Adding the peaks Q of a footprint (or of an absorbed entry) to an entry compares each q with the
entry's peaks as they were before. With d the distance to the nearest p, and the limits of the
band that is being added,

    d < max_same   q is p seen again: p takes its flags, q goes;
    d > min_new    q is new and joins;
    otherwise      q goes (the dead zone); p remembers that it was near.

Only peaks within ``max(max_same, min_new)`` of each other ever interact, so that all pairs come
from one tree search, and each pair meets in exactly one addition (afw: FootprintMergeList).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from coblend.core.merge.footprint_lists import FootprintLists
from coblend.core.merge.limits import Limits
from coblend.core.merge.tree import NEVER, EntryTree


@dataclass(frozen=True, slots=True, eq=False)
class Association:
    """What became of n peaks.

    Parameters
    ----------
    alive : array, shape (n,), bool
    source : array, shape (n, n_band), int64
        Peak of each band that was found to be this one, -1: none.
    near : array, shape (n, n_band), bool
        Bands with a peak in the dead zone around this one.
    """

    alive: NDArray[np.bool_]
    source: NDArray[np.int64]
    near: NDArray[np.bool_]

    @classmethod
    def begin(cls, lists: FootprintLists) -> Association:
        """Every peak alive, seen in its own band."""
        n = len(lists.y)
        source = np.full((n, lists.n_band), -1, np.int64)
        source[np.arange(n), lists.peak_band] = np.arange(n)
        return cls(np.ones(n, bool), source, np.zeros((n, lists.n_band), bool))

    def identify(self, q: NDArray[np.int64], p: NDArray[np.int64]) -> None:
        """Give p the bands of q; where several q bring one band, the last wins."""
        for band in range(self.source.shape[1]):
            fresh = (self.source[q, band] >= 0) & (self.source[p, band] < 0)
            self.source[p[fresh], band] = self.source[q[fresh], band]
        np.logical_or.at(self.near, p, self.near[q])
        self.alive[q] = False

    def drop(self, q: NDArray[np.int64], p: NDArray[np.int64]) -> None:
        """Let q go; p remembers its bands as near."""
        np.logical_or.at(self.near, p, self.near[q] | (self.source[q] >= 0))
        self.alive[q] = False


def close_pairs(
    lists: FootprintLists, root: NDArray[np.int64], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Pairs of peaks of one final entry, of different footprints, within ``radius``.

    Returns
    -------
    a, b : array, shape (n_pair,), int64
    distance2 : array, shape (n_pair,)
        Squared distance, exact for integer positions.
    """
    if radius < 0 or not len(lists.y):
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    positions = np.stack([lists.y, lists.x], axis=1).astype(np.float64)
    tree = cKDTree(positions, balanced_tree=False, compact_nodes=False)
    a, b = tree.query_pairs(radius + 1e-6, output_type="ndarray").T.astype(np.int64)
    owner = lists.peak_owner
    meet = (root[owner[a]] == root[owner[b]]) & (owner[a] != owner[b])
    a, b = a[meet], b[meet]
    return a, b, (lists.y[a] - lists.y[b]) ** 2 + (lists.x[a] - lists.x[b]) ** 2


def associate(lists: FootprintLists, tree: EntryTree, limits: Limits) -> Association:
    """Decide by the sequential rule, in rounds over all additions that can be decided.

    An addition is decided once every earlier one that concerns its peaks is.
    """
    state = Association.begin(lists)
    own_time = tree.time[lists.peak_owner]
    a, b, distance2 = close_pairs(lists, tree.root, limits.radius)
    q, p, time = _meetings(a, b, lists.peak_owner, tree)
    if not limits.adds:  # only founders' peaks are compared with
        first = (time == own_time[q]) & (own_time[p] > time)
        q, p, time, distance2 = q[first], p[first], time[first], distance2[first]
    place = tree.list_positions()[lists.peak_owner]
    order = np.lexsort((p, place[p], distance2, time, q))
    q, p, time, distance2 = q[order], p[order], time[order], distance2[order]
    while len(q):
        ready = _ready(q, p, time, len(state.alive))
        band = lists.footprint_band[tree.newcomer(time[ready])]
        _decide(state, q[ready], p[ready], distance2[ready], band, limits)
        left = ~ready & state.alive[q] & state.alive[p]
        q, p, time, distance2 = q[left], p[left], time[left], distance2[left]
    if not limits.adds:
        state.alive[own_time != NEVER] = False
    return state


def _meetings(
    a: NDArray[np.int64], b: NDArray[np.int64], owner: NDArray[np.int64], tree: EntryTree
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each pair: the newcomer q, the peak p already there, and when they meet.

    Both climb the tree, always the one that is absorbed first, until they are in one entry.
    """
    left, right = owner[a].copy(), owner[b].copy()
    time = np.zeros(len(a), np.int64)
    a_is_new = np.zeros(len(a), bool)
    apart = np.flatnonzero(left != right)
    while len(apart):
        t_left, t_right = tree.time[left[apart]], tree.time[right[apart]]
        climb = t_left < t_right
        a_is_new[apart] = climb
        time[apart] = np.where(climb, t_left, t_right)
        left[apart[climb]] = tree.into[left[apart[climb]]]
        right[apart[~climb]] = tree.into[right[apart[~climb]]]
        apart = apart[left[apart] != right[apart]]
    return np.where(a_is_new, a, b), np.where(a_is_new, b, a), time


def _ready(
    q: NDArray[np.int64], p: NDArray[np.int64], time: NDArray[np.int64], n: int
) -> NDArray[np.bool_]:
    """Pairs whose addition concerns no peak with an earlier undecided one."""
    earliest = np.full(n, NEVER)
    np.minimum.at(earliest, q, time)
    np.minimum.at(earliest, p, time)
    ready = (earliest[q] == time) & (earliest[p] == time)
    new = np.ones(len(q), bool)
    new[1:] = (q[1:] != q[:-1]) | (time[1:] != time[:-1])
    first = np.flatnonzero(new)
    return np.repeat(np.logical_and.reduceat(ready, first), np.diff(np.append(first, len(q))))


def _decide(
    state: Association,
    q: NDArray[np.int64],
    p: NDArray[np.int64],
    distance2: NDArray[Any],
    band: NDArray[np.int64],
    limits: Limits,
) -> None:
    """Decide for every q from its nearest p; pairs sorted by q, nearest first, all alive."""
    nearest = np.ones(len(q), bool)
    nearest[1:] = q[1:] != q[:-1]
    order = np.flatnonzero(nearest)
    order = order[np.argsort(-distance2[order], kind="stable")]
    q, p, distance2, band = q[order], p[order], distance2[order], band[order]
    min_new, max_same = limits.min_new[band], limits.max_same[band]
    same = (distance2 < max_same) & (max_same > 0)
    new = ~same & (min_new >= 0) & (distance2 > min_new)
    gone = ~same & ~new
    state.identify(q[same], p[same])
    state.drop(q[gone], p[gone])


def associate_by_band(
    lists: FootprintLists, root: NDArray[np.int64], limits: Limits
) -> Association:
    """Compare each band's peaks with those kept of earlier bands, in priority order.

    Unlike the sequential rule it never erases a peak of the first band, and does not depend on
    the order of footprints.
    """
    state = Association.begin(lists)
    band, entry = lists.peak_band, root[lists.peak_owner]
    apart = 4.0 * (limits.radius + 1)
    position = np.stack([lists.y, lists.x, entry * apart], axis=1).astype(np.float64)
    for b in range(1, lists.n_band):
        kept = np.flatnonzero(state.alive & (band < b))
        mine = np.flatnonzero(band == b)
        if not len(kept) or not len(mine):
            continue
        if not limits.adds:  # nothing is added to an entry that has peaks
            state.alive[mine[np.isin(entry[mine], entry[kept])]] = False
        if limits.radius < 0:
            continue
        distance, index = cKDTree(position[kept]).query(
            position[mine], distance_upper_bound=limits.radius + 1e-6
        )
        near = np.isfinite(distance)
        q, p = mine[near], kept[index[near]]
        distance2 = (lists.y[q] - lists.y[p]) ** 2 + (lists.x[q] - lists.x[p]) ** 2
        _decide(state, q, p, distance2, np.full(len(q), b), limits)
    return state
