"""Weights of inputs."""

from itertools import pairwise

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.weights import clipped_mean, mean_variance, sample_boxes


def test_clipped_mean_by_hand():
    assert clipped_mean(np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 50]), 3, 2) == 1
    assert clipped_mean(np.array([4.0]), 3, 2) == 4
    assert np.isnan(clipped_mean(np.zeros(0), 3, 2))


def test_bad_pixels_do_not_count(rng):
    variance = rng.normal(25, 1, (64, 64)).astype(np.float32)
    image = np.zeros_like(variance)
    mask = np.zeros(variance.shape, np.int32)
    clean = mean_variance(image, mask, variance, 2)
    variance[:20], mask[:20] = 1000, 2
    image[20:30], variance[20:30] = np.nan, 1000
    variance[30], variance[31], variance[32] = -1, np.nan, np.inf
    assert mean_variance(image, mask, variance, 2) == pytest.approx(clean, rel=5e-3)


def test_unusable_input():
    plane = np.zeros((3, 3), np.float32)
    assert np.isnan(mean_variance(plane, plane.astype(np.int32), plane, 0))


@pytest.mark.parametrize("shape", [(10, 10), (2048, 2048), (4000, 9000), (5, 10**6)])
def test_sample_boxes_lie_apart_and_inside(shape):
    box = Box(7, 3, *shape)
    blocks = sample_boxes(box)
    assert sum(b.area for b in blocks) <= max(1 << 20, box.nx)
    assert all(box.contains(b) and b.nx == box.nx and b.area for b in blocks)
    assert all(a.y1 <= b.y0 for a, b in pairwise(blocks))
    assert blocks[-1].y1 == box.y1 or len(blocks) == 1
