"""Tables of a file of deblended models: columns that only the file has, and checksums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.catalog import Column, table_dtype
from coblend.core.errors import FormatError, MissingHduError
from coblend.core.model import BOX_FIELDS
from coblend.io.deblend.encoding import row_checksums

PARENT_STORE = (
    Column("run0", "i8", "First run of the footprint in RUNS (0-based)", "", "meta.record"),
    Column("n_run", "i4", "Runs of the footprint", "", "meta.number"),
    Column("object0", "i4", "First row in OBJECTS (0-based)", "", "meta.record"),
    Column("n_object", "i4", "Rows in OBJECTS", "", "meta.number"),
    Column(
        "crc32",
        "i8",
        "CRC-32 of this row up to here, its objects and its runs",
        "",
        "meta.checksum",
    ),
)
BLEND_STORE = (
    Column("pix0", "i8", "First value in MORPH (0-based)", "", "meta.record"),
    Column("n_pix", "i4", "Values in MORPH", "", "meta.number"),
    Column("run0", "i8", "First run in RUNS (0-based)", "", "meta.record"),
    Column("n_run", "i4", "Runs in RUNS", "", "meta.number"),
    Column(
        "crc32",
        "i8",
        "CRC-32 of this row up to here, its components, values and runs",
        "",
        "meta.checksum",
    ),
)
COMPONENT_STORE = (
    Column("scale", "f4", "Morphology per unit of MORPH", "", "arith.factor"),
    Column("n_pix", "i4", "Values in MORPH", "", "meta.number"),
    Column("n_run", "i4", "Runs in RUNS", "", "meta.number"),
)
CELL_COLUMNS = (
    Column(
        "y",
        "f8",
        "Where the PSFs were evaluated, parent coordinates",
        "pixel",
        "pos.cartesian.y;instr.det",
    ),
    Column(
        "x",
        "f8",
        "Where the PSFs were evaluated, parent coordinates",
        "pixel",
        "pos.cartesian.x;instr.det",
    ),
    Column("crc32", "i8", "CRC-32 of y, x and the stamps as stored", "", "meta.checksum"),
)
_NEEDED = {
    "PARENTS": ("id", *BOX_FIELDS, "blend0", "n_blend", *(c.name for c in PARENT_STORE)),
    "BLENDS": ("id", "parent", *BOX_FIELDS, "object0", "n_object", "component0", "n_component",
               "psf_cell", *(c.name for c in BLEND_STORE)),
    "OBJECTS": ("id", "parent", "blend", "peak_id", "iy", "ix", "component0", "n_component"),
    "COMPONENTS": ("object", "kind", *BOX_FIELDS, "peak_y", "peak_x",
                   *(c.name for c in COMPONENT_STORE)),
    "PSF_CELLS": tuple(c.name for c in CELL_COLUMNS),
}  # fmt: skip
"""Columns that say what belongs where; no version of a file may lack them."""
_ADDED = {
    "y0": "ny", "x0": "nx", "peak_y": "ny", "peak_x": "nx", "blend0": "n_blend",
    "object0": "n_object", "component0": "n_component", "pix0": "n_pix", "run0": "n_run",
}  # fmt: skip
"""Positions and first rows, and what is added to them: the type must hold the sum."""
_INTEGERS = tuple(map(np.dtype, ("u1", "i2", "i4", "i8")))
DAMAGED = "is damaged: its CRC-32 does not match"
REMEDY = "re-copy the file, or make it again (coblend info FILE --command)"


def require_columns(table: NDArray[Any], hdu: str, path: str | None = None) -> NDArray[Any]:
    """Return a table, unless it lacks a column that says what belongs where.

    Raises
    ------
    MissingHduError
    """
    for name in _NEEDED[hdu]:
        if name not in (table.dtype.names or ()):
            raise MissingHduError(f"no column {name}", path, hdu)
    return table


def as_columns(
    table: NDArray[Any], columns: tuple[Column, ...], *, keep: bool = False
) -> NDArray[Any]:
    """Columns of a table in the order and type of ``columns``.

    This is how files of earlier versions are read: a column that they lack is NaN, 0, False or
    empty. ``keep``: further columns of the table follow.
    """
    names = table.dtype.names or ()
    known = {column.name for column in columns}
    more = [(n, table.dtype[n]) for n in names if keep and n not in known]
    out = np.zeros(len(table), [*table_dtype(columns).descr, *more])
    for column in columns:
        if column.name in names:
            out[column.name] = table[column.name]
        elif column.dtype.startswith("f"):
            out[column.name] = np.nan
    for name, _ in more:
        out[name] = table[name]
    return out


def require_models(objects: NDArray[Any], bands: Sequence[str], path: str) -> None:
    """Refuse objects of blends that have fluxes but no models.

    Raises
    ------
    FormatError
    """
    flux = np.stack([objects[f"model_flux_{column_suffix(band)}"] for band in bands], axis=1)
    bare = (objects["blend"] != 0) & (objects["n_component"] == 0)
    bare &= np.any(np.isfinite(flux) & (flux != 0), axis=1)
    if np.any(bare):
        raise FormatError(
            f"{np.count_nonzero(bare)} blended objects have no model", path, "OBJECTS",
            hint="deblend --algorithm sdss stores fluxes (model_flux), with --set heavy=FILE "
            "pixels, too; models come from --algorithm scarlet",
        )  # fmt: skip


def extended(
    table: NDArray[Any], columns: tuple[Column, ...], more: tuple[Column, ...]
) -> NDArray[Any]:
    """Columns of a record followed by columns of the file, the latter zero."""
    out = np.zeros(len(table), table_dtype((*columns, *more)))
    for column in columns:
        out[column.name] = table[column.name]
    return out


def narrowed(table: NDArray[Any]) -> NDArray[Any]:
    """Store every integer but identifiers in the smallest type that holds its column.

    A third of a file are such columns; FITS says of each what it is. Positions and first rows
    are signed and leave room for the box or the number of rows, so that a sum in the stored type
    does not overflow.
    """
    types = []
    for name in table.dtype.names or ():
        dtype = table.dtype[name]
        if name == "crc32":
            dtype = np.dtype("u4")
        elif dtype.kind == "i" and name != "id":
            added = _ADDED.get(name)
            low = min(int(table[name].min(initial=0)), 0 if added is None else -1)
            high = int(table[name].max(initial=0))
            high += 0 if added is None else int(table[added].max(initial=0))
            dtype = next(
                t for t in _INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max
            )
        types.append((name, dtype))
    return table.astype(types)


def row_range(first: NDArray[Any], count: NDArray[Any]) -> tuple[int, int]:
    """First row and number of rows of contiguous ranges, of which some may be empty."""
    filled = np.flatnonzero(count)
    if not len(filled):
        return 0, 0
    start = int(first[filled[0]])
    return start, int(first[filled[-1]]) + int(count[filled[-1]]) - start


def row_of(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each wanted parent id; `FormatError` when one is absent."""
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, wanted, sorter=order)
    row = order[np.minimum(place, len(ids) - 1)] if len(ids) else np.zeros(len(wanted), int)
    if len(wanted) and (not len(ids) or not np.array_equal(ids[row], wanted)):
        raise FormatError("an object names a parent that is not among PARENTS")
    return np.asarray(row, np.int64)


