"""Spectra: NNLS equals scipy's, an exact scene gives the true spectra, twins share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from scipy.signal import fftconvolve

from coblend.core.deblend.fitting import render, spectra
from coblend.core.deblend.fitting.components import Centres, stack_stamps
from coblend.core.deblend.fitting.observation import Frames, Observation
from coblend.core.deblend.fitting.spectra import (
    NormalEquations,
    covariance,
    nnls,
    normal_equations,
    solve,
)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_nnls_equals_the_reference_solver(rng: np.random.Generator, k: int) -> None:
    design = rng.uniform(-0.2, 1, (20, 30, k))
    data = rng.normal(size=(20, 30))
    gram = np.einsum("spk,spl->skl", design, design)
    rhs = np.einsum("spk,sp->sk", design, data)
    result = nnls(gram, rhs, np.ones((20, k), bool))
    for i in range(20):
        expected, _ = optimize.nnls(design[i], data[i])
        assert np.allclose(result[i], expected, atol=1e-6)


def test_nnls_of_badly_conditioned_systems_meets_the_optimality_conditions(
    rng: np.random.Generator,
) -> None:
    base = rng.uniform(0, 1, (50, 1))
    design = base + 0.02 * rng.uniform(0, 1, (50, 8))
    gram, rhs = design.T @ design, design.T @ rng.normal(1, 1, 50)
    x = nnls(gram[None], rhs[None], np.ones((1, 8), bool))[0]
    dual = rhs - gram @ x
    assert (x >= 0).all()
    assert (dual < 1e-4 * np.abs(rhs).max()).all()
    assert np.abs(dual[x > 0]).max() < 1e-4 * np.abs(rhs).max()


def test_unknowns_that_are_not_free_stay_zero(rng: np.random.Generator) -> None:
    gram, rhs = np.eye(3)[None], np.ones((1, 3))
    x = nnls(gram, rhs, np.array([[True, False, True]]))
    assert np.allclose(x, [[1, 0, 1]])
    assert x[0, 1] == 0


def test_components_with_the_same_light_share_it_equally() -> None:
    gram = np.array([[[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 1.0]]])
    rhs = np.array([[8.0, 8.0, 3.0]])
    system = NormalEquations(np.arange(3), gram, rhs, np.ones((1, 3)))
    assert np.allclose(solve([system], 3)[:, 0], [1, 1, 3])


def test_covariance_is_the_inverse_of_the_normal_matrix(rng: np.random.Generator) -> None:
    design = rng.uniform(0, 1, (2, 40, 3))
    gram = np.einsum("bpk,bpl->bkl", design, design)
    system = NormalEquations(np.arange(3), gram, np.zeros((2, 3)), np.ones((2, 3)))
    cov = covariance(system, np.ones((3, 2), np.float32))
    assert np.allclose(cov @ gram, np.eye(3), atol=1e-6)
    cov = covariance(system, np.array([[1, 1], [0, 1], [1, 1]], np.float32))
    assert cov[0, 1].tolist() == [0, 0, 0]
    keep = np.ix_([0, 2], [0, 2])
    assert np.allclose(cov[0][keep] @ gram[0][keep], np.eye(2), atol=1e-6)


# bad input


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("chunk", [1 << 18, 1 << 9])
def test_normal_equations_of_small_and_large_blends(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, common: bool, chunk: int
) -> None:
    """Large ones go band by band; stamps smaller than the frame, and stamps beyond its edge.

    Rendered together where blends have their kernels in common; in one tile or in many.
    """
    monkeypatch.setattr(spectra, "_CHUNK", chunk)
    monkeypatch.setattr(render, "_CHUNK", chunk)
    sides, n_band = (30, 160, 41), 3
    shared = rng.uniform(0, 1, (1, n_band, 9, 9)).astype(np.float32)
    frames, centres = [], []
    for blend, side in enumerate(sides):
        shape = (1, n_band, side, side)
        data = rng.normal(size=shape).astype(np.float32)
        own = rng.uniform(0, 1, shared.shape).astype(np.float32)
        kernels = shared.copy() if common else own
        weight = rng.uniform(0.5, 1, shape).astype(np.float32)
        weight[:, :, ::3] = 0
        frames.append(Frames.of(np.array([blend]), data, weight, kernels))
        centres += [(blend, side // 3, side // 2, side), (blend, side // 2, 2, side)]
    blend, y, x, side = np.array(centres).T
    where = Centres(blend, np.arange(6), y, x, side, side)
    stacks = stack_stamps(np.array([7, 10, 7, 15, 7, 10]), where, [])
    planes = np.zeros((6, 160, 160))
    for stack in stacks:
        stack.planes[0] = rng.uniform(0, 1, stack.morph.shape)
        if stack.outside is not None:
            stack.planes[0][stack.outside] = 0
        for row, morph, (_, window, part) in zip(
            stack.rows, stack.morph, stack.places, strict=True
        ):
            planes[row][window] = morph[part]
    for i, system in enumerate(normal_equations(Observation(tuple(frames)), stacks)):
        (data,), (weight,), (kernels,) = frames[i].data, frames[i].weight, frames[i].kernels
        own = planes[2 * i : 2 * i + 2, : sides[i], : sides[i]]
        images = np.array([[fftconvolve(m, k, "same") for m in own] for k in kernels])
        assert system.rows.tolist() == [2 * i, 2 * i + 1]
        gram = np.einsum("bkyx,blyx,byx->bkl", images, images, weight)
        np.testing.assert_allclose(system.gram, gram, rtol=1e-4, atol=1e-6 * gram.max())
        rhs = np.einsum("bkyx,byx,byx->bk", images, data, weight)
        np.testing.assert_allclose(system.rhs, rhs, atol=1e-5 * gram.max() ** 0.5 * sides[i])
        seen = np.einsum("bkyx,byx->bk", images, weight > 0) / images.sum((2, 3))
        np.testing.assert_allclose(system.coverage, seen, atol=1e-5)


def test_no_systems_and_no_light() -> None:
    assert solve([], 0).shape == (0, 0)
    dark = NormalEquations(np.arange(2), np.zeros((1, 2, 2)), np.zeros((1, 2)),
                           np.ones((1, 2)))  # fmt: skip
    assert solve([dark], 2).tolist() == [[0], [0]]
