"""The pixels of many parents, cut from an exposure and laid end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import ShapeMismatchError
from coblend.core.exposure import Exposure
from coblend.core.footprint import FootprintSet, box_offsets
from coblend.core.model import ModelSet, boxes_of

_STRIP = 256
"""Rows that neighbours are looked for in at once (pixel)."""
_PER_PIXEL, _PER_STRAY, _PER_SHARE = 60, 30, 50
"""Memory of a pixel of a parent's box, and for stray light of the nearest peak's share of it, or
of each of many shares (byte, measured)."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Bounding boxes of n parents with their pixels.

    Parameters
    ----------
    boxes : array, shape (n, 4), int64
        ``y0, x0, ny, nx``, parent coordinates.
    inside : array, shape (n_pixel,), bool
        Whether a pixel belongs to the parent's footprint.
    image, variance : array, shape (n_pixel,), float32
        0 and +inf where there is no data.
    bad : array, shape (n_pixel,), bool
        Any of the bad mask planes, or no data.
    no_data : array, shape (n_pixel,), bool
    """

    boxes: NDArray[np.int64]
    inside: NDArray[np.bool_]
    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    bad: NDArray[np.bool_]
    no_data: NDArray[np.bool_]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Frame i owns pixels ``offsets[i]:offsets[i + 1]``, shape (n + 1,), int64."""
        return box_offsets(self.boxes)


def cut_frames(
    models: ModelSet,
    exposure: Exposure | None,
    bad_planes: Iterable[str] = ("NO_DATA",),
    *,
    partial: bool = False,
) -> Frames:
    """Cut the boxes of all parents out of an exposure.

    Parameters
    ----------
    models : ModelSet
    exposure : Exposure, optional
        None: no pixel has data.
    bad_planes : iterable of str
        Mask planes that make a pixel bad.
    partial : bool
        Whether parents may stick out of the exposure.

    Raises
    ------
    ShapeMismatchError
        When a parent sticks out of the exposure.
    """
    boxes = boxes_of(models.parents)
    offsets = box_offsets(boxes)
    total = int(offsets[-1])
    image = np.zeros(total, np.float32)
    variance = np.full(total, np.inf, np.float32)
    mask = np.zeros(total, np.int32)
    covered = np.zeros(total, bool)
    no_data = bad = ~covered
    if exposure is not None:
        for (y0, x0, ny, nx), first in zip(boxes.tolist(), offsets.tolist(), strict=False):
            frame = Box(y0, x0, ny, nx)
            common = frame & exposure.box
            if common != frame and not partial:
                raise _not_covered(models, exposure)
            here, there = common.slices(frame), common.slices(exposure.box)
            for target, source in (
                (image, exposure.image),
                (variance, exposure.variance),
                (mask, exposure.mask),
                (covered, True),
            ):
                cut = target[first : first + frame.area].reshape(frame.shape)
                cut[here] = source[there] if isinstance(source, np.ndarray) else source
        good = covered & np.isfinite(image) & np.isfinite(variance) & (variance > 0)
        good &= (mask & np.int32(exposure.planes.value(["NO_DATA"]))) == 0
        no_data = ~good
        bad = no_data | ((mask & np.int32(exposure.planes.value(bad_planes))) != 0)
        image[no_data] = 0.0
        variance[no_data] = np.inf
    inside = _inside(models.footprints, boxes, offsets)
    return Frames(boxes, inside, image, variance, bad, no_data)


def chunk_parents(
    parents: NDArray[Any], rows: NDArray[np.int64], limit: int = 1 << 18, margin: int = 0
) -> list[tuple[int, int]]:
    """Split parents into ranges of rows whose stamps fit into memory together.

    Parameters
    ----------
    parents : structured array
        All of PARENTS.
    rows : array, shape (n,), int64
        The wanted rows, ascending.
    limit : int
        Pixels of all objects of a range, their parents' boxes taken; a larger parent stands
        alone.
    margin : int
        Pixels by which stamps are larger than those boxes.

    Returns
    -------
    list of tuple of int
        ``first, last`` (exclusive).
    """
    sides = boxes_of(parents)[:, 2:] + margin
    cost = sides[:, 0] * sides[:, 1] * (1 + parents["n_child"].astype(np.int64))
    out: list[tuple[int, int]] = []
    total = 0
    for row in rows.tolist():
        total += int(cost[row])
        if out and out[-1][1] == row and total <= limit:
            out[-1] = out[-1][0], row + 1
        else:
            out.append((row, row + 1))
            total = int(cost[row])
    return out


