"""Tables of what varies over an image: the background that was subtracted, and the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, table_dtype
from coblend.core.errors import CorruptFileError
from coblend.io.fits.reader import open_fits
from coblend.io.fits.writer import FitsWriter


def write_background(
    out: FitsWriter,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    counts: NDArray[np.int64],
    box: Box,
    interpolation: str,
    unit: str = "",
) -> None:
    """Append BACKGROUND: the mesh of the model that was subtracted, so that it can be restored.

    Parameters
    ----------
    out : FitsWriter
    y, x : array, shape (n_y,), (n_x,), float64
        Centres of the bins, array coordinates.
    values, errors, counts : array, shape (n_y, n_x)
    box : Box
    interpolation : str
        How the surface runs through the values.
    unit : str
    """
    columns = (
        Column(
            "yc",
            "f8",
            "Row of the bin's centre, parent coordinates",
            "pixel",
            "pos.cartesian.y;instr.det",
        ),
        Column(
            "xc",
            "f8",
            "Column of the bin's centre, parent coordinates",
            "pixel",
            "pos.cartesian.x;instr.det",
        ),
        Column("value", "f8", "Background", unit, "phot.flux;instr.background"),
        Column("err", "f8", "Error of value", unit, "stat.error"),
        Column("n", "i4", "Pixels that entered; 0: filled from its neighbours", "", "meta.number"),
    )
    table = np.zeros(values.size, table_dtype(columns))
    grid_y, grid_x = np.meshgrid(y + box.y0, x + box.x0, indexing="ij")
    for name, column in zip(
        ("yc", "xc", "value", "err", "n"), (grid_y, grid_x, values, errors, counts), strict=True
    ):
        table[name] = column.ravel()
    out.table("BACKGROUND", table, columns=columns,
              header={"BGINTERP": interpolation, "BGNX": len(x), "BGNY": len(y)})  # fmt: skip


def read_background(path: str) -> dict[str, Any]:
    """Read BACKGROUND of a detection file.

    Returns
    -------
    dict
        Arguments of `coblend.core.detect.mesh.Mesh`, whose ``rows`` are what was subtracted.

    Raises
    ------
    InputMissingError, MissingHduError, CorruptFileError
    """
    with open_fits(path) as file:
        table, header, frame = (
            file.table("BACKGROUND"), file.header("BACKGROUND"), file.header("PARENTS")
        )  # fmt: skip
        try:
            shape = int(header["BGNY"]), int(header["BGNX"])
            box = Box(*(int(frame[key]) for key in ("Y0", "X0", "NY", "NX")))
            plane = {name: table[name].reshape(shape) for name in table.dtype.names or ()}
            return {
                "y": plane["yc"][:, 0] - box.y0,
                "x": plane["xc"][0] - box.x0,
                "values": plane["value"],
                "errors": plane["err"],
                "counts": plane["n"].astype(np.int64),
                "nx": box.nx,
                "interpolation": str(header["BGINTERP"]).strip(),
            }
        except (KeyError, ValueError, IndexError) as error:
            raise CorruptFileError(f"is not complete: {error}", path, "BACKGROUND") from error


def write_noise(out: FitsWriter, scales: NDArray[np.float64], side: int, box: Box) -> None:
    """Append NOISE: scatter of the significance per tile, where 1 is the rescaled variance.

    Parameters
    ----------
    out : FitsWriter
    scales : array, shape (n_y, n_x), float64
        NaN: unknown.
    side : int
        Of a tile, pixel; the last may be smaller.
    box : Box
    """
    columns = (
        Column("y0", "i4", "First row of the tile, parent coordinates", "pixel",
               "pos.cartesian.y;instr.det"),
        Column("x0", "i4", "First column of the tile, parent coordinates", "pixel",
               "pos.cartesian.x;instr.det"),
        Column("noise_scale", "f4", "Scatter of the significance outside detections", "",
               "stat.stdev;stat.snr"),
    )  # fmt: skip
    table = np.zeros(scales.size, table_dtype(columns))
    row, column = np.indices(scales.shape)
    table["y0"], table["x0"] = box.y0 + side * row.ravel(), box.x0 + side * column.ravel()
    table["noise_scale"] = scales.ravel()
    out.table("NOISE", table, columns=columns, header={"TILE": side})
