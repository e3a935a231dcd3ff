"""What a model looks like in a band: convolution of many stamps at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.errors import FormatError
from coblend.core.footprint import box_offsets
from coblend.core.kernels import difference_kernel, model_psf
from coblend.core.model import ModelSet
from coblend.core.psf import Psf
from coblend.core.reconstruct.stamps import Stamps

_BATCH = 1 << 19
"""Pixels of padded stamps per transform; bounds the work space to about 20 MB."""
_STEP = 8
"""Stamps are padded to multiples of this, so that few shapes occur."""


def band_kernels(models: ModelSet, band: int, reg: float | None = None) -> NDArray[np.float64]:
    """Difference kernels of one band and their non-negative counterparts.

    Parameters
    ----------
    models : ModelSet
    band : int
    reg : float, optional
        Regularisation; default: the one of the fit.

    Returns
    -------
    array, shape (2, n_cell, k, k), float64
        ``K`` renders models; ``K+ = max(K, 0)`` with the sum of K makes flux weights, which
        must not be negative.

    Raises
    ------
    FormatError
        Naming the band and the cell whose kernel has no positive finite sum.
    """
    strength = models.kernel_reg if reg is None else reg
    kernel = difference_kernel(models.psfs[:, band], model_psf(models.model_psf_sigma), strength)
    positive = np.maximum(kernel, 0.0)
    total, total_positive = kernel.sum((1, 2)), positive.sum((1, 2))
    bad = ~(np.isfinite(total) & (total > 0))
    if np.any(bad):
        cell = int(np.flatnonzero(bad)[0])
        raise FormatError(
            f"the kernel of band {models.bands[band]}, PSF cell {cell} sums to {total[cell]}"
        )
    return np.stack([kernel, positive * (total / total_positive)[:, None, None]])


def models_with_psf(models: ModelSet, psf: Psf) -> ModelSet:
    """Return models that all bands see with another PSF than they were fitted with."""
    if not len(models.psf_cells):
        return models
    stamps = psf.at_many(*models.psf_cells.T).astype(np.float32)
    return replace(models, psfs=np.repeat(stamps[:, None], len(models.bands), axis=1))


def render(
    stamps: Stamps,
    kernels: NDArray[np.float64],
    cell: NDArray[np.integer],
    within: NDArray[np.int64] | None = None,
) -> tuple[Stamps, ...]:
    """Convolve every stamp with each kind of kernel.

    Linear convolution by FFT in float64: the round-off (1e-16 of the largest value) must stay
    far below the level at which a template counts as zero.

    Parameters
    ----------
    stamps : Stamps
    kernels : array, shape (n_kind, n_cell, k, k), float64
        Odd k.
    cell : array, shape (n,), int
        Cell of each stamp.
    within : array, shape (n, 4), int64, optional
        Box beyond which the result of each stamp does not matter; default: none.

    Returns
    -------
    tuple of Stamps
        One per kind; boxes grown by ``k // 2``, cut to ``within``.
    """
    n_kind, _, *side = kernels.shape
    half = np.array(side) // 2
    boxes = stamps.boxes + np.concatenate([-half, 2 * half])
    if within is not None:
        boxes = _cut(boxes, within)
    first = boxes[:, :2] - stamps.boxes[:, :2]
    # periods so long that nothing wraps around into what is kept
    period = half + np.maximum(first + boxes[:, 2:], stamps.boxes[:, 2:] - first)
    lead = np.maximum(-first, 0)  # room before the stamps
    padded = -(-period // _STEP) * _STEP
    key = np.concatenate([padded, np.asarray(cell, np.int64)[:, None]], axis=1)
    start, out_start = stamps.offsets, box_offsets(boxes)
    out = [np.empty(int(out_start[-1])) for _ in range(n_kind)]
    for (height, width, c), rows in _groups(key):
        shape = (fft.next_fast_len(height, real=True), fft.next_fast_len(width, real=True))
        kernel_ft = fft.rfft2(_wrapped(kernels[:, c], shape))
        step = max(1, _BATCH // (shape[0] * shape[1]))
        for begin in range(0, len(rows), step):
            some = rows[begin : begin + step]
            batch = np.zeros((len(some), *shape))
            for image, row in zip(batch, some, strict=True):
                (y, x), (ny, nx) = lead[row], stamps.boxes[row, 2:]
                stamp = stamps.values[start[row] : start[row + 1]]
                image[y : y + ny, x : x + nx] = stamp.reshape(ny, nx)
            batch_ft = fft.rfft2(batch)
            for kind in range(n_kind):
                full = fft.irfft2(batch_ft * kernel_ft[kind], s=shape)
                for image, row in zip(full, some, strict=True):
                    (y, x), (ny, nx) = first[row] + lead[row], boxes[row, 2:]
                    result = out[kind][out_start[row] : out_start[row + 1]].reshape(ny, nx)
                    result[...] = image[y : y + ny, x : x + nx]
    return tuple(Stamps(boxes, values) for values in out)


def _cut(boxes: NDArray[np.int64], within: NDArray[np.int64]) -> NDArray[np.int64]:
    """Intersection of pairs of boxes; one that would be empty keeps a pixel of its own."""
    low = np.minimum(np.maximum(boxes[:, :2], within[:, :2]), boxes[:, :2] + boxes[:, 2:] - 1)
    end = np.minimum(boxes[:, :2] + boxes[:, 2:], within[:, :2] + within[:, 2:])
    return np.concatenate([low, np.maximum(end - low, 1)], axis=1)


def _wrapped(kernels: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Kernels of period ``shape`` with their centre at the origin."""
    *lead, ky, kx = kernels.shape
    ny, nx = shape
    turns_y, turns_x = -(-ky // ny), -(-kx // nx)
    wide = np.zeros((*lead, turns_y * ny, turns_x * nx))
    wide[..., :ky, :kx] = kernels
    once = wide.reshape(*lead, turns_y, ny, turns_x, nx).sum((-4, -2))
    return np.asarray(np.roll(once, (-(ky // 2), -(kx // 2)), (-2, -1)))


def _groups(
    key: NDArray[np.int64],
) -> list[tuple[tuple[int, int, int], NDArray[np.int64]]]:
    """Rows of equal key, in the order of the keys."""
    if not len(key):
        return []
    kinds, inverse = np.unique(key, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    edges = np.cumsum(np.bincount(inverse.ravel()))
    parts = np.split(order, edges[:-1])
    return [
        ((int(k[0]), int(k[1]), int(k[2])), rows) for k, rows in zip(kinds, parts, strict=True)
    ]
