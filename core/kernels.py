"""Difference kernels: what turns the model PSF into an observed PSF.

The deblender's models live at the resolution of a narrow Gaussian, the model PSF G; a difference
kernel D with ``D * G = P`` renders them in a band whose PSF is P. Fit, reconstruction and
residuals all take their kernels from here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from coblend.core.errors import FormatError, ParameterError
from coblend.core.model import KERNEL_REGULARIZATION, MODEL_PSF_SIDE, MODEL_PSF_SIGMA


def model_psf(sigma: float = MODEL_PSF_SIGMA, side: int = MODEL_PSF_SIDE) -> NDArray[np.float64]:
    """Pixel-integrated circular Gaussian with sum 1.

    Parameters
    ----------
    sigma : float
        Width (pixel).
    side : int
        Side of the stamp (pixel), odd.

    Returns
    -------
    array, shape (side, side), float64

    Raises
    ------
    ParameterError
        For an even or non-positive side, or a width that is not positive.
    """
    if side < 1 or side % 2 == 0:
        raise ParameterError(f"the model PSF has a side of {side} pixels; it must be odd")
    if not sigma > 0:
        raise ParameterError(f"the model PSF has a width of {sigma} pixels; it must be positive")
    edges = (np.arange(side + 1) - side / 2) / (math.sqrt(2) * sigma)
    profile = np.diff(special.erf(edges))
    stamp = np.outer(profile, profile)
    return np.asarray(stamp / stamp.sum(), np.float64)


def difference_kernel(
    psf: NDArray[np.floating], model: NDArray[np.floating], reg: float = KERNEL_REGULARIZATION
) -> NDArray[np.float64]:
    """Kernel that carries the model PSF into an observed one.

    ``K = F(P) conj(F(M)) / (|F(M)|^2 + reg^2)``, cropped to the stamp of P and scaled to its sum;
    the plain ratio, reg 0, is not scaled.

    Parameters
    ----------
    psf : array, shape (..., k, k)
        Observed PSFs; odd sides, centred.
    model : array, shape (m, m)
        Model PSF; odd side, centred.
    reg : float
        Regularisation relative to the transform of the model PSF at frequency 0; 0 is the plain
        ratio, which amplifies the noise of a PSF image a thousandfold.

    Returns
    -------
    array, shape (..., k, k), float64

    Raises
    ------
    FormatError
        When a PSF has even sides, is not finite or has no positive sum.
    ParameterError
        When ``reg`` is negative.
    """
    stamps: NDArray[np.float64] = np.asarray(psf, np.float64)
    if reg < 0 or not math.isfinite(reg):
        raise ParameterError(f"the kernel regularisation is {reg}; it must not be negative")
    if stamps.ndim < 2 or stamps.shape[-1] % 2 == 0 or stamps.shape[-2] % 2 == 0:
        raise FormatError(f"the PSF has {stamps.shape} pixels; its sides must be odd")
    total = stamps.sum((-2, -1), keepdims=True)
    if not np.all(np.isfinite(stamps)) or not np.all(total > 0):
        raise FormatError("the PSF must be finite with a positive sum")
    ny, nx = stamps.shape[-2:]
    my, mx = model.shape
    shape = (fft.next_fast_len(ny + my + 3, real=True), fft.next_fast_len(nx + mx + 3, real=True))
    psf_ft = fft.rfft2(_centre_at_origin(stamps, shape))
    model_ft = fft.rfft2(_centre_at_origin(np.asarray(model, np.float64), shape))
    power = np.abs(model_ft) ** 2 + reg**2
    ratio = psf_ft * np.conj(model_ft) / np.where(power > 0, power, np.inf)
    full = fft.irfft2(ratio, s=shape)
    kernel = np.roll(full, (ny // 2, nx // 2), (-2, -1))[..., :ny, :nx]
    if reg > 0:
        kernel = kernel * (total / kernel.sum((-2, -1), keepdims=True))
    return np.asarray(kernel, np.float64)


def _centre_at_origin(stamp: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Pad with zeros to ``shape`` and roll the central pixel to index 0."""
    ny, nx = stamp.shape[-2:]
    padded = np.zeros((*stamp.shape[:-2], *shape))
    padded[..., :ny, :nx] = stamp
    return np.roll(padded, (-(ny // 2), -(nx // 2)), (-2, -1))
