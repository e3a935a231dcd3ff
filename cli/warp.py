"""``coblend warp``: resample exposures onto the grid of a coadd."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

from coblend.cli.command import command, psf_option
from coblend.cli.run import Run, filled_name
from coblend.core.errors import ParameterError, WcsMismatchError, concerning
from coblend.core.params.warp import WarpParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coblend.core.box import Box
    from coblend.core.coadd.pixelmap import PixelMap
    from coblend.core.exposure import Exposure
    from coblend.io.coadd.grid import Grid
    from coblend.io.exposure.exposures import Outline

log = logging.getLogger("coblend")


@command(
    "warp",
    WarpParams,
    fills=("band", "name"),
    examples=(
        "coblend warp visit_*.fits --like coadd_g.fits -o 'warp_{name}.fits'",
        "coblend warp visit.fits --like tract.fits --kernel bilinear -o warp.fits",
    ),
)
@click.argument("exposures", nargs=-1, required=True, metavar="[BAND=]EXPOSURE...")
@psf_option("PSF in place of the file's, e.g. x.psf or gaussian:fwhm=4.5; repeat it.")
def warp(run: Run, params: WarpParams, exposures: tuple[str, ...], psfs: tuple[str, ...]) -> None:
    """Resample each EXPOSURE onto the pixels of the grid of --like that it covers.

    Fluxes are conserved, or surface brightness where that is the unit (MJy/sr); variance, mask
    and PSF follow the image. The output holds the mean autocorrelation of the noise as NOISE_ACF
    and its outline as POLYGONS. With several exposures the output's name holds {name}. For
    PSF-matched warps run coblend psf-match on the output.
    """
    from coblend.io.coadd.grid import read_grid
    from coblend.io.exposure.exposures import read_exposure, read_outline
    from coblend.io.fits.specs import expand_lists, parse_band_spec, stem
    from coblend.io.psf.given import band_psfs, require_bands

    if not params.like:
        raise ParameterError("no grid given", hint="pass --like FILE, a coadd or any image")
    specs = [parse_band_spec(text) for text in expand_lists(exposures)]
    outlines = [read_outline(spec, band) for band, spec in specs]
    bands = [outline.band for outline in outlines]
    targets = [
        filled_name(run.output, band=band, name=stem(spec.path))
        for band, (_, spec) in zip(bands, specs, strict=True)
    ]
    if len(set(targets)) < len(targets):
        raise ParameterError(
            f"{len(targets)} exposures would be written to {len(set(targets))} files",
            hint="put {name} into --output; files in different folders need different names",
        )
    grid = read_grid(params.like)
    run.add_input("grid", grid.path)
    run.add_psfs(psfs)
    files = []
    for (_, spec), target in zip(specs, targets, strict=True):
        files.append(run.add_exposure("exposure", spec))
        if target != run.output:
            run.check_output(target)
    for outline, (_, spec) in zip(outlines, specs, strict=True):
        _require_memory(run, params, outline, spec.path, grid)
    given = band_psfs(psfs)
    if given:
        require_bands(given, bands)
    rows = []
    with run.progress("warp", len(specs)) as advance:
        for (band, spec), target, own in zip(specs, targets, files, strict=True):
            exposure = read_exposure(spec, band=band, psfs=given)
            if exposure.psf is None:
                log.warning("%s: no PSF, so its warp has none; give one with --psf", spec.path)
            others = set().union(*files) - {*own, grid.path}
            rows.append(_warp_one(run, params, exposure, spec.path, grid, target, others))
            advance(1)
    run.report({"n_warp": len(rows)}, rows)


def _require_memory(
    run: Run, params: WarpParams, exposure: Outline, path: str, grid: Grid
) -> None:
    """Refuse at once what ``--max-memory`` does not allow."""
    from coblend.core.coadd.warp import BYTES_PER_INPUT_PIXEL, BYTES_PER_OUTPUT_PIXEL

    _, box = _reach(exposure, path, grid, params.border)
    n_bytes = BYTES_PER_INPUT_PIXEL * exposure.box.area + BYTES_PER_OUTPUT_PIXEL * box.area
    run.require_memory(n_bytes, path)


def _reach(
    exposure: Exposure | Outline, path: str, grid: Grid, border: int
) -> tuple[NDArray[np.float64], Box]:
    """Outline of an exposure on the grid, and the pixels of the grid that it covers."""
    from coblend.core.coadd.warp import covered
    from coblend.io.sky.grids import map_positions, outline

    around = outline(exposure.box)
    with concerning(path):
        edge = map_positions(exposure.wcs, exposure.box, grid.wcs, grid.box, *around)
    return edge, covered(edge, grid.box.grow(border))


def _warp_one(
    run: Run,
    params: WarpParams,
    exposure: Exposure,
    path: str,
    grid: Grid,
    target: str,
    others: Collection[str],
) -> dict[str, Any]:
    """Warp one exposure and write it; return a row of the summary.

    ``others`` are the inputs of other warps only.
    """
    import numpy as np

    from coblend.core.coadd.warp import warp_exposure
    from coblend.io.coadd.coadds import write_polygon
    from coblend.io.exposure.calibration import is_surface_brightness, on_pixels
    from coblend.io.exposure.exposures import write_exposure
    from coblend.io.sky.wcs import pixel_scale, shift_cards

    edge, box = _reach(exposure, path, grid, params.border)
    if not box.area:
        raise WcsMismatchError(f"does not overlap the grid of {params.like}", path)
    pixel_map = _pixel_map(params, exposure, grid, box)
    row = {"exposure": os.path.basename(path), "x0": box.x0, "y0": box.y0,
           "nx": box.nx, "ny": box.ny}  # fmt: skip
    if run.dry_run:
        return row
    wcs = shift_cards(grid.wcs, box.y0 - grid.box.y0, box.x0 - grid.box.x0)
    brightness = is_surface_brightness(exposure.unit)
    if brightness:
        scales = [cast("float", pixel_scale(c)) for c in (grid.wcs, exposure.wcs)]
        exposure = replace(exposure, meta=on_pixels(exposure.meta, *scales))
    warped = warp_exposure(exposure, pixel_map, wcs, params, conserve_flux=not brightness)
    with run.create("exposure/1", path=target, without=others) as out:
        write_exposure(out, warped.exposure, header={"NOISECOR": warped.noise_power},
                       compress=params.compress)  # fmt: skip
        out.image("NOISE_ACF", warped.noise_correlation.astype(np.float32))
        write_polygon(out, edge)
    row["good"] = int(np.isfinite(warped.exposure.variance).sum())
    if not row["good"]:
        log.warning("%s: its warp has no usable pixel", path)
    row["noise_power"] = round(warped.noise_power, 4)
    return row


def _pixel_map(params: WarpParams, exposure: Exposure, grid: Grid, box: Box) -> PixelMap:
    """Positions of output pixels in the array of the exposure."""
    import numpy as np

    from coblend.core.coadd.pixelmap import PixelMap, lattice
    from coblend.io.sky.grids import map_positions

    rows, columns = lattice(box, params.interp_length)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    native: NDArray[np.float64] = map_positions(
        grid.wcs, grid.box, exposure.wcs, exposure.box, y, x
    )
    return PixelMap(box, rows, columns, native[0] - exposure.box.y0, native[1] - exposure.box.x0)
