"""From bands to the red, green and blue of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WAVELENGTHS = {
    "u": 365, "B": 440, "g": 480, "V": 550, "r": 620, "R": 640, "i": 770, "I": 800, "z": 890,
    "y": 980, "Y": 1020, "J": 1250, "H": 1650, "K": 2150, "Ks": 2150,
}  # fmt: skip
"""Where well-known bands lie (nm, rounded; only their order matters)."""


def reddest_first(bands: Sequence[str]) -> list[int]:
    """Index that sorts bands from red to blue; as they stand unless all are well known.

    ``HSC-I`` and ``DES_i`` are known as ``i``, ``VISTA-Ks`` as ``Ks``.
    """
    places = [_place(band) for band in bands]
    if None in places:
        return list(range(len(bands)))
    return sorted(range(len(bands)), key=lambda i: -(places[i] or 0))


def _place(band: str) -> int | None:
    last = band.replace("-", "_").rpartition("_")[2]
    if last == band:
        return WAVELENGTHS.get(band)
    return WAVELENGTHS.get(last.lower(), WAVELENGTHS.get(last))


def channel_weights(n_band: int) -> NDArray[np.float64]:
    """How much of each band, sorted from red to blue, is in red, green and blue.

    The bands stand at equal distances between red and blue; each channel is a mean of the bands
    around it, weighted by a triangle. One band is grey, three are the channels themselves.

    Returns
    -------
    array, shape (3, n_band), float64
        Rows of sum 1.
    """
    if n_band == 1:
        return np.ones((3, 1))
    place = np.linspace(0.0, 2.0, n_band)
    width = max(1.0, 2.0 / (n_band - 1))
    weights = np.maximum(1.0 - np.abs(place - np.arange(3.0)[:, None]) / width, 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def mixed(images: NDArray[np.floating], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums of images, shape (3, ny, nx); pixels that are not finite count as 0."""
    finite = np.where(np.isfinite(images), images, 0.0)
    return np.asarray(np.einsum("cb,byx->cyx", weights, finite, dtype=np.float64))


def mixed_noise(variances: NDArray[np.floating], weights: NDArray[np.float64]) -> float:
    """Noise of the mean of the three channels, from the median variance of every band."""
    total = 0.0
    for variance, weight in zip(variances, weights.mean(axis=0), strict=True):
        good = variance[np.isfinite(variance)]
        total += weight**2 * float(np.median(good)) if len(good) else 0.0
    return float(np.sqrt(total))


def significance(
    images: NDArray[np.floating], variances: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Sum of images over bands in units of its noise, shape (ny, nx); NaN without data.

    A band without data in a pixel (infinite variance) is left out there.
    """
    use = np.isfinite(variances) & (variances > 0) & np.isfinite(images)
    total = np.sum(images, axis=0, where=use, dtype=np.float64)
    variance = np.sum(variances, axis=0, where=use, dtype=np.float64)
    out = np.full(total.shape, np.nan)
    np.divide(total, np.sqrt(variance), out=out, where=variance > 0)
    return out
