"""The mean of inputs that are read once, one after the other.

Sums over one input after the other are those of `coblend.core.coadd.stack`, in the same order, so
the result is the same bit by bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.finalmask import Flags, final_mask
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import Sample, WarpPart, gather
from coblend.core.coadd.stack import Stacked, map_planes, strip_rows
from coblend.core.coadd.sums import Sums

_INPUT_BYTES = 24  # of a pixel of the input that is being added


class RunningMean:
    """Mean of the inputs added so far.

    Parameters
    ----------
    box : Box
        The coadd.
    rules : StackRules
        The statistic is the mean.
    n_input : int
    input_map : bool
        Whether to record which inputs were used in every pixel.
    """

    def __init__(
        self, box: Box, rules: StackRules, n_input: int, *, input_map: bool = False
    ) -> None:
        self.box, self.rules = box, rules
        self._sums = Sums.zeros(box.shape, rules.sums)
        self._used, self._rejected = (np.zeros(box.shape, np.int32) for _ in range(2))
        self._hits = [np.zeros(box.shape) for _ in rules.thresholds]
        self._map = np.zeros((map_planes(n_input) * input_map, *box.shape), np.int32)
        self._counts = np.zeros((n_input, 3), np.int64)

    @staticmethod
    def n_bytes(box: Box, rules: StackRules, n_input: int, *, input_map: bool = False) -> int:
        """Memory of the sums and of one input."""
        planes = 5 if rules.needs_scatter else 3
        sums = 8 * (planes + len(rules.thresholds)) + 10 + 4 * map_planes(n_input) * input_map
        return box.area * (sums + _INPUT_BYTES)

    def add(self, warp: WarpPart) -> None:
        """Add an input; its box lies inside that of the coadd."""
        for box in warp.box.strips(strip_rows(1, warp.box.nx)):
            strip = gather([warp], box, self.rules)
            self._add(strip.samples[0], strip.values[0], strip.available[0], box)

    def _add(
        self,
        sample: Sample,
        values: NDArray[np.float32],
        use: NDArray[np.bool_],
        box: Box,
    ) -> None:
        cut = box.slices(self.box)
        sums = self._sums.cut(cut)
        if sums.centre.ndim:
            np.copyto(sums.centre, values, where=use & (sums.n == 0))
        sums.add(sample, values, use, np.empty((3, *box.shape)), all_available=True)
        sums.n[...] += use
        self._counts[sample.index] += (
            sample.n_available, 0, sample.n_pixels - sample.n_available
        )  # fmt: skip
        if len(self._map):
            word, bit = divmod(sample.index, 31)
            self._map[word][cut] |= use.astype(np.int32) << np.int32(bit)
        if sample.mask is None:
            return
        for plane, where in ((self._used[cut], use), (self._rejected[cut], ~use)):
            np.bitwise_or(plane, sample.mask, out=plane, where=where)
        for hit, (bit, _) in zip(self._hits, self.rules.thresholds, strict=True):
            hit[cut] += (((sample.mask & np.int32(bit)) != 0) & ~use) * sample.weight

    def result(self, box: Box) -> Stacked:
        """Part of the coadd; the counts are those of the whole."""
        cut = box.slices(self.box)
        sums = self._sums.cut(cut)
        empty = sums.n == 0
        over = [
            np.where(hit[cut] > threshold * (sums.w + hit[cut]), np.int32(bit), np.int32(0))
            for hit, (bit, threshold) in zip(self._hits, self.rules.thresholds, strict=True)
        ]
        flags = Flags(self._used[cut], self._rejected[cut], over, empty, np.zeros_like(empty))
        out = Stacked.empty(box, len(self._counts))
        out.image[...] = np.where(empty, np.nan, sums.mean())
        out.variance[...] = np.where(empty, np.nan, sums.error_of_mean(self.rules.variance))
        out.mask[...] = final_mask(flags, self.rules)
        out.n_image[...], out.weight[...] = sums.n, sums.w
        return replace(out, counts=self._counts, input_map=self._map[:, *cut])
