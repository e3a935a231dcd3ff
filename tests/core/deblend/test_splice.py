"""Replacing parents: everything else stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.deblend.excerpt import part_of, starts_of
from coblend.core.deblend.refitting.splice import _with_psfs, replace_parents

BANDS = ("g", "r")
TABLES = ("parents", "blends", "objects", "components", "morph", "morph_offsets", "psfs")


@pytest.fixture
def models(rng, scenes):
    return scenes.make_models(rng, 12, BANDS, n_cell=2, psf=scenes.ringing_psf, kinds=True)


def single(models, row):
    """One parent as a set of its own, with its own PSFs only, as a refit returns it."""
    one, _ = part_of(models, starts_of(models), row, row + 1)
    cells, blends = np.unique(one.blends["psf_cell"]), one.blends.copy()
    blends["psf_cell"] = np.searchsorted(cells, blends["psf_cell"])
    return replace(one, blends=blends, psfs=one.psfs[cells], psf_cells=one.psf_cells[cells])


@pytest.mark.parametrize("rows", [[], [0], [3, 4], [11], list(range(12))])
def test_parents_replaced_by_themselves_change_nothing(models, rows) -> None:
    whole, origin = replace_parents(models, {row: single(models, row) for row in rows})
    for name in TABLES:
        assert getattr(whole, name).tobytes() == getattr(models, name).tobytes(), name
    assert whole.footprints.spans.tobytes() == models.footprints.spans.tobytes()
    new = np.isin(models.objects["parent"][models.components["object"]],
                  models.parents["id"][rows])  # fmt: skip
    np.testing.assert_array_equal(origin, np.where(new, -1, np.arange(len(models.components))))


def test_row_numbers_follow_when_a_parent_grows(models) -> None:
    """A parent takes the place of another that has fewer objects: all references stay right."""
    counts = np.bincount(np.searchsorted(models.parents["id"], models.objects["parent"]))
    small, large = int(np.argmin(counts)), int(np.argmax(counts))
    other = single(models, large)
    parents, objects = other.parents.copy(), other.objects.copy()
    parents["id"] = objects["parent"] = models.parents["id"][small]
    whole, _ = replace_parents(models, {small: replace(other, parents=parents, objects=objects)})
    assert len(whole.objects) == len(models.objects) + counts[large] - counts[small]
    for i, blend in enumerate(whole.blends):
        assert whole.parents["blend0"][blend["parent"]] == i
        rows = slice(blend["object0"], blend["object0"] + blend["n_object"])
        owner = whole.parents["id"][blend["parent"]]
        assert (whole.objects["parent"][rows] == owner).all()
        parts = slice(blend["component0"], blend["component0"] + blend["n_component"])
        assert np.isin(whole.components["object"][parts], np.arange(rows.start, rows.stop)).all()
    for i, row in enumerate(whole.objects):
        own = slice(row["component0"], row["component0"] + row["n_component"])
        assert (whole.components["object"][own] == i).all()
    assert whole.morph_offsets[-1] == len(whole.morph)


def test_new_psfs_are_appended(models) -> None:
    row = int(models.blends["parent"][0])
    one = single(models, row)
    blurred = replace(one, psfs=one.psfs[:, :, ::-1] * np.float32(0.9))
    whole, _ = replace_parents(models, {row: blurred})
    assert len(whole.psfs) == len(models.psfs) + 1
    assert whole.blends["psf_cell"][0] == len(models.psfs)
    np.testing.assert_array_equal(whole.psfs[: len(models.psfs)], models.psfs)


def test_psfs_of_many_parents_are_found_among_those_known(models) -> None:
    """Alike to the bit, nearly alike, new, and new for a second time: each cell is kept once."""
    one = single(models, 0)
    _, parents = np.unique(models.blends["parent"], return_index=True)
    factors = [1, 1 + 1e-6, 0.8, 0.8, 0.7, 0.8 * (1 + 1e-6)]
    done = {
        row: replace(one, psfs=models.psfs[1:2] * np.float32(factor), psf_cells=np.full((1, 2), i))
        for i, (row, factor) in enumerate(zip(parents.tolist(), factors, strict=False))
    }
    whole, cells = _with_psfs(models, done)
    assert [int(cells[row][0]) for row in done] == [1, 1, 2, 2, 3, 2]
    assert whole.psf_cells[2:].tolist() == [[2, 2], [4, 4]]
