"""Some parents of a set of models with all that belongs to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.model import ModelSet


def starts_of(models: ModelSet) -> NDArray[np.int64]:
    """First rows in OBJECTS, BLENDS and COMPONENTS of each parent.

    Returns
    -------
    array, shape (n_parent + 1, 3), int64
        The last row holds the lengths of the tables.
    """
    ids = models.parents["id"]
    order, rows = np.argsort(ids), np.arange(len(ids) + 1)
    owner = order[np.searchsorted(ids, models.objects["parent"], sorter=order)]
    objects = np.searchsorted(owner, rows)
    blends = np.searchsorted(models.blends["parent"], rows)
    return np.stack([objects, blends, np.searchsorted(models.components["object"], objects)], 1)


def part_of(
    models: ModelSet, starts: NDArray[np.int64], first: int, last: int
) -> tuple[ModelSet, NDArray[np.int64]]:
    """Rows ``first`` to ``last`` (exclusive) of PARENTS with all that belongs to them.

    Parameters
    ----------
    models : ModelSet
    starts : array, shape (n_parent + 1, 3), int64
        From `starts_of`.
    first, last : int

    Returns
    -------
    part : ModelSet
        Its rows count from 0; PSFs and grid are those of ``models``.
    components : array, shape (n_component,), int64
        Rows of its components in ``models``.
    """
    object0, blend0, component0 = starts[first].tolist()
    object1, blend1, component1 = starts[last].tolist()
    parents = models.parents[first:last].copy()
    objects = models.objects[object0:object1].copy()
    blends = models.blends[blend0:blend1].copy()
    components = models.components[component0:component1].copy()
    parents["blend0"] -= blend0
    blends["parent"] -= first
    blends["object0"] -= object0
    blends["component0"] -= component0
    objects["component0"] -= component0
    components["object"] -= object0
    start, stop = models.morph_offsets[component0], models.morph_offsets[component1]
    part = replace(
        models, parents=parents, blends=blends, objects=objects, components=components,
        footprints=models.footprints.select(np.arange(first, last)),
        morph=models.morph[start:stop],
        morph_offsets=models.morph_offsets[component0 : component1 + 1] - start,
    )  # fmt: skip
    return part, np.arange(component0, component1)
