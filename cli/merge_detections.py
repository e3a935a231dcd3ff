"""``coblend merge-detections``: one catalogue of parents from the detections of all bands."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from coblend.cli.command import command
from coblend.cli.detection_products import check_products, product_options, write_products
from coblend.cli.run import Run
from coblend.core.errors import FormatError, ParameterError, WcsMismatchError, concerning
from coblend.core.params.merge import MergeParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coblend.core.detection import Detections
    from coblend.core.exposure import Exposure
    from coblend.io.fits.specs import FileSpec

log = logging.getLogger("coblend")

MAX_GRID_OFFSET = 0.01
"""Pixels by which two grids may differ."""


@command(
    "merge-detections",
    MergeParams,
    examples=(
        "coblend merge-detections det_i.fits det_r.fits det_g.fits -o merged.fits",
        "coblend merge-detections g=det_g.fits i=det_i.fits --priority i,g -o merged.fits",
        "coblend merge-detections i=sextractor.cat --like coadd_i.fits "
        "--segmentation i=seg.fits -o merged.fits",
        "coblend merge-detections i=peaks.fits --like coadd_i.fits --footprint-radius 12 "
        "-o merged.fits",
    ),
)
@click.argument("catalogues", metavar="[BAND=]DETECTIONS...", nargs=-1, required=True)
@click.option("--like", metavar="EXPOSURE", help="Image of catalogues of other programs.")
@click.option(
    "--segmentation",
    metavar="[BAND=]FILE",
    multiple=True,
    help="Label image of such a catalogue, for its footprints.",
)
@click.option(
    "--mask",
    metavar="EXPOSURE",
    multiple=True,
    help="Exposure whose bad pixels sky objects avoid; for each band.",
)
@product_options
def merge_detections(
    run: Run,
    params: MergeParams,
    catalogues: Sequence[str],
    like: str | None,
    segmentation: Sequence[str],
    mask: Sequence[str],
    out_segmentation: str | None,
    regions: str | None,
) -> None:
    """Merge the detections of several bands into parents, each with its peaks.

    Footprints that overlap become one parent. A peak farther than --min-new-peak from all others
    is a new source, one nearer than --max-same-peak the same source seen in another band. Bands
    count in the order of the arguments, most trusted first, or in that of --priority.

    A catalogue of another program (SExtractor, sep, photutils, any table with x, y or ra, dec)
    may stand in place of ours: --like names the image it belongs to, which gives the pixel grid.
    Its footprints come from --segmentation, else they are ellipses where the catalogue has them,
    or discs of --footprint-radius pixels, clipped to the image: a large radius makes one parent
    of a whole cut-out.

    The last parents are --sky-objects discs in empty places (column merge_footprint_sky), whose
    fluxes tell the noise and the background of whatever follows.
    """
    from coblend.core.merge.merging import merge_detections as merge
    from coblend.io.detect.detections import with_sky_positions, write_detections
    from coblend.io.fits.specs import expand_lists
    from coblend.io.sky.wcs import pixel_scale

    check_products(run, out_segmentation, regions)
    inputs = _read_all(run, params, expand_lists(catalogues), like, segmentation)
    ordered = _in_priority(inputs, params.priority)
    _check_grids(ordered, params)
    only = [detections for _, detections in ordered]
    merged = merge(
        only,
        params,
        pixel_scale=pixel_scale(only[0].wcs),
        seed=run.seed,
        masked=_masked(run, mask, ordered[0], params),
    )
    _warn(merged)
    n_sky = int(merged.parents["merge_footprint_sky"].sum())
    run.report(
        {
            "n_parent": len(merged.parents) - n_sky,
            "n_peak": len(merged.peaks) - n_sky,
            "n_sky_object": n_sky,
            "n_culled": 0 if merged.culled is None else len(merged.culled),
        }
    )
    if not run.dry_run:
        with run.create("merged/1") as out:
            write_detections(out, with_sky_positions(merged))
        write_products(run, merged, out_segmentation, regions)


def _warn(merged: Detections) -> None:
    """Say what may not have been meant."""
    got, wanted = merged.meta["SKYGOT"], merged.meta["SKYWANT"]
    if got != wanted:
        log.warning("room for %s of %s sky objects", got, wanted)
    new, same = (merged.meta.get(key, -1.0) for key in ("MINNEW2", "MAXSAME2"))
    if 0 <= float(new) < float(same):
        log.warning(
            "min_new_peak is smaller than max_same_peak: every peak is either the same or new"
        )


def _masked(
    run: Run, paths: Sequence[str], reference: tuple[str, Detections], params: MergeParams
) -> NDArray[np.int32] | None:
    """Spans that sky objects avoid."""
    import numpy as np

    from coblend.core.merge.sky import masked_spans
    from coblend.io.exposure.exposures import read_exposure
    from coblend.io.fits.specs import parse_spec

    spans = []
    for path in paths:
        spec = parse_spec(path)
        run.add_input("mask", spec.path)
        exposure = read_exposure(spec, allow_empty=True)
        _check_grid(reference, (spec.path, exposure), params)
        spans.append(masked_spans(exposure, params.sky_avoid_mask))
    return np.concatenate(spans) if spans else None


def _read_all(
    run: Run,
    params: MergeParams,
    arguments: Sequence[str],
    like: str | None,
    segmentation: Sequence[str],
) -> list[tuple[str, Detections]]:
    """Every catalogue with its path."""
    from coblend.io.fits.specs import parse_band_spec

    label_images = dict(parse_band_spec(text) for text in segmentation)
    exposure = None
    out = []
    for argument in arguments:
        band, spec = parse_band_spec(argument)
        run.add_input("detections", spec.path)
        if _is_ours(spec.path):
            detections = _read_ours(spec.path, band)
        else:
            exposure = exposure or _read_like(run, like, spec.path)
            labels = label_images.pop(band, None) or label_images.pop(None, None)
            detections = _read_foreign(run, params, spec, band, exposure, labels)
        out.append((spec.path, detections))
    for band in label_images:
        raise ParameterError(f"--segmentation {band or ''}: no catalogue of that band needs it")
    return out


def _is_ours(path: str) -> bool:
    from coblend.io.fits.reader import open_fits
    from coblend.io.fits.structure import is_fits

    if not is_fits(path):
        return False
    with open_fits(path) as file:
        return bool(file.schema[0])


def _read_ours(path: str, band: str | None) -> Detections:
    from coblend.io.detect.detections import read_detections, renamed

    detections = read_detections(path)
    if len(detections.bands) != 1:
        raise FormatError(f"holds {len(detections.bands)} bands, expected one", path)
    if detections.parents["flag_negative"].any():
        raise FormatError("holds negative detections; only positive ones merge", path)
    return renamed(detections, band) if band else detections


def _read_like(run: Run, like: str | None, path: str) -> Exposure:
    from coblend.io.exposure.exposures import read_exposure
    from coblend.io.fits.specs import parse_spec

    if like is None:
        raise FormatError(
            "not a detection file of coblend; as a catalogue of another program it needs --like",
            path,
            hint="--like EXPOSURE names the image that it belongs to",
        )
    spec = parse_spec(like)
    run.add_input("like", spec.path)
    return read_exposure(spec)


def _read_foreign(
    run: Run,
    params: MergeParams,
    spec: FileSpec,
    band: str | None,
    exposure: Exposure,
    labels: FileSpec | None,
) -> Detections:
    from dataclasses import replace

    from coblend.core.detect.adopt import adopt_segmentation, adopt_sources, with_significance
    from coblend.core.detect.prepare import psf_widths
    from coblend.io.detect.foreign import read_segmentation, read_sources

    band = band or exposure.band
    if not band:
        raise ParameterError("the band is unknown", spec.path, hint="write BAND=FILE")
    columns = dict(text.partition("=")[::2] for text in params.columns)
    sources = read_sources(spec, exposure.box, exposure.wcs, columns=columns, origin=params.origin)
    widths = None if exposure.psf is None else psf_widths(exposure.psf, exposure.box)
    if widths is not None:
        sources = with_significance(sources, exposure, widths)
    exposure, field_id = replace(exposure, band=band), params.field_id or 0
    with concerning(spec.path):
        if labels is not None:
            run.add_input("segmentation", labels.path)
            detections, warnings = adopt_segmentation(
                sources,
                exposure,
                read_segmentation(labels),
                field_id=field_id,
                by_label=params.seg_parent == "label",
                grow=params.grow,
                max_misfit=params.max_misfit,
            )
        else:
            detections, warnings = adopt_sources(
                sources,
                exposure,
                field_id=field_id,
                sigma=widths,
                radius=params.footprint_radius,
                ellipse_scale=params.ellipse_scale,
            )
    for warning in warnings:
        log.warning("%s: %s", spec.path, warning, extra={"once": True})
    return detections


def _in_priority(
    inputs: list[tuple[str, Detections]], priority: Sequence[str]
) -> list[tuple[str, Detections]]:
    """Sort the inputs by ``priority``, if there is one."""
    if not priority:
        return inputs
    by_band = {detections.bands[0]: (path, detections) for path, detections in inputs}
    for path, detections in inputs:
        if detections.bands[0] not in priority:
            raise ParameterError(
                f"band {detections.bands[0]} is not in --priority {','.join(priority)}", path
            )
    for band in priority:
        if band not in by_band:
            log.info("no detections of band %s: skipped", band)
    if len(by_band) < len(inputs):
        return inputs
    return [by_band[band] for band in priority if band in by_band]


def _check_grids(inputs: list[tuple[str, Detections]], params: MergeParams) -> None:
    """Refuse inputs on different pixel grids."""
    for other in inputs[1:]:
        _check_grid(inputs[0], other, params)


def _check_grid(
    reference: tuple[str, Detections],
    other: tuple[str, Detections | Exposure],
    params: MergeParams,
) -> None:
    from coblend.io.sky.wcs import grid_offset

    (path, first), (other_path, second) = reference, other
    offset = grid_offset(first.wcs, first.box, second.wcs, second.box)
    if offset > MAX_GRID_OFFSET and not params.ignore_wcs:
        raise WcsMismatchError(
            f"its pixel grid is {offset:.3g} px off that of {path}",
            other_path,
            hint="warp the exposures to one grid, or give --set ignore_wcs=true",
        )