def parent_checksums(
    parents: NDArray[Any],
    objects: NDArray[Any],
    runs: NDArray[np.int16],
    object0: int = 0,
    run0: int = 0,
) -> NDArray[np.int64]:
    """CRC-32 of PARENTS rows; ``object0``, ``run0`` are the first object and run given."""
    return row_checksums(
        [
            _own_row(parents),
            (objects, _shifted(parents["object0"], object0), parents["n_object"]),
            (runs, _shifted(parents["run0"], run0), parents["n_run"]),
        ],
        len(parents),
    )


def blend_checksums(
    blends: NDArray[Any],
    components: NDArray[Any],
    codes: NDArray[Any],
    runs: NDArray[np.int16],
    component0: int = 0,
    pix0: int = 0,
    run0: int = 0,
) -> NDArray[np.int64]:
    """CRC-32 of BLENDS rows; the last three are the first component, value and run given."""
    return row_checksums(
        [
            _own_row(blends),
            (components, _shifted(blends["component0"], component0), blends["n_component"]),
            (codes, _shifted(blends["pix0"], pix0), blends["n_pix"]),
            (runs, _shifted(blends["run0"], run0), blends["n_run"]),
        ],
        len(blends),
    )


def cell_checksums(cells: NDArray[Any], stamps: NDArray[np.float32]) -> NDArray[np.int64]:
    """CRC-32 of PSF_CELLS rows with their stamps, shape (n_cell, n_band, k, k)."""
    n, per_cell = len(cells), stamps[0].size if len(stamps) else 0
    each = np.arange(n)
    flat = np.ascontiguousarray(stamps).ravel()
    return row_checksums([_own_row(cells), (flat, each * per_cell, np.full(n, per_cell))], n)


def _shifted(first: NDArray[np.integer], start: int) -> NDArray[np.int64]:
    return first.astype(np.int64) - start


def _own_row(
    table: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Row itself without its checksum, which is its last column."""
    names = [n for n in table.dtype.names or () if n != "crc32"]
    return table[names], np.arange(len(table)), np.ones(len(table), np.int64)
