"""Shifting, resizing, resampling stamps."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.errors import ParameterError
from coblend.core.psf.resample import lanczos_matrix, largest_difference, resized, shifted


def moffat(dy: float = 0.0, dx: float = 0.0) -> np.ndarray:
    axis = np.arange(43) - 21
    radius2 = (axis[:, None] - dy) ** 2 + (axis[None, :] - dx) ** 2
    alpha = 3.5 / (2 * np.sqrt(2 ** (1 / 3) - 1))
    stamp = (1 + radius2 / alpha**2) ** -3.0
    return np.asarray(stamp / stamp.sum())


def test_largest_difference_is_relative_to_the_reference():
    stamp = moffat()
    assert largest_difference(resized(stamp, 51), stamp) == 0
    assert largest_difference(0.9 * stamp, stamp) == pytest.approx(0.1)
    assert largest_difference(resized(stamp, 41), stamp) == stamp[0, 21] / stamp.max()


def test_shift_moves_a_moffat_to_a_thousandth_of_its_peak():
    """The quintic spline: 7e-4 where Lanczos-5 leaves 2e-3 and a cubic spline 4e-3."""
    moved = shifted(moffat(), -0.21, 0.37)
    assert np.abs(moved - moffat(-0.21, 0.37)).max() < 1e-3 * moffat().max()
    assert moved.sum() == pytest.approx(1, abs=1e-14)


def test_a_shift_of_whole_pixels_is_exact_inside():
    moved = shifted(moffat(), 2.0, -3.0)
    np.testing.assert_allclose(moved[10:30, 10:30], moffat()[8:28, 13:33], rtol=1e-2)
    assert np.unravel_index(np.argmax(moved), moved.shape) == (23, 18)


def test_resizing_pads_and_crops_about_the_centre():
    stamp = np.arange(25.0).reshape(5, 5)
    padded = resized(stamp, 9)
    assert padded[4, 4] == stamp[2, 2]
    assert padded.sum() == stamp.sum()
    np.testing.assert_array_equal(resized(padded, 5), stamp)
    np.testing.assert_array_equal(resized(stamp, 3), stamp[1:4, 1:4])
    np.testing.assert_array_equal(resized(stamp[None], 1), [[[12.0]]])


@pytest.mark.parametrize(("n", "step"), [(41, 0.5), (25, 0.7), (40, 1.0), (21, 2.0)])
def test_lanczos_reproduces_a_smooth_profile(n, step):
    """Rows sum to 1, the centre stays, whole steps copy samples, a wide Gaussian survives."""
    matrix = lanczos_matrix(n, step)
    assert matrix.shape[0] % 2 == 1
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    sample = (np.arange(n) - n // 2) * step
    pixel = np.arange(matrix.shape[0]) - matrix.shape[0] // 2
    assert pixel[-1] <= sample[-1] + 1e-9
    width = 3.0 * max(step, 0.5)
    expected = np.exp(-0.5 * (pixel / width) ** 2)
    np.testing.assert_allclose(matrix @ np.exp(-0.5 * (sample / width) ** 2), expected, atol=2e-3)
    if step in (0.5, 1.0):
        assert np.count_nonzero(np.abs(matrix) > 1e-12) == matrix.shape[0]


@pytest.mark.parametrize("side", [0, 4, -3])
def test_bad_sides(side):
    with pytest.raises(ParameterError, match="odd and positive"):
        resized(np.ones((5, 5)), side)
