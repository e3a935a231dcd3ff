"""Overlap metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.deblend.metrics import overlap, reduced_chi2


@pytest.mark.parametrize("distance", [2.0, 5.0, 9.0])
def test_blendedness_of_two_gaussians(distance: float) -> None:
    """``1 - 1 / (1 + exp(-d^2 / 4 sigma^2))`` for equal sources at distance d."""
    y, x = np.mgrid[:61, :61]
    models = np.stack([
        np.exp(-((y - 30) ** 2 + (x - 30 - side * distance / 2) ** 2) / 18.0)
        for side in (-1, 1)
    ])[:, None].astype(np.float32)  # fmt: skip
    result = overlap(models)
    expected = 1 - 1 / (1 + np.exp(-(distance**2) / 36))
    assert np.abs(result.blendedness - expected).max() < 1e-3
    assert np.allclose(result.flux_overlap, result.flux[::-1], rtol=1e-5)
    assert np.allclose(result.flux_overlap_frac, 1, rtol=1e-5)
    assert np.allclose(result.max_overlap, 1, atol=0.06)


def test_a_lone_source_has_no_overlap(rng: np.random.Generator) -> None:
    model = rng.uniform(size=(1, 2, 9, 9)).astype(np.float32)
    result = overlap(model)
    assert np.abs(result.blendedness).max() < 1e-12
    assert result.max_overlap.max() == 0
    assert result.flux[0] == pytest.approx(model[0].sum((1, 2), dtype=float))


def test_chi2_of_noise_is_one(rng: np.random.Generator) -> None:
    shape = (3, 100, 100)
    chi2 = rng.normal(size=shape) ** 2
    usable = rng.uniform(size=shape) < 0.8
    rendered = np.zeros(shape)
    rendered[1, :50] = 1  # one band covers the pixel for all
    chi2[~usable] = 0
    assert reduced_chi2(chi2, usable, rendered) == pytest.approx(1, abs=0.05)


# bad input


def test_sources_without_light() -> None:
    result = overlap(np.zeros((2, 1, 5, 5), np.float32))
    assert np.isnan(result.blendedness).all()
    assert result.flux_overlap_frac.tolist() == [[0], [0]]
    assert np.isnan(reduced_chi2(np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool),
                                 np.zeros((1, 2, 2))))  # fmt: skip
