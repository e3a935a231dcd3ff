"""Moving and resizing PSF stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import ParameterError

SPLINE_MARGIN = 6
"""Pixels of zeros around a stamp before its spline is shifted (a quintic reaches 3)."""


def resized(stamps: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Pad with zeros or crop about the central pixel.

    Parameters
    ----------
    stamps : array, shape (..., n, n), odd n
    side : int
        New side, odd.

    Returns
    -------
    array, shape (..., side, side)
        Not rescaled: cropping loses flux.

    Raises
    ------
    ParameterError
        For an even or non-positive side.
    """
    if side < 1 or side % 2 == 0:
        raise ParameterError(f"a stamp side must be odd and positive, not {side}")
    margin = (side - stamps.shape[-1]) // 2
    if margin >= 0:
        pad = [(0, 0)] * (stamps.ndim - 2) + [(margin, margin)] * 2
        return np.pad(stamps, pad)
    return stamps[..., -margin:margin, -margin:margin]


def largest_difference(stamp: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Largest difference of two centred stamps of any sides, over the peak of the reference."""
    side = max(stamp.shape[-1], reference.shape[-1])
    left = resized(stamp, side) - resized(reference, side)
    return float(np.abs(left).max() / reference.max())


def shifted(stamp: NDArray[np.float64], dy: float, dx: float) -> NDArray[np.float64]:
    """Move a stamp by a fraction of a pixel and keep its sum.

    A quintic B-spline: for a shift of 0.4 px of a Gaussian of sigma 1.5 px the error is 3e-4 of
    the peak, that of a cubic spline or of Lanczos-5 2e-3 or more.

    Parameters
    ----------
    stamp : array, shape (n, n)
    dy, dx : float
        The centre moves to ``(n // 2 + dy, n // 2 + dx)``.

    Returns
    -------
    array, shape (n, n), float64
    """
    padded = np.pad(stamp.astype(np.float64), SPLINE_MARGIN)
    from scipy import ndimage

    moved = ndimage.shift(padded, (dy, dx), order=5, mode="constant")
    inner = moved[SPLINE_MARGIN:-SPLINE_MARGIN, SPLINE_MARGIN:-SPLINE_MARGIN]
    return np.asarray(inner * (stamp.sum() / inner.sum()), dtype=np.float64)


def lanczos_matrix(n_in: int, step: float, order: int = 4) -> NDArray[np.float64]:
    """Matrix that resamples a centred row of samples ``step`` pixels apart to whole pixels.

    Parameters
    ----------
    n_in : int
        Number of samples; sample ``n_in // 2`` is at the centre.
    step : float
        Distance of neighbouring samples in pixels.
    order : int
        Half width of the windowed sinc in samples.

    Returns
    -------
    array, shape (n_out, n_in), float64
        Rows sum to 1. ``n_out`` is odd: as many pixels as lie within the samples.
    """
    half = int((n_in - 1) // 2 * step + 1e-9)
    sample = n_in // 2 + np.arange(-half, half + 1) / step
    distance = sample[:, None] - np.arange(n_in)
    weights = np.where(
        np.abs(distance) < order, np.sinc(distance) * np.sinc(distance / order), 0.0
    )
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)
