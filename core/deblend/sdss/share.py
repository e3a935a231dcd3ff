"""The single-band deblender on a batch of blends: each band shares its light on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.spectra import ENOUGH_COVERAGE
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.sdss.psftest import fit_psf, paint_psf
from coblend.core.deblend.sdss.stray import degenerate, stray_light, weighted
from coblend.core.deblend.sdss.templates import (
    apportion,
    monotonic,
    patched_template,
    ramped_template,
    smoothed,
    symmetric_template,
)
from coblend.core.errors import FitError
from coblend.core.footprint import FootprintSet
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.deblend import DeblendParams
from coblend.core.psf.moments import fwhm_of


@dataclass(frozen=True, slots=True)
class SharedLight(BlendResult):
    """Result without models, but with the light of every peak.

    Parameters
    ----------
    light : array, shape (n_peak, n_band, ny, nx), float32
        Over the box of the blend, image units.
    """

    light: Floats = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))


def share_batch(batch: Batch, params: DeblendParams) -> list[BlendResult]:
    """Share the light of every blend of a batch among its peaks, band by band.

    Raises
    ------
    FitError
        ``NoData``: a blend without a usable pixel.
    """
    results: list[BlendResult] = []
    for i in range(len(batch)):
        one = batch.alone(i)
        cut, box = one.cuts[0], one.boxes[0]
        if not (cut.weight > 0).any():
            raise FitError("NoData")
        inner = (slice(0, box.ny), slice(0, box.nx))
        footprint = cut.footprint[0][inner]
        peaks = np.stack([one.y, one.x], 1)
        bands = [
            share_band(data[inner], weight[inner], footprint, psf, peaks, params)
            for data, weight, psf in zip(
                cut.data[0], cut.weight[0], one.psfs[one.cell[0]], strict=True
            )
        ]
        whole = (0, slice(None), *inner)
        results.append(_result(one, bands, cut.data[whole], cut.weight[whole]))
    return results


@dataclass(frozen=True, slots=True)
class SharedBand:
    """How the light of one band is shared by n peaks.

    Parameters
    ----------
    light : array, shape (n, ny, nx), float64
    is_star : array, shape (n,), bool
        Templates that are the PSF.
    star : array, shape (n, 3), float64
        Centre ``y, x`` (frame coordinates) and flux of that PSF; NaN for other templates.
    dropped : array, shape (n,), bool
        Templates that were too much like another.
    seen : array, shape (n,), bool
        Whether enough of the pixels about the peak is usable.
    """

    light: NDArray[np.float64]
    is_star: NDArray[np.bool_]
    star: NDArray[np.float64]
    dropped: NDArray[np.bool_]
    seen: NDArray[np.bool_]


def share_band(
    data: Floats,
    weight: Floats,
    footprint: NDArray[np.bool_],
    psf: Floats,
    peaks: NDArray[np.int64],
    params: DeblendParams,
) -> SharedBand:
    """Share one band of one blend.

    Parameters
    ----------
    data, weight : array, shape (ny, nx)
        In units of the noise.
    footprint : array, shape (ny, nx), bool
    psf : array, shape (k, k)
    peaks : array, shape (n, 2), int64
        ``y, x``.
    params : DeblendParams
    """
    templates = np.zeros((len(peaks), *data.shape))
    is_star, seen = np.zeros((2, len(peaks)), bool)
    stars = np.full((len(peaks), 3), np.nan)
    reach = round((1.5 * fwhm_of(psf) - 1) / 2) * 2 + 1
    for i, (y, x) in enumerate(peaks.tolist()):
        core = np.maximum(paint_psf(psf, y, x, data.shape), 0) * footprint
        seen[i] = (core * (weight > 0)).sum() > ENOUGH_COVERAGE * core.sum()
        star = fit_psf(data, weight, psf, peaks, i)
        is_star[i] = star.is_star
        if star.is_star:
            stars[i] = star.y, star.x, star.flux
            templates[i] = star.flux * paint_psf(psf, star.y, star.x, data.shape) * footprint
            continue
        template = symmetric_template(data, footprint, y, x)
        if params.edge_handling == "ramp":
            template = ramped_template(data, footprint, template, psf, reach, y, x)
        elif params.edge_handling == "noclip":
            template = patched_template(data, footprint, template, y, x)
        templates[i] = monotonic(smoothed(template), y, x)
    dropped = np.zeros(len(peaks), bool)
    if params.remove_degenerate:
        dropped = degenerate(templates, is_star, params.max_template_cosine)
        templates[dropped] = 0
    if params.weight_templates:
        templates = weighted(data * footprint, templates)
    light = apportion(data * footprint, templates)
    light += stray_light(data * footprint, templates, is_star, peaks, params)
    return SharedBand(light, is_star, stars, dropped, seen)


def _result(
    batch: Batch, bands: Sequence[SharedBand], data: Floats, weight: Floats
) -> SharedLight:
    """Fluxes of the shares; errors are those of the pixels' noise times the shares."""
    light = np.stack([band.light for band in bands], 1)
    seen = np.stack([band.seen for band in bands], 1)
    variance = np.divide(1, weight, out=np.zeros(weight.shape), where=weight > 0)
    share = np.divide(light, data, out=np.zeros(light.shape), where=data != 0)
    error = np.sqrt(np.einsum("nbyx,nbyx,byx->nb", share, share, variance))
    flux = light.sum((2, 3))
    box, star = batch.boxes[0], np.stack([band.star for band in bands], 1)
    objects: dict[str, Floats] = {
        "model_flux": np.where(seen, flux * batch.sigma, np.nan),
        "model_flux_err": np.where(seen, error * batch.sigma, np.nan),
        "psf_y": star[..., 0] + box.y0,
        "psf_x": star[..., 1] + box.x0,
        "psf_flux": star[..., 2] * batch.sigma,
    }
    flags = np.where(seen.all(1), 0, FLAGS["no_data"])
    flags[np.stack([band.is_star for band in bands], 1).any(1)] |= FLAGS["as_psf"]
    flags[np.stack([band.dropped for band in bands], 1).any(1)] |= FLAGS["degenerate"]
    flags[~(light != 0).any((1, 2, 3))] |= FLAGS["null"]
    return SharedLight(
        parent=int(batch.parents[0]),
        flags=0 if (weight > 0).any((1, 2)).all() else FLAGS["bands_missing"],
        spectra=np.zeros((0, len(batch.sigma)), np.float32),
        objects=objects,
        object_flags=flags,
        light=(light * batch.sigma[:, None, None]).astype(np.float32),
    )


def shared_footprints(
    models: ModelSet, results: Sequence[BlendResult], band: int
) -> tuple[NDArray[np.int64], FootprintSet, NDArray[np.float32]]:
    """Footprints of all objects in one band.

    Parameters
    ----------
    models : ModelSet
        The tables that `collect.collect` made of the results.
    results : sequence of BlendResult
        From `share_batch`.
    band : int

    Returns
    -------
    rows : array, shape (n,), int64
        Rows of OBJECTS, ascending; those without light are left out.
    footprints : FootprintSet
    light : array, shape (n_pixel,), float32
        In the order of the spans.
    """
    shared = {result.parent: result for result in results if isinstance(result, SharedLight)}
    rows, sets, values = [], [], [np.zeros(0, np.float32)]
    for blend in models.blends:
        result = shared[int(blend["parent"])]
        for k, light in enumerate(result.light[:, band]):
            if light.any():
                rows.append(int(blend["object0"]) + k)
                sets.append(FootprintSet.from_mask(light != 0, int(blend["y0"]), int(blend["x0"])))
                values.append(light[light != 0])
    return np.array(rows, np.int64), FootprintSet.concatenate(sets), np.concatenate(values)
