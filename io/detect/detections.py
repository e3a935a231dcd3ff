"""Detection files: `det/1` (one band) and `merged/1` (several)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.catalog import Column, table_dtype
from coblend.core.detection import Detections, parent_columns, peak_columns
from coblend.core.errors import CorruptFileError, FormatError, MissingHduError, SchemaError
from coblend.core.exposure import HeaderValue
from coblend.core.footprint import FootprintSet, SpanIndex, raster_order
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.writer import FitsWriter
from coblend.io.sky.wcs import is_wcs_key, pixel_to_sky, wcs_cards

KINDS = ("det", "merged")

_SPAN = (
    Column("y", "i4", "Row, parent coordinates", "pixel", "pos.outline"),
    Column("x0", "i4", "First column, parent coordinates", "pixel", "pos.outline"),
    Column("x1", "i4", "Last column (inclusive), parent coordinates", "pixel", "pos.outline"),
)
_CORE = (*_SPAN, Column("core", "i4", "Component before growth (0-based)", "", "meta.id"))
_BAND_STEMS = ("merge_footprint", "merge_peak", "near", "src")
_OWN_KEYS = {"X0", "Y0", "NX", "NY", "NBAND", "FLUXUNIT", "BUNIT", "EXTNAME", "INHERIT",
             "LONGSTRN"}  # fmt: skip
_STRUCTURE = ("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "TFIELDS", "CHECKSUM",
              "DATASUM", "TTYPE", "TFORM", "TUNIT", "TCOMM", "TUCD", "TNULL", "TDIM", "TZERO",
              "TSCAL", "BAND")  # fmt: skip


def write_detections(out: FitsWriter, detections: Detections, prefix: str = "") -> None:
    """Append PARENTS, PEAKS, SPANS and, where there are any, CORES and CULLED.

    Parameters
    ----------
    out : FitsWriter
        From `coblend.io.fits.writer.create` with schema ``det/1`` or ``merged/1``.
    detections : Detections
    prefix : str
        Put before the names of the HDUs, e.g. ``NEG_``.
    """
    bands, unit, box = detections.bands, detections.unit, detections.box
    header: dict[str, HeaderValue] = {
        "X0": box.x0,
        "Y0": box.y0,
        "NX": box.nx,
        "NY": box.ny,
        "NBAND": len(bands),
        **{f"BAND{i}": band for i, band in enumerate(bands, 1)},
        **({"FLUXUNIT": unit} if unit else {}),
        **detections.meta,
    }
    out.table(
        f"{prefix}PARENTS", detections.parents, columns=parent_columns(bands, unit),
        header=header, wcs=detections.wcs,
    )  # fmt: skip
    columns = peak_columns(bands, unit)
    out.table(f"{prefix}PEAKS", detections.peaks, columns=columns)
    out.table(f"{prefix}SPANS", _span_table(detections.footprints, _SPAN), columns=_SPAN)
    if detections.cores is not None:
        out.table(f"{prefix}CORES", _span_table(detections.cores, _CORE), columns=_CORE)
    if detections.culled is not None:
        out.table(f"{prefix}CULLED", detections.culled, columns=columns)


def read_detections(path: str) -> Detections:
    """Read and check a detection file.

    Raises
    ------
    InputMissingError
        No such file.
    SchemaError
        Another kind of file.
    CorruptFileError, FormatError
        Tables that contradict each other; the message gives the first rows concerned.
    """
    with open_fits(path) as file:
        file.require_headers()
        require_detections(file)
        header = file.header("PARENTS")
        try:
            box = Box(*(int(header[k]) for k in ("Y0", "X0", "NY", "NX")))
            bands = tuple(
                str(header[f"BAND{i}"]).strip() for i in range(1, int(header["NBAND"]) + 1)
            )
        except (KeyError, ValueError) as error:
            raise CorruptFileError(f"no usable keyword {error}", path, "PARENTS") from error
        unit = str(header.get("FLUXUNIT", header.get("BUNIT", ""))).strip()
        parents = _rows(file, "PARENTS", parent_columns(bands, unit))
        peaks = _rows(file, "PEAKS", peak_columns(bands, unit))
        spans = _spans(_rows(file, "SPANS", _SPAN))
        detections = Detections(
            bands=bands,
            parents=parents,
            peaks=peaks,
            footprints=_footprints(spans, parents, path),
            box=box,
            cores=_cores(file),
            culled=_rows(file, "CULLED", peak_columns(bands, unit))
            if file.has("CULLED")
            else None,
            wcs=wcs_cards(file.cards("PARENTS")),
            unit=unit,
            meta=_meta(header),
        )
    check_detections(detections, path)
    return detections


def require_detections(file: FitsFile) -> None:
    """Refuse a file that is no detection file of a version known here.

    Raises
    ------
    SchemaError
    """
    kind, major = file.schema
    if kind not in KINDS:
        what = f"schema {kind}" if kind else f"HDUs {file.describe()}"
        raise SchemaError(
            f"{what}, expected detections (det/1 or merged/1)",
            file.path,
            hint="catalogues of other programs go through coblend merge-detections",
        )
    if major > 1:
        raise SchemaError(
            f"schema {kind}/{major} is newer than this program knows", file.path,
            hint="upgrade coblend",
        )  # fmt: skip


def check_detections(detections: Detections, path: str) -> None:
    """Check what `Detections` guarantees.

    Raises
    ------
    FormatError
        Duplicate identifiers, empty parents, spans outside the image or in two parents, peaks
        outside their parent; with up to five rows as examples.
    """
    parents, peaks, footprints = detections.parents, detections.peaks, detections.footprints
    spans = footprints.spans.astype(np.int64)
    box = detections.box
    outside = (spans[:, 0] < box.y0) | (spans[:, 0] >= box.y1) | (spans[:, 1] < box.x0)
    outside |= (spans[:, 2] >= box.x1) | (spans[:, 2] < spans[:, 1])
    _refuse(outside, "lie outside the image or are reversed", path, "SPANS")
    _refuse(parents["nspan"] == 0, "have no pixels", path, "PARENTS")
    _refuse(parents["npeak"] == 0, "have no peak", path, "PARENTS")
    for name, table in (("PARENTS", parents), ("PEAKS", peaks)):
        _refuse(_repeated(table["id"]), "repeat an identifier", path, name)
    key = spans[:, 0] * box.nx + spans[:, 1]
    unsorted = np.zeros(len(key), bool)
    unsorted[1:] = (np.diff(footprints.owner) == 0) & (np.diff(key) <= 0)
    _refuse(unsorted, "are not sorted by y, x in their parent", path, "SPANS")
    order = raster_order(footprints.spans)
    owner = footprints.owner[order]
    sorted_spans = footprints.spans[order]
    overlap = np.zeros(len(order), bool)
    same_row = sorted_spans[1:, 0] == sorted_spans[:-1, 0]
    overlap[1:] = same_row & (sorted_spans[1:, 1] <= sorted_spans[:-1, 2])
    _refuse(overlap[np.argsort(order)], "overlap another span", path, "SPANS")
    _refuse(parents["area"] != footprints.areas, "differ from SPANS in area", path, "PARENTS")
    span = SpanIndex.build(sorted_spans).find(peaks["iy"], peaks["ix"])
    row = np.repeat(np.arange(len(parents)), parents["npeak"])
    lost = span < 0
    lost[~lost] |= owner[span[~lost]] != row[~lost]
    _refuse(lost, "lie outside the footprint of their parent", path, "PEAKS")
    _refuse(peaks["parent"] != parents["id"][row], "name another parent", path, "PEAKS")
    y, x = peaks["y"], peaks["x"]
    inside = (y > box.y0 - 1) & (y < box.y1) & (x > box.x0 - 1) & (x < box.x1)
    _refuse(~inside, "have a position outside the image", path, "PEAKS")
    n_core = 0 if detections.cores is None else len(detections.cores)
    beyond = (peaks["core"] < -1) | ((peaks["core"] >= n_core) & (n_core > 0))
    _refuse(beyond, "name a core that is not in CORES", path, "PEAKS")


def with_sky_positions(detections: Detections) -> Detections:
    """Fill ``ra, dec`` of parents, peaks and culled peaks from the WCS; NaN without one."""

    def placed(table: NDArray[Any]) -> NDArray[Any]:
        table = table.copy()
        ra, dec = pixel_to_sky(detections.wcs, detections.box, table["x"], table["y"])
        table["ra"], table["dec"] = ra, dec
        return table

    return replace(
        detections,
        parents=placed(detections.parents),
        peaks=placed(detections.peaks),
        culled=None if detections.culled is None else placed(detections.culled),
    )


def renamed(detections: Detections, band: str) -> Detections:
    """Return detections of one band under another name of it; identifiers stay."""
    old, new = column_suffix(detections.bands[0]), column_suffix(band)
    if detections.bands == (band,):
        return detections

    def moved(table: NDArray[Any]) -> NDArray[Any]:
        names = [
            f"{name[: -len(old)]}{new}"
            if name in {f"{stem}_{old}" for stem in _BAND_STEMS}
            else name
            for name in table.dtype.names or ()
        ]
        kinds = [table.dtype[name] for name in table.dtype.names or ()]
        table = table.view(np.dtype(list(zip(names, kinds, strict=True)))).copy()
        if "band" in names:
            table["band"] = band
        return table

    return replace(
        detections,
        bands=(band,),
        parents=moved(detections.parents),
        peaks=moved(detections.peaks),
        culled=None if detections.culled is None else moved(detections.culled),
    )


def _span_table(footprints: FootprintSet, columns: tuple[Column, ...]) -> NDArray[Any]:
    table = np.zeros(len(footprints.spans), table_dtype(columns))
    for column, values in zip(("y", "x0", "x1"), footprints.spans.T, strict=True):
        table[column] = values
    if len(columns) == 4:
        table["core"] = footprints.owner
    return table


def _spans(table: NDArray[Any]) -> NDArray[np.int32]:
    return np.stack([table[c].astype(np.int32) for c in ("y", "x0", "x1")], axis=1)


def _footprints(spans: NDArray[np.int32], parents: NDArray[Any], path: str) -> FootprintSet:
    """Footprints of the parents, whose rows must own the spans one after the other."""
    offsets = np.zeros(len(parents) + 1, np.int64)
    np.cumsum(parents["nspan"], out=offsets[1:])
    peak0 = np.cumsum(parents["npeak"]) - parents["npeak"]
    broken = (parents["span0"] != offsets[:-1]) | (parents["peak0"] != peak0)
    _refuse(broken, "do not continue the previous row in SPANS or PEAKS", path, "PARENTS")
    if offsets[-1] != len(spans):
        raise CorruptFileError(
            f"has {len(spans)} rows, PARENTS asks for {offsets[-1]}", path, "SPANS"
        )
    return FootprintSet(spans, offsets)


def _cores(file: FitsFile) -> FootprintSet | None:
    if not file.has("CORES"):
        return None
    table = _rows(file, "CORES", _CORE)
    core = table["core"].astype(np.int64)
    if len(core) and (core[0] != 0 or not np.isin(np.diff(core), (0, 1)).all()):
        raise CorruptFileError("does not number its cores 0, 1, 2, ...", file.path, "CORES")
    n = int(core[-1]) + 1 if len(core) else 0
    offsets = np.searchsorted(core, np.arange(n + 1)).astype(np.int64)
    return FootprintSet(_spans(table), offsets)


def _rows(file: FitsFile, name: str, columns: tuple[Column, ...]) -> NDArray[Any]:
    """Rows of one table with exactly ``columns``."""
    table = file.table(name)
    present = table.dtype.names or ()
    missing = [c.name for c in columns if c.name not in present]
    if missing:
        raise MissingHduError(
            f"no column {missing[0]}; it has {', '.join(present)}", file.path, name
        )
    out = np.zeros(len(table), table_dtype(columns))
    for column in columns:
        out[column.name] = table[column.name]
    return out


def _meta(header: Mapping[str, HeaderValue]) -> dict[str, HeaderValue]:
    return {
        key: value
        for key, value in header.items()
        if key not in _OWN_KEYS and not key.startswith(_STRUCTURE) and not is_wcs_key(key)
    }


def _repeated(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows whose value stands in an earlier row."""
    repeated = np.ones(len(values), bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def _refuse(bad: NDArray[np.bool_], what: str, path: str, hdu: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        examples = ", ".join(str(r) for r in rows[:5])
        raise FormatError(
            f"{len(rows)} rows {what} (0-based: {examples})", path, hdu,
            hint="was the file edited? Make it again with coblend detect or merge-detections",
        )  # fmt: skip
