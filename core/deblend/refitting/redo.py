"""Fitting one parent of a catalogue again, with peaks added or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.catalog import empty_table
from coblend.core.deblend.batch import Batch
from coblend.core.deblend.collect import collect
from coblend.core.deblend.crowded import StarField
from coblend.core.deblend.fitting.observation import noise_rms
from coblend.core.deblend.guard import guarded
from coblend.core.deblend.point import nearest_pixel
from coblend.core.deblend.refitting.refit import left_over, refit
from coblend.core.deblend.refitting.suggest import suggest_peaks
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.rules import Members, is_crowded
from coblend.core.deblend.split import fit_parts, oversized
from coblend.core.deblend.task import Plan, batches, joint_batches, make_plan
from coblend.core.deblend.warm import Warm
from coblend.core.deblend.work import deblend_work
from coblend.core.detection import Detections, parent_columns, peak_columns
from coblend.core.errors import ParameterError
from coblend.core.exposure import Cube, Exposure
from coblend.core.footprint import SpanIndex
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.deblend import DeblendParams
from coblend.core.params.refit import RefitParams
from coblend.core.reconstruct.band import render_objects
from coblend.core.reconstruct.images import add_stamps, residual_exposure

_SHARED = ("x", "y", "ra", "dec", "ix", "iy")


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to become of one parent.

    Parameters
    ----------
    models : ModelSet
        The parent with its blends, objects and components, and their PSFs.
    cube : Cube
        Its box, all bands.
    add : structured array
        Peaks to add: ``x, y, ra, dec``, parent coordinates.
    drop : array, shape (n,), int64
        Identifiers of objects to drop.
    first_id : int
        Identifier of the first new object or blend.
    first_peak : int
        Identifier of the first new peak.
    """

    models: ModelSet
    cube: Cube
    add: NDArray[np.void]
    drop: NDArray[np.int64]
    first_id: int
    first_peak: int


def redo(edit: Edit, params: DeblendParams) -> ModelSet:
    """Fit one parent again; the tables come back as a set of its own.

    A parent with models starts from them, as a whole, in parts or as stars; one that failed, was
    skipped, has no models or is to become a field of stars starts anew, by the rules of
    ``params``. Objects keep their identifiers.

    Raises
    ------
    ParameterError
        A peak to add is outside the footprint, or nothing would be left.
    """
    params = replace(params, model_psf_sigma=edit.models.model_psf_sigma)
    detections = edited_detections(edit)
    becomes_stars = is_crowded(detections.parents["npeak"], params)[0] and not _is_stars(edit)
    warm = has_models(edit.models) and params.algorithm == "scarlet" and not becomes_stars
    if warm:
        plan = _warm_plan(edit, detections, params)
        results = _refit(edit, detections, plan, params)
    else:
        params = replace(params, process_singles=True)
        plan = make_plan(detections, edit.cube, params)
        shares = batches(detections, edit.cube, plan, params)
        results = [r for share in shares for r in deblend_work(share, params)]
    done = collect(detections, edit.cube, plan, results, replace(params, single_psf_flux=False))
    return _with_old_identifiers(edit, done, warm)


def has_models(models: ModelSet) -> bool:
    """Whether a parent has models to start from."""
    return len(models.components) > 0


def _is_stars(edit: Edit) -> bool:
    return bool(((edit.models.objects["flags"] & FLAGS["psf_only"]) != 0).any())


def _refit(
    edit: Edit, detections: Detections, plan: Plan, params: DeblendParams
) -> list[BlendResult]:
    """Fit a parent from its models."""
    warm = _warm(edit, detections, plan)
    (batch,) = joint_batches(detections, edit.cube, plan, plan.fitted)
    if _is_stars(edit):
        peaks = detections.peaks[plan.members.of_parent(0)]
        pixel = np.stack([peaks["iy"], peaks["ix"]], 1)
        offset = nearest_pixel(np.stack([peaks["y"], peaks["x"]], 1), pixel)
        offset[warm.source] = (
            warm.centroids() - (pixel - [batch.boxes[0].y0, batch.boxes[0].x0])[warm.source]
        )
        return deblend_work(StarField(batch, offset), params)
    if len(edit.models.blends) > 1 or oversized(batch, params)[0]:
        return guarded(partial(fit_parts, start=warm), batch, params)
    return guarded(partial(_refit_whole, warm), batch, params)


