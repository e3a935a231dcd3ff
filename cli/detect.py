"""``coblend detect``: footprints and peaks on one exposure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from coblend.cli.command import command, psf_option
from coblend.cli.detection_products import check_products, product_options, write_products
from coblend.cli.run import Run
from coblend.core.errors import concerning
from coblend.core.params.detect import DetectParams

if TYPE_CHECKING:
    from coblend.core.detect.search import Search
    from coblend.core.exposure import Exposure

log = logging.getLogger("coblend")


@command(
    "detect",
    DetectParams,
    fills=("band", "name"),
    examples=(
        "coblend detect coadd_g.fits -o det_g.fits",
        "coblend detect i=coadd.fits --bg-mesh 128 --peak-scales 1,0.6 -o det_i.fits",
        "coblend detect image.fits --psf-sigma 1.8 --set field_id=4217 -o det.fits",
    ),
)
@click.argument("exposure", metavar="[BAND=]EXPOSURE")
@psf_option("PSF in place of the file's, e.g. gaussian:fwhm=4.5.")
@click.option(
    "--out-image",
    metavar="FILE",
    help="Also write the exposure: background subtracted, variance rescaled, DETECTED set.",
)
@click.option("--out-snr", metavar="FILE", help="Also write the significance of every pixel.")
@product_options
def detect(
    run: Run,
    params: DetectParams,
    exposure: str,
    psfs: tuple[str, ...],
    out_image: str | None,
    out_snr: str | None,
    out_segmentation: str | None,
    regions: str | None,
) -> None:
    """Find footprints and peaks on one coadd.

    Filters the image with its PSF, weighted by the inverse variance; pixels above --threshold
    form footprints, which grow by --grow-nsigma filter widths; every regional maximum is a peak.
    The threshold follows the measured noise of the filtered image, which correlated pixels make
    larger than the variance plane says (--noise-scale).

    Writes the tables PARENTS (footprints), PEAKS, SPANS (their pixels) and CORES (their pixels
    before growth), for merge-detections or, for a single band, for deblend.
    """
    from coblend.core.detect.search import BYTES_PER_PIXEL
    from coblend.core.detect.search import detect as search
    from coblend.io.exposure.checks import require_band
    from coblend.io.exposure.exposures import count_pixels, read_exposure, read_outline
    from coblend.io.fits.specs import parse_band_spec, stem
    from coblend.io.psf.given import band_psfs, require_bands

    band, spec = parse_band_spec(exposure)
    if "{" in run.output:
        run.fill_output(band=read_outline(spec, band).band, name=stem(spec.path))
    check_products(run, out_image, out_snr, out_segmentation, regions)
    run.add_exposure("exposure", spec)
    run.add_psfs(psfs)
    run.require_memory(BYTES_PER_PIXEL * count_pixels(spec), spec.path)
    given = band_psfs(psfs)
    image = read_exposure(spec, band=band, psfs=given)
    require_bands(given, [image.band])
    require_band(image, spec.path)
    with concerning(spec.path):
        found = search(image, params, threads=run.jobs, keep_map=out_snr is not None)
    for warning in found.warnings:
        log.warning("%s: %s", spec.path, warning)
    if not len(found.detections.parents):
        log.warning("%s: nothing above %.3g sigma", spec.path, found.threshold)
    _report(run, found)
    if run.dry_run:
        return
    _write(run, found)
    write_products(run, found.detections, out_segmentation, regions)
    if out_image:
        _write_image(run, image, found, out_image)
    if out_snr:
        _write_significance(run, found, out_snr)


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
    from coblend.core.detect.noise import TILE
    from coblend.io.detect.detections import with_sky_positions, write_detections
    from coblend.io.detect.maps import write_background, write_noise

    with run.create("det/1") as out:
        write_detections(out, with_sky_positions(found.detections))
        if found.negative is not None:
            write_detections(out, with_sky_positions(found.negative), prefix="NEG_")
        write_noise(
            out, found.noise.tiles / float(found.detections.meta["VARSCAL1"]) ** 0.5, TILE,
            found.detections.box,
        )  # fmt: skip
        if found.background is not None:
            mesh = found.background
            write_background(
                out, mesh.y, mesh.x, mesh.values, mesh.errors, mesh.counts, found.detections.box,
                mesh.interpolation, found.detections.unit,
            )  # fmt: skip


def _write_significance(run: Run, found: Search, path: str) -> None:
    from coblend.io.exposure.frame import frame_header

    if found.significance is None:
        return
    detections = found.detections
    header = {**frame_header(detections.box), "THRESH": found.threshold}
    with run.create("snr/1", path=path) as out:
        out.image("SNR", found.significance, header=header, wcs=detections.wcs)


def _write_image(run: Run, exposure: Exposure, found: Search, path: str) -> None:
    from coblend.core.detect.mark import marked_exposure
    from coblend.io.exposure.exposures import write_exposure

    with run.create("exposure/1", path=path) as out:
        write_exposure(out, marked_exposure(exposure, found))
