"""Bright objects: DS9 region files and tables, placed on a pixel grid."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError, InputMissingError, MissingHduError
from coblend.core.region import Region
from coblend.io.fits.columns import numbers_of
from coblend.io.fits.reader import open_fits
from coblend.io.sky.wcs import sky_to_pixel

_SHAPE = re.compile(r"^([+-]?)\s*(circle|ellipse|box|polygon)\s*\(([^)]*)\)", re.IGNORECASE)
_FRAMES = ("fk5", "icrs", "j2000", "galactic", "image", "physical")
_IGNORED = ("global", "wcs", "#")
_COUNTS = {"circle": 3, "ellipse": 5, "box": 5}


def read_regions(path: str, cards: Sequence[str], box: Box) -> list[Region]:
    """Read a DS9 region file, or a FITS table with RA, DEC and RADIUS (degree).

    Parameters
    ----------
    path : str
    cards : sequence of str
        WCS of the grid, array coordinates of ``box``.
    box : Box

    Raises
    ------
    InputMissingError
        The file cannot be read.
    FormatError
        A line or the table cannot be understood; or a sky region, and the grid has no WCS.
    """
    grid = _Grid(cards, box, path)
    try:
        with open(path, "rb") as stream:
            start = stream.read(6)
            text = "" if start == b"SIMPLE" else (start + stream.read()).decode("utf-8")
    except OSError as error:
        raise InputMissingError(f"cannot be read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise FormatError("neither a region file nor a FITS table", path) from error
    return _table(path, grid) if start == b"SIMPLE" else _lines(text, path, grid)


class _Grid:
    """Sky and image positions to parent coordinates."""

    def __init__(self, cards: Sequence[str], box: Box, path: str) -> None:
        self.cards, self.box, self.path = cards, box, path

    def place(
        self, frame: str, a: NDArray[np.float64], b: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Parent coordinates ``(y, x)`` of positions, shape (2, n).

        DS9 counts pixels from 1: ``image`` those of the array, ``physical`` those of the parent
        image (keywords LTV, see `coblend.io.exposure.frame`).
        """
        if frame == "image":
            return np.stack([b - 1 + self.box.y0, a - 1 + self.box.x0])
        if frame == "physical":
            return np.stack([b - 1, a - 1])
        if not self.cards:
            raise FormatError("a sky region, but the coadd has no WCS", self.path)
        if frame == "galactic":
            from astropy.coordinates import SkyCoord

            icrs = SkyCoord(a, b, unit="deg", frame="galactic").icrs
            a, b = icrs.ra.deg, icrs.dec.deg
        x, y = sky_to_pixel(self.cards, self.box, a, b)
        return np.stack([y, x])

    def axes(self, frame: str, a: float, b: float) -> NDArray[np.float64]:
        """Pixels ``(dy, dx)`` per degree east and north, or per pixel along x and y."""
        if frame in ("image", "physical"):
            return np.array([[0.0, 1.0], [1.0, 0.0]])
        step = 1 / 3600
        east = a + step / np.cos(np.radians(b)) * np.array([0, 1, 0])
        north = b + step * np.array([0, 0, 1])
        points = self.place(frame, east, north)
        return np.asarray((points[:, 1:] - points[:, :1]) / step)


def _lines(text: str, path: str, grid: _Grid) -> list[Region]:
    shapes: list[Region] = []
    frame = "fk5"
    statements = [
        (number, part.strip())
        for number, line in enumerate(text.splitlines(), 1)
        for part in line.partition("#")[0].split(";")
    ]
    for number, statement in statements:
        word = statement.lower()
        if not word or word.startswith(_IGNORED):
            continue
        if word in _FRAMES:
            frame = word
            continue
        match = _SHAPE.match(statement)
        if match is None:
            raise FormatError(f"line {number}: {statement[:40]!r} is no region", path)
        shapes.append(_shape(match, frame, f"line {number}", path, grid))
    return shapes


