"""Stamps: sorted into stacks and back without a pixel lost; boxes of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.deblend.fitting.components import (
    PADDING,
    Centres,
    allowed_radii,
    limits_of,
    limits_of_light,
    radii_of,
    sources_in,
    stack_stamps,
    stamp_radius,
    support_radius,
)


def centres_of(at: list[tuple[int, int]], shape: tuple[int, int]) -> Centres:
    n = len(at)
    y, x = np.array(at, np.int64).reshape(-1, 2).T
    return Centres(np.arange(n), np.arange(n), y, x, np.full(n, shape[0]), np.full(n, shape[1]))


def test_components_of_one_source_count_once() -> None:
    at = centres_of([(5, 5), (5, 5), (0, 0)], (11, 11)).with_blend(np.array([1, 1, 1]))
    twins = replace(at, source=np.array([0, 0, 1]))
    assert sources_in(twins, 3).tolist() == [0, 2, 0]


def test_radii_are_those_of_the_ladder() -> None:
    assert [stamp_radius(n) for n in (1, 7, 8, 300)] == [7, 7, 10, 300]
    assert stamp_radius(301) == 375
    centres = centres_of([(5, 5), (0, 0)], (11, 11))
    assert centres.reach.tolist() == [5, 10]
    assert allowed_radii(np.array([40, 40]), centres).tolist() == [7, 10]  # the box is not larger


def test_stacks_hold_what_older_stacks_held(rng: np.random.Generator) -> None:
    """From any radii to any others: the common pixels, and none outside the box."""
    shape = (37, 44)
    centres = centres_of([(3, 4), (20, 20), (36, 43), (30, 8), (11, 40)], shape)
    images = rng.normal(size=(5, *shape)).astype(np.float32)
    radii = np.array([7, 30, 10, 15, 10])
    stacks = stack_stamps(radii, centres, [])
    stacks = [stack.with_planes(stack.cut(images)[None]) for stack in stacks]
    assert radii_of(stacks, 5).tolist() == radii.tolist()
    other = np.array([15, 10, 7, 20, 10])
    small = np.minimum(radii, other)
    seen = np.zeros(5, bool)
    for stack in stack_stamps(other, centres, stacks):
        for row, stamp, (blend, window, part) in zip(
            stack.rows.tolist(), stack.morph, stack.places, strict=True
        ):
            assert blend == row
            y, x = np.mgrid[: shape[0], : shape[1]]
            r = np.maximum(abs(y - centres.y[row]), abs(x - centres.x[row]))
            expected = np.where(r <= small[row], images[row], 0)[window]
            assert np.array_equal(stamp[part], expected)
            assert stamp.any()
            assert np.count_nonzero(stamp) == np.count_nonzero(expected)
            seen[row] = True
    assert seen.all()


def test_stacks_keep_the_precision_of_the_old_ones() -> None:
    centres = centres_of([(5, 5)], (11, 11))
    (single,) = stack_stamps(np.array([7]), centres, [])
    double = single.with_planes(single.planes.astype(float))
    assert stack_stamps(np.array([10]), centres, [single])[0].planes.dtype == np.float32
    assert stack_stamps(np.array([10]), centres, [double])[0].planes.dtype == np.float64


def test_limits_are_boxes_within_stamps(rng: np.random.Generator) -> None:
    centres = centres_of([(10, 12), (2, 30)], (33, 35))
    limits = np.array([[4, 20, 9, 31], [0, 5, 28, 35]])
    images = rng.normal(size=(2, 33, 35)).astype(np.float32)
    stacks = stack_stamps(centres.reach_within(limits), centres, [], 1, limits)
    assert np.array_equal(limits_of(stacks, 2), limits)
    for stack in stacks:
        for row, stamp, outside in zip(stack.rows, stack.cut(images), stack.outside, strict=True):
            y0, y1, x0, x1 = limits[row]
            assert np.array_equal(stamp[~outside], images[row, y0:y1, x0:x1].ravel())
            assert not stamp[outside].any()


def test_limits_of_light_are_its_bounding_box_with_room(rng: np.random.Generator) -> None:
    centres = centres_of([(20, 20), (4, 30), (29, 3)], (40, 36))
    lit = rng.uniform(size=(3, 15, 15)) < 0.01
    lit[0, 7, 7] = lit[1, 3, 9] = True
    lit[2] = False
    for row, (y0, y1, x0, x1) in enumerate(limits_of_light(lit, centres).tolist()):
        y, x = np.nonzero(lit[row]) if lit[row].any() else (np.array([7]), np.array([7]))
        y, x = y + centres.y[row] - 7, x + centres.x[row] - 7
        assert (y0, y1) == (max(0, y.min() - PADDING), min(40, y.max() + 1 + PADDING))
        assert (x0, x1) == (max(0, x.min() - PADDING), min(36, x.max() + 1 + PADDING))


def test_support_is_the_farthest_lit_pixel() -> None:
    morph = np.zeros((3, 11, 11), np.float32)
    morph[0, 5, 5] = morph[1, 2, 5] = morph[1, 5, 9] = 1
    assert support_radius(morph).tolist() == [0, 4, 0]


# bad input


@pytest.mark.parametrize("shape", [(1, 1), (1, 9)])
def test_frames_of_a_single_row(shape: tuple[int, int]) -> None:
    centres = centres_of([(0, 0)], shape)
    (stack,) = stack_stamps(allowed_radii(np.array([50]), centres), centres, [])
    assert stack.outside is not None
    assert np.count_nonzero(~stack.outside) == shape[1]
    assert stack_stamps(np.zeros(0, np.int64), centres.select(np.zeros(0, np.int64)), []) == []
