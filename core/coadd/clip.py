"""The clip window of MEANCLIP, in the exact order of its iterations.

Iteration 1 is centred on the median with a width from the quartiles, the next ones on the mean
of the survivors with their standard deviation. Membership is decided anew from all available
samples each time, and the number of iterations is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.samples import Strip, count
from coblend.core.coadd.sorting import LARGEST, quantiles
from coblend.core.coadd.sums import Plane, accumulate

IQR_TO_SIGMA = 0.741301109252802
"""Standard deviation of a Gaussian over its interquartile range."""


@dataclass(frozen=True, slots=True)
class Window:
    """Closed interval of accepted values per pixel, float64; NaN accepts nothing."""

    low: Plane
    high: Plane

    def choose(self, strip: Strip) -> NDArray[np.bool_]:
        """Which samples lie inside, shape (n_sample, ny, nx)."""
        low, high = _inward(self.low, self.high)
        inside = strip.values >= low
        inside &= strip.values <= high
        return inside


def clip(strip: Strip, sigma_clip: float, clip_iter: int) -> tuple[NDArray[np.bool_], Plane]:
    """Find the samples that survive clipping.

    Parameters
    ----------
    strip : Strip
    sigma_clip : float
        Half width of the window in standard deviations.
    clip_iter : int
        Number of iterations.

    Returns
    -------
    used : array, shape (n_sample, ny, nx), bool
        Samples that survive the last iteration.
    centre : array, shape (ny, nx), float64
        Median of the available samples.

    Notes
    -----
    afw ``Statistics`` MEANCLIP. Where fewer than two of several samples would survive, those of
    the previous iteration are kept and the pixel is done; the original returns NaN there.
    """
    lower, median, upper = quantiles(strip.values, strip.n_available, (0.25, 0.5, 0.75))
    half = sigma_clip * IQR_TO_SIGMA * (upper - lower)
    window = Window(median - half, median + half)
    everything = Window(median * 0 - LARGEST, median * 0 + LARGEST)
    several = strip.n_available > 1
    previous, done = everything, np.zeros(strip.shape, bool)
    for iteration in range(1, clip_iter + 1):
        used = window.choose(strip)
        lonely = several & (count(used) < 2)
        if lonely.any():
            window = _where(lonely, previous, window)
            done |= lonely
            used = window.choose(strip)
        if iteration < clip_iter:
            moments = accumulate(strip, used, ("w", "w2", "s1", "s2"), np.nan_to_num(median))
            mean = moments.mean()
            half = sigma_clip * np.sqrt(moments.scatter())
            half[~several] = 0.0
            previous = window
            window = _where(done, previous, Window(mean - half, mean + half))
    return used, median


def clip_by_variance(
    strip: Strip, sigma_clip: float, amplitude: float
) -> tuple[NDArray[np.bool_], Plane]:
    """Find the samples that agree with the median within their own errors.

    A sample survives when ``|x - median| <= k sqrt(v + v_median) + amplitude |median|``. Where
    fewer than two of several samples would survive, all are kept.

    Parameters
    ----------
    strip : Strip
    sigma_clip : float
        k.
    amplitude : float

    Returns
    -------
    used : array, shape (n_sample, ny, nx), bool
    centre : array, shape (ny, nx), float64
        Median of the available samples.

    Notes
    -----
    Gruen, Seitz & Bernstein 2014, PASP 126, 158 (SWarp's CLIPPED).
    """
    (median,) = quantiles(strip.values, strip.n_available, (0.5,))
    with np.errstate(invalid="ignore", over="ignore"):
        centre = median.astype(np.float32)
        of_median = median_variance(strip).astype(np.float32)
        margin = np.float32(amplitude) * np.abs(centre)
    used = np.zeros_like(strip.available)
    with np.errstate(invalid="ignore", over="ignore"):
        for k, sample in enumerate(strip.samples):
            view = sample.view
            width = sample.variance + of_median[view]
            np.sqrt(width, out=width)
            width *= np.float32(sigma_clip)
            if amplitude:
                width += margin[view]
            distance = strip.values[k][view] - centre[view]
            np.less_equal(np.abs(distance, out=distance), width, out=used[k][view])
    used &= strip.available
    lonely = (count(used) < 2) & (strip.n_available > 1)
    if lonely.any():
        used |= lonely & strip.available
    return used, median


def median_variance(strip: Strip) -> Plane:
    """Variance of the median of samples of unequal variance, shape (ny, nx).

    ``pi n**2 / (2 (sum 1/sigma)**2 (n + a))`` with a = pi/2 - 1 for odd n, pi - 2 for even n
    (SWarp's manual); the mean's ``sum sigma**2 / n**2`` for n of 1 and 2, where the median is
    the mean. NaN without a sample.
    """
    n = strip.n_available.astype(np.float64)
    inverse, total = (np.zeros(strip.shape, np.float32) for _ in range(2))
    for sample in strip.samples:
        sigma = np.sqrt(sample.variance)
        sigma[sigma == 0] = np.inf  # not available
        inverse[sample.view] += np.divide(np.float32(1), sigma, out=sigma)
        total[sample.view] += sample.variance
    bias = np.where(n % 2 == 1, np.pi / 2 - 1, np.pi - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        many = np.pi / 2 / (n + bias) * np.square(n / inverse)
        return np.where(n > 2, many, total / np.square(n))


def _where(condition: NDArray[np.bool_], yes: Window, no: Window) -> Window:
    if not condition.any():
        return no
    return Window(np.where(condition, yes.low, no.low), np.where(condition, yes.high, no.high))


def _inward(low: Plane, high: Plane) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds in float32 that accept exactly the float32 values of the float64 interval."""
    with np.errstate(invalid="ignore", over="ignore"):
        low32 = np.maximum(low.astype(np.float32), -LARGEST)
        high32 = np.minimum(high.astype(np.float32), LARGEST)
        low32 = np.where(low32 < low, np.nextafter(low32, np.float32(np.inf)), low32)
        high32 = np.where(high32 > high, np.nextafter(high32, np.float32(-np.inf)), high32)
    return low32, high32
