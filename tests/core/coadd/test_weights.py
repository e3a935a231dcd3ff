"""Weights of inputs."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.samples import WarpPart
from coblend.core.coadd.weights import clipped_mean, sample_boxes, usable_variance


def test_clipped_mean_by_hand():
    assert clipped_mean(np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 50]), 3, 2) == 1
    assert clipped_mean(np.array([4.0]), 3, 2) == 4
    assert np.isnan(clipped_mean(np.zeros(0), 3, 2))


def test_bad_pixels_do_not_count(rng):
    variance = rng.normal(25, 1, (64, 64)).astype(np.float32)
    image = np.zeros_like(variance)
    mask = np.zeros(variance.shape, np.int32)
    variance[:20], mask[:20] = 1000, 2
    image[20:30], variance[20:30] = np.nan, 1000
    variance[30], variance[31], variance[32] = -1, np.nan, np.inf
    part = WarpPart(0, Box(0, 0, 64, 64), image, mask, variance, scale=2.0)
    found = usable_variance(part, 2)
    np.testing.assert_array_equal(found, 4 * variance[33:].ravel())
    assert usable_variance(replace(part, mask=None), 2).size == found.size + 20 * 64


@pytest.mark.parametrize("shape", [(10, 10), (2048, 2048), (4000, 9000), (5, 10**6)])
def test_sample_of_rows_lies_apart_and_inside(shape):
    box = Box(7, 3, *shape)
    blocks = sample_boxes(box)
    assert sum(b.area for b in blocks) <= max(1 << 17, 5 * box.nx)
    assert all(box.contains(b) and b.nx == box.nx and b.area for b in blocks)
    assert all(a.y1 <= b.y0 for a, b in pairwise(blocks))


@pytest.mark.parametrize("shape", [(10, 10), (300, 5000), (1024, 1024), (4000, 9000)])
def test_sample_of_tiles_is_aligned_and_inside(shape):
    box = Box(7, 3, *shape)
    blocks = sample_boxes(box, 256)
    assert len(blocks) <= 12
    assert all(box.contains(b) and b.area for b in blocks)
    assert all((b.y0 - 7) % 256 == 0 and (b.x0 - 3) % 256 == 0 for b in blocks)
    if shape == (4000, 9000):
        assert len({b.y0 for b in blocks}) == len({b.x0 for b in blocks}) == 12


@pytest.mark.parametrize("tile", [1, 256])
def test_sample_stands_for_all_pixels(rng, tile):
    y, x = np.mgrid[:2048, :1024].astype(np.float32)
    variance = 25 * (1 + 0.05 * (x / 1024 - 0.5) ** 2 + 0.03 * np.sin(y / 300))
    variance *= rng.normal(1, 0.05, variance.shape)
    box = Box(0, 0, 2048, 1024)
    some = [variance[b.slices(box)].ravel() for b in sample_boxes(box, tile)]
    found = clipped_mean(np.concatenate(some), 3, 2)
    assert found == pytest.approx(
        clipped_mean(variance.ravel(), 3, 2), rel=1e-3 if tile == 1 else 5e-3
    )
