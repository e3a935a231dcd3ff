"""``coblend show``: pictures of what the other commands read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.box import Box
from coblend.core.errors import (
    FormatError,
    MissingExtraError,
    ParameterError,
    ShapeMismatchError,
)
from coblend.core.params.show import ShowParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from coblend.core.exposure import Cube
    from coblend.core.model import ModelSet
    from coblend.io.deblend.models import ModelFile

_FORMATS = ("png", "pdf", "svg")
_MARGIN = 4
"""Pixels of sky shown around a blend."""


@command(
    "show",
    ShowParams,
    examples=(
        "coblend show rgb coadd_*.fits -o rgb.png",
        "coblend show detections merged.fits coadd_*.fits -o detections.png",
        "coblend show scene deblended.fits coadd_*.fits -o scene.png --section 1:200,1:200",
        "coblend show sources deblended.fits coadd_*.fits -o sources.pdf --at 120,85",
        "coblend show coadd coadd_r.fits -o coadd.png",
        "coblend show psf coadd_*.fits -o psf.png",
        "coblend show report deblended.fits -o report.png",
    ),
)
@click.argument("kind", metavar="KIND", type=click.Choice(
    ["rgb", "detections", "scene", "sources", "coadd", "psf", "report"]))  # fmt: skip
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
def show(run: Run, params: ShowParams, kind: str, files: tuple[str, ...]) -> None:
    """Draw a picture of FILES: .png, .pdf or .svg.

    \b
    KIND is one of
    rgb         [BAND=]EXPOSURE...             bands as colours
    detections  DETECTIONS [BAND=]EXPOSURE...  footprints and peaks
    scene       DEBLENDED [BAND=]COADD...      observed, models, residual
    sources     DEBLENDED [BAND=]COADD...      each object of one blend
    coadd       EXPOSURE                       image, noise, inputs, mask
    psf         [BAND=]EXPOSURE...             PSFs and how they vary
    report      DEBLENDED                      quality of all fits

    scene shows one blend with --blend or --at, else everything; sources shows the blend with
    most objects unless told which. Needs matplotlib (pip install 'coblend[plot]').
    """  # noqa: D301 - click's mark of a paragraph that is not to be wrapped
    suffix = _format(run.output)
    try:
        import matplotlib  # noqa: F401 - only to say plainly that it is missing
    except ImportError as error:
        raise MissingExtraError("show needs matplotlib: pip install 'coblend[plot]'") from error
    from coblend.cli.pictures.canvas import house_style, save

    run.report({"kind": kind})
    with house_style():
        figure = _KINDS[kind](run, params, files)
        if not run.dry_run:
            with run.create_other() as temporary:
                save(figure, temporary, suffix, params.dpi)


def _rgb(run: Run, params: ShowParams, files: Sequence[str]) -> Figure:
    from coblend.cli.pictures.sky import draw_rgb

    cube = _cube(run, params, files)
    return draw_rgb(cube, params, _scale(cube))


def _detections(run: Run, params: ShowParams, files: Sequence[str]) -> Figure:
    from coblend.cli.pictures.sky import draw_detections
    from coblend.io.detect.detections import read_detections
    from coblend.io.exposure.checks import require_same_wcs
    from coblend.io.fits.specs import parse_spec

    first, others = _catalogue("detections", files)
    run.add_input("detections", parse_spec(first).path)
    detections = read_detections(first)
    cube = _cube(run, params, others)
    if detections.wcs:
        require_same_wcs(detections.wcs, detections.box, first, cube.wcs, cube.box, others[0])
    return draw_detections(detections, cube, params, _scale(cube))


def _scene(run: Run, params: ShowParams, files: Sequence[str]) -> Figure:
    import numpy as np

    from coblend.cli.pictures.blends import draw_scene
    from coblend.core.show.scene import model_images

    models, cube = _models(run, params, files, one=False)
    both = [model_images(models, models.bands.index(band), cube.box) for band in cube.bands]
    sharp, seen = (np.stack([pair[i] for pair in both]) for i in (0, 1))
    return draw_scene(models, cube, sharp, seen, params, _scale(cube))


def _sources(run: Run, params: ShowParams, files: Sequence[str]) -> Figure:
    from coblend.cli.pictures.blends import brightest, draw_sources
    from coblend.core.show.scene import source_images

    models, cube = _models(run, params, files, one=True)
    rows = brightest(models, cube.bands, params.max_sources)
    if not len(rows):
        raise FormatError("holds no objects to show", files[0])
    images = [
        source_images(models, models.bands.index(band), cube.exposure(i), rows)
        for i, band in enumerate(cube.bands)
    ]
    return draw_sources(models, rows, cube, images, params, _scale(cube))


def _coadd(run: Run, params: ShowParams, files: Sequence[str]) -> Figure:
    from coblend.cli.pictures.quality import draw_coadd

    if len(files) > 1:
        raise ParameterError(f"show coadd shows one exposure, {len(files)} are given")
    cube = _cube(run, params, files)
    return draw_coadd(cube.exposure(0), _n_image(files[0], params), params, _scale(cube))


def _psf(run: Run, params: ShowParams, files: Sequence[str]) -> Figure:
    from coblend.cli.pictures.quality import draw_psfs

    cube = _cube(run, params, files, need_psf=True)
    return draw_psfs(cube, _scale(cube))


def _report(run: Run, params: ShowParams, files: Sequence[str]) -> Figure:
    from coblend.cli.pictures.quality import draw_report
    from coblend.io.deblend.lsst_models import open_models

    if len(files) > 1:
        raise ParameterError(f"show report shows one deblended file, {len(files)} are given")
    run.add_input("models", files[0])
    with open_models(files[0]) as file:
        return draw_report(file.read())


_KINDS: Mapping[str, Callable[[Run, ShowParams, Sequence[str]], Figure]] = {
    "rgb": _rgb,
    "detections": _detections,
    "scene": _scene,
    "sources": _sources,
    "coadd": _coadd,
    "psf": _psf,
    "report": _report,
}


def _models(
    run: Run, params: ShowParams, files: Sequence[str], *, one: bool
) -> tuple[ModelSet, Cube]:
    """Models of everything or of one parent, and the pixels around them."""
    from dataclasses import replace

    from coblend.io.deblend.lsst_models import open_models
    from coblend.io.exposure.checks import describe_box, require_same_wcs
    from coblend.io.exposure.exposures import read_outline
    from coblend.io.fits.specs import expand_lists, parse_band_spec

    path, exposures = _catalogue("deblended", files)
    run.add_input("models", path)
    with open_models(path) as file:
        models, n_parent = _chosen(file, params, one=one), len(file)
    if not models.box.area:  # models of the Rubin pipelines do not know their grid
        outline = read_outline(parse_band_spec(expand_lists(exposures)[0])[1])
        models = replace(models, box=outline.box, wcs=outline.wcs)
    section = ""
    box = models.box
    if len(models.parents) < n_parent:
        box = models.footprints.box(0).grow(_MARGIN) & models.box
        if not box.area:
            raise ShapeMismatchError(
                f"covers {describe_box(models.box)}, the models are at "
                f"{describe_box(models.footprints.box(0))}", exposures[0],
                hint="give the exposures that were deblended",
            )  # fmt: skip
        section = _section(box, models.box)
    cube = _cube(run, params, exposures, section)
    unknown = [band for band in cube.bands if band not in models.bands]
    if unknown:
        raise FormatError(
            f"band {unknown[0]!r} is not among the bands of {path}: {', '.join(models.bands)}",
            exposures[0],
        )
    if not models.box.contains(cube.box) or (section and cube.box != box):
        raise ShapeMismatchError(
            f"covers {describe_box(cube.box)}, the models of {path} {describe_box(models.box)}",
            exposures[0],
            hint="give the exposures that were deblended",
        )
    require_same_wcs(models.wcs, models.box, path, cube.wcs, cube.box, exposures[0])
    return models, cube


def _chosen(file: ModelFile, params: ShowParams, *, one: bool) -> ModelSet:
    """Read the parent that the options name, else that of most objects, or all of them."""
    import numpy as np

    if params.at:
        return file.at(params.at[1], params.at[0])
    parents = file.table("PARENTS")
    if params.blend is not None:
        row = file.parent_of(params.blend)
    elif one and len(parents):
        row = int(np.argmax(parents["n_child"]))
    else:
        return file.read()
    return file.parents(row, row + 1)


def _catalogue(what: str, files: Sequence[str]) -> tuple[str, Sequence[str]]:
    """First file, and the exposures that follow it."""
    if len(files) < 2:
        raise ParameterError(f"give the {what} file, then the exposures", files[0])
    return files[0], files[1:]


def _cube(
    run: Run,
    params: ShowParams,
    arguments: Sequence[str],
    section: str = "",
    *,
    need_psf: bool = False,
) -> Cube:
    """Read the bands to show, and only the part of them to be shown."""
    from coblend.core.exposure import Cube
    from coblend.io.exposure.exposures import read_cube
    from coblend.io.fits.specs import expand_lists, parse_band_spec

    section = section or params.section
    names = expand_lists(arguments)
    for name in names:
        run.add_input("exposure", parse_band_spec(name)[1].path)
    cube = read_cube([f"{n}[{section}]" if section else n for n in names], need_psf=need_psf)
    n = len(params.bands or cube.bands)
    if params.weights and len(params.weights) != n:
        raise ParameterError(f"{len(params.weights)} weights for {n} bands")
    missing = [band for band in params.bands if band not in cube.bands]
    if missing:
        raise ParameterError(
            f"no exposure is of band {missing[0]!r}; there are {', '.join(cube.bands)}"
        )
    if not params.bands:
        return cube
    return Cube.from_exposures([cube.exposure(cube.bands.index(b)) for b in params.bands])


def _n_image(argument: str, params: ShowParams) -> NDArray[Any] | None:
    """Read the number of inputs of every pixel of a coadd, if it has been written."""
    from coblend.io.fits.reader import open_fits
    from coblend.io.fits.specs import parse_band_spec, parse_section

    spec = parse_band_spec(argument)[1]
    box = parse_section(params.section) if params.section else spec.section
    with open_fits(spec.path) as file:
        if not file.has("NIMAGE"):
            return None
        return file.image("NIMAGE", box.slices() if box else None)


def _section(box: Box, frame: Box) -> str:
    """Part of an array that covers ``frame``, as a FITS section."""
    x0, y0 = box.x0 - frame.x0, box.y0 - frame.y0
    return f"{x0 + 1}:{x0 + box.nx},{y0 + 1}:{y0 + box.ny}"


def _scale(cube: Cube) -> float | None:
    """Arcseconds per pixel, None without a celestial WCS."""
    from coblend.io.sky.wcs import pixel_scale

    return pixel_scale(cube.wcs)


def _format(path: str) -> str:
    """Format that a file name asks for."""
    suffix = path.rpartition(".")[2].lower()
    if suffix not in _FORMATS:
        raise ParameterError(f"{path}: pictures are written as .{', .'.join(_FORMATS)}")
    return suffix