def _refit_whole(warm: Warm, batch: Batch, params: DeblendParams) -> list[BlendResult]:
    return [refit(batch, warm, params)]


def edited_detections(edit: Edit) -> Detections:
    """Return the parent with its peaks after the edit."""
    models, bands = edit.models, edit.models.bands
    kept = models.objects[~np.isin(models.objects["id"], edit.drop)]
    n = len(kept) + len(edit.add)
    if not n:
        raise ParameterError(f"parent {models.parents['id'][0]} would have no peak left")
    peaks = empty_table(peak_columns(bands), n)
    old, new = peaks[: len(kept)], peaks[len(kept) :]
    for name in _SHARED:
        old[name] = kept[name]
    old["id"] = kept["peak_id"]
    parents = empty_table(parent_columns(bands), 1)
    for suffix in map(column_suffix, bands):
        old[f"merge_peak_{suffix}"] = kept[f"merge_peak_{suffix}"]
        name = f"merge_footprint_{suffix}"
        parents[name] = models.objects[name].any()
    old["merge_peak_sky"] = (kept["flags"] & FLAGS["skipped_pseudo"]) != 0
    for name in ("x", "y", "ra", "dec"):
        new[name] = edit.add[name]
    new["ix"], new["iy"] = np.floor(new["x"] + 0.5), np.floor(new["y"] + 0.5)
    new["id"] = edit.first_peak + np.arange(len(new))
    peaks["parent"], peaks["rank"] = models.parents["id"][0], np.arange(n)
    inside = SpanIndex.build(models.footprints.spans).find(new["iy"], new["ix"])
    outside = np.flatnonzero(inside < 0)
    if len(outside):
        peak = new[outside[0]]
        raise ParameterError(
            f"the peak at x={peak['x']:g}, y={peak['y']:g} is outside the footprint of parent "
            f"{models.parents['id'][0]}, which covers {models.footprints.box(0)}"
        )
    _, pixel, counts = np.unique(
        np.stack([peaks["iy"], peaks["ix"]], 1), axis=0, return_inverse=True, return_counts=True
    )
    if (counts[pixel.ravel()[len(kept) :]] > 1).any():
        raise ParameterError("two peaks are in the same pixel; drop the old one to replace it")
    parents["id"], parents["npeak"] = models.parents["id"], n
    parents["area"] = models.parents["area"]
    return Detections(bands, parents, peaks, models.footprints, edit.cube.box)


def _warm_plan(edit: Edit, detections: Detections, params: DeblendParams) -> Plan:
    """Noise, PSFs and missing bands of the earlier fit."""
    models, bands = edit.models, edit.models.bands
    own, weights = noise_rms(
        edit.cube, params.bad_mask, params.use_weights, params.noise_stat, params.stats_mask
    )
    sigma = np.array([models.blends[f"sigma_{column_suffix(b)}"][0] for b in bands], np.float64)
    if params.use_weights:
        weights = (weights * ((sigma / own) ** 2)[:, None, None]).astype(np.float32)
    fluxes = [models.objects[f"model_flux_{column_suffix(band)}"] for band in bands]
    one = np.zeros(1, np.int64)
    return Plan(
        flags=one, fitted=one, psfs=models.psfs[:1], psf_cells=models.psf_cells[:1],
        no_psf=np.array([[bool(np.isnan(flux).all()) for flux in fluxes]]), cells=one,
        members=Members.of(detections, params.pseudo_columns), refused=(), sigma=sigma,
        weights=weights, memory=models.parents["memory"].astype(np.float64),
    )  # fmt: skip


