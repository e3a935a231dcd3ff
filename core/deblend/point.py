"""Point sources: the observed PSF at sub-pixel places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from coblend.core.deblend.fitting.components import Floats
from coblend.core.model import MODEL_PSF_SIDE, MODEL_PSF_SIGMA

_ROOM = 4
"""Zeros around a stamp before it is shifted, so that nothing wraps around (pixel)."""


def shifted_stamps(stamps: Floats, dy: Floats, dx: Floats) -> Floats:
    """Move stamps by fractions of a pixel in Fourier space.

    Parameters
    ----------
    stamps : array, shape (..., k, k)
    dy, dx : array, shape (n,)
        The shapes of stamps and shifts broadcast: (n, 1, 1, 1) shifts n bands of stamps alike.

    Returns
    -------
    array, shape (..., k, k), float32
    """
    side = stamps.shape[-1]
    n = fft.next_fast_len(side + _ROOM, real=True)
    phase_y = np.exp(-2j * np.pi * fft.fftfreq(n) * np.asarray(dy)[..., None])
    phase_x = np.exp(-2j * np.pi * fft.rfftfreq(n) * np.asarray(dx)[..., None])
    moved = fft.rfft2(stamps, s=(n, n)) * phase_y[..., :, None] * phase_x[..., None, :]
    return np.asarray(fft.irfft2(moved, s=(n, n))[..., :side, :side], np.float32)


def model_stamps(dy: Floats, dx: Floats, sigma: float = MODEL_PSF_SIGMA) -> Floats:
    """Model PSF with its centre off the central pixel, shape (n, side, side), float64, sum 1."""
    edges = np.arange(MODEL_PSF_SIDE + 1) - MODEL_PSF_SIDE / 2
    profiles = [
        np.diff(special.erf((edges - np.asarray(d)[:, None]) / (np.sqrt(2) * sigma)))
        for d in (dy, dx)
    ]
    stamps = profiles[0][:, :, None] * profiles[1][:, None, :]
    return np.asarray(stamps / stamps.sum((1, 2), keepdims=True), np.float64)


def nearest_pixel(position: NDArray[np.float64], pixel: NDArray[np.int64]) -> NDArray[np.float64]:
    """Offsets of positions from pixels, 0 where a position is unknown or a pixel away."""
    offset = position - pixel
    return np.where(np.abs(offset) <= 1, offset, 0.0)
