"""Batches of blends, cut out of the images.

Which blends share a batch follows from the input alone, never from timing or the number of
workers; the largest come first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.deblend.fitting.components import Floats
from coblend.core.footprint import FootprintSet

_SIDES = (
    16, 20, 25, 32, 40, 48, 54, 60, 66, 72, 80, 90, 100, 108, 120, 135, 150, 165, 180, 200, 216,
    240, 256,
)  # fmt: skip
"""Common sides of frames (pixel)."""
_MOST_BLENDS = 256
"""Most blends of a batch."""
_MOST_VALUES = 1 << 20
"""Most values (pixels times bands) of a batch of more than one blend."""


@dataclass(frozen=True, slots=True)
class CutOuts:
    """Blends in frames of one shape.

    Parameters
    ----------
    blends : array, shape (n,), int64
        Their numbers in the batch.
    data, weight : array, shape (n, n_band, ny, nx), float32
        In units of the band's noise; 0 outside the footprint, unless surroundings are wanted.
    footprint : array, shape (n, ny, nx), bool
    """

    blends: NDArray[np.int64]
    data: Floats
    weight: Floats
    footprint: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """Blends to be fitted together.

    Parameters
    ----------
    parents : array, shape (n,), int64
        Rows of the parents.
    boxes : tuple of Box
        Of the blends; their frames start there and may extend further.
    cuts : tuple of CutOuts
    psfs : array, shape (m, n_band, k, k), float32
        Observed PSFs.
    cell : array, shape (n,), int64
        Row of each blend's PSF.
    blend, y, x : array, shape (n_peak,), int64
        Blend of each peak (number in the batch) and its pixel, frame coordinates.
    sigma : array, shape (n_band,), float64
        Noise of the bands (image units).
    """

    parents: NDArray[np.int64]
    boxes: tuple[Box, ...]
    cuts: tuple[CutOuts, ...]
    psfs: Floats
    cell: NDArray[np.int64]
    blend: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    sigma: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.parents)

    def alone(self, i: int) -> Batch:
        """Return a batch of blend ``i`` only."""
        own = self.blend == i
        cut = next(c for c in self.cuts if i in c.blends)
        row = np.flatnonzero(cut.blends == i)
        only = CutOuts(np.zeros(1, np.int64), cut.data[row], cut.weight[row], cut.footprint[row])
        return replace(
            self, parents=self.parents[i : i + 1], boxes=self.boxes[i : i + 1], cuts=(only,),
            psfs=self.psfs[self.cell[i : i + 1]], cell=np.zeros(1, np.int64),
            blend=np.zeros(int(own.sum()), np.int64), y=self.y[own], x=self.x[own],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sky:
    """What blends are cut out of.

    Parameters
    ----------
    images, weights : array, shape (n_band, ny, nx), float32
        Image units; weights in units of the noise (`observation.noise_rms`).
    sigma : array, shape (n_band,), float64
        Noise of the bands (image units).
    origin : (y0, x0)
        First pixel of the images, parent coordinates.
    footprints : FootprintSet
        Of all parents.
    psfs : array, shape (m, n_band, k, k), float32
    """

    images: Floats
    weights: Floats
    sigma: NDArray[np.float64]
    origin: tuple[int, int]
    footprints: FootprintSet
    psfs: Floats


def make_batches(
    sky: Sky,
    parents: NDArray[np.int64],
    peaks: Sequence[NDArray[np.int64]],
    cells: NDArray[np.int64],
    surroundings: bool = False,
) -> Iterator[Batch]:
    """Cut blends out of the images, largest first, and gather them in batches.

    Parameters
    ----------
    sky : Sky
    parents : array, shape (n,), int64
        Parents to fit, rows of the footprints.
    peaks : sequence of array, shape (n_peak, 2), int64
        ``y, x`` of each parent's peaks, parent coordinates.
    cells : array, shape (n,), int64
        Row in ``sky.psfs`` of each parent.
    surroundings : bool
        Whether to keep the pixels of the boxes that are outside the footprint or unusable.

    Yields
    ------
    Batch
    """
    boxes = sky.footprints.boxes()[parents]
    sides = np.array([[_frame_side(int(n)) for n in box[2:]] for box in boxes]).reshape(-1, 2)
    size = sides[:, 0] * sides[:, 1] * len(sky.images)
    order = np.lexsort((np.arange(len(parents)), sides[:, 1], sides[:, 0], -size))
    first = 0
    while first < len(order):
        total = np.cumsum(size[order[first : first + _MOST_BLENDS]])
        rows = order[first : first + max(1, int(np.searchsorted(total, _MOST_VALUES, "right")))]
        first += len(rows)
        own = [Box(*(int(v) for v in boxes[i])) for i in rows]
        shapes, group = np.unique(sides[rows], axis=0, return_inverse=True)
        cuts = tuple(
            _cut(sky, parents[rows], own, np.flatnonzero(group.ravel() == g), (int(ny), int(nx)),
                 surroundings)
            for g, (ny, nx) in enumerate(shapes)
        )  # fmt: skip
        at = np.concatenate([peaks[i] - boxes[i, :2] for i in rows])
        used, cell = np.unique(cells[rows], return_inverse=True)
        blend = np.repeat(np.arange(len(rows)), [len(peaks[i]) for i in rows])
        yield Batch(parents[rows], tuple(own), cuts, sky.psfs[used], cell, blend, at[:, 0],
                    at[:, 1], sky.sigma)  # fmt: skip


def _cut(
    sky: Sky,
    parents: NDArray[np.int64],
    boxes: Sequence[Box],
    blends: NDArray[np.int64],
    shape: tuple[int, int],
    surroundings: bool,
) -> CutOuts:
    """Cut out the blends (numbers in a batch) whose frames have one shape."""
    data = np.zeros((len(blends), len(sky.images), *shape), np.float32)
    weight = np.zeros_like(data)
    footprint = np.zeros((len(blends), *shape), bool)
    for i, blend in enumerate(blends):
        box = boxes[blend]
        window = box.shift(-sky.origin[0], -sky.origin[1])
        cut = (slice(None), slice(window.y0, window.y1), slice(window.x0, window.x1))
        image, weights = sky.images[cut], sky.weights[cut]
        inside = sky.footprints.mask(int(parents[blend]))
        part = (i, slice(None), slice(0, box.ny), slice(0, box.nx))
        footprint[i, : box.ny, : box.nx] = inside
        weight[part] = weights if surroundings else weights * inside
        known = np.isfinite(image) if surroundings else weight[part] > 0
        data[part] = np.where(known, image / sky.sigma[:, None, None], 0)
    return CutOuts(blends, data, weight, footprint)


def _frame_side(n: int) -> int:
    """Smallest common frame side that holds n pixels; beyond the ladder, n itself."""
    return next((side for side in _SIDES if side >= n), n)
