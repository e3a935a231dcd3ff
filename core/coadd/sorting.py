"""Sorting the samples of every pixel: networks of whole-array minima and maxima.

A sorting network compares fixed pairs, so one comparator is two calls on whole arrays; for few
inputs that is several times faster than `numpy.sort` along the first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ABSENT = np.float32(np.finfo(np.float32).max)
"""Value of a sample that is not available: sorts last, and 0 * ABSENT is 0."""

LARGEST = np.nextafter(ABSENT, np.float32(0))
"""Largest value of an available sample."""

_LARGEST_NETWORK = 64


@lru_cache(maxsize=128)
def network(n: int) -> tuple[tuple[int, int], ...]:
    """Return the comparators ``(i, j)``, i < j, of Batcher's merge exchange for ``n`` samples.

    Notes
    -----
    Knuth, The Art of Computer Programming 3, 5.2.2 algorithm M.
    """
    pairs = []
    p = 1
    while p < n:
        k = p
        while k:
            for start in range(k % p, n - k, 2 * k):
                for i in range(start, min(start + k, n - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        pairs.append((i, i + k))
            k //= 2
        p *= 2
    return tuple(pairs)


@lru_cache(maxsize=512)
def pruned(n: int, wanted: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the comparators of `network` that the ranks ``wanted`` depend on."""
    needed = set(wanted)
    kept = []
    for i, j in reversed(network(n)):
        if i in needed or j in needed:
            needed |= {i, j}
            kept.append((i, j))
    return tuple(reversed(kept))


def sort_samples(
    cube: NDArray[np.float32], wanted: Sequence[int] = ()
) -> list[NDArray[np.float32]]:
    """Sort along the first axis.

    Parameters
    ----------
    cube : array, shape (n, ny, nx), float32
        Not changed. No NaN.
    wanted : sequence of int
        Ranks that must be right; default all.

    Returns
    -------
    list of n arrays, shape (ny, nx)
        The samples of each rank.
    """
    n = len(cube)
    if n > _LARGEST_NETWORK:
        return list(np.sort(cube, axis=0))
    rows = list(cube.copy())
    spare = np.empty_like(cube[0])
    for i, j in pruned(n, tuple(wanted)) if wanted else network(n):
        np.minimum(rows[i], rows[j], out=spare)
        np.maximum(rows[i], rows[j], out=rows[j])
        rows[i], spare = spare, rows[i]
    return rows


def quantiles(
    rows: Sequence[NDArray[np.float32]], n: NDArray[np.integer], fractions: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Quantiles of the first ``n`` sorted samples, linear between positions ``f (n - 1)``.

    Parameters
    ----------
    rows : sequence of arrays, shape (ny, nx)
        Sorted samples, available ones first.
    n : array, shape (ny, nx), int
        Number of available samples.
    fractions : sequence of float
        0 to 1.

    Returns
    -------
    list of arrays, shape (ny, nx), float64
        NaN where ``n`` is 0.
    """
    counts = np.bincount(n.ravel(), minlength=1)
    common = int(counts.argmax())
    others = [int(c) for c in np.flatnonzero(counts) if c not in (0, common)]
    where = {c: np.nonzero(n == c) for c in others}
    missing = n == 0 if counts[0] else None
    out = []
    for fraction in fractions:
        value = _quantile(rows, common, fraction, ...)
        for count, pixels in where.items():
            value[pixels] = _quantile(rows, count, fraction, pixels)
        if missing is not None:
            value[missing] = np.nan
        out.append(value)
    return out


def ranks(n: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Ranks that `quantiles` reads for ``n`` samples."""
    below = [int(f * (n - 1)) for f in fractions]
    return tuple(sorted({*below, *(min(b + 1, n - 1) for b in below)}))


def _quantile(
    rows: Sequence[NDArray[np.float32]], n: int, fraction: float, pixels: object
) -> NDArray[np.float64]:
    position = fraction * (n - 1) if n else 0.0
    low = int(position)
    value = rows[low][pixels].astype(np.float64)  # type: ignore[call-overload]
    if position > low:
        value += (position - low) * (rows[low + 1][pixels] - value)  # type: ignore[call-overload]
    return np.asarray(value, np.float64)
