"""Writing files: whole or not at all, the same bytes for the same content.

A file is written under a hidden name beside its place, gets its checksums, is checked, synced
and then renamed. Compression is lossless unless a caller gives a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import fitsio
import numpy as np
from numpy.typing import DTypeLike, NDArray

from coblend.core.catalog import Column
from coblend.core.errors import (
    CoblendError,
    OutputError,
    ParameterError,
)
from coblend.core.exposure import HeaderValue
from coblend.io.fits.checksum import PLACEHOLDERS, seal
from coblend.io.fits.output import disk_error, gzip_file, replacing
from coblend.io.fits.provenance import Provenance, creation_date
from coblend.io.fits.structure import scan

_TILE = 256
_PLIO_LIMIT = 1 << 24
_LONG = 68  # longer texts are continued on a second card
_SEED = 1  # of the dither; 1 to 10000
_INTEGER_CODECS = ("RICE_1", "PLIO_1")
_CODECS = ("none", "GZIP_2", *_INTEGER_CODECS)


class FitsWriter:
    """A file being written; use `create`.

    Parameters
    ----------
    path : str
        Final path, for messages.
    handle : fitsio.FITS
    """

    def __init__(self, path: str, handle: Any) -> None:
        self.path = path
        self._handle = handle

    def primary(self, header: Mapping[str, HeaderValue]) -> None:
        """Write the empty primary HDU."""
        self._handle.write(None)
        self._cards(self._handle[0], header, ())

    def image(
        self,
        name: str,
        data: NDArray[Any],
        *,
        header: Mapping[str, HeaderValue] | None = None,
        wcs: Sequence[str] = (),
        compress: str = "auto",
        tile: tuple[int, ...] | None = None,
        step: float | None = None,
    ) -> None:
        """Append an image HDU.

        Parameters
        ----------
        name : str
            EXTNAME.
        data : array
            1 to 4 dimensions; bool is stored as bytes.
        header : mapping, optional
            Keywords and values; None values are left out.
        wcs : sequence of str
            Cards written verbatim.
        compress : str
            ``auto``: lossless, the best codec for the type (GZIP_2 for floats, PLIO_1 or GZIP_2
            for integers); ``none``; or ``RICE_1``, ``GZIP_2``, ``PLIO_1`` (integers only for
            RICE_1).
        tile : tuple of int, optional
            Tile shape in numpy order; default 256 x 256 on the last two axes.
        step : float, optional
            Floats may be rounded to multiples of this. They are dithered, so that no mean is
            off; zeros and NaNs stay.
        """
        data = np.ascontiguousarray(data.astype(np.uint8) if data.dtype == bool else data)
        if compress == "auto":
            compress = _codec(data)
        tile = tile or tuple(
            min(_TILE, n) if axis >= data.ndim - 2 else 1 for axis, n in enumerate(data.shape)
        )
        with self._writing(name):
            hdu = self._image_hdu(
                name, data.shape, data.dtype, dict(header or {}), wcs, compress, tile, step
            )
            hdu.write(data, start=[0] * data.ndim)  # at once: later tiles would forget the step

    def stream(
        self,
        name: str,
        blocks: Iterable[NDArray[Any]],
        shape: tuple[int, int],
        dtype: DTypeLike,
        *,
        header: Mapping[str, HeaderValue] | None = None,
        wcs: Sequence[str] = (),
        compress: str = "GZIP_2",
    ) -> None:
        """Append a 2-D image HDU from blocks of whole rows in order, in the memory of one block.

        Tiles are single rows: CFITSIO compresses row by row when it gets an image in parts, and
        taller tiles would be written again for every row. Other parameters as in `image`.
        """
        with self._writing(name):
            hdu = self._image_hdu(
                name, shape, np.dtype(dtype), dict(header or {}), wcs, compress, (1, shape[1])
            )
            row = 0
            for block in blocks:
                hdu.write(np.ascontiguousarray(block), start=[row, 0])
                row += len(block)

    def _image_hdu(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        header: dict[str, HeaderValue],
        wcs: Sequence[str],
        compress: str,
        tile: tuple[int, ...],
        step: float | None = None,
    ) -> Any:
        is_float = dtype.kind == "f"
        if compress not in _CODECS or (is_float and compress in _INTEGER_CODECS):
            raise ParameterError(f"{name}: {compress} does not store {dtype} losslessly")
        options: dict[str, Any] = {}
        if compress != "none":
            options = {"compress": compress, "tile_dims": tile}
            options |= {"qlevel": 0} if is_float else {}
        if step is not None:
            # CFITSIO reads a negative level as the step itself; its seeds from the clock or from
            # the pixels are lost between fitsio's calls, so that the dither is not subtracted
            options |= {"compress": "RICE_1", "tile_dims": tile, "qlevel": -step,
                        "qmethod": "SUBTRACTIVE_DITHER_2", "dither_seed": _SEED}  # fmt: skip
        # room for the cards is reserved now: a header that grows later moves the data
        room = [{"name": "COMMENT", "value": "x"}] * (len(header) + len(wcs) + 12)
        self._handle.create_image_hdu(
            dims=shape, dtype=dtype, extname=name, header=fitsio.FITSHDR(room), **options
        )
        hdu = self._handle[-1]
        self._cards(hdu, {"EXTNAME": name, **header}, wcs)
        return hdu

    def table(
        self,
        name: str,
        rows: NDArray[Any],
        *,
        columns: Sequence[Column] = (),
        header: Mapping[str, HeaderValue] | None = None,
        wcs: Sequence[str] = (),
    ) -> None:
        """Append a binary table from a structured array.

        Parameters
        ----------
        name : str
            EXTNAME.
        rows : structured array
        columns : sequence of Column
            Units (TUNIT), UCDs (TUCD) and descriptions (TCOMM) by column name.
        header : mapping, optional
        wcs : sequence of str
            Cards written verbatim.
        """
        known = {c.name: c for c in columns}
        cards: dict[str, HeaderValue] = {"EXTNAME": name, **(header or {})}
        for i, column in enumerate(rows.dtype.names or (), 1):
            if column in known:
                spec = known[column]
                fields = (("TUNIT", spec.unit), ("TUCD", spec.ucd), ("TCOMM", spec.description))
                cards.update({f"{key}{i}": text for key, text in fields if text})
        with self._writing(name):
            self._handle.write_table(_ascii(rows), extname=name)
            self._cards(self._handle[-1], cards, wcs)

    def finish(self) -> None:
        """Write NEXTEND and close."""
        with self._writing("primary"):
            self._handle[0].write_key("NEXTEND", len(self._handle) - 1, "number of extensions")
            self._handle.close()

    def _cards(
        self, hdu: Any, header: Mapping[str, HeaderValue | None], wcs: Sequence[str]
    ) -> None:
        number = hdu.get_extnum() + 1
        # fitsio's public calls reformat values; only this one writes a card as it is
        write = partial(hdu._FITS.write_record, number)
        for card in wcs:  # before the frame's keywords: WCSAXES precedes all others of a WCS
            write(card)
        if any(isinstance(v, str) and len(v) + v.count("'") > _LONG for v in header.values()):
            write("LONGSTRN= 'OGIP 1.0'")
        for key, value in header.items():
            if value is not None and not (isinstance(value, float) and not np.isfinite(value)):
                hdu.write_key(key, _plain(value))
        for card in PLACEHOLDERS:
            write(card)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except CoblendError:
            raise
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise disk_error(error, self.path, name) from error


@contextmanager
def create(
    path: str,
    schema: str,
    *,
    overwrite: bool = False,
    header: Mapping[str, HeaderValue] | None = None,
    provenance: Provenance | None = None,
) -> Iterator[FitsWriter]:
    """Create a FITS file that appears under its name only when the block ends without error.

    Parameters
    ----------
    path : str
        Final name; missing folders are made.
    schema : str
        ``<kind>/<major>``, e.g. ``exposure/1``.
    overwrite : bool
        Whether an existing file may be replaced.
    header : mapping, optional
        Further primary keywords.
    provenance : Provenance, optional

    Raises
    ------
    OutputExistsError
        The file exists and ``overwrite`` is False.
    OutputError
        The folder cannot be written to.
    DiskError
        Writing failed midway, e.g. disk full; nothing is left behind.
    """
    with replacing(path, overwrite=overwrite) as temporary:
        try:
            handle = fitsio.FITS(temporary, "rw", clobber=True)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot be created: {error}", path) from error
        writer = FitsWriter(path, handle)
        try:
            made = dict(provenance.header()) if provenance else {}
            primary = {"SCHEMA": schema, "DATE": creation_date(), **made, **(header or {})}
            writer.primary(primary)
            yield writer
            for name, rows, columns in provenance.tables() if provenance else ():
                writer.table(name, rows, columns=columns)
            writer.finish()
        finally:
            with suppress(OSError):
                handle.close()
        seal(temporary)
        scan(temporary)
        if path.endswith(".gz"):
            gzip_file(temporary)


def _codec(data: NDArray[Any]) -> str:
    if data.size == 0 or data.ndim > 3:  # CFITSIO fails to write compressed 4-D images
        return "none"
    if data.dtype.kind == "f":
        return "GZIP_2"
    if data.ndim == 2 and data.min() >= 0 and data.max() < _PLIO_LIMIT:
        return "PLIO_1"
    return "none" if data.dtype.itemsize == 8 else "GZIP_2"


def _ascii(rows: NDArray[Any]) -> NDArray[Any]:
    """Text columns as ASCII bytes, which is what FITS stores; other letters are escaped."""
    names = rows.dtype.names or ()
    texts = {name: _encoded(rows[name]) for name in names if rows.dtype[name].kind == "U"}
    if not texts:
        return rows
    kinds = [(name, texts[name].dtype if name in texts else rows.dtype[name]) for name in names]
    out = np.empty(rows.shape, kinds)
    for name in names:
        out[name] = texts.get(name, rows[name])
    return out


def _encoded(texts: NDArray[np.str_]) -> NDArray[np.bytes_]:
    width = max(texts.dtype.itemsize // 4, 1)
    try:
        return texts.astype(f"S{width}")
    except UnicodeEncodeError:
        escaped = np.strings.encode(texts, "ascii", "backslashreplace")
        return escaped.astype(f"S{max(width, escaped.dtype.itemsize)}")


def _plain(value: HeaderValue) -> HeaderValue:
    return value.item() if isinstance(value, np.generic) else value
