"""The reference system's steps: the schemes by their formulas, and fits that come out alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coblend.core.deblend.blend import deblend_batch
from coblend.core.deblend.fitting.adaprox import (
    SCHEMES,
    accelerated_point,
    adaptive_move,
    spectrum_step,
)
from coblend.core.params.deblend import DeblendParams

B1, B2, EPS = 0.9, 0.999, 1e-8


def plain(scheme: str, gradients: np.ndarray) -> list[float]:
    """One parameter, step by step, as the papers have it."""
    m = v = peak = 0.0
    moves = []
    for it, g in enumerate(gradients):
        t = it + 1
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        peak = max(peak, v)
        if scheme in ("amsgrad", "adamx"):
            move = m / np.sqrt(max(peak, EPS))
        elif scheme == "padam":
            move = m / max(peak, EPS) ** 0.25
        elif scheme == "adam":
            move = m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPS)
        elif scheme == "nadam":
            move = (B1 * m + (1 - B1) * g) / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPS)
        else:
            limit = 2 / (1 - B2) - 1
            length = limit - 2 * t * B2**t / (1 - B2**t)
            move = m / (1 - B1**t)
            if length > 4:
                r = np.sqrt((length - 4) * (length - 2) * limit
                            / ((limit - 4) * (limit - 2) * length))  # fmt: skip
                move /= max(np.sqrt(v / (1 - B2**t)) / r, np.sqrt(EPS))
        moves.append(move * (0.1 if it == 0 else 1.0))
    return moves


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_follow_their_formulas(rng: np.random.Generator, scheme: str) -> None:
    gradients = rng.normal(size=(12, 5)).astype(np.float32)
    moments = np.zeros((3, 5), np.float32)
    for it, gradient in enumerate(gradients):
        move = adaptive_move(moments, gradient, scheme, it)
        for k in range(5):
            expected = plain(scheme, gradients[: it + 1, k].astype(float))[-1]
            assert move[k] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_floor_keeps_round_off_from_becoming_a_step() -> None:
    tiny = np.full(3, 1e-6, np.float32)
    wild = adaptive_move(np.zeros((3, 3), np.float32), tiny, "adam", 1)
    calm = adaptive_move(np.zeros((3, 3), np.float32), tiny, "adam", 1, 1.0)
    assert np.abs(wild).min() > 1e-2
    assert np.abs(calm).max() < 1e-5


def test_spectra_step_by_a_percent_but_at_least_a_tenth_of_the_noise() -> None:
    spectra = np.array([[100.0, 300.0], [0.1, 0.3]], np.float32)
    assert np.allclose(spectrum_step(spectra), [[2.0], [0.1]])


def test_acceleration_starts_without_momentum() -> None:
    new, old = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    point, t = accelerated_point(new, old, np.ones(1))
    assert point.tolist() == [[1, 1]]
    assert t[0] == pytest.approx((1 + np.sqrt(5)) / 2)
    point, _ = accelerated_point(new, old, t)
    assert (point > 1).all()


@pytest.mark.parametrize("changes", [
    {"optimizer": "adaprox"}, {"optimizer": "adaprox", "scheme": "nadam"}, {"optimizer": "fista"},
    dict(DeblendParams.PRESETS["reference"]),
])  # fmt: skip
def test_fits_agree_with_the_default(scenery: Callable[..., object], changes: dict) -> None:
    flux = np.array([[2500.0] * 3, [1500.0] * 3])
    scene = scenery([(25, 20), (26, 30)], flux, (0.0, 2.0))
    (expected,) = deblend_batch(scene.batch, DeblendParams())
    (result,) = deblend_batch(scene.batch, replace(DeblendParams(max_iter=100), **changes))
    assert result.loss < 1.05 * expected.loss
    ratio = scene.redistributed(result).sum((2, 3)) / scene.redistributed(expected).sum((2, 3))
    assert np.abs(ratio - 1).max() < 0.06


# bad input


def test_a_gradient_of_zero_moves_nothing() -> None:
    for scheme in SCHEMES:
        moments = np.zeros((3, 4), np.float32)
        assert not adaptive_move(moments, np.zeros(4, np.float32), scheme, 0).any()
