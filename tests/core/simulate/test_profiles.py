"""Rendered profiles equal what direct integration in real space gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import gamma, kv

from coblend.core.simulate.profiles import (
    BULGE_NU,
    DISK_NU,
    HALF_LIGHT,
    STAMP_SIDE,
    moffat_transfer,
    spergel_transform,
    stamps,
)

MIDDLE = STAMP_SIDE // 2


def moffat_pixels(y, x, fwhm, beta, axis_ratio=1.0, angle=0.0):
    """Moffat profile integrated over unit pixels at offsets y, x: 8 x 8 Gauss-Legendre."""
    node, weight = np.polynomial.legendre.leggauss(8)
    yy = np.asarray(y)[..., None, None] + node[:, None] / 2
    xx = np.asarray(x)[..., None, None] + node / 2
    scale = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    major = xx * np.cos(angle) + yy * np.sin(angle)
    minor = yy * np.cos(angle) - xx * np.sin(angle)
    r2 = (major**2 * axis_ratio + minor**2 / axis_ratio) / scale**2
    value = (beta - 1) / (np.pi * scale**2) * (1 + r2) ** -beta
    return (value * np.outer(weight, weight)).sum(axis=(-2, -1)) / 4


@pytest.mark.parametrize("shape", [(4.2, 3.1, 1.0, 0.0), (2.6, 3.5, 0.8, 0.7)])
def test_star_is_a_pixel_integrated_moffat_at_its_subpixel_position(shape):
    image = stamps(moffat_transfer(*shape), 0.31, -0.42)
    y, x = np.mgrid[-20:21, -20:21]
    expected = moffat_pixels(y - 0.31, x + 0.42, *shape)
    cut = image[MIDDLE - 20 : MIDDLE + 21, MIDDLE - 20 : MIDDLE + 21]
    assert np.abs(cut - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize(("nu", "tolerance"), [(DISK_NU, 1e-4), (BULGE_NU, 2e-3)])
def test_galaxy_is_the_real_space_convolution(nu, tolerance):
    """Integrate the PSF over the profile: radii at quantiles of its enclosed light, 64 angles."""
    radius, axis_ratio, angle = 2.3, 0.5, 0.4
    psf = (4.0, 3.3)
    image = stamps(
        moffat_transfer(*psf) * spergel_transform(nu, radius, axis_ratio, angle), 0.0, 0.0
    )

    r = np.geomspace(1e-7, 45, 6000)
    enclosed = 1 - 2 * (r / 2) ** (nu + 1) * kv(nu + 1, r) / gamma(nu + 1)
    quantile = (np.arange(800) + 0.5) / 800
    r = np.interp(quantile, enclosed, r) * radius / HALF_LIGHT[nu]
    phi = 2 * np.pi * (np.arange(64) + 0.5) / 64
    major = np.outer(r, np.cos(phi)).ravel() / np.sqrt(axis_ratio)
    minor = np.outer(r, np.sin(phi)).ravel() * np.sqrt(axis_ratio)
    u_x = major * np.cos(angle) - minor * np.sin(angle)
    u_y = major * np.sin(angle) + minor * np.cos(angle)
    for y, x in [(0, 0), (0, 3), (3, -1), (-2, -6)]:
        expected = moffat_pixels(y - u_y, x - u_x, *psf).mean()
        assert image[MIDDLE + y, MIDDLE + x] == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("nu", [DISK_NU, BULGE_NU])
def test_half_of_the_light_is_inside_the_half_light_radius(nu):
    def excess(r):
        return 0.5 - 2 * (r / 2) ** (nu + 1) * kv(nu + 1, r) / gamma(nu + 1)

    assert brentq(excess, 1e-6, 10) == pytest.approx(HALF_LIGHT[nu], rel=1e-9)


def test_disk_is_exponential():
    """nu = 1/2: the second moment along an axis is 3 h^2, h the scale length."""
    transfer = moffat_transfer(4.0, 5.0)
    x = np.arange(STAMP_SIDE) - MIDDLE
    moment = [
        (stamps(transfer * t, 0.0, 0.0).sum(axis=0) * x**2).sum()
        for t in (1.0, spergel_transform(DISK_NU, 3.0, 1.0, 0.0))
    ]
    assert moment[1] - moment[0] == pytest.approx(3 * (3.0 / HALF_LIGHT[DISK_NU]) ** 2, rel=1e-3)


def test_flux_is_one_and_position_is_linear_in_the_phase():
    image = stamps(moffat_transfer(3.5, 3.0) * spergel_transform(DISK_NU, 2.0, 0.6, 1.0), 0.2, 0.4)
    y, x = np.mgrid[:STAMP_SIDE, :STAMP_SIDE] - MIDDLE
    assert image.sum() == pytest.approx(1.0, abs=1e-9)
    assert (image * x).sum() == pytest.approx(0.4, abs=2e-3)  # the wings wrap around
    assert (image * y).sum() == pytest.approx(0.2, abs=2e-3)
