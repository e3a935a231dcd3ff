"""PSFs in files and on the command line.

HDU ``PSF`` with keyword ``PSFKIND``: STAMP (2-D), GRID (3-D with table ``PSF_CELLS``, or a 4-D
lattice), POLY (3-D with image ``PSF_COEF``), GAUSSIAN, DGAUSS, MOFFAT (keywords; the pixels are
for other readers); or a PSFEx table ``PSF_DATA``, kept as it is.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, table_dtype
from coblend.core.errors import FormatError, MissingHduError, ParameterError
from coblend.core.exposure import HeaderValue
from coblend.core.psf import AnalyticPsf, CellPsf, GridPsf, PolyPsf, Psf, PsfexPsf, StampPsf
from coblend.core.psf.analytic import KINDS
from coblend.core.psf.moments import FWHM_PER_SIGMA, adaptive_moments
from coblend.core.psf.stamp import normalized
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.specs import parse_spec
from coblend.io.fits.writer import FitsWriter
from coblend.io.psf.fields import (
    lattice_header,
    lattice_nodes,
    number_of,
    read_field,
    write_field,
)
from coblend.io.psf.psfex import read_psfex, write_psfex

log = logging.getLogger("coblend")

SPECS = (
    "file.fits[HDU], file.psf, gaussian:fwhm=5.5, moffat:fwhm=4.2,beta=3, double-gaussian:fwhm=7.7"
)
"""Forms of a PSF specification, for messages."""

OFF_CENTRE_WARN, OFF_CENTRE_ERROR = 0.05, 0.5  # pixel
_N_CHECKED = 16
_FILE_KINDS = ("stamp", "psfex")
_TEXT_KINDS = {"gaussian": "GAUSSIAN", "double-gaussian": "DGAUSS", "moffat": "MOFFAT"}
_TEXT_KEYS = {
    "gaussian": ("fwhm", "sigma", "e1", "e2", "integrated", "size"),
    "double-gaussian": ("fwhm", "sigma", "wing_factor", "wing_amplitude", "e1", "e2",
                        "integrated", "size"),
    "moffat": ("fwhm", "beta", "e1", "e2", "integrated", "size"),
}  # fmt: skip
_HEADER_KEYS = {
    "PSFFWHM": "fwhm", "PSFBETA": "beta", "PSFE1": "e1", "PSFE2": "e2", "PSFWFAC": "wing_factor",
    "PSFWAMP": "wing_amplitude", "PSFPIXI": "integrated", "PSFSIZE": "size",
}  # fmt: skip
_CELL_COLUMNS = (
    Column("cell", "i4", "plane of PSF", "", "meta.record"),
    Column("x0", "i4", "first column of the cell, parent coordinates", "pixel", "pos.cartesian.x"),
    Column("y0", "i4", "first row of the cell, parent coordinates", "pixel", "pos.cartesian.y"),
    Column("x1", "i4", "column after the last", "pixel", "pos.cartesian.x"),
    Column("y1", "i4", "row after the last", "pixel", "pos.cartesian.y"),
    Column("xc", "f8", "column of the centre", "pixel", "pos.cartesian.x"),
    Column("yc", "f8", "row of the centre", "pixel", "pos.cartesian.y"),
    Column("valid", "?", "whether the cell has a PSF", "", "meta.code"),
    Column("region", "i4", "region of a map that the cell stands for, -1: none", "", "meta.id"),
)


def parse_psf_spec(text: str) -> Psf:
    """PSF of a command-line specification.

    Parameters
    ----------
    text : str
        ``gaussian:``, ``double-gaussian:`` or ``moffat:`` with ``key=value,...``; or
        ``FILE[HDU]``, optionally after ``stamp:`` or ``psfex:``.

    Raises
    ------
    ParameterError
        For an unknown form, key or value.
    CoblendError
        When the file cannot be used.
    """
    kind, _, rest = text.partition(":")
    if kind in _TEXT_KINDS:
        return _analytic(kind, rest)
    named = bool(rest) and kind in _FILE_KINDS
    spec = parse_spec(rest if named else text)
    if not (named or os.path.exists(spec.path)) and re.fullmatch(r"[\w-]+:\w*(=.*)?", text):
        raise ParameterError(f"no kind of PSF {kind!r}", hint=f"a PSF is one of: {SPECS}")
    with open_fits(spec.path) as file:
        if spec.hdu is not None:
            return _read_hdu(file, file.index(spec.hdu, spec.version), None)
        psf = read_psf(file, None)
        if psf is not None:
            return psf
        images = [i for i, h in enumerate(file.hdus) if h.kind != "table" and len(h.shape) >= 2]
        if len(images) == 1:
            return _read_hdu(file, images[0], None)
        raise MissingHduError(
            f"no PSF; it has {file.describe()}", spec.path, hint=f"a PSF is one of: {SPECS}"
        )


def psf_file(text: str) -> str:
    """File that a specification of a PSF names; "" for a formula."""
    kind, _, rest = text.partition(":")
    if kind in _TEXT_KINDS:
        return ""
    return parse_spec(rest if rest and kind in _FILE_KINDS else text).path


def read_psf(file: FitsFile, exposure_box: Box | None, name: str = "PSF") -> Psf | None:
    """PSF that a file carries; None where it has none.

    Parameters
    ----------
    file : FitsFile
    exposure_box : Box or None
        Pixels that the PSF must cover at least in part, parent coordinates.
    name : str
        EXTNAME of the PSF HDU; a PSFEx table is found under ``PSF_DATA``.

    Raises
    ------
    FormatError
        When the PSF is even, off-centre, not finite, without positive sum, inconsistent, or
        elsewhere than the exposure; file and HDU are named.
    """
    for candidate in dict.fromkeys((name, "PSF_DATA")):
        found = [i for i, hdu in enumerate(file.hdus) if hdu.name == candidate]
        if len(found) > 1:
            raise FormatError(
                f"has {len(found)} HDUs {candidate}: numbers {', '.join(map(str, found))}",
                file.path,
                hint=f"name one, for example {file.path}[{found[0]}]",
            )
        if found:
            return _read_hdu(file, found[0], exposure_box)
    return None


def write_psf(out: FitsWriter, psf: Psf, name: str = "PSF") -> None:
    """Append a PSF as HDU ``name`` (and its tables).

    A model of a class unknown here is written as the stamp it has, if it is constant.

    Raises
    ------
    ParameterError
        For an unknown model that varies.
    """
    head: dict[str, HeaderValue] = {"PSFVER": 1, "PSFNORM": 1.0}
    if isinstance(psf, PsfexPsf):
        write_psfex(out, psf, name)
    elif isinstance(psf, GridPsf):
        head |= lattice_header(psf.y, psf.x)
        head |= {"PSFKIND": "GRID", "PSFINTRP": psf.interpolation.upper()}
        out.image(name, psf.stamps, header=head)
    elif isinstance(psf, CellPsf):
        head |= {"PSFKIND": "GRID", "PSFINTRP": psf.interpolation.upper()}
        out.image(name, psf.stamps, header=head)
        out.table(f"{name}_CELLS", _cell_table(psf), columns=_CELL_COLUMNS)
    elif isinstance(psf, PolyPsf):
        write_field(out, psf.field, name, f"{name}_COEF", {**head, "PSFKIND": "POLY"}, "PSF")
    elif isinstance(psf, AnalyticPsf):
        values = {key: getattr(psf, field) for key, field in _HEADER_KEYS.items()}
        given = {key: value for key, value in values.items() if value is not None}
        out.image(name, psf.stamp(), header={**head, "PSFKIND": psf.kind, **given})
    elif psf.constant:
        out.image(name, psf.at(0.0, 0.0), header={**head, "PSFKIND": "STAMP"}, compress="none")
    else:
        raise ParameterError(f"a varying {type(psf).__name__} has no form in a file")


def _analytic(kind: str, text: str) -> AnalyticPsf:
    values: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key not in _TEXT_KEYS[kind]:
            allowed = ", ".join(_TEXT_KEYS[kind])
            raise ParameterError(f"{kind} PSF has no {key!r}", hint=f"its values are: {allowed}")
        try:
            values[key] = float(value)
        except ValueError:
            raise ParameterError(f"{kind} PSF: {key}={value!r} is not a number") from None
    if "sigma" in values:
        values["fwhm"] = values.pop("sigma") * FWHM_PER_SIGMA
    if "fwhm" not in values:
        raise ParameterError(f"{kind} PSF needs a width", hint=f"for example {kind}:fwhm=5.5")
    return _of_numbers(_TEXT_KINDS[kind], values)


def _of_numbers(kind: str, values: Mapping[str, float]) -> AnalyticPsf:
    """Analytic PSF whose size and whether it is integrated come as numbers."""
    kinds: dict[str, type] = {"size": int, "integrated": bool}
    return AnalyticPsf(kind, **{key: kinds.get(key, float)(v) for key, v in values.items()})


def _read_hdu(file: FitsFile, index: int, box: Box | None) -> Psf:
    """Dispatch on what the HDU declares."""
    info = file.info(index)
    try:
        if info.kind == "table":
            return read_psfex(file, index)
        header = file.header(index)
        kind = str(header.get("PSFKIND", "")).strip().upper()
        if kind in KINDS:
            values = {f: number_of(header, k) for k, f in _HEADER_KEYS.items() if k in header}
            if "PSFSIGMA" in header:
                values.setdefault("fwhm", number_of(header, "PSFSIGMA") * FWHM_PER_SIGMA)
            if "fwhm" not in values:
                raise FormatError("keyword PSFFWHM is absent")
            return _of_numbers(kind, values)
        if kind not in ("", "STAMP", "GRID", "POLY"):
            raise FormatError(f"PSFKIND is {kind!r}; known: STAMP, GRID, POLY, {', '.join(KINDS)}")
        if kind == "POLY":
            psf: Psf = PolyPsf(read_field(file, index, f"{info.name}_COEF", "PSF"))
        else:
            psf = _read_stamps(file, index, header)
        _check_covers(psf, box)
        return psf
    except (FormatError, ParameterError) as error:
        if error.path is not None:
            raise
        name = info.name or str(index)
        raise FormatError(error.message, file.path, name, error.hint) from error


def _read_stamps(file: FitsFile, index: int, header: Mapping[str, HeaderValue]) -> Psf:
    stamps = file.image(index).astype(np.float64)
    factor = int(number_of(header, "OVERSAMP", 1))
    stamps = _at_pixels(stamps, factor)
    _check_centred(stamps, file, index)
    name = file.info(index).name
    interpolation = str(header.get("PSFINTRP", "")).strip().lower()
    if stamps.ndim == 2:
        return StampPsf(stamps)
    if stamps.ndim == 4:
        return GridPsf(stamps, *lattice_nodes(stamps.shape, header), interpolation or "cubic")
    if stamps.ndim == 3 and file.has(f"{name}_CELLS"):
        return _read_cells(file, f"{name}_CELLS", stamps, interpolation or "nearest")
    if stamps.ndim == 3 and "DET_YX0" in header:
        return _read_gridded(stamps, header)
    if stamps.ndim == 3 and len(stamps) == 1:
        return StampPsf(stamps[0])
    raise FormatError(
        f"a PSF of shape {stamps.shape[::-1]} needs a table {name or 'PSF'}_CELLS with the places"
    )


def _read_cells(file: FitsFile, table: str, stamps: NDArray[np.float64], how: str) -> CellPsf:
    rows = file.table(table)
    columns = {c.lower(): rows[c] for c in rows.dtype.names or ()}
    missing = {"x0", "y0", "x1", "y1", "xc", "yc"} - set(columns)
    if missing:
        raise MissingHduError(f"no column {min(missing)}", file.path, table)
    plane = columns.get("cell", np.arange(len(rows)))
    use = columns.get("valid", np.ones(len(rows), bool)).astype(bool)
    if len(rows) and not 0 <= plane.min() <= plane.max() < len(stamps):
        raise FormatError(f"names plane {plane.max()}, PSF has {len(stamps)}", file.path, table)
    if not use.any():
        raise FormatError("no cell has a PSF", file.path, table)
    boxes = np.stack([columns[c][use] for c in ("y0", "x0", "y1", "x1")], axis=1)
    centres = (columns["yc"][use], columns["xc"][use])
    regions = columns["region"][use].astype(np.int64) if "region" in columns else None
    return CellPsf(stamps[plane[use]], *centres, how, boxes.astype(np.int64), regions)


def _read_gridded(stamps: NDArray[np.float64], header: Mapping[str, HeaderValue]) -> Psf:
    """Positions in keywords ``DET_YX<i> = '(y, x)'`` (photutils GriddedPSFModel, STPSF)."""
    places = []
    for i in range(len(stamps)):
        numbers = re.findall(r"[-+0-9.eE]+", str(header.get(f"DET_YX{i}", "")))
        if len(numbers) < 2:
            raise FormatError(f"keyword DET_YX{i} is absent or not '(y, x)'")
        places.append((float(numbers[0]), float(numbers[1])))
    y, x = np.array(places).T
    rows, columns = np.unique(y), np.unique(x)
    if rows.size * columns.size != len(stamps):
        return CellPsf(stamps, y, x, "linear")
    order = np.lexsort((x, y))
    side = stamps.shape[-1]
    try:
        return GridPsf(
            stamps[order].reshape(rows.size, columns.size, side, side), rows, columns, "cubic"
        )
    except FormatError:  # rows and columns at unequal steps
        return CellPsf(stamps, y, x, "linear")


def _cell_table(psf: CellPsf) -> NDArray[Any]:
    rows = np.zeros(len(psf.stamps), table_dtype(_CELL_COLUMNS))
    rows["cell"] = np.arange(len(rows))
    rows["yc"], rows["xc"] = psf.y, psf.x
    if psf.boxes is not None:
        for i, column in enumerate(("y0", "x0", "y1", "x1")):
            rows[column] = psf.boxes[:, i]
    rows["valid"] = True
    rows["region"] = -1 if psf.regions is None else psf.regions
    return rows


def _at_pixels(stamps: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Every ``factor``-th sample around the centre of stamps sampled finer than the pixels."""
    if factor < 1:
        raise FormatError(f"OVERSAMP is {factor}, expected 1 or more")
    if factor == 1:
        return stamps
    if stamps.shape[-1] % 2 == 0:
        normalized(stamps)  # raises: no central sample
    first = (stamps.shape[-1] // 2) % factor
    return stamps[..., first::factor, first::factor]


def _check_centred(stamps: NDArray[np.float64], file: FitsFile, index: int) -> None:
    flat = normalized(stamps, gaps=stamps.ndim > 2).reshape(-1, *stamps.shape[-2:])
    flat = flat[np.isfinite(flat).all((1, 2))]
    offsets = [_offset(stamp) for stamp in flat[:: -(-len(flat) // _N_CHECKED)]]
    dy, dx = max(offsets, key=lambda offset: float(np.hypot(*offset)), default=(0.0, 0.0))
    offset = float(np.hypot(dy, dx))
    if offset > OFF_CENTRE_ERROR:
        raise FormatError(
            f"the PSF is off its centre by ({dx:.2f}, {dy:.2f}) px in (x, y)",
            hint="shift it so that its peak is the central pixel",
        )
    if offset > OFF_CENTRE_WARN:
        log.warning(
            "%s[%s]: the PSF is off its centre by (%.2f, %.2f) px; positions will follow",
            file.path, file.info(index).name or index, dx, dy,
        )  # fmt: skip


def _offset(stamp: NDArray[np.float64]) -> tuple[float, float]:
    """``(dy, dx)`` of a PSF from the centre of its stamp."""
    try:
        moments = adaptive_moments(stamp)
        return float(moments.dy[0]), float(moments.dx[0])
    except FormatError:  # no Gaussian matches, for example a single pixel
        y, x = np.unravel_index(np.argmax(stamp), stamp.shape)
        return float(y) - stamp.shape[0] // 2, float(x) - stamp.shape[1] // 2


def _check_covers(psf: Psf, box: Box | None) -> None:
    """Refuse a varying PSF that was made for other pixels."""
    if box is None or not box.area or psf.constant:
        return
    if isinstance(psf, PolyPsf):
        x_min, x_max, y_min, y_max = psf.field.domain
    elif isinstance(psf, CellPsf) and psf.boxes is not None and psf.boxes.any():
        (y_min, x_min), (y_max, x_max) = psf.boxes[:, :2].min(0), psf.boxes[:, 2:].max(0)
    elif isinstance(psf, GridPsf):
        step_y, step_x = (n[1] - n[0] if n.size > 1 else np.inf for n in (psf.y, psf.x))
        y_min, y_max = psf.y[0] - step_y, psf.y[-1] + step_y
        x_min, x_max = psf.x[0] - step_x, psf.x[-1] + step_x
    else:
        return
    if x_max <= box.x0 or x_min >= box.x1 or y_max <= box.y0 or y_min >= box.y1:
        raise FormatError(
            f"the PSF covers x {x_min:g} to {x_max:g}, y {y_min:g} to {y_max:g}, "
            f"the image {box}: they do not meet"
        )
