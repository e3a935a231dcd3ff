"""Rows of image planes, read a few at a time.

Uncompressed planes are read straight from their place in the file: no library buffers, no open
handles, and as little as one row costs no more than its bytes. Others go through CFITSIO.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import RawIOBase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import CorruptFileError
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.structure import HduInfo

_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True, slots=True)
class RowReader:
    """One image plane of a file.

    Parameters
    ----------
    path : str
    index : int
        Number of the HDU.
    shape : tuple of int
        ``(ny, nx)``.
    dtype : str
        Type of the pixels in the file when they can be read straight from it, else "".
    start : int
        Offset of the first pixel (byte).
    whole : bool
        Whether any row costs as much as the whole file, which is gzipped.
    words : bool
        Whether it is a mask (`FitsFile.image`).
    """

    path: str
    index: int
    shape: tuple[int, int]
    dtype: str
    start: int
    whole: bool
    words: bool = False

    @classmethod
    def of(cls, file: FitsFile, index: int, *, words: bool = False) -> RowReader:
        """Describe HDU ``index`` of an open file, which may be closed afterwards."""
        info = file.hdus[index]
        dtype = "" if file.packed else _plain_dtype(info)
        ny, nx = info.shape[-2:]
        return cls(file.path, index, (ny, nx), dtype, info.data, file.packed, words)

    @property
    def straight(self) -> bool:
        """Whether a few rows cost no more than their bytes."""
        return bool(self.dtype)

    def read(self, rows: slice, columns: slice, file: FitsFile | None = None) -> NDArray[Any]:
        """Pixels of a section in native byte order, shape (n_row, n_column).

        Parameters
        ----------
        rows, columns : slice
        file : FitsFile, optional
            The file, if it is open already.

        Raises
        ------
        CorruptFileError
            The file ends early.
        """
        if not self.straight:
            if file is not None:
                return file.image(self.index, (rows, columns), words=self.words)
            with open_fits(self.path) as opened:
                return opened.image(self.index, (rows, columns), words=self.words)
        width = self.shape[1]
        block = np.empty((rows.stop - rows.start, width), self.dtype)
        with open(self.path, "rb", buffering=0) as stream:
            stream.seek(self.start + rows.start * width * block.itemsize)
            n_read = _fill(stream, block.data.cast("B"))
        if n_read != block.nbytes:
            raise CorruptFileError(
                f"truncated: {n_read} of {block.nbytes} bytes of rows "
                f"{rows.start + 1} to {rows.stop}",
                self.path,
                str(self.index),
            )
        if sys.byteorder == "little":
            block = block.byteswap(inplace=True)
        native: NDArray[Any] = block.view(block.dtype.newbyteorder("="))
        return np.ascontiguousarray(native[:, columns])  # a part does not keep the rest


def _fill(stream: RawIOBase, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends; one call reads no more than 2 GiB."""
    n_read = 0
    while n := stream.readinto(buffer[n_read:]):
        n_read += n
    return n_read


def _plain_dtype(info: HduInfo) -> str:
    """Type of the pixels as stored; "" if they are compressed, scaled or have a BLANK."""
    if info.kind != "image" or info.scale != (1, 0) or info.blank is not None:
        return ""
    return _DTYPES.get(int(info.value("BITPIX") or 0), "")
