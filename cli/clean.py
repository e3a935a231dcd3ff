"""``coblend clean``: every object without its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coblend.cli.command import command
from coblend.cli.run import Run, filled_name
from coblend.core.errors import FormatError, ParameterError, ShapeMismatchError
from coblend.core.params.clean import CleanParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coblend.core.exposure import Exposure, HeaderValue
    from coblend.core.model import ModelSet
    from coblend.io.fits.specs import FileSpec
    from coblend.io.fits.writer import FitsWriter


_PIECE = 256
"""Stamps that are cut out together."""


@command(
    "clean",
    CleanParams,
    fills=("band",),
    examples=(
        "coblend clean deblended.fits coadd_*.fits -o stamps.fits",
        "coblend clean deblended.fits r=coadd_r.fits -o stamps.fits --mode noise --side 41",
        "coblend clean deblended.fits coadd_*.fits -o 'clean_{band}.fits' --whole --source 4711",
    ),
)
@click.argument("deblended")
@click.argument("exposures", metavar="[BAND=]EXPOSURE...", nargs=-1, required=True)
def clean(run: Run, params: CleanParams, deblended: str, exposures: tuple[str, ...]) -> None:
    """Cut every object of DEBLENDED out of the exposures, without its neighbours.

    For programs that measure shapes or fluxes on their own. Writes OBJECTS (id, position and the
    first pixel of each stamp) and, per band, cubes IMAGE_<band>, VARIANCE_<band> and MASK_<band>
    with one stamp per object; or, with --whole, the exposures with only the chosen objects left.
    """
    from coblend.core.deblend.clean import BYTES_PER_PIXEL, BYTES_PER_WHOLE_PIXEL
    from coblend.io.deblend.models import ModelFile
    from coblend.io.exposure.exposures import count_pixels
    from coblend.io.fits.specs import expand_lists, parse_band_spec

    specs = [parse_band_spec(argument) for argument in expand_lists(exposures)]
    _check(params, run, specs)
    run.add_input("models", deblended)
    with ModelFile(deblended) as file:
        file.require_models()
        models = file.read()
    rows = _rows(models, params, deblended)
    per_pixel = BYTES_PER_WHOLE_PIXEL if params.whole else BYTES_PER_PIXEL
    for _, spec in specs:
        run.add_exposure("exposure", spec)
        run.require_memory(per_pixel * count_pixels(spec), spec.path)
    run.report({"n_object": len(rows), "n_band": len(specs)})
    if run.dry_run:
        return
    if params.whole:
        for band, spec in specs:
            _write_whole(run, params, models, _read(models, deblended, band, spec), rows)
        return
    with run.create("stamps/1", header={"MODE": params.mode, "SIDE": params.side}) as out:
        _write_table(out, params, models, rows)
        for band, spec in specs if len(rows) else ():
            _write_stamps(
                out, run, params, models, _read(models, deblended, band, spec), rows
            )  # fmt: skip


def _check(params: CleanParams, run: Run, specs: list[tuple[str | None, FileSpec]]) -> None:
    """Refuse at once what makes no sense or could not be written at the end."""
    from coblend.io.exposure.exposures import read_outline

    if params.whole and not params.source and params.mode == "subtract":
        raise ParameterError(
            "all objects are to be kept, so nothing is to be subtracted",
            hint="name those to keep with --source; the residual of all is a product of "
            "coblend reconstruct-footprints",
        )
    bands = [read_outline(spec, band).band for band, spec in specs]
    if len(bands) == 1:
        run.fill_output(band=bands[0])
    elif params.whole:
        run.plan(run.output, bands)
    elif "{band}" in run.output:
        raise ParameterError(f"output {run.output!r}: stamps of all bands go into one file")


def _rows(models: ModelSet, params: CleanParams, path: str) -> NDArray[np.int64]:
    """Rows of OBJECTS that are wanted."""
    import numpy as np

    if not params.source:
        return np.arange(len(models.objects))
    rows = np.flatnonzero(np.isin(models.objects["id"], params.source))
    missing = set(params.source) - set(models.objects["id"][rows].tolist())
    if missing:
        raise ParameterError(f"no object has id {min(missing)}", path)
    return rows


def _read(models: ModelSet, path: str, band: str | None, spec: FileSpec) -> Exposure:
    """Read an exposure that fits the models."""
    from coblend.io.exposure.checks import require_band, require_same_wcs
    from coblend.io.exposure.exposures import read_exposure

    exposure = read_exposure(spec, band=band)
    require_band(exposure, spec.path)
    if exposure.band not in models.bands:
        raise FormatError(f"band {exposure.band!r} is not in {path}", spec.path)
    if exposure.box != models.box:
        raise ShapeMismatchError(
            f"covers {exposure.box}, the models {models.box}", spec.path,
            hint="give the exposure that was deblended",
        )  # fmt: skip
    require_same_wcs(models.wcs, models.box, path, exposure.wcs, exposure.box, spec.path)
    return exposure


def _write_whole(
    run: Run, params: CleanParams, models: ModelSet, exposure: Exposure, rows: NDArray[np.int64]
) -> None:
    """Write an exposure with only some objects left."""
    from coblend.core.deblend.clean import clean_image
    from coblend.io.exposure.exposures import write_exposure

    done = clean_image(models, exposure, rows, params, run.seed)
    path = filled_name(run.output, band=exposure.band)
    with run.create("exposure/1", header={"MODE": params.mode}, path=path) as out:
        write_exposure(out, done, compress=params.compress)


def _write_table(
    out: FitsWriter, params: CleanParams, models: ModelSet, rows: NDArray[np.int64]
) -> None:
    """OBJECTS of a file of stamps."""
    import numpy as np

    from coblend.core.catalog import Column, table_dtype

    columns = (
        Column("id", "i8", "Identifier", "", "meta.id;meta.main"),
        Column("x", "f8", "x position, parent coordinates", "pixel", "pos.cartesian.x;instr.det"),
        Column("y", "f8", "y position, parent coordinates", "pixel", "pos.cartesian.y;instr.det"),
        Column("x0", "i4", "First column of the stamp, parent coordinates", "pixel",
               "pos.cartesian.x;instr.det"),
        Column("y0", "i4", "First row of the stamp, parent coordinates", "pixel",
               "pos.cartesian.y;instr.det"),
    )  # fmt: skip
    table = np.zeros(len(rows), table_dtype(columns))
    for name in ("id", "x", "y"):
        table[name] = models.objects[name][rows]
    table["x0"] = models.objects["ix"][rows] - params.side // 2
    table["y0"] = models.objects["iy"][rows] - params.side // 2
    out.table("OBJECTS", table, columns=columns)


def _write_stamps(
    out: FitsWriter,
    run: Run,
    params: CleanParams,
    models: ModelSet,
    exposure: Exposure,
    rows: NDArray[np.int64],
) -> None:
    """Cubes of one band, which wait on disk: CFITSIO compresses a cube only as a whole."""
    import os
    from functools import partial
    from tempfile import TemporaryFile

    import numpy as np

    from coblend.core.deblend.clean import clean_stamps, cut_stamps
    from coblend.io.fits.output import disk_error

    box, side, objects = exposure.box, params.side, models.objects[rows]
    pieces = [objects[i : i + _PIECE] for i in range(0, len(objects), _PIECE)]
    variances = partial(cut_stamps, exposure.variance, box, side=side, fill=np.inf)
    masks = partial(cut_stamps, exposure.mask, box, side=side, fill=0)
    headers = _stamp_headers(exposure)
    for name, dtype, blocks in (
        ("IMAGE", np.float32, clean_stamps(models, exposure, rows, params, run.seed)),
        ("VARIANCE", np.float32, map(variances, pieces)),
        ("MASK", np.int32, map(masks, pieces)),
    ):
        label = f"{name}_{exposure.band}".upper()
        with TemporaryFile(dir=os.path.dirname(os.path.abspath(run.output))) as file:
            try:
                for block in blocks:
                    file.write(block.data)
                file.flush()
            except OSError as error:
                raise disk_error(error, run.output, label) from error
            cube = np.memmap(file, dtype, "r+", shape=(len(rows), side, side))
            out.image(label, cube, header=headers[name], compress="GZIP_2", tile=(1, side, side))


def _stamp_headers(exposure: Exposure) -> dict[str, dict[str, HeaderValue]]:
    """Cards of the cubes: what their values mean."""
    from coblend.io.exposure.calibration import raised

    known = {
        "BUNIT": exposure.unit or None,
        "BAND": exposure.band,
        "MAGZERO": exposure.meta.get("MAGZERO"),
    }
    return {
        "IMAGE": {key: value for key, value in known.items() if value is not None},
        "VARIANCE": {"BUNIT": raised(exposure.unit, 2)} if exposure.unit else {},
        "MASK": {f"MP_{name}": bit for name, bit in exposure.planes.bits.items()},
    }
