"""Peaks that the models of a blend have left in its residual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from coblend.core.deblend.fitting.components import Floats


def suggest_peaks(
    data: Floats,
    weight: Floats,
    psfs: Floats,
    peaks: NDArray[np.floating],
    threshold: float = 5.0,
    distance: float = 3.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find maxima of the matched-filtered residual, brightest first.

    Parameters
    ----------
    data, weight : array, shape (n_band, ny, nx)
        Residual and inverse variance, 0 outside the footprint.
    psfs : array, shape (n_band, k, k)
        Observed PSFs.
    peaks : array, shape (n, 2)
        ``y, x`` of known peaks.
    threshold : float
        Smallest significance.
    distance : float
        Smallest distance from a known or more significant peak (pixel).

    Returns
    -------
    pixels : array, shape (m, 2), int64
        ``y, x``.
    significance : array, shape (m,), float64
    """
    top = np.zeros(data.shape[1:])
    norm = np.zeros(data.shape[1:])
    for d, w, psf in zip(data, weight, psfs.astype(np.float64), strict=True):
        mirrored = psf[::-1, ::-1]
        top += signal.fftconvolve(d * w, mirrored, "same")
        norm += signal.fftconvolve(w, mirrored**2, "same")
    inside = (weight > 0).any(0)
    chi = np.divide(
        top, np.sqrt(np.maximum(norm, 0)), out=np.zeros(top.shape), where=inside & (norm > 1e-12)
    )
    maxima = inside & (chi >= ndimage.maximum_filter(chi, 3)) & (chi > threshold)
    y, x = np.nonzero(maxima)
    order = np.argsort(-chi[y, x], kind="stable")
    found: list[tuple[int, int]] = []
    known = np.asarray(peaks, np.float64).reshape(-1, 2)
    for at in np.stack([y, x], 1)[order]:
        if np.hypot(*(known - at).T).min(initial=np.inf) >= distance:
            known = np.concatenate([known, at[None]])
            found.append((int(at[0]), int(at[1])))
    pixels = np.array(found, np.int64).reshape(-1, 2)
    return pixels, chi[pixels[:, 0], pixels[:, 1]]
