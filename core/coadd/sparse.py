"""Sets of pixels as sorted flat indices: grow them and find their connected components.

For the one in a thousand pixels that differ from a template this is ten times faster than
working on whole images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.components import edge_labels

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """Pixels as runs of flat indices, for the sets that are large and coherent.

    Parameters
    ----------
    bounds : array, shape (2 n,), int64
        First pixel of each run, and the pixel after its last; ascending.
    """

    bounds: Indices

    @classmethod
    def of(cls, plane: NDArray[np.bool_], first: int = 0) -> Runs:
        """Find the runs of a plane whose first pixel has the flat index ``first``."""
        flat = plane.ravel()
        if not flat.any():
            return cls(np.zeros(0, np.int64))
        ends = [0] * bool(flat[0]), [flat.size] * bool(flat[-1])
        inner = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        return cls(np.concatenate([*ends[:1], inner, *ends[1:]]).astype(np.int64) + first)

    @classmethod
    def joined(cls, parts: Sequence[Runs]) -> Runs:
        """Join the runs of consecutive parts."""
        return cls(np.concatenate([np.zeros(0, np.int64), *(part.bounds for part in parts)]))

    def contains(self, pixels: Indices) -> NDArray[np.bool_]:
        """Which pixels are in the set."""
        return np.asarray(np.searchsorted(self.bounds, pixels, side="right") % 2 == 1)

    def plane(self, first: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Set as a plane whose first pixel has the flat index ``first``."""
        last = first + shape[0] * shape[1]
        low, high = np.searchsorted(self.bounds, (first, last), side="right")
        edges = np.concatenate([[first], self.bounds[low:high], [last]])
        inside = (np.arange(low, high + 1) % 2).astype(bool)
        return np.repeat(inside, np.diff(edges)).reshape(shape)


def disc(radius: int) -> tuple[Indices, Indices]:
    """Offsets ``dy, dx`` of the pixels of a disc: ``dx = floor(sqrt(r**2 - dy**2))`` per row."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = y**2 + x**2 <= radius**2
    return y[inside], x[inside]


def grow(pixels: Indices, radius: int, shape: tuple[int, int]) -> Indices:
    """Grow a set of pixels by a disc; what leaves the image is dropped.

    Parameters
    ----------
    pixels : array, shape (n,), int64
        Sorted flat indices.
    radius : int
    shape : tuple of int
        ``(ny, nx)`` of the image.
    """
    if radius < 1 or not pixels.size:
        return pixels
    y, x = np.divmod(pixels, shape[1])
    dy, dx = disc(radius)
    y, x = y[:, None] + dy, x[:, None] + dx
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    return np.unique((y * shape[1] + x)[inside])


def components(pixels: Indices, width: int) -> tuple[Indices, int]:
    """Label 8-connected components.

    Parameters
    ----------
    pixels : array, shape (n,), int64
        Sorted flat indices.
    width : int
        Columns of the image.

    Returns
    -------
    labels : array, shape (n,), int64
        From 0, in the order of first pixels.
    n : int
    """
    if not pixels.size:
        return np.zeros(0, np.int64), 0
    column = pixels % width
    first, second = [], []
    for step, allowed in (
        (1, column < width - 1),
        (width - 1, column > 0),
        (width, column >= 0),
        (width + 1, column < width - 1),
    ):
        own = np.flatnonzero(allowed)
        place = np.searchsorted(pixels, pixels[own] + step)
        place[place == pixels.size] = 0
        joined = pixels[place] == pixels[own] + step
        first.append(own[joined])
        second.append(place[joined])
    return edge_labels(np.concatenate(first), np.concatenate(second), pixels.size)


def drop_small(pixels: Indices, width: int, min_area: float) -> Indices:
    """Keep components of at least ``min_area`` pixels."""
    labels, n = components(pixels, width)
    return pixels[np.bincount(labels, minlength=n)[labels] >= min_area]
