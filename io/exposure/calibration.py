"""Band, zero point and unit, where surveys and telescopes do not name them as we do."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping

from coblend.core.exposure import HeaderValue

_AB_JANSKY = 8.9
_AB_FREQUENCY = -48.6  # erg/s/cm2/Hz
_LIGHT = 2.99792458e18  # Angstrom/s
_NANOMAGGY = 22.5
_JANSKY = re.compile(r"([\d.]+(?:[Ee][+-]?\d+)?)?[ *]*(n|nano|u|micro|m|milli|)(?:Jy|[Jj]ansky)")
_PER_AREA = re.compile(r"\b(sr|(deg|arcmin|arcsec)(\*\*|\^)?-?2)\b", re.IGNORECASE)
_ARCSEC = math.pi / 180 / 3600  # rad
_FACTOR = r"([A-Za-z]+)(?:(?:\*\*|\^)?([+-]?\d+))?"
_PRODUCT = re.compile(rf"{_FACTOR}(?: *[ */.] *{_FACTOR})*")
_PREFIXES = {"n": 1e-9, "nano": 1e-9, "u": 1e-6, "micro": 1e-6, "m": 1e-3, "milli": 1e-3, "": 1.0}

Header = Mapping[str, HeaderValue]


def calibrated(header: Header, convention: str, path: str) -> dict[str, HeaderValue]:
    """Header with ``BAND`` and ``MAGZERO``, the AB magnitude of one unit of a pixel.

    Parameters
    ----------
    header : mapping
        Of the image over that of the primary HDU; what it says already stays.
    convention : str
        `coblend.io.exposure.planes.Planes.convention`.
    path : str
        The file, whose name holds the band in the Legacy Surveys.
    """
    band, zero = "", math.nan
    if convention.startswith("lsst"):
        flux = _number(header, "FLUXMAG0")  # counts of magnitude 0, in files of HSC
        zero = 2.5 * math.log10(flux) if flux > 0 else math.nan
    elif convention == "jwst":
        pupil = _text(header, "PUPIL")
        band = pupil if re.match(r"F\d", pupil) else _text(header, "FILTER")
        sr = _number(header, "PIXAR_SR")
        if _text(header, "BUNIT").lower() == "mjy/sr" and sr > 0:
            zero = _AB_JANSKY - 2.5 * math.log10(1e6 * sr)
    elif convention.startswith("hst"):
        band, zero = _hubble(header)
    elif convention == "legacy":
        name = re.search(r"-image-(\w+)\.", os.path.basename(path))
        band, zero = name[1] if name else _text(header, "FILTER"), _NANOMAGGY
    elif convention == "ps1":
        band = _text(header, "FPA.FILTER").partition(".")[0]
        seconds = _number(header, "EXPTIME")
        if seconds > 0:
            zero = _number(header, "FPA.ZP", 25.0) + 2.5 * math.log10(seconds)
    elif convention in ("des", "decam-cp"):
        band = _text(header, "FILTER").partition(" ")[0]
        zero = _number(header, "SEXMGZPT")
    else:
        zero = _flux_unit(_text(header, "BUNIT"))
    found: dict[str, HeaderValue] = {"BAND": band} if band else {}
    if math.isfinite(zero):
        found["MAGZERO"] = zero
    return {**header, **found, **{k: v for k, v in header.items() if k in ("BAND", "MAGZERO")}}


def is_surface_brightness(unit: str) -> bool:
    """Whether a unit is one per area on the sky, as ``MJy/sr`` and ``mJy arcsec-2``."""
    return _PER_AREA.search(unit) is not None


def raised(unit: str, power: int) -> str:
    """Power of a unit, factor by factor: FITS has no powers of products."""
    if power == 1 or not unit:
        return unit
    if not _PRODUCT.fullmatch(unit):
        return f"({unit})**{power}"
    return re.sub(_FACTOR, lambda m: f"{m[1]}**{int(m[2] or 1) * power}", unit)


def on_pixels(meta: Header, scale: float, own: float) -> dict[str, HeaderValue]:
    """Header values of a surface brightness that is resampled onto pixels of another area.

    Parameters
    ----------
    meta : mapping
    scale, own : float
        Side of the new pixels and, unless ``PIXAR_SR`` tells their area, of the old ones (arcsec).
    """
    area = (scale * _ARCSEC) ** 2
    before = _number(meta, "PIXAR_SR", (own * _ARCSEC) ** 2)
    areas = {"PIXAR_SR": area, "PIXAR_A2": scale**2}
    found: dict[str, HeaderValue] = {key: v for key, v in areas.items() if key in meta}
    zero = _number(meta, "MAGZERO")
    if math.isfinite(zero):
        # rounded, so that exposures of unequal pixels agree to the last digit
        found["MAGZERO"] = round(zero - 2.5 * math.log10(area / before), 9)
    return {**meta, **found}


def _hubble(header: Header) -> tuple[str, float]:
    """Filter, and zero point from the inverse sensitivity per second and pivot wavelength."""
    names = [_text(header, key) for key in ("FILTER", "FILTER1", "FILTER2")]
    band = next((n for n in names if n and not n.startswith("CLEAR")), "")
    unit = _text(header, "BUNIT")
    per_count, wavelength = _number(header, "PHOTFLAM"), _number(header, "PHOTPLAM")
    known = _flux_unit(unit)
    if math.isfinite(known) or not (per_count > 0 and wavelength > 0):
        return band, known
    zero = _AB_FREQUENCY - 2.5 * math.log10(per_count * wavelength**2 / _LIGHT)
    seconds = 1.0
    if not re.search(r"/\s*S", unit.upper()):
        seconds = _number(header, "EXPTIME")
    return band, zero + 2.5 * math.log10(seconds) if seconds > 0 else math.nan


def _flux_unit(text: str) -> float:
    """AB magnitude of one unit that is a flux density, e.g. ``10.0*nanoJansky``; else NaN."""
    found = _JANSKY.fullmatch(text)
    if not found:
        return math.nan
    return _AB_JANSKY - 2.5 * math.log10(float(found[1] or 1) * _PREFIXES[found[2]])


def _text(header: Header, key: str) -> str:
    return str(header.get(key, "")).strip()


def _number(header: Header, key: str, default: float = math.nan) -> float:
    value = header.get(key)
    return float(value) if isinstance(value, int | float) else default
