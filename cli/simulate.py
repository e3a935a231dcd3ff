"""``coblend simulate``: a small sky with known truth."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.params.simulate import SimulateParams

if TYPE_CHECKING:
    from coblend.core.exposure import HeaderValue
    from coblend.core.simulate.sky import Sky

_TRUTH = "truth.fits"
_RA, _DEC = 150.1, 2.2  # degree; any place will do


@command(
    "simulate",
    SimulateParams,
    writes=False,
    examples=(
        "coblend simulate sample_data",
        "coblend simulate big --bands g,r,i,z,y --epochs 6 --size 1000 --blends 150 --singles 300",
    ),
)
@click.argument("folder", metavar="DIR")
def simulate(run: Run, params: SimulateParams, folder: str) -> None:
    """Make a sky with known truth and write its exposures to DIR.

    Galaxies with bulge and disk, stars, and blends of 2 to 8 of them, seen in several bands and
    epochs: every exposure has its own seeing, zero point, sky level and offset, bad columns and
    cosmic rays; one is crossed by a satellite. Writes one warp_<band>_<epoch>.fits each, all on
    one pixel grid, and truth.fits with the tables SOURCES (what is there) and EPOCHS (how it was
    seen). The same options and --seed give the same files.
    """
    import numpy as np

    from coblend.core.simulate.expose import EPOCH_COLUMNS, random_epochs
    from coblend.core.simulate.sky import random_sky, source_columns
    from coblend.io.sky.wcs import pixel_to_sky

    rng = np.random.default_rng(run.seed)
    sky = random_sky(params, rng)
    epochs = random_epochs(params, rng)
    names = [_TRUTH, *map(str, epochs["file"])]
    for name in names:
        run.check_output(os.path.join(folder, name))
    summary = {"n_source": len(sky.sources), "n_blend": int(sky.sources["blend"].max(initial=0)),
               "n_exposure": len(epochs)}  # fmt: skip
    run.report(summary)
    if run.dry_run:
        return

    cards = _wcs(params, 0, 0)
    sources = sky.sources
    sources["ra"], sources["dec"] = pixel_to_sky(cards, sky.box, sources["x"], sources["y"])
    with run.progress("simulate", len(epochs)) as advance:
        for band in params.bands:
            _write_band(run, params, sky, band, epochs[epochs["band"] == band], folder)
            advance(params.epochs)
    header: dict[str, HeaderValue] = {
        "PATCHNX": params.size,
        "PATCHNY": params.size,
        "NBAND": len(params.bands),
    }
    header |= {f"BAND{i}": band for i, band in enumerate(params.bands, 1)}
    with run.create("truth/1", path=os.path.join(folder, _TRUTH), header=header) as out:
        out.table("SOURCES", sources, columns=source_columns(params.bands))
        out.table("EPOCHS", epochs, columns=EPOCH_COLUMNS)


def _write_band(
    run: Run, params: SimulateParams, sky: Sky, band: str, epochs: Any, folder: str
) -> None:
    """Write the exposures of one band; the noise of each has its own seed."""
    import numpy as np

    from coblend.core.simulate.expose import expose, transfer_of
    from coblend.core.simulate.sky import sky_images
    from coblend.io.exposure.exposures import write_exposure

    light = sky_images(sky, band, np.stack([transfer_of(e) for e in epochs]))
    for image, epoch in zip(light, epochs, strict=True):
        rng = np.random.default_rng([run.seed, params.bands.index(band), int(epoch["epoch"])])
        cards = _wcs(params, int(epoch["y0"]), int(epoch["x0"]))
        exposure = expose(image, sky, epoch, params, rng, cards)
        with run.create("exposure/1", path=os.path.join(folder, str(epoch["file"]))) as out:
            write_exposure(out, exposure)


def _wcs(params: SimulateParams, y0: int, x0: int) -> tuple[str, ...]:
    """WCS of an exposure whose first pixel is ``(y0, x0)``: the patch's centre is the centre."""
    from coblend.io.sky.wcs import tangent_plane

    middle = (params.size - 1) / 2
    return tangent_plane(_RA, _DEC, params.pixel_scale, middle - y0, middle - x0)
