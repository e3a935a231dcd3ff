"""Cutting parents out of exposures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import ShapeMismatchError
from coblend.core.exposure import Exposure
from coblend.core.model import ModelSet
from coblend.core.reconstruct.frames import chunk_parents, cut_frames, near_parents


@pytest.fixture
def models(rng: np.random.Generator, scenes) -> ModelSet:
    return scenes.make_models(rng, 9)


@pytest.fixture
def exposure(models: ModelSet, rng: np.random.Generator, scenes) -> Exposure:
    return scenes.make_exposure(models, "g", rng)


def test_frames_hold_the_pixels_of_the_boxes(models: ModelSet, exposure: Exposure) -> None:
    exposure.mask[60:80] = 1 << exposure.planes.bits["SAT"]
    exposure.image[100, 100] = np.nan
    exposure.variance[101, 100] = 0.0
    frames = cut_frames(models, exposure, ("SAT",))
    for i, (y0, x0, ny, nx) in enumerate(frames.boxes.tolist()):
        part = slice(*frames.offsets[i : i + 2])
        here = Box(y0, x0, ny, nx).slices(models.box)
        good = np.isfinite(exposure.image[here]) & (exposure.variance[here] > 0)
        image = np.where(good, exposure.image[here], 0)
        assert np.array_equal(frames.image[part], image.ravel())
        assert np.array_equal(frames.no_data[part], ~good.ravel())
        assert np.array_equal(frames.bad[part], (~good | (exposure.mask[here] != 0)).ravel())
        assert np.all(np.isinf(frames.variance[part][~good.ravel()]))
        mask = models.footprints.mask(i, Box(y0, x0, ny, nx))
        assert np.array_equal(frames.inside[part], mask.ravel())


def test_without_an_exposure_nothing_has_data(models: ModelSet) -> None:
    frames = cut_frames(models, None)
    assert frames.no_data.all()
    assert frames.inside.sum() == models.footprints.areas.sum()


def test_chunks_cover_all_rows_within_the_limit(models: ModelSet) -> None:
    rows = np.array([0, 1, 2, 4, 5, 8])
    cost = models.parents["ny"] * models.parents["nx"] * (1 + models.parents["n_child"])
    chunks = chunk_parents(models.parents, rows, limit=12000)
    assert [r for first, last in chunks for r in range(first, last)] == rows.tolist()
    assert all(cost[first:last].sum() <= 12000 or last == first + 1 for first, last in chunks)
    assert len(chunk_parents(models.parents, rows, limit=1)) == 6
    assert chunk_parents(models.parents, np.arange(9), limit=1 << 40) == [(0, 9)]


def test_near_parents(models: ModelSet) -> None:
    assert near_parents(models.parents, np.array([4]), 0).tolist() == [4]
    assert near_parents(models.parents, np.array([4]), 40).tolist() == list(range(9))
    assert near_parents(models.parents, np.array([0]), 40).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("radius", [0, 1, 7])
def test_near_parents_equal_brute_force(rng: np.random.Generator, radius: int) -> None:
    """Boxes of all sizes, some of them alike, some far outside the chosen ones."""
    parents = np.zeros(200, [(name, np.int32) for name in ("y0", "x0", "ny", "nx")])
    for name, high in (("y0", 300), ("x0", 300), ("ny", 12), ("nx", 12)):
        parents[name] = rng.integers(1, high, 200) - (100 if high == 300 else 0)
    parents["ny"][:3] = 60
    for n_row in (0, 1, 5, 60, 200):
        rows = np.sort(rng.choice(200, n_row, replace=False))
        low = np.stack([parents["y0"], parents["x0"]], 1)
        high = low + np.stack([parents["ny"], parents["nx"]], 1)
        apart = (low[:, None] >= high[rows] + radius) | (high[:, None] <= low[rows] - radius)
        expected = np.flatnonzero((~apart.any(2)).any(1))
        assert near_parents(parents, rows, radius).tolist() == expected.tolist()


def test_a_parent_outside_the_exposure_is_refused(models: ModelSet, exposure: Exposure) -> None:
    small = replace(
        exposure,
        image=exposure.image[:-60].copy(), mask=exposure.mask[:-60].copy(),
        variance=exposure.variance[:-60].copy(),
        box=Box(models.box.y0, models.box.x0, models.box.ny - 60, models.box.nx),
    )  # fmt: skip
    with pytest.raises(ShapeMismatchError, match=r"band g covers .*; 3 parents are not inside"):
        cut_frames(models, small)
    frames = cut_frames(models, small, partial=True)
    assert 0 < frames.no_data.sum() < len(frames.no_data)
    assert np.all(frames.image[frames.no_data] == 0)
