"""Radial structure of PSF stamps, and how it varies over a field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.psf.base import Psf
from coblend.core.psf.moments import adaptive_moments

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


@dataclass(frozen=True, slots=True)
class ShapeMap:
    """Adaptive size and shape of a PSF in the middle of n x n equal cells of a box.

    Parameters
    ----------
    fwhm : array, shape (n, n)
        Pixel; NaN where the PSF is unknown.
    y, x : array, shape (m,)
        Where it is known, parent coordinates.
    dy, dx : array, shape (m,)
        Ellipticity there as a vector along the longer axis.
    """

    fwhm: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    dy: NDArray[np.float64]
    dx: NDArray[np.float64]


def shape_map(psf: Psf, box: Box, n: int) -> ShapeMap:
    """Measure a PSF over a box."""
    y, x = (
        np.linspace(first, first + size - 1, 2 * n + 1)[1::2]
        for first, size in ((box.y0, box.ny), (box.x0, box.nx))
    )
    y, x = (plane.ravel() for plane in np.meshgrid(y, x, indexing="ij"))
    stamps = psf.at_many(y, x)
    known = np.isfinite(stamps).all((1, 2))
    fwhm = np.full(n * n, np.nan)
    if not known.any():
        return ShapeMap(fwhm.reshape(n, n), *np.zeros((4, 0)))
    moments = adaptive_moments(stamps[known])
    fwhm[known] = moments.fwhm
    length = np.hypot(moments.e1, moments.e2)
    angle = 0.5 * np.arctan2(moments.e2, moments.e1)
    return ShapeMap(
        fwhm.reshape(n, n), y[known], x[known], length * np.sin(angle), length * np.cos(angle)
    )
