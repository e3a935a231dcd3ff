"""``coblend assemble-coadd``: many warps into one coadd."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from coblend.cli.command import command
from coblend.cli.run import Run, filled_name
from coblend.core.errors import ParameterError
from coblend.core.params.coadd import CoaddParams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coblend.cli.coadd_inputs import Field
    from coblend.cli.coadd_stacking import Mark
    from coblend.cli.compare_warp import Comparison
    from coblend.core.coadd.plan import SlabPlan
    from coblend.core.exposure import HeaderValue
    from coblend.core.psf.base import Psf
    from coblend.io.coadd.coadds import Edit, PlaneStore
    from coblend.io.coadd.inputs import Listed

log = logging.getLogger("coblend")


@command(
    "assemble-coadd",
    CoaddParams,
    fills=("band",),
    examples=(
        "coblend assemble-coadd warp_*_g.fits -o coadd_g.fits",
        "coblend assemble-coadd @warps.txt -o coadd_g.fits --statistic mean --unit nJy",
        "coblend assemble-coadd @warps.txt -o coadd_g.fits --reject compare-warp "
        "--psf-matched @matched.txt",
    ),
)
@click.argument("warps", nargs=-1, required=True, metavar="WARP...")
def assemble_coadd(run: Run, params: CoaddParams, warps: tuple[str, ...]) -> None:
    """Combine WARPs, which share one pixel grid, into a coadd.

    A WARP is a file with IMAGE, MASK and VARIANCE, or an image with a weight map; @FILE stands
    for the files listed in FILE: text, or a FITS or ECSV table with a column file and any of
    weight, scale, zero_point, psf, psf_matched, id. Warps may cover parts of the coadd; it covers
    all of them, or the pixels of --like. With --kind chi2 the inputs are coadds of different
    bands, and the result is for detection.
    """
    from coblend.cli.coadd_inputs import Field, open_warps, require_weights, room_for
    from coblend.cli.coadd_stacking import by_inputs, by_slabs, fill, keep_freed_pages, plan_coadd
    from coblend.io.coadd.inputs import read_lists

    if params.kind == "chi2":
        from coblend.cli.chi2_coadd import chi2_coadd

        chi2_coadd(run, params, warps)
        return
    keep_freed_pages()
    listed = read_lists(warps)
    require_weights(listed, params)
    run.add_psfs([entry.psf for entry in listed if entry.psf])
    field = Field.of(open_warps(listed), params, run)
    run.fill_output(band=field.warps[0].file.info.band)
    _plan_products(run, params, field)
    interpolate = _interpolates(run, params, field)
    _warn_of_few(field)
    with ExitStack() as resources:
        store = resources.enter_context(room_for(run, _dtypes(params, field), field.box.shape))
        held = store.n_bytes_in_memory
        held *= 2 if params.reject == "compare-warp" else 1  # the template is another
        plan, once = plan_coadd(field, params, run, held)
        if run.dry_run:
            run.report(_plan_summary(field, plan))
            return
        comparison = _compare(field, params, run, listed, resources)
        if comparison is not None:
            field = field.with_epochs(comparison.epochs)
        table = field.table() if once else field.weigh(params)
        marks = _marks(run, params, field, comparison)
        combine = by_inputs if once else by_slabs
        gaps = fill(store, combine(field, plan, table, params, run), marks)
        _warn_of_loss(field, _clip_loss(table))
        edits = _interpolation(field, store) if interpolate and gaps else {}
        psf = _write(run, params, field, table, store, edits, comparison)
        if comparison is not None:
            _write_on_request(run, params, field, comparison)
    run.report(_result_summary(field, table, psf, comparison), _input_rows(table))


def _warn_of_few(field: Field) -> None:
    n, rules = len(field.warps), field.rules
    if n < 4 and rules.clips and rules.clip_scale == "scatter" and rules.sigma_clip > 2.7:
        log.warning(
            "%d inputs: by their scatter no outlier can be clipped at %g sigma with fewer than 4; "
            "--set clip_scale=input works from 2 on", n, rules.sigma_clip,
        )  # fmt: skip


def _warn_of_loss(field: Field, loss: float) -> None:
    if loss > _MUCH and field.rules.clip_scale == "input":
        log.warning(
            "%.0f %% of the samples were clipped: if the variances (or weight maps) of the inputs "
            "are not those of their noise, pass --set clip_scale=scatter", 100 * loss,
        )  # fmt: skip


_MUCH = 0.05


def _compare(
    field: Field, params: CoaddParams, run: Run, listed: Sequence[Listed], resources: ExitStack
) -> Comparison | None:
    """Look for artifacts, if asked to."""
    if params.reject == "none":
        if params.psf_matched:
            raise ParameterError("PSF-matched warps are for --reject compare-warp")
        return None
    from coblend.cli.compare_warp import compare_warps

    partners: Sequence[str] = params.psf_matched
    if not partners and all(entry.psf_matched for entry in listed):
        partners = [entry.psf_matched for entry in listed]
    ids = [entry.id for entry in listed]
    return compare_warps(field, params, run, partners, ids, resources)


def _interpolates(run: Run, params: CoaddParams, field: Field) -> bool:
    """Whether to fill missing pixels; asking for it where it makes no sense is an error."""
    from coblend.core.coadd.rules import INTERPOLABLE

    possible = field.rules.statistic in INTERPOLABLE
    if params.interp and not possible and run.options.sources["interp"] != "default":
        raise ParameterError(
            f"interp: pixels without {field.rules.statistic} cannot be interpolated",
            hint=f"possible for {', '.join(INTERPOLABLE)}",
        )
    return params.interp and possible


def _marks(
    run: Run, params: CoaddParams, field: Field, comparison: Comparison | None
) -> list[Mark]:
    """Bits to set in the coadd and where: bright objects, ends of PSF-matched sensors."""
    marks: list[Mark] = []
    planes = field.rules.planes
    if params.bright_objects:
        from coblend.core.region import paint
        from coblend.io.sky.bright import read_regions

        run.add_input("regions", params.bright_objects)
        regions = read_regions(params.bright_objects, field.wcs, field.box)
        marks.append((planes.value([params.bright_plane]), lambda box: paint(regions, box)))
    if comparison is not None:
        edges = comparison.edges
        bits = planes.value(["SENSOR_EDGE", "INEXACT_PSF"])
        frame = field.box
        marks.append((bits, lambda box: edges.plane((box.y0 - frame.y0) * frame.nx, box.shape)))
    return marks


def _dtypes(params: CoaddParams, field: Field) -> dict[str, str]:
    """Planes of the coadd and their types."""
    from coblend.core.coadd.stack import map_planes
    from coblend.io.coadd.coadds import input_map_names

    dtypes = {"IMAGE": "f4", "MASK": "i4", "VARIANCE": "f4", "NIMAGE": "i2", "WEIGHT": "f4"}
    n_planes = map_planes(len(field.warps)) if params.input_map else 0
    return dtypes | dict.fromkeys(input_map_names(n_planes), "i4")


def _interpolation(field: Field, store: PlaneStore) -> dict[str, Edit]:
    """Make the changes of the planes that fill the pixels without data."""
    from functools import partial

    from coblend.core.coadd.interpolate import GapFiller, typical_value

    no_data, filled = (field.rules.planes.value([name]) for name in ("NO_DATA", "INTRP"))
    fallback = typical_value(partial(store.read, "IMAGE"), store.shape)
    filler = GapFiller(no_data, filled, fallback)
    return {"IMAGE": filler.image, "MASK": filler.mask, "VARIANCE": filler.variance}


def _write(
    run: Run,
    params: CoaddParams,
    field: Field,
    table: NDArray[Any],
    store: PlaneStore,
    edits: Mapping[str, Edit],
    comparison: Comparison | None,
) -> Psf | None:
    """Write the coadd; return its PSF."""
    from coblend.core.coadd.artifacts import ARTIFACT_COLUMNS
    from coblend.core.coadd.psf import tabulated
    from coblend.core.psf.coadd import CoaddPsf
    from coblend.io.coadd.coadds import write_input_psfs, write_planes
    from coblend.io.psf.psfs import write_psf

    psfs = field.psfs(table)
    psf = tabulated(CoaddPsf(psfs), field.box, params.psf_step) if psfs else None
    with run.create("exposure/1") as out:
        write_planes(
            out, store, field.box, field.rules.planes, wcs=field.wcs, edits=edits,
            header=_header(field, params, table, bool(psfs)), compress=params.compress,
        )  # fmt: skip
        if psf is not None:
            write_psf(out, psf)
        write_input_psfs(out, table, psfs)
        if comparison is not None:
            out.table("ARTIFACTS", comparison.table, columns=ARTIFACT_COLUMNS)
    return psf


def _write_on_request(run: Run, params: CoaddParams, field: Field, comparison: Comparison) -> None:
    """Write the template and the artifact mask of each warp, those asked for."""
    from coblend.io.coadd.coadds import write_mask, write_planes

    planes = field.rules.planes
    if params.template:
        header = {
            "BUNIT": field.calibration.unit or None,
            "BAND": field.warps[0].file.info.band or None,
            "MAGZERO": field.calibration.zero_point,
        }
        with run.create("exposure/1", path=params.template) as out:
            write_planes(
                out, comparison.template, field.box, planes, wcs=field.wcs,
                header={key: value for key, value in header.items() if value is not None},
                compress=params.compress,
            )  # fmt: skip
    if params.artifact_masks:
        for warp, path in zip(field.warps, _mask_files(params, field), strict=True):
            with run.create("exposure/1", path=path) as out:
                write_mask(out, warp.artifacts(field), field.box, planes, field.wcs)


def _plan_products(run: Run, params: CoaddParams, field: Field) -> None:
    """Refuse at once further products that could not be written at the end."""
    if params.template:
        run.check_output(params.template)
    for path in _mask_files(params, field) if params.artifact_masks else ():
        run.check_output(path)


def _mask_files(params: CoaddParams, field: Field) -> list[str]:
    """Names of the artifact masks."""
    from coblend.io.fits.specs import stem

    template, paths = params.artifact_masks, [warp.file.info.path for warp in field.warps]
    names = [filled_name(template, name=stem(path)) for path in paths]
    if len(set(names)) < len(names):
        raise ParameterError(
            f"artifact masks of {len(names)} warps would be written to {len(set(names))} files",
            hint="put {name} into artifact_masks",
        )
    return names


def _calibration(field: Field, params: CoaddParams) -> tuple[str, float | None]:
    """Give the unit of the statistic, and its zero point where it is a flux."""
    from coblend.core.coadd.rules import COUNTS, SPREADS, SQUARES
    from coblend.io.exposure.calibration import raised

    statistic, unit = field.rules.statistic, field.calibration.unit
    if statistic == "sum" and params.weight != "none":
        # weights of a column have a unit of their own, the others are 1 / variance
        return "" if params.weight == "column" else raised(unit, -1), None
    if statistic in SQUARES:
        return raised(unit, 2), None
    if statistic in COUNTS:
        return "", None
    return unit, None if statistic in SPREADS else field.calibration.zero_point


def _header(
    field: Field, params: CoaddParams, table: NDArray[Any], has_psf: bool
) -> dict[str, HeaderValue]:
    import numpy as np

    used = table[table["used"]]
    exposures, dates = used["exptime"], used["mjd"]
    linear = field.rules.statistic == "mean" and not field.rules.pixel_weights
    unit, zero_point = _calibration(field, params)
    header: dict[str, Any] = {
        "BUNIT": unit or None,
        "BAND": field.warps[0].file.info.band or None,
        "MAGZERO": zero_point,
        "NCOMBINE": len(used),
        "EXPTIME": float(exposures.sum()) if np.isfinite(exposures).all() else None,
        "STATISTC": field.rules.statistic.upper(),
        "CLIPLOSS": _clip_loss(table),
        "PSFEXACT": has_psf and linear,
        "HASPSF": has_psf,
    }
    if np.isfinite(dates).all():
        header |= {
            "MJD-BEG": float(dates.min()),
            "MJD-END": float(dates.max()),
            "MJD-AVG": float(np.average(dates, weights=used["weight"])),
        }
    return {key: value for key, value in header.items() if value is not None}


def _clip_loss(table: NDArray[Any]) -> float:
    """Fraction of the available samples that were clipped."""
    clipped, good = int(table["clipped_pixels"].sum()), int(table["good_pixels"].sum())
    return clipped / max(clipped + good, 1)


def _plan_summary(field: Field, plan: SlabPlan) -> dict[str, Any]:
    return {
        "n_input": len(field.warps),
        "size": f"{field.box.nx}x{field.box.ny}",
        "slab_rows": plan.rows,
        "n_slab": len(plan.slabs()),
        "memory_mib": plan.n_bytes >> 20,
    }


def _result_summary(
    field: Field, table: NDArray[Any], psf: Psf | None, comparison: Comparison | None
) -> dict[str, Any]:
    summary = {
        "n_input": int(table["used"].sum()),
        "size": f"{field.box.nx}x{field.box.ny}",
        "clipped_fraction": round(_clip_loss(table), 6),
        "psf": "none" if psf is None else "constant" if psf.constant else "varying",
    }
    if comparison is not None:
        decisions = comparison.table["decision"]
        for decision in ("CLIPPED", "PERSISTENT", "PROTECTED"):
            summary[f"n_{decision.lower()}"] = int((decisions == decision).sum())
    return summary


def _input_rows(table: NDArray[Any]) -> list[dict[str, Any]]:
    weights = table["weight"] / table["weight"].max()
    return [
        {
            "warp": str(row["warp"]),
            "used": bool(row["used"]),
            "weight": round(float(weight), 4),
            "scale": round(float(row["scale"]), 6),
            "good": int(row["good_pixels"]),
            "clipped": int(row["clipped_pixels"]),
            "rejected": int(row["rejected_pixels"]),
        }
        for row, weight in zip(table, weights, strict=True)
    ]