def memory_needed(parents: NDArray[Any], stray: str = "none") -> NDArray[np.int64]:
    """Memory that each parent may need if it is worked on alone (byte), shape (n,), int64.

    Parameters
    ----------
    parents : structured array
        Rows of PARENTS.
    stray : str
        Rule for stray light; a pixel that all objects share is stored once for each.
    """
    boxes = boxes_of(parents)
    per_pixel = np.full(len(parents), _PER_PIXEL)
    if stray == "nearest":
        per_pixel += _PER_STRAY
    elif stray == "r-to-peak":
        per_pixel += _PER_SHARE * parents["n_child"]
    return np.asarray(boxes[:, 2] * boxes[:, 3] * per_pixel, np.int64)


def near_parents(parents: NDArray[Any], rows: NDArray[np.int64], radius: int) -> NDArray[np.int64]:
    """Rows of all parents within ``radius`` pixels (box to box) of any of ``rows``, ascending."""
    if len(rows) in (0, len(parents)):
        return rows
    boxes = boxes_of(parents)
    bounds = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    grown = bounds[rows] + radius * np.array([-1, -1, 1, 1])
    corner, end = grown[:, :2].min(0), grown[:, 2:].max(0)
    near = np.zeros(len(parents), bool)
    for first in range(int(corner[0]), int(end[0]), _STRIP):
        low, high = np.array([first, corner[1]]), np.array([min(first + _STRIP, end[0]), end[1]])
        reached = np.zeros(high - low, bool)
        for _, (y0, x0, y1, x1) in _clipped(grown, low, high):
            reached[y0:y1, x0:x1] = True
        for row, (y0, x0, y1, x1) in _clipped(bounds, low, high):
            near[row] |= reached[y0:y1, x0:x1].any()
    return np.flatnonzero(near)


def _clipped(
    bounds: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> Iterator[tuple[int, list[int]]]:
    """Boxes ``y0, x0, y1, x1`` that meet a window, cut to it and counted from its corner."""
    rows = np.flatnonzero(((bounds[:, :2] < high) & (bounds[:, 2:] > low)).all(1))
    cut = np.clip(bounds[rows] - np.tile(low, 2), 0, np.tile(high - low, 2))
    return zip(rows.tolist(), cut.tolist(), strict=True)


def _inside(
    footprints: FootprintSet, boxes: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each pixel of frame i belongs to footprint i, for all i, shape (n_pixel,), bool."""
    y, first, last = footprints.spans.astype(np.int64).T
    frame = boxes[footprints.owner]
    start = offsets[footprints.owner] + (y - frame[:, 0]) * frame[:, 3] + first - frame[:, 1]
    edges = np.zeros(int(offsets[-1]) + 1, np.int8)
    edges[start] += 1
    np.add.at(edges, start + last - first + 1, -1)  # where one span ends the next may begin
    return np.asarray(np.cumsum(edges[:-1], dtype=np.int8) > 0)


def _not_covered(models: ModelSet, exposure: Exposure) -> ShapeMismatchError:
    boxes = [Box(*box) for box in boxes_of(models.parents).tolist()]
    outside = [row for row, box in enumerate(boxes) if not exposure.box.contains(box)]
    row = outside[0]
    return ShapeMismatchError(
        f"band {exposure.band} covers {exposure.box}; {len(outside)} parents are not inside,"
        f" the first is {models.parents['id'][row]} at {boxes[row]}",
        hint="give the exposure that was deblended, or --set allow_partial=true",
    )