def _shape(match: re.Match[str], frame: str, where: str, path: str, grid: _Grid) -> Region:
    kind = match[2].lower()
    words = [word for word in re.split(r"[,\s]+", match[3].strip()) if word]
    n = len(words)
    complete = n >= 6 and n % 2 == 0 if kind == "polygon" else n == _COUNTS[kind]
    if kind == "box" and n == 4:
        words, complete = [*words, "0"], True
    if not complete:
        raise FormatError(f"{where}: {kind} with {n} numbers", path)
    pixels = frame in ("image", "physical")
    try:
        if kind == "polygon":
            values = np.array([_number(w, pixels) for w in words])
            vertices = grid.place(frame, values[::2], values[1::2])
            return Region("polygon", 0.0, 0.0, np.eye(2), vertices, match[1] == "-")
        a, b = (_number(w, pixels) for w in words[:2])
        sizes = [_number(w, pixels) for w in words[2 : 3 if kind == "circle" else 4]]
        angle = float(words[4]) if kind != "circle" else 0.0
    except ValueError as error:
        raise FormatError(f"{where}: {match[0]!r} has a number that is none", path) from error
    sizes = sizes * 2 if kind == "circle" else sizes
    half = [size / 2 for size in sizes] if kind == "box" else sizes
    if min(half) <= 0:
        raise FormatError(f"{where}: {match[0]!r} has no area", path)
    return _placed("box" if kind == "box" else "ellipse", frame, a, b, half, angle,
                   match[1] == "-", grid)  # fmt: skip


def _placed(
    kind: str,
    frame: str,
    a: float,
    b: float,
    half: Sequence[float],
    angle: float,
    exclude: bool,
    grid: _Grid,
) -> Region:
    """Map a shape by the grid's linear map at its centre; angles run from the first axis."""
    (y,), (x,) = grid.place(frame, np.array([a]), np.array([b]))
    axes = grid.axes(frame, a, b)
    # with north up east is left: DS9 counts angles from west towards north
    sign = 1.0 if frame in ("image", "physical") else -1.0
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    directions = np.array([[sign * cos, -sign * sin], [sin, cos]])
    forward = axes @ directions * np.asarray(half)
    return Region(kind, float(y), float(x), np.linalg.inv(forward), np.zeros((2, 0)), exclude)


def _table(path: str, grid: _Grid) -> list[Region]:
    with open_fits(path) as file:
        tables = [i for i, hdu in enumerate(file.hdus) if hdu.kind == "table"]
        if not tables:
            raise MissingHduError("no table of regions", path)
        rows = file.table(tables[0])
    names = {name.lower(): name for name in rows.dtype.names or ()}
    missing = [name for name in ("ra", "dec", "radius") if name not in names]
    if missing:
        raise MissingHduError(f"no column {missing[0]}; it has {', '.join(names)}", path)
    ra, dec, radius = (
        numbers_of(rows[names[key]], names[key], path) for key in ("ra", "dec", "radius")
    )
    wrong = np.flatnonzero(~(radius > 0) | ~np.isfinite(ra) | ~np.isfinite(dec))
    if wrong.size:
        raise FormatError(f"row {wrong[0] + 1}: radius {radius[wrong[0]]:g} at {ra[wrong[0]]:g}, "
                          f"{dec[wrong[0]]:g}", path)  # fmt: skip
    return [
        _placed("ellipse", "icrs", a, b, [r, r], 0.0, False, grid)
        for a, b, r in zip(ra, dec, radius, strict=True)
    ]


def _number(word: str, pixels: bool) -> float:
    """Read a number in degrees (no suffix or d), arcminutes ('), arcseconds (") or pixels (p)."""
    unit = {"d": 1.0, "'": 1 / 60, '"': 1 / 3600, "p": 1.0, "i": 1.0}.get(word[-1])
    if unit is None:
        return float(word)
    if pixels != (word[-1] in "pi"):
        raise ValueError(word)
    return float(word[:-1]) * unit
