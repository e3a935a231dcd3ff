"""Radial structure of stamps against closed forms."""

from __future__ import annotations

import numpy as np

from coblend.core.box import Box
from coblend.core.psf import AnalyticPsf, CellPsf
from coblend.core.show.profiles import encircled_energy, radial_profile, radii, shape_map


def gaussian(sigma: float, side: int) -> np.ndarray:
    stamp = np.exp(-0.5 * (radii(side) / sigma) ** 2)
    return stamp / stamp.sum()


def test_radii_start_at_the_centre() -> None:
    assert radii(5)[2, 2] == 0
    assert radii(5)[2, 4] == radii(5)[0, 2] == 2
    assert radii(5)[0, 0] == np.hypot(2, 2)


def test_profile_of_a_gaussian_is_the_gaussian() -> None:
    radius, mean = radial_profile(gaussian(5.0, 41))
    assert len(radius) == 21
    expected = np.exp(-0.5 * (radius / 5) ** 2) * gaussian(5.0, 41)[20, 20]
    np.testing.assert_allclose(mean, expected, rtol=0.03)


def test_encircled_energy_of_a_gaussian() -> None:
    """``1 - exp(-r^2 / 2 sigma^2)``, widened by the pixels themselves."""
    radius, inside = encircled_energy(gaussian(4.0, 61))
    wide = 4.0**2 + 1 / 12
    np.testing.assert_allclose(inside, 1 - np.exp(-0.5 * radius**2 / wide), atol=0.006)
    assert inside[-1] == 1
    assert np.all(np.diff(inside) >= 0)


def test_shapes_over_a_field() -> None:
    """Left a round PSF, right one elongated along y; unknown in between."""
    round_, long = (AnalyticPsf("GAUSSIAN", 5.0, e1=e, size=41).stamp() for e in (0.0, -0.1))
    unknown = np.full_like(long, np.nan)
    psf = CellPsf(np.stack([round_, unknown, long]), np.full(3, 45.0), np.array([10.0, 45, 80]))
    found = shape_map(psf, Box(0, 0, 91, 91), 3)
    np.testing.assert_allclose(found.fwhm[:, 0], 5, rtol=1e-3)
    np.testing.assert_allclose(found.fwhm[:, 2], 5, rtol=1e-3)
    assert np.isnan(found.fwhm[:, 1]).all()
    right = found.x > 45
    assert len(found.x) == 6
    np.testing.assert_allclose(np.abs(found.dy[right]), 0.1, rtol=1e-2)
    np.testing.assert_allclose(found.dx, 0, atol=1e-6)
    np.testing.assert_allclose(found.dy[~right], 0, atol=1e-6)


# bad input


def test_a_psf_that_is_unknown_here_has_no_shape() -> None:
    stamps = np.stack([np.full((9, 9), np.nan), gaussian(2.0, 9)])
    found = shape_map(
        CellPsf(stamps, np.array([4.0, 99]), np.array([4.0, 99])), Box(0, 0, 9, 9), 2
    )
    assert np.isnan(found.fwhm).all()
    assert not len(found.y)
