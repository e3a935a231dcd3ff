"""Monotonic morphologies: no pixel brighter than the mean of its neighbours nearer the centre.

Each pixel is capped at a weighted mean of those of its eight neighbours that are strictly nearer
to the centre; caps propagate outwards. With A and C the larger and the smaller of the absolute
offsets, every nearer neighbour has a smaller level ``2A + C - 1``, so all pixels of one level can
be capped at once: exact, and vectorised over any number of morphologies.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats

_AT_CAP = 1 - 1e-5
_OUTSIDE = 1e30
"""Stands for pixels outside the frame while projecting: they become as bright as their own caps
allow, so that the profile goes on beyond the edge and darkens no pixel inside."""


T = TypeVar("T", bound=np.generic)
Level = tuple[int, int, NDArray[np.int64], Floats]
Ring = tuple[int, int, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class LevelOrder:
    """Pixels of square stamps of one size by level, and which cap which.

    Parameters
    ----------
    order : array, shape (n * n,), int64
        Flat pixel indices sorted by level.
    inverse : array, shape (n * n,), int64
        ``flat = ordered[inverse]``.
    levels : tuple of (first, last, neighbours, weights)
        Outwards, per level: its slice of the ordered pixels, the ordered positions of up to
        four nearer neighbours, shape (m, last - first), and their weights, shape
        (m, last - first, 1), sum 1.
    neighbours, weights : array, shape (4, n * n) and (4, n * n, 1)
        The same for all pixels at once.
    outer : tuple of (first, last, pixels)
        The transpose, inwards: the farther pixels that each pixel caps, shape (m, last - first);
        unused slots hold n * n.
    share : array, shape (n * n, 1)
        One over the number of nearer neighbours.
    """

    order: NDArray[np.int64]
    inverse: NDArray[np.int64]
    levels: tuple[Level, ...]
    neighbours: NDArray[np.int64]
    weights: Floats
    outer: tuple[Ring, ...]
    share: Floats


@lru_cache(maxsize=64)
def level_order(radius: int, dtype: str = "f4") -> LevelOrder:
    """Order the pixels of stamps of side ``2 radius + 1``, weights of type ``dtype``."""
    side = 2 * radius + 1
    y, x = (a.ravel() for a in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    level = 2 * np.maximum(abs(y), abs(x)) + np.minimum(abs(y), abs(x)) - 1
    order = np.argsort(level, kind="stable")
    inverse = np.empty_like(order)
    inverse[order] = np.arange(side * side)
    y, x, level = y[order], x[order], level[order]
    pixel, weight = nearer_neighbours(y, x)
    position = inverse[pixel[0] * side + pixel[1] + (radius * side + radius)]
    weight = weight.astype(dtype)
    edges = np.searchsorted(level, np.arange(-1, 3 * radius + 1))  # the centre has level -1
    bounds = [(int(a), int(b)) for a, b in itertools.pairwise(edges) if b > a]
    capped = _transpose(position, weight > 0)
    return LevelOrder(
        order,
        inverse,
        tuple(_level(a, b, position, weight) for a, b in bounds[1:]),
        position,
        weight[..., None],
        tuple(
            _ring(a, b, capped) for a, b in bounds[::-1] if (capped[0, a:b] < side * side).any()
        ),
        (1 / np.maximum((weight > 0).sum(0), 1)).astype(dtype)[:, None],
    )


def _level(first: int, last: int, pixels: NDArray[np.int64], weights: Floats) -> Level:
    """One level, without unused slots; used ones come first."""
    used = int((weights[:, first:last] > 0).any(1).sum())
    return (
        first,
        last,
        np.ascontiguousarray(pixels[:used, first:last]),
        np.ascontiguousarray(weights[:used, first:last, None]),
    )


def _ring(first: int, last: int, pixels: NDArray[np.int64]) -> Ring:
    """List what the pixels of one level cap, without slots that none of them uses."""
    used = int((pixels[:, first:last] < pixels.shape[1]).any(1).sum())
    return first, last, np.ascontiguousarray(pixels[:used, first:last])


def _transpose(position: NDArray[np.int64], used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Turn "pixel p is capped by n" into "pixel n caps p", shape (m, n_pixel).

    Unused slots hold n_pixel.
    """
    slot, outer = np.nonzero(used)
    inner = position[slot, outer]
    order = np.argsort(inner, kind="stable")
    outer, inner = outer[order], inner[order]
    count = np.bincount(inner, minlength=position.shape[1])
    rank = np.arange(len(inner)) - np.repeat(np.cumsum(count) - count, count)
    capped = np.full((max(1, int(count.max(initial=0))), len(count)), len(count))
    capped[rank, inner] = outer
    return capped


