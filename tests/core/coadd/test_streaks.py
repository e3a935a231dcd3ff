"""Trails: fits of lines, bands against brute force, how far a trail is followed."""

import numpy as np
import pytest

from coblend.core.coadd.streaks import Line, band, extent, line_of

SHAPE = (120, 150)


def brute_force(line, half_width):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    near = np.abs((y - line.y) * line.dx - (x - line.x) * line.dy) <= half_width
    return np.flatnonzero(near)


@pytest.mark.parametrize("angle", [0.0, 20, 45, 70, 90, 135, 179])
def test_band_equals_brute_force(angle):
    dy, dx = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    line = Line(50.3, 61.8, dy, dx, 20.0, 1.0)
    pixels, along = band(line, 4.2, SHAPE)
    np.testing.assert_array_equal(pixels, brute_force(line, 4.2))
    y, x = np.divmod(pixels, SHAPE[1])
    np.testing.assert_allclose(along, (y - 50.3) * dy + (x - 61.8) * dx, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 33, 90, 120])
def test_line_of_a_trail(angle):
    dy, dx = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    pixels, along = band(Line(60.0, 70.0, dy, dx, 0, 0), 1.5, SHAPE)
    line = line_of(pixels[np.abs(along) < 30], SHAPE[1])
    assert (line.y, line.x) == pytest.approx((60, 70), abs=0.3)
    assert abs(line.dy * dy + line.dx * dx) == pytest.approx(1, abs=1e-4)
    assert line.half_length == pytest.approx(30, abs=1.5)
    assert line.sigma == pytest.approx(3 / np.sqrt(12), abs=0.25)


def test_no_line():
    y, x = np.mgrid[:12, :30]
    assert line_of((y * SHAPE[1] + x).ravel(), SHAPE[1]) is None
    assert line_of(np.arange(40), SHAPE[1]) is None


def test_a_trail_is_followed_until_it_ends(rng):
    line = Line(60.0, 75.0, 0.0, 1.0, 20.0, 1.0)
    pixels, along = band(line, 3.0, SHAPE)
    significance = rng.normal(0, 1, pixels.size).astype(np.float32)
    significance[(along > -70) & (along < 34)] += 3
    significance[(along > -60) & (along < -40)] = np.nan
    assert extent(line, along, significance) == (-64.0, 32.0)
    nothing = np.zeros_like(significance)
    assert extent(line, along, nothing) == (-20.0, 20.0)
    everything = np.full_like(significance, 5)
    first, last = extent(line, along, everything)
    assert first <= -75
    assert last >= 74


def test_nothing_is_known(rng):
    line = Line(60.0, 75.0, 0.0, 1.0, 20.0, 1.0)
    _, along = band(line, 3.0, SHAPE)
    assert extent(line, along, np.full(along.size, np.nan, np.float32)) == (-20.0, 20.0)
