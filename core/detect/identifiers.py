"""Identifiers that depend on nothing but the field, the band and the peak's pixel.

63 bits: field 24, band 6, kind 2, ``y mod 32768`` 15, ``x mod 65536`` 16. The same source keeps
its identifier when options, other sources or the extent of the cut-out change.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError, ParameterError

MERGED = 62
FOREIGN = 63
"""Band codes of merged catalogues and of catalogues of other programs; never 0, so that the
identifier of pixel (0, 0) is positive too."""
PARENT, PEAK, SKY_PARENT, SKY_PEAK = range(4)
"""Kinds of row."""

_SPACE = (
    "F225W F275W F336W F390W F435W F438W F475W F555W F606W F625W F775W F814W F850LP "
    "F070W F090W F098M F105W F110W F115W F125W F140M F140W F150W F160W F162M F182M F200W F210M "
    "F250M F277W F300M F335M F356W F360M F410M F430M F444W F460M F480M "
    "F560W F770W F1000W F1130W F1280W F1500W F1800W F2100W F2550W"
)
"""Broad and medium filters of HST and JWST: many are used together, and checksums collide."""
_CODES = {band: code for code, band in enumerate([*"ugrizyJHK", *_SPACE.split()], start=1)}


def band_code(band: str) -> int:
    """Code 1 to 61 of a band: well-known ones by a list, others 10 to 61 by checksum."""
    return _CODES.get(band) or 10 + crc32(band.encode()) % 52


def check_band_codes(bands: Sequence[str]) -> None:
    """Refuse bands that share a code.

    Raises
    ------
    ParameterError
        Naming both bands.
    """
    owner: dict[int, str] = {}
    for band in bands:
        other = owner.setdefault(band_code(band), band)
        if other != band:
            raise ParameterError(
                f"bands {other} and {band} have the same identifier code {band_code(band)}",
                hint="rename one of them with BAND=FILE",
            )


def encode(field_id: int, band: int, kind: int, y: ArrayLike, x: ArrayLike) -> NDArray[np.int64]:
    """Make identifiers of rows whose (first) peak pixel is ``(y, x)`` in parent coordinates."""
    y, x = np.asarray(y, np.int64), np.asarray(x, np.int64)
    prefix = np.int64((field_id << 39) | (band << 33) | (kind << 31))
    ids: NDArray[np.int64] = prefix | ((y % 32768) << 16) | (x % 65536)
    return ids


def decode(ids: ArrayLike, box: Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Peak pixels ``y, x`` of identifiers, given the pixel grid they were found on."""
    ids = np.asarray(ids, np.int64)
    y = box.y0 + (((ids >> 16) & 32767) - box.y0) % 32768
    x = box.x0 + ((ids & 65535) - box.x0) % 65536
    return y, x


def check_grid(box: Box) -> None:
    """Refuse grids on which two pixels would share an identifier.

    Raises
    ------
    FormatError
        For more than 32768 rows or 65536 columns.
    """
    if box.ny > 32768 or box.nx > 65536:
        raise FormatError(
            f"the image has {box.nx}x{box.ny} pixels; identifiers are unique up to 65536x32768",
            hint="work on sections: FILE.fits[x1:x2,y1:y2]",
        )
