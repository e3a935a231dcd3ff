"""``coblend detect``: footprints and peaks on one exposure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.params.detect import DetectParams

if TYPE_CHECKING:
    from coblend.core.detect.search import Search

log = logging.getLogger("coblend")


@command(
    "detect",
    DetectParams,
    examples=(
        "coblend detect coadd_g.fits -o det_g.fits",
        "coblend detect i=coadd.fits --bg-mesh 128 --peak-scales 1,0.6 -o det_i.fits",
        "coblend detect image.fits --psf-sigma 1.8 --set field_id=4217 -o det.fits",
    ),
)
@click.argument("exposure", metavar="[BAND=]EXPOSURE")
@click.option("--psf", metavar="SPEC", help="PSF in place of the file's, e.g. gaussian:fwhm=4.5.")
def detect(run: Run, params: DetectParams, exposure: str, psf: str | None) -> None:
    """Find footprints and peaks on one coadd.

    Filters the image with its PSF, weighted by the inverse variance; pixels above --threshold
    form footprints, which grow by --grow-nsigma filter widths; every regional maximum is a peak.
    The threshold follows the measured noise of the filtered image, which correlated pixels make
    larger than the variance plane says (--noise-scale).

    Writes the tables PARENTS (footprints), PEAKS, SPANS (their pixels) and CORES (their pixels
    before growth), for merge-detections or, for a single band, for deblend.
    """
    from coblend.core.detect.search import detect as search
    from coblend.io.exposures import read_exposure, require_band, require_psf
    from coblend.io.specs import parse_band_spec

    band, spec = parse_band_spec(exposure)
    run.add_input("exposure", spec.path)
    image = read_exposure(spec, band=band, psf=psf)
    require_band(image, spec.path)
    if params.psf_sigma is None:
        require_psf(image, spec.path)
    found = search(image, params, threads=run.jobs)
    for warning in found.warnings:
        log.warning("%s: %s", spec.path, warning)
    if not len(found.detections.parents):
        log.warning("%s: nothing above %.3g sigma", spec.path, found.threshold)
    _report(run, found)
    if not run.dry_run:
        _write(run, found)


def _report(run: Run, found: Search) -> None:
    detections, meta = found.detections, found.detections.meta
    summary = {
        "n_parent": len(detections.parents),
        "n_peak": len(detections.peaks),
        "psf_sigma": round(float(meta["PSFSIG1"]), 3),
        "noise_scale": round(float(meta["NOISESC1"]), 3),
        "variance_scale": round(float(meta["VARSCAL1"]), 3),
    }
    if found.negative is not None:
        summary["n_negative"] = len(found.negative.parents)
    run.report(summary)


def _write(run: Run, found: Search) -> None:
    from coblend.io.detections import with_sky_positions, write_detections

    with run.create("det/1") as out:
        write_detections(out, with_sky_positions(found.detections))
        if found.negative is not None:
            write_detections(out, with_sky_positions(found.negative), prefix="NEG_")
