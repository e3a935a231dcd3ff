"""Cutting footprints of too many peaks into one per core.

Growth makes neighbours touch, and in crowded fields one chain of touching footprints can cover
the image. Only such footprints are cut; all others stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.components import group_spans
from coblend.core.detect.growth import share_growth
from coblend.core.footprint import FootprintSet, raster_order


@dataclass(frozen=True, slots=True, eq=False)
class Parents:
    """Footprints and the cores in them.

    Parameters
    ----------
    footprints : FootprintSet
        n parents in raster order of their first pixel, array coordinates.
    core_parent : array, shape (n_core,), int64
        Parent of each core.
    origin : array, shape (n,), int64
        For a footprint that was cut from another, that one's number before the cut; else -1.
    """

    footprints: FootprintSet
    core_parent: NDArray[np.int64]
    origin: NDArray[np.int64]

    @classmethod
    def whole(cls, footprints: FootprintSet, core_parent: NDArray[np.int64]) -> Parents:
        """Parents of which none is cut."""
        return cls(footprints, core_parent, np.full(len(footprints), -1, np.int64))


def cut_footprints(
    parents: Parents,
    cores: FootprintSet,
    cut: NDArray[np.bool_],
    shape: tuple[int, int],
    half_widths: NDArray[np.int64],
) -> Parents:
    """Replace the parents ``cut`` by one parent per core; each pixel goes to the nearest core.

    Parameters
    ----------
    parents : Parents
    cores : FootprintSet
        Array coordinates; every pixel of the parents to cut lies within the stencil of a core.
    cut : array, shape (n,), bool
    shape : tuple of int
        Rows and columns of the image.
    half_widths : array
        Stencil of the growth, from `stencil`.
    """
    if not cut.any():
        return parents
    footprints = parents.footprints
    old_spans, old_owner = footprints.spans, footprints.owner
    own_core = cut[parents.core_parent]
    core_spans, core_owner = cores.spans, cores.owner
    mine = own_core[core_owner]
    grown = cut[old_owner]
    order, grown_order = (
        np.flatnonzero(rows)[raster_order(spans[rows])]
        for rows, spans in ((mine, core_spans), (grown, old_spans))
    )
    part, part_core = share_growth(
        core_spans[order], core_owner[order], old_spans[grown_order], shape, half_widths
    )
    n_old = len(footprints)
    spans = np.concatenate([old_spans[~grown], part])
    owner = np.concatenate([old_owner[~grown], n_old + part_core])  # cores as n_old + core
    return _in_raster_order(spans, owner, np.where(own_core, n_old, 0), parents)


def _in_raster_order(
    spans: NDArray[np.int32],
    owner: NDArray[np.int64],
    moved: NDArray[np.int64],
    parents: Parents,
) -> Parents:
    """Renumber footprints by first pixel; ``moved`` > 0 marks cores that are parents now."""
    order = raster_order(spans)
    spans, owner = spans[order], owner[order]
    names, first, inverse = np.unique(owner, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    names_by_rank = names[np.argsort(first)]
    n_old = len(parents.footprints)
    new_name = np.where(moved > 0, n_old + np.arange(len(moved)), parents.core_parent)
    core_parent = rank[np.searchsorted(names, new_name)]
    is_cut = names_by_rank >= n_old
    origin = np.full(len(names), -1, np.int64)
    origin[is_cut] = parents.core_parent[names_by_rank[is_cut] - n_old]
    origin[~is_cut] = parents.origin[names_by_rank[~is_cut]]
    return Parents(group_spans(spans, rank[inverse], len(names)), core_parent, origin)
