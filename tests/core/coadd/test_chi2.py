"""The sum of bands for detection."""

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.chi2 import add, chi2_coadd, smoothed
from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.psf import StampPsf


def gaussian(sigma, side=25):
    y, x = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-(y**2 + x**2) / 2 / sigma**2)
    return stamp / stamp.sum()


def band(image, variance, sigma):
    image = np.asarray(image, np.float32)
    mask = np.zeros(image.shape, np.int32)
    return Exposure(
        image, mask, np.full(image.shape, variance, np.float32), Box(0, 0, *image.shape),
        band="g", psf=None if sigma is None else StampPsf(gaussian(sigma)),
    )  # fmt: skip


def test_noise_agrees_with_its_variance(rng):
    shape = (300, 300)
    total = add(
        smoothed(band(rng.normal(0, 3, shape), 9, 1.5)),
        smoothed(band(rng.normal(0, 7, shape), 49, 2.5)),
    )
    inner = total.image[20:-20, 20:-20]
    assert inner.var() == pytest.approx(total.variance, rel=0.08)
    expected = 1 / (4 * np.pi * 1.5**2) / 9 + 1 / (4 * np.pi * 2.5**2) / 49
    assert total.variance == pytest.approx(expected, rel=1e-3)


def test_a_star_has_the_psf_of_the_sum():
    image = np.zeros((81, 81))
    image[28:53, 28:53] = 500 * gaussian(2.0)
    total = add(smoothed(band(image, 4, 2.0)), smoothed(band(image, 9, 2.0)))
    half = total.psf.shape[0] // 2
    star = total.image[40 - half : 41 + half, 40 - half : 41 + half]
    np.testing.assert_allclose(star, 500 * total.psf, atol=1e-9)
    assert total.psf.sum() == pytest.approx(1 / 4 + 1 / 9, rel=1e-3)


def test_pixels_without_data_count_for_nothing():
    exposure = band(np.ones((30, 30)), 1, 1.0)
    exposure.image[10, 10], exposure.variance[10, 10] = 1e9, np.inf
    assert smoothed(exposure).image.max() < 1.01


# bad input


def test_no_psf():
    with pytest.raises(FormatError, match="band g has no PSF"):
        smoothed(band(np.ones((9, 9)), 1, None))


def test_no_pixel():
    empty = band(np.zeros((9, 9)), np.inf, 1.0)
    with pytest.raises(FormatError, match="band g has no pixel with data"):
        chi2_coadd([band(np.ones((9, 9)), 1, 1.0), empty])


def test_no_band():
    with pytest.raises(FormatError, match="no coadds given"):
        chi2_coadd(iter(()))
