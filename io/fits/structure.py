"""The HDUs of a file, found by walking its bytes.

No FITS library says plainly that a file is truncated, and a file cut at an HDU boundary opens
without complaint everywhere; so every open starts with this walk (a few milliseconds, headers
only).
"""

from __future__ import annotations

import gzip
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from coblend.core.errors import CorruptFileError, FormatError, InputMissingError

BLOCK = 2880
CARD = 80
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?")
_FITS = (b"SIMPLE", b"\x1f\x8b")
_REMEDY = "re-copy the file, or make it again"
_MAX_HEADER = 4000 * BLOCK  # a header longer than this is not a header


def is_fits(path: str) -> bool:
    """Whether a file begins like a FITS file, plain or gzipped.

    Raises
    ------
    InputMissingError
        It does not exist or cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(6).startswith(_FITS)
    except FileNotFoundError as error:
        raise InputMissingError("no such file", path) from error
    except OSError as error:
        raise InputMissingError(f"cannot be read: {error.strerror}", path) from error


@dataclass(frozen=True, slots=True)
class HduInfo:
    """One HDU as its header describes it.

    Parameters
    ----------
    name : str
        EXTNAME in upper case, "" if none.
    version : int
        EXTVER, 1 if none.
    kind : str
        ``image``, ``compressed`` (tile-compressed image) or ``table``.
    shape : tuple of int
        Image shape in numpy order; ``(rows,)`` of a table.
    start, data, end : int
        Byte offsets of the header, the data and the next HDU.
    cards : tuple of str
        The header's 80-character cards up to END.
    scale : (float, float)
        BSCALE and BZERO of an image.
    blank : int or None
        BLANK of an image of integers: the number in the file that means no value.
    """

    name: str
    version: int
    kind: str
    shape: tuple[int, ...]
    start: int
    data: int
    end: int
    cards: tuple[str, ...]
    scale: tuple[float, float] = (1.0, 0.0)
    blank: int | None = None

    def value(self, key: str) -> str | None:
        """Value of the first card named ``key`` as text, without quotes; None if absent."""
        return _value(self.cards, key)

    def describe(self) -> str:
        """Name and size, for messages."""
        size = "x".join(str(n) for n in self.shape[::-1])
        size = f"table of {size} rows" if self.kind == "table" else size
        return f"{self.name or '(unnamed)'} {size}" if size else self.name or "(empty)"


def is_gzipped(stream: BinaryIO) -> bool:
    """Whether an open file is gzipped, whatever its name."""
    stream.seek(0)
    return stream.read(2) == b"\x1f\x8b"


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading, a gzipped one decompressed.

    Raises
    ------
    FormatError
        It is a pipe or a device.
    """
    with ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(open(path, "rb"))
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            raise FormatError("is a pipe or a device, expected a file that can be sought", path)
        if is_gzipped(raw):
            raw = stack.enter_context(gzip.open(path, "rb"))  # type: ignore[assignment]
        raw.seek(0)
        yield raw


def scan(path: str) -> list[HduInfo]:
    """Walk all HDUs of a FITS file (or a gzipped one).

    Raises
    ------
    InputMissingError
        No such file, or it cannot be read.
    FormatError
        It is not FITS.
    CorruptFileError
        It ends inside an HDU, or has another number of extensions than its NEXTEND says.
    """
    try:
        with open_bytes(path) as stream:
            return _walk(stream, stream.seek(0, os.SEEK_END), path)
    except FileNotFoundError as error:
        raise InputMissingError("no such file", path) from error
    except IsADirectoryError as error:
        raise InputMissingError("is a directory, expected a FITS file", path) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError("truncated or damaged gzip file", path) from error
    except PermissionError as error:
        raise InputMissingError("cannot be read: permission denied", path) from error


def _walk(stream: BinaryIO, size: int, path: str) -> list[HduInfo]:
    _require_fits(stream, size, path)
    hdus: list[HduInfo] = []
    position = 0
    while position < size:
        stream.seek(position)
        first = stream.read(CARD)
        if hdus and not first.startswith(b"XTENSION"):
            break  # special records or padding after the last HDU: allowed by the standard
        hdu = _read_hdu(stream, position, size, len(hdus), path)
        hdus.append(hdu)
        position = hdu.end
    own = hdus[0].value("SCHEMA") is not None
    expected = hdus[0].value("NEXTEND")
    if own and expected not in (None, str(len(hdus) - 1)):
        raise CorruptFileError(
            f"truncated: {len(hdus) - 1} extensions, the primary header says {expected}",
            path,
            hint=_REMEDY,
        )
    if own and position != size:
        raise CorruptFileError(f"{size - position} bytes after the last HDU, expected none", path)
    return hdus