def nearer_neighbours(
    y: NDArray[np.int64], x: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Neighbours of offsets ``(y, x)`` nearer to the origin, and their weights.

    Returns
    -------
    offsets : array, shape (2, 4, n), int64
        ``y, x`` of the neighbours; unused ones repeat the pixel itself.
    weights : array, shape (4, n), float64
        ``|cos|`` of the angle between pixel and neighbour seen from the origin, sum 1 (0 at the
        origin itself); unused neighbours have weight 0 and come last.

    Notes
    -----
    The weights are those of the monotonicity operator of scarlet lite; a neighbour at the origin
    counts as lying on the x axis there, which matters only for the diagonal offsets (1, 1).
    """
    dy, dx = np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij")
    ny, nx = y + dy.reshape(9, 1), x + dx.reshape(9, 1)
    nearer = ny * ny + nx * nx < y * y + x * x
    angle = np.where((ny == 0) & (nx == 0), 0.0, np.arctan2(ny, nx))
    raw = np.where(nearer, np.abs(np.cos(np.arctan2(y, x) - angle)), 0.0)
    raw[nearer & (nearer.sum(0) == 1)] = 1.0
    rank = np.argsort(~nearer, axis=0, kind="stable")[:4]
    weight = np.take_along_axis(raw, rank, 0)
    total = weight.sum(0)
    weight /= np.where(total > 0, total, 1.0)
    used = np.take_along_axis(nearer, rank, 0)
    offsets = np.stack(
        [np.where(used, np.take_along_axis(a, rank, 0), own) for a, own in ((ny, y), (nx, x))]
    )
    return offsets, weight


def project(stamps: Floats, outside: NDArray[np.bool_] | None = None) -> Floats:
    """Make stamps monotonic about their central pixel.

    Parameters
    ----------
    stamps : array, shape (k, n, n), float32 or float64
        n odd.
    outside : array, shape (k, n, n), bool, optional
        Pixels that are not part of the frame: the profile goes on there as bright as it may,
        and they come out 0.

    Returns
    -------
    array, shape (k, n, n), dtype of ``stamps``
    """
    side = stamps.shape[-1]
    steps = level_order(side // 2, stamps.dtype.str)
    # what is dark beyond a level of non-negative stamps stays dark
    n = _n_lit(stamps, steps) if stamps.min() >= 0 else side * side
    levels = list(itertools.takewhile(lambda level: level[0] < n, steps.levels))
    if outside is not None:
        stamps = stamps.copy()
        np.putmask(stamps, outside, stamps.dtype.type(_OUTSIDE))
    values = _to_levels(stamps, steps)
    cap_outwards(values, levels)
    result = _from_levels(values, steps, side)
    if outside is not None:
        np.putmask(result, outside, 0)
    return result


def project_about_brightest(stamps: Floats, outside: NDArray[np.bool_] | None = None) -> Floats:
    """Make stamps monotonic about the brightest of their central 3x3 pixels, dark outside.

    As the reference system does: the first in raster order wins a tie, and pixels outside the
    frame count as 0 when they cap their neighbours, so that sources beside an edge lose light.

    Parameters
    ----------
    stamps : array, shape (k, n, n), float32 or float64
        n odd, at least 3.
    outside : array, shape (k, n, n), bool, optional

    Returns
    -------
    array, shape (k, n, n), dtype of ``stamps``
    """
    k, n = stamps.shape[:2]
    if outside is None:
        outside = np.zeros(stamps.shape, bool)
    core = (slice(None), slice(n // 2 - 1, n // 2 + 2), slice(n // 2 - 1, n // 2 + 2))
    brightest = np.where(outside[core], -np.inf, stamps[core]).reshape(k, 9).argmax(1)
    low = 2 - np.stack(np.divmod(brightest, 3), 1)  # so that the brightest becomes the centre
    wide, dark = np.zeros((k, n + 2, n + 2), stamps.dtype), np.ones((k, n + 2, n + 2), bool)
    places = [(i, slice(y, y + n), slice(x, x + n)) for i, (y, x) in enumerate(low.tolist())]
    for i, place in enumerate(places):
        wide[place], dark[place] = np.where(outside[i], 0, stamps[i]), outside[i]
    steps = level_order(n // 2 + 1, stamps.dtype.str)
    values = _to_levels(wide, steps)
    cap_outwards(values, steps.levels, _to_levels(dark, steps))
    wide = _from_levels(values, steps, n + 2)
    return np.stack([wide[place] for place in places])


def _to_levels(stamps: NDArray[T], steps: LevelOrder) -> NDArray[T]:
    """Sort pixels by level, shape (n * n, k)."""
    return np.ascontiguousarray(stamps.reshape(len(stamps), -1).T).take(steps.order, axis=0)


def _from_levels(values: Floats, steps: LevelOrder, side: int) -> Floats:
    """Undo `_to_levels`."""
    ordered = values.take(steps.inverse, axis=0)
    return np.ascontiguousarray(ordered.T).reshape(-1, side, side)


def _n_lit(stamps: Floats, steps: LevelOrder) -> int:
    """Count the pixels up to the last one with light."""
    lit = np.flatnonzero(stamps.any(0).ravel()[steps.order])
    return int(lit[-1]) + 1 if len(lit) else 0


def cap_outwards(
    values: Floats, levels: Sequence[Level], dark: NDArray[np.bool_] | None = None
) -> None:
    """Apply the caps in place to level-ordered stamps, shape (n * n, k); dark pixels stay 0."""
    minimum, total, multiply = np.minimum, np.add.reduce, np.multiply
    for first, last, neighbours, weights in levels:
        cap = values.take(neighbours, axis=0)
        multiply(cap, weights, out=cap)
        own = values[first:last]
        minimum(own, total(cap, 0), out=own)
        if dark is not None:
            own[dark[first:last]] = 0


def pool_gradient(stamps: Floats, gradient: Floats) -> Floats:
    """Pass the pull on capped pixels to the pixels that cap them.

    A pixel that sits at its cap cannot rise before its inner neighbours do, so a gradient that
    would raise it is added to theirs in equal parts, level by level inwards. Without this a
    projected step stops where the inner pixels are content, whatever the outer ones ask for.

    Parameters
    ----------
    stamps : array, shape (k, n, n), float32 or float64
        Morphologies that are (nearly) monotonic.
    gradient : array, shape (k, n, n), same dtype
        Of a function to be minimised.

    Returns
    -------
    array, shape (k, n, n)
    """
    side = stamps.shape[-1]
    steps = level_order(side // 2, stamps.dtype.str)
    n = _n_lit(stamps, steps)  # dark pixels beyond are not capped
    values, pull = _to_levels(stamps, steps)[:n], _to_levels(gradient, steps)
    cap = np.zeros_like(values)
    for neighbours, weights in zip(steps.neighbours, steps.weights, strict=True):
        near = values.take(neighbours[:n], axis=0)
        near *= weights[:n]
        cap += near
    cap *= values.dtype.type(_AT_CAP)
    share = np.zeros_like(pull)  # that each pixel passes to every one of its neighbours
    np.multiply((values >= cap) & (cap > 0), steps.share[:n], out=share[:n])
    passed = np.zeros((len(pull) + 1, pull.shape[1]), pull.dtype)  # the last one stays 0
    np.multiply(np.minimum(pull[:n], 0), share[:n], out=passed[:n])
    minimum, total, multiply = np.minimum, np.add.reduce, np.multiply
    for first, last, pixels in steps.outer:
        if first >= n:
            continue
        own, push = pull[first:last], passed[first:last]
        own += total(passed.take(pixels, axis=0), 0)
        minimum(own, 0, out=push)
        multiply(push, share[first:last], out=push)
    return _from_levels(pull, steps, side)
