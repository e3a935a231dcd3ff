"""Catalogues and segmentation images of other programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.detection import SourceList
from coblend.core.errors import FormatError, MissingHduError
from coblend.io.fits.columns import columns_of, numbers_of
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.specs import FileSpec
from coblend.io.fits.structure import is_fits
from coblend.io.sky.wcs import sky_to_pixel

_ALIASES: dict[str, tuple[str, ...]] = {
    "x": ("xpeak_image", "xcpeak", "maxval_xindex", "max_value_xindex", "x", "x_image",
          "xcentroid", "x_centroid"),
    "y": ("ypeak_image", "ycpeak", "maxval_yindex", "max_value_yindex", "y", "y_image",
          "ycentroid", "y_centroid"),
    "ra": ("ra", "alpha_j2000", "raj2000", "ra_icrs"),
    "dec": ("dec", "delta_j2000", "dej2000", "de_icrs"),
    "flux": ("flux", "flux_auto", "flux_iso", "cflux", "segment_flux", "kron_flux"),
    "flux_err": ("flux_err", "fluxerr_auto", "fluxerr_iso", "fluxerr", "segment_fluxerr",
                 "segment_flux_err", "kron_fluxerr", "kron_flux_err"),
    "snr": ("snr", "snr_win"),
    "a": ("a", "a_image", "semimajor_sigma", "semimajor_axis"),
    "b": ("b", "b_image", "semiminor_sigma", "semiminor_axis"),
    "theta": ("theta", "theta_image", "orientation"),
    "label": ("label", "number", "segment_id"),
}  # fmt: skip
"""Columns that mean the same, lower case, preferred first: peaks before centroids."""

_DEGREES = ("sextractor", "photutils")


def read_sources(
    spec: FileSpec,
    box: Box,
    wcs: Sequence[str] = (),
    *,
    columns: Mapping[str, str] | None = None,
    origin: int | None = None,
) -> SourceList:
    """Read a catalogue of SExtractor, sep, photutils or any table with x, y or ra, dec.

    FITS tables (also FITS_LDAC), ASCII_HEAD, ECSV, CSV, columns of text, whose first two are x, y
    where no line names them, and ``.npy`` structured arrays.

    Parameters
    ----------
    spec : FileSpec
    box : Box
        Image that the catalogue belongs to; its first pixel is the catalogue's first.
    wcs : sequence of str
        Its WCS, for ra, dec.
    columns : mapping of str to str, optional
        Column for ``x y ra dec flux flux_err snr a b theta label``, in place of the known names.
    origin : int, optional
        Number of the first pixel in x, y; default: 1 for SExtractor, else 0.

    Raises
    ------
    InputMissingError
        No such file.
    FormatError, MissingHduError
        Not a table, or one without positions.
    """
    table = _read_table(spec)
    names = {name.lower(): name for name in table.dtype.names or ()}
    program = _program(names)
    given = _given_columns(columns or {}, names, spec.path)

    def column(key: str) -> NDArray[np.float64] | None:
        aliases = (given[key],) if key in given else _ALIASES[key]
        for alias in aliases:
            if alias in names:
                return numbers_of(table[names[alias]], names[alias], spec.path)
        return None

    def known(key: str) -> NDArray[np.float64]:
        values = column(key)
        return np.full(len(table), np.nan) if values is None else values

    x, y = _positions(column, program, box, wcs, origin, given, spec.path, list(names.values()))
    flux, flux_err, snr = known("flux"), known("flux_err"), column("snr")
    if snr is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = np.where(flux_err > 0, flux / flux_err, np.nan)
    theta, label = known("theta"), column("label")
    if label is None:
        label = np.arange(1.0, len(table) + 1) if program == "sep" else np.zeros(len(table))
    return SourceList(
        x=x,
        y=y,
        flux=flux,
        flux_err=flux_err,
        snr=snr,
        a=known("a"),
        b=known("b"),
        theta=np.deg2rad(theta) if program in _DEGREES else theta,
        label=np.nan_to_num(label).astype(np.int64),
        program=program,
    )


def read_segmentation(spec: FileSpec) -> NDArray[np.int32]:
    """Read a label image; float labels are accepted if they are whole numbers.

    Raises
    ------
    InputMissingError, FormatError
    """
    with open_fits(spec.path) as file:
        section = None if spec.section is None else spec.section.slices()
        labels = file.image(_image_hdu(file) if spec.hdu is None else spec.hdu, section)
    if labels.ndim != 2:
        raise FormatError(f"the segmentation image has {labels.ndim} axes, expected 2", spec.path)
    if labels.dtype.kind == "f":
        whole = np.nan_to_num(labels)
        if not np.array_equal(whole, np.rint(whole)):
            raise FormatError("the segmentation image holds fractions, expected labels", spec.path)
        labels = whole
    if labels.size and abs(labels).max() > np.iinfo(np.int32).max:
        raise FormatError(f"labels up to {labels.max()} do not fit 32 bits", spec.path)
    return np.asarray(labels, np.int32)


def _image_hdu(file: FitsFile) -> int:
    """First HDU with a two-dimensional image."""
    for i, hdu in enumerate(file.hdus):
        if hdu.kind != "table" and len(hdu.shape) == 2:
            return i
    raise MissingHduError(f"no image; it has {file.describe()}", file.path)


def _read_table(spec: FileSpec) -> NDArray[Any]:
    """Rows of the catalogue."""
    if is_fits(spec.path):
        with open_fits(spec.path) as file:
            return file.table(_table_hdu(file) if spec.hdu is None else spec.hdu)
    if spec.path.endswith(".npy"):
        try:
            table = np.load(spec.path, allow_pickle=False)
        except ValueError as error:
            raise FormatError(f"not a structured array: {error}", spec.path) from error
        if table.dtype.names is None or table.ndim != 1:
            raise FormatError("not a structured array", spec.path)
        return np.asarray(table)
    return _read_text(spec.path)


def _table_hdu(file: FitsFile) -> int:
    """First table; that of objects where there is one (LDAC)."""
    if file.has("LDAC_OBJECTS"):
        return file.index("LDAC_OBJECTS")
    for i, hdu in enumerate(file.hdus):
        if hdu.kind == "table":
            return i
    raise MissingHduError(f"no table; it has {file.describe()}", file.path)


def _read_text(path: str) -> NDArray[Any]:
    """Rows of a text table: SExtractor's ASCII_HEAD, ECSV, CSV or columns."""
    from astropy.io import ascii as text

    try:
        with open(path, encoding="utf-8-sig") as stream:
            lines = stream.read().splitlines()
            head = next(filter(str.strip, lines), "")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError("neither FITS, nor text, nor .npy", path) from error
    if head.startswith("# %ECSV"):
        kind = "ecsv"
    elif head.startswith("#") and head[1:].split()[:1] == ["1"]:
        kind = "sextractor"
    elif _are_numbers(head):
        kind = "no_header"
    else:
        kind = "csv" if "," in head else "commented_header" if head[:1] == "#" else "basic"
    options = {}
    if kind in ("no_header", "basic", "commented_header"):
        options["delimiter"] = "," if "," in head else r"\s"
    try:
        table = text.read(lines, format=kind, guess=False, **options)
    except (text.InconsistentTableError, ValueError, KeyError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FormatError(f"not a table ({os.path.basename(path)} read as {kind}): {reason}",
                          path) from error  # fmt: skip
    columns = columns_of(table)
    if kind == "no_header":
        columns |= {_UNNAMED[name]: columns[name] for name in _UNNAMED if name in columns}
    kinds = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    rows = np.empty(len(table), kinds)
    for name, values in columns.items():
        rows[name] = values
    return rows


_UNNAMED = {"col1": "x", "col2": "y"}
"""Columns that no line names, as astropy calls them."""


def _are_numbers(line: str) -> bool:
    """Whether a line holds numbers only, so that it names no columns."""
    words = line.replace(",", " ").split()
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False


def _program(names: Mapping[str, str]) -> str:
    """Guess who wrote a table from its columns."""
    if "xcpeak" in names and "npix" in names:
        return "sep"
    if "label" in names and ("x_centroid" in names or "xcentroid" in names):
        return "photutils"
    if "number" in names and ("x_image" in names or "xpeak_image" in names):
        return "sextractor"
    if any(name.endswith("_image") for name in names):
        return "sextractor"
    return "table"


def _given_columns(
    columns: Mapping[str, str], names: Mapping[str, str], path: str
) -> dict[str, str]:
    """Check the column mapping."""
    for key, name in columns.items():
        if key not in _ALIASES:
            raise FormatError(f"no quantity {key}; known: {', '.join(_ALIASES)}", path)
        if name.lower() not in names:
            raise MissingHduError(f"no column {name}; it has {', '.join(names.values())}", path)
    return {key: name.lower() for key, name in columns.items()}


def _positions(
    column: Any,
    program: str,
    box: Box,
    wcs: Sequence[str],
    origin: int | None,
    given: Mapping[str, str],
    path: str,
    present: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions in parent coordinates, from x, y or else from ra, dec."""
    x, y = column("x"), column("y")
    ra, dec = column("ra"), column("dec")
    if "ra" in given or x is None or y is None:
        if ra is None or dec is None:
            raise MissingHduError(
                f"neither x, y nor ra, dec among the columns {', '.join(present)}",
                path,
                hint="name them: --set columns=x=NAME,y=NAME",
            )
        if not wcs:
            raise FormatError("positions are in ra, dec, and --like has no WCS", path)
        return sky_to_pixel(wcs, box, ra, dec)
    first = (1 if program == "sextractor" else 0) if origin is None else origin
    return x - first + box.x0, y - first + box.y0
