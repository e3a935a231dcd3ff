"""An exposure on another grid: its pixels, its noise and its PSF."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.pixelmap import PixelMap
from coblend.core.coadd.resample import noise_correlation, resample
from coblend.core.coadd.warp_psf import warped_psf
from coblend.core.exposure import Exposure, fill_no_data
from coblend.core.params.warp import WarpParams

BYTES_PER_INPUT_PIXEL, BYTES_PER_OUTPUT_PIXEL = 44, 16
"""Memory of a warp per pixel of the exposure and of the box (measured)."""


@dataclass(frozen=True, slots=True)
class Warped:
    """An exposure on its new grid.

    Parameters
    ----------
    exposure : Exposure
    noise_power : float
        Mean noise power that resampling leaves in a pixel.
    noise_correlation : array, shape (5, 5), float64
        Autocorrelation of the noise, 1 at the centre.
    """

    exposure: Exposure
    noise_power: float
    noise_correlation: NDArray[np.float64]


def warp_exposure(
    exposure: Exposure,
    pixel_map: PixelMap,
    wcs: tuple[str, ...],
    params: WarpParams,
    *,
    conserve_flux: bool = True,
) -> Warped:
    """Resample an exposure onto the box of a pixel map.

    Parameters
    ----------
    exposure : Exposure
    pixel_map : PixelMap
        Positions in the array of the exposure.
    wcs : tuple of str
        That of the box.
    params : WarpParams
    conserve_flux : bool
        False keeps surface brightness.
    """
    planes = exposure.planes
    empty = ~exposure.good(params.bad_planes, filled=True)
    # the kernel rings about a saturated plateau, unless that was interpolated
    wide = exposure.mask & np.int32(planes.value(["EDGE", "SAT"]))
    wide[(exposure.mask & planes.value(["INTRP"])) != 0] &= np.int32(planes.value(["EDGE"]))
    done = resample(
        np.where(empty, np.float32(np.nan), exposure.image),
        exposure.mask,
        np.where(empty, np.float32(np.nan), exposure.variance),
        pixel_map,
        kernel=params.kernel,
        wide=wide,
        no_data=planes.value(["NO_DATA"]),
        conserve_flux=conserve_flux,
    )
    psf = exposure.psf
    if psf is not None:
        origin = exposure.box.y0, exposure.box.x0
        psf = warped_psf(psf, pixel_map, origin, params.psf_step, params.kernel)
    fill_no_data(done.image, done.mask, done.variance, planes)
    warped = replace(
        exposure, image=done.image, mask=done.mask, variance=done.variance, box=pixel_map.box,
        psf=psf, wcs=wcs,
    )  # fmt: skip
    return Warped(warped, done.noise_power, noise_correlation(pixel_map, params.kernel))


def covered(positions: NDArray[np.float64], box: Box) -> Box:
    """Part of ``box`` inside the bounds of positions ``(y, x)``, shape (2, n)."""
    known = positions[:, np.isfinite(positions).all(axis=0)]
    if not known.size:
        return Box(box.y0, box.x0, 0, 0)
    low, high = np.floor(known.min(axis=1)), np.ceil(known.max(axis=1))
    return box & Box.from_bounds(int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1)
