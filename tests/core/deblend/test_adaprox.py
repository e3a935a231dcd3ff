"""The reference system's steps: the schemes by their formulas, and fits that come out alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coblend.core.deblend.blend import deblend_batch
from coblend.core.deblend.fitting.adaprox import SCHEMES, adaptive_move, spectrum_step
from coblend.core.model import FLAGS
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
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-4)])
def test_schemes_follow_their_formulas(
    rng: np.random.Generator, scheme: str, dtype: type, tolerance: float
) -> None:
    gradients = rng.normal(size=(12, 5)) * 10.0 ** np.arange(-3, 2)
    moments = np.zeros((3, 5), dtype)
    for it, gradient in enumerate(gradients):
        move = adaptive_move(moments, gradient.astype(dtype), scheme, it)
        assert move.dtype == dtype
        expected = [plain(scheme, gradients[: it + 1, k])[-1] for k in range(5)]
        assert np.allclose(move, expected, rtol=tolerance, atol=tolerance * np.abs(move).max())


@pytest.mark.peer
@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_equal_the_peers(rng: np.random.Generator, scheme: str) -> None:
    peer = pytest.importorskip("lsst.scarlet.lite.parameters", reason="no scarlet lite")
    theirs = peer.AdaproxParameter(
        np.zeros(9), step=1.0, grad=lambda g, _: g, prox=lambda x: x, scheme=scheme
    )
    moments, position = np.zeros((3, 9)), np.zeros(9)
    for it, gradient in enumerate(rng.normal(size=(30, 9)) * 10.0 ** np.arange(-4, 5)):
        position -= adaptive_move(moments, gradient, scheme, it)
        theirs.update(it, gradient)
        assert np.allclose(position, theirs.x, rtol=1e-12)


def test_floor_keeps_round_off_from_becoming_a_step() -> None:
    tiny = np.full(3, 1e-6, np.float32)
    wild = adaptive_move(np.zeros((3, 3), np.float32), tiny, "adam", 1)
    calm = adaptive_move(np.zeros((3, 3), np.float32), tiny, "adam", 1, 1.0)
    assert np.abs(wild).min() > 1e-2
    assert np.abs(calm).max() < 1e-5


def test_spectra_step_by_a_percent_but_not_less_than_the_least() -> None:
    spectra = np.array([[100.0, 300.0], [0.1, 0.3]])
    assert np.allclose(spectrum_step(spectra, 0.1, np.ones(2)), [[2, 2], [0.1, 0.1]])
    # the mean is taken in common units: of 100 and 3000
    assert np.allclose(spectrum_step(spectra[:1], 0.1, np.array([1.0, 10.0])), [[15.5, 1.55]])


@pytest.mark.parametrize("changes", [
    *({"optimizer": "adaprox", "scheme": scheme} for scheme in SCHEMES),
    {"optimizer": "fista"},
])  # fmt: skip
def test_fits_agree_with_the_default(scenery: Callable[..., object], changes: dict) -> None:
    flux = np.array([[2500.0] * 3, [1500.0] * 3])
    scene = scenery([(25, 20), (26, 30)], flux, (0.0, 2.0))
    (expected,) = deblend_batch(scene.batch, DeblendParams())
    (result,) = deblend_batch(scene.batch, replace(DeblendParams(max_iter=300), **changes))
    assert result.loss < 1.05 * expected.loss
    ratio = scene.redistributed(result).sum((2, 3)) / scene.redistributed(expected).sum((2, 3))
    # adam's first steps have full length, which a good start suffers from
    assert np.abs(ratio - 1).max() < 0.09


@pytest.mark.parametrize("preset", ["reference", "lsst"])
def test_fits_of_the_reference_system_share_light_alike(
    scenery: Callable[..., object], preset: str
) -> None:
    flux = np.array([[2500.0] * 3, [1500.0] * 3])
    scene = scenery([(25, 20), (26, 30)], flux, (0.0, 2.0))
    (expected,) = deblend_batch(scene.batch, DeblendParams())
    (result,) = deblend_batch(scene.batch, DeblendParams(**DeblendParams.PRESETS[preset]))
    assert expected.loss < result.loss < 1.15 * expected.loss
    ratio = scene.redistributed(result).sum((2, 3)) / scene.redistributed(expected).sum((2, 3))
    # adam's first steps have full length, which a good start suffers from
    assert np.abs(ratio - 1).max() < 0.09


@pytest.mark.parametrize("scheme", ["padam", "radam"])
def test_steps_that_grow_with_the_gradient_are_held_back(
    scenery: Callable[..., object], scheme: str
) -> None:
    """On bright blends both schemes overshoot; radam recovers with shorter steps, padam stops."""
    flux = np.array([[2e5] * 3, [1e5] * 3])
    batch = scenery([(25, 20), (26, 30)], flux, (0.0, 2.0)).batch
    params = DeblendParams(optimizer="adaprox", scheme=scheme, max_iter=40)
    (result,) = deblend_batch(batch, params)
    assert result.loss < (1.001 if scheme == "padam" else 0.6) * result.loss_init
    assert bool(result.flags & FLAGS["diverged"]) == (scheme == "padam")


# bad input


def test_a_gradient_of_zero_moves_nothing() -> None:
    for scheme in SCHEMES:
        moments = np.zeros((3, 4), np.float32)
        assert not adaptive_move(moments, np.zeros(4, np.float32), scheme, 0).any()
