"""Sets of pixels as sorted flat indices: grow them and find their connected components.

For the one in a thousand pixels that differ from a template this is ten times faster than
working on whole images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.components import edge_labels

Indices = NDArray[np.int64]


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


def drop_small(pixels: Indices, width: int, min_area: int) -> Indices:
    """Keep components of at least ``min_area`` pixels."""
    labels, n = components(pixels, width)
    return pixels[np.bincount(labels, minlength=n)[labels] >= min_area]
