"""Resampling by a separable kernel: Lanczos-3 or bilinear, with variance and mask.

Taps are divided by their sum, so a constant stays constant; where flux is to be conserved the
value is multiplied by the area of an output pixel in input pixels, and the variance by its square.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from coblend.core.coadd.pixelmap import PixelMap, Positions

SIZES = {"lanczos3": 6, "bilinear": 2}
"""Number of taps along an axis."""

_TABLE = 1024
_TILE_PIXELS = 1 << 15


@dataclass(frozen=True, slots=True)
class Resampled:
    """Pixels of a box; NaN in image and variance where the input has none.

    ``noise_power`` is the mean of the sum of the squared taps: the noise power that is left.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    variance: NDArray[np.float32]
    noise_power: float


def taps(fraction: NDArray[np.float64], kernel: str) -> NDArray[np.float32]:
    """Weights of the taps for positions a fraction of a pixel above the central tap.

    Parameters
    ----------
    fraction : array, shape (n,)
        0 to 1.
    kernel : str
        ``lanczos3``: ``sinc(t) sinc(t / 3)`` at offsets -2 to 3; ``bilinear``: 0 and 1.

    Returns
    -------
    array, shape (n_tap, n), float32
        Sum 1; from a table of 1024 intervals, error below 2e-6.
    """
    table, step = _tap_table(kernel)
    place = fraction * _TABLE
    low = np.minimum(place.astype(np.int64), _TABLE - 1)
    part = (place - low).astype(np.float32)
    out = np.empty((len(table), low.size), np.float32)
    for row, values, steps in zip(out, table, step, strict=True):
        np.take(steps, low, out=row, mode="clip")
        row *= part
        row += np.take(values, low, mode="clip")
    return out


