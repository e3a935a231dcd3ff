"""How noisy the image really is: scale of the variance plane, scatter of the filtered map.

Resampled coadds have correlated noise: the variance plane may be right for single pixels while
the filtered map scatters by far more than 1. The threshold must rise with that scatter. (The
Rubin pipelines' dynamic threshold multiplies by the inverse ratio.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.background import IQR_TO_SIGMA
from coblend.core.detect.growth import dilate
from coblend.core.detect.pixels import Pixels, strips
from coblend.core.errors import FormatError

MIN_PIXELS = 1000
"""Fewest pixels outside detections that a calibration is based on."""
ENOUGH_PIXELS = 500_000
"""Images with many more pixels are sampled: on a lattice finer than the filter's correlation, and
in some strips only."""
LIMIT_SLACK = 1.05
"""A measured scale may exceed its limit by this factor, for its own error."""
LOWER_SIGMA = 15.865525393145708
"""Percentile one sigma below the median of a Gaussian."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Measured noise of a filtered map.

    Parameters
    ----------
    pixel_scale, image_scale : float
        Factor that the variance plane should be multiplied by: from each pixel and its variance,
        and from the image's scatter and the median variance.
    map_sigma : float
        Scatter of the significance map as filtered with the variance plane given; nan: unknown.
    map_median : float
        Median of that map outside detections.
    n_pixel : int
        Sampled pixels outside detections.
    """

    pixel_scale: float
    image_scale: float
    map_sigma: float
    map_median: float
    n_pixel: int


def outside_detections(
    snr: NDArray[np.float32], level: float, half_widths: NDArray[np.int64]
) -> Callable[[slice], NDArray[np.bool_]]:
    """Return ``keep(rows)``: pixels of these rows outside the grown detections above ``level``."""
    halo, ny = len(half_widths) - 1, len(snr)

    def keep(rows: slice) -> NDArray[np.bool_]:
        start, stop, step = rows.indices(ny)
        around = slice(max(start - halo, 0), min(stop + halo, ny))
        grown = dilate(snr[around] >= level, half_widths)
        return ~grown[start - around.start : stop - around.start : step]

    return keep


def measure_noise(
    pixels: Pixels,
    snr: NDArray[np.float32],
    level: float,
    sigma: float,
    half_widths: NDArray[np.int64],
) -> Noise:
    """Measure both scales outside grown detections.

    The scatter of the map is its median less its 15.87th percentile: sources too faint to be
    detected inflate only the upper half. The detections above ``level`` are those of the map
    divided by its own scatter, found in two rounds.

    Parameters
    ----------
    pixels : Pixels
    snr : array, shape (ny, nx), float32
        From `snr_map`.
    level : float
        Detections above this significance are left out.
    sigma : float
        Filter width, pixel.
    half_widths : array
        Growth of those detections.
    """
    ny, nx = snr.shape
    step = max(1, min(round(1.5 * sigma), isqrt(ny * nx // ENOUGH_PIXELS)))
    sample = _sample(pixels, snr, step)
    for _ in range(2):
        if sample.shape[1] < MIN_PIXELS:
            return Noise(np.nan, np.nan, np.nan, np.nan, sample.shape[1])
        scatter, _ = _lower_scatter(sample[0])
        keep = outside_detections(snr, level * scatter, half_widths)
        sample = _sample(pixels, snr, step, keep)
    if sample.shape[1] < MIN_PIXELS:
        return Noise(np.nan, np.nan, np.nan, np.nan, sample.shape[1])
    scatter, median = _lower_scatter(sample[0])
    _, image, variance = sample.astype(np.float64)
    by_pixel = _scatter(image / np.sqrt(variance)) ** 2
    by_image = _scatter(image) ** 2 / float(np.median(variance))
    return Noise(by_pixel, by_image, scatter, median, sample.shape[1])


def trusted_variance_scale(noise: Noise, limit: float, by_pixel: bool = True) -> float:
    """Scale of the variance plane: from the pixels, else from the image, up to ``limit``.

    Raises
    ------
    FormatError
        Both exceed the limit.
    """
    scales = (noise.pixel_scale, noise.image_scale) if by_pixel else (noise.image_scale,)
    for scale in scales:
        if 0 < scale <= limit * LIMIT_SLACK:
            return scale
    raise FormatError(
        f"the image scatters {scales[-1]:.3g} times as much as its variance says, "
        f"at most {limit:g} is believed",
        hint="check that VARIANCE is in image units squared, or give --var-scale none",
    )


def _sample(
    pixels: Pixels,
    snr: NDArray[np.float32],
    step: int,
    keep: Callable[[slice], NDArray[np.bool_]] | None = None,
) -> NDArray[np.float32]:
    """Significance, image and variance of usable pixels on a lattice, shape (3, n)."""
    parts = []
    skip = max(1, isqrt(snr.size // (8 * ENOUGH_PIXELS)))
    for strip in islice(strips(len(snr), 64), 0, None, skip):
        rows = slice(strip.start, strip.stop, step)
        usable = pixels.usable(rows) & (snr[rows] != 0)
        if keep is not None:
            usable &= keep(rows)
        usable = usable[:, ::step]
        planes = (snr[rows], pixels.image(rows), pixels.variance(rows))
        parts.append(np.stack([plane[:, ::step][usable] for plane in planes]))
    return np.concatenate(parts, axis=1)


def _lower_scatter(values: NDArray[np.float32]) -> tuple[float, float]:
    low, median = np.percentile(values, [LOWER_SIGMA, 50.0])
    return float(median - low), float(median)


def _scatter(values: NDArray[np.float64]) -> float:
    low, high = np.percentile(values, [25.0, 75.0])
    return float(IQR_TO_SIGMA * (high - low))
