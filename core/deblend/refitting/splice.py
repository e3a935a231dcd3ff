"""Replacing parents of a set of models, everything else staying as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.excerpt import part_of, starts_of
from coblend.core.footprint import FootprintSet
from coblend.core.model import ModelSet

_TABLES = ("parents", "blends", "objects", "components", "morph")
_SAME = 1e-5
"""PSFs that differ by less than this part of their peak are the same."""


def replace_parents(
    models: ModelSet, done: Mapping[int, ModelSet]
) -> tuple[ModelSet, NDArray[np.int64]]:
    """Put other results in the place of some parents.

    Parameters
    ----------
    models : ModelSet
    done : mapping of int to ModelSet
        Row of PARENTS and what stands there from now on: sets of one parent each, with the same
        columns.

    Returns
    -------
    models : ModelSet
    origin : array, shape (n_component,), int64
        Row in the old COMPONENTS of every component; -1: new.
    """
    models, cells = _with_psfs(models, done)
    starts = starts_of(models)
    pieces, origin = [], []
    last = 0
    for row in sorted(done):
        kept, components = part_of(models, starts, last, row)
        blends = done[row].blends.copy()
        blends["psf_cell"] = cells[row][blends["psf_cell"]]
        pieces += [kept, replace(done[row], blends=blends)]
        origin += [components, np.full(len(done[row].components), -1)]
        last = row + 1
    kept, components = part_of(models, starts, last, len(models.parents))
    return _join([*pieces, kept]), np.concatenate([*origin, components])


def _with_psfs(
    models: ModelSet, done: Mapping[int, ModelSet]
) -> tuple[ModelSet, dict[int, NDArray[np.int64]]]:
    """Add PSFs that are not there yet; number of each result's PSFs."""
    psfs, places = list(models.psfs), list(models.psf_cells)
    known = {psf.tobytes(): i for i, psf in reversed(list(enumerate(psfs)))}
    cells = {}
    for row, one in done.items():
        numbers = []
        for psf, place in zip(one.psfs, one.psf_cells, strict=True):
            key = psf.tobytes()
            if key not in known:
                known[key] = _like(psf, psfs)
            if known[key] == len(psfs):
                psfs.append(psf)
                places.append(place)
            numbers.append(known[key])
        cells[row] = np.array(numbers, np.int64)
    return replace(models, psfs=np.stack(psfs), psf_cells=np.stack(places)), cells


def _like(psf: NDArray[np.float32], psfs: list[NDArray[np.float32]]) -> int:
    """Find the first of ``psfs`` that is the same, their count if none is."""
    limit = _SAME * psf.max()
    return next((i for i, p in enumerate(psfs) if np.abs(p - psf).max() < limit), len(psfs))


def _join(pieces: list[ModelSet]) -> ModelSet:
    """All parents of several sets, in order; grid and PSFs of the first."""
    n = dict.fromkeys(_TABLES, 0)
    tables: dict[str, list[NDArray[Any]]] = {name: [] for name in _TABLES}
    offsets = [np.zeros(1, np.int64)]
    for one in pieces:
        own = {name: getattr(one, name).copy() for name in _TABLES}
        own["parents"]["blend0"] += n["blends"]
        own["blends"]["parent"] += n["parents"]
        own["blends"]["object0"] += n["objects"]
        own["blends"]["component0"] += n["components"]
        own["objects"]["component0"] += n["components"]
        own["components"]["object"] += n["objects"]
        offsets.append(one.morph_offsets[1:] + n["morph"])
        for name, rows in own.items():
            tables[name].append(rows)
            n[name] += len(rows)
    whole: dict[str, Any] = {name: np.concatenate(rows) for name, rows in tables.items()}
    footprints = FootprintSet.concatenate([one.footprints for one in pieces])
    return replace(
        pieces[0], **whole, footprints=footprints, morph_offsets=np.concatenate(offsets)
    )
