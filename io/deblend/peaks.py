"""Peaks to add to blends and objects to drop, as text or as tables."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, empty_table
from coblend.core.errors import FormatError, InputMissingError, ParameterError
from coblend.io.detect.foreign import read_sources
from coblend.io.fits.reader import open_fits
from coblend.io.fits.specs import parse_spec
from coblend.io.sky.wcs import pixel_to_sky

PEAK_COLUMNS = (
    Column("x", "f8", "x position, parent coordinates", "pixel", "pos.cartesian.x;instr.det"),
    Column("y", "f8", "y position, parent coordinates", "pixel", "pos.cartesian.y;instr.det"),
    Column("ra", "f8", "Right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
    Column("dec", "f8", "Declination, ICRS", "deg", "pos.eq.dec;meta.main"),
)
SUGGESTION_COLUMNS = (
    *PEAK_COLUMNS,
    Column("parent", "i8", "Identifier of the parent", "", "meta.id.parent"),
    Column("snr", "f4", "Significance in the residual", "", "stat.snr"),
)

_NUMBER = r"[-+]?\d+(?:\.\d*)?"
_PAIR = rf"{_NUMBER},{_NUMBER}"
_PAIRS = re.compile(rf"\s*{_PAIR}(?:[\s;]+{_PAIR})*[\s;]*")
_IDS = re.compile(r"\s*\d+(?:[\s,;]+\d+)*\s*")


def named_file(text: str) -> str:
    """File that peaks or identifiers are read from; "" where ``text`` holds them itself."""
    if not text or _PAIRS.fullmatch(text) or _IDS.fullmatch(text):
        return ""
    return parse_spec(text).path


def read_peaks(text: str, box: Box, wcs: Sequence[str] = ()) -> NDArray[np.void]:
    """Positions given as ``"x,y x,y"`` or in a table; parent coordinates.

    Parameters
    ----------
    text : str
        Pairs, the name of a table with ``x``, ``y`` (parent coordinates) or ``ra``, ``dec``, or
        "" for none.
    box : Box
        The pixel grid.
    wcs : sequence of str
        Its WCS.

    Returns
    -------
    structured array
        `PEAK_COLUMNS`; ``ra``, ``dec`` NaN without a WCS.

    Raises
    ------
    InputMissingError, FormatError, MissingHduError
        The table cannot be read.
    ParameterError
        A position is not finite.
    """
    if not text:
        return empty_table(PEAK_COLUMNS, 0)
    if _PAIRS.fullmatch(text):
        pairs = [part.split(",") for part in re.split(r"[\s;]+", text.strip()) if part]
        x, y = np.array(pairs, np.float64).T
    else:
        spec = parse_spec(text)
        if not os.path.exists(spec.path):
            raise InputMissingError("neither x,y pairs nor a file", text)
        try:
            sources = read_sources(spec, Box(0, 0, box.ny, box.nx))
        except FormatError:  # no x, y: perhaps ra, dec
            sources = read_sources(spec, box, wcs)
        x, y = sources.x, sources.y
    bad = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if len(bad):
        raise ParameterError(f"add_peaks: row {bad[0]} of {text} has no finite position")
    table = empty_table(PEAK_COLUMNS, len(x))
    table["x"], table["y"] = x, y
    if wcs and len(x):
        table["ra"], table["dec"] = pixel_to_sky(wcs, box, x, y)
    return table


def read_identifiers(text: str) -> NDArray[np.int64]:
    """Read identifiers from ``"1,2,3"`` or the column ``id`` of a FITS table, shape (n,).

    Raises
    ------
    InputMissingError, CorruptFileError
    FormatError
        The file holds no table with a column ``id``.
    """
    if not text:
        return np.zeros(0, np.int64)
    if _IDS.fullmatch(text):
        return np.array(re.findall(r"\d+", text), np.int64)
    with open_fits(parse_spec(text).path) as file:
        for number in range(len(file.names)):
            if file.info(number).kind == "table":
                rows = file.table(number)
                if "id" in (rows.dtype.names or ()):
                    return rows["id"].astype(np.int64)
    raise FormatError("no table with a column id", text)
