"""Adaptive moments of Gaussians are their parameters; of real PSFs, the published widths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from coblend.core.errors import FormatError
from coblend.core.psf import AnalyticPsf
from coblend.core.psf.moments import FWHM_PER_SIGMA, adaptive_moments, fwhm_of


def gaussian(cyy: float, cxx: float, cxy: float, y: float, x: float) -> np.ndarray:
    axis = np.arange(61) - 30
    dy, dx = axis[:, None] - y, axis[None, :] - x
    det = cyy * cxx - cxy**2
    return np.exp(-0.5 * (cxx * dy**2 + cyy * dx**2 - 2 * cxy * dy * dx) / det)


def test_moments_of_gaussians_are_exact():
    stamps = np.stack([gaussian(4, 9, 1.5, 0, 0), gaussian(6, 5, -2, 0.4, -0.7)])
    moments = adaptive_moments(stamps)
    np.testing.assert_allclose(moments.sigma, [33.75**0.25, 26**0.25], rtol=1e-6)
    np.testing.assert_allclose(moments.e1, [5 / 13, -1 / 11], atol=1e-6)
    np.testing.assert_allclose(moments.e2, [3 / 13, -4 / 11], atol=1e-6)
    np.testing.assert_allclose(moments.dy, [0, 0.4], atol=1e-6)
    np.testing.assert_allclose(moments.dx, [0, -0.7], atol=1e-6)
    np.testing.assert_allclose(moments.fwhm, FWHM_PER_SIGMA * moments.sigma)


def test_width_of_the_core():
    """That of a Gaussian to 4 %, with or without a wide pedestal that moments would feel."""
    core, wide = gaussian(3, 3, 0, 0, 0), gaussian(80, 80, 0, 0, 0)
    for stamp in (core, core + 0.03 * wide):
        assert fwhm_of(stamp) == pytest.approx(FWHM_PER_SIGMA * 3**0.5, rel=0.04)


def test_widths_of_the_real_psfs(shared_data):
    """Widths measured for the design from the same five stamps."""
    from coblend.io.psf.psfs import parse_psf_spec

    folder = shared_data / "hsc_cosmos_35"
    stamps = np.stack([parse_psf_spec(f"{folder}/{band}.fits").at(0, 0) for band in "grizy"])
    moments = adaptive_moments(stamps)
    np.testing.assert_allclose(moments.sigma, [2.074, 1.396, 1.606, 1.464, 1.889], atol=1e-3)
    np.testing.assert_allclose(
        np.hypot(moments.e1, moments.e2), [0.019, 0.017, 0.035, 0.060, 0.023], atol=1e-3
    )


@pytest.mark.parametrize("fwhm", [0.8, 1.1, 1.5, 2.2, 3.2])
@pytest.mark.parametrize("beta", [2.0, 3.0, 50.0])
def test_undersampled_stamps_have_the_width_of_the_light_on_the_pixels(fwhm, beta):
    """As the same profile, averaged over pixels, measured on a grid 9 times as fine."""
    wide = AnalyticPsf("MOFFAT", 9 * fwhm, beta=beta, integrated=False, size=361).stamp()
    for axis in (0, 1):
        wide = uniform_filter1d(wide, 9, axis, mode="constant")
    expected = adaptive_moments(wide).sigma[0] / 9
    moments = adaptive_moments(AnalyticPsf("MOFFAT", fwhm, beta=beta, integrated=True).stamp())
    assert moments.sigma[0] == pytest.approx(expected, rel=0.055 if fwhm < 2 else 0.007)
    assert abs(moments.dy[0]) + abs(moments.dx[0]) < 1e-9


def test_narrow_and_wide_stamps_together_are_those_apart():
    """Shapes and centres of narrow stamps are theirs too; every stamp keeps its place."""
    wide, narrow = gaussian(4, 9, 1.5, 0.2, 0), gaussian(0.8, 1.1, 0.2, 0.1, -0.2)
    both = adaptive_moments(np.stack([narrow, wide, narrow]))
    for i, alone in enumerate(map(adaptive_moments, (narrow, wide, narrow))):
        for name in ("sigma", "e1", "e2", "dy", "dx"):
            assert getattr(both, name)[i] == pytest.approx(getattr(alone, name)[0], abs=1e-7)
    assert both.sigma[0] == pytest.approx(0.84**0.25, rel=0.01)
    assert (both.e1[0], both.e2[0]) == pytest.approx((0.3 / 1.9, 0.4 / 1.9), abs=0.01)
    assert (both.dy[0], both.dx[0]) == pytest.approx((0.1, -0.2), abs=0.01)
    with pytest.raises(FormatError, match="PSF stamp 1 has no"):
        adaptive_moments(np.stack([narrow, np.ones_like(narrow), wide]))


@pytest.mark.parametrize(
    "stamp", [np.ones((31, 31)), -gaussian(4, 4, 0, 0, 0), np.eye(31) - 1 / 31, np.zeros((9, 9))]
)
def test_stamps_without_a_single_peak_are_refused(stamp):
    with pytest.raises(FormatError, match="no adaptive moments"):
        adaptive_moments(stamp)
