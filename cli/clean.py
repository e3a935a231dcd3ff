"""``coblend clean``: every object without its neighbours."""

from __future__ import annotations

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.errors import FormatError, ParameterError, ShapeMismatchError
from coblend.core.params.clean import CleanParams


@command(
    "clean",
    CleanParams,
    examples=(
        "coblend clean deblended.fits coadd_*.fits -o stamps.fits",
        "coblend clean deblended.fits r=coadd_r.fits -o stamps.fits --mode noise --side 41",
    ),
)
@click.argument("deblended")
@click.argument("exposures", metavar="[BAND=]EXPOSURE...", nargs=-1, required=True)
def clean(run: Run, params: CleanParams, deblended: str, exposures: tuple[str, ...]) -> None:
    """Cut every object of DEBLENDED out of the exposures, without its neighbours.

    For programs that measure shapes or fluxes on their own. Writes OBJECTS (id, position and the
    first pixel of each stamp) and, per band, cubes IMAGE_<band>, VARIANCE_<band> and MASK_<band>
    with one stamp per object.
    """
    import numpy as np

    from coblend.core.catalog import Column, table_dtype
    from coblend.core.deblend.clean import clean_stamps
    from coblend.io.deblend.models import read_models
    from coblend.io.exposure.checks import require_band, require_same_wcs
    from coblend.io.exposure.exposures import read_exposure
    from coblend.io.fits.specs import expand_lists, parse_band_spec

    if params.side % 2 == 0:
        raise ParameterError(f"side is {params.side}; it must be odd")
    run.add_input("models", deblended)
    models = read_models(deblended)
    rows = np.arange(len(models.objects))
    if params.source:
        rows = np.flatnonzero(np.isin(models.objects["id"], params.source))
        missing = set(params.source) - set(models.objects["id"][rows].tolist())
        if missing:
            raise ParameterError(f"no object has id {min(missing)}", deblended)
    specs = [parse_band_spec(argument) for argument in expand_lists(exposures)]
    for _, spec in specs:
        run.add_input("exposure", spec.path)
    run.report({"n_object": len(rows), "n_band": len(specs)})
    if run.dry_run:
        return
    columns = (
        Column("id", "i8", "Identifier", "", "meta.id;meta.main"),
        Column("x", "f8", "x position, parent coordinates", "pixel", "pos.cartesian.x;instr.det"),
        Column("y", "f8", "y position, parent coordinates", "pixel", "pos.cartesian.y;instr.det"),
        Column("x0", "i4", "First column of the stamp, parent coordinates", "pixel"),
        Column("y0", "i4", "First row of the stamp, parent coordinates", "pixel"),
    )
    table = np.zeros(len(rows), table_dtype(columns))
    for name in ("id", "x", "y"):
        table[name] = models.objects[name][rows]
    table["x0"], table["y0"] = (
        models.objects[name][rows] - params.side // 2 for name in ("ix", "iy")
    )
    with run.create("stamps/1", header={"MODE": params.mode, "SIDE": params.side}) as out:
        out.table("OBJECTS", table, columns=columns)
        for band, spec in specs:
            exposure = read_exposure(spec, band=band)
            require_band(exposure, spec.path)
            if exposure.band not in models.bands:
                raise FormatError(f"band {exposure.band!r} is not in {deblended}", spec.path)
            if exposure.box != models.box:
                raise ShapeMismatchError(
                    f"covers {exposure.box}, the models {models.box}", spec.path,
                    hint="give the exposure that was deblended",
                )  # fmt: skip
            require_same_wcs(
                models.wcs, models.box, deblended, exposure.wcs, exposure.box, spec.path
            )
            if not len(rows):
                continue
            stamps = clean_stamps(models, exposure, rows, params, run.seed)
            tile = (1, params.side, params.side)
            bits = {f"MP_{name}": bit for name, bit in exposure.planes.bits.items()}
            unit = {"BUNIT": exposure.unit} if exposure.unit else {}
            for name, cube, header in (
                ("IMAGE", stamps.image, unit),
                ("VARIANCE", stamps.variance, {}),
                ("MASK", stamps.mask, bits),
            ):
                label = f"{name}_{exposure.band}".upper()
                out.image(label, cube, header=header, compress="GZIP_2", tile=tile)
