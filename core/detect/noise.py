"""How noisy the image really is: scale of the variance plane, scatter of the filtered map.

Resampled coadds have correlated noise: the variance plane may be right for single pixels while
the filtered map scatters by far more than 1. The threshold must rise with that scatter. (The
Rubin pipelines' dynamic threshold multiplies by the inverse ratio.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.background import IQR_TO_SIGMA
from coblend.core.detect.growth import dilate
from coblend.core.detect.pixels import Pixels, strips
from coblend.core.errors import FormatError

TILE = 512
"""Side of the tiles of which the noise is reported, pixel."""
TILE_FRACTION = 0.1
"""Tiles with a smaller fraction of the pixels that the emptiest one has are left out."""
MIN_PIXELS = 1000
"""Fewest pixels outside detections that a calibration is based on."""
STRIP = 64
"""Rows sampled together, pixel; a fraction of a tile."""
ENOUGH_PIXELS = 500_000
"""Images with many more pixels are sampled: on a lattice finer than the filter's correlation, and
in some strips of each tile only."""
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
    tiles : array, shape (n_y, n_x), float64
        ``map_sigma`` of each tile of 512 pixels; nan where detections fill it.
    """

    pixel_scale: float
    image_scale: float
    map_sigma: float
    map_median: float
    n_pixel: int
    tiles: NDArray[np.float64]

    @property
    def spread(self) -> float:
        """Range of the tiles' noise, without the lowest and highest tenth, over its median."""
        known = self.tiles[np.isfinite(self.tiles)]
        if not len(known):
            return 0.0
        low, median, high = np.percentile(known, [10, 50, 90])
        return float((high - low) / median)


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
    unknown = np.full((-(-ny // TILE), -(-nx // TILE)), np.nan)
    skip = max(1, isqrt(ny * nx // (8 * ENOUGH_PIXELS)))
    keep = None
    for coarser in (4, 4, 1):  # a rough scatter suffices for what is left out
        every = skip * coarser if ny * nx > 8 * ENOUGH_PIXELS else 1
        sample = _sample(pixels, snr, step, every, keep)
        if sample.shape[1] < MIN_PIXELS:
            return Noise(np.nan, np.nan, np.nan, np.nan, sample.shape[1], unknown)
        thinned = sample[:, :: 1 + sample.shape[1] // ENOUGH_PIXELS]  # neighbours are correlated
        scatter, median = _lower_scatter(thinned[0])
        keep = outside_detections(snr, level * scatter, half_widths)
    tiles = _tile_scatter(sample, unknown)
    image, variance = thinned[1:3]
    by_pixel = _scatter(image / np.sqrt(variance)) ** 2
    by_image = _scatter(image[::2]) ** 2 / float(np.median(variance[::2]))
    return Noise(by_pixel, by_image, scatter, median, sample.shape[1], tiles)


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
    low = scales[-1] <= limit
    raise FormatError(
        f"the image scatters {scales[-1]:.3g} times as much as its variance says, "
        + ("more than 0" if low else f"at most {limit:g}") + " is believed",
        hint="are the pixels rounded to a few values? --var-scale none leaves VARIANCE as it is"
        if low
        else "is the background in (--bg-mesh 128), is VARIANCE in image units squared? "
        "--var-scale none leaves it as it is",
    )  # fmt: skip


def _sample(
    pixels: Pixels,
    snr: NDArray[np.float32],
    step: int,
    every: int,
    keep: Callable[[slice], NDArray[np.bool_]] | None,
) -> NDArray[np.float32]:
    """Significance, image, variance and tile of usable pixels, shape (4, n).

    On a lattice of ``step`` pixels in every ``every``-th strip of each tile; beyond one strip per
    tile, columns are left out instead.
    """
    parts = []
    tiles = (np.arange(snr.shape[1]) // TILE).astype(np.float32)
    columns = slice(None, None, step * -(-every * STRIP // TILE))
    for strip in strips(len(snr), STRIP):
        if strip.start % TILE % (every * STRIP):
            continue
        rows = slice(strip.start, strip.stop, step)
        usable = pixels.usable(rows) & (snr[rows] != 0)
        if keep is not None:
            usable &= keep(rows)
        tile = np.broadcast_to(tiles + strip.start // TILE * (tiles[-1] + 1), usable.shape)
        planes = (snr[rows], pixels.image(rows), pixels.variance(rows), tile)
        parts.append(np.stack([plane[:, columns][usable[:, columns]] for plane in planes]))
    return np.concatenate(parts, axis=1)


def _tile_scatter(
    sample: NDArray[np.float32], unknown: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scatter of the map in each tile."""
    out = unknown.copy()
    order = np.argsort(sample[3], kind="stable")
    bounds = np.searchsorted(sample[3][order], np.arange(out.size + 1))
    counts = np.diff(bounds)
    for tile in np.flatnonzero(counts >= max(TILE_FRACTION * counts.max(), 100)):
        out.flat[tile], _ = _lower_scatter(sample[0][order[bounds[tile] : bounds[tile + 1]]])
    return out


def _lower_scatter(values: NDArray[np.float32]) -> tuple[float, float]:
    low, median = np.percentile(values, [LOWER_SIGMA, 50.0])
    return float(median - low), float(median)


def _scatter(values: NDArray[np.float32]) -> float:
    low, high = np.percentile(values, [25.0, 75.0])
    return float(IQR_TO_SIGMA * (high - low))
