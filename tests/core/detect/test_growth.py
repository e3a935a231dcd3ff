"""Growth equals scipy's dilation; sharing equals the nearest core by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.box import Box
from coblend.core.components import group_spans, label_spans
from coblend.core.detect.growth import (
    dilate,
    grow_spans,
    growth_radius,
    paint_rows,
    share_growth,
    stencil,
)
from coblend.core.detect.splitting import Parents, cut_footprints
from coblend.core.errors import ParameterError
from coblend.core.footprint import mask_to_spans, spans_to_labels


def disc(radius):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return y**2 + x**2 <= radius**2


@pytest.mark.parametrize("radius", range(1, 11))
def test_disc_and_diamond_equal_scipy(radius):
    rng = np.random.default_rng(radius)
    for density in (0.002, 0.05):
        mask = rng.random((61, 47)) < density
        assert np.array_equal(
            dilate(mask, stencil(radius)), ndimage.binary_dilation(mask, disc(radius))
        )
        assert np.array_equal(
            dilate(mask, stencil(radius, "diamond")),
            ndimage.binary_dilation(mask, iterations=radius),
        )


def test_published_stencil_areas():
    single = np.zeros((41, 41), bool)
    single[20, 20] = True
    areas = [int(dilate(single, stencil(r)).sum()) for r in (1, 2, 3, 4, 5, 6, 8)]
    assert areas == [5, 13, 29, 49, 81, 113, 197]
    areas = [int(dilate(single, stencil(r, "diamond")).sum()) for r in (1, 2, 3, 4, 5, 6, 8)]
    assert areas == [5, 13, 25, 41, 61, 85, 145]


def test_growth_of_spans_does_not_see_the_strips():
    """An image of several strips, sources on their borders."""
    rng = np.random.default_rng(9)
    mask = rng.random((700, 90)) < 0.003
    mask[255:257, 10] = mask[511, 40] = mask[0, 0] = mask[-1, -1] = True
    for radius in (1, 5, 12):
        spans = grow_spans(mask_to_spans(mask), mask.shape, stencil(radius))
        grown = spans_to_labels(spans, Box(0, 0, *mask.shape)) > 0
        assert np.array_equal(grown, ndimage.binary_dilation(mask, disc(radius)))
        assert np.array_equal(spans, mask_to_spans(grown))


def test_painting_rows():
    rng = np.random.default_rng(10)
    mask = rng.random((40, 33)) < 0.5
    assert np.array_equal(paint_rows(mask_to_spans(mask)[:0], slice(0, 40), 33), mask & False)
    assert np.array_equal(paint_rows(mask_to_spans(mask), slice(0, 40), 33), mask)


def nearest_core(labels, grown, widths):
    """Brute force: the first hit in the order of (d2, dy, dx)."""
    radius = len(widths) - 1
    offsets = sorted(
        (dy * dy + dx * dx, dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-widths[abs(dy)], widths[abs(dy)] + 1)
    )
    padded = np.pad(labels, radius)
    out = labels.copy()
    for y, x in np.argwhere(grown & (labels == 0)):
        for _, dy, dx in offsets:
            value = padded[y + dy + radius, x + dx + radius]
            if value:
                out[y, x] = value
                break
    return out


@pytest.mark.parametrize("shape", [(30, 40), (150, 25)])
def test_sharing_gives_each_pixel_to_the_nearest_core(shape):
    rng = np.random.default_rng(12)
    frame = Box(0, 0, *shape)
    for radius in (1, 3, 5):
        mask = rng.random(shape) < 0.02
        spans = mask_to_spans(mask)
        labels, _ = label_spans(spans)
        grown = grow_spans(spans, shape, stencil(radius))
        part, owner = share_growth(spans, labels, grown, shape, radius)
        expected = nearest_core(
            spans_to_labels(spans, frame, labels + 1),
            spans_to_labels(grown, frame) > 0,
            stencil(radius),
        )
        assert np.array_equal(spans_to_labels(part, frame, owner + 1), expected)


def test_cutting_keeps_the_union_and_gives_every_pixel_to_one_parent():
    rng = np.random.default_rng(13)
    shape = (200, 120)
    cores_mask = rng.random(shape) < 0.01
    spans = mask_to_spans(cores_mask)
    labels, n_core = label_spans(spans)
    cores = group_spans(spans, labels, n_core)
    grown = grow_spans(spans, shape, stencil(4))
    parent, n = label_spans(grown)
    image = spans_to_labels(grown, Box(0, 0, *shape), parent + 1)
    first = cores.spans[cores.offsets[:-1]]
    core_parent = image[first[:, 0], first[:, 1]].astype(np.int64) - 1
    whole = Parents.whole(group_spans(grown, parent, n), core_parent)
    several = np.bincount(core_parent, minlength=n) > 3
    assert several.any()
    assert not several.all()
    cut = cut_footprints(whole, cores, several[core_parent], shape, 4)
    painted = np.zeros(shape, int)
    for footprint in cut.footprints:
        for y, a, b in footprint:
            painted[y, a : b + 1] += 1
    assert np.array_equal(painted, image > 0)  # the union, each pixel once
    assert np.array_equal(cut.cut, several[cut.origin])
    assert len(cut.footprints) == n - several.sum() + np.count_nonzero(several[core_parent])
    for core, parent in enumerate(cut.core_parent):
        y, x, _ = first[core]
        own = cut.footprints.of(parent)
        assert ((own[:, 0] == y) & (own[:, 1] <= x) & (x <= own[:, 2])).any()
        assert cut.origin[parent] == core_parent[core]
    keys = [tuple(cut.footprints.of(i)[0][:2]) for i in range(len(cut.footprints))]
    assert keys == sorted(keys)


def test_pixels_beyond_the_stencil_are_shared_in_further_rounds():
    mask = np.zeros((1, 60), bool)
    mask[0, [0, 59]] = True
    cores = group_spans(mask_to_spans(mask), np.array([0, 1]), 2)
    whole = Parents.whole(
        group_spans(np.array([[0, 0, 59]], np.int32), np.zeros(1, np.int64), 1), np.zeros(2, int)
    )
    cut = cut_footprints(whole, cores, np.ones(2, bool), (1, 60), 2)
    assert cut.footprints.areas.tolist() == [30, 30]


def test_bad_input():
    assert growth_radius(1.65, 2.4) == 4
    with pytest.raises(ParameterError, match="is 72 px, at most 64"):
        growth_radius(30.0, 2.4)
