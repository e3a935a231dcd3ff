"""``coblend deblend``: split parents into their sources."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from coblend.cli.command import command, psf_option
from coblend.cli.run import Run, filled_name
from coblend.core.errors import ParameterError
from coblend.core.params.deblend import DeblendParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coblend.core.deblend.batch import Batch
    from coblend.core.deblend.crowded import StarField
    from coblend.core.deblend.report import BlendResult
    from coblend.core.deblend.task import Plan
    from coblend.core.detection import Detections
    from coblend.core.exposure import Cube
    from coblend.core.model import ModelSet

log = logging.getLogger("coblend")


@command(
    "deblend",
    DeblendParams,
    partial=True,
    examples=(
        "coblend deblend merged.fits coadd_*.fits -o deblended.fits",
        "coblend deblend merged.fits g=coadd_g.fits r=coadd_r.fits -o deblended.fits -j 4",
        "coblend deblend merged.fits coadd_*.fits -o deblended.fits --preset model",
    ),
)
@click.argument("merged", metavar="MERGED")
@click.argument("exposures", metavar="[BAND=]EXPOSURE...", nargs=-1, required=True)
@psf_option("PSF in place of the file's, e.g. r=r.psf or gaussian:fwhm=4.5; repeat it.")
def deblend(
    run: Run,
    params: DeblendParams,
    merged: str,
    exposures: tuple[str, ...],
    psfs: tuple[str, ...],
) -> None:
    """Split the parents of MERGED into their sources.

    Every source is a spectrum times a shape that falls off monotonically from its peak (or two
    of them where it is bright, one starting as a point source), at the resolution of a narrow
    model PSF. All sources of a parent are fitted together to all bands, with each band's own
    PSF. Writes the catalogue (OBJECTS, one row per peak) and the models in one file.
    """
    from coblend.core.deblend.collect import collect
    from coblend.core.deblend.task import BYTES_PER_PIXEL, batches, make_plan
    from coblend.core.reconstruct.precision import storage_steps
    from coblend.io.deblend.models import write_models
    from coblend.io.detect.detections import read_detections
    from coblend.io.exposure.exposures import count_pixels, read_cube
    from coblend.io.fits.specs import expand_lists, parse_band_spec, parse_spec
    from coblend.io.psf.given import band_psfs

    exposures = tuple(expand_lists(exposures))
    run.add_input("merged", parse_spec(merged).path)
    run.add_psfs(psfs)
    n_pixel = 0
    for _, spec in map(parse_band_spec, exposures):
        run.add_exposure("exposure", spec)
        n_pixel += count_pixels(spec)
    run.require_memory(BYTES_PER_PIXEL * n_pixel, parse_spec(merged).path)
    detections = read_detections(merged)
    cube = read_cube(exposures, psfs=band_psfs(psfs))
    _plan_products(run, params, cube.bands)
    plan = make_plan(detections, cube, params)
    summary = {"n_parent": len(detections), "n_peak": len(detections.peaks),
               "n_fitted": len(plan.fitted)}  # fmt: skip
    run.report(summary)
    params = _sharp_enough(cube.bands, plan, params)
    _warn_of_input(detections, cube)
    _warn_of_skipped(detections, plan)
    if run.dry_run:
        run.report({}, _costliest(detections, plan))
        return
    work = batches(detections, cube, plan, params)
    results = _fit(run, work, len(plan.fitted), params)
    _warn_of_bugs(detections, results)
    models = collect(detections, cube, plan, results, params)
    with run.create("deblended/1") as out:
        write_models(out, models, storage_steps(models, params.model_error))
    if params.heavy:
        _write_heavy(run, params.heavy, models, results)
    if params.not_deblended:
        _write_mask(run, params.not_deblended, models)
    counts = _summary(models)
    run.report(counts)
    n_failed = counts["n_failed"] + counts.get("n_child_failed", 0)
    run.check_failures(n_failed, len(plan.fitted) + len(plan.refused))


def _plan_products(run: Run, params: DeblendParams, bands: Sequence[str]) -> None:
    """Refuse at once products that there are not or that could not be written at the end."""
    if params.heavy and params.algorithm != "sdss":
        raise ParameterError(
            "heavy is for --algorithm sdss", hint="see coblend reconstruct-footprints --heavy"
        )
    if params.heavy:
        run.plan(params.heavy, bands)
    if params.not_deblended:
        run.check_output(params.not_deblended)


def _sharp_enough(bands: Sequence[str], plan: Plan, params: DeblendParams) -> DeblendParams:
    """Let the models be as sharp as the sharpest band; name the band that asks for it."""
    from coblend.core.deblend.task import model_width, psf_sigmas

    sigma, width = psf_sigmas(plan), model_width(plan, params)
    if width < params.model_psf_sigma:
        log.info(
            "band %s: its PSF (sigma %.2f px) is narrower than that of the models (%.2f), which "
            "is taken as %.1f",
            bands[int(sigma.argmin())], sigma.min(), params.model_psf_sigma, width,
        )  # fmt: skip
    return replace(params, model_psf_sigma=width)


def _warn_of_input(detections: Detections, cube: Cube) -> None:
    """Say what is odd about the input without being wrong."""
    if not len(detections):
        log.warning("no parents: the catalogue will be empty")
    if len(set(cube.units)) > 1:
        units = ", ".join(f"{b} {unit or 'none'}" for b, unit in zip(cube.bands, cube.units,
                                                                     strict=True))  # fmt: skip
        log.warning(
            "units differ (%s): fluxes are in those of their band, and the columns name none",
            units,
        )


def _warn_of_skipped(detections: Detections, plan: Plan) -> None:
    """Say how many peaks are lost to the limits, and what would help."""
    from coblend.core.model import FLAGS

    remedies = {
        "skipped_too_many_peaks": "--crowded psf fits them as point sources",
        "skipped_too_big": "see max_footprint_area, max_area_times_peaks, max_blend_memory",
        "skipped_masked": "see mask_limits",
    }
    for name, remedy in remedies.items():
        hit = (plan.flags & FLAGS[name]) != 0
        n_peak, total = int(plan.members.n_real[hit].sum()), len(detections.peaks)
        if n_peak:
            log.warning(
                "%s: %d parent(s) with %d peaks (%.0f %% of all) are not fitted; %s",
                name, int(hit.sum()), n_peak, 100 * n_peak / total, remedy,
            )  # fmt: skip


def _warn_of_bugs(detections: Detections, results: Sequence[BlendResult]) -> None:
    """Name the parents whose fits met a bug; -vv shows where."""
    from coblend.core.deblend.guard import INTERNAL

    bugs = [result for result in results if result.error.startswith(INTERNAL)]
    for result in bugs:
        log.debug("%s", result.trace)
    if bugs:
        log.warning(
            "parent %d: %s; %d parent(s) met a bug: please report it, with the output of coblend "
            "refit --only failed --no-catch-failures -vv",
            detections.parents["id"][bugs[0].parent], bugs[0].error, len(bugs),
        )  # fmt: skip


def _costliest(detections: Detections, plan: Plan, n: int = 20) -> list[dict[str, Any]]:
    """Parents whose joint fits would need the most memory, and what is to become of them."""
    import numpy as np

    from coblend.core.model import FLAGS

    rows = np.argsort(-plan.memory, kind="stable")[:n]
    boxes = detections.footprints.boxes()
    return [
        {
            "parent": int(detections.parents["id"][row]), "n_peak": int(plan.members.n_real[row]),
            "ny": int(boxes[row, 2]), "nx": int(boxes[row, 3]),
            "memory_mb": round(float(plan.memory[row]), 1),
            "fate": next((k for k, bit in FLAGS.items() if plan.flags[row] & bit), "fitted"),
        }
        for row in rows
    ]  # fmt: skip


def _fit(
    run: Run, work: Iterable[Batch | StarField], n_parent: int, params: DeblendParams
) -> list[BlendResult]:
    """Fit all shares of the work, in parallel."""
    from coblend.core.deblend.work import deblend_work

    results: list[BlendResult] = []
    fit = partial(deblend_work, params=params)
    with run.progress("deblending", n_parent) as advance:
        for done in run.map(fit, work, partial(_lost, run, fit)):
            results += done
            advance(len(done))
    return results


def _lost(
    run: Run, fit: Callable[[Any], list[BlendResult]], share: Batch | StarField
) -> list[BlendResult]:
    """Fit what killed its worker blend by blend; the one that does it again has failed."""
    from coblend.core.deblend.batch import Batch
    from coblend.core.deblend.guard import failure

    if isinstance(share, Batch) and len(share) > 1:
        alone = [share.alone(i) for i in range(len(share))]
        return [r for done in run.map(fit, alone, partial(_lost, run, fit)) for r in done]
    batch = share if isinstance(share, Batch) else share.batch
    return [failure(int(batch.parents[0]), "WorkerLost")]


def _write_heavy(run: Run, template: str, models: ModelSet, results: list[BlendResult]) -> None:
    """Write the light of every object, one file per band."""
    from coblend.core.bands import column_suffix
    from coblend.core.catalog import empty_table
    from coblend.core.deblend.sdss.share import shared_footprints
    from coblend.io.deblend.footprints import (
        HEAVY_SCHEMA,
        HeavyFootprints,
        heavy_columns,
        write_heavy,
    )

    for b, band in enumerate(models.bands):
        rows, footprints, light = shared_footprints(models, results, b)
        objects = models.objects[rows]
        table = empty_table(heavy_columns(models.unit), len(rows))
        for name in ("id", "parent", "flags"):
            table[name] = objects[name]
        table["peak_y"], table["peak_x"] = objects["iy"], objects["ix"]
        table["flux"] = objects[f"model_flux_{column_suffix(band)}"]
        heavy = HeavyFootprints(table, footprints, light, band, models.unit)
        with run.create(HEAVY_SCHEMA, path=filled_name(template, band=band)) as out:
            write_heavy(out, heavy, 0.0)


def _write_mask(run: Run, path: str, models: ModelSet) -> None:
    """Write the mask of parents that were skipped or failed."""
    from coblend.core.deblend.collect import not_deblended
    from coblend.core.mask import PLANES
    from coblend.io.exposure.frame import frame_header

    header = {**frame_header(models.box), "MP_NOT_DEBLENDED": PLANES["NOT_DEBLENDED"]}
    with run.create("mask/1", path=path) as out:
        out.image("MASK", not_deblended(models), header=header, wcs=models.wcs)


def _summary(models: ModelSet) -> dict[str, int]:
    """Numbers of parents to show at the end; skipped ones by reason."""
    from coblend.core.model import FLAGS

    shown = ("failed", "child_failed", "not_converged", "isolated", "bands_missing")
    counts = {
        f"n_{name}": int(((models.parents["flags"] & bit) != 0).sum())
        for name, bit in FLAGS.items()
        if name in shown or name.startswith("skipped")
    }
    return {name: n for name, n in counts.items() if n or name == "n_failed"}
