"""Scales that vary over an image."""

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.scalefield import scale_field
from coblend.core.errors import FormatError

FIELD = Box(100, -50, 900, 1100)


def points(rng, n):
    return rng.uniform(100, 1000, n), rng.uniform(-50, 1050, n)


def grid():
    return np.mgrid[FIELD.y0 : FIELD.y1, FIELD.x0 : FIELD.x1].astype(float)


def test_constant_is_the_mean(rng):
    y, x = points(rng, 5)
    field = scale_field(y, x, np.array([1.0, 2, 3, 4, 5]), FIELD, "constant")
    assert (field.at(FIELD) == 3).all()


def test_linear_follows_a_plane_and_is_nearest_outside(rng):
    y, x = np.meshgrid(np.linspace(100, 999, 5), np.linspace(-50, 1049, 6), indexing="ij")
    plane = 1 + 1e-4 * y - 2e-4 * x
    field = scale_field(y.ravel(), x.ravel(), plane.ravel(), FIELD, "linear")
    ys, xs = grid()
    np.testing.assert_allclose(field.at(FIELD), 1 + 1e-4 * ys - 2e-4 * xs, rtol=1e-6)
    corner = scale_field(np.array([500.0]), np.array([3.0]), np.array([1.5]), FIELD, "linear")
    assert (corner.at(FIELD) == 1.5).all()


def test_polynomial_of_the_logarithm(rng):
    y, x = points(rng, 40)

    def model(y, x):
        v, u = 2 * (y - 100) / 899 - 1, 2 * (x + 50) / 1099 - 1
        return np.exp(0.02 + 0.03 * u - 0.02 * v + 0.04 * u * u - 0.01 * u * v + 0.02 * v * v)

    field = scale_field(y, x, model(y, x), FIELD, "poly2")
    np.testing.assert_allclose(field.at(FIELD), model(*grid()), rtol=1e-4)
    few = scale_field(y[:2], x[:2], np.array([2.0, 8.0]), FIELD, "poly2")
    np.testing.assert_allclose(few.at(FIELD), 4, rtol=1e-6)


def test_slabs_agree_with_the_whole(rng):
    y, x = points(rng, 30)
    field = scale_field(y, x, rng.uniform(0.9, 1.1, 30), FIELD, "linear")
    whole = field.at(FIELD)
    part = Box(333, 40, 50, 200)
    np.testing.assert_array_equal(field.at(part), whole[part.slices(FIELD)])


# bad input


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_impossible_scales(scale):
    with pytest.raises(FormatError, match="row 2 of ZPGRID has scale"):
        scale_field(np.zeros(2), np.zeros(2), np.array([1.0, scale]), FIELD, "linear")


def test_no_scales():
    with pytest.raises(FormatError, match="no scales"):
        scale_field(np.zeros(0), np.zeros(0), np.zeros(0), FIELD, "constant")
