"""Difference kernels: the model PSF convolved with them gives the observed PSF back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve

from coblend.core.errors import FormatError, ParameterError
from coblend.core.kernels import difference_kernel, model_psf


def moffat(fwhm: float, side: int = 41, beta: float = 3.5) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    stamp = (1 + (y**2 + x**2) / alpha**2) ** -beta
    return stamp / stamp.sum()


def test_model_psf_is_normalised_symmetric_and_has_its_width() -> None:
    stamp = model_psf(0.8, 15)
    assert stamp.sum() == pytest.approx(1, abs=1e-14)
    assert np.array_equal(stamp, stamp[::-1]) or np.allclose(stamp, stamp[::-1], atol=1e-17)
    assert np.allclose(stamp, stamp.T, atol=1e-17)
    x = np.arange(15) - 7
    # integration over pixels adds 1/12 to the variance
    assert np.sum(stamp * x**2) == pytest.approx(0.64 + 1 / 12, abs=2e-5)


@pytest.mark.parametrize("fwhm", [3.0, 3.5, 4.2, 5.0, 6.0])
def test_kernel_times_model_is_the_psf(fwhm: float) -> None:
    psf, model = moffat(fwhm), model_psf()
    for reg, limit in ((0.0, 1e-3), (0.01, 1e-3)):
        kernel = difference_kernel(psf, model, reg)
        # the plain ratio is left as it comes
        assert kernel.sum() == pytest.approx(psf.sum(), abs=1e-12 if reg else 2e-3)
        assert np.abs(fftconvolve(kernel, model, "same") - psf).sum() < limit


@pytest.mark.parametrize("fwhm", [3.0, 3.5, 4.2, 5.0, 6.0])
def test_regularisation_tames_the_noise_of_the_psf(rng: np.random.Generator, fwhm: float) -> None:
    psf = moffat(fwhm) + 1e-5 * rng.normal(size=(41, 41))
    ringing = [np.abs(difference_kernel(psf, model_psf(), reg)).sum() - 1 for reg in (0, 0.01)]
    assert ringing[1] < 0.3 < ringing[0]


def test_kernels_of_many_psfs_are_those_of_each() -> None:
    psfs = np.stack([moffat(3.5), 2 * moffat(5.0)])
    together = difference_kernel(psfs, model_psf())
    for one, psf in zip(together, psfs, strict=True):
        assert np.allclose(one, difference_kernel(psf, model_psf()), atol=1e-15)
    assert together[1].sum() == pytest.approx(2)


def test_kernel_of_the_model_psf_is_a_delta_function() -> None:
    model = model_psf(0.8, 15)
    kernel = difference_kernel(model, model, 0.0)
    delta = np.zeros((15, 15))
    delta[7, 7] = 1
    assert np.allclose(kernel, delta, atol=1e-10)


# bad input


@pytest.mark.parametrize("side", [0, -3, 14])
def test_model_psf_needs_an_odd_side(side: int) -> None:
    with pytest.raises(ParameterError, match="side"):
        model_psf(0.8, side)


def test_model_psf_needs_a_width() -> None:
    with pytest.raises(ParameterError, match="width"):
        model_psf(0.0)


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        (np.ones((4, 4)), "odd"),
        (np.ones(5), "odd"),
        (np.full((5, 5), np.nan), "finite"),
        (-np.ones((5, 5)), "positive sum"),
    ],
)
def test_psf_that_cannot_be_matched(psf: np.ndarray, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        difference_kernel(psf, model_psf())


def test_regularisation_is_not_negative() -> None:
    with pytest.raises(ParameterError, match="regularisation"):
        difference_kernel(moffat(4.0), model_psf(), -0.1)
