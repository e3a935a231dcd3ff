"""What the noise of an exposure is said to be, and what it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.exposure import Exposure


def noise_image(exposure: Exposure) -> NDArray[np.float32]:
    """Noise of every pixel by the variance plane, shape (ny, nx); NaN without data."""
    return np.where(exposure.good(), np.sqrt(exposure.variance), np.float32(np.nan))


def sky_ratios(exposure: Exposure) -> NDArray[np.float32]:
    """Pixels of the empty sky in units of their noise, shape (n,)."""
    sky = exposure.good(("NO_DATA", "DETECTED", "BAD", "SAT"))
    return np.asarray(exposure.image[sky] / np.sqrt(exposure.variance[sky]))


def negative_width(ratios: NDArray[np.float32], limit: float = 5.0) -> float:
    """Measure the standard deviation from 0 of values between ``-limit`` and 0; NaN for none.

    Undetected sources only add to the positive side.
    """
    below = ratios[(ratios < 0) & (ratios > -limit)].astype(np.float64)
    return float(np.sqrt(np.mean(below**2))) if len(below) else float("nan")
