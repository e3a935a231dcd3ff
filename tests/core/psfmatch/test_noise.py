"""Noise after the convolution: predicted variance and correlation against realisations."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.psf.fields import CellField, ChebyshevField, LatticeField
from coblend.core.psfmatch.convolve import convolve
from coblend.core.psfmatch.delta import solve_delta
from coblend.core.psfmatch.noise import as_correlation, autocorrelation, flux_noise_factor, squared
from coblend.core.psfmatch.regularize import choose_strength


@pytest.fixture(scope="module")
def kernel(pairs) -> np.ndarray:
    """Matching kernel of the real PSFs, i band to g band."""

    def solve(source, target, strength):
        return solve_delta(source, target, 41, strength, 30.0)

    return solve(*pairs["i"], choose_strength([pairs["i"]], solve, 1e-3))


def test_variance_and_correlation_of_realisations(kernel, pairs):
    """Variance within 0.5 %, lag-1 correlation within 0.005, error of a PSF flux 3.16 times."""
    correlation = autocorrelation(kernel)
    assert correlation[40, 40] == 1
    assert correlation[40, 41] == pytest.approx(0.748, abs=0.005)
    assert flux_noise_factor(correlation, pairs["i"][1]) == pytest.approx(3.16, abs=0.05)
    box = Box(0, 0, 1024, 1024)
    rng = np.random.default_rng(5)
    field = ChebyshevField.of_constant(kernel)
    ratio, lag = [], []
    for _ in range(4):
        out = convolve(rng.normal(size=box.shape).astype(np.float32), field, box)
        ratio.append(np.var(out) / np.sum(kernel**2))
        lag.append(np.mean(out[:, 1:] * out[:, :-1]) / np.var(out))
    assert np.mean(ratio) == pytest.approx(1, abs=0.005)
    assert np.mean(lag) == pytest.approx(correlation[40, 41], abs=0.005)


def test_correlated_input_noise_adds_up(rng):
    """Convolving twice correlates the noise as the product of both kernels does."""
    first, second = rng.random((5, 5)), rng.random((5, 5))
    from coblend.core.psfmatch.transform import convolved

    both = autocorrelation(convolved(first, second))
    stepwise = autocorrelation(second, autocorrelation(first))
    np.testing.assert_allclose(stepwise, both[4:-4, 4:-4], atol=1e-12)


def test_flux_factor_is_one_for_white_noise(pairs):
    white = np.zeros((9, 9))
    white[4, 4] = 1
    assert flux_noise_factor(white, pairs["i"][1]) == pytest.approx(1)


def test_flux_factor_against_the_double_sum(rng):
    correlation = autocorrelation(rng.random((3, 3)))
    weight = rng.random((7, 7))
    total = 0.0
    for j in range(49):
        for i in range(49):
            dy, dx = j // 7 - i // 7, j % 7 - i % 7
            if max(abs(dy), abs(dx)) <= 2:
                total += weight.flat[j] * weight.flat[i] * correlation[2 + dy, 2 + dx]
    expected = np.sqrt(total / np.sum(weight**2))
    assert flux_noise_factor(correlation, weight) == pytest.approx(expected)


def test_square_of_a_varying_kernel_is_its_square_everywhere(rng):
    domain = (-0.5, 511.5, -0.5, 255.5)
    axis = np.arange(15) - 7
    basis = np.stack([
        np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / s**2) for s in (2.0, 1.5, 3.0)
    ])  # fmt: skip
    coefficients = np.array([[1, 0, 0, 0, 0, 0], [0, 0.3, 0.1, 0, 0.1, 0], [0, 0, 0.2, 0.1, 0, 0]])
    field = ChebyshevField(basis, coefficients, domain)
    y, x = rng.uniform(0, 255, 30), rng.uniform(0, 511, 30)
    square = squared(field)
    expected = field.at_many(y, x) ** 2
    found = square.at_many(y, x)
    np.testing.assert_allclose(found, expected, atol=3e-3 * expected.max())
    np.testing.assert_allclose(found.sum(axis=(1, 2)), expected.sum(axis=(1, 2)), rtol=2e-3)
    assert len(square.separable()[0]) < 15


def test_squares_of_other_kernels_are_exact(rng):
    images = rng.normal(size=(4, 3, 3))
    cells = squared(CellField(images, np.arange(4), np.arange(4)))
    np.testing.assert_array_equal(cells.images, images**2)
    lattice = squared(LatticeField(images.reshape(2, 2, 3, 3), np.arange(2.0), np.arange(2.0)))
    np.testing.assert_array_equal(lattice.images.reshape(4, 3, 3), images**2)
    constant = squared(ChebyshevField.of_constant(images[0]))
    np.testing.assert_array_equal(constant.at_many([5], [5])[0], images[0] ** 2)


def test_variance_of_a_varying_kernel_on_sinusoidal_noise(field_f, wide_moffat):
    """Field F: mean of (variance of realisations / predicted) is 1 within 0.5 %."""
    from coblend.core.params.match import MatchParams
    from coblend.core.psfmatch.match import match_models

    psf = field_f(Box(0, 0, 256, 256))
    params = MatchParams(kernel_size=21, regularization=1e-4, spatial_order=4)
    kernel = match_models(psf, wide_moffat, psf.box, params).kernel
    wave = 1 + 0.5 * np.sin(np.arange(256) / 9)
    variance = (wave[:, None] * wave[None, :]).astype(np.float32)
    predicted = convolve(variance, squared(kernel), psf.box)
    rng = np.random.default_rng(11)
    total = np.zeros((256, 256))
    for _ in range(60):
        noise = rng.normal(size=(256, 256)) * np.sqrt(variance)
        total += convolve(noise.astype(np.float32), kernel, psf.box) ** 2.0
    inner = np.s_[20:-20, 20:-20]
    assert np.mean(total[inner] / 60 / predicted[inner]) == pytest.approx(1, abs=0.01)
    assert predicted.min() > 0


def test_a_correlation_is_one_at_its_centre(rng):
    data = rng.uniform(1, 2, (5, 5)).astype(np.float32)
    found = as_correlation(data)
    assert found[2, 2] == 1
    np.testing.assert_allclose(found * data[2, 2], data, rtol=1e-6)


# bad input


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((4, 4)), "expected a square of odd side"),
        (np.ones((3, 5)), "of shape .3, 5., expected a square"),
        (np.zeros((3, 3)), "of 0 at its centre"),
        (np.full((3, 3), np.nan), "of nan at its centre"),
    ],
)
def test_no_correlation(data, message):
    with pytest.raises(FormatError, match=message):
        as_correlation(data)
