"""Batches of blends, cut out of the images.

A batch holds blends whose frames have the same shape, in the order of the parents. Which blends
share a batch follows from the input alone, never from timing or the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.deblend.components import Floats
from coblend.core.footprint import FootprintSet

_SIDES = (16, 24, 32, 40, 48, 60, 72, 90, 108, 128, 150, 180, 216, 256)
_MOST_BLENDS = 64
_MOST_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Blends to be fitted together.

    Parameters
    ----------
    parents : array, shape (n,), int64
        Rows of the parents.
    boxes : tuple of Box
        Of the blends; frames start there and may extend further, without weight.
    data, weight : array, shape (n, n_band, ny, nx), float32
        In units of the band's noise, 0 outside the footprint.
    footprint : array, shape (n, ny, nx), bool
    psfs : array, shape (m, n_band, k, k), float32
        Observed PSFs.
    cell : array, shape (n,), int64
        Row of each blend's PSF.
    blend, y, x : array, shape (n_peak,), int64
        Blend of each peak (row of the batch) and its pixel, frame coordinates.
    sigma : array, shape (n_band,), float64
        Noise of the bands (image units).
    """

    parents: NDArray[np.int64]
    boxes: tuple[Box, ...]
    data: Floats
    weight: Floats
    footprint: NDArray[np.bool_]
    psfs: Floats
    cell: NDArray[np.int64]
    blend: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    sigma: NDArray[np.float64]

    def one(self, i: int) -> Batch:
        """Blend ``i`` alone."""
        own = self.blend == i
        return replace(
            self, parents=self.parents[i : i + 1], boxes=self.boxes[i : i + 1],
            data=self.data[i : i + 1], weight=self.weight[i : i + 1],
            footprint=self.footprint[i : i + 1], psfs=self.psfs[self.cell[i : i + 1]],
            cell=np.zeros(1, np.int64), blend=np.zeros(int(own.sum()), np.int64),
            y=self.y[own], x=self.x[own],
        )  # fmt: skip


def make_batches(
    images: Floats,
    weights: Floats,
    sigma: NDArray[np.float64],
    origin: tuple[int, int],
    footprints: FootprintSet,
    parents: NDArray[np.int64],
    peaks: Sequence[NDArray[np.int64]],
    psfs: Floats,
    cells: NDArray[np.int64],
) -> Iterator[Batch]:
    """Cut blends out of the images, sorted into batches of equal frames.

    Parameters
    ----------
    images, weights : array, shape (n_band, ny, nx), float32
        Image units; weights in units of the noise (`observation.noise_rms`).
    sigma : array, shape (n_band,), float64
    origin : (y0, x0)
        First pixel of the images, parent coordinates.
    footprints : FootprintSet
        Of all parents.
    parents : array, shape (n,), int64
        Parents to fit, rows of ``footprints``.
    peaks : sequence of array, shape (n_peak, 2), int64
        ``y, x`` of each parent's peaks, parent coordinates.
    psfs : array, shape (m, n_band, k, k), float32
    cells : array, shape (n,), int64
        Row in ``psfs`` of each parent.
    """
    frames: dict[tuple[int, int], list[int]] = {}
    boxes = [footprints.box(int(row)) for row in parents]
    for i, box in enumerate(boxes):
        frames.setdefault((_frame_side(box.ny), _frame_side(box.nx)), []).append(i)
    for (ny, nx), members in sorted(frames.items(), reverse=True):
        most = max(1, min(_MOST_BLENDS, _MOST_VALUES // (len(images) * ny * nx)))
        for first in range(0, len(members), most):
            part = members[first : first + most]
            shape = (len(part), len(images), ny, nx)
            data, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
            footprint = np.zeros((len(part), ny, nx), bool)
            for j, i in enumerate(part):
                box = boxes[i]
                window = box.shift(-origin[0], -origin[1])
                cut = (slice(None), slice(window.y0, window.y1), slice(window.x0, window.x1))
                inside = footprints.mask(int(parents[i]))
                footprint[j, : box.ny, : box.nx] = inside
                weight[j, :, : box.ny, : box.nx] = weights[cut] * inside
                usable = weight[j, :, : box.ny, : box.nx] > 0
                data[j, :, : box.ny, : box.nx] = np.where(
                    usable, images[cut] / sigma[:, None, None], 0
                )
            at = np.concatenate([peaks[i] - (boxes[i].y0, boxes[i].x0) for i in part])
            used, cell = np.unique(cells[part], return_inverse=True)
            yield Batch(
                parents[part], tuple(boxes[i] for i in part), data, weight, footprint,
                psfs[used], cell, np.repeat(np.arange(len(part)), [len(peaks[i]) for i in part]),
                at[:, 0], at[:, 1], sigma,
            )  # fmt: skip


def _frame_side(n: int) -> int:
    """Smallest common frame side that holds n pixels; beyond the ladder, n itself."""
    return next((side for side in _SIDES if side >= n), n)
