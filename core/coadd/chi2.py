"""A coadd of several bands for detection.

Every band is smoothed by a Gaussian of the size of its PSF and divided by its variance: the
likelihood-weighted sum that finds sources of any colour. The smoothing is that of a matched
filter, so detection on it needs no further one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.psf import StampPsf
from coblend.core.psf.moments import adaptive_moments
from coblend.core.psf.resample import resized

BYTES_PER_PIXEL = 72
"""Memory per pixel of the sum of three or more bands (measured)."""


def chi2_coadd(bands: Iterable[Exposure]) -> Exposure:
    """Sum bands that share a grid; a generator keeps one in memory at a time.

    Masks are united: what is missing in one band is missing in the sum.

    Raises
    ------
    FormatError
        There is none, or one has no PSF or no pixel with data.
    """
    total = first = None
    for exposure in bands:
        part = smoothed(exposure)
        if first is None or total is None:
            first, total = exposure, part
            planes, mask = exposure.planes, exposure.mask
            continue
        union = planes.union(exposure.planes)
        mask = planes.remap(mask, union) | exposure.planes.remap(exposure.mask, union)
        planes, total = union, add(total, part)
    if first is None or total is None:
        raise FormatError("no coadds given: the lists are empty")
    missing = (mask & np.int32(planes.value(["NO_DATA"]))) != 0
    return Exposure(
        total.image.astype(np.float32), mask,
        np.where(missing, np.inf, total.variance).astype(np.float32), first.box, planes,
        band="chi2", psf=StampPsf(total.psf), wcs=first.wcs,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Smoothed:
    """One band's share of the sum.

    Parameters
    ----------
    image : array, shape (ny, nx), float64
        ``(I * G) / median(v)``, 0 without data.
    variance : float
        ``sum G**2 / median(v)``.
    psf : array, shape (side, side), float64
        ``P * G / median(v)``.
    """

    image: NDArray[np.float64]
    variance: float
    psf: NDArray[np.float64]


def smoothed(exposure: Exposure) -> Smoothed:
    """Smooth a band by a Gaussian of its PSF's size and divide it by its variance.

    Raises
    ------
    FormatError
        Without a PSF or a pixel with data.

    Notes
    -----
    drp_tasks ``AssembleChi2CoaddTask``; its variance leaves out the factor ``sum G**2``.
    """
    if exposure.psf is None:
        raise FormatError(f"band {exposure.band} has no PSF")
    box = exposure.box
    stamp = exposure.psf.at(box.y0 + (box.ny - 1) / 2, box.x0 + (box.nx - 1) / 2)
    sigma = float(adaptive_moments(stamp).sigma[0])
    half = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    good = exposure.good()
    if not good.any():
        raise FormatError(f"band {exposure.band} has no pixel with data")
    median = float(np.median(exposure.variance[good]))
    image = np.where(good, exposure.image, 0).astype(np.float64)
    psf = resized(stamp, stamp.shape[0] + 2 * half)
    return Smoothed(
        _smooth(image, kernel) / median,
        float(np.sum(kernel**2) ** 2 / median),
        _smooth(psf, kernel) / median,
    )


def add(a: Smoothed, b: Smoothed) -> Smoothed:
    """Sum of two bands, or sums."""
    side = max(a.psf.shape[0], b.psf.shape[0])
    return Smoothed(
        a.image + b.image,
        a.variance + b.variance,
        resized(a.psf, side) + resized(b.psf, side),
    )


def _smooth(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis in (0, 1):
        image = correlate1d(image, kernel, axis, mode="constant")
    return image
