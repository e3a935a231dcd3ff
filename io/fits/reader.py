"""Reading HDUs: structure checked first, errors that name file and HDU, native byte order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import fitsio
import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import CorruptFileError, MissingHduError, SchemaError
from coblend.core.exposure import HeaderValue
from coblend.io.fits.checksum import data_intact, header_intact
from coblend.io.fits.structure import HduInfo, is_gzipped, scan
from coblend.io.fits.temporary import plain_path
from coblend.io.fits.tiles import check_tiles

_STALE = (
    "re-copy the file or make it again; if a program changed it on purpose, let it write "
    "checksums too (astropy: checksum=True)"
)


class FitsFile:
    """An open FITS file; use `open_fits`.

    Parameters
    ----------
    path : str
        Path for messages.
    hdus : list of HduInfo
        Its structure.
    handle : fitsio.FITS
    raw : binary stream
        The same file, for checksums.

    Attributes
    ----------
    packed : bool
        Whether it is gzipped as a whole.
    """

    def __init__(self, path: str, hdus: list[HduInfo], handle: Any, raw: BinaryIO) -> None:
        self.path = path
        self.hdus = hdus
        self._handle = handle
        self._raw = raw
        self.packed = is_gzipped(raw)

    @property
    def names(self) -> list[str]:
        """EXTNAME of every HDU, "" where it has none."""
        return [hdu.name for hdu in self.hdus]

    @property
    def schema(self) -> tuple[str, int]:
        """Kind and major version of one of our files; ``("", 0)`` for others."""
        kind, _, version = (self.hdus[0].value("SCHEMA") or "").partition("/")
        major = version.split(".")[0]
        return (kind, int(major)) if major.isdigit() else ("", 0)

    def require_schema(self, kind: str, major: int = 1) -> None:
        """Check that this is one of our files of ``kind``, with undamaged headers.

        Raises
        ------
        CorruptFileError
            A header disagrees with its checksum.
        SchemaError
            It is another kind, or newer than ``major``.
        """
        self.require_headers()
        found, version = self.schema
        if found != kind:
            what = f"schema {found}" if found else f"HDUs {self.describe()}"
            raise SchemaError(f"{what}, expected schema {kind}", self.path)
        if version > major:
            raise SchemaError(
                f"schema {kind}/{version} is newer than this program knows ({kind}/{major})",
                self.path,
                hint="upgrade coblend",
            )

    def require_headers(self) -> None:
        """Check the headers of all HDUs against their checksums, where they have any.

        Raises
        ------
        CorruptFileError
        """
        for index, hdu in enumerate(self.hdus):
            if not self.packed and not header_intact(self._raw, hdu):
                raise CorruptFileError(
                    "its header is damaged: its CHECKSUM does not match",
                    self.path, hdu.name or str(index), _STALE,
                )  # fmt: skip

    def has(self, name: str) -> bool:
        """Whether an HDU of that EXTNAME exists."""
        return name.upper() in self.names

    def index(self, name: str | int, version: int = 0) -> int:
        """Position of an HDU.

        Raises
        ------
        MissingHduError
            There is none; the message lists what there is.
        """
        if isinstance(name, int):
            if 0 <= name < len(self.hdus):
                return name
        else:
            for i, hdu in enumerate(self.hdus):
                if hdu.name == name.upper() and version in (0, hdu.version):
                    return i
        raise MissingHduError(f"no HDU {name}; it has {self.describe()}", self.path)

    def info(self, name: str | int) -> HduInfo:
        """Structure of one HDU."""
        return self.hdus[self.index(name)]

    def describe(self) -> str:
        """List the HDUs with their sizes, in one line."""
        return ", ".join(f"{i} {hdu.describe()}" for i, hdu in enumerate(self.hdus))

    def cards(self, name: str | int) -> tuple[str, ...]:
        """Header cards of one HDU, verbatim."""
        return self.info(name).cards

    def header(self, name: str | int = 0) -> Mapping[str, HeaderValue]:
        """Header of one HDU as values by upper-case keyword; comments are left out."""
        with self._reading(name) as hdu:
            records = hdu.read_header().records()
        return {
            r["name"].upper(): r["value"]
            for r in records
            if r["name"] and r["name"] not in ("COMMENT", "HISTORY") and r["value"] is not None
        }

    def image(
        self,
        name: str | int,
        section: tuple[slice, ...] | None = None,
        *,
        words: bool = False,
    ) -> NDArray[Any]:
        """Pixels of one HDU in native byte order; BSCALE, BZERO and BLANK applied.

        Parameters
        ----------
        name : str or int
        section : tuple of slice, optional
            Part of the array, numpy order; reads only what it needs.
        words : bool
            Whether integers are words of a mask, which stay what they are, even if BLANK;
            else a plane with BLANK becomes one of floats with NaN.
        """
        info = self.info(name)
        if info.kind == "table" or not info.shape:
            raise MissingHduError(
                f"holds no image ({info.describe()})", self.path, str(info.name or name)
            )
        self._require_intact(info, section)
        blanked = info.blank is not None and not words
        with self._reading(name) as hdu:
            hdu.ignore_scaling = blanked  # BLANK is a number before the scaling
            data = hdu.read() if section is None else hdu[section]
        return _native(_scaled(data, info) if blanked else data)

    def table(
        self,
        name: str | int,
        columns: Sequence[str] | None = None,
        rows: slice | None = None,
    ) -> NDArray[Any]:
        """Rows of a binary table as a structured array in native byte order.

        A whole table of one of our files is checked against its DATASUM; some of its columns or
        rows are not, they have checksums of their own where it matters.

        Raises
        ------
        MissingHduError
            The HDU or a column is absent.
        """
        info = self.info(name)
        if info.kind != "table":
            raise MissingHduError("is not a table", self.path, str(info.name or name))
        if columns is None and rows is None:
            self._require_intact(info)
        with self._reading(name) as hdu:
            names = {n.lower(): n for n in hdu.get_colnames()}
            missing = [c for c in columns or () if c.lower() not in names]
            if missing:
                raise MissingHduError(
                    f"no column {missing[0]}; it has {', '.join(names.values())}",
                    self.path,
                    str(info.name or name),
                )
            wanted = None if columns is None else [names[c.lower()] for c in columns]
            first, last = (0, info.shape[0]) if rows is None else rows.indices(info.shape[0])[:2]
            if last <= first:  # CFITSIO reads no empty range; the first row gives the types
                data = np.zeros(0, _text(hdu.get_rec_dtype(colnums=None)[0]))
                data = data if wanted is None else data[wanted]
            elif rows is None:
                data = hdu.read(columns=wanted)
            else:
                data = hdu.read(columns=wanted, rows=np.arange(first, last))
        return _native(data)

    def _require_intact(self, info: HduInfo, section: tuple[slice, ...] | None = None) -> None:
        """Refuse damaged data: they decode to wrong numbers, or make CFITSIO loop for ever.

        Of our own files, an HDU that is read whole must agree with its DATASUM; of other files
        and sections, the compressed tiles are checked.

        Raises
        ------
        CorruptFileError
        """
        if self.packed:
            return  # gzip has its own checksum
        own = self.hdus[0].value("SCHEMA") is not None and info.value("DATASUM") is not None
        if own and section is None:
            if not data_intact(self._raw, info):
                raise CorruptFileError(
                    "is damaged: its DATASUM does not match", self.path, info.name, _STALE
                )
        elif info.kind == "compressed":
            check_tiles(self._raw, self.path, info, section)

    @contextmanager
    def _reading(self, name: str | int) -> Iterator[Any]:
        index = self.index(name)
        try:
            yield self._handle[index]
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, MissingHduError):
                raise
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else "unreadable"
            raise CorruptFileError(
                f"cannot be read: {reason}", self.path, self.hdus[index].name or str(index)
            ) from error


@contextmanager
def open_fits(path: str) -> Iterator[FitsFile]:
    """Open a file for reading after checking its structure.

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
        See `coblend.io.fits.structure.scan`.
    """
    hdus = scan(path)
    with plain_path(path) as plain:
        try:
            handle = fitsio.FITS(plain, "r")
        except (OSError, ValueError) as error:
            raise CorruptFileError("cannot be opened as FITS", path) from error
        with open(path, "rb") as raw:
            try:
                yield FitsFile(path, hdus, handle, raw)
            finally:
                handle.close()


def text_of(cell: object) -> str:
    """Text of a table cell, which FITS pads with blanks."""
    return str(cell).strip()


def _scaled(data: NDArray[Any], info: HduInfo) -> NDArray[Any]:
    """Scale integers of a file; NaN where they are BLANK. Others are scaled by CFITSIO."""
    scale, zero = info.scale
    values = np.where(data == info.blank, np.nan, data * scale + zero)
    return values.astype(np.float32) if data.dtype.itemsize <= 2 else values


def _native(data: NDArray[Any]) -> NDArray[Any]:
    native = data.dtype.newbyteorder("=")
    return np.ascontiguousarray(data.astype(native, copy=False))


def _text(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Bytes columns as text, which is how fitsio returns them."""
    names = dtype.names or ()
    return np.dtype(
        [(n, f"U{dtype[n].itemsize}" if dtype[n].kind == "S" else dtype[n]) for n in names]
    )
