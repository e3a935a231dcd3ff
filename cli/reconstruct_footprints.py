"""``coblend reconstruct-footprints``: from models back to footprints with light."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from coblend.cli.command import command, psf_option
from coblend.cli.run import Run
from coblend.core.errors import (
    FormatError,
    ParameterError,
    ShapeMismatchError,
)
from coblend.core.params.reconstruct import ReconstructParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coblend.cli.footprint_products import BandPixels, Products
    from coblend.core.box import Box
    from coblend.core.exposure import Exposure
    from coblend.core.model import ModelSet
    from coblend.core.psf import Psf
    from coblend.core.reconstruct.band import BandLight
    from coblend.core.reconstruct.frames import Frames
    from coblend.core.reconstruct.stamps import Stamps
    from coblend.io.deblend.models import ModelFile
    from coblend.io.fits.specs import FileSpec

log = logging.getLogger("coblend")


@command(
    "reconstruct-footprints",
    ReconstructParams,
    partial=True,
    examples=(
        "coblend reconstruct-footprints deblended.fits coadd_g.fits coadd_r.fits "
        "-o footprints.fits",
        "coblend reconstruct-footprints deblended.fits g=g.fits r=r.fits -o footprints.fits "
        "--heavy '{band}.heavy.fits' --residual '{band}.residual.fits'",
        "coblend reconstruct-footprints deblended.fits r=r.fits -o one.fits --blend 17 "
        "--cutout blend17.fits",
    ),
)
@click.argument("deblended")
@click.argument("coadds", metavar="[BAND=]COADD...", nargs=-1)
@psf_option("PSF in place of the one the models were fitted with; repeat it.")
def reconstruct_footprints(
    run: Run,
    params: ReconstructParams,
    deblended: str,
    coadds: tuple[str, ...],
    psfs: tuple[str, ...],
) -> None:
    """Share the light of each COADD among the objects of DEBLENDED.

    Every object gets its model's part of the sum of all models of its parent, as its band sees
    them; the objects' parts add up to the image. Writes the catalogue with flux, error, overlap
    and quality columns per band. Objects that had their parent to themselves get all of its
    footprint. With --kind model no COADD is needed. DEBLENDED may also be a model file of the
    Rubin pipelines (.scarlet or JSON).
    """
    import numpy as np

    from coblend.cli.footprint_products import Products
    from coblend.cli.footprint_tables import summary, with_columns
    from coblend.core.catalog import empty_table
    from coblend.core.model import box_of, object_columns, set_flag
    from coblend.core.reconstruct.columns import measured_columns, parent_columns
    from coblend.io.deblend.lsst_models import open_models
    from coblend.io.psf.given import band_psfs, require_bands

    run.add_input("models", deblended)
    run.add_psfs(psfs)
    given = band_psfs(psfs)
    with open_models(deblended) as models:
        images = _images(run, params, models, coadds)
        bands = tuple(images)
        require_bands(given, bands)
        models.require_models()
        chosen = _choose(models, params)
        _require_memory(run, params, chosen)
        products = Products(run, params)
        products.check(bands, len(chosen.rows))
        measured = measured_columns(bands, models.unit)
        objects = with_columns(models.table("OBJECTS")[chosen.objects], measured)
        parents = empty_table(parent_columns(bands, models.unit), len(chosen.rows))
        parents["id"] = chosen.parents["id"][chosen.rows]
        run.report({"n_parent": len(parents), "n_object": len(objects), "n_band": len(bands)})
        if run.dry_run:
            return
        part = _part(params, chosen)
        job = _Job(run, params, models, chosen, objects, parents, products, part, given)
        for band, spec in images.items():
            _one_band(job, band, None if spec is None else _read(job, band, spec))
        set_flag(objects, np.isin(objects["parent"], list(job.damaged)), "corrupt")
        if params.cutout:
            products.write_cutout(objects, bands, box_of(chosen.parents[chosen.rows[0]]))
        with run.create("footprints/1", header={"KIND": params.kind}) as out:
            known = (*object_columns(models.bands, models.unit), *measured)
            out.table("OBJECTS", objects, columns=known)
            out.table("PARENTS", parents, columns=parent_columns(bands, models.unit))
    run.report({"n_damaged": len(job.damaged)}, summary(objects, parents, bands))
    run.check_failures(len(job.damaged), len(parents))


@dataclass(frozen=True)
class _Chosen:
    """Which rows are worked on: PARENTS and its rows, and rows of OBJECTS."""

    parents: NDArray[Any]
    rows: NDArray[np.int64]
    objects: NDArray[np.int64]


@dataclass(frozen=True)
class _Job:
    """What all bands share; the two tables are filled band by band.

    Of the exposures ``part`` is needed, None: all. ``psfs`` by band, "" for all others.
    """

    run: Run
    params: ReconstructParams
    models: ModelFile
    chosen: _Chosen
    objects: NDArray[Any]
    parents: NDArray[Any]
    products: Products
    part: Box | None
    psfs: Mapping[str, Psf]
    damaged: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Task:
    """What a worker needs for one chunk of parents in one band."""

    models: ModelSet
    frames: Frames
    band: int
    params: ReconstructParams
    total: NDArray[np.float64] | None
    keep_models: bool


def _images(
    run: Run, params: ReconstructParams, models: ModelFile, coadds: Sequence[str]
) -> dict[str, FileSpec | None]:
    """Exposure of every band to work on; all bands without any for models alone."""
    from coblend.io.exposure.exposures import read_outline
    from coblend.io.fits.specs import expand_lists, parse_band_spec

    images: dict[str, FileSpec | None] = {}
    for argument in expand_lists(coadds):
        band, spec = parse_band_spec(argument)
        band = band or read_outline(spec).band
        if not band:
            raise FormatError(
                "the band is unknown: the header has neither BAND nor FILTER",
                spec.path,
                hint=f"name it on the command line: BAND={spec}",
            )
        if band not in models.bands:
            raise FormatError(
                f"band {band!r} is not among the bands of {models.path}: "
                f"{', '.join(models.bands)}",
                spec.path,
            )
        if band in images:
            raise FormatError(f"band {band} was already given by {images[band]}", spec.path)
        run.add_exposure(f"image:{band}", spec)
        images[band] = spec
    if images:
        return images
    if params.kind == "flux":
        raise ParameterError(
            "no COADD given", hint="name one exposure per band, or use --kind model"
        )
    return dict.fromkeys(models.bands)


def _choose(models: ModelFile, params: ReconstructParams) -> _Chosen:
    """Rows of the selected parents, ascending, and of their objects."""
    import numpy as np

    parents = models.table("PARENTS")
    if not params.blend and not params.source:
        rows = np.arange(len(parents))
    else:
        rows = np.unique([models.parent_of(i) for i in (*params.blend, *params.source)])
    return _Chosen(parents, rows, models.object_rows(rows))


def _part(params: ReconstructParams, chosen: _Chosen) -> Box | None:
    """Pixels of the exposures that the chosen parents need; None where all are."""
    from coblend.core.box import Box
    from coblend.core.model import box_of

    if not (params.blend or params.source) or params.residual or params.model_image:
        return None
    return Box.union(box_of(row) for row in chosen.parents[chosen.rows])


def _require_memory(run: Run, params: ReconstructParams, chosen: _Chosen) -> None:
    """Refuse at once what ``--max-memory`` does not allow: a parent is worked on as a whole."""
    import numpy as np

    from coblend.core.reconstruct.frames import memory_needed

    need = memory_needed(chosen.parents[chosen.rows], params.stray)
    if len(need):
        worst = int(np.argmax(need))
        name = f"parent {chosen.parents['id'][chosen.rows[worst]]}"
        run.require_memory(int(need[worst]), name)


def _read(job: _Job, band: str, spec: FileSpec) -> Exposure:
    """Read what is needed of an exposure; check that the models were fitted on its grid."""
    from coblend.io.exposure.checks import require_same_wcs
    from coblend.io.exposure.exposures import read_exposure, read_outline
    from coblend.io.fits.made import was_input

    models, outline = job.models, read_outline(spec, band)
    if models.box.area:  # foreign models do not know their grid
        if outline.box != models.box and not job.params.allow_partial:
            raise ShapeMismatchError(
                f"covers {outline.box}, the models of {models.path} {models.box}",
                spec.path,
                hint="give the exposure that was deblended, or --set allow_partial=true",
            )
        require_same_wcs(models.wcs, models.box, models.path, outline.wcs, outline.box, spec.path)
        if outline.unit != models.unit and not job.params.ignore_units:
            raise FormatError(
                f"is in {outline.unit or 'no unit'}, the models in {models.unit or 'no unit'}",
                spec.path,
                hint="convert it, or pass --set ignore_units=true",
            )
        if was_input(spec.path, models.path, "exposure") is False:
            log.warning("%s: not what %s was made from", spec.path, models.path)
    if job.part is None or not (job.part & outline.box).area:
        return read_exposure(spec, band=band)
    return read_exposure(spec, band=band, section=outline.section(job.part), allow_empty=True)


def _one_band(job: _Job, band: str, exposure: Exposure | None) -> None:
    """Share one band's light: fill the tables, hand pixels to the side products."""
    import numpy as np

    from coblend.cli.footprint_tables import fill
    from coblend.core.model import set_flag
    from coblend.core.reconstruct.frames import chunk_parents

    chosen, products = job.chosen, job.products
    chunks = chunk_parents(chosen.parents, chosen.rows)
    pixels = products.start(band, exposure, job.models)
    psf = _psf(job, band, exposure)
    n_parent = n_object = 0
    with pixels.heavy or nullcontext():
        with job.run.progress(f"{band}: sharing light", len(chosen.rows)) as advance:
            for light in job.run.map(_share, _tasks(job, pixels, chunks, psf)):
                parents, objects = len(light.parents), len(light.objects)
                fill(job.parents[n_parent : n_parent + parents], light.parents, band)
                rows = job.objects[n_object : n_object + objects]
                fill(rows, light.objects, band)
                unseen = (light.objects["n_pix"] > 0) & np.isnan(light.objects["flux"])
                set_flag(rows, unseen, "no_data")
                n_parent, n_object = n_parent + parents, n_object + objects
                products.add(pixels, light, rows)
                advance(parents)
        products.write(pixels)


