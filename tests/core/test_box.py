"""Box algebra against sets of pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import ParameterError


def pixels(box: Box) -> set[tuple[int, int]]:
    return set(itertools.product(range(box.y0, box.y1), range(box.x0, box.x1)))


def test_intersection_and_containment_are_those_of_pixel_sets(rng: np.random.Generator) -> None:
    for _ in range(300):
        a = Box(*rng.integers(-3, 4, 2), *rng.integers(0, 6, 2))
        b = Box(*rng.integers(-3, 4, 2), *rng.integers(0, 6, 2))
        assert pixels(a & b) == pixels(a) & pixels(b)
        if (a & b).area:
            assert a.contains(b) == (pixels(b) <= pixels(a))
        if a.area and b.area:
            assert pixels(a) | pixels(b) <= pixels(a | b)


def test_union_skips_empty_boxes() -> None:
    assert Box.union([Box(9, 9, 0, 3), Box(1, 2, 3, 4), Box(5, 0, 1, 1)]) == Box(1, 0, 5, 6)


def test_slices_cut_the_box_out_of_its_frame() -> None:
    frame = Box(10, 20, 6, 8)
    y, x = np.mgrid[10:16, 20:28]
    box = Box(12, 21, 3, 4)
    assert np.array_equal(np.unique(y[box.slices(frame)]), [12, 13, 14])
    assert np.array_equal(np.unique(x[box.slices(frame)]), [21, 22, 23, 24])
    assert box.slices() == (slice(12, 15), slice(21, 25))


def test_strips_are_the_box() -> None:
    box = Box(3, 5, 10, 4)
    strips = box.strips(4)
    assert strips == [Box(3, 5, 4, 4), Box(7, 5, 4, 4), Box(11, 5, 2, 4)]
    assert Box.union(strips) == box
    assert Box(3, 5, 0, 4).strips(4) == []


def test_negative_sides_are_refused() -> None:
    with pytest.raises(ParameterError, match="-1 x 3"):
        Box(0, 0, -1, 3)
