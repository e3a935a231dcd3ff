"""Celestial coordinate systems: carried as cards, evaluated by astropy."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError

_WCS_KEY = re.compile(
    r"^(WCSAXES|CRPIX[12]|CRVAL[12]|CTYPE[12]|CUNIT[12]|CDELT[12]|CROTA[12]|CD[12]_[12]|"
    r"PC0*[12]_0*[12]|PV[12]_\d+|PS[12]_\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|"
    r"(?:A|B|AP|BP)_(?:ORDER|DMAX|\d+_\d+)|WAT[012]_\d+)\s*$"
)
_TEXT_KEY = re.compile(r"CTYPE|CUNIT|RADESYS|RADECSYS|WAT|PS\d")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?")
_FRAMES = ("", "ICRS", "FK5", "FK4", "FK4-NO-E")
_KNOWN_VALUES = {
    "RADESYS": _FRAMES,
    "RADECSYS": _FRAMES,
    "CUNIT": ("", "DEG", "DEGREE", "DEGREES", "ARCMIN", "ARCSEC", "MAS", "RAD"),
}
"""What astropy places on the sky."""


def is_wcs_key(key: str) -> bool:
    """Whether a keyword belongs to the primary celestial WCS."""
    return _WCS_KEY.match(key) is not None


def wcs_cards(cards: Sequence[str], path: str | None = None) -> tuple[str, ...]:
    """Cards of the celestial WCS among ``cards``; empty unless both axes are celestial.

    Raises
    ------
    FormatError
        A value is of the wrong type, or a frame or unit unknown; names ``path`` and keyword.
    """
    found = tuple(c for c in cards if _WCS_KEY.match(c[:8]))
    types = [c for c in found if c.startswith("CTYPE") and "'" in c]
    if len(types) != 2 or not all("-" in c.split("'")[1] for c in types):
        return ()
    for card in found:
        _check_card(card, path)
    return found


def _check_card(card: str, path: str | None) -> None:
    key = card[:8].strip()
    text = card[10:].strip()
    value = text[1:].split("'")[0].strip() if text.startswith("'") else text.split("/")[0].strip()
    if _TEXT_KEY.match(key):
        known = _KNOWN_VALUES.get(key.rstrip("12"))
        if known is None or value.upper() in known:
            return
        wanted = f"one of {', '.join(filter(None, known))}"
    elif not text.startswith("'") and _NUMBER.fullmatch(value):
        return
    else:
        wanted = "a number"
    raise FormatError(f"keyword {key} of its WCS is {value!r}, expected {wanted}", path)


def shift_cards(cards: Sequence[str], dy: int, dx: int) -> tuple[str, ...]:
    """Cards of the same WCS for an array that starts ``(dy, dx)`` pixels further in."""
    out = []
    for card in cards:
        shift = {"CRPIX1": dx, "CRPIX2": dy}.get(card[:6], 0)
        if shift:
            value = float(card[10:].split("/")[0]) - shift
            card = f"{card[:8]}= {value:>20.15G} / pixel of the reference point".ljust(80)
        out.append(card)
    return tuple(out)


def celestial(cards: Sequence[str]) -> Any | None:
    """`astropy.wcs.WCS` of the cards (array coordinates), or None without a celestial WCS.

    Raises
    ------
    FormatError
        The cards do not make a valid WCS.
    """
    if not cards:
        return None
    from astropy.io.fits import Header
    from astropy.wcs import WCS, FITSFixedWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            return WCS(Header.fromstring("".join(cards)), naxis=2)
    except (ValueError, KeyError, TypeError, MemoryError) as error:
        raise FormatError(f"invalid WCS: {str(error).splitlines()[0]}") from error


def pixel_to_sky(
    cards: Sequence[str], box: Box, x: ArrayLike, y: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascension and declination of positions in parent coordinates.

    Parameters
    ----------
    cards : sequence of str
        WCS of the array whose first pixel is the corner of ``box``.
    box : Box
    x, y : array_like, shape (n,)
        Parent coordinates (pixel).

    Returns
    -------
    ra, dec : array, shape (n,), float64
        Degrees, ICRS; NaN without a WCS.
    """
    x = np.atleast_1d(np.asarray(x, np.float64))
    y = np.atleast_1d(np.asarray(y, np.float64))
    wcs = celestial(cards)
    if wcs is None or not len(x):
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    ra, dec = wcs.all_pix2world(x - box.x0, y - box.y0, 0)
    frame = (wcs.wcs.radesys or "ICRS").strip().upper()
    if wcs.wcs.lngtyp.strip() == "RA" and frame in ("ICRS", ""):
        return np.asarray(ra), np.asarray(dec)
    from astropy.wcs.utils import wcs_to_celestial_frame

    sky = wcs_to_celestial_frame(wcs)
    from astropy.coordinates import SkyCoord

    icrs = SkyCoord(ra, dec, unit="deg", frame=sky).icrs
    return np.asarray(icrs.ra.deg), np.asarray(icrs.dec.deg)


