"""What blends are compared with: data, weights and difference kernels of all bands.

Pixel values are in units of the band's noise: data ``d / sigma``, weights ``w sigma^2``. Blends
whose frames have the same shape are stacked, so that one transform serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.deblend.fitting.components import Floats
from coblend.core.exposure import Cube

_CHUNK = 1 << 17
"""Most pixels to transform at once, if an image has fewer."""
T = TypeVar("T", bound=np.generic)
Complex = NDArray[np.complexfloating]


@dataclass(frozen=True, slots=True)
class Frames:
    """The data of n blends in frames of one shape.

    Frames start at the first pixel of their blend's box and may extend beyond it, without weight.

    Parameters
    ----------
    blends : array, shape (n,), int64
        Their numbers in the observation.
    data : array, shape (n, n_band, ny, nx), float32 (float64 with ``start="reference"``)
        In units of the band's noise; 0 where the weight is 0, except that the start of the
        reference system sees what surrounds the footprint, too.
    weight : array, shape (n, n_band, ny, nx), dtype of ``data``
        Inverse variance in the same units; 0 outside the footprint and at unusable pixels.
    kernels : array, shape (1 or n, n_band, k, k), dtype of ``data``
        Difference kernels, of each blend or common to all.
    kernel_ft : array, shape (1 or n, n_band, ly, lx // 2 + 1), complex
        Their transforms, centred at the origin.
    period : (ly, lx)
        Of the transforms, see `fft_period`.
    gain : array, shape (n, ly, lx // 2 + 1), float32, or None
        By what `correlate` sharpens, see `sharpen.sharpened`; None: nothing.
    """

    blends: NDArray[np.int64]
    data: Floats
    weight: Floats
    kernels: Floats
    kernel_ft: Complex
    period: tuple[int, int]
    gain: Floats | None = None

    def __len__(self) -> int:
        return len(self.blends)

    @classmethod
    def of(
        cls, blends: NDArray[np.int64], data: Floats, weight: Floats, kernels: Floats
    ) -> Frames:
        """Frames with the transforms of their kernels."""
        shape = data.shape[-2:]
        period = fft_period(shape, kernels.shape[-1] // 2)
        transfer = kernel_transform(kernels, period, shape)
        return cls(blends, data, weight, kernels, transfer, period)

    @property
    def half(self) -> int:
        """Half the side of the kernels (pixel)."""
        return int(self.kernels.shape[-1] // 2)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the frames."""
        return self.data.shape[-2], self.data.shape[-1]

    def transform(self, images: Floats) -> Complex:
        """Transform frames, shape (..., ny, nx)."""
        return transform(images, self.period)

    def invert(self, transformed: Complex) -> Floats:
        """Transform back and cut to the frame; the argument is overwritten."""
        return invert(transformed, self.period, self.shape)

    def convolve(self, model: Floats) -> Floats:
        """Render models with the kernels: ``K * M``, shape (n, n_band, ny, nx)."""
        return self._filter(model, self.kernel_ft)

    def correlate(self, image: Floats) -> Floats:
        """Apply the adjoint of `convolve`, sharpened."""
        return self._filter(image, np.conj(self.kernel_ft), self.gain)

    def _filter(self, images: Floats, transfer: Complex, gain: Floats | None = None) -> Floats:
        """Multiply the transforms of images, as many at a time as stay in the cache."""
        n, n_band = images.shape[:2]
        size = self.period[0] * self.period[1]
        bands = max(1, min(n_band, _CHUNK // size))
        step = max(1, _CHUNK // (size * n_band))
        out = np.empty_like(images)
        for first in range(0, n, step):
            some = slice(first, first + step)
            for band in range(0, n_band, bands):
                part = slice(band, band + bands)
                product = self.transform(images[some, part])
                product *= transfer[some if len(transfer) > 1 else slice(None), part]
                if gain is not None:
                    product *= gain[some, None]
                out[some, part] = self.invert(product)
        return out

    def select(self, rows: NDArray[np.int64], blends: NDArray[np.int64]) -> Frames:
        """Frames ``rows``, as blends ``blends``."""
        if len(rows) == len(self):  # all of them, in order: nothing to copy
            return replace(self, blends=blends)
        common = len(self.kernels) == 1
        return replace(
            self,
            blends=blends,
            data=self.data[rows],
            weight=self.weight[rows],
            gain=None if self.gain is None else self.gain[rows],
            kernels=self.kernels if common else self.kernels[rows],
            kernel_ft=self.kernel_ft if common else self.kernel_ft[rows],
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """Blends in frames of several shapes; every blend number occurs once."""

    frames: tuple[Frames, ...]

    def __len__(self) -> int:
        return sum(len(frames) for frames in self.frames)

    @property
    def n_band(self) -> int:
        """Number of bands."""
        return int(self.frames[0].data.shape[1]) if self.frames else 0

    def by_blend(self, arrays: Sequence[NDArray[T]]) -> list[NDArray[T]]:
        """Return views of every blend's part of arrays, one array per group of frames."""
        views = [arrays[0][0]] * len(self) if arrays else []
        for frames, array in zip(self.frames, arrays, strict=True):
            for blend, view in zip(frames.blends, array, strict=True):
                views[blend] = view
        return views

    @property
    def data(self) -> list[Floats]:
        """Data of every blend."""
        return self.by_blend([frames.data for frames in self.frames])

    @property
    def weight(self) -> list[Floats]:
        """Weight of every blend."""
        return self.by_blend([frames.weight for frames in self.frames])

    def select(self, keep: NDArray[np.bool_]) -> Observation:
        """Blends where ``keep``, numbered anew in the same order."""
        number = np.cumsum(keep) - 1
        parts = []
        for frames in self.frames:
            rows = np.flatnonzero(keep[frames.blends])
            if len(rows):
                parts.append(frames.select(rows, number[frames.blends[rows]]))
        return Observation(tuple(parts))

    def band(self, b: int) -> Observation:
        """One band of the same blends."""
        part = slice(b, b + 1)
        return Observation(tuple(
            replace(f, data=f.data[:, part], weight=f.weight[:, part], kernels=f.kernels[:, part],
                    kernel_ft=f.kernel_ft[:, part])
            for f in self.frames
        ))  # fmt: skip

    def split(self, mask: NDArray[np.bool_]) -> Observation:
        """Sort the same blends, those with and without ``mask`` in frames of their own."""
        parts = []
        for frames in self.frames:
            for rows in (
                np.flatnonzero(~mask[frames.blends]),
                np.flatnonzero(mask[frames.blends]),
            ):
                if len(rows):
                    parts.append(frames.select(rows, frames.blends[rows]))
        return Observation(tuple(parts))


def fft_period(frame: tuple[int, int], half: int) -> tuple[int, int]:
    """Periods for convolving a frame with a kernel of side ``2 half + 1``.

    The frame plus the kernel's reach suffices: what wraps around lands outside the frame.
    """
    ly, lx = (int(fft.next_fast_len(n + min(half, n - 1), real=True)) for n in frame)
    return ly, lx


def transform(images: Floats, period: tuple[int, int]) -> Complex:
    """Transform images, shape (..., ny, nx), padded with zeros to a period."""
    # axis by axis, because most of what rfft2 pads is zero
    ly, lx = period
    return np.asarray(fft.fft(fft.rfft(images, lx), ly, axis=-2, overwrite_x=True))


def invert(transformed: Complex, period: tuple[int, int], shape: tuple[int, int]) -> Floats:
    """Transform back and cut to a shape; ``transformed`` is overwritten."""
    ny, nx = shape
    rows = fft.ifft(transformed, axis=-2, overwrite_x=True)[..., :ny, :]
    return np.asarray(fft.irfft(rows, period[1])[..., :nx])


def kernel_transform(
    kernels: Floats, period: tuple[int, int], frame: tuple[int, int]
) -> NDArray[np.complexfloating]:
    """Transform kernels with their centre at the origin.

    Parameters
    ----------
    kernels : array, shape (..., k, k)
    period : (ly, lx)
        See `fft_period`.
    frame : (ny, nx)
        Kernel pixels that cannot reach from one pixel of the frame to another are left out.

    Returns
    -------
    array, shape (..., ly, lx // 2 + 1), complex64
    """
    half = kernels.shape[-1] // 2
    ry, rx = (min(half, n - 1) for n in frame)
    y, x = np.arange(-ry, ry + 1), np.arange(-rx, rx + 1)
    padded = np.zeros((*kernels.shape[:-2], *period), kernels.dtype)
    padded[..., y[:, None], x] = kernels[..., half + y[:, None], half + x]
    return np.asarray(fft.rfft2(padded))


def noise_rms(
    cube: Cube,
    bad_planes: Sequence[str],
    use_weights: bool = True,
    statistic: str = "median",
    stats_planes: Sequence[str] = (),
) -> tuple[NDArray[np.float64], Floats]:
    """Noise of every band, and the weights of all pixels in units of it.

    Parameters
    ----------
    cube : Cube
    bad_planes : sequence of str
        Pixels with any of these planes have no weight.
    use_weights : bool
        Weight by the inverse variance; otherwise all usable pixels equally.
    statistic : str
        Average of the root variance over usable pixels: ``median`` or ``mean``.
    stats_planes : sequence of str
        Pixels with any of these planes do not count for the noise, unless there are no others.

    Returns
    -------
    sigma : array, shape (n_band,), float64
        Average of the root variance; 1 for a band without a usable pixel.
    weight : array, shape (n_band, ny, nx), float32
        ``sigma^2 / variance``, 0 where unusable.
    """
    bad = np.int32(cube.planes.value(bad_planes))
    doubtful = np.int32(cube.planes.value(stats_planes))
    sigma = np.ones(len(cube.bands))
    weight = np.zeros(cube.images.shape, np.float32)
    for b in range(len(cube.bands)):
        variance = cube.variances[b]
        good = np.isfinite(cube.images[b]) & np.isfinite(variance) & (variance > 0)
        good &= (cube.masks[b] & bad) == 0
        if good.any():
            clean = good & ((cube.masks[b] & doubtful) == 0)
            known = variance[clean if clean.any() else good]
            if statistic == "mean":
                sigma[b] = np.sqrt(known, dtype=np.float64).mean()
            else:
                sigma[b] = np.sqrt(_median(known))
            if use_weights:
                np.divide(float(sigma[b]) ** 2, variance, out=weight[b], where=good)
            else:
                weight[b] = good
    return sigma, weight


def _median(values: Floats) -> float:
    """Median of finite values: one partition, where numpy's takes several to look for NaN."""
    middle = len(values) // 2
    parted = np.partition(values, middle)
    lower = parted[:middle].max() if len(values) % 2 == 0 else parted[middle]
    return (float(lower) + float(parted[middle])) / 2
