"""The samples of a strip: scaled values, which of them are available, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.sorting import ABSENT

Scale = float | NDArray[np.float32]
Weight = float | NDArray[np.float64]
Pixels = tuple[NDArray[np.int64], NDArray[np.int64]]

_FEW = 1 / 8


@dataclass(frozen=True, slots=True)
class WarpPart:
    """Part of one warp, on the grid of the coadd.

    Parameters
    ----------
    index : int
        Number of the input.
    box : Box
        Pixels covered, coadd coordinates.
    image, variance : array, shape (ny, nx), float32
        Before scaling.
    mask : array, shape (ny, nx), int32, or None
        None: no bit is set.
    weight : float
        Weight of the input.
    scale : float or array, shape (ny, nx), float32
        Factor on the image; the variance gets its square.
    """

    index: int
    box: Box
    image: NDArray[np.float32]
    mask: NDArray[np.int32] | None
    variance: NDArray[np.float32]
    weight: float = 1.0
    scale: Scale = 1.0

    def cut(self, box: Box) -> WarpPart:
        """Return the part inside a smaller box."""
        part = box.slices(self.box)
        mask = None if self.mask is None else self.mask[part]
        scale = self.scale if isinstance(self.scale, float) else self.scale[part]
        return replace(
            self, box=box, image=self.image[part], mask=mask, variance=self.variance[part],
            scale=scale,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """What one input contributes to a strip.

    ``view`` indexes the strip; ``variance`` (0 where the sample is not available), ``mask`` and
    a ``weight`` per pixel have the shape of that part of it. ``absent`` are the pixels ``(y, x)``
    of that part where it is not available, None if they are more than a few.
    """

    index: int
    view: tuple[slice, slice]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32] | None
    weight: Weight
    n_pixels: int
    n_available: int
    absent: Pixels | None

    @property
    def complete(self) -> bool:
        """Whether the sample is available in all of its part of the strip."""
        return self.n_available == self.n_pixels


@dataclass(frozen=True, slots=True)
class Strip:
    """All samples of a strip.

    Parameters
    ----------
    samples : tuple of Sample
    values : array, shape (n_sample, ny, nx), float32
        Scaled; where a sample is not available `ABSENT`, or 0 for statistics that only add.
    available : array, shape (n_sample, ny, nx), bool
    n_available : array, shape (ny, nx), uint16
    """

    samples: tuple[Sample, ...]
    values: NDArray[np.float32]
    available: NDArray[np.bool_]
    n_available: NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        return self.values.shape[1], self.values.shape[2]


def gather(warps: Sequence[WarpPart], box: Box, rules: StackRules) -> Strip:
    """Cut the samples of ``box`` from the warps, scale them and decide which are available.

    A sample is available when image and variance are finite, the variance is positive and none
    of the bad bits is set.
    """
    parts = [
        (warp, common, common.slices(box)) for warp in warps if (common := warp.box & box).area
    ]
    fill = np.float32(0) if rules.statistic in ("mean", "sum") else ABSENT
    values = np.empty((len(parts), *box.shape), np.float32)
    available = np.empty(values.shape, bool)
    samples = []
    for (warp, common, view), x, use in zip(parts, values, available, strict=True):
        if common != box:
            x[...], use[...] = fill, False
        samples.append(_sample(warp, common, view, x[view], use[view], rules, fill))
    return Strip(tuple(samples), values, available, count(available))


def count(used: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Count the samples of each pixel in an array of shape (n_sample, ny, nx)."""
    dtype = np.uint8 if len(used) < 256 else np.uint16
    return np.asarray(np.add.reduce(used.view(np.uint8), axis=0, dtype=dtype), np.uint16)


def _sample(
    warp: WarpPart,
    box: Box,
    view: tuple[slice, slice],
    values: NDArray[np.float32],
    available: NDArray[np.bool_],
    rules: StackRules,
    fill: np.float32,
) -> Sample:
    """Fill the sample's values and availability, and return the rest of it."""
    cut = box.slices(warp.box)
    image, variance = warp.image[cut], warp.variance[cut]
    mask = None if warp.mask is None else warp.mask[cut]
    np.isfinite(image, out=available)
    available &= variance > 0
    available &= variance < np.inf
    if mask is not None:
        available &= (mask & np.int32(rules.bad)) == 0
    scale = warp.scale if isinstance(warp.scale, float) else warp.scale[cut]
    if isinstance(scale, float) and scale == 1:
        np.copyto(values, image)
    else:
        np.multiply(image, scale, out=values, dtype=np.float32)
        variance = np.multiply(variance, np.square(scale), dtype=np.float32)
    weight: Weight = warp.weight
    if rules.pixel_weights:
        known = (variance > 0) & (variance < np.inf)
        weight = np.divide(1, variance, out=np.zeros(box.shape), where=known)
    absent = np.divmod(np.flatnonzero(~available), box.nx)
    n_absent, n = absent[0].size, available.size
    if n_absent:
        values[absent] = fill
        variance = variance.copy()
        variance[absent] = 0
    few = absent if n_absent < _FEW * n else None
    return Sample(warp.index, view, variance, mask, weight, n, n - n_absent, few)
