"""Celestial coordinate systems: carried as cards, evaluated by astropy."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.io.fits.structure import card_number

_WCS_KEY = re.compile(
    r"^(WCSAXES|CRPIX[12]|CRVAL[12]|CTYPE[12]|CUNIT[12]|CDELT[12]|CROTA[12]|CD[12]_[12]|"
    r"PC0*[12](?:_|00)0*[12]|PV[12]_\d+|PS[12]_\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|"
    r"(?:A|B|AP|BP)_(?:ORDER|DMAX|\d+_\d+)|WAT[012]_\d+)\s*$"
)
_TEXT_KEY = re.compile(r"CTYPE|CUNIT|RADESYS|RADECSYS|WAT|PS\d")
_FRAMES = ("", "ICRS", "FK5", "FK4", "FK4-NO-E")
_KNOWN_VALUES = {
    "RADESYS": _FRAMES,
    "RADECSYS": _FRAMES,
    "CUNIT": ("", "DEG", "DEGREE", "DEGREES", "ARCMIN", "ARCSEC", "MAS", "RAD"),
}
"""What astropy places on the sky."""
_MATRIX = ("1_1", "1_2", "2_1", "2_2")


def is_wcs_key(key: str) -> bool:
    """Whether a keyword belongs to the primary celestial WCS."""
    return _WCS_KEY.match(key) is not None


def wcs_cards(cards: Sequence[str], path: str | None = None) -> tuple[str, ...]:
    """Cards of the celestial WCS among ``cards``; empty unless both axes are celestial.

    Verbatim, but exponents written with D become E: WCSLIB drops those with D.

    Raises
    ------
    FormatError
        A value is of the wrong type, a frame or unit unknown, or the matrix singular; names
        ``path`` and keyword.
    """
    found = tuple(c for c in cards if _WCS_KEY.match(c[:8]))
    types = [c for c in found if c.startswith("CTYPE") and "'" in c]
    if len(types) != 2 or not all("-" in c.split("'")[1] for c in types):
        return ()
    for card in found:
        _check_card(card, path)
    _check_matrix(found, path)
    return tuple(_with_plain_exponent(card) for card in found)


def _check_card(card: str, path: str | None) -> None:
    key = card[:8].strip()
    text = card[10:].strip()
    value = text[1:].split("'")[0].strip() if text.startswith("'") else text.split("/")[0].strip()
    if _TEXT_KEY.match(key):
        known = _KNOWN_VALUES.get(key.rstrip("12"))
        if known is None or value.upper() in known:
            return
        wanted = f"one of {', '.join(filter(None, known))}"
    else:
        with suppress(ValueError):
            card_number(text)
            return
        wanted = "a number"
    raise FormatError(f"keyword {key} of its WCS is {value!r}, expected {wanted}", path)


def _with_plain_exponent(card: str) -> str:
    value, slash, comment = card[10:].partition("/")
    return card if "'" in value else card[:10] + re.sub("[Dd]", "E", value) + slash + comment


def _check_matrix(cards: Sequence[str], path: str | None) -> None:
    """Refuse a linear transformation that makes a line or a point of the image."""
    values = {}
    for key, card in ((c[:8].strip(), c) for c in cards):
        if re.match(r"CD|PC", key):
            short = re.sub(r"^PC0*([12])(?:_|00)0*([12])$", r"PC\1_\2", key)
            values[short] = card_number(card[10:])
    kind = "CD" if any(re.match(r"CD\d_", key) for key in values) else "PC"
    one = 0.0 if kind == "CD" else 1.0
    a, b, c, d = (values.get(f"{kind}{ij}", one * (ij[0] == ij[2])) for ij in _MATRIX)
    step = 1.0 if kind == "CD" else values.get("CDELT1", 1.0) * values.get("CDELT2", 1.0)
    if not step or abs(a * d - b * c) <= 1e-12 * max(abs(a * d), abs(b * c)):
        names = "CDi_j" if kind == "CD" else "PCi_j and CDELTi"
        raise FormatError(f"invalid WCS: the matrix of {names} is singular", path)


def shift_cards(cards: Sequence[str], dy: int, dx: int) -> tuple[str, ...]:
    """Cards of the same WCS for an array that starts ``(dy, dx)`` pixels further in."""
    out = []
    for card in cards:
        shift = {"CRPIX1": dx, "CRPIX2": dy}.get(card[:6], 0)
        if shift:
            value = card_number(card[10:]) - shift
            card = f"{card[:8]}= {value:>20.15G} / pixel of the reference point".ljust(80)
        out.append(card)
    return tuple(out)


def cube_cards(cards: Sequence[str]) -> tuple[str, ...]:
    """Cards of the same WCS for a cube of bands, whose third axis counts them from 1."""
    if not cards:
        return ()
    rest = [card for card in cards if not card.startswith("WCSAXES")]
    third: dict[str, float | str] = {"CTYPE3": "BAND", "CRPIX3": 1.0, "CRVAL3": 1.0}
    if any(card.startswith(("CD1_", "CD2_")) for card in rest):
        third["CD3_3"] = 1.0
    own = (_card(key, value).ljust(80) for key, value in third.items())
    return (_card("WCSAXES", 3).ljust(80), *rest, *own)


def celestial(cards: Sequence[str]) -> Any | None:
    """`astropy.wcs.WCS` of the cards (array coordinates), or None without a celestial WCS.

    Equal cards give the same object, which is not to be changed.

    Raises
    ------
    FormatError
        The cards do not make a valid WCS.
    """
    return _wcs_of(tuple(cards)) if cards else None


@lru_cache(maxsize=64)
def _wcs_of(cards: tuple[str, ...]) -> Any:
    from astropy.io.fits import Header
    from astropy.wcs import WCS, FITSFixedWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            return WCS(Header.fromstring("".join(cards)), naxis=2)
    except (ValueError, KeyError, TypeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1]  # before it, where in the C code
        raise FormatError(f"invalid WCS: {reason}") from error


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
    longitude, latitude = wcs.all_pix2world(x - box.x0, y - box.y0, 0)
    frame = _frame(wcs)
    if frame is None:
        return np.asarray(longitude), np.asarray(latitude)
    from astropy.coordinates import SkyCoord

    icrs = SkyCoord(longitude, latitude, unit="deg", frame=frame).icrs
    return np.asarray(icrs.ra.deg), np.asarray(icrs.dec.deg)


def sky_to_pixel(
    cards: Sequence[str], box: Box, ra: ArrayLike, dec: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions ``x, y`` in parent coordinates of sky positions; inverts `pixel_to_sky`.

    Parameters
    ----------
    cards : sequence of str
        WCS of the array whose first pixel is the corner of ``box``.
    box : Box
    ra, dec : array_like, shape (n,)
        Degrees, ICRS.

    Returns
    -------
    x, y : array, shape (n,), float64
        NaN where the projection has no such point.

    Raises
    ------
    FormatError
        There is no WCS.
    """
    wcs = celestial(cards)
    if wcs is None:
        raise FormatError("no celestial WCS; positions in ra, dec cannot be placed")
    longitude, latitude = np.asarray(ra, float), np.asarray(dec, float)
    frame = _frame(wcs)
    if frame is not None:
        from astropy.coordinates import SkyCoord

        own = SkyCoord(longitude, latitude, unit="deg").transform_to(frame).spherical
        longitude, latitude = own.lon.deg, own.lat.deg
    x, y = world_to_pixel(wcs, longitude, latitude)
    return x + box.x0, y + box.y0


