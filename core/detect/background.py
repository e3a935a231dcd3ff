"""Background on a mesh: clipped statistics of bins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from coblend.core.detect.mesh import Mesh, fill_empty
from coblend.core.detect.pixels import Pixels

SAMPLES = 128
"""Bins with a longer side are sampled on a lattice of about this many rows and columns: 16 384
pixels give the mean to 0.008 of their scatter."""

IQR_TO_SIGMA = 0.741301109
"""Standard deviation of a Gaussian of unit interquartile range."""


KeepRows = Callable[[slice], NDArray[np.bool_]]
"""Which pixels of some rows may enter the statistics."""


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """How to measure a background.

    Parameters
    ----------
    bin_size : int
        Side of a bin, pixel; the bins of an image differ from it so that they are nearly equal.
    statistic : str
        ``clipmean``, ``median`` (clipped) or ``mode`` (SExtractor's 2.5 median - 1.5 mean).
    interpolation : str
        As in `Mesh`.
    filter_size : int
        Side of the median filter over bins, odd; 1: none.
    kappa : float
        Clipping limit in sigma.
    iterations : int
        Rounds of clipping.
    min_fraction : float
        Bins with a smaller fraction of usable pixels are filled from their neighbours.
    """

    bin_size: int
    statistic: str = "clipmean"
    interpolation: str = "akima"
    filter_size: int = 1
    kappa: float = 3.0
    iterations: int = 3
    min_fraction: float = 0.1


def measure_background(pixels: Pixels, options: MeshOptions, keep: KeepRows | None = None) -> Mesh:
    """Measure the background of an image.

    Parameters
    ----------
    pixels : Pixels
    options : MeshOptions
    keep : callable, optional
        ``keep(rows)``: False where objects hide the background. Default: all usable pixels.

    Returns
    -------
    Mesh
        With fewer usable pixels than any bin asks for, one value for the whole image.
    """
    ny, nx = pixels.shape
    y_edges, x_edges = (_edges(n, options.bin_size) for n in (ny, nx))
    step = -(-options.bin_size // SAMPLES)
    shape = (len(y_edges) - 1, len(x_edges) - 1)
    values, errors = np.full(shape, np.nan), np.full(shape, np.nan)
    counts = np.zeros(shape, np.int64)
    for i, (top, bottom) in enumerate(pairwise(y_edges)):
        rows = slice(int(top), int(bottom), step)
        usable = pixels.usable(rows)
        if keep is not None:
            usable &= keep(rows)
        image = pixels.image(rows)
        for j, (left, right) in enumerate(pairwise(x_edges)):
            columns = slice(int(left), int(right), step)
            ok = usable[:, columns]
            sample = image[:, columns][ok]
            if len(sample) >= max(options.min_fraction * ok.size, 1):
                values[i, j], errors[i, j] = clipped_statistic(sample, options)
                counts[i, j] = len(sample)
    y, x = (np.asarray(0.5 * (e[:-1] + e[1:] - 1), np.float64) for e in (y_edges, x_edges))
    if not counts.any():
        return _constant(pixels, options)
    values, errors = fill_empty(values, y, x), fill_empty(errors, y, x)
    if options.filter_size > 1:
        values = median_filter(values, options.filter_size, mode="nearest")
    return Mesh(y, x, values, errors, counts, nx, options.interpolation)


def clipped_statistic(sample: NDArray[np.float32], options: MeshOptions) -> tuple[float, float]:
    """Clipped location of a sample and its standard error.

    The sample is sorted once; prefix sums then give every clipped mean and scatter in
    O(log n). The first clip uses the median and the interquartile range.
    """
    values = np.sort(sample)
    centre = float(values[len(values) // 2])
    shifted = values.astype(np.float64) - centre  # against cancellation in the squares
    sums = np.concatenate([[0.0], np.cumsum(shifted)])
    squares = np.concatenate([[0.0], np.cumsum(shifted**2)])
    first, stop = 0, len(values)
    quartiles = shifted[[len(values) // 4, (3 * len(values)) // 4]]
    mean, sigma, median = 0.0, IQR_TO_SIGMA * float(quartiles[1] - quartiles[0]), 0.0
    for _ in range(options.iterations):
        limit = options.kappa * sigma
        first = int(np.searchsorted(shifted, median - limit))
        stop = int(np.searchsorted(shifted, median + limit, "right"))
        n = stop - first
        mean = (sums[stop] - sums[first]) / n
        sigma = max((squares[stop] - squares[first]) / n - mean**2, 0.0) ** 0.5
        median = float(shifted[first + n // 2])
    if options.statistic == "median":
        location = median
    elif options.statistic == "mode" and abs(mean - median) < 0.3 * sigma:
        location = 2.5 * median - 1.5 * mean
    else:
        location = median if options.statistic == "mode" else mean
    return centre + location, sigma / max(stop - first, 1) ** 0.5


def _constant(pixels: Pixels, options: MeshOptions) -> Mesh:
    """One value for an image too empty for a mesh."""
    ny, nx = pixels.shape
    everything = slice(0, ny, 1)
    sample = pixels.image(everything)[pixels.usable(everything)]
    value, error = clipped_statistic(sample, options) if len(sample) else (0.0, np.nan)
    centre_y, centre_x = np.array([0.5 * (ny - 1)]), np.array([0.5 * (nx - 1)])
    value_2d, error_2d = np.array([[value]]), np.array([[error]])
    return Mesh(centre_y, centre_x, value_2d, error_2d, np.array([[len(sample)]]), nx)


def _edges(n: int, bin_size: int) -> NDArray[np.int64]:
    """Bounds of the bins of one axis: nearly equal, since a narrow last bin would be noise."""
    count = max(1, round(n / bin_size))
    return np.arange(count + 1) * n // count
