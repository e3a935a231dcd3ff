"""Weighted sums over the samples of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.samples import Sample, Strip, count

Plane = NDArray[np.float64]


_NOT_SUMMED = np.array(np.nan)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the used samples of a strip, shape (ny, nx), float64; NaN if not asked for.

    With weights w, values x, variances v and a centre c, d = x - c: ``w = sum w``,
    ``w2 = sum w**2``, ``s1 = sum w d``, ``s2 = sum w d**2``, ``error = sum w**2 v``,
    ``mosaic = sum w v``, and n, the number of samples.
    """

    n: NDArray[np.uint16]
    centre: Plane
    w: Plane
    s1: Plane
    w2: Plane
    s2: Plane
    error: Plane
    mosaic: Plane

    def mean(self) -> Plane:
        """Weighted mean; NaN without a sample."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.centre + self.s1 / self.w, np.float64)

    def scatter(self) -> Plane:
        """Debiased weighted variance of the samples; NaN for fewer than two."""
        with np.errstate(divide="ignore", invalid="ignore"):
            square = np.square(self.w)
            spread = np.maximum(self.s2 / self.w - np.square(self.s1 / self.w), 0)
            freedom = square - self.w2
            return np.where(freedom > 1e-12 * square, spread * square / freedom, np.nan)

    def error_of_mean(self, variance: str) -> Plane:
        """Variance of the mean: from the ``input`` variances, for a ``mosaic`` of fully
        correlated inputs, or from the ``scatter`` of the samples.
        """  # noqa: D205
        with np.errstate(divide="ignore", invalid="ignore"):
            if variance == "input":
                return np.asarray(self.error / np.square(self.w))
            if variance == "mosaic":
                return np.asarray(self.mosaic / self.w)
            return np.asarray(self.scatter() * self.w2 / np.square(self.w))


def accumulate(
    strip: Strip,
    used: NDArray[np.bool_],
    *,
    centre: Plane | None = None,
    scatter: bool = False,
    error: str = "",
) -> Moments:
    """Sum over the used samples.

    Parameters
    ----------
    strip : Strip
    used : array, shape (n_sample, ny, nx), bool
        Which samples count, all of them available.
    centre : array, shape (ny, nx), optional
        Subtracted before squaring: near the values, so that nothing is lost in the scatter.
    scatter : bool
        Whether the second moments are needed.
    error : str
        ``input``: sum ``w**2 v``; ``mosaic``: sum ``w v``; "": neither.
    """
    w, s1, w2, s2, errors = (np.zeros(strip.shape) for _ in range(5))
    spare = np.empty(strip.shape)
    for k, sample in enumerate(strip.samples):
        view, term, use = sample.view, spare[sample.view], used[k][sample.view]
        values = strip.values[k][view]
        g = _used_weight(sample, use)
        w[view] += g
        deviation = values if centre is None else values - centre[view]
        np.multiply(deviation, g, out=term)
        s1[view] += term
        if scatter:
            term *= deviation
            s2[view] += term
            w2[view] += np.multiply(g, sample.weight, out=term)
        if error:
            share = g * sample.weight if error == "input" else g
            np.multiply(sample.variance, share, out=term)
            errors[view] += term
    return Moments(
        n=count(used),
        centre=np.zeros(()) if centre is None else centre,
        w=w,
        s1=s1,
        w2=w2 if scatter else _NOT_SUMMED,
        s2=s2 if scatter else _NOT_SUMMED,
        error=errors if error == "input" else _NOT_SUMMED,
        mosaic=errors if error == "mosaic" else _NOT_SUMMED,
    )


def _used_weight(sample: Sample, use: NDArray[np.bool_]) -> Plane | np.float64:
    """Weight where used, 0 elsewhere; a scalar when all pixels are used."""
    if isinstance(sample.weight, float) and np.count_nonzero(use) == use.size:
        return np.float64(sample.weight)
    return np.multiply(use, sample.weight, dtype=np.float64)