def sky_to_pixel(
    cards: Sequence[str], box: Box, ra: ArrayLike, dec: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions ``x, y`` in parent coordinates of sky positions (degree, the WCS's frame).

    Raises
    ------
    FormatError
        There is no WCS.
    """
    wcs = celestial(cards)
    if wcs is None:
        raise FormatError("no celestial WCS; positions in ra, dec cannot be placed")
    x, y = wcs.all_world2pix(np.asarray(ra, float), np.asarray(dec, float), 0)
    return np.asarray(x) + box.x0, np.asarray(y) + box.y0


def pixel_scale(cards: Sequence[str]) -> float | None:
    """Side of a pixel at the reference point (arcsec), None without a WCS."""
    wcs = celestial(cards)
    if wcs is None:
        return None
    return float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600)


def grid_offset(cards_a: Sequence[str], box_a: Box, cards_b: Sequence[str], box_b: Box) -> float:
    """Largest distance (pixel) between two grids at corners and centre of their overlap.

    Equal parent coordinates in a and b are mapped to the sky by a and back by b. Grids without
    a WCS on both sides agree (0); with a WCS on one side only, infinity.
    """
    if tuple(cards_a) == tuple(cards_b) and box_a == box_b:
        return 0.0
    a, b = celestial(cards_a), celestial(cards_b)
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    common = box_a & box_b
    common = common if common.area else box_a
    y = np.array([common.y0, common.y0, common.y1 - 1, common.y1 - 1, common.y0 + common.ny / 2])
    x = np.array([common.x0, common.x1 - 1, common.x0, common.x1 - 1, common.x0 + common.nx / 2])
    sky = a.all_pix2world(x - box_a.x0, y - box_a.y0, 0)
    try:
        bx, by = b.all_world2pix(*sky, 0)
    except ValueError:  # astropy's NoConvergence: the grids are nowhere near each other
        return float("inf")
    distance = np.hypot(bx + box_b.x0 - x, by + box_b.y0 - y)
    return float(np.max(np.nan_to_num(distance, nan=np.inf)))


def tangent_plane(ra: float, dec: float, scale: float, y: float, x: float) -> tuple[str, ...]:
    """Cards of a gnomonic projection, north up and east left.

    Parameters
    ----------
    ra, dec : float
        Reference point (degree, ICRS).
    scale : float
        Side of a pixel (arcsec).
    y, x : float
        Where it lies, array coordinates (0-based).
    """
    values: dict[str, float | int | str] = {
        "WCSAXES": 2,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": x + 1,
        "CRPIX2": y + 1,
        "CD1_1": -scale / 3600,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": scale / 3600,
        "RADESYS": "ICRS",
    }
    return tuple(_card(key, value).ljust(80) for key, value in values.items())


def _card(key: str, value: float | int | str) -> str:
    if isinstance(value, str):
        return f"{key:<8}= '{value:<8}'"
    text = str(value) if isinstance(value, int) else f"{value:.14G}"
    if isinstance(value, float) and "." not in text:
        text = text.replace("E", ".0E") if "E" in text else text + ".0"
    return f"{key:<8}= {text:>20}"
