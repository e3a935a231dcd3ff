"""Pixels without data: filled before the convolution, tracked by the weight they take away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TRUNCATE = 3.0
DOUBLINGS = 5


def fill_missing(
    planes: tuple[NDArray[np.float32], ...],
    bad: NDArray[np.bool_],
    sigma: float,
    reach: int,
) -> tuple[NDArray[np.float32], ...]:
    """Replace bad pixels by the Gaussian-weighted mean of the good ones around.

    The width doubles until every bad pixel within ``reach`` of a good one has a value; the rest
    becomes 0, where no kernel that is used can see it.

    Parameters
    ----------
    planes : tuple of array, shape (ny, nx), float32
        Filled with the same weights.
    bad : array, shape (ny, nx), bool
    sigma : float
        First width, pixel.
    reach : int
        Half side of the kernel that will be applied.

    Returns
    -------
    tuple of array
        The planes themselves when nothing is bad.
    """
    if not bad.any():
        return planes
    good = ~bad
    filled = tuple(np.where(bad, np.float32(0), plane) for plane in planes)
    sources = tuple(plane.copy() for plane in filled)
    weight = good.astype(np.float32)
    left = bad & ndimage.maximum_filter(good, 2 * reach + 1)
    width = sigma
    for _ in range(DOUBLINGS + 1):
        if not left.any():
            break
        total = ndimage.gaussian_filter(weight, width, mode="constant", truncate=TRUNCATE)
        now = left & (total > 1e-6)
        for plane, source in zip(filled, sources, strict=True):
            smooth = ndimage.gaussian_filter(source, width, mode="constant", truncate=TRUNCATE)
            plane[now] = smooth[now] / total[now]
        left &= ~now
        width *= 2
    return filled
