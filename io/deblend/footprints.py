"""Catalogues and pixels that `reconstruct-footprints` writes.

``footprints/1`` is a catalogue. ``heavy/1`` holds the pixels of every object's footprint in one
band: a table, one integer image of all pixels laid end to end, and one of run lengths.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.catalog import Column, table_dtype
from coblend.core.errors import CorruptFileError, FormatError, ParameterError
from coblend.core.exposure import HeaderValue
from coblend.core.footprint import FootprintSet, box_offsets
from coblend.core.model import BOX_COLUMNS, BOX_FIELDS, boxes_of
from coblend.io.deblend.encoding import (
    decode_runs,
    encode_runs,
    footprint_intervals,
    intervals_to_footprints,
    row_checksums,
    to_codes,
)
from coblend.io.fits.output import disk_error
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.writer import FitsWriter

HEAVY_SCHEMA = "heavy/1"
_TILE = 1024


def heavy_columns(unit: str = "") -> tuple[Column, ...]:
    """Columns of FOOTPRINTS."""
    return (
        Column("id", "i8", "Identifier of the object", "", "meta.id;meta.main"),
        Column("parent", "i8", "Identifier of its parent", "", "meta.id.parent"),
        *BOX_COLUMNS,
        Column("run0", "i8", "First run in RUNS (0-based)", "", "meta.record"),
        Column("n_run", "i4", "Runs in RUNS", "", "meta.number"),
        Column("pix0", "i8", "First pixel in FLUX (0-based)", "", "meta.record"),
        Column("n_pix", "i4", "Pixels in FLUX", "", "meta.number"),
        Column(
            "peak_y",
            "i4",
            "Row of the peak pixel, parent coordinates",
            "pixel",
            "pos.cartesian.y;instr.det",
        ),
        Column(
            "peak_x",
            "i4",
            "Column of the peak pixel, parent coordinates",
            "pixel",
            "pos.cartesian.x;instr.det",
        ),
        Column("peak_flux", "f4", "Light in the peak pixel", unit, "phot.flux"),
        Column("flux", "f8", "Light in the footprint", unit, "phot.flux"),
        Column("flags", "i4", "All flags of the object as bits", "", "meta.code"),
        Column(
            "crc32",
            "i8",
            "CRC-32 of this row up to here, its pixels and its runs",
            "",
            "meta.checksum",
        ),
    )


_SPAN_COLUMNS = (
    Column("id", "i8", "Identifier of the object", "", "meta.id"),
    Column("y", "i4", "Row, parent coordinates", "pixel", "pos.cartesian.y;instr.det"),
    Column("x0", "i4", "First column", "pixel", "pos.cartesian.x;instr.det"),
    Column("x1", "i4", "Last column, inclusive", "pixel", "pos.cartesian.x;instr.det"),
)


@dataclass(frozen=True, slots=True)
class HeavyFootprints:
    """Footprints with light, of one band.

    Parameters
    ----------
    table : structured array, shape (n,)
        `heavy_columns`; the columns that place pixels in the file may be zero.
    footprints : FootprintSet
        Of the same objects.
    light : array, shape (n_pixel,)
        Light of every pixel in the order of the spans.
    band, unit : str
    """

    table: NDArray[Any]
    footprints: FootprintSet
    light: NDArray[Any]
    band: str = ""
    unit: str = ""

    def of(self, identifier: int) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Spans and light of one object.

        Raises
        ------
        ParameterError
            There is none of that id.
        """
        row = np.flatnonzero(self.table["id"] == identifier)
        if not len(row):
            raise ParameterError(f"no footprint has id {identifier}")
        ends = np.concatenate([[0], np.cumsum(self.footprints.areas)])
        return self.footprints.of(int(row[0])), self.light[ends[row[0]] : ends[row[0] + 1]]


