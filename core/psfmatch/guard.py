"""Whether a reference can be reached without amplifying noise, and which one could."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.psf.fields import Array
from coblend.core.psf.moments import FWHM_PER_SIGMA, adaptive_moments
from coblend.core.psfmatch.transform import transformed

STRENGTH = 1e-3
"""Ridge at which the gain is judged; it then equals that of the solved kernel to 3 digits."""
SAFE_GAIN, LARGEST_GAIN = 1.5, 2.0
SAFE_RATIO, SMALLEST_RATIO = 1.0, 0.95
BROADEN_STEP = 0.02


def gains(
    source: Array, target: Array, broadened: float = 0.0, strength: float = STRENGTH
) -> Array:
    """Largest gain over all frequencies of the kernel from source to target.

    ``max_f |T S*| / (|S|^2 + lam E_s)`` with the target broadened by a Gaussian.

    Parameters
    ----------
    source, target : array, shape (n, side, side)
    broadened : float
        Sigma of that Gaussian, pixel.
    strength : float
        Of the ridge.

    Returns
    -------
    array, shape (n,)
    """
    period = fft.next_fast_len(2 * max(source.shape[-1], target.shape[-1]), real=True)
    s, t = transformed(source, period), transformed(target, period)
    fy, fx = fft.fftfreq(period)[:, None], fft.rfftfreq(period)[None, :]
    t = t * np.exp(-2 * (np.pi * broadened) ** 2 * (fy**2 + fx**2))
    ridge = strength * np.sum(source**2, axis=(1, 2))[:, None, None]
    return np.asarray((np.abs(t * s) / (np.abs(s) ** 2 + ridge)).max(axis=(1, 2)))


def is_deconvolution(source: Array, target: Array) -> NDArray[np.bool_]:
    """Find the pairs whose target is sharper than the source, along any direction.

    Parameters
    ----------
    source, target : array, shape (n, side, side)
    """
    ratio = adaptive_moments(target).sigma / adaptive_moments(source).sigma
    return np.asarray((ratio < SMALLEST_RATIO) | (gains(source, target) > LARGEST_GAIN))


def adequate_fwhm(source: Array, target: Array) -> float:
    """Smallest FWHM of a broadened target that all sources reach safely, pixel.

    Parameters
    ----------
    source, target : array, shape (n, side, side)
    """
    sigma = adaptive_moments(target).sigma
    needed = SAFE_RATIO * adaptive_moments(source).sigma
    start = np.sqrt(np.maximum(needed**2 - sigma**2, 0)).max()
    for extra in np.arange(start, start + 3 * needed.max(), BROADEN_STEP * needed.max()):
        if gains(source, target, float(extra)).max() <= SAFE_GAIN:
            break
    return float(np.sqrt(sigma**2 + extra**2).max() * FWHM_PER_SIGMA)
