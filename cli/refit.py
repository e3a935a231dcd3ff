"""``coblend refit``: fit some blends again, with sources added or dropped."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from coblend.cli.command import command, psf_option
from coblend.cli.run import Run, filled_name
from coblend.core.errors import FormatError, ParameterError
from coblend.core.params.refit import RefitParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coblend.core.deblend.refitting.redo import Edit
    from coblend.core.exposure import Cube
    from coblend.core.model import ModelSet
    from coblend.io.deblend.models import ModelFile

log = logging.getLogger("coblend")


@command(
    "refit",
    RefitParams,
    partial=True,
    examples=(
        "coblend refit deblended.fits coadd_*.fits -o refitted.fits --add-peaks 150,66",
        "coblend refit deblended.fits coadd_*.fits -o refitted.fits --add-peaks 150,66 "
        "--residual '{band}.residual.fits'",
        "coblend refit deblended.fits coadd_*.fits -o refitted.fits --only failed",
        "coblend refit deblended.fits coadd_*.fits -o peaks.fits --blend 1234 --suggest-peaks",
        "coblend refit deblended.fits coadd_*.fits -o refitted.fits --add-peaks peaks.fits",
    ),
)
@click.argument("deblended")
@click.argument("exposures", metavar="[BAND=]EXPOSURE...", nargs=-1, required=True)
@psf_option("PSF in place of the file's, for parents without models; repeat it.")
def refit(
    run: Run,
    params: RefitParams,
    deblended: str,
    exposures: tuple[str, ...],
    psfs: tuple[str, ...],
) -> None:
    """Fit blends of DEBLENDED again, starting from their models.

    Chosen are the blends named by --blend, those of a kind (--only), and those that peaks are
    added to or dropped from. New sources start on the residual. The output is DEBLENDED with
    these parents replaced; all others keep their rows, pixels and identifiers. With
    --suggest-peaks nothing is fitted: the output is a table of peaks that the models missed.
    """
    from coblend.core.deblend.refitting.redo import redo
    from coblend.io.deblend.models import ModelFile
    from coblend.io.deblend.peaks import named_file
    from coblend.io.deblend.positions import parents_at

    run.add_input("models", deblended)
    run.add_psfs(psfs)
    for peaks in filter(None, map(named_file, (params.add_peaks, params.drop_peaks))):
        run.add_input("peaks", peaks)
    with ModelFile(deblended) as models:
        if params.residual:
            run.plan(params.residual, models.bands)
        add, drop = _changes(params, models)
        homes = parents_at(models, add["y"], add["x"])
        rows = _choose(params, models, homes, drop)
        run.report({"n_parent": len(rows)})
        if run.dry_run:
            return
        cube = _read_cube(run, params, exposures, psfs, models, rows)
        edits = [_edit(models, row, cube, add[homes == row], drop) for row in rows]
        if params.suggest_peaks:
            _write_suggestions(run, params, models, edits)
            return
        edits = _numbered(models, edits)
        with run.progress("refitting", len(edits)) as advance:
            done = []
            for result in run.map(partial(redo, params=params), edits):
                done.append(result)
                advance(1)
        _write(run, params, models, dict(zip(rows, done, strict=True)))
    if params.residual:
        _write_residuals(run, params, cube, done)
    n_failed = sum(bool(new.parents["error"][0]) for new in done)
    run.report(
        {"n_add": len(add), "n_drop": len(drop), "n_failed": n_failed}, _summary(edits, done)
    )
    run.check_failures(n_failed, len(done))


def _changes(params: RefitParams, models: ModelFile) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Peaks to add and identifiers of objects to drop."""
    from coblend.io.deblend.peaks import read_identifiers, read_peaks

    add = read_peaks(params.add_peaks, models.box, models.wcs)
    drop = read_identifiers(params.drop_peaks)
    return add, drop


