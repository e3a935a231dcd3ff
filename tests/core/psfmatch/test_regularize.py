"""The automatic strength: the accuracy and noise of the design's table, on its eight pairs."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.psf.resample import resized
from coblend.core.psfmatch.delta import solve_delta
from coblend.core.psfmatch.regularize import GRID, choose_strength, fourier_residuals
from coblend.core.psfmatch.transform import residual

# pair: largest residual / its sum / noise gain at the defaults, then the same of the reference
# system's own basis and pypher's largest residual at its default
TABLE = {
    "gaussian": (5.9e-4, 3.5e-4, 0.0288, 2.2e-6, 0.0291, 2.4e-3),
    "moffat": (1.0e-3, 1.4e-3, 0.0474, 1.4e-2, 0.0549, 1.5e-3),
    "elliptical gaussian": (8.9e-4, 7.4e-4, 0.0370, 3.8e-4, 0.1400, 3.9e-3),
    "elliptical moffat": (8.3e-4, 3.4e-4, 0.1244, 4.0e-3, 0.1425, 3.2e-2),
    "r": (9.6e-4, 3.7e-3, 0.0456, 1.3e-2, 0.0481, 1.3e-2),
    "i": (9.7e-4, 3.9e-3, 0.0723, 5.2e-3, 0.0751, 2.2e-2),
    "z": (5.9e-4, 3.5e-3, 0.0534, 7.1e-3, 0.0548, 1.5e-2),
    "y": (9.4e-4, 3.9e-3, 0.1543, 8.7e-3, 0.1608, 3.5e-2),
}


def solve(source, target, strength):
    return solve_delta(source, target, 41, strength, 30.0)


@pytest.mark.parametrize("name", TABLE)
def test_defaults_reach_the_tolerance_with_little_noise(pairs, name):
    maximum, total, noise, other_maximum, other_noise, pypher = TABLE[name]
    kernel = solve(*pairs[name], choose_strength([pairs[name]], solve, 1e-3))
    left = np.abs(resized(residual(kernel, *pairs[name]), 43))
    found = left.max() / pairs[name][1].max()
    assert found <= 1e-3
    assert found == pytest.approx(maximum, rel=0.2)
    assert left.sum() <= 4e-3
    assert left.sum() == pytest.approx(total, rel=0.2)
    gain = np.sum(kernel**2)
    assert gain == pytest.approx(noise, rel=0.02)
    assert gain <= 1.02 * other_noise
    if len(name) == 1:
        assert found <= other_maximum / 5
        assert found <= pypher / 10


def test_the_next_larger_strength_misses_the_tolerance(pairs):
    strength = choose_strength([pairs["r"]], solve, 1e-3)
    index = int(np.argmin(np.abs(GRID - strength)))
    source, target = pairs["r"]
    worse = solve(source, target, GRID[index - 1])
    assert np.abs(residual(worse, source, target)).max() > 1e-3 * target.max()


def test_one_strength_serves_all_pairs(pairs):
    both = [pairs["r"], pairs["y"]]
    assert choose_strength(both, solve, 1e-3) == choose_strength([pairs["y"]], solve, 1e-3)


def test_fourier_estimate_is_close_to_the_solved_residual(pairs):
    """Within 2 % for a kernel without radial weight."""
    source, target = pairs["i"]
    estimate = fourier_residuals(source, target)
    index = int(np.flatnonzero(estimate < 1e-3)[0])
    kernel = solve_delta(source, target, 51, GRID[index], 0.0)
    found = np.abs(residual(kernel, source, target)).max() / target.max()
    assert found == pytest.approx(estimate[index], rel=0.05)


def test_a_tolerance_out_of_reach_stops_near_the_best(pairs):
    """A kernel of 9 px cannot make wings: the strength is not driven to the end of the grid."""
    source, target = pairs["moffat"]

    def small(s, t, strength):
        return solve_delta(s, t, 9, strength, 30.0)

    strength = choose_strength([(source, target)], small, 1e-3)
    errors = [np.abs(residual(small(source, target, g), source, target)).max() for g in GRID[::4]]
    chosen = np.abs(residual(small(source, target, strength), source, target)).max()
    assert chosen < 1.5 * min(errors)
