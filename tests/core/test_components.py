"""Components on spans equal scipy's on pixels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.box import Box
from coblend.core.components import edge_labels, group_spans, join_runs, label_spans
from coblend.core.footprint import mask_to_spans, spans_to_labels


@pytest.mark.parametrize("connectivity", [4, 8])
def test_labels_equal_scipy_element_by_element(connectivity):
    rng = np.random.default_rng(3)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    for _ in range(500):
        mask = rng.random(rng.integers(1, 40, 2)) < rng.random()
        spans = mask_to_spans(mask)
        labels, n = label_spans(spans, connectivity)
        expected, n_expected = ndimage.label(mask, structure)
        assert n == n_expected
        assert np.array_equal(spans_to_labels(spans, Box(0, 0, *mask.shape), labels + 1), expected)


def test_grouping_keeps_all_pixels():
    rng = np.random.default_rng(4)
    mask = rng.random((60, 70)) < 0.4
    spans = mask_to_spans(mask)
    labels, n = label_spans(spans)
    footprints = group_spans(spans, labels, n)
    assert len(footprints) == n
    assert footprints.areas.sum() == mask.sum()
    assert np.array_equal(
        footprints.labels(Box(0, 0, 60, 70)), ndimage.label(mask, np.ones((3, 3)))[0]
    )


def test_joining_abutting_runs():
    spans = np.array([[0, 0, 2], [0, 3, 4], [0, 6, 7], [1, 0, 0], [1, 1, 1]], np.int32)
    joined, labels = join_runs(spans, np.array([0, 0, 0, 0, 1]))
    assert joined.tolist() == [[0, 0, 4], [0, 6, 7], [1, 0, 0], [1, 1, 1]]
    assert labels.tolist() == [0, 0, 0, 1]


def test_edges_label_a_graph_by_first_node():
    labels, n = edge_labels(np.array([3, 1]), np.array([4, 5]), 6)
    assert labels.tolist() == [0, 1, 2, 3, 3, 1]
    assert n == 4


def test_nothing():
    labels, n = label_spans(np.empty((0, 3), np.int32))
    assert (len(labels), n) == (0, 0)