def _choose(
    params: RefitParams, models: ModelFile, homes: NDArray[np.int64], drop: NDArray[np.int64]
) -> list[int]:
    """Rows of PARENTS to work on, ascending."""
    import numpy as np

    from coblend.core.model import FLAGS

    rows = {models.parent_of(identifier) for identifier in params.blend}
    named = bool(rows)
    touched = set(homes.tolist()) | {models.parent_of_object(int(i)) for i in drop}
    if named and touched - rows:
        raise ParameterError(
            "peaks are to be added to or dropped from parents that --blend does not name",
            hint="leave --blend out: the blends are found from the peaks",
        )
    rows |= touched
    if params.only:
        flags = models.table("PARENTS")["flags"]
        bits = {
            "failed": FLAGS["failed"] | FLAGS["child_failed"],
            "unconverged": FLAGS["not_converged"],
            "skipped": FLAGS["skipped"],
        }[params.only]
        chosen = ((flags & bits) != 0) & ((flags & FLAGS["skipped_pseudo"]) == 0)
        rows |= set(np.flatnonzero(chosen).tolist())
    elif not (rows or params.add_peaks):  # a table of peaks may be empty
        raise ParameterError(
            "no blend is chosen", hint="use --blend ID, --only KIND, --add-peaks or --drop-peaks"
        )
    return sorted(rows)


def _read_cube(
    run: Run,
    params: RefitParams,
    exposures: tuple[str, ...],
    psfs: tuple[str, ...],
    models: ModelFile,
    rows: list[int],
) -> Cube:
    """Smallest part of the exposures that holds the chosen parents, bands as in the models."""
    from coblend.core.box import Box
    from coblend.core.exposure import Cube
    from coblend.io.exposure.checks import require_band, require_same_wcs
    from coblend.io.exposure.exposures import read_exposure
    from coblend.io.fits.specs import expand_lists, parse_band_spec
    from coblend.io.psf.given import band_psfs, require_bands

    table = models.table("PARENTS")[rows]
    boxes = [Box(*(int(row[name]) for name in ("y0", "x0", "ny", "nx"))) for row in table]
    box = Box.union(boxes) if boxes else Box(models.box.y0, models.box.x0, 1, 1)
    section = box.shift(-models.box.y0, -models.box.x0)
    found, given = {}, band_psfs(psfs)
    require_bands(given, models.bands)
    for argument in expand_lists(exposures):
        band, spec = parse_band_spec(argument)
        run.add_exposure("exposure", spec)
        exposure = read_exposure(spec, band=band, psfs=given, section=section, allow_empty=True)
        require_band(exposure, spec.path)
        if exposure.band not in models.bands:
            raise FormatError(
                f"band {exposure.band!r} is not among those of {models.path}: "
                f"{', '.join(models.bands)}", spec.path,
            )  # fmt: skip
        if exposure.box != box:
            raise FormatError(
                f"the first pixel is {exposure.box.x0 - section.x0}, "
                f"{exposure.box.y0 - section.y0} in parent coordinates, that of {models.path} "
                f"{models.box.x0}, {models.box.y0}", spec.path,
                hint="give the exposures that were deblended",
            )  # fmt: skip
        require_same_wcs(
            models.wcs, models.box, models.path, exposure.wcs, exposure.box, spec.path
        )  # fmt: skip
        found[exposure.band] = exposure
        if not params.force:
            _require_same_image(models.path, spec.path)
    missing = [band for band in models.bands if band not in found]
    if missing:
        raise FormatError(f"no exposure of band {missing[0]} is given", models.path)
    return Cube.from_exposures([found[band] for band in models.bands])


def _require_same_image(models: str, exposure: str) -> None:
    """Refuse an exposure that is not what the models were made from, by the hashes of both."""
    from coblend.io.fits.made import was_input

    same = was_input(exposure, models, "exposure")
    if same is None:
        log.warning("%s: rewritten since %s was made: its pixels are taken for the same",
                    exposure, models)  # fmt: skip
    elif not same:
        raise FormatError(
            f"not what {models} was made from", exposure,
            hint="give the exposures that were deblended, or --force to start from the models "
            "all the same",
        )  # fmt: skip


def _edit(
    models: ModelFile, row: int, cube: Cube, add: NDArray[Any], drop: NDArray[np.int64]
) -> Edit:
    """Everything that concerns one parent; ``add`` are its new peaks."""
    from coblend.core.box import Box
    from coblend.core.deblend.refitting.redo import Edit, cut_cube

    own = models.parents(row, row + 1)
    box = Box(*(int(own.parents[name][0]) for name in ("y0", "x0", "ny", "nx")))
    return Edit(own, cut_cube(cube, box), add, drop, 0, 0)


