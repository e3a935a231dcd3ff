"""Columns agree with plain loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.catalog import empty_table
from coblend.core.reconstruct.columns import MEASURED
from coblend.core.reconstruct.frames import Frames
from coblend.core.reconstruct.measure import (
    measure_chi2,
    measure_light,
    measure_overlap,
    on_border,
)
from coblend.core.reconstruct.share import Pieces
from coblend.core.reconstruct.stamps import Stamps


def gaussian(y0: float, x0: float, sigma: float, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / (2 * sigma**2))


def overlap_of(*images: np.ndarray) -> np.ndarray:
    size = images[0].shape
    table = empty_table(MEASURED, len(images))
    n = size[0] * size[1]
    none = np.zeros(n, bool)
    frames = Frames(np.array([[0, 0, *size]]), ~none, np.zeros(n, np.float32),
                    np.ones(n, np.float32), none, none)  # fmt: skip
    stamps = Stamps(
        np.array([[0, 0, *size]] * len(images)), np.concatenate([i.ravel() for i in images])
    )
    measure_overlap(table, frames, stamps, np.arange(len(images)), np.zeros(len(images), int))
    return table


@pytest.mark.parametrize("distance", [0, 2, 5, 9])
def test_blendedness_of_two_gaussians(distance: int) -> None:
    """Equal Gaussians at distance d: 1 - 1 / (1 + exp(-d^2 / 4 sigma^2))."""
    table = overlap_of(gaussian(40, 40, 3, 81), gaussian(40, 40 + distance, 3, 81))
    expected = 1 - 1 / (1 + np.exp(-(distance**2) / (4 * 9)))
    assert table["blendedness"] == pytest.approx([expected] * 2, abs=1e-5)
    assert table["flux_overlap_frac"] == pytest.approx([1.0, 1.0], abs=1e-5)


def test_objects_apart_do_not_overlap() -> None:
    a, b = np.zeros((9, 9)), np.zeros((9, 9))
    a[:3], b[5:] = 2.0, 3.0
    table = overlap_of(a, b)
    for name in ("max_overlap", "flux_overlap", "flux_overlap_frac", "blendedness"):
        assert table[name].tolist() == [0.0, 0.0]


def test_overlap_equals_the_formula_over_the_whole_frame(rng: np.random.Generator) -> None:
    images = rng.random((4, 12, 12)) * (rng.random((4, 12, 12)) < 0.5)
    table = overlap_of(*images)
    total = images.sum(0)
    for k, own in enumerate(images):
        inside = own > 0
        left = (total - own) * inside
        assert table["max_overlap"][k] == pytest.approx(left.max(), rel=1e-6)
        assert table["flux_overlap"][k] == pytest.approx(left.sum(), rel=1e-6)
        assert table["flux_overlap_frac"][k] == pytest.approx(left.sum() / own.sum(), rel=1e-6)
        purity = (own * own).sum() / (total * own).sum()
        assert table["blendedness"][k] == pytest.approx(1 - purity, rel=1e-5)


def test_an_empty_model_has_no_blendedness() -> None:
    table = overlap_of(np.zeros((5, 5)), np.ones((5, 5)))
    assert np.isnan(table["blendedness"][0])
    assert table["flux_overlap_frac"][0] == 0.0


@pytest.fixture
def frames(rng: np.random.Generator) -> Frames:
    n = 30
    variance = rng.uniform(1, 2, n).astype(np.float32)
    no_data = np.zeros(n, bool)
    no_data[4] = True
    variance[4] = np.inf
    bad = no_data.copy()
    bad[[5, 6]] = True
    return Frames(np.array([[0, 0, 5, 6]]), np.ones(n, bool),
                  rng.normal(size=n).astype(np.float32), variance, bad, no_data)  # fmt: skip


def test_light_equals_plain_sums(frames: Frames, rng: np.random.Generator) -> None:
    owner, pixel = np.nonzero(rng.random((3, 30)) < 0.7)
    owner[owner == 1] = 2  # object 1 has nothing
    share = rng.random(len(owner))
    pieces = Pieces(owner, pixel, share, np.full(len(owner), -1))
    light = share * frames.image[pixel]
    table = empty_table(MEASURED, 3)
    peak = np.array([pixel[0], 7, -1])
    measure_light(table, frames, pieces, light, peak)
    for k in (0, 2):
        mine = owner == k
        assert table["n_pix"][k] == mine.sum()
        assert table["flux"][k] == pytest.approx(light[mine].sum())
        known = mine & ~frames.no_data[pixel]
        error2 = (share[known] ** 2 * frames.variance[pixel[known]]).sum()
        assert table["flux_err"][k] == pytest.approx(np.sqrt(error2), rel=1e-6)
        assert table["coverage"][k] == pytest.approx(1 - frames.no_data[pixel[mine]].mean())
        assert table["bad_frac"][k] == pytest.approx(frames.bad[pixel[mine]].mean())
    assert table["peak_flux"][0] == pytest.approx(light[0])
    assert np.isnan(table["peak_flux"][2])
    assert table["n_pix"][1] == 0
    assert np.isnan(table["flux"][1])


def test_chi2_skips_pixels_without_data(frames: Frames) -> None:
    pieces = Pieces(np.zeros(30, int), np.arange(30), np.ones(30), np.full(30, -1))
    table = empty_table(MEASURED, 2)
    model = np.full(30, 0.3)
    measure_chi2(table, frames, pieces, model)
    good = ~frames.no_data
    expected = np.mean((frames.image[good] - 0.3) ** 2 / frames.variance[good])
    assert table["chi2"][0] == pytest.approx(expected)
    assert np.isnan(table["chi2"][1])


def test_border_of_frames() -> None:
    n = 12 + 1
    full = np.ones(n, bool)
    frames = Frames(
        np.array([[0, 0, 3, 4], [9, 9, 1, 1]]), full, np.zeros(n), np.ones(n), full, full
    )
    inner = np.flatnonzero(~on_border(frames, np.arange(n)))
    assert inner.tolist() == [5, 6]
