"""Spans: encoding, painting, searching; against masks and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.footprint import (
    FootprintSet,
    SpanIndex,
    expand_runs,
    labels_to_spans,
    mask_to_spans,
    raster_order,
    spans_to_labels,
    stable_order,
)


def masks():
    """1000 random masks of all densities and odd shapes, and the special ones."""
    rng = np.random.default_rng(1)
    for _ in range(1000):
        shape = rng.integers(1, 25, 2)
        yield rng.random(shape) < rng.random()
    for shape in ((1, 1), (1, 9), (9, 1), (5, 5)):
        yield np.zeros(shape, bool)
        yield np.ones(shape, bool)


def test_painting_encoded_spans_returns_the_mask():
    for mask in masks():
        spans = mask_to_spans(mask)
        assert np.array_equal(spans_to_labels(spans, Box(0, 0, *mask.shape)) > 0, mask)
        assert np.array_equal(raster_order(spans), np.arange(len(spans)))
        assert (spans[1:, 0] > spans[:-1, 0]).sum() + (
            spans[1:, 1] > spans[:-1, 2] + 1
        ).sum() >= len(spans) - 1  # no two abut in a row


def test_label_images_return_from_their_spans():
    rng = np.random.default_rng(2)
    for _ in range(200):
        labels = rng.integers(0, 4, rng.integers(1, 20, 2))
        spans, values = labels_to_spans(labels)
        assert np.array_equal(
            spans_to_labels(spans, Box(0, 0, *labels.shape), values.astype(np.int64)), labels
        )


def test_search_by_pixel_equals_the_mask():
    for mask in masks():
        spans = mask_to_spans(mask)
        y, x = np.mgrid[-2 : mask.shape[0] + 2, -2 : mask.shape[1] + 2]
        found = SpanIndex.build(spans).find(y, x)
        assert np.array_equal(found >= 0, np.pad(mask, 2))
        inside = found >= 0
        hit = spans[found[inside]]
        assert (hit[:, 0] == y[inside]).all()
        assert ((hit[:, 1] <= x[inside]) & (x[inside] <= hit[:, 2])).all()


def test_areas_boxes_and_selection():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:7] = True
    mask[4, 9] = True
    one = FootprintSet.from_mask(mask, 100, 200)
    assert one.areas.tolist() == [13]
    assert one.box(0) == Box(102, 203, 3, 7)
    assert one.boxes().tolist() == [[102, 203, 3, 7]]
    two = FootprintSet.concatenate([one, FootprintSet.from_mask(mask[:4])])
    assert two.areas.tolist() == [13, 8]
    assert two.select(np.array([1, 0, 1])).areas.tolist() == [8, 13, 8]
    assert np.array_equal(one.mask(0, Box(100, 200, 10, 12)), mask)
    assert two.owner.tolist() == [0] * 4 + [1] * 2


def test_parts_outside_the_frame_are_dropped():
    spans = np.array([[0, -5, 20], [3, 2, 4]], np.int32)
    assert spans_to_labels(spans, Box(0, 0, 2, 6)).sum() == 6


@pytest.mark.parametrize("span", [5, 10**6, 2**61])
def test_stable_order(span):
    keys = np.random.default_rng(7).integers(-span, span, 3000)
    assert np.array_equal(stable_order(keys), np.argsort(keys, kind="stable"))
    assert len(stable_order(keys[:0])) == 0


def test_expand_runs():
    assert expand_runs(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert len(expand_runs(np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0


def test_bad_input():
    with pytest.raises(FormatError, match=r"expected \(n, 3\)"):
        FootprintSet(np.zeros((2, 2), np.int32), np.array([0, 2]))
    with pytest.raises(FormatError, match="2 spans, offsets end at"):
        FootprintSet(np.zeros((2, 3), np.int32), np.array([0, 3]))


def test_outlines_are_the_edges_of_the_pixels(rng: np.random.Generator) -> None:
    """Brute force: every side of a pixel whose neighbour has another label is covered once."""
    labels = rng.integers(0, 3, (9, 12)).astype(np.int32)
    frame = Box(50, 30, *labels.shape)
    parts = [FootprintSet.from_mask(labels == i, frame.y0, frame.x0) for i in (1, 2)]
    lines = FootprintSet.concatenate(parts).outlines(frame)
    found = []
    for (x0, y0), (x1, y1) in lines:
        assert (x0 == x1) != (y0 == y1)
        assert x0 % 1 == y0 % 1 == 0.5
        if y0 == y1:
            found += [("level", y0, x) for x in np.arange(x0 + 0.5, x1)]
        else:
            found += [("upright", y, x0) for y in np.arange(y0 + 0.5, y1)]
    expected = set()
    padded = np.pad(labels, 1)
    for y in range(10):
        for x in range(13):
            if padded[y, x] != padded[y + 1, x]:
                expected.add(("level", y + frame.y0 - 0.5, x + frame.x0 - 1.0))
            if padded[y, x] != padded[y, x + 1]:
                expected.add(("upright", y + frame.y0 - 1.0, x + frame.x0 - 0.5))
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert len(FootprintSet.empty().outlines(frame)) == 0
