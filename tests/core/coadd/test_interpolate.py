"""Filling gaps: the closed form against tabulated values, borders, invariants."""

import numpy as np
import pytest

from coblend.core.coadd.interpolate import (
    FAR,
    GapFiller,
    coefficients,
    find_gaps,
    typical_value,
)

ALL, INNER = 0b1111, 0b0110


@pytest.mark.parametrize(
    ("left", "right", "sources", "expected"),
    [
        (1, 1, ALL, (-0.2737, 0.7737, 0.7737, -0.2737)),
        (1, 1, INNER, (0, 0.5, 0.5, 0)),
        (1, 1, 0b0111, (-0.3834, 0.8959, 0.4875, 0)),
        (1, FAR, 0b0011, (-0.4288, 1.4288, 0, 0)),
        (FAR, 1, 0b1100, (0, 0, 1.4288, -0.4288)),
        (FAR, FAR, ALL, (0.25, 0.25, 0.25, 0.25)),
    ],
)
def test_coefficients(left, right, sources, expected):
    np.testing.assert_allclose(coefficients(left, right, sources), expected, atol=5e-5)


def filled(row, *, fallback=-7.0):
    image = np.array([row], np.float32)
    gaps = find_gaps(np.isnan(image))
    return gaps.fill(image, fallback)[0], gaps


def test_weights_sum_to_one(rng):
    for n_bad in (0.05, 0.5, 0.9):
        gaps = find_gaps(rng.random((50, 60)) < n_bad)
        np.testing.assert_allclose(gaps.weights.sum(axis=1), 1, atol=1e-12)


def test_a_constant_stays(rng):
    image = np.full((200, 40), 3.25, np.float32)
    image[rng.random(image.shape) < 0.6] = np.nan
    bad = np.isnan(image)
    np.testing.assert_allclose(find_gaps(bad).fill(image, 3.25), 3.25, rtol=1e-6)


def test_a_ramp_over_single_pixels_stays():
    ramp = np.arange(20, dtype=np.float32)
    broken = ramp.copy()
    broken[[4, 9, 15]] = np.nan
    np.testing.assert_allclose(filled(broken)[0], ramp, rtol=1e-6)


def test_a_star_comes_back():
    x = np.arange(41) - 20.3
    star = (1000 * np.exp(-(x**2) / 2 / 1.5**2)).astype(np.float32)
    broken = star.copy()
    broken[20] = np.nan
    assert np.abs(filled(broken)[0] - star).max() < 25


def test_good_pixels_do_not_change(rng):
    image = rng.normal(size=(60, 50)).astype(np.float32)
    bad = rng.random(image.shape) < 0.3
    before = image.copy()
    out = find_gaps(bad).fill(image, 0)
    np.testing.assert_array_equal(out[~bad], image[~bad])
    np.testing.assert_array_equal(image, before)
    assert np.isfinite(find_gaps(bad).fill(np.where(bad, np.nan, image), 0)).all()


def test_runs_against_each_pixel_alone(rng):
    bad = rng.random((30, 25)) < 0.35
    bad[:, :2], bad[:, -2:] = False, False
    image = rng.normal(size=bad.shape).astype(np.float32)
    out = find_gaps(bad).fill(image, 0)
    for y, x in np.argwhere(bad):
        left = next(d for d in range(1, 25) if not bad[y, x - d])
        right = next(d for d in range(1, 25) if not bad[y, x + d])
        places = [x - left - 1, x - left, x + right, x + right + 1]
        code = sum(1 << k for k, p in enumerate(places) if not bad[y, p])
        weights = coefficients(min(left, FAR), min(right, FAR), code)
        terms = [w * image[y, p] for w, p in zip(weights, places, strict=True) if w]
        assert out[y, x] == pytest.approx(sum(terms), abs=1e-5)


