"""Sky objects against the sequential rule; culling against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.detect.growth import dilate, stencil
from coblend.core.footprint import mask_to_spans
from coblend.core.merge.cull import kept_peaks
from coblend.core.merge.sky import sky_footprints, sky_positions


def halton(n, base):
    out = []
    for i in range(1, n + 1):
        value, unit = 0.0, 1.0
        while i:
            i, digit = divmod(i, base)
            unit /= base
            value += digit * unit
        out.append(value)
    return np.array(out)


def one_by_one(occupied, box, number, radius, trials, seed):
    """Candidate after candidate on a mask of what is taken."""
    widths = stencil(radius)
    disc = np.zeros((2 * radius + 1,) * 2, bool)
    disc[radius, radius] = True
    disc = dilate(disc, widths)
    taken, out = occupied.copy(), []
    shift = np.random.Generator(np.random.PCG64(seed)).random(2)
    n, edge = number * trials, radius + 1
    x = edge + ((halton(n, 2) + shift[0]) % 1 * (box.nx - 2 * edge)).astype(int)
    y = edge + ((halton(n, 3) + shift[1]) % 1 * (box.ny - 2 * edge)).astype(int)
    for a, b in zip(y.tolist(), x.tolist(), strict=True):
        window = (slice(a - radius, a + radius + 1), slice(b - radius, b + radius + 1))
        if len(out) == number or (taken[window] & disc).any():
            continue
        out.append((a, b))
        mine = np.zeros_like(taken)
        mine[window] = disc
        taken |= dilate(mine, widths)
    return out


@pytest.mark.parametrize(("number", "radius"), [(30, 8), (200, 3), (60, 1)])
def test_places_equal_the_sequential_rule(number, radius):
    rng = np.random.default_rng(radius)
    for density in (0.0, 0.002, 0.02):
        box = Box(0, 0, 130, 170)
        occupied = dilate(rng.random(box.shape) < density, stencil(2))
        y, x = sky_positions(
            mask_to_spans(occupied), box, number=number, radius=radius, trials=4, seed=5
        )
        expected = one_by_one(occupied, box, number, radius, 4, 5)
        assert list(zip(y.tolist(), x.tolist(), strict=True)) == expected
        painted = sky_footprints(y, x, radius).labels(box) > 0
        assert not (painted & occupied).any()


def test_places_move_with_the_box_and_with_nothing_else():
    spans = np.empty((0, 3), np.int32)
    options = {"number": 20, "radius": 5, "trials": 3, "seed": 1}
    y, x = sky_positions(spans, Box(0, 0, 200, 300), **options)
    y2, x2 = sky_positions(spans, Box(1000, -50, 200, 300), **options)
    assert np.array_equal(y + 1000, y2)
    assert np.array_equal(x - 50, x2)
    first = [(y[0], x[0]), (y[-1], x[-1])]
    assert len(y) == 20
    assert first == [(y2[0] - 1000, x2[0] + 50), (y2[-1] - 1000, x2[-1] + 50)]


def test_full_or_tiny_images_have_none():
    full = mask_to_spans(np.ones((60, 60), bool))
    options = {"number": 5, "radius": 8, "trials": 5, "seed": 1}
    assert len(sky_positions(full, Box(0, 0, 60, 60), **options)[0]) == 0
    assert len(sky_positions(full[:0], Box(0, 0, 18, 60), **options)[0]) == 0
    assert len(sky_positions(full[:0], Box(0, 0, 60, 60), **{**options, "number": 0})[0]) == 0


@pytest.mark.parametrize("n", [1, 20, 21, 29, 30, 31, 100])
def test_culling_formula(n):
    """r < 20, or enough bands, or r < 30 and r < 0.7 n; with r the rank, 0 first."""
    rng = np.random.default_rng(n)
    order = rng.permutation(n).astype(float)
    bands = rng.integers(1, 3, n)
    keep = kept_peaks(np.zeros(n, np.int64), order, bands)
    rank = np.argsort(np.argsort(-order))
    expected = (rank < 20) | (bands >= 2) | ((rank < 30) & (rank < 0.7 * n))
    assert np.array_equal(keep, expected)


def test_families_are_culled_apart():
    family = np.repeat([7, 3], [40, 15])
    keep = kept_peaks(family, np.arange(55.0), np.ones(55, int))
    assert keep[family == 3].all()
    assert keep[family == 7].sum() == 28


def test_no_peaks():
    none = np.zeros(0)
    assert len(kept_peaks(none.astype(np.int64), none, none.astype(int))) == 0
