"""What a blend is compared with: data, weights and difference kernels of all bands.

Blends whose frames have the same shape are stacked, so that one transform serves them all.
Pixel values are in units of the band's noise: data ``d / sigma``, weights ``w sigma^2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.box import Box
from coblend.core.exposure import Cube

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Observation:
    """The data of n blends in frames of one shape.

    Parameters
    ----------
    data : array, shape (n, n_band, ny, nx), float32
        In units of the band's noise; 0 where the weight is 0.
    weight : array, shape (n, n_band, ny, nx), float32
        Inverse variance in the same units; 0 outside the footprint and at unusable pixels.
    kernels : array, shape (1 or n, n_band, k, k), float32
        Difference kernels, of each blend or common to all.
    kernel_ft : array, shape (1 or n, n_band, ly, lx // 2 + 1), complex64
        Their transforms, centred at the origin.
    fft_shape : (ly, lx)
        Periods: at least the frame plus half a kernel, so that what wraps around is cut off.
    boxes : tuple of Box
        The blends' own boxes, parent coordinates; the frames share their first pixel and may
        extend beyond them, without weight.
    """

    data: Floats
    weight: Floats
    kernels: Floats
    kernel_ft: NDArray[np.complexfloating]
    fft_shape: tuple[int, int]
    boxes: tuple[Box, ...]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the frames."""
        return self.data.shape[-2], self.data.shape[-1]

    @property
    def half(self) -> int:
        """Half the side of the kernels (pixel)."""
        return int(self.kernels.shape[-1] // 2)

    def convolve(self, model: Floats) -> Floats:
        """Render models: ``D * M``, shape (n, n_band, ny, nx)."""
        return self._filter(model, self.kernel_ft)

    def correlate(self, image: Floats) -> Floats:
        """Adjoint of `convolve`."""
        return self._filter(image, np.conj(self.kernel_ft))

    def _filter(self, image: Floats, transfer: NDArray[np.complexfloating]) -> Floats:
        transform = fft.rfft2(image, s=self.fft_shape)
        transform *= transfer
        ny, nx = self.shape
        return fft.irfft2(transform, s=self.fft_shape, overwrite_x=True)[..., :ny, :nx]

    def select(self, keep: NDArray[np.int64]) -> Observation:
        """Blends ``keep`` only."""
        common = len(self.kernels) == 1
        return replace(
            self,
            data=self.data[keep],
            weight=self.weight[keep],
            kernels=self.kernels if common else self.kernels[keep],
            kernel_ft=self.kernel_ft if common else self.kernel_ft[keep],
            boxes=tuple(self.boxes[i] for i in keep),
        )


def fft_period(frame: tuple[int, int], half: int) -> tuple[int, int]:
    """Periods for convolving a frame with a kernel of side ``2 half + 1``.

    The frame plus the kernel's reach suffices: what wraps around lands outside the frame.
    """
    ly, lx = (int(fft.next_fast_len(n + min(half, n - 1), real=True)) for n in frame)
    return ly, lx


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
    padded = np.zeros((*kernels.shape[:-2], *period), np.float32)
    padded[..., y[:, None], x] = kernels[..., half + y[:, None], half + x]
    return np.asarray(fft.rfft2(padded))


def noise_rms(
    cube: Cube, bad_planes: Sequence[str], use_weights: bool = True
) -> tuple[NDArray[np.float64], Floats]:
    """Noise of every band, and the weights of all pixels in units of it.

    Parameters
    ----------
    cube : Cube
    bad_planes : sequence of str
        Pixels with any of these planes have no weight.
    use_weights : bool
        Weight by the inverse variance; otherwise all usable pixels equally.

    Returns
    -------
    sigma : array, shape (n_band,), float64
        Median of the root variance over usable pixels; 1 for a band without any.
    weight : array, shape (n_band, ny, nx), float32
        ``sigma^2 / variance``, 0 where unusable.
    """
    bad = np.int32(cube.planes.value(bad_planes))
    sigma = np.ones(len(cube.bands))
    weight = np.zeros(cube.images.shape, np.float32)
    for b in range(len(cube.bands)):
        variance = cube.variances[b]
        good = np.isfinite(cube.images[b]) & np.isfinite(variance) & (variance > 0)
        good &= (cube.masks[b] & bad) == 0
        if good.any():
            sigma[b] = np.sqrt(np.median(variance[good].astype(np.float64)))
            ratio = sigma[b] ** 2 / variance[good].astype(np.float64)
            weight[b, good] = ratio if use_weights else 1
    return sigma, weight
