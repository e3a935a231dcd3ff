"""Exposures whose PSF jumps along borders that a map draws, as between detectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import ShapeMismatchError
from coblend.core.exposure import Exposure
from coblend.core.params.match import MatchParams
from coblend.core.psf.fields import ChebyshevField
from coblend.core.psfmatch.apply import Applied, apply_kernel


def apply_by_region(
    exposure: Exposure,
    kernels: Mapping[int, ChebyshevField],
    regions: NDArray[np.int32],
    params: MatchParams,
    threads: int = 1,
) -> Applied:
    """Convolve each region with its own kernel, the pixels of all others taken as missing.

    Parameters
    ----------
    exposure : Exposure
    kernels : mapping of int to field
        Kernel by region; pixels of other regions have no data in the result.
    regions : array, shape (ny, nx), int
        Region of every pixel.
    params : MatchParams
    threads : int

    Raises
    ------
    ShapeMismatchError
        When the map has another shape than the exposure.
    """
    if regions.shape != exposure.image.shape:
        raise ShapeMismatchError(
            f"the region map has {regions.shape[1]}x{regions.shape[0]} pixels, the image "
            f"{exposure.image.shape[1]}x{exposure.image.shape[0]}"
        )
    no_data = np.int32(exposure.planes.value(["NO_DATA"]))
    image = np.zeros_like(exposure.image)
    variance = np.full_like(exposure.variance, np.inf)
    mask = exposure.mask | no_data
    radius = 0
    for region, kernel in kernels.items():
        inside = regions == region
        if not inside.any():
            continue
        box = _reach(inside, exposure.box, kernel.side)
        applied = apply_kernel(_only(exposure, inside, box, no_data), kernel, params, threads)
        cut = box.slices(exposure.box)
        mine = inside[cut]
        image[cut][mine] = applied.exposure.image[mine]
        variance[cut][mine] = applied.exposure.variance[mine]
        mask[cut][mine] = applied.exposure.mask[mine]
        radius = max(radius, applied.radius)
    n_missing = int(np.count_nonzero(~np.isfinite(variance)))
    return Applied(exposure.with_pixels(image, mask, variance), radius, n_missing)


def _reach(inside: NDArray[np.bool_], box: Box, side: int) -> Box:
    """Pixels of a region and as many around as its kernel needs."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    tight = Box.from_bounds(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    return tight.shift(box.y0, box.x0).grow(side) & box


def _only(exposure: Exposure, inside: NDArray[np.bool_], box: Box, no_data: np.int32) -> Exposure:
    """Cut out ``box`` and remove the pixels of other regions."""
    cut = box.slices(exposure.box)
    outside = ~inside[cut]
    return Exposure(
        image=np.where(outside, np.float32(0), exposure.image[cut]),
        mask=np.where(outside, no_data, exposure.mask[cut]),
        variance=np.where(outside, np.float32(np.inf), exposure.variance[cut]),
        box=box,
        planes=exposure.planes,
    )