class HeavySpool:
    """Heavy footprints of one band, added part by part; their pixels wait in a nameless file.

    Parameters
    ----------
    step : float
        Rounding step of a pixel; the flux of a footprint is exact to half a step. 0: lossless
        float32.
    folder : str, optional
        Where the file is; default: the system's folder for temporary files.
    spans : bool
        Whether to add a table SPANS of explicit spans.
    """

    def __init__(self, step: float, folder: str | None = None, *, spans: bool = False) -> None:
        self.step = step
        self._wants_spans = spans
        self._folder = folder or tempfile.gettempdir()
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._tables = [np.zeros(0, table_dtype(heavy_columns()))]
        self._runs = [np.zeros(0, np.int16)]
        self._spans = [np.zeros(0, table_dtype(_SPAN_COLUMNS))]
        self._n_pix = self._n_run = 0

    def __enter__(self) -> HeavySpool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, heavy: HeavyFootprints) -> None:
        """Encode further footprints.

        Raises
        ------
        FormatError
            Light that is not finite.
        DiskError
            Naming the folder.
        """
        footprints, light = heavy.footprints, np.asarray(heavy.light)
        if not np.all(np.isfinite(light)):
            raise FormatError(f"{np.count_nonzero(~np.isfinite(light))} pixels are not finite")
        boxes = footprints.boxes().astype(np.int64)
        offsets = box_offsets(boxes)
        runs, n_run = encode_runs(*footprint_intervals(footprints, boxes, offsets), offsets)
        n_pix = footprints.areas
        if self.step:
            steps = np.full(len(n_pix), self.step)
            values: NDArray[Any] = to_codes(light.astype(np.float64), n_pix, steps)
        else:
            values = light.astype(np.float32)
        table = np.zeros(len(n_pix), table_dtype(heavy_columns()))
        for name in heavy.table.dtype.names or ():
            table[name] = heavy.table[name]
        for name, column in zip(BOX_FIELDS, boxes.T, strict=True):
            table[name] = column
        table["n_run"], table["run0"] = n_run, self._n_run + np.cumsum(n_run) - n_run
        table["n_pix"], table["pix0"] = n_pix, self._n_pix + np.cumsum(n_pix) - n_pix
        table["crc32"] = _checksums(table, values, runs, self._n_pix, self._n_run)
        try:
            self._file.write(values.tobytes())
        except OSError as error:
            raise disk_error(error, self._folder, "") from error
        self._tables.append(table)
        self._runs.append(runs)
        if self._wants_spans:
            self._spans.append(_span_rows(table["id"], footprints))
        self._n_pix, self._n_run = self._n_pix + len(values), self._n_run + len(runs)

    def write(
        self,
        out: FitsWriter,
        band: str,
        unit: str,
        *,
        header: Mapping[str, HeaderValue] | None = None,
    ) -> None:
        """Append FOOTPRINTS, FLUX and RUNS to a file of schema `HEAVY_SCHEMA`.

        Parameters
        ----------
        out : FitsWriter
        band, unit : str
        header : mapping, optional
            Further keywords of FOOTPRINTS.
        """
        dtype, codec = (np.int32, "RICE_1") if self.step else (np.float32, "GZIP_2")
        values: NDArray[Any] = np.zeros(1, dtype)
        if self._n_pix:
            self._file.flush()
            values = np.memmap(self._file, dtype, "r", shape=(self._n_pix,))
        runs = np.concatenate(self._runs)
        cards = {"BAND": band, **(header or {}), "FLUXUNIT": unit, "NPIX": self._n_pix,
                 "NRUN": len(runs)}  # fmt: skip
        out.table("FOOTPRINTS", np.concatenate(self._tables), columns=heavy_columns(unit),
                  header=cards)  # fmt: skip
        scale: dict[str, HeaderValue] = {
            "BUNIT": unit,
            **({"BSCALE": self.step} if self.step else {}),
        }
        out.image("FLUX", values, header=scale, compress=codec, tile=(_TILE,))
        out.image("RUNS", runs if len(runs) else np.zeros(1, np.int16), compress="GZIP_2",
                  tile=(_TILE,))  # fmt: skip
        if self._wants_spans:
            out.table("SPANS", np.concatenate(self._spans), columns=_SPAN_COLUMNS)