def pixel_to_pixel(
    from_cards: Sequence[str],
    from_box: Box,
    to_cards: Sequence[str],
    to_box: Box,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions ``x, y`` in the second grid of positions in the first, both parent coordinates.

    Parameters
    ----------
    from_cards, to_cards : sequence of str
        WCS, array coordinates of the boxes.
    from_box, to_box : Box
    x, y : array, shape (n,), float64

    Returns
    -------
    x, y : array, shape (n,), float64
        NaN where the second projection has no such point.
    """
    source, target = celestial(from_cards), celestial(to_cards)
    if source is None or target is None or _frame_name(source) != _frame_name(target):
        return sky_to_pixel(to_cards, to_box, *pixel_to_sky(from_cards, from_box, x, y))
    there_x, there_y = world_to_pixel(
        target, *source.all_pix2world(x - from_box.x0, y - from_box.y0, 0)
    )
    return there_x + to_box.x0, there_y + to_box.y0


def world_to_pixel(
    wcs: Any, longitude: NDArray[np.float64], latitude: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Array positions ``x, y`` of positions in the frame of an astropy WCS (degree).

    NaN where the projection has no such point, or where its distortion cannot be inverted.
    """
    from astropy.wcs import NoConvergence

    try:
        x, y = wcs.all_world2pix(longitude, latitude, 0)
    except NoConvergence as error:
        solution = np.array(error.best_solution)
        for failed in (error.divergent, error.slow_conv):
            if failed is not None:
                solution[failed] = np.nan
        x, y = solution.T
    return np.asarray(x), np.asarray(y)


def _frame(wcs: Any) -> Any | None:
    """Celestial frame of a WCS, for astropy's SkyCoord; None for ICRS, which needs none."""
    if _frame_name(wcs)[:2] == ("RA", "ICRS"):
        return None
    from astropy.wcs.utils import wcs_to_celestial_frame

    return wcs_to_celestial_frame(wcs)


def _frame_name(wcs: Any) -> tuple[str, str, float]:
    """Kind of longitude, frame and equinox (0: none given)."""
    system = wcs.wcs.radesys.strip().upper() or "ICRS"
    return wcs.wcs.lngtyp.strip(), system, float(np.nan_to_num(wcs.wcs.equinox))


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
    if not cards_a or not cards_b:
        return 0.0 if not cards_a and not cards_b else float("inf")
    common = box_a & box_b
    common = common if common.area else box_a
    y = np.array([common.y0, common.y0, common.y1 - 1, common.y1 - 1, common.y0 + common.ny / 2])
    x = np.array([common.x0, common.x1 - 1, common.x0, common.x1 - 1, common.x0 + common.nx / 2])
    there_x, there_y = pixel_to_pixel(cards_a, box_a, cards_b, box_b, x, y)
    distance = np.hypot(there_x - x, there_y - y)
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
