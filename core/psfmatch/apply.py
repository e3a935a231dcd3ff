"""Apply a matching kernel to an exposure: image, variance, mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.params.match import MatchParams
from coblend.core.psf.fields import Array, CellField, ChebyshevField, Kernel
from coblend.core.psfmatch.convolve import convolve, label_cells
from coblend.core.psfmatch.missing import fill_missing
from coblend.core.psfmatch.noise import squared
from coblend.core.psfmatch.spread import grow_mask, significant_radius

NOTICEABLE = 0.01
"""Fraction of the kernel on missing pixels from which on a pixel is flagged."""
BYTES_PER_PIXEL = 36
"""Memory of a match per pixel of the exposure, before and after (docs/performance.md)."""
FILL_SIGMA = 1.5
"""First width of the fill, pixel; about that of a well sampled PSF."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A convolved exposure.

    Parameters
    ----------
    exposure : Exposure
    radius : int
        By how much mask planes grew, pixel.
    n_missing : int
        Pixels without data in the result.
    """

    exposure: Exposure
    radius: int
    n_missing: int


def apply_kernel(
    exposure: Exposure, kernel: Kernel, params: MatchParams, threads: int = 1
) -> Applied:
    """Convolve an exposure: the image with K, the variance with K squared.

    Missing pixels are filled first, those of ``bad_planes`` that nobody interpolated among them.
    A pixel keeps a value while at most ``max_missing`` of the kernel falls on missing pixels or
    beyond the border; it is flagged INTRP (EDGE near the border) where that is more than 1 %.
    Other planes grow by the radius over which the kernel matters.

    Parameters
    ----------
    exposure : Exposure
    kernel : Field
        In parent coordinates; its sum scales the image.
    params : MatchParams
    threads : int
    """
    box = exposure.box
    centre = np.array([box.y0 + (box.ny - 1) / 2]), np.array([box.x0 + (box.nx - 1) / 2])
    half = kernel.side // 2
    bad = ~exposure.good(params.bad_planes, filled=True)
    image, variance = fill_missing((exposure.image, exposure.variance), bad, FILL_SIGMA, half)
    image = convolve(image, kernel, box, threads=threads)
    quietest = float(np.min(exposure.variance, where=~bad, initial=np.inf))
    variance = _convolved_variance(variance, quietest, kernel, box, threads)
    lost = _lost_weight(bad, kernel.at_many(*centre)[0], threads)
    if params.fill == "nan":
        missing = ndimage.maximum_filter(bad, kernel.side, mode="constant", cval=True)
    else:
        missing = bad | (lost > params.max_missing)
    radius = _mask_radius(kernel, box, params)
    mask = _grown_mask(exposure, kernel, params, radius)
    bits = {n: np.int32(exposure.planes.value([n])) for n in ("NO_DATA", "EDGE", "INTRP")}
    border = np.ones(box.shape, dtype=bool)
    border[half : box.ny - half, half : box.nx - half] = False
    noticeable = lost > NOTICEABLE
    mask[noticeable & border] |= bits["EDGE"]
    mask[noticeable & ~missing & ndimage.maximum_filter(bad, kernel.side)] |= bits["INTRP"]
    mask[missing] |= bits["NO_DATA"]
    image[missing] = 0
    variance[missing] = np.inf
    return Applied(exposure.with_pixels(image, mask, variance), radius, int(missing.sum()))


def _convolved_variance(
    variance: NDArray[np.float32], quietest: float, kernel: Kernel, box: Box, threads: int
) -> NDArray[np.float32]:
    """Variance of the convolved image, no lower than if all pixels were like the quietest.

    Beside a saturated star the small error of a varying squared kernel could make it negative.
    """
    square = squared(kernel)
    out = convolve(variance, square, box, threads=threads)
    y, x = _corners_and_middle(box)
    floor = 0.9 * quietest * float(square.at_many(y, x).sum(axis=(1, 2)).min())
    return np.maximum(out, np.float32(floor))


def _corners_and_middle(box: Box) -> tuple[Array, Array]:
    """Nine positions, y and x, from corner to corner of a box."""
    y, x = np.meshgrid(
        np.linspace(box.y0, box.y1 - 1, 3), np.linspace(box.x0, box.x1 - 1, 3), indexing="ij"
    )
    return y.ravel(), x.ravel()


def _lost_weight(bad: NDArray[np.bool_], kernel: Array, threads: int) -> NDArray[np.float32]:
    """Fraction of the kernel, in absolute value, that falls on bad pixels or outside."""
    share = ChebyshevField.of_constant(np.abs(kernel) / np.abs(kernel).sum())
    frame = Box(0, 0, *bad.shape)
    return convolve(bad.astype(np.float32), share, frame, outside=1.0, threads=threads)


def _mask_radius(kernel: Kernel, box: Box, params: MatchParams) -> int:
    if params.mask_spread == "none":
        return 0
    if params.mask_spread == "full":
        return kernel.side // 2
    if isinstance(kernel, CellField):
        return significant_radius(kernel.images, params.mask_spread_threshold)
    kernels = kernel.at_many(*_corners_and_middle(box))
    return significant_radius(kernels, params.mask_spread_threshold)


def _grown_mask(
    exposure: Exposure, kernel: Kernel, params: MatchParams, radius: int
) -> NDArray[np.int32]:
    """Mask with all planes grown but NO_DATA, which the lost weight decides."""
    fixed = np.int32(exposure.planes.value((*params.no_spread_planes, "NO_DATA")))
    mask = exposure.mask | grow_mask(exposure.mask & ~fixed, radius)
    if isinstance(kernel, CellField) and not kernel.constant:
        inexact = np.int32(exposure.planes.value(["INEXACT_PSF"]))
        jumps = _jumps(kernel, exposure.box, params.tolerance)
        mask |= grow_mask(jumps.astype(np.int32) * inexact, radius)
    return mask


def _jumps(kernel: CellField, box: Box, tolerance: float) -> NDArray[np.bool_]:
    """Pixels beside a cell border at which the kernel changes by more than ``tolerance``."""
    labels = label_cells(kernel, box)
    flat = kernel.images.reshape(len(kernel.images), -1)
    out = np.zeros(box.shape, dtype=bool)
    for first, second in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        a, b = labels[first], labels[second]
        for i, j in np.unique(np.stack([a[a != b], b[a != b]], axis=1), axis=0):
            if np.abs(flat[i] - flat[j]).max() > tolerance * np.abs(flat[i]).max():
                touch = (a == i) & (b == j)
                out[first] |= touch
                out[second] |= touch
    return out
