"""The constrained ridge solve: against a direct solution, closed forms, its own other route."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.errors import FormatError
from coblend.core.psf import AnalyticPsf
from coblend.core.psf.moments import FWHM_PER_SIGMA
from coblend.core.psf.resample import resized
from coblend.core.psfmatch import delta
from coblend.core.psfmatch.delta import radial_weight, solve_delta
from coblend.core.psfmatch.transform import convolved, residual


def brute_force(source, target, side, ridge, weight, noise=None):
    """Minimum with a Lagrange multiplier; columns of the design are shifted stamps."""
    n = source.shape[0] + side - 1
    columns = []
    for j in range(side):
        for i in range(side):
            shifted = np.zeros((n, n))
            shifted[j : j + source.shape[0], i : i + source.shape[1]] = source
            columns.append(shifted.ravel())
    design = np.stack(columns, axis=1)
    penalty = np.diag(weight.ravel())
    if noise is not None:
        y, x = np.divmod(np.arange(side**2), side)
        half = noise.shape[0] // 2
        dy, dx = y[:, None] - y, x[:, None] - x
        near = (np.abs(dy) <= half) & (np.abs(dx) <= half)
        values = noise[np.clip(dy + half, 0, 2 * half), np.clip(dx + half, 0, 2 * half)]
        penalty += np.where(near, values, 0) - np.eye(side**2)
    ones = np.ones((side**2, 1))
    system = np.block([[design.T @ design + ridge * penalty, ones], [ones.T, np.zeros((1, 1))]])
    right = np.append(design.T @ resized(target, n).ravel(), 1.0)
    return np.linalg.solve(system, right)[:-1].reshape(side, side)


@pytest.fixture
def small() -> tuple[np.ndarray, np.ndarray]:
    source = AnalyticPsf("MOFFAT", 2.6, e1=0.1, e2=0.05, size=15).stamp()
    return source, AnalyticPsf("MOFFAT", 3.6, size=15).stamp()


@pytest.mark.parametrize("noisy", [False, True])
def test_solution_is_the_constrained_minimum(small, noisy):
    noise = None
    if noisy:
        noise = np.array([[0.02, 0.1, 0.02], [0.1, 1, 0.1], [0.02, 0.1, 0.02]])
    ridge = 1e-3 * np.sum(small[0] ** 2)
    expected = brute_force(*small, 9, ridge, radial_weight(9, 30.0), noise)
    kernel = solve_delta(*small, 9, 1e-3, 30.0, noise)
    np.testing.assert_allclose(kernel, expected, atol=1e-10)
    assert kernel.sum() == pytest.approx(1, abs=1e-14)


def test_stamps_of_different_sides(small):
    source, target = small[0], resized(small[1], 21)
    np.testing.assert_allclose(
        solve_delta(source, target, 9, 1e-3, 30.0),
        solve_delta(resized(source, 21), target, 9, 1e-3, 30.0), atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("noise", [None, np.array([[0.0, 0.2, 0], [0.2, 1, 0.2], [0, 0.2, 0]])])
def test_conjugate_gradients_agree_with_cholesky(small, monkeypatch, noise):
    dense = solve_delta(*small, 15, 1e-4, 30.0, noise)
    monkeypatch.setattr(delta, "LARGEST_DENSE", 1)
    iterative = solve_delta(*small, 15, 1e-4, 30.0, noise)
    assert np.abs(iterative - dense).max() < 1e-6 * dense.max()


def test_gaussians_give_the_gaussian_between_them():
    """2.0 to 2.6 px: sigma sqrt(2.76), noise 1 / (4 pi 2.76)."""
    source, target, between = (
        AnalyticPsf("GAUSSIAN", s * FWHM_PER_SIGMA, integrated=False, size=43).stamp()
        for s in (2.0, 2.6, np.sqrt(2.76))
    )
    kernel = solve_delta(source, target, 41, 1e-6, 0.0)
    assert np.abs(residual(kernel, source, target)).max() < 3e-6 * target.max()
    assert np.sum(kernel**2) == pytest.approx(1 / (4 * np.pi * 2.76), rel=2e-3)
    assert np.abs(resized(kernel, 43) - between).max() < 5e-3 * between.max()


def test_more_ridge_means_less_noise_and_more_residual(small):
    kernels = [solve_delta(*small, 11, s, 30.0) for s in (1e-5, 1e-4, 1e-3, 1e-2)]
    noise = [np.sum(radial_weight(11, 30.0) * k**2) for k in kernels]
    error = [np.sum(residual(k, *small) ** 2) for k in kernels]
    assert noise == sorted(noise, reverse=True)
    assert error == sorted(error)


def test_convolution_is_not_flipped(small):
    """A target displaced to +x needs a kernel displaced to +x."""
    shifted = np.roll(resized(small[0], 21), 2, axis=1)
    kernel = solve_delta(resized(small[0], 21), shifted, 9, 1e-6, 0.0)
    assert np.unravel_index(np.argmax(kernel), kernel.shape) == (4, 6)
    assert np.abs(convolved(small[0], kernel)[11, 13] - small[0].max()) < 1e-3


def test_stamps_that_are_not_finite_are_refused(small):
    with pytest.raises((FormatError, np.linalg.LinAlgError)):
        solve_delta(small[0] * np.nan, small[1], 9, 1e-3, 30.0)
