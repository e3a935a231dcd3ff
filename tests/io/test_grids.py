"""Positions from grid to grid."""

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import WcsMismatchError
from coblend.io.sky.grids import map_positions, outline
from coblend.io.sky.wcs import tangent_plane

A, B = Box(10, 20, 100, 120), Box(-5, 7, 90, 80)


def test_there_and_back(rng):
    first, second = tangent_plane(150, 2, 0.2, 50, 60), tangent_plane(150.001, 2.001, 0.3, 40, 40)
    y, x = rng.uniform(10, 100, (2, 4, 5))
    there = map_positions(first, A, second, B, y, x)
    assert there.shape == (2, 4, 5)
    back = map_positions(second, B, first, A, *there)
    np.testing.assert_allclose(back, [y, x], atol=1e-6)


def test_parent_coordinates_are_those_of_the_boxes():
    cards = tangent_plane(150, 2, 0.2, 50, 60)
    found = map_positions(cards, A, cards, B, np.array([12.0]), np.array([25.0]))
    np.testing.assert_allclose(found.ravel(), [12 - 10 - 5, 25 - 20 + 7], atol=1e-6)


def test_points_behind_the_sky_have_no_position():
    near, far = tangent_plane(0, 0, 0.2, 5, 5), tangent_plane(180, 0, 0.2, 5, 5)
    box = Box(0, 0, 10, 10)
    assert np.isnan(map_positions(near, box, far, box, np.array([5.0]), np.array([5.0]))).all()


def test_outline_is_the_border():
    y, x = outline(A)
    assert (y.min(), y.max()) == (9.5, 109.5)
    assert (x.min(), x.max()) == (19.5, 139.5)
    area = 0.5 * abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1)))
    assert area == pytest.approx(A.area)


# bad input


def test_no_wcs():
    with pytest.raises(WcsMismatchError, match="no celestial WCS"):
        map_positions((), A, tangent_plane(0, 0, 1, 5, 5), B, np.zeros(1), np.zeros(1))