def write_heavy(
    out: FitsWriter,
    heavy: HeavyFootprints,
    step: float,
    *,
    header: Mapping[str, HeaderValue] | None = None,
    spans: bool = False,
) -> None:
    """Append FOOTPRINTS, FLUX and RUNS; arguments as of `HeavySpool`."""
    with HeavySpool(step, spans=spans) as spool:
        spool.add(heavy)
        spool.write(out, heavy.band, heavy.unit, header=header)


def _span_rows(ids: NDArray[np.int64], footprints: FootprintSet) -> NDArray[Any]:
    rows = np.zeros(len(footprints.spans), table_dtype(_SPAN_COLUMNS))
    rows["id"] = ids[footprints.owner]
    rows["y"], rows["x0"], rows["x1"] = footprints.spans.T
    return rows


def read_heavy(path: str, identifier: int | None = None) -> HeavyFootprints:
    """Read a heavy file, or one object's footprint from it.

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
    ParameterError
        No object has that id.
    """
    with open_fits(path) as file:
        file.require_schema("heavy")
        header = file.header("FOOTPRINTS")
        if identifier is None:
            table = file.table("FOOTPRINTS")
        else:
            row = np.flatnonzero(file.table("FOOTPRINTS", columns=["id"])["id"] == identifier)
            if not len(row):
                raise ParameterError(f"no footprint has id {identifier}", path)
            table = file.table("FOOTPRINTS", rows=slice(int(row[0]), int(row[0]) + 1))
        scale = float(file.header("FLUX").get("BSCALE", 0.0))
        light = _slice(file, "FLUX", table["pix0"], table["n_pix"], int(header["NPIX"]))
        runs = _slice(file, "RUNS", table["run0"], table["n_run"], int(header["NRUN"]))
    runs = runs.astype(np.int16)
    stored = np.rint(light / scale).astype(np.int32) if scale else light.astype(np.float32)
    first = {n: table[n][0] if len(table) else 0 for n in ("pix0", "run0")}
    found = _checksums(table, stored, runs, int(first["pix0"]), int(first["run0"]))
    wrong = np.flatnonzero(found != table["crc32"])
    if len(wrong):
        raise CorruptFileError(
            f"object {table['id'][wrong[0]]} is damaged: its CRC-32 does not match", path,
            "FOOTPRINTS", "re-copy the file, or make it again (coblend info FILE --command)",
        )  # fmt: skip
    boxes = boxes_of(table)
    offsets = box_offsets(boxes)
    start, stop = decode_runs(runs, table["n_run"].astype(np.int64), offsets)
    return HeavyFootprints(
        table,
        intervals_to_footprints(start, stop, boxes, offsets),
        light,
        str(header.get("BAND", "")),
        str(header.get("FLUXUNIT", header.get("BUNIT", ""))),
    )


def _slice(
    file: FitsFile, name: str, first: NDArray[Any], count: NDArray[Any], total: int
) -> NDArray[Any]:
    n = int(count.sum())
    start = int(first[0]) if len(first) else 0
    if n == 0:
        return np.zeros(0)
    if start < 0 or start + n > total:
        raise CorruptFileError(
            f"values {start} to {start + n} are wanted, it has {total}", file.path, name
        )
    return file.image(name, (slice(start, start + n),))


def _checksums(
    table: NDArray[Any],
    light: NDArray[Any],
    runs: NDArray[np.int16],
    pix0: int = 0,
    run0: int = 0,
) -> NDArray[np.int64]:
    names = [n for n in table.dtype.names or () if n != "crc32"]
    n = len(table)
    return row_checksums(
        [
            (table[names], np.arange(n), np.ones(n, np.int64)),
            (light, table["pix0"] - pix0, table["n_pix"]),
            (runs, table["run0"] - run0, table["n_run"]),
        ],
        n,
    )
