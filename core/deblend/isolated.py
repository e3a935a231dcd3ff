"""PSF fluxes of sources that have their parent to themselves and are not fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.spectra import ENOUGH_COVERAGE
from coblend.core.deblend.point import nearest_pixel, shifted_stamps
from coblend.core.deblend.task import Plan
from coblend.core.detection import Detections
from coblend.core.exposure import Cube
from coblend.core.model import FLAGS, set_flag

_CHUNK = 128


def fill_isolated(
    objects: NDArray[np.void],
    order: NDArray[np.int64],
    detections: Detections,
    cube: Cube,
    plan: Plan,
) -> None:
    """Fill in ``model_flux``, its error and ``chi2`` of isolated sources, in place.

    One matched filter with the PSF at the sub-pixel peak over the pixels of the footprint: no
    iteration. The flux of a source that is not a point is too small, and its ``chi2`` says so.

    Parameters
    ----------
    objects : structured array
        OBJECTS.
    order : array, shape (n,), int64
        Row of PEAKS of every object.
    detections : Detections
    cube : Cube
    plan : Plan
    """
    owner = np.repeat(np.arange(len(detections)), detections.parents["npeak"])
    first = np.arange(len(objects)) == plan.members.first[owner]
    rows = np.flatnonzero(first & ((plan.flags[owner] & FLAGS["isolated"]) != 0))
    labels = detections.footprints.labels(cube.box)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        peaks = detections.peaks[order[part]]
        parents = owner[part]
        pixel = np.stack([peaks["iy"], peaks["ix"]], 1).astype(np.int64)
        offset = nearest_pixel(np.stack([peaks["y"], peaks["x"]], 1), pixel)
        cell = plan.cells[parents]
        stamps = shifted_stamps(
            plan.psfs[cell], offset[:, None, 0], offset[:, None, 1]
        )  # one shift for all bands
        data, weight, own = _cut(cube, plan, labels, pixel, parents + 1, stamps.shape[-1])
        weight = weight * ~plan.no_psf[cell][:, :, None, None]
        flux, error, chi2 = psf_fluxes(stamps, data, weight, own)
        objects["chi2"][part] = chi2
        flux, error = flux * plan.sigma, error * plan.sigma
        known = np.isfinite(flux.astype(np.float32))  # as far as a column can hold it
        set_flag(objects, part[~known.all(1)], "no_data")
        for name, values in (("model_flux", flux), ("model_flux_err", error)):
            for b, band in enumerate(cube.bands):
                objects[f"{name}_{column_suffix(band)}"][part] = np.where(
                    known[:, b], values[:, b], np.nan
                )


def psf_fluxes(
    stamps: Floats, data: Floats, weight: Floats, own: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit one PSF per source and band.

    Parameters
    ----------
    stamps, data, weight : array, shape (n, n_band, k, k)
    own : array, shape (n, k, k), bool
        Pixels of each source's footprint.

    Returns
    -------
    flux, error : array, shape (n, n_band), float64
        NaN in bands that see too little of the PSF's light within the footprint.
    chi2 : array, shape (n,), float64
        Per usable pixel of all bands; NaN without any.
    """
    norm = np.einsum("nbyx,nbyx,nbyx->nb", stamps, stamps, weight, dtype=np.float64)
    light = np.maximum(stamps, 0) * own[:, None]
    seen = (light * (weight > 0)).sum((2, 3)) > ENOUGH_COVERAGE * light.sum((2, 3))
    norm = np.where(seen & (norm > 0), norm, np.nan)
    flux = np.einsum("nbyx,nbyx,nbyx->nb", stamps, data, weight, dtype=np.float64) / norm
    left = data - np.nan_to_num(flux).astype(np.float32)[:, :, None, None] * stamps
    total = np.einsum("nbyx,nbyx,nbyx->n", left, left, weight, dtype=np.float64)
    n_pixel = np.count_nonzero(weight > 0, axis=(1, 2, 3))
    chi2 = np.divide(total, n_pixel, out=np.full(len(total), np.nan), where=n_pixel > 0)
    return flux, 1 / np.sqrt(norm), chi2


def _cut(
    cube: Cube,
    plan: Plan,
    labels: NDArray[np.int32],
    pixel: NDArray[np.int64],
    own: NDArray[np.int64],
    side: int,
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Stamps of data and weight about pixels, in units of the noise, and of the footprint.

    Data and weight are 0 outside the footprint.
    """
    offset = np.arange(side) - side // 2
    y = (pixel[:, 0] - cube.box.y0)[:, None, None] + offset[:, None]
    x = (pixel[:, 1] - cube.box.x0)[:, None, None] + offset
    inside = (y >= 0) & (y < cube.box.ny) & (x >= 0) & (x < cube.box.nx)
    y, x = np.clip(y, 0, cube.box.ny - 1), np.clip(x, 0, cube.box.nx - 1)
    inside &= labels[y, x] == own[:, None, None]
    weight = plan.weights[:, y, x].swapaxes(0, 1) * inside[:, None]
    data = cube.images[:, y, x].swapaxes(0, 1) / plan.sigma[:, None, None]
    return np.where(weight > 0, data, 0).astype(np.float32), weight, inside
