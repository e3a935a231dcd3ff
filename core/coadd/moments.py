"""Weighted sums over the samples of every pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.samples import Sample, Strip, count

Plane = NDArray[np.float64]

_NOT_SUMMED = np.array(np.nan)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the used samples, shape (ny, nx), float64; NaN if not asked for.

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

    @classmethod
    def zeros(cls, shape: tuple[int, int], *, scatter: bool = False, error: str = "") -> Moments:
        """Begin with no sample and centre 0; the options are those of `accumulate`."""
        w, s1 = np.zeros(shape), np.zeros(shape)
        centre, w2, s2 = (np.zeros(shape) if scatter else _NOT_SUMMED for _ in range(3))
        return cls(
            n=np.zeros(shape, np.uint16),
            centre=centre if scatter else np.zeros(()),
            w=w,
            s1=s1,
            w2=w2,
            s2=s2,
            error=np.zeros(shape) if error == "input" else _NOT_SUMMED,
            mosaic=np.zeros(shape) if error == "mosaic" else _NOT_SUMMED,
        )

    def cut(self, part: tuple[slice, slice]) -> Moments:
        """Return views of a part of all planes."""
        planes = (getattr(self, name) for name in self.__slots__)
        return Moments(*(plane[part] if plane.ndim else plane for plane in planes))

    def add(
        self, sample: Sample, values: NDArray[np.float32], use: NDArray[np.bool_], spare: Plane
    ) -> None:
        """Add a sample to all sums but ``n``.

        Parameters
        ----------
        sample : Sample
        values : array, shape (ny, nx), float32
        use : array, shape (ny, nx), bool
        spare : array, shape (2, ny, nx), float64
            Room for intermediate values.
        """
        g, term = spare
        np.copyto(g, use)
        g *= sample.weight
        _add(self.w, g)
        deviation = values - self.centre if self.centre.ndim else values
        _add(self.s1, np.multiply(deviation, g, out=term))
        if self.s2.ndim:
            _add(self.s2, np.multiply(deviation, term, out=term))
        if self.mosaic.ndim:
            _add(self.mosaic, np.multiply(sample.variance, g, out=term))
        if self.w2.ndim or self.error.ndim:
            g *= sample.weight
        if self.w2.ndim:
            _add(self.w2, g)
        if self.error.ndim:
            _add(self.error, np.multiply(sample.variance, g, out=term))

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
    sums = Moments.zeros(strip.shape, scatter=scatter, error=error)
    sums = replace(sums, n=count(used), centre=np.zeros(()) if centre is None else centre)
    spare = np.empty((2, *strip.shape))
    for k, sample in enumerate(strip.samples):
        view = sample.view
        sums.cut(view).add(sample, strip.values[k][view], used[k][view], spare[:, *view])
    return sums


def _add(total: Plane, term: Plane) -> None:
    total += term
