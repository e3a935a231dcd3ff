"""Checks of tile-compressed images before CFITSIO sees them.

CFITSIO trusts what it decompresses: where a gzipped tile is damaged it allocates memory without
end instead of failing, and a damaged descriptor makes it read elsewhere. So the tiles that a
section touches are looked at first.
"""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import CorruptFileError
from coblend.io.fits.structure import HduInfo

_ARRAY = re.compile(r"^\d*([PQ])([BIJ])")
_ITEM = {"B": 1, "I": 2, "J": 4}
_FIELD = re.compile(r"^(\d*)([LXBIJKAEDCMPQ])")
_BYTES = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "E": 4, "K": 8, "D": 8, "C": 8, "M": 16,
          "P": 8, "Q": 16}  # fmt: skip


def check_tiles(
    stream: BinaryIO, path: str, hdu: HduInfo, section: tuple[slice, ...] | None = None
) -> None:
    """Check the tiles that a section of a compressed image touches.

    Every descriptor must point into the heap, and gzipped tiles must decompress.

    Raises
    ------
    CorruptFileError
        Naming the first damaged tile.
    """
    rows = _touched(hdu, section)
    if not len(rows):
        return
    gzipped = (hdu.value("ZCMPTYPE") or "").startswith("GZIP")
    width, n_row = (int(hdu.value(f"NAXIS{i}") or 0) for i in (1, 2))
    heap = hdu.data + int(hdu.value("THEAP") or width * n_row)
    size = int(hdu.value("PCOUNT") or 0) - (heap - hdu.data - width * n_row)
    first, last = int(rows[0]), int(rows[-1])
    stream.seek(hdu.data + first * width)
    table = np.frombuffer(stream.read((last + 1 - first) * width), np.uint8)
    table = table.reshape(-1, width)[rows - first]
    for name, start, kind, item in _arrays(hdu):
        pairs = np.ascontiguousarray(table[:, start : start + (8 if kind == "P" else 16)])
        numbers = pairs.view(">i4" if kind == "P" else ">i8")
        count, place = numbers[:, 0].astype(np.int64) * item, numbers[:, 1].astype(np.int64)
        bad = (count < 0) | (place < 0) | (count > size - place)
        if not np.any(bad) and (gzipped or name == "GZIP_COMPRESSED_DATA"):
            bad = _damaged(stream, heap + place, count)
        if np.any(bad):
            tile = int(rows[np.flatnonzero(bad)[0]])
            raise CorruptFileError(
                f"tile {tile} is damaged", path, hdu.name,
                "re-copy the file, or make it again (coblend info FILE --command)",
            )  # fmt: skip


def _damaged(
    stream: BinaryIO, place: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each gzipped tile fails to decompress; empty tiles are fine."""
    bad = np.zeros(len(place), bool)
    for i, (start, length) in enumerate(zip(place.tolist(), count.tolist(), strict=True)):
        if not length:
            continue
        stream.seek(start)
        inflate = zlib.decompressobj(wbits=31)
        try:
            inflate.decompress(stream.read(length))
        except zlib.error:
            bad[i] = True
        else:
            bad[i] = not inflate.eof
    return bad


def _arrays(hdu: HduInfo) -> list[tuple[str, int, str, int]]:
    """Columns of variable length: name, first byte in the row, P or Q, bytes per item."""
    out, start = [], 0
    for i in range(1, int(hdu.value("TFIELDS") or 0) + 1):
        form = hdu.value(f"TFORM{i}") or ""
        array = _ARRAY.match(form)
        if array:
            name = hdu.value(f"TTYPE{i}") or ""
            out.append((name.upper(), start, array[1], _ITEM[array[2]]))
        field = _FIELD.match(form)
        if field:
            start += int(field[1] or 1) * _BYTES.get(field[2], 0)
    return out


def _touched(hdu: HduInfo, section: tuple[slice, ...] | None) -> NDArray[np.int64]:
    """Rows of the tile table that a section needs, ascending."""
    shape = hdu.shape
    tile = [int(hdu.value(f"ZTILE{len(shape) - axis}") or 1) for axis in range(len(shape))]
    if not hdu.value("ZTILE1"):
        tile = [1] * (len(shape) - 1) + [shape[-1]]  # the standard's default: rows
    ranges, grid = [], []
    for axis, n in enumerate(shape):
        part = slice(None) if section is None else section[axis]
        first, last, _ = part.indices(n)
        if last <= first:
            return np.zeros(0, np.int64)
        ranges.append(np.arange(first // tile[axis], (last - 1) // tile[axis] + 1))
        grid.append(-(-n // tile[axis]))
    index = np.ravel_multi_index(np.ix_(*ranges), grid)
    return np.asarray(index, np.int64).ravel()