def test_borders():
    nan = np.nan
    short = [nan, nan, 5, 5, 5, 5]
    np.testing.assert_allclose(filled(short)[0], 5, rtol=1e-6)
    long = [nan] * 10 + [5.0] * 5
    out, gaps = filled(long)
    np.testing.assert_array_equal(out[:4], -7)
    assert -7 < out[4] < out[9] < 8
    assert list(gaps.fallback) == [0, 1, 2, 3]
    np.testing.assert_allclose(filled(long[::-1])[0], out[::-1], rtol=1e-5)
    both = [nan] * 9 + [5.0] * 4 + [nan] * 8
    out = filled(both)[0]
    assert (out[:3] == -7).all()
    assert (out[-2:] == -7).all()
    assert np.isfinite(out).all()


@pytest.mark.parametrize("n", [1, 3, 6, 7, 30])
def test_a_row_without_data_is_the_fallback(n):
    image = np.full((2, n), np.nan, np.float32)
    image[1] = 4
    gaps = find_gaps(np.isnan(image))
    np.testing.assert_array_equal(gaps.fill(image, 2.5), [[2.5] * n, [4] * n])
    assert np.isinf(gaps.fill_variance(image)[0]).all()


def test_variance():
    row = np.array([[4, 4, np.nan, 4, 4, 1, 1] + [np.nan] * 7 + [9, 9]], np.float32)
    gaps = find_gaps(np.isnan(row))
    out = gaps.fill_variance(row)[0]
    assert out[2] == 4
    assert np.isinf(out[7:14]).all()
    np.testing.assert_array_equal(
        out[[0, 1, 3, 4, 5, 6, 14, 15]], row[0][[0, 1, 3, 4, 5, 6, 14, 15]]
    )
    falling = np.array([[1, 9, np.nan, 9, 1]], np.float32)
    weights = np.array(coefficients(1, 1, ALL))
    assert find_gaps(np.isnan(falling)).fill_variance(falling)[0, 2] == pytest.approx(
        weights @ [1, 9, 9, 1]
    )


def test_nothing_to_fill():
    image = np.ones((3, 4), np.float32)
    gaps = find_gaps(np.zeros((3, 4), bool))
    np.testing.assert_array_equal(gaps.fill(image, 0), image)
    np.testing.assert_array_equal(gaps.fill_variance(image), image)


def test_filler_changes_only_pixels_without_data(rng):
    image = rng.normal(5, 1, (4, 40)).astype(np.float32)
    variance = np.full(image.shape, 2, np.float32)
    mask = np.full(image.shape, 4, np.int32)
    gaps = np.zeros(image.shape, bool)
    gaps[1, 3:5], gaps[2, 10:20], gaps[3] = True, True, True
    mask[gaps] |= 1
    image[gaps] = variance[gaps] = np.nan
    filler = GapFiller(no_data=1, filled=2, fallback=-7)
    done = filler.image(image, mask), filler.variance(variance, mask)
    for before, after in zip((image, variance), done, strict=True):
        np.testing.assert_array_equal(after[~gaps], before[~gaps])
    assert (done[0][3] == -7).all()
    assert np.isfinite(done[0]).all()
    assert (done[1][1] >= 2).all()
    assert np.isnan(done[1][2:][gaps[2:]]).all()
    np.testing.assert_array_equal(filler.mask(mask, mask), np.where(gaps, 7, 4))


def test_typical_value_is_the_median_of_some_rows(rng, monkeypatch):
    image = rng.normal(3, 1, (400, 30)).astype(np.float32)
    image[::3, ::2] = np.nan

    def rows(first, last):
        return image[first:last]

    assert typical_value(rows, image.shape) == pytest.approx(float(np.nanmedian(image)))
    monkeypatch.setattr("coblend.core.coadd.interpolate._SAMPLE", 2400)
    assert typical_value(rows, image.shape) == pytest.approx(float(np.nanmedian(image[::5])))
    image[...] = np.nan
    assert typical_value(rows, image.shape) == 0