def _psf(job: _Job, band: str, exposure: Exposure | None) -> Psf | None:
    """PSF to render a band with; None for the one that is stored with the models."""
    from coblend.io.psf.given import given_psf

    psf = given_psf(job.psfs, band)
    if psf is None and job.params.kernel == "recompute":
        psf = None if exposure is None else exposure.psf
        if psf is None:
            raise ParameterError(
                f"kernel is recompute, and no exposure of band {band} has a PSF",
                hint=f"name it: --psf {band}=SPEC",
            )
    return psf


def _tasks(
    job: _Job, pixels: BandPixels, chunks: list[tuple[int, int]], psf: Psf | None
) -> Iterator[_Task]:
    from coblend.core.reconstruct.frames import cut_frames
    from coblend.core.reconstruct.images import cut_image

    params, exposure = job.params, pixels.exposure
    all_templates = None
    if params.neighbours and exposure is not None:
        all_templates = _all_templates(job, pixels.band, exposure, psf)
    for models in _chunks(job, chunks, psf):
        pixels.parents.append(models.footprints)
        frames = cut_frames(models, exposure, params.bad_mask, partial=params.allow_partial)
        total = None
        if all_templates is not None and exposure is not None:
            total = cut_image(all_templates, exposure.box, frames)
        index = models.bands.index(pixels.band)
        yield _Task(models, frames, index, params, total, job.products.wants_models)


