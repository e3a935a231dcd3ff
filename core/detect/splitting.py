"""Cutting footprints of too many peaks into one per core.

Growth makes neighbours touch, and in crowded fields one chain of touching footprints can cover
the image. Only such footprints are cut; all others stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from coblend.core.components import group_spans
from coblend.core.detect.growth import share_growth
from coblend.core.footprint import FootprintSet, SpanIndex, raster_order


@dataclass(frozen=True, slots=True, eq=False)
class Parents:
    """Footprints and the cores in them.

    Parameters
    ----------
    footprints : FootprintSet
        n parents, array coordinates.
    core_parent : array, shape (n_core,), int64
        Parent of each core.
    origin : array, shape (n,), int64
        Number of the parent before any cut.
    cut : array, shape (n,), bool
        Whether it is a piece of that one.
    """

    footprints: FootprintSet
    core_parent: NDArray[np.int64]
    origin: NDArray[np.int64]
    cut: NDArray[np.bool_]

    @classmethod
    def whole(cls, footprints: FootprintSet, core_parent: NDArray[np.int64]) -> Parents:
        """Parents of which none is cut."""
        n = len(footprints)
        return cls(footprints, core_parent, np.arange(n), np.zeros(n, bool))


def cut_footprints(
    parents: Parents,
    cores: FootprintSet,
    seeds: NDArray[np.bool_],
    shape: tuple[int, int],
    radius: int,
) -> Parents:
    """Replace parents by one parent per core; each pixel goes to the nearest core.

    Parameters
    ----------
    parents : Parents
        Whole ones, in raster order of their first pixel.
    cores : FootprintSet
        Array coordinates.
    seeds : array, shape (n_core,), bool
        Cores that become parents: those with peaks, of the parents to cut. Other cores there go
        to the nearest of them, and so do pieces of the footprint that touch none.
    shape : tuple of int
        Rows and columns of the image.
    radius : int
        Of the growth, at least 2; pixels farther from a core are given away in further rounds.
    """
    n_old = len(parents.footprints)
    doomed = np.zeros(n_old, bool)
    doomed[parents.core_parent[seeds]] = True
    if not doomed.any():
        return parents
    old_spans, old_owner = parents.footprints.spans, parents.footprints.owner
    gone = doomed[old_owner]
    mine = seeds[cores.owner]
    part, part_core = cores.spans[mine], cores.owner[mine]
    order = raster_order(part)
    part, part_core = part[order], part_core[order]
    order = raster_order(old_spans[gone])
    grown, grown_owner = old_spans[gone][order], old_owner[gone][order]
    area, reached = _area(grown), -1
    while reached < _area(part) < area or reached < 0:
        reached = _area(part)
        part, part_core = share_growth(part, part_core, grown, shape, radius)
    apart = SpanIndex.build(part).find(grown[:, 0], grown[:, 1]) < 0
    owner = parents.core_parent[part_core]
    nearest = _nearest_spans(grown[apart], grown_owner[apart], part, owner)
    spans = np.concatenate([old_spans[~gone], part, grown[apart]])
    core = np.concatenate([part_core, part_core[nearest]])
    name = np.concatenate([old_owner[~gone], n_old + core])  # cores as n_old + core
    return _numbered(spans, name, parents, cores)


def _nearest_spans(
    spans: NDArray[np.int32],
    owner: NDArray[np.int64],
    others: NDArray[np.int32],
    other_owner: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Find for each span the nearest (by middle) of ``others`` that has the same owner.

    For pieces of a footprint without contact to any core: no growth reaches them.
    """
    if not len(spans):
        return np.zeros(0, np.int64)
    far = 4.0 * max(int(np.ptp(others[:, column])) + 1 for column in (0, 2)) + np.ptp(spans)
    places = [
        np.stack([s[:, 0], 0.5 * (s[:, 1] + s[:, 2]), far * o], axis=1)
        for s, o in ((spans, owner), (others, other_owner))
    ]
    return np.asarray(cKDTree(places[1]).query(places[0])[1], np.int64)


def _numbered(
    spans: NDArray[np.int32],
    name: NDArray[np.int64],
    parents: Parents,
    cores: FootprintSet,
) -> Parents:
    """Renumber footprints by first pixel; names from n_old on are cores that are parents now."""
    n_old = len(parents.footprints)
    order = raster_order(spans)
    spans, name = spans[order], name[order]
    first = np.full(n_old + len(cores), -1, np.int64)
    first[name[::-1]] = np.arange(len(name))[::-1]
    names = np.flatnonzero(first >= 0)
    names = names[np.argsort(first[names])]
    cut = names >= n_old
    origin = names.copy()
    origin[cut] = parents.core_parent[names[cut] - n_old]
    number = np.empty(n_old + len(cores), np.int64)
    number[names] = np.arange(len(names))
    owner = number[name]
    first_pixel = cores.spans[cores.offsets[:-1]]
    inside = SpanIndex.build(spans).find(first_pixel[:, 0], first_pixel[:, 1])
    return Parents(group_spans(spans, owner, len(names)), owner[inside], origin, cut)


def _area(spans: NDArray[np.int32]) -> int:
    return int(np.sum(spans[:, 2].astype(np.int64) - spans[:, 1] + 1))
