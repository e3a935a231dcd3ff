"""Sums of the image and counts of mask bits over footprints, by running sums along rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.growth import span_range
from coblend.core.detect.pixels import Pixels, strips
from coblend.core.footprint import FootprintSet, raster_order


@dataclass(frozen=True, slots=True, eq=False)
class FootprintSums:
    """What lies in n footprints; all arrays have shape (n,).

    Parameters
    ----------
    flux : array, float64
        Sum of the usable pixels.
    masked, saturated : array, bool
        Whether any pixel is unusable, or has the plane SAT.
    """

    flux: NDArray[np.float64]
    masked: NDArray[np.bool_]
    saturated: NDArray[np.bool_]


def sum_footprints(pixels: Pixels, footprints: FootprintSet) -> FootprintSums:
    """Add up the pixels of footprints (array coordinates)."""
    order = raster_order(footprints.spans)
    spans = footprints.spans[order].astype(np.int64)
    flux = np.zeros(len(spans))
    masked, saturated = np.zeros((2, len(spans)), bool)
    mask = pixels.exposure.mask
    sat = np.int32(pixels.exposure.planes.value(["SAT"]))
    ny, nx = pixels.shape
    span_rows = footprints.spans[order, 0]
    for rows in strips(ny):
        here = span_range(span_rows, rows)
        if here.start == here.stop:
            continue
        line = (spans[here, 0] - rows.start) * nx
        ends = (line + spans[here, 1], line + spans[here, 2] + 1)
        good = pixels.usable(rows)
        flux[here] = _between(np.where(good, pixels.image(rows), 0), ends)
        masked[here] = _between(~good, ends) > 0
        if sat:
            saturated[here] = _between((mask[rows] & sat) != 0, ends) > 0
    owner, n = footprints.owner[order], len(footprints)
    return FootprintSums(
        np.bincount(owner, weights=flux, minlength=n).astype(np.float64),
        np.bincount(owner, weights=masked, minlength=n) > 0,
        np.bincount(owner, weights=saturated, minlength=n) > 0,
    )


def _between(
    plane: NDArray[np.float32] | NDArray[np.bool_],
    ends: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Sum the flattened plane over index ranges."""
    if plane.dtype == bool and not plane.any():
        return np.zeros(len(ends[0]))
    running = np.zeros(plane.size + 1)
    np.cumsum(plane, dtype=np.float64, out=running[1:])
    return np.asarray(running[ends[1]] - running[ends[0]])
