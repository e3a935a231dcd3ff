"""The samples of a strip: scaled values, which of them are available, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.sorting import ABSENT

Scale = float | NDArray[np.float32]
Weight = float | NDArray[np.float64]


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
    mask : array, shape (ny, nx), int32
    weight : float
        Weight of the input.
    scale : float or array, shape (ny, nx), float32
        Factor on the image; the variance gets its square.
    """

    index: int
    box: Box
    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    variance: NDArray[np.float32]
    weight: float = 1.0
    scale: Scale = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one input contributes to a strip.

    ``view`` indexes the strip; all arrays have the shape of that part of it.
    """

    index: int
    view: tuple[slice, slice]
    values: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]
    available: NDArray[np.bool_]
    n_available: int
    weight: Weight


@dataclass(frozen=True, slots=True)
class Strip:
    """All samples of a strip.

    ``cube`` has shape (n_sample, ny, nx) and holds `ABSENT` where a sample is not available.
    """

    samples: tuple[Sample, ...]
    cube: NDArray[np.float32]
    n_available: NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        return self.cube.shape[1], self.cube.shape[2]


def gather(warps: Sequence[WarpPart], box: Box, rules: StackRules) -> Strip:
    """Cut the samples of ``box`` from the warps, scale them and decide which are available.

    A sample is available when image and variance are finite, the variance is positive and none
    of the bad bits is set.
    """
    parts = [(warp, warp.box & box) for warp in warps]
    parts = [(warp, common) for warp, common in parts if common.area]
    cube = np.empty((len(parts), *box.shape), np.float32)
    n_available = np.zeros(box.shape, np.uint16)
    samples = []
    for layer, (warp, common) in zip(cube, parts, strict=True):
        view = common.slices(box)
        if common != box:
            layer.fill(ABSENT)
        samples.append(_sample(warp, common, view, layer[view], rules))
        n_available[view] += samples[-1].available
    return Strip(tuple(samples), cube, n_available)


def _sample(
    warp: WarpPart,
    box: Box,
    view: tuple[slice, slice],
    values: NDArray[np.float32],
    rules: StackRules,
) -> Sample:
    cut = box.slices(warp.box)
    image, mask, variance = warp.image[cut], warp.mask[cut], warp.variance[cut]
    available = (mask & np.int32(rules.bad)) == 0
    available &= np.isfinite(image)
    available &= variance > 0
    available &= variance < np.inf
    n_available = int(np.count_nonzero(available))
    scale = warp.scale if isinstance(warp.scale, float) else warp.scale[cut]
    scaled = isinstance(scale, np.ndarray) or scale != 1
    if scaled:
        np.multiply(image, scale, out=values, dtype=np.float32)
        variance = np.multiply(variance, np.square(scale), dtype=np.float32)
    else:
        np.copyto(values, image)
    weight: Weight = warp.weight
    if rules.pixel_weights:
        known = (variance > 0) & (variance < np.inf)
        weight = np.divide(1, variance, out=np.zeros(box.shape), where=known)
    if n_available < available.size:
        absent = ~available
        np.copyto(values, ABSENT, where=absent)
        variance = np.where(absent, np.float32(0), variance)
    return Sample(warp.index, view, values, variance, mask, available, n_available, weight)
