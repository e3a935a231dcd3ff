"""Radial structure of PSF stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SPLIT = 5
"""Parts of a pixel's side; odd, so that the centre stays the centre."""


def radii(side: int) -> NDArray[np.float64]:
    """Distance of every pixel of a stamp from the central one, shape (side, side), pixel."""
    axis = np.arange(side) - side // 2
    return np.asarray(np.hypot(*np.meshgrid(axis, axis)))


def radial_profile(
    stamp: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of a stamp in rings one pixel wide.

    Returns
    -------
    radius, mean : array, shape (side // 2 + 1,), float64
        Mean distance (pixel) and mean value of the pixels of each ring.
    """
    distance = radii(stamp.shape[0]).ravel()
    ring = np.rint(distance).astype(np.int64)
    n = stamp.shape[0] // 2 + 1
    count = np.bincount(ring)[:n]
    sums = (np.bincount(ring, v)[:n] for v in (distance, np.asarray(stamp, np.float64).ravel()))
    radius, mean = (total / count for total in sums)
    return radius, mean


def encircled_energy(
    stamp: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fraction of a stamp's sum inside circles; pixels count by the part of them inside.

    Returns
    -------
    radius, fraction : array, shape (n,), float64
        From 0 to the half-diagonal, in steps of half a pixel.
    """
    fine = np.repeat(np.repeat(np.asarray(stamp, np.float64), _SPLIT, 0), _SPLIT, 1)
    distance = radii(len(fine)).ravel() / _SPLIT
    ring = np.ceil(2 * distance).astype(np.int64)
    energy = np.cumsum(np.bincount(ring, fine.ravel()))
    return np.arange(len(energy)) / 2, energy / energy[-1]
