"""Images of different sizes and places in one flat array, and where they overlap.

A whole chunk of sources is one `Stamps`; sums over sources and over pixels are then single calls
of ``bincount`` on flat indices instead of loops over sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.footprint import box_offsets, expand_runs
from coblend.core.kernels import model_psf
from coblend.core.model import CUBE, MODEL_PSF_SIDE, POINT, ModelSet, boxes_of


@dataclass(frozen=True, slots=True)
class Stamps:
    """n images, each its box in row-major order.

    Parameters
    ----------
    boxes : array, shape (n, 4), int64
        ``y0, x0, ny, nx``, parent coordinates.
    values : array, shape (n_value,), float64
        Pixels of all stamps.
    """

    boxes: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Stamp i owns ``values[offsets[i]:offsets[i + 1]]``, shape (n + 1,), int64."""
        return box_offsets(self.boxes)

    @property
    def owner(self) -> NDArray[np.int64]:
        """Stamp of every value, shape (n_value,), int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def stamp(self, index: int) -> NDArray[np.float64]:
        """One stamp as an image."""
        first, last = self.offsets[index], self.offsets[index + 1]
        return self.values[first:last].reshape(tuple(self.boxes[index, 2:]))

    def sums(self) -> NDArray[np.float64]:
        """Sum of every stamp, shape (n,), float64."""
        return group_sum(self.owner, self.values, len(self))


def group_sum(
    group: NDArray[np.integer], values: NDArray[np.floating] | NDArray[np.bool_], n: int
) -> NDArray[np.float64]:
    """Sum of ``values`` per group, shape (n,), float64; 0 for empty groups."""
    return np.asarray(np.bincount(group, values, minlength=n), np.float64)


def common_pixels(
    boxes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    frames: NDArray[np.int64],
    frame_offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels that box i shares with frame i, for all i.

    Parameters
    ----------
    boxes, frames : array, shape (n, 4), int64
    offsets, frame_offsets : array, shape (n,), int64
        Flat index of the first pixel of each box and of each frame.

    Returns
    -------
    inside, there : array, shape (n_pixel,), int64
        Flat indices of the pixels in the boxes and in the frames, box by box in raster order.
    counts : array, shape (n,), int64
        Pixels of each pair.
    """
    y0 = np.maximum(boxes[:, 0], frames[:, 0])
    x0 = np.maximum(boxes[:, 1], frames[:, 1])
    y1 = np.minimum(boxes[:, 0] + boxes[:, 2], frames[:, 0] + frames[:, 2])
    width = np.minimum(boxes[:, 1] + boxes[:, 3], frames[:, 1] + frames[:, 3]) - x0
    width = np.maximum(width, 0)
    n_row = np.where(width > 0, np.maximum(y1 - y0, 0), 0)
    owner = np.repeat(np.arange(len(boxes)), n_row)
    y = expand_runs(y0, n_row)
    length = width[owner]

    def flat(of: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.int64]:
        first = start + x0 - of[:, 1] - of[:, 0] * of[:, 3]
        return expand_runs(first[owner] + y * of[owner, 3], length)

    return flat(boxes, offsets), flat(frames, frame_offsets), n_row * width


def modelled_objects(models: ModelSet) -> NDArray[np.int64]:
    """Rows of OBJECTS that have a component, shape (n,), int64."""
    return np.flatnonzero(models.objects["n_component"] > 0)


def component_stamps(models: ModelSet, band: int) -> Stamps:
    """Unconvolved model of every component in one band.

    A point source is the model PSF at its pixel: rendering then gives the observed PSF to the
    accuracy of the kernel, which is what the fit saw.
    """
    rows = models.components
    boxes = boxes_of(rows)
    point = rows["kind"] == POINT
    start = np.asarray(models.morph_offsets[:-1], np.int64)
    pool = models.morph
    if np.any(point):
        half = MODEL_PSF_SIDE // 2
        boxes[point] = np.stack(
            [
                rows["peak_y"][point] - half,
                rows["peak_x"][point] - half,
                np.full(np.count_nonzero(point), MODEL_PSF_SIDE),
                np.full(np.count_nonzero(point), MODEL_PSF_SIDE),
            ],
            axis=1,
        )
        start = np.where(point, len(pool), start)
        pool = np.concatenate([pool, model_psf(models.model_psf_sigma).ravel()])
    area = boxes[:, 2] * boxes[:, 3]
    start = start + np.where(rows["kind"] == CUBE, band * area, 0)
    values = pool[expand_runs(start, area)].astype(np.float64)
    spectrum = models.spectra()[:, band].astype(np.float64)
    return Stamps(boxes, values * np.repeat(spectrum, area))


def object_stamps(models: ModelSet, band: int) -> Stamps:
    """Unconvolved model of every object with components, in one band.

    Returns
    -------
    Stamps
        In the order of `modelled_objects`, each over the union of its components' boxes.
    """
    parts = component_stamps(models, band)
    rows = models.objects[modelled_objects(models)]
    counts = rows["n_component"].astype(np.int64)
    member = expand_runs(rows["component0"].astype(np.int64), counts)
    owner = np.repeat(np.arange(len(rows)), counts)
    boxes = union_boxes(parts.boxes[member], counts)
    values = np.zeros(int(box_offsets(boxes)[-1]))
    if not len(rows):
        return Stamps(boxes, values)
    rank = member - np.repeat(rows["component0"].astype(np.int64), counts)
    first, offsets = box_offsets(boxes), parts.offsets
    for r in range(int(counts.max())):  # the components of one rank never share an object
        part, whole = member[rank == r], owner[rank == r]
        inside, there, _ = common_pixels(
            parts.boxes[part], offsets[part], boxes[whole], first[whole]
        )
        values[there] += parts.values[inside]
    return Stamps(boxes, values)


def union_boxes(boxes: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest box around each run of ``counts[i] > 0`` boxes, shape (n, 4), int64."""
    if not len(counts):
        return np.zeros((0, 4), np.int64)
    first = np.cumsum(counts) - counts
    low = np.minimum.reduceat(boxes[:, :2], first, axis=0)
    high = np.maximum.reduceat(boxes[:, :2] + boxes[:, 2:], first, axis=0)
    return np.concatenate([low, high - low], axis=1)
