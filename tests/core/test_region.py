"""Shapes painted by pixel centres."""

import numpy as np

from coblend.core.box import Box
from coblend.core.region import Region, paint

NONE = np.zeros((2, 0))
FIELD = Box(10, 20, 40, 50)


def ellipse(y, x, a, b, angle, **options):
    cos, sin = np.cos(angle), np.sin(angle)
    forward = np.array([[sin * a, cos * b], [cos * a, -sin * b]])
    return Region("ellipse", y, x, np.linalg.inv(forward), NONE, **options)


def test_ellipse_against_every_pixel():
    found = paint([ellipse(31.3, 44.8, 12, 5, 0.6)], FIELD)
    y, x = np.mgrid[10:50, 20:70] - np.array([31.3, 44.8])[:, None, None]
    along, across = x * np.cos(0.6) + y * np.sin(0.6), x * np.sin(0.6) - y * np.cos(0.6)
    np.testing.assert_array_equal(found, (along / 12) ** 2 + (across / 5) ** 2 <= 1)
    assert 150 < found.sum() < 220


def test_box_and_polygon_of_the_same_shape():
    turned = np.array([[0.8, 0.6], [0.6, -0.8]]) * [7.3, 3.1]
    box = Region("box", 30.2, 40.4, np.linalg.inv(turned), NONE)
    corners = turned @ np.array([[1, 1, -1, -1], [1, -1, -1, 1]]) + [[30.2], [40.4]]
    polygon = Region("polygon", 0, 0, np.eye(2), corners)
    np.testing.assert_array_equal(paint([box], FIELD), paint([polygon], FIELD))
    assert paint([box], FIELD).sum() > 70


def test_shapes_partly_and_wholly_outside():
    inside = paint([ellipse(11, 21, 5, 5, 0)], FIELD)
    whole = paint([ellipse(11, 21, 5, 5, 0)], FIELD.grow(10))
    np.testing.assert_array_equal(inside, whole[10:-10, 10:-10])
    assert not paint([ellipse(200, 200, 5, 5, 0)], FIELD).any()


def test_exclusion_in_order():
    big, hole = ellipse(30, 40, 9, 9, 0), ellipse(30, 40, 4, 4, 0, exclude=True)
    ring = paint([big, hole], FIELD)
    assert not ring[20, 20]
    assert ring[20, 27]
    assert paint([hole, big], FIELD)[20, 20]


def test_paint_by_slabs():
    shapes = [ellipse(20 + 5 * i, 30 + 4 * i, 6, 3, i) for i in range(5)]
    whole = paint(shapes, FIELD)
    rows = [paint(shapes, Box(y, 20, 1, 50)) for y in range(10, 50)]
    np.testing.assert_array_equal(np.concatenate(rows), whole)