def _require_fits(stream: BinaryIO, size: int, path: str) -> None:
    if size == 0:
        raise CorruptFileError("empty file, expected FITS", path)
    stream.seek(0)
    start = stream.read(CARD)
    if start.startswith(b"SIMPLE  ="):
        return
    if b"SIMPLE  =".startswith(start):
        raise CorruptFileError(f"truncated: {size} bytes", path)
    if start.lstrip()[:1] == b"<":
        raise FormatError("an HTML or XML page, not FITS (a failed download?)", path)
    text = start[:24].decode("ascii", "replace").split("\n")[0]
    raise FormatError(f"not a FITS file: it starts with {text!a}", path)


def _read_hdu(stream: BinaryIO, start: int, size: int, index: int, path: str) -> HduInfo:
    cards = _read_header(stream, start, size, index, path)
    data = start + -(-(len(cards) + 1) * CARD // BLOCK) * BLOCK
    try:
        naxis = [_integer(cards, f"NAXIS{i + 1}") for i in range(_integer(cards, "NAXIS"))]
        end = data + -(-_data_length(cards, naxis) // BLOCK) * BLOCK
        kind, shape = _kind(cards, naxis)
        version = _integer(cards, "EXTVER", 1)
        scale, blank = _scaling(cards, kind)
    except ValueError as error:
        raise CorruptFileError(
            f"the header of HDU {index} is damaged: {error}", path, hint=_REMEDY
        ) from error
    name = (_value(cards, "EXTNAME") or "").upper()
    if end > size:
        raise CorruptFileError(
            f"truncated: {size} bytes, needs {end} (HDU {index} {name or 'primary'})",
            path,
            hint=_REMEDY,
        )
    return HduInfo(name, version, kind, shape, start, data, end, cards, scale, blank)


def _data_length(cards: tuple[str, ...], naxis: list[int]) -> int:
    """Bytes of data (FITS standard 4.0, equation 2)."""
    extra = _integer(cards, "PCOUNT")
    if min([extra, *naxis]) < 0:
        raise ValueError(f"negative size {min([extra, *naxis])}")
    count = math.prod(naxis) if naxis else 0
    return abs(_integer(cards, "BITPIX")) // 8 * _integer(cards, "GCOUNT", 1) * (extra + count)


def _read_header(
    stream: BinaryIO, start: int, size: int, index: int, path: str
) -> tuple[str, ...]:
    stream.seek(start)
    cards: list[str] = []
    while stream.tell() < min(size, start + _MAX_HEADER):
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            break
        text = block.decode("latin-1")
        for i in range(0, BLOCK, CARD):
            card = text[i : i + CARD]
            if card[:8] == "END     ":
                return tuple(cards)
            cards.append(card)
    raise CorruptFileError(f"truncated: the header of HDU {index} has no END", path, hint=_REMEDY)


def _kind(cards: tuple[str, ...], naxis: list[int]) -> tuple[str, tuple[int, ...]]:
    extension = _value(cards, "XTENSION") or "IMAGE"
    if extension == "IMAGE":
        return "image", tuple(naxis[::-1])
    if _value(cards, "ZIMAGE") == "T":
        n = _integer(cards, "ZNAXIS")
        return "compressed", tuple(_integer(cards, f"ZNAXIS{i}") for i in range(n, 0, -1))
    return "table", (naxis[1],) if len(naxis) > 1 else (0,)


def _scaling(cards: tuple[str, ...], kind: str) -> tuple[tuple[float, float], int | None]:
    """BSCALE and BZERO of an image, and BLANK of one of integers; what is no number is ignored."""
    if kind == "table":
        return (1.0, 0.0), None
    scale = _number(cards, "BSCALE", 1.0), _number(cards, "BZERO", 0.0)
    prefix = "Z" if kind == "compressed" else ""
    if _integer(cards, f"{prefix}BITPIX") < 0:
        return scale, None
    keys = [key for key in (f"{prefix}BLANK", "BLANK") if _value(cards, key)]
    blank = _number(cards, keys[0], math.nan) if keys else math.nan
    return scale, int(blank) if blank.is_integer() else None


def card_number(text: str) -> float:
    """Read the number in the value field of a card; its exponent may be written with D.

    Raises
    ------
    ValueError
        There is none.
    """
    value = text.split("/")[0].strip()
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{value!r} is not a number")
    return float(re.sub("[Dd]", "E", value))


def _number(cards: tuple[str, ...], key: str, default: float) -> float:
    with suppress(ValueError):
        return card_number(_value(cards, key) or "")
    return default


def _integer(cards: tuple[str, ...], key: str, default: int = 0) -> int:
    value = _value(cards, key)
    if value is None:
        return default
    if not _INTEGER.fullmatch(value):
        raise ValueError(f"{key} is {value!r}")
    return int(value)


def _value(cards: tuple[str, ...], key: str) -> str | None:
    start = f"{key:<8}= "
    for card in cards:
        if card.startswith(start):
            text = card[10:]
            if text.lstrip().startswith("'"):
                body = text.lstrip()[1:]
                return body.replace("''", "\0").split("'")[0].replace("\0", "'").rstrip()
            return text.split("/")[0].strip()
    return None
