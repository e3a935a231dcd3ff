"""Sorting the samples of every pixel: networks of whole-array minima and maxima.

A sorting network compares fixed pairs, so one comparator is two calls on whole arrays; for few
inputs that is several times faster than `numpy.sort` along the first axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ABSENT = np.float32(np.finfo(np.float32).max)
"""Value of a sample that is not available: sorts last, and 0 * ABSENT is 0."""

LARGEST = np.nextafter(ABSENT, np.float32(0))
"""Largest value of an available sample."""

_LARGEST_NETWORK = 64


Comparators = tuple[tuple[int, int], ...]
Order = tuple[int, ...]


@lru_cache(maxsize=128)
def network(n: int) -> tuple[Comparators, Order]:
    """Batcher's odd-even merge sort of ``n`` samples.

    Returns
    -------
    comparators : tuple of (int, int)
        In order: the smaller of the two samples goes to the first place.
    order : tuple of int
        Place of each rank at the end.

    Notes
    -----
    Batcher 1968, AFIPS 32, 307; Knuth, The Art of Computer Programming 3, 5.3.4.
    """
    return _sorted(tuple(range(n)))


@lru_cache(maxsize=512)
def pruned(n: int, wanted: tuple[int, ...]) -> Comparators:
    """Return the comparators of `network` that the ranks ``wanted`` depend on."""
    comparators, order = network(n)
    needed = {order[rank] for rank in wanted}
    kept = []
    for i, j in reversed(comparators):
        if i in needed or j in needed:
            needed |= {i, j}
            kept.append((i, j))
    return tuple(reversed(kept))


def _sorted(places: Order) -> tuple[Comparators, Order]:
    if len(places) < 2:
        return (), places
    half = len(places) // 2
    first, low = _sorted(places[:half])
    second, high = _sorted(places[half:])
    last, order = _merged(low, high)
    return first + second + last, order


def _merged(a: Order, b: Order) -> tuple[Comparators, Order]:
    """Merge two sorted runs: their odd and even ranks apart, then neighbours."""
    if not a or not b:
        return (), a + b
    if len(a) == len(b) == 1:
        return ((a[0], b[0]),), a + b
    first, odd = _merged(a[::2], b[::2])
    second, even = _merged(a[1::2], b[1::2])
    pairs = tuple(zip(even, odd[1:], strict=False))
    done = odd[:1] + tuple(place for pair in pairs for place in pair)
    rest = odd[1 + len(pairs) :] + even[len(pairs) :]
    return first + second + pairs, done + rest


def sort_samples(
    cube: NDArray[np.float32], wanted: tuple[int, ...] = ()
) -> list[NDArray[np.float32]]:
    """Sort along the first axis.

    Parameters
    ----------
    cube : array, shape (n, ny, nx), float32
        Not changed. No NaN.
    wanted : tuple of int
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
    comparators, order = network(n)
    for i, j in pruned(n, wanted) if wanted else comparators:
        np.minimum(rows[i], rows[j], out=spare)
        np.maximum(rows[i], rows[j], out=rows[j])
        rows[i], spare = spare, rows[i]
    return [rows[place] for place in order]


def quantiles(
    cube: NDArray[np.float32], n: NDArray[np.integer], fractions: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Quantiles of the ``n`` smallest samples, linear between positions ``f (n - 1)``.

    Parameters
    ----------
    cube : array, shape (n_sample, ny, nx), float32
        `ABSENT` where a sample is not available.
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
    found = [int(c) for c in np.flatnonzero(counts) if c]
    rows = sort_samples(cube, tuple(sorted({r for c in found for r in ranks(c, fractions)})))
    where = {c: np.nonzero(n == c) for c in found if c != common}
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


def ranks(n: int, fractions: Sequence[float]) -> set[int]:
    """Ranks that the quantiles of ``n`` samples depend on."""
    positions = [f * (n - 1) for f in fractions]
    return {rank for p in positions for rank in (math.floor(p), math.ceil(p))}


def _quantile(
    rows: Sequence[NDArray[np.float32]], n: int, fraction: float, pixels: object
) -> NDArray[np.float64]:
    position = fraction * (n - 1) if n else 0.0
    low = int(position)
    value = rows[low][pixels].astype(np.float64)  # type: ignore[call-overload]
    if position > low:
        value += (position - low) * (rows[low + 1][pixels] - value)  # type: ignore[call-overload]
    return np.asarray(value, np.float64)
