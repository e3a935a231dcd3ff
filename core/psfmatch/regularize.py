"""How strong the ridge must be: the largest that still meets the tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft

from coblend.core.psf.fields import Array
from coblend.core.psfmatch.transform import residual, transformed

GRID = 10.0 ** np.arange(-1.0, -8.01, -0.25)
"""Strengths that are tried."""
STEPS_DOWN = 4
"""Steps down the grid when the solved kernel misses what the Fourier estimate promised."""
NEARLY_BEST = 1.1

Solve = Callable[[Array, Array, float], Array]


def choose_strength(pairs: Sequence[tuple[Array, Array]], solve: Solve, tolerance: float) -> float:
    """Find the largest strength on the grid with ``max |R| <= tolerance max P_r`` for all pairs.

    The search uses the residual of the unconstrained kernel, which costs one transform; solving
    verifies it.

    Parameters
    ----------
    pairs : sequence of (source, target)
    solve : callable
        ``solve(source, target, strength) -> kernel``.
    tolerance : float
        Largest residual relative to the peak of the target.

    Returns
    -------
    float
        Where the tolerance cannot be met, the largest strength whose residual is within 10 % of
        the best.
    """
    index = max(_strongest(source, target, solve, tolerance) for source, target in pairs)
    return float(GRID[index])


def hardest(source: Array, target: Array, tolerance: float, n: int) -> list[int]:
    """Find the pairs that need the smallest strength, by the estimate without solving.

    Parameters
    ----------
    source, target : array, shape (n_pair, side, side)
    tolerance : float
    n : int
        How many.

    Returns
    -------
    list of int
    """
    keys = []
    for i, pair in enumerate(zip(source, target, strict=True)):
        errors = fourier_residuals(*pair)
        start = _start(errors, tolerance)
        keys.append((-start, -float(errors[start]), i))
    return [i for *_, i in sorted(keys)[:n]]


def _strongest(source: Array, target: Array, solve: Solve, tolerance: float) -> int:
    """Index on the grid of the largest strength that meets the tolerance, or nearly the best."""
    start = _start(fourier_residuals(source, target), tolerance)
    errors: dict[int, float] = {}

    def meets(i: int) -> bool:
        errors[i] = peak_residual(solve(source, target, float(GRID[i])), source, target)
        return errors[i] <= tolerance

    if meets(start):
        while start > 0 and meets(start - 1):
            start -= 1
        return start
    for i in range(start + 1, min(start + STEPS_DOWN, len(GRID) - 1) + 1):
        if meets(i):
            return i
    tried = sorted(errors)
    return tried[_nearly_best(np.array([errors[i] for i in tried]))]


def fourier_residuals(source: Array, target: Array) -> Array:
    """``max |R| / max P_r`` of the kernel of unlimited support, for each strength of the grid."""
    period = fft.next_fast_len(2 * max(source.shape[-1], target.shape[-1]), real=True)
    power = np.abs(transformed(source, period)) ** 2
    spectrum = transformed(target, period)
    ridge = GRID[:, None, None] * np.sum(source**2)
    left = fft.irfft2(spectrum * (power / (power + ridge) - 1), (period, period))
    return np.asarray(np.abs(left).max(axis=(-2, -1)) / target.max())


def peak_residual(kernel: Array, source: Array, target: Array) -> float:
    """``max |R| / max P_r`` of a kernel."""
    return float(np.abs(residual(kernel, source, target)).max() / target.max())


def _start(errors: Array, tolerance: float) -> int:
    """Index of the largest strength that meets the tolerance, or is nearly the best."""
    good = np.flatnonzero(errors <= tolerance)
    return int(good[0]) if good.size else _nearly_best(errors)


def _nearly_best(errors: Array) -> int:
    return int(np.flatnonzero(errors <= NEARLY_BEST * errors.min())[0])
