"""Analytic PSFs against closed forms: widths, shapes, pixel integration, sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.special import erf

from coblend.core.errors import ParameterError
from coblend.core.psf import AnalyticPsf, Psf
from coblend.core.psf.moments import FWHM_PER_SIGMA, adaptive_moments


def test_sampled_gaussian_is_the_formula():
    psf = AnalyticPsf("GAUSSIAN", 2.0 * FWHM_PER_SIGMA, integrated=False, size=31)
    axis = np.arange(31) - 15
    expected = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 4)
    np.testing.assert_allclose(psf.stamp(), expected / expected.sum(), rtol=1e-12)
    assert isinstance(psf, Psf)


def test_integrated_gaussian_is_the_model_psf_of_the_contract():
    """Sigma 0.8 px, 15 x 15, integrated over the pixels: products of differences of erf."""
    edges = erf((np.arange(16) - 7.5) / (np.sqrt(2) * 0.8))
    expected = np.outer(np.diff(edges), np.diff(edges))
    psf = AnalyticPsf("GAUSSIAN", 0.8 * FWHM_PER_SIGMA, size=15)
    np.testing.assert_allclose(psf.stamp(), expected / expected.sum(), rtol=1e-12)


def test_pixel_integration_of_an_elliptical_profile_matches_quadrature():
    psf = AnalyticPsf("MOFFAT", 2.4, beta=3.0, e1=0.2, e2=-0.1, integrated=True, size=21)

    def profile(y: float, x: float) -> float:
        return float(psf._profile(np.array(y), np.array(x)))

    total = {(j, i): dblquad(profile, i - 0.5, i + 0.5, j - 0.5, j + 0.5)[0]
             for j, i in ((0, 0), (1, 0), (2, 3))}  # fmt: skip
    stamp = psf.stamp()
    for (j, i), value in total.items():
        ratio = stamp[10 + j, 10 + i] / stamp[10, 10]
        assert ratio == pytest.approx(value / total[0, 0], rel=1e-5)


@pytest.mark.parametrize("kind", ["GAUSSIAN", "DGAUSS", "MOFFAT"])
def test_half_maximum_is_at_half_the_fwhm(kind):
    psf = AnalyticPsf(kind, 40.0, integrated=False, size=101, wing_amplitude=1e-9)
    stamp = psf.stamp()
    assert stamp[50, 70] / stamp[50, 50] == pytest.approx(0.5, rel=1e-6)


def test_double_gaussian_has_the_wing_it_is_given():
    psf = AnalyticPsf("DGAUSS", 5.0, integrated=False, size=61)
    stamp = psf.stamp() / psf.stamp()[30, 30] * 1.1
    radius = 20.0
    wing = 0.1 * np.exp(-0.5 * (radius / (2.5 * psf.sigma)) ** 2)
    assert stamp[30, 50] == pytest.approx(wing, rel=1e-6)


@pytest.mark.parametrize(("e1", "e2"), [(0.15, 0.0), (0.0, 0.2), (-0.1, 0.07)])
def test_ellipticity_and_size_are_those_of_the_moments(e1, e2):
    psf = AnalyticPsf("GAUSSIAN", 2.5 * FWHM_PER_SIGMA, e1=e1, e2=e2, size=61)
    moments = adaptive_moments(psf.stamp())
    assert moments.e1[0] == pytest.approx(e1, abs=1e-6)
    assert moments.e2[0] == pytest.approx(e2, abs=1e-6)
    assert moments.sigma[0] == pytest.approx(2.5, abs=1e-5)


@pytest.mark.parametrize("kind", ["GAUSSIAN", "DGAUSS", "MOFFAT"])
def test_natural_side_holds_all_but_a_thousandth(kind):
    psf = AnalyticPsf(kind, 4.0, beta=3.5)
    large = psf.stamp(1201)
    half = psf.side // 2
    inside = large[600 - half : 601 + half, 600 - half : 601 + half].sum()
    assert 0 <= 1 - inside < 1e-3
    assert psf.side % 2 == 1
    assert psf.side <= 101


def test_all_positions_have_the_same_stamp():
    psf = AnalyticPsf("MOFFAT", 4.0)
    assert psf.constant
    many = psf.at_many([0, 10, 20], [1, 2, 3])
    assert many.shape == (3, psf.side, psf.side)
    np.testing.assert_array_equal(many[2], psf.at(5.0, 6.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "AIRY", "fwhm": 3.0}, "known: GAUSSIAN"),
        ({"kind": "GAUSSIAN", "fwhm": 0.0}, "must be positive"),
        ({"kind": "GAUSSIAN", "fwhm": float("nan")}, "must be positive"),
        ({"kind": "MOFFAT", "fwhm": 3.0, "beta": 1.0}, "above 1"),
        ({"kind": "GAUSSIAN", "fwhm": 3.0, "e1": 0.8, "e2": 0.7}, "not below 1"),
        ({"kind": "DGAUSS", "fwhm": 3.0, "wing_factor": -1}, "wing_factor -1"),
        ({"kind": "GAUSSIAN", "fwhm": 3.0, "size": 20}, "odd"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ParameterError, match=message):
        AnalyticPsf(**values)
