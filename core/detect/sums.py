"""Sums of the image and mask bits over footprints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        bounds = np.stack([line + spans[here, 1], line + spans[here, 2] + 1], axis=1).ravel()
        image, good = pixels.image(rows), pixels.usable(rows)
        if not good.all():
            masked[here] = ~_over(np.logical_and, good, bounds)
            image = np.where(good, image, 0)
        flux[here] = _over(np.add, image, bounds)  # float32 does for a run: summed in pairs
        if np.bitwise_or.reduce(mask[rows], axis=None) & sat:
            saturated[here] = (_over(np.bitwise_or, mask[rows], bounds) & sat) != 0
    owner, n = footprints.owner[order], len(footprints)
    return FootprintSums(
        np.bincount(owner, weights=flux, minlength=n).astype(np.float64),
        np.bincount(owner, weights=masked, minlength=n) > 0,
        np.bincount(owner, weights=saturated, minlength=n) > 0,
    )


def _over(function: np.ufunc, plane: NDArray[Any], bounds: NDArray[np.int64]) -> NDArray[Any]:
    """Reduce the flattened plane over index ranges, given as start, stop, start, stop, ..."""
    inside = bounds[: len(bounds) - (bounds[-1] == plane.size)]
    return np.asarray(function.reduceat(plane.ravel(), inside)[::2])
