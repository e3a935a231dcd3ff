"""Overlap metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.deblend.metrics import add_up, merge, overlap, reduced_chi2


@pytest.mark.parametrize("distance", [2.0, 5.0, 9.0])
def test_blendedness_of_two_gaussians(distance: float) -> None:
    """``1 - 1 / (1 + exp(-d^2 / 4 sigma^2))`` for equal sources at distance d."""
    y, x = np.mgrid[:61, :61]
    window = slice(2, 63), slice(1, 62)
    models = [
        (window, np.exp(-((y - 30) ** 2 + (x - 30 - side * distance / 2) ** 2)[None] / 18.0))
        for side in (-1, 1)
    ]
    result = overlap(models)
    expected = 1 - 1 / (1 + np.exp(-(distance**2) / 36))
    assert np.abs(result.blendedness - expected).max() < 1e-3
    assert np.allclose(result.flux_overlap, result.flux[::-1], rtol=1e-5)
    assert np.allclose(result.flux_overlap_frac, 1, rtol=1e-5)
    assert np.allclose(result.max_overlap, 1, atol=0.06)


def test_a_lone_source_has_no_overlap(rng: np.random.Generator) -> None:
    model = rng.uniform(size=(2, 9, 9)).astype(np.float32)
    result = overlap([((slice(0, 9), slice(3, 12)), model)])
    assert np.abs(result.blendedness).max() < 1e-12
    assert result.max_overlap.max() == 0
    assert result.flux[0] == pytest.approx(model.sum((1, 2), dtype=float))


def test_chi2_of_noise_is_one(rng: np.random.Generator) -> None:
    shape = (3, 100, 100)
    chi2 = rng.normal(size=shape) ** 2
    usable = rng.uniform(size=shape) < 0.8
    rendered = np.zeros(shape)
    rendered[1, :50] = 1  # one band covers the pixel for all
    chi2[~usable] = 0
    assert reduced_chi2(chi2, usable, rendered) == pytest.approx(1, abs=0.05)


def test_patches_add_up_over_the_smallest_window() -> None:
    one = (slice(2, 4), slice(5, 9)), np.ones((1, 2, 4), np.float32)
    two = (slice(3, 6), slice(4, 6)), np.ones((1, 3, 2), np.float32)
    window, image = merge([one, two])
    assert window == (slice(2, 6), slice(4, 9))
    assert np.array_equal(add_up([(window, image)], (1, 7, 9)), add_up([one, two], (1, 7, 9)))
    assert image.sum() == 14


# bad input


def test_sources_without_light() -> None:
    dark = (slice(0, 5), slice(0, 5)), np.zeros((1, 5, 5), np.float32)
    result = overlap([dark, dark])
    assert np.isnan(result.blendedness).all()
    assert result.flux_overlap_frac.tolist() == [[0], [0]]
    assert np.isnan(reduced_chi2(np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool),
                                 np.zeros((1, 2, 2))))  # fmt: skip
