"""Weighted sums over the samples of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.samples import Pixels, Sample, Strip, Weight, count

Plane = NDArray[np.float64]

_NOT_SUMMED = np.array(np.nan)


@dataclass(frozen=True, slots=True)
class Sums:
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
    def zeros(cls, shape: tuple[int, int], sums: Sequence[str]) -> Sums:
        """Begin with no sample and centre 0; the sums asked for are named."""
        planes = {
            name: np.zeros(shape) if name in sums else _NOT_SUMMED
            for name in ("w", "s1", "w2", "s2", "error", "mosaic")
        }
        centre = np.zeros(shape if "s2" in sums else ())
        return cls(n=np.zeros(shape, np.uint16), centre=centre, **planes)

    def cut(self, part: tuple[slice, slice]) -> Sums:
        """Return views of a part of all planes."""
        planes = (getattr(self, name) for name in self.__slots__)
        return Sums(*(plane[part] if plane.ndim else plane for plane in planes))

    def add(
        self,
        sample: Sample,
        values: NDArray[np.float32],
        use: NDArray[np.bool_],
        spare: Plane,
        *,
        all_available: bool,
    ) -> None:
        """Add a sample to all sums but ``n``.

        Parameters
        ----------
        sample : Sample
        values : array, shape (ny, nx), float32
        use : array, shape (ny, nx), bool
        spare : array, shape (3, ny, nx), float64
            Room for intermediate values.
        all_available : bool
            Whether ``use`` is where the sample is available. What is not is 0 then and needs no
            weight of its own, if nothing is subtracted.
        """
        term, deviation, weights = spare
        weight, absent = sample.weight, sample.absent
        if absent is None or self.s2.ndim or not all_available:
            np.copyto(weights, use)
            weights *= sample.weight
            weight, absent = weights, None
        _add(self.w, weight, absent)
        if self.s2.ndim:
            np.subtract(values, self.centre, out=deviation)
            np.multiply(deviation, weight, out=term)
            _add(self.s1, term)
            term *= deviation
            _add(self.s2, term)
        elif self.s1.ndim:
            _add(self.s1, _product(values, weight, term))
        if self.mosaic.ndim:
            _add(self.mosaic, _product(sample.variance, weight, term))
        if self.w2.ndim or self.error.ndim:
            weight = weight * sample.weight
        if self.w2.ndim:
            _add(self.w2, weight, absent)
        if self.error.ndim:
            _add(self.error, _product(sample.variance, weight, term))

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
    names: Sequence[str],
    centre: Plane | None = None,
) -> Sums:
    """Sum over the used samples.

    Parameters
    ----------
    strip : Strip
    used : array, shape (n_sample, ny, nx), bool
        Which samples count, all of them available.
    names : sequence of str
        The sums that are needed.
    centre : array, shape (ny, nx), optional
        Subtracted before squaring: near the values, so that nothing is lost in the scatter.
    """
    everything = used is strip.available
    sums = replace(
        Sums.zeros(strip.shape, names),
        n=strip.n_available if everything else count(used),
        centre=np.zeros(()) if centre is None else centre,
    )
    spare = np.empty((3, *strip.shape))
    for sample, values, use in zip(strip.samples, strip.values, used, strict=True):
        part, room = sums, spare
        if sample.variance.shape != strip.shape:
            view = sample.view
            part, values, use, room = sums.cut(view), values[view], use[view], spare[:, *view]
        part.add(sample, values, use, room, all_available=everything)
    return sums


def _product(plane: NDArray[np.float32], weight: Weight, out: Plane) -> Plane:
    """Multiply in float64; a copy of its own is faster than numpy's cast in pieces."""
    np.copyto(out, plane)
    out *= weight
    return out


def _add(total: Plane, term: Weight, absent: Pixels | None = None) -> None:
    """Add a term everywhere, or everywhere but at the absent pixels."""
    if absent is None or not absent[0].size:
        total += term
    else:
        kept = total[absent]
        total += term
        total[absent] = kept
