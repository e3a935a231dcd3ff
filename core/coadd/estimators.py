"""Value and variance of every statistic.

The variance among samples is called scatter; ``error`` is the variance of the mean from the
inputs' variance planes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.clip import median_variance
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import Strip
from coblend.core.coadd.sorting import quantiles
from coblend.core.coadd.sums import Plane, Sums, accumulate

Used = NDArray[np.bool_]


def combine(
    strip: Strip, used: Used, rules: StackRules, centre: Plane | None
) -> tuple[Plane, Plane, Sums]:
    """Evaluate the statistic of the used samples.

    Parameters
    ----------
    strip : Strip
    used : array, shape (n_sample, ny, nx), bool
        Which samples count.
    rules : StackRules
    centre : array, optional
        A value near the samples, when known.

    Returns
    -------
    value, variance : array, shape (ny, nx), float64
        NaN where nothing was used, or where the variance of a statistic is not known.
    moments : Sums
        Sums over the used samples.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        origin = None
        if rules.needs_scatter:
            origin = np.nan_to_num(_first(strip) if centre is None else centre)
        sums = accumulate(strip, used, rules.sums, centre=origin)
        value, variance = _EVALUATE[rules.statistic](strip, used, rules, sums)
        empty = sums.n == 0
        if empty.any():
            value, variance = (np.where(empty, np.nan, plane) for plane in (value, variance))
        return value, variance, sums


def _mean(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    return sums.mean(), sums.error_of_mean(rules.variance)


def _median(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    (value,) = quantiles(strip.values, strip.n_available, (0.5,))
    if rules.variance == "scatter":
        return value, np.pi / 2 * sums.scatter() / strip.n_available
    return value, median_variance(strip)


def _variance(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    scatter = sums.scatter()
    return scatter, _error_of_scatter(scatter, sums.n)


def _stdev(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    scatter = sums.scatter()
    return np.sqrt(scatter), _error_of_scatter(scatter, sums.n) / (4 * scatter)


def _meansquare(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    n = sums.n.astype(np.float64)
    scatter = np.where(n > 1, sums.scatter(), 0.0)
    value = (n - 1) / n * scatter + np.square(sums.mean())
    return value, 2 * np.square(value / n)


def _error_of_scatter(scatter: Plane, n: NDArray[np.uint16]) -> Plane:
    """Variance of the variance of n Gaussian samples."""
    count = n.astype(np.float64)
    return np.asarray(2 * (count - 1) * np.square(scatter / count))


def _iqrange(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    lower, upper = quantiles(strip.values, strip.n_available, (0.25, 0.75))
    return upper - lower, np.full(strip.shape, np.nan)


def _min(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    return strip.values.min(axis=0).astype(np.float64), np.zeros(strip.shape)


def _max(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    value = np.max(strip.values, axis=0, where=used, initial=-np.inf)
    return value.astype(np.float64), np.zeros(strip.shape)


def _sum(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    return sums.s1, sums.error if rules.variance == "input" else np.zeros(strip.shape)


def _npoint(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    return sums.n.astype(np.float64), np.zeros(strip.shape)


def _nmasked(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    inside = np.zeros(strip.shape)
    for sample in strip.samples:
        inside[sample.view] += 1
    return inside - strip.n_available, np.zeros(strip.shape)


def _nclipped(strip: Strip, used: Used, rules: StackRules, sums: Sums) -> tuple[Plane, Plane]:
    return strip.n_available.astype(np.float64) - sums.n, np.zeros(strip.shape)


def _first(strip: Strip) -> Plane:
    """First available sample of every pixel."""
    value = np.full(strip.shape, np.nan)
    for values, available in zip(strip.values[::-1], strip.available[::-1], strict=True):
        np.copyto(value, values, where=available)
    return value


_EVALUATE = {
    "mean": _mean,
    "meanclip": _mean,
    "median": _median,
    "variance": _variance,
    "varianceclip": _variance,
    "stdev": _stdev,
    "stdevclip": _stdev,
    "meansquare": _meansquare,
    "iqrange": _iqrange,
    "min": _min,
    "max": _max,
    "sum": _sum,
    "npoint": _npoint,
    "nmasked": _nmasked,
    "nclipped": _nclipped,
}
