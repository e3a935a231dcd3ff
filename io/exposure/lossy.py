"""Pixels stored with less precision than they have, but more than their noise allows to use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEVEL = 16.0
"""Steps per noise (DESDM, afw and funpack use the same)."""
_LOWEST = 5.0
"""Percentile of the variance that counts as the noise: deeper pixels are few."""
_WIDEST = 1 << 30
"""Steps between zero and the largest pixel, of the 2^31 of an integer."""


def rounding_step(image: NDArray[np.float32], variance: NDArray[np.float32]) -> float | None:
    """Step of stored pixels: a sixteenth of the noise, so that none is off by more than 1/32.

    Returns
    -------
    float or None
        None where no step will do: no noise, or pixels that are too bright for it.
    """
    known = variance[np.isfinite(variance) & (variance > 0)]
    if not known.size:
        return None
    step = float(np.sqrt(np.percentile(known, _LOWEST))) / _LEVEL
    largest = float(np.nanmax(np.abs(image), initial=0.0))
    return step if np.isfinite(largest) and largest < _WIDEST * step else None
