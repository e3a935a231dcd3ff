"""Which parents of a file of deblended models hold given pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import ParameterError
from coblend.core.footprint import SpanIndex, expand_runs
from coblend.core.model import boxes_of

if TYPE_CHECKING:
    from coblend.io.deblend.model_file import ModelFile


def parents_at(
    models: ModelFile, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Rows in PARENTS of the parents whose footprints hold the pixels at some positions.

    PARENTS is read once, and once each parent whose box holds a pixel.

    Parameters
    ----------
    models : ModelFile
    y, x : array, shape (n,), float64
        Parent coordinates.

    Returns
    -------
    array, shape (n,), int64

    Raises
    ------
    ParameterError
        A position is in none.
    """
    iy, ix = (np.floor(values + 0.5).astype(np.int64) for values in (y, x))
    out = np.full(len(iy), -1, np.int64)
    for row, pixels in _in_boxes(boxes_of(models.table("PARENTS")), iy, ix):
        homeless = pixels[out[pixels] < 0]
        if len(homeless):
            spans = models.parents(row, row + 1).footprints.spans
            held = SpanIndex.build(spans).find(iy[homeless], ix[homeless]) >= 0
            out[homeless[held]] = row
    lost = np.flatnonzero(out < 0)
    if len(lost):
        raise ParameterError(
            f"no parent holds pixel x={ix[lost[0]]}, y={iy[lost[0]]}", models.path,
            hint=f"positions are x,y; the exposures cover {models.box}",
        )  # fmt: skip
    return out


def _in_boxes(
    boxes: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]
) -> list[tuple[int, NDArray[np.int64]]]:
    """Boxes that hold any of the pixels, ascending, each with the numbers of its pixels."""
    order = np.argsort(y, kind="stable")
    first = np.searchsorted(y[order], boxes[:, 0])
    stop = np.searchsorted(y[order], boxes[:, 0] + boxes[:, 2])
    count = np.maximum(stop - first, 0)
    box = np.repeat(np.arange(len(boxes)), count)
    pixel = order[expand_runs(first, count)]
    inside = (boxes[box, 1] <= x[pixel]) & (x[pixel] < boxes[box, 1] + boxes[box, 3])
    box, pixel = box[inside], pixel[inside]
    rows, start = np.unique(box, return_index=True)
    pieces = np.split(pixel, start[1:])  # a single empty one where there are no rows
    return list(zip(rows.tolist(), pieces, strict=False))
