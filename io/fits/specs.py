"""File arguments: ``[BAND=]PATH[HDU][x1:x2,y1:y2][key=value]`` and ``@list`` files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from coblend.core.bands import BAND_NAME
from coblend.core.box import Box
from coblend.core.errors import FormatError, InputMissingError, ParameterError

_GROUPS = re.compile(r"^(?P<path>.+?)(?P<groups>(?:\[[^\[\]]*\])+)$")
_SECTION = re.compile(r"^\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*$")
_BAND = re.compile(rf"^(?P<band>{BAND_NAME.pattern})=(?P<rest>.+)$")
ENDING = re.compile(r"\.(?:fits|fit|fts)(?:\.fz|\.gz)?$")
"""Endings of the names of FITS files."""
SETTINGS = ("noise", "gain", "mask", "flags")
"""What ``[key=value]`` may say of an exposure (`coblend.io.exposure.dialects`)."""


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file, and which part of it.

    Parameters
    ----------
    path : str
        Path as given.
    hdu : str or int, optional
        EXTNAME (upper case) or 0-based number.
    version : int
        EXTVER, 0: any.
    section : Box, optional
        Part of the image in array coordinates (0-based).
    settings : tuple of (str, str)
        What the header does not say: keys of `SETTINGS` with their values.
    """

    path: str
    hdu: str | int | None = None
    version: int = 0
    section: Box | None = None
    settings: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.path if self.hdu is None else f"{self.path}[{self.hdu}]"


def parse_spec(text: str) -> FileSpec:
    """Read ``PATH``, ``PATH[NAME]``, ``PATH[NAME,2]``, ``PATH[1]``, ``PATH#NAME``.

    Sections and settings may follow in brackets of their own. A file of exactly that name wins
    over any reading of brackets. Sections are FITS sections: 1-based, inclusive, x first.

    Raises
    ------
    ParameterError
        For brackets that are neither an HDU nor a section nor settings.
    """
    if os.path.exists(text):
        return FileSpec(text)
    match = _GROUPS.match(text)
    if match is None:
        path, mark, name = text.rpartition("#")
        return FileSpec(path, *_parse_hdu(name)) if mark and path else FileSpec(text)
    hdu: str | int | None = None
    version = 0
    section: Box | None = None
    settings: list[tuple[str, str]] = []
    for group in re.findall(r"\[([^\[\]]*)\]", match["groups"]):
        if "=" in group:
            settings += _parse_settings(group)
        elif ":" in group:
            section = parse_section(group)
        else:
            hdu, version = _parse_hdu(group)
    return FileSpec(match["path"], hdu, version, section, tuple(settings))


def parse_section(text: str) -> Box:
    """Read a FITS section ``x1:x2,y1:y2`` (1-based, inclusive) as a 0-based box.

    Raises
    ------
    ParameterError
        When it is not of that form, or empty.
    """
    match = _SECTION.match(text)
    if match is None:
        raise ParameterError(f"section {text!r} is not x1:x2,y1:y2, pixels counted from 1")
    x1, x2, y1, y2 = (int(g) for g in match.groups())
    if x1 < 1 or y1 < 1 or x2 < x1 or y2 < y1:
        raise ParameterError(f"section {text!r} is empty; FITS sections count from 1")
    return Box.from_bounds(y1 - 1, x1 - 1, y2, x2)


def parse_band_spec(text: str) -> tuple[str | None, FileSpec]:
    """Read ``BAND=SPEC`` or ``SPEC``; the band is None where none is given."""
    band, rest = split_band(text)
    return band, parse_spec(rest)


def split_band(text: str) -> tuple[str | None, str]:
    """Split ``BAND=REST``; the band is None where none is given. Files of that name win."""
    match = None if os.path.exists(text) else _BAND.match(text)
    return (None, text) if match is None else (match["band"], match["rest"])


def stem(path: str) -> str:
    """Name of a file without its folder and the endings of FITS files."""
    return ENDING.sub("", os.path.basename(path))


def expand_lists(arguments: Iterable[str]) -> list[str]:
    """Replace every ``@FILE`` by the lines of FILE; blank lines and ``#`` comments are skipped.

    Raises
    ------
    InputMissingError
        When a list cannot be read.
    FormatError
        When it is no text.
    """
    out: list[str] = []
    for argument in arguments:
        if not argument.startswith("@"):
            out.append(argument)
            continue
        path = argument[1:]
        try:
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
        except OSError as error:
            raise InputMissingError(f"cannot read the list: {error.strerror}", path) from error
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise FormatError("not a list of files: no text", path)
        entries = [line.partition("#")[0].strip() for line in text.splitlines()]
        out.extend(entry for entry in entries if entry)
    return out


def _parse_hdu(text: str) -> tuple[str | int, int]:
    name, _, version = text.partition(",")
    name = name.strip()
    if not name or (version and not version.strip().isdigit()):
        raise ParameterError(f"[{text}] is neither an HDU nor a section")
    if name.isdigit():
        return int(name), 0
    return name.upper(), int(version) if version else 0


def _parse_settings(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in text.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        if key not in SETTINGS or not value:
            raise ParameterError(
                f"[{text}] sets {key!r}", hint=f"in brackets: {', '.join(SETTINGS)}, as in "
                "image.fits[noise=weight:weight.fits]; see docs/formats.md",
            )  # fmt: skip
        pairs.append((key, value))
    return pairs