def _chunks(job: _Job, chunks: list[tuple[int, int]], psf: Psf | None) -> Iterator[ModelSet]:
    """Models of every range of parents; damaged parents without models, if so wished."""
    from coblend.core.reconstruct.render import models_with_psf

    for first, last in chunks:
        if job.params.keep_going:
            parts = job.models.whole_parents(first, last)
        else:
            parts = iter([job.models.parents(first, last)])
        for models in parts:
            job.damaged.update(models.parents["id"][models.parents["flag_corrupt"]].tolist())
            yield models if psf is None else models_with_psf(models, psf)


def _share(task: _Task) -> BandLight:
    """Work of one worker; models as images go back only where they are wanted."""
    from coblend.core.reconstruct.band import reconstruct_band

    return reconstruct_band(
        task.models, task.frames, task.band, task.params, task.total, with_models=task.keep_models
    )


def _all_templates(
    job: _Job, band: str, exposure: Exposure, psf: Psf | None
) -> NDArray[np.float64]:
    """Sum of the templates of all parents near the chosen ones, over the exposure."""
    import numpy as np

    from coblend.core.reconstruct.frames import chunk_parents, near_parents
    from coblend.core.reconstruct.images import add_stamps

    models, chosen = job.models, job.chosen
    side = models.psf_side if psf is None else psf.side
    rows = near_parents(chosen.parents, chosen.rows, side)
    image = np.zeros(exposure.box.shape)
    tasks = (
        (part, models.bands.index(band), job.params.kernel_reg)
        for part in _chunks(job, chunk_parents(chosen.parents, rows), psf)
    )
    for templates in job.run.map(_templates, tasks):
        add_stamps(image, exposure.box, templates)
    return image


def _templates(task: tuple[ModelSet, int, float | None]) -> Stamps:
    from coblend.core.reconstruct.band import render_objects

    return render_objects(*task)[2]