def _numbered(models: ModelFile, edits: list[Edit]) -> list[Edit]:
    """Edits with fresh identifiers; as many are set aside as could be needed."""
    from dataclasses import replace

    objects, blends = models.table("OBJECTS"), models.table("BLENDS")
    parents = models.table("PARENTS")
    next_id = 1 + max(int(t["id"].max(initial=0)) for t in (objects, blends, parents))
    next_peak = 1 + int(objects["peak_id"].max(initial=0))
    out = []
    for edit in edits:
        out.append(replace(edit, first_id=next_id, first_peak=next_peak))
        next_id += 2 * (len(edit.models.objects) + len(edit.add))
        next_peak += len(edit.add)
    return out


def _write(run: Run, params: RefitParams, models: ModelFile, done: dict[int, ModelSet]) -> None:
    """Write all parents, the refitted ones in place of the old."""
    import numpy as np

    from coblend.core.deblend.refitting.splice import replace_parents
    from coblend.core.reconstruct.precision import storage_steps
    from coblend.io.deblend.models import write_models

    whole, origin = replace_parents(models.read(), done)
    scale = models.table("COMPONENTS")["scale"].astype(np.float64)
    steps = storage_steps(whole, 0 if len(scale) and (scale == 1).all() else params.model_error)
    if steps is not None:  # what was stored before is stored as it was
        kept = origin >= 0
        steps[kept] = scale[origin[kept]]
    with run.create("deblended/1") as out:
        write_models(out, whole, steps)


def _write_residuals(run: Run, params: RefitParams, cube: Cube, done: list[ModelSet]) -> None:
    """Write what the new models leave of the exposures, one file per band."""
    from coblend.core.deblend.refitting.redo import residual
    from coblend.io.exposure.exposures import write_exposure

    for exposure in map(cube.exposure, range(len(cube.bands))):
        path = filled_name(params.residual, band=exposure.band)
        with run.create("exposure/1", path=path, header={"PRODUCT": "residual"}) as out:
            write_exposure(out, residual(done, exposure), compress=params.compress)


def _write_suggestions(
    run: Run, params: RefitParams, models: ModelFile, edits: list[Edit]
) -> None:
    """Write the table of peaks that the models missed."""
    import numpy as np

    from coblend.core.catalog import empty_table
    from coblend.core.deblend.refitting.redo import missed_peaks
    from coblend.io.deblend.peaks import SUGGESTION_COLUMNS
    from coblend.io.sky.wcs import pixel_to_sky

    tables = []
    for edit in edits:
        pixels, significance = missed_peaks(edit, params)
        table = empty_table(SUGGESTION_COLUMNS, len(pixels))
        table["y"], table["x"] = pixels.T
        table["parent"], table["snr"] = edit.models.parents["id"][0], significance
        if models.wcs and len(table):
            table["ra"], table["dec"] = pixel_to_sky(
                models.wcs, models.box, table["x"], table["y"]
            )
        tables.append(table)
    peaks = np.concatenate([empty_table(SUGGESTION_COLUMNS, 0), *tables])
    with run.create("peaks/1") as out:
        out.table("PEAKS", peaks, columns=SUGGESTION_COLUMNS)
    rows = [
        {"parent": int(p["parent"]), **{n: round(float(p[n]), 2) for n in ("x", "y", "snr")}}
        for p in peaks
    ]
    run.report({"n_peak": len(peaks)}, rows)


def _summary(edits: list[Edit], done: list[ModelSet]) -> list[dict[str, Any]]:
    """One row per parent: what the refit changed."""
    rows = []
    for edit, new in zip(edits, done, strict=True):
        old = edit.models
        rows.append({
            "parent": int(new.parents["id"][0]),
            "n_object": len(new.objects),
            "n_iter": int(new.blends["n_iter"].sum()),
            "log_likelihood_before": round(float(old.blends["log_likelihood"].sum()), 2),
            "log_likelihood": round(float(new.blends["log_likelihood"].sum()), 2),
            "error": str(new.parents["error"][0]),
        })  # fmt: skip
    return rows
