"""Combine warps that share a pixel grid, strip by strip.

A strip is a few rows whose samples fit into the processor's cache; every step works on whole
arrays of a strip. Pixels are independent of each other, so neither the height of strips and
slabs nor the number of threads changes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.clip import clip, clip_by_variance
from coblend.core.coadd.estimators import combine
from coblend.core.coadd.finalmask import final_mask, flags_of
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import WarpPart, gather

STRIP_BYTES = 1 << 21
"""Size of the cube of samples of a strip: that of a common second-level cache."""


@dataclass(frozen=True, slots=True)
class Stacked:
    """Part of a coadd, NaN where there is no data.

    Parameters
    ----------
    box : Box
    image, variance : array, shape (ny, nx), float32
    mask : array, shape (ny, nx), int32
    n_image : array, shape (ny, nx), uint16
        Number of samples used.
    weight : array, shape (ny, nx), float32
        Sum of the weights of the samples used.
    counts : array, shape (n_input, 3), int64
        Pixels of each input that were used, clipped and rejected.
    input_map : array, shape (n_plane, ny, nx), int32
        Bit j of plane p is set where input ``31 p + j`` was used; no planes if not asked for.
    """

    box: Box
    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    variance: NDArray[np.float32]
    n_image: NDArray[np.uint16]
    weight: NDArray[np.float32]
    counts: NDArray[np.int64]
    input_map: NDArray[np.int32]

    @classmethod
    def empty(cls, box: Box, n_input: int, *, input_map: bool = False) -> Stacked:
        """Arrays to be filled."""
        return cls(
            box=box,
            image=np.empty(box.shape, np.float32),
            mask=np.empty(box.shape, np.int32),
            variance=np.empty(box.shape, np.float32),
            n_image=np.empty(box.shape, np.uint16),
            weight=np.empty(box.shape, np.float32),
            counts=np.zeros((n_input, 3), np.int64),
            input_map=np.zeros((map_planes(n_input) * input_map, *box.shape), np.int32),
        )


def map_planes(n_input: int) -> int:
    """Planes of an input map: 31 inputs each, the sign bit stays clear."""
    return -(-n_input // 31)


def strip_rows(n_input: int, width: int) -> int:
    """Rows of a strip."""
    return int(np.clip(STRIP_BYTES // (4 * max(n_input, 1) * max(width, 1)), 4, 64))


def stack(
    warps: Sequence[WarpPart],
    box: Box,
    rules: StackRules,
    *,
    n_input: int | None = None,
    threads: int = 1,
    input_map: bool = False,
) -> Stacked:
    """Combine the parts of warps that fall into ``box``.

    Parameters
    ----------
    warps : sequence of WarpPart
        Each covers all or part of the box.
    box : Box
        Part of the coadd to make.
    rules : StackRules
    n_input : int, optional
        Number of inputs of the whole coadd; default: one more than the largest index.
    threads : int
    input_map : bool
        Whether to record which inputs were used in every pixel.

    Returns
    -------
    Stacked
    """
    if n_input is None:
        n_input = max((warp.index for warp in warps), default=-1) + 1
    out = Stacked.empty(box, n_input, input_map=input_map)
    boxes = box.strips(strip_rows(len(warps), box.nx))

    def run(strip_box: Box) -> NDArray[np.int64]:
        return _stack_strip(warps, strip_box, rules, out)

    if threads == 1:
        for strip_box in boxes:
            out.counts[...] += run(strip_box)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for counts in pool.map(run, boxes):
                out.counts[...] += counts
    return out


def _stack_strip(
    warps: Sequence[WarpPart], box: Box, rules: StackRules, out: Stacked
) -> NDArray[np.int64]:
    """Fill one strip of ``out``; return the counts of its inputs."""
    strip = gather(warps, box, rules)
    cut = box.slices(out.box)
    if not strip.samples:
        out.image[cut] = out.variance[cut] = np.nan
        out.n_image[cut] = out.weight[cut] = 0
        out.mask[cut] = rules.planes.value(["NO_DATA"])
        return np.zeros_like(out.counts)
    used, centre = strip.available, None
    if rules.clips and rules.clip_scale == "input":
        used, centre = clip_by_variance(strip, rules.sigma_clip, rules.clip_amplitude)
    elif rules.clips:
        used, centre = clip(strip, rules.sigma_clip, rules.clip_iter)
    value, variance, sums = combine(strip, used, rules, centre)
    out.image[cut] = value
    out.variance[cut] = variance
    out.n_image[cut] = sums.n
    out.weight[cut] = sums.w
    out.mask[cut] = final_mask(flags_of(strip, used, sums.n, rules), rules)
    counts = np.zeros_like(out.counts)
    for sample, use in zip(strip.samples, used, strict=True):
        n_used = sample.n_available if used is strip.available else int(np.count_nonzero(use))
        n_rejected = sample.n_pixels - sample.n_available
        counts[sample.index] += n_used, sample.n_available - n_used, n_rejected
        if len(out.input_map):
            plane, bit = divmod(sample.index, 31)
            out.input_map[plane][cut] |= use.astype(np.int32) << np.int32(bit)
    return counts
