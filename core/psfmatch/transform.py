"""Stamps in Fourier space: linear convolution, correlation, residuals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.psf.fields import Array
from coblend.core.psf.resample import resized


def transformed(stamps: Array, period: int) -> NDArray[np.complex128]:
    """`rfft2` of stamps with their central pixel moved to the origin."""
    half = stamps.shape[-1] // 2
    room = np.zeros((*stamps.shape[:-2], period, period))
    room[..., : stamps.shape[-1], : stamps.shape[-1]] = stamps
    return np.asarray(fft.rfft2(np.roll(room, (-half, -half), axis=(-2, -1))))


def convolved(a: Array, b: Array) -> Array:
    """Full linear convolution of stamps, centred; leading axes broadcast.

    Parameters
    ----------
    a : array, shape (..., n, n)
    b : array, shape (..., k, k)

    Returns
    -------
    array, shape (..., n + k - 1, n + k - 1)
    """
    side = a.shape[-1] + b.shape[-1] - 1
    period = fft.next_fast_len(side, real=True)
    size = (period, period)
    product = fft.rfft2(a, size) * fft.rfft2(b, size)
    return np.asarray(fft.irfft2(product, size)[..., :side, :side])


def correlated(a: Array, b: Array, reach: int) -> Array:
    """``c(d) = sum_x a(x + d) b(x)`` for offsets up to ``reach`` along both axes.

    Returns
    -------
    array, shape (2 * reach + 1, 2 * reach + 1)
    """
    side = (a.shape[-1] + b.shape[-1]) // 2 + reach + 1
    period = fft.next_fast_len(max(side, a.shape[-1], b.shape[-1], 2 * reach + 1), real=True)
    product = transformed(a, period) * np.conj(transformed(b, period))
    offsets = np.arange(-reach, reach + 1) % period
    return np.asarray(fft.irfft2(product, (period, period))[np.ix_(offsets, offsets)])


def residual(kernel: Array, source: Array, target: Array) -> Array:
    """``R = K * P_s - P_r`` wherever either is not zero."""
    reached = convolved(source, kernel)
    side = max(reached.shape[-1], target.shape[-1])
    return resized(reached, side) - resized(target, side)
