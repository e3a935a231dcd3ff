"""How much memory the fit of a blend takes, estimated before it starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_STAMP = 61
"""Side of a morphology's stamp, as good as never exceeded by many at once (pixel)."""
_BASE = 1_000_000
_MEGABYTE = 1e6


def frame_memory(
    ny: ArrayLike, nx: ArrayLike, n_band: int, kernel_side: int
) -> NDArray[np.float64]:
    """Memory of the images of blends, their models and transforms (MB), whatever their parts."""
    ny, nx = np.asarray(ny, np.float64), np.asarray(nx, np.float64)
    half = kernel_side // 2
    images = 7 * 4 * n_band * ny * nx
    transforms = 16 * n_band * (ny + half) * ((nx + half) / 2 + 1)
    return np.asarray((_BASE + images + transforms) / _MEGABYTE, np.float64)


def fit_memory(
    n_peak: ArrayLike, ny: ArrayLike, nx: ArrayLike, n_band: int, kernel_side: int
) -> NDArray[np.float64]:
    """Memory of joint fits (MB): that of the frames, of stamps, and of their renderings.

    Parameters
    ----------
    n_peak, ny, nx : array, shape (n,)
        Peaks and sides of the bounding boxes; two components per peak are assumed.
    n_band, kernel_side : int

    Notes
    -----
    Checked against ``tracemalloc``: between one and three times the peak for 2 to 237 sources.
    """
    ny, nx = np.asarray(ny, np.float64), np.asarray(nx, np.float64)
    n_component = 2 * np.asarray(n_peak, np.float64)
    stamp = np.minimum(_STAMP, 2 * np.maximum(ny, nx)) ** 2
    seen = np.minimum((_STAMP + kernel_side - 1) ** 2, ny * nx)
    parts = n_component * (28 * stamp + 4 * n_band * seen) / _MEGABYTE
    return np.asarray(frame_memory(ny, nx, n_band, kernel_side) + parts, np.float64)
