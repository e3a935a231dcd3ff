"""Constraints on morphologies, on stacks of stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.monotonic import project

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