def _warm(edit: Edit, detections: Detections, plan: Plan) -> Warm:
    """Components of the sources that stay."""
    models, components = edit.models, edit.models.components
    peak_ids = detections.peaks["id"][plan.members.of_parent(0)]
    place = {int(peak): i for i, peak in enumerate(peak_ids)}
    owner = models.objects["peak_id"][components["object"]]
    keep = np.array([row for row, peak in enumerate(owner) if int(peak) in place], np.int64)
    origin = (models.parents["y0"][0], models.parents["x0"][0])
    rows = components[keep]
    return Warm(
        np.array([place[int(peak)] for peak in owner[keep]], np.int64),
        (np.stack([rows["peak_y"], rows["peak_x"]], 1) - origin).astype(np.int64),
        (np.stack([rows["y0"], rows["x0"]], 1) - origin).astype(np.int64),
        (models.spectra()[keep] / plan.sigma).astype(np.float32),
        [models.morphology(int(row)) for row in keep],
    )


def _with_old_identifiers(edit: Edit, done: ModelSet, warm: bool) -> ModelSet:
    """Give objects and blends their old identifiers, new ones after the largest."""
    before, objects = edit.models.objects, done.objects
    table = np.zeros(len(objects), before.dtype)
    for name in before.dtype.names or ():
        if name in (objects.dtype.names or ()):
            table[name] = objects[name]
        elif before.dtype[name].kind == "f":  # a column that only the file has
            table[name] = np.nan
    known = dict(zip(before["peak_id"].tolist(), before["id"].tolist(), strict=True))
    fresh = iter(range(edit.first_id, edit.first_id + len(objects) + len(done.blends)))
    table["id"] = [known.get(peak) or next(fresh) for peak in objects["peak_id"].tolist()]
    blends = done.blends.copy()
    old_blends = edit.models.blends["id"].tolist()
    for i, blend in enumerate(blends):
        new = old_blends[i] if i < len(old_blends) else next(fresh)
        table["blend"][objects["blend"] == blend["id"]] = new
        blends["id"][i] = new
    if warm and len(blends) == len(old_blends) == 1:
        blends["n_iter"] += edit.models.blends["n_iter"]
        table["n_iter"][table["blend"] != 0] += edit.models.blends["n_iter"][0]
        done.parents["n_iter"] = blends["n_iter"]
    return replace(done, objects=table, blends=blends)


def missed_peaks(edit: Edit, params: RefitParams) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Peaks ``y, x`` that the models of a parent missed, with their significance.

    See `suggest.suggest_peaks`; parents without models have none.
    """
    if not has_models(edit.models):
        return np.zeros((0, 2), np.int64), np.zeros(0)
    params = replace(params, model_psf_sigma=edit.models.model_psf_sigma)
    detections = edited_detections(edit)
    plan = _warm_plan(edit, detections, params)
    (batch,) = joint_batches(detections, edit.cube, plan, plan.fitted)
    left = left_over(batch, _warm(edit, detections, plan), params)
    peaks = np.stack([edit.models.objects["y"], edit.models.objects["x"]], 1)
    origin = np.array([edit.cube.box.y0, edit.cube.box.x0])
    pixels, significance = suggest_peaks(
        left, batch.cuts[0].weight[0], batch.psfs[0], peaks - origin,
        params.suggest_thresh, params.suggest_distance,
    )  # fmt: skip
    return pixels + origin, significance


def cut_cube(cube: Cube, box: Box) -> Cube:
    """Return the part of a cube inside ``box``."""
    window = (slice(None), *box.slices(cube.box))
    return replace(
        cube, images=cube.images[window], variances=cube.variances[window],
        masks=cube.masks[window], box=box,
    )  # fmt: skip


def residual(refitted: Sequence[ModelSet], exposure: Exposure) -> Exposure:
    """Subtract the models of refitted parents from an exposure; 0 where there is no data."""
    model = np.zeros(exposure.box.shape)
    for models in filter(has_models, refitted):
        _, rendered, _ = render_objects(models, models.bands.index(exposure.band))
        add_stamps(model, exposure.box, rendered)
    return residual_exposure(exposure, model)
