"""Trails of satellites: long straight artifacts, followed beyond where they are significant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.sparse import Indices

MIN_AREA, MIN_RATIO = 50, 10
"""Smallest area (pixel) and axis ratio of an artifact that is taken for part of a trail."""

_STEP = 32  # pixels along the trail that are averaged
_FAINTEST = 1.5  # mean significance there


@dataclass(frozen=True, slots=True)
class Line:
    """A straight artifact.

    Parameters
    ----------
    y, x : float
        Its centre, array coordinates.
    dy, dx : float
        Its direction, a unit vector.
    half_length, sigma : float
        Half of its extent along the line, and the standard deviation across it (pixel).
    """

    y: float
    x: float
    dy: float
    dx: float
    half_length: float
    sigma: float


def line_of(pixels: Indices, width: int) -> Line | None:
    """Fit a line to the pixels of an artifact; None unless they are a long straight one.

    Parameters
    ----------
    pixels : array, shape (n,), int64
        Flat indices.
    width : int
        Columns of the frame.
    """
    if pixels.size < MIN_AREA:
        return None
    place = np.stack(np.divmod(pixels, width)).astype(np.float64)
    centre = place.mean(axis=1)
    spread, axes = np.linalg.eigh(np.cov(place))
    if spread[1] < MIN_RATIO**2 * spread[0]:
        return None
    (y, x), (dy, dx) = centre.tolist(), axes[:, 1].tolist()
    along = (place - centre[:, None]).T @ axes[:, 1]
    return Line(y, x, dy, dx, float(np.abs(along).max()), float(np.sqrt(spread[0])))


def band(
    line: Line, half_width: float, shape: tuple[int, int]
) -> tuple[Indices, NDArray[np.float64]]:
    """Pixels of a frame near a line, from border to border.

    Parameters
    ----------
    line : Line
    half_width : float
        Largest distance (pixel).
    shape : tuple of int

    Returns
    -------
    pixels : array, shape (n,), int64
        Flat indices, ascending.
    along : array, shape (n,), float64
        Position on the line, 0 at its centre (pixel).
    """
    steep = abs(line.dy) > abs(line.dx)
    n = shape[0] if steep else shape[1]
    main, cross = (line.dy, line.dx) if steep else (line.dx, line.dy)
    main_0, cross_0 = (line.y, line.x) if steep else (line.x, line.y)
    t = np.arange(n)
    reach = int(half_width / abs(main)) + 1
    s = np.rint(cross_0 + (t - main_0) * cross / main)[:, None] + np.arange(-reach, reach + 1)
    s = s.astype(np.int64)
    y, x = (np.broadcast_to(t[:, None], s.shape), s) if steep else (s, np.broadcast_to(
        t[:, None], s.shape))  # fmt: skip
    v, u = y - line.y, x - line.x
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    inside &= np.abs(v * line.dx - u * line.dy) <= half_width
    pixels, along = (y * shape[1] + x)[inside], (v * line.dy + u * line.dx)[inside]
    order = np.argsort(pixels)
    return pixels[order], along[order]


def extent(
    line: Line, along: NDArray[np.float64], significance: NDArray[np.float32]
) -> tuple[float, float]:
    """Follow a trail to both sides while its mean significance stays above 1.5.

    Parameters
    ----------
    line : Line
    along, significance : array, shape (n,)
        Position on the line, and significance (NaN: unknown) of the pixels near it.

    Returns
    -------
    first, last : float
        Ends of the trail on the line; at least those of the artifact.
    """
    known = np.isfinite(significance)
    step = np.floor(along[known] / _STEP).astype(np.int64)
    ends = []
    for sign in (-1, 1):
        end = line.half_length
        outward = step if sign > 0 else -step - 1
        own = int(line.half_length // _STEP)
        beyond = outward >= own
        counts = np.bincount(outward[beyond] - own)
        sums = np.bincount(outward[beyond] - own, significance[known][beyond])
        for k, (count, total) in enumerate(zip(counts, sums, strict=True)):
            if count and total <= _FAINTEST * count:
                break
            end = max(end, float((own + k + 1) * _STEP)) if count else end
        ends.append(sign * end)
    return ends[0], ends[1]
