"""Radial structure of stamps against closed forms."""

from __future__ import annotations

import numpy as np

from coblend.core.show.profiles import encircled_energy, radial_profile, radii


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
