"""Constraints on morphologies, on stacks of stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.components import Floats
from coblend.core.deblend.monotonic import project

_TINY = np.float32(1e-20)


def constrain(
    stamps: Floats, outside: NDArray[np.bool_] | None, threshold: Floats | None = None
) -> tuple[Floats, Floats]:
    """Make stamps monotonic, sparse, non-negative and of maximum 1.

    Parameters
    ----------
    stamps : array, shape (k, n, n), float32
    outside : array, shape (k, n, n), bool, or None
        Pixels outside the frame; they come out 0.
    threshold : array, shape (k,), float32, optional
        Pixels below become 0.

    Returns
    -------
    stamps : array, shape (k, n, n), float32
    scale : array, shape (k,), float32
        What the stamps were divided by; multiply the spectra by it to keep the model.
    """
    stamps = project(stamps, outside)
    if threshold is not None:
        stamps[stamps < threshold[:, None, None]] = 0
    np.maximum(stamps, 0, out=stamps)
    middle = stamps.shape[-1] // 2
    stamps[:, middle, middle] = np.maximum(stamps[:, middle, middle], _TINY)
    scale = stamps.max((1, 2))
    stamps /= scale[:, None, None]
    return stamps, scale


def brightest(stamps: Floats) -> NDArray[np.int64]:
    """Offset ``dy, dx`` of the brightest of the central 3x3 pixels, shape (k, 2).

    The first in raster order wins a tie.
    """
    r = stamps.shape[-1] // 2
    core = stamps[:, r - 1 : r + 2, r - 1 : r + 2].reshape(len(stamps), 9)
    return np.stack(np.divmod(core.argmax(1), 3), 1) - 1


def project_recentred(stamps: Floats, outside: NDArray[np.bool_] | None = None) -> Floats:
    """Monotonic projection about the brightest of the central 3x3 pixels.

    Parameters and result as `monotonic.project`.
    """
    peak = brightest(stamps)
    if not peak.any():
        return project(stamps, outside)
    result = np.empty_like(stamps)
    n = stamps.shape[-1]
    for dy, dx in np.unique(peak, axis=0):
        rows = np.flatnonzero((peak == (dy, dx)).all(1))
        # a ring of pixels more, so that the brightest one is central; the ring caps nothing
        inner = (slice(None), slice(1 - dy, 1 - dy + n), slice(1 - dx, 1 - dx + n))
        larger = np.zeros((len(rows), n + 2, n + 2), stamps.dtype)
        ring = np.ones(larger.shape, bool)
        larger[inner] = stamps[rows]
        ring[inner] = False if outside is None else outside[rows]
        if dy == dx == 0:
            own = None if outside is None else outside[rows]
            result[rows] = project(stamps[rows], own)
        else:
            result[rows] = project(larger, ring)[inner]
    return result