@lru_cache(maxsize=4)
def _tap_table(kernel: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    n = SIZES[kernel]
    t = np.linspace(0, 1, _TABLE + 1) - np.arange(1 - n // 2, n // 2 + 1)[:, None]
    values = 1 - np.abs(t) if kernel == "bilinear" else np.sinc(t) * np.sinc(t / 3)
    values /= values.sum(axis=0)
    return values.astype(np.float32), np.diff(values, axis=1).astype(np.float32)


def resample(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    variance: NDArray[np.float32],
    pixel_map: PixelMap,
    *,
    kernel: str = "lanczos3",
    wide: NDArray[np.int32] | None = None,
    no_data: int = 0,
    conserve_flux: bool = True,
) -> Resampled:
    """Resample an exposure onto the box of a pixel map.

    Parameters
    ----------
    image, variance : array, shape (ny, nx), float32
        NaN where there is no data: an output pixel that reaches such a pixel has none.
    mask : array, shape (ny, nx), int32
        Bits are OR-ed over the nearest 2 x 2 pixels.
    pixel_map : PixelMap
    kernel : str
        ``lanczos3`` or ``bilinear``.
    wide : array, shape (ny, nx), int32, optional
        Bits that are OR-ed over all taps, unless positions are those of input pixels.
    no_data : int
        Bit of the plane ``NO_DATA``.
    conserve_flux : bool
        False for surface brightnesses, which do not depend on the area of a pixel.

    Notes
    -----
    afw ``warpExposure``.
    """
    box = pixel_map.box
    out = Resampled(
        np.empty(box.shape, np.float32),
        np.empty(box.shape, np.int32),
        np.empty(box.shape, np.float32),
        0.0,
    )
    wide = np.zeros_like(mask) if wide is None else wide
    source = _Source.of(image, mask, variance, SIZES[kernel], wide)
    rows = max(_TILE_PIXELS // max(box.nx, 1), 1)
    power, n = 0.0, 0
    for tile in box.strips(rows):
        cut = tile.slices(box)
        y, x, area = pixel_map.at(tile)
        scale = area if conserve_flux else np.ones_like(area)
        planes = _tile(source, y, x, scale, kernel, no_data)
        out.image[cut], out.mask[cut], out.variance[cut] = planes[:3]
        power, n = power + planes[3], n + planes[4]
    return Resampled(out.image, out.mask, out.variance, power / max(n, 1))


@dataclass(frozen=True, slots=True)
class _Source:
    """Planes padded so that every tap of every clipped position exists.

    ``wide`` holds the bits that a position has whose taps begin 1 - size / 2 pixels from it.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]
    wide: NDArray[np.int32]
    pad: int
    shape: tuple[int, int]
    flagged: bool

    @classmethod
    def of(
        cls,
        image: NDArray[np.float32],
        mask: NDArray[np.int32],
        variance: NDArray[np.float32],
        size: int,
        wide: NDArray[np.int32],
    ) -> _Source:
        pad = size // 2
        reach = np.zeros_like(mask)
        every = int(np.bitwise_or.reduce(wide, axis=None))
        for bit in (1 << i for i in range(every.bit_length()) if every >> i & 1):
            # the OR of one bit is its maximum
            reach |= maximum_filter(wide & bit, size, origin=-1, mode="constant")
        return cls(
            np.pad(image, pad, constant_values=np.nan),
            np.pad(variance, pad, constant_values=np.nan),
            np.pad(mask, pad),
            np.pad(reach, pad),
            pad,
            (image.shape[0], image.shape[1]),
            bool(mask.any()),
        )


def _tile(
    source: _Source,
    y: Positions,
    x: Positions,
    scale: Positions,
    kernel: str,
    no_data: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], float, int]:
    shape = y.shape
    y, x = _clipped(y, source.shape[0], source.pad), _clipped(x, source.shape[1], source.pad)
    floor_y, floor_x = np.floor(y).ravel(), np.floor(x).ravel()
    weights_y = taps(y.ravel() - floor_y, kernel)
    weights_x = taps(x.ravel() - floor_x, kernel)
    stride = source.image.shape[1]
    centre = ((floor_y + source.pad) * stride + floor_x + source.pad).astype(np.intp)
    factor = scale.ravel().astype(np.float32)
    image = _sum(source.image, centre, weights_y, weights_x) * factor
    squares = np.square(weights_y), np.square(weights_x)
    variance = _sum(source.variance, centre, *squares) * np.square(factor)
    power = np.ones(image.size)
    for square in squares:
        power *= np.add.reduce(square, axis=0)
    mask = np.zeros(image.size, np.int32)
    if source.flagged:
        mask = _nearest_bits(source.mask, centre, weights_y, weights_x)
        middle = len(weights_y) // 2 - 1
        moved = (weights_y[middle] != 1) | (weights_x[middle] != 1)
        mask |= np.where(moved, source.wide.ravel()[centre], 0)
    absent = ~(np.isfinite(image) & np.isfinite(variance))
    image[absent] = np.nan
    variance[absent] = np.nan
    mask[absent] |= np.int32(no_data)
    return (
        image.reshape(shape), mask.reshape(shape), variance.reshape(shape),
        float(power[~absent].sum(dtype=np.float64)), int(np.count_nonzero(~absent)),
    )  # fmt: skip


def _clipped(position: Positions, n: int, pad: int) -> Positions:
    """Positions outside the image, which would need absent taps, become its NaN border."""
    return np.where((position > -1) & (position < n), position, -1.0)


def _sum(
    plane: NDArray[np.float32],
    centre: NDArray[np.intp],
    weights_y: NDArray[np.float32],
    weights_x: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Sum over the taps around flat positions."""
    size, stride, flat = len(weights_y), plane.shape[1], plane.ravel()
    total = np.zeros(centre.size, np.float32)
    row, value = np.empty_like(total), np.empty_like(total)
    index = centre + ((1 - size // 2) * stride + 1 - size // 2)
    for weight_y in weights_y:
        row.fill(0)
        for weight_x in weights_x:
            np.take(flat, index, out=value, mode="clip")
            value *= weight_x
            row += value
            index += 1
        row *= weight_y
        total += row
        index += stride - size
    return total


def _nearest_bits(
    mask: NDArray[np.int32],
    centre: NDArray[np.intp],
    weights_y: NDArray[np.float32],
    weights_x: NDArray[np.float32],
) -> NDArray[np.int32]:
    """OR over the pixels around a position whose bilinear weight is not zero."""
    flat, stride = mask.ravel(), mask.shape[1]
    out = flat[centre]
    middle = len(weights_y) // 2 - 1
    right, above = weights_x[middle] != 1, weights_y[middle] != 1
    out |= np.where(right, flat[centre + 1], 0)
    out |= np.where(above, flat[centre + stride], 0)
    out |= np.where(right & above, flat[centre + stride + 1], 0)
    return out


def noise_correlation(pixel_map: PixelMap, kernel: str, radius: int = 2) -> NDArray[np.float64]:
    """Mean autocorrelation of resampled white noise.

    Parameters
    ----------
    pixel_map : PixelMap
    kernel : str
    radius : int

    Returns
    -------
    array, shape (2 radius + 1, 2 radius + 1), float64
        1 at the centre; element ``[radius + dy, radius + dx]`` for output pixels that far apart.
    """
    box = pixel_map.box
    rows = np.unique(np.linspace(box.y0, box.y1 - 1, 48).astype(int))
    columns = np.unique(np.linspace(box.x0, box.x1 - 1, 48).astype(int))
    covariance = np.zeros((2 * radius + 1, 2 * radius + 1))
    y, x = pixel_map.positions(rows, columns)
    known = np.isfinite(y) & np.isfinite(x)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            other = pixel_map.positions(rows + dy, columns + dx)
            overlap = _overlap(y, other[0], kernel) * _overlap(x, other[1], kernel)
            covariance[radius + dy, radius + dx] = overlap[known & np.isfinite(overlap)].mean()
    return np.asarray(covariance / covariance[radius, radius])


def _overlap(a: Positions, b: Positions, kernel: str) -> Positions:
    """Sum of the products of the taps of two positions along an axis."""
    size = SIZES[kernel]
    floor_a, floor_b = np.floor(a), np.floor(b)
    weights_a = taps(np.nan_to_num(a - floor_a).ravel(), kernel)
    weights_b = taps(np.nan_to_num(b - floor_b).ravel(), kernel)
    lag = (floor_b - floor_a).ravel()
    total = np.zeros(lag.size)
    for i in range(size):
        for j in range(size):
            total += np.where(lag + j == i, weights_a[i] * weights_b[j], 0)
    return np.where(np.isfinite(lag.reshape(a.shape)), total.reshape(a.shape), np.nan)
