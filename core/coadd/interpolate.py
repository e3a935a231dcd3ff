"""Filling pixels without data from their neighbours in the row.

A run of such pixels is filled from at most two pixels on either side by noise-free ordinary
kriging with the covariance of a sampled Gaussian PSF of one pixel, ``C(r) = exp(-r**2 / 4)``.
The weights reproduce the coefficients that afw tabulates for linear prediction to 5e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FAR = 8
"""Distance (pixel) beyond which a source tells nothing: C = 1e-7."""

SHORT = 6
"""Longest run whose variance is known, and longest extrapolation from one side (pixel)."""

_SAMPLE = 1 << 20


@lru_cache(maxsize=2048)
def coefficients(left: int, right: int, sources: int) -> tuple[float, float, float, float]:
    """Weights of the sources of one pixel; their sum is 1.

    Parameters
    ----------
    left, right : int
        Distance to the nearest source on either side (pixel, 1 or more).
    sources : int
        Bits 0 to 3: which of the pixels at ``-left - 1``, ``-left``, ``right``, ``right + 1``
        are usable; at least one.
    """
    places = np.array([-left - 1, -left, right, right + 1], float)
    chosen = [k for k in range(4) if sources >> k & 1]
    position = places[chosen]
    n = len(chosen)
    system = np.ones((n + 1, n + 1))
    system[:n, :n] = np.exp(-(np.subtract.outer(position, position) ** 2) / 4)
    system[n, n] = 0
    target = np.append(np.exp(-(position**2) / 4), 1)
    weights = [0.0] * 4
    for k, weight in zip(chosen, np.linalg.solve(system, target)[:n], strict=True):
        weights[k] = float(weight)
    return weights[0], weights[1], weights[2], weights[3]


@dataclass(frozen=True, slots=True)
class Gaps:
    """Pixels to be filled in a block of whole rows, with their sources and weights.

    Parameters
    ----------
    pixels : array, shape (n,), int64
        Flat indices of the pixels that are interpolated.
    sources : array, shape (n, 4), int64
        Flat indices; any pixel where the weight is 0.
    weights : array, shape (n, 4), float64
    long : array, shape (n,), bool
        Whether the run has more than six pixels.
    fallback : array, int64
        Pixels too far from data: they get the fallback value.
    """

    pixels: NDArray[np.int64]
    sources: NDArray[np.int64]
    weights: NDArray[np.float64]
    long: NDArray[np.bool_]
    fallback: NDArray[np.int64]

    def fill(self, image: NDArray[np.float32], fallback: float) -> NDArray[np.float32]:
        """Image with its gaps filled.

        Parameters
        ----------
        image : array, shape (ny, nx), float32
        fallback : float
        """
        out = image.copy().ravel()
        out[self.fallback] = fallback
        out[self.pixels] = np.sum(self.weights * self._values(out), axis=1)
        return out.reshape(image.shape)

    def fill_variance(self, variance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fill the gaps of a variance plane.

        The variance of short runs is that of the weighted sources, at least the smallest of
        them; of longer ones and of fallback pixels nothing is known: +inf.
        """
        out = variance.copy().ravel()
        out[self.fallback] = np.inf
        values = self._values(out)
        used = self.weights != 0
        unknown = self.long | np.isinf(values).any(axis=1)
        values[unknown] = 0
        least = np.min(np.where(used, values, np.inf), axis=1, initial=np.inf)
        known = np.sum(self.weights * values, axis=1)
        out[self.pixels] = np.where(unknown, np.inf, np.maximum(known, least))
        return out.reshape(variance.shape)

    def _values(self, flat: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.where(self.weights != 0, flat[self.sources], 0).astype(np.float64)


def find_gaps(bad: NDArray[np.bool_]) -> Gaps:
    """Find the runs of bad pixels in each row and the weights that fill them.

    Parameters
    ----------
    bad : array, shape (ny, nx), bool

    Notes
    -----
    meas_algorithms ``interpolateOverDefects``: runs of more than six pixels at a border are the
    fallback value but for the six pixels next to the data, which then lie between the two.
    """
    lines = np.flatnonzero(bad.any(axis=1))
    bad = bad[lines]
    ny, nx = bad.shape
    row, start, stop = _runs(bad)
    at_left, at_right = (
        (start == 0) & (stop - start > SHORT),
        (stop == nx) & (stop - start > SHORT),
    )
    whole = at_left & at_right
    last = np.where(whole, stop, np.where(at_left, stop - SHORT, start))
    first = np.where(at_right & ~whole, start + SHORT, stop)
    far = np.zeros((ny, nx + 1), np.int8)
    np.add.at(far, (row, start), 1)
    np.add.at(far, (row, last), -1)
    np.add.at(far, (row, first), 1)
    np.add.at(far, (row, stop), -1)
    fallback = np.cumsum(far, axis=1)[:, :nx] > 0
    short_whole = (start == 0) & (stop == nx) & ~whole
    fallback[row[short_whole]] = True
    inner = bad & ~fallback
    row, start, stop = _runs(inner)
    length = stop - start
    run = np.repeat(np.arange(row.size), length)
    column = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + start[run]
    places = np.stack([start - 2, start - 1, stop, stop + 1], axis=1)
    inside = (places >= 0) & (places < nx)
    places = np.clip(places, 0, nx - 1)
    usable = inside & ~inner[row[:, None], places]
    code = usable @ np.array([1, 2, 4, 8])
    left = np.minimum(column - start[run] + 1, FAR)
    right = np.minimum(stop[run] - column, FAR)
    keys, inverse = np.unique(np.stack([left, right, code[run]], axis=1), axis=0,
                              return_inverse=True)  # fmt: skip
    table = np.array([coefficients(*map(int, key)) for key in keys]).reshape(-1, 4)
    far_row, far_column = np.nonzero(fallback)
    return Gaps(
        pixels=lines[row[run]] * nx + column,
        sources=(lines[row, None] * nx + places)[run],
        weights=table[inverse.ravel()],
        long=(length > SHORT)[run],
        fallback=lines[far_row] * nx + far_column,
    )


@dataclass(frozen=True, slots=True)
class GapFiller:
    """Fills the pixels without data in blocks of whole rows of a coadd.

    Parameters
    ----------
    no_data, filled : int
        Bits of the pixels to fill, and to set there.
    fallback : float
        Value of pixels too far from data.
    """

    no_data: int
    filled: int
    fallback: float

    def image(self, rows: NDArray[np.float32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Rows of the image, filled."""
        return find_gaps(self._missing(mask)).fill(rows, self.fallback)

    def mask(self, rows: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.int32]:
        """Rows of the mask, which says what was filled."""
        return np.where(self._missing(mask), rows | np.int32(self.filled), rows)

    def variance(self, rows: NDArray[np.float32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Rows of the variance, filled where it can be known, else NaN."""
        out = find_gaps(self._missing(mask)).fill_variance(rows)
        out[np.isinf(out)] = np.nan
        return out

    def _missing(self, mask: NDArray[np.int32]) -> NDArray[np.bool_]:
        return np.asarray((mask & np.int32(self.no_data)) != 0)


def typical_value(
    rows: Callable[[int, int], NDArray[np.float32]], shape: tuple[int, int]
) -> float:
    """Median of about a million pixels of an image, 0 where none has data.

    Parameters
    ----------
    rows : callable
        Rows from the first to before the second argument.
    shape : tuple of int
    """
    every = -(-shape[0] * shape[1] // _SAMPLE)
    sample = np.concatenate([rows(y, y + 1) for y in range(0, shape[0], every)])
    values = sample[np.isfinite(sample)]
    return float(np.median(values)) if values.size else 0.0


def _runs(bad: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Row, first column and column after the last of each run."""
    step = np.diff(np.pad(bad, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(step == 1)
    stop = np.nonzero(step == -1)[1]
    return row, start, stop
