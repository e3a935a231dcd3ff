"""Deblended models in a file: any blend can be read alone, and damage is always noticed.

Tables hold what is one number per parent, blend, object or component; two one-dimensional images
hold the rest: ``MORPH``, the support pixels of all components as integers, and ``RUNS``, the run
lengths that say where those pixels are. Every row of PARENTS and BLENDS carries a CRC-32 of all
that belongs to it, because a flipped bit in Rice-compressed data decodes to wrong numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, table_dtype
from coblend.core.errors import (
    CorruptFileError,
    FormatError,
    MissingHduError,
    ParameterError,
)
from coblend.core.exposure import HeaderValue
from coblend.core.model import (
    MODEL_PSF_SIDE,
    ModelSet,
    blend_columns,
    component_columns,
    object_columns,
    parent_columns,
)
from coblend.io.encoding import (
    decode_runs,
    encode_runs,
    footprint_pixels,
    pixels_to_footprints,
    row_checksums,
)
from coblend.io.morphologies import box_offsets, pack, table_boxes, unpack
from coblend.io.reader import FitsFile, open_fits
from coblend.io.wcs import is_wcs_key, wcs_cards
from coblend.io.writer import FitsWriter

SCHEMA = "deblended/1"
_TILE = 1024
_PSF_STEP = 2e-7
"""Step at which the stamps of a varying PSF are stored; a decimal that header text holds."""

_PARENT_STORE = (
    Column("run0", "i8", "First run of the footprint in RUNS (0-based)"),
    Column("n_run", "i4", "Runs of the footprint", "", "meta.number"),
    Column("object0", "i4", "First row in OBJECTS (0-based)"),
    Column("n_object", "i4", "Rows in OBJECTS", "", "meta.number"),
    Column("crc32", "i8", "CRC-32 of this row up to here, its objects and its runs"),
)
_BLEND_STORE = (
    Column("pix0", "i8", "First value in MORPH (0-based)"),
    Column("n_pix", "i4", "Values in MORPH", "", "meta.number"),
    Column("run0", "i8", "First run in RUNS (0-based)"),
    Column("n_run", "i4", "Runs in RUNS", "", "meta.number"),
    Column("crc32", "i8", "CRC-32 of this row up to here, its components, values and runs"),
)
_COMPONENT_STORE = (
    Column("scale", "f4", "Morphology per unit of MORPH"),
    Column("n_pix", "i4", "Values in MORPH", "", "meta.number"),
    Column("n_run", "i4", "Runs in RUNS", "", "meta.number"),
)
_CELL_COLUMNS = (
    Column("y", "f8", "Where the PSFs were evaluated, parent coordinates", "pixel"),
    Column("x", "f8", "Where the PSFs were evaluated, parent coordinates", "pixel"),
    Column("crc32", "i8", "CRC-32 of y, x and the stamps as stored"),
)
_RECIPE = (
    "With astropy: h = astropy.io.fits.open(name); b = h['BLENDS'].data[i]",
    "c = h['COMPONENTS'].data[b['component0']:b['component0'] + b['n_component']]",
    "p = h['MORPH'].section[b['pix0']:b['pix0'] + b['n_pix']]",
    "r = h['RUNS'].section[b['run0']:b['run0'] + b['n_run']]",
    "Of each component the next n_pix of p and n_run of r: mask = numpy.repeat(",
    "numpy.arange(n_run) % 2 == 1, r).reshape(ny, nx); morph[mask] = scale * p",
    "model of a band = spectrum_<band> * morph, first pixel (y0, x0)",
)


def model_header(models: ModelSet) -> dict[str, HeaderValue]:
    """Keywords of the PARENTS HDU."""
    grid = models.box
    header: dict[str, HeaderValue] = {"NBAND": len(models.bands)}
    header |= {f"BAND{i}": band for i, band in enumerate(models.bands, 1)}
    if models.unit:
        header["BUNIT"] = models.unit
    header |= {"KERNREG": models.kernel_reg, "MPSFSIG": models.model_psf_sigma}
    header |= {"MPSFSIZE": MODEL_PSF_SIDE, "X0": grid.x0, "Y0": grid.y0}
    header |= {"NAXISI1": grid.nx, "NAXISI2": grid.ny}
    return header


_OWN_KEYS = frozenset(
    "NBAND BUNIT KERNREG MPSFSIG MPSFSIZE X0 Y0 NAXISI1 NAXISI2 EXTNAME XTENSION BITPIX NAXIS "
    "NAXIS1 NAXIS2 PCOUNT GCOUNT TFIELDS CHECKSUM DATASUM NPIX NRUN".split()
)
_OWN_PREFIXES = ("BAND", "TTYPE", "TFORM", "TUNIT", "TUCD", "TCOMM", "TNULL", "TDISP", "TDIM")


def write_models(
    out: FitsWriter, models: ModelSet, steps: NDArray[np.floating] | None = None
) -> None:
    """Append PARENTS, BLENDS, OBJECTS, COMPONENTS, MORPH, RUNS, PSF and PSF_CELLS.

    Parameters
    ----------
    out : FitsWriter
        From `coblend.io.writer.create` with schema `SCHEMA`.
    models : ModelSet
    steps : array, shape (n_component,), optional
        Rounding step of each morphology, from
        `coblend.core.reconstruct.precision.storage_steps`; None: lossless.

    Raises
    ------
    FormatError
        Models that are not finite, or rows out of order.
    """
    _require_order(models)
    bands, unit = models.bands, models.unit
    heap = pack(models, steps)
    boxes = table_boxes(models.parents)
    offsets = box_offsets(boxes)
    parent_runs, n_parent_run = encode_runs(
        footprint_pixels(models.footprints, boxes, offsets), offsets
    )
    runs = np.concatenate([parent_runs, heap.runs])

    objects = _as(models.objects, object_columns(bands, unit))
    parents = _extend(models.parents, parent_columns(), _PARENT_STORE)
    parents["run0"] = np.cumsum(n_parent_run) - n_parent_run
    parents["n_run"] = n_parent_run
    row = _row_of(models.parents["id"], models.objects["parent"])
    parents["n_object"] = np.bincount(row, minlength=len(parents))
    parents["object0"] = np.cumsum(parents["n_object"]) - parents["n_object"]
    parents["crc32"] = _parent_checksums(parents, objects, runs)

    components = _extend(models.components, component_columns(bands, unit), _COMPONENT_STORE)
    for name, column in zip(("y0", "x0", "ny", "nx"), heap.boxes.T, strict=True):
        components[name] = column
    components["scale"], components["n_pix"] = heap.scale, heap.n_pix
    components["n_run"] = heap.n_run
    blends = _extend(models.blends, blend_columns(bands, unit), _BLEND_STORE)
    for first, count, values, shift in (
        ("pix0", "n_pix", heap.n_pix, 0),
        ("run0", "n_run", heap.n_run, len(parent_runs)),
    ):
        ends = np.concatenate([[0], np.cumsum(values)])
        start = blends["component0"].astype(np.int64)
        blends[first] = ends[start] + shift
        blends[count] = ends[start + blends["n_component"]] - ends[start]
    blends["crc32"] = _blend_checksums(blends, components, heap.codes, runs)

    header = {**model_header(models), "NPIX": len(heap.codes), "NRUN": len(runs), **models.meta}
    out.table("PARENTS", parents, columns=(*parent_columns(), *_PARENT_STORE), header=header,
              wcs=models.wcs)  # fmt: skip
    out.table("BLENDS", blends, columns=(*blend_columns(bands, unit), *_BLEND_STORE))
    out.table("OBJECTS", models.objects, columns=object_columns(bands, unit))
    out.table("COMPONENTS", components,
              columns=(*component_columns(bands, unit), *_COMPONENT_STORE))  # fmt: skip
    codec = "GZIP_2" if steps is None else "RICE_1"
    recipe = [f"COMMENT {line}".ljust(80) for line in _RECIPE]
    out.image("MORPH", _not_empty(heap.codes), compress=codec, tile=(_TILE,), wcs=recipe)
    out.image("RUNS", _not_empty(runs), compress="GZIP_2", tile=(_TILE,))
    _write_psfs(out, models)


class ModelFile:
    """A file of deblended models, open for random access.

    Everything it returns is a `ModelSet` whose row numbers count from its own tables. What is
    read is checked against its CRC-32.

    Parameters
    ----------
    path : str

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
        It is missing, of another kind, or damaged.

    Examples
    --------
    >>> with ModelFile("deblended.fits") as models:  # doctest: +SKIP
    ...     one = models.blend(1234)
    ...     one.morphology(0)
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._stack = ExitStack()
        self._file: FitsFile = self._stack.enter_context(open_fits(path))
        try:
            self._file.require_schema(*SCHEMA.split("/")[:1])
            self._read_header()
        except BaseException:
            self._stack.close()
            raise

    def _read_header(self) -> None:
        header = self._file.header("PARENTS")
        try:
            self.bands = tuple(str(header[f"BAND{i + 1}"]) for i in range(int(header["NBAND"])))
            self.box = Box(*(int(header[k]) for k in ("Y0", "X0", "NAXISI2", "NAXISI1")))
            self.kernel_reg = float(header["KERNREG"])
            self.model_psf_sigma = float(header["MPSFSIG"])
            self._n_pix, self._n_run = int(header["NPIX"]), int(header["NRUN"])
        except (KeyError, ValueError) as error:
            raise CorruptFileError(f"no usable keyword {error}", self.path, "PARENTS") from error
        self.unit = str(header.get("BUNIT", ""))
        self.wcs = wcs_cards(self._file.cards("PARENTS"))
        self.meta: Mapping[str, HeaderValue] = {
            k: v for k, v in header.items()
            if k not in _OWN_KEYS and not k.startswith(_OWN_PREFIXES) and not is_wcs_key(k)
        }  # fmt: skip
        self._psfs: tuple[NDArray[np.float32], NDArray[np.float64]] | None = None
        self._ids: dict[str, NDArray[np.int64]] = {}

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __reduce__(self) -> tuple[type[ModelFile], tuple[str]]:
        return ModelFile, (self.path,)  # a CFITSIO handle must not cross a fork

    def __len__(self) -> int:
        return self._file.info("PARENTS").shape[0]

    def table(self, name: str) -> NDArray[Any]:
        """Whole PARENTS, BLENDS, OBJECTS or COMPONENTS table as stored."""
        return self._file.table(name)

    def read(self) -> ModelSet:
        """Everything."""
        return self.parents(0, len(self))

    def iter_parents(self, chunk: int = 256) -> Iterator[ModelSet]:
        """All parents in order, ``chunk`` at a time."""
        for first in range(0, len(self), chunk):
            yield self.parents(first, min(first + chunk, len(self)))

    def parents(self, first: int, last: int) -> ModelSet:
        """Rows ``first`` to ``last`` (exclusive) of PARENTS with all that belongs to them."""
        rows = self._rows("PARENTS", first, last - first)
        filled = rows[rows["n_blend"] > 0]
        blend0 = int(filled["blend0"][0]) if len(filled) else 0
        return self._assemble(first, rows, blend0, int(filled["n_blend"].sum()))

    def parent(self, identifier: int) -> ModelSet:
        """One parent by id."""
        row = self._find("PARENTS", identifier)
        return self.parents(row, row + 1)

    def blend(self, identifier: int) -> ModelSet:
        """One blend by id, with its parent's row and footprint."""
        return self.blend_row(self._find("BLENDS", identifier))

    def blend_row(self, row: int) -> ModelSet:
        """One blend by its row in BLENDS."""
        parent = int(self._rows("BLENDS", row, 1)["parent"][0])
        return self._assemble(parent, self._rows("PARENTS", parent, 1), row, 1)

    def source(self, identifier: int) -> ModelSet:
        """The blend that holds an object; its parent if it was not deblended."""
        row = self._find("OBJECTS", identifier)
        blend = int(self._rows("OBJECTS", row, 1)["blend"][0])
        if blend:
            return self.blend(blend)
        return self.parent(int(self._rows("OBJECTS", row, 1)["parent"][0]))

    def at(self, y: float, x: float) -> ModelSet:
        """The parent whose footprint holds the pixel at ``(y, x)``, parent coordinates.

        Raises
        ------
        ParameterError
            There is none.
        """
        iy, ix = round(y), round(x)
        table = self._file.table("PARENTS", columns=["y0", "x0", "ny", "nx"])
        dy, dx = iy - table["y0"], ix - table["x0"]
        inside = (dy >= 0) & (dy < table["ny"]) & (dx >= 0) & (dx < table["nx"])
        for row in np.flatnonzero(inside).tolist():
            found = self.parents(row, row + 1)
            if found.footprints.mask(0, Box(iy, ix, 1, 1)).any():
                return found
        raise ParameterError(f"no parent holds pixel x={ix}, y={iy}", self.path)

    @property
    def psfs(self) -> NDArray[np.float32]:
        """Observed PSFs, shape (n_cell, n_band, k, k), float32."""
        return self._cells()[0]

    @property
    def psf_cells(self) -> NDArray[np.float64]:
        """Where they were evaluated (y, x), shape (n_cell, 2), float64."""
        return self._cells()[1]

    def _cells(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        if self._psfs is None:
            cells = self._file.table("PSF_CELLS")
            stamps = np.asarray(self._file.image("PSF"), np.float32)
            if stamps.ndim != 3 or len(stamps) != len(cells) * len(self.bands):
                raise CorruptFileError(
                    f"has {len(stamps)} stamps for {len(cells)} cells and {len(self.bands)} "
                    "bands", self.path, "PSF",
                )  # fmt: skip
            stamps = stamps.reshape(len(cells), len(self.bands), *stamps.shape[1:])
            if not np.array_equal(cells["crc32"], _cell_checksums(cells, stamps)):
                raise CorruptFileError(_DAMAGED, self.path, "PSF", _REMEDY)
            self._psfs = stamps, np.stack([cells["y"], cells["x"]], axis=1)
        return self._psfs

    def _rows(self, name: str, first: int, count: int) -> NDArray[Any]:
        total = self._file.info(name).shape[0]
        if first < 0 or count < 0 or first + count > total:
            raise CorruptFileError(
                f"rows {first} to {first + count} are wanted, it has {total}", self.path, name
            )
        return self._file.table(name, rows=slice(first, first + count))

    def _values(self, name: str, first: int, count: int, total: int) -> NDArray[Any]:
        if first < 0 or count < 0 or first + count > total:
            raise CorruptFileError(
                f"values {first} to {first + count} are wanted, it has {total}", self.path, name
            )
        if not count:
            return np.zeros(0, np.int16 if name == "RUNS" else np.int32)
        return self._file.image(name, (slice(first, first + count),))

    def _find(self, name: str, identifier: int) -> int:
        if name not in self._ids:
            self._ids[name] = self._file.table(name, columns=["id"])["id"]
        row = np.flatnonzero(self._ids[name] == identifier)
        if not len(row):
            what = name[:-1].lower()
            raise ParameterError(
                f"no {what} has id {identifier}; there are {len(self._ids[name])} {what}s",
                self.path,
            )
        return int(row[0])

    def _assemble(
        self, parent0: int, parents: NDArray[Any], blend0: int, n_blend: int
    ) -> ModelSet:
        """Read, check and renumber what belongs to some parents and some of their blends."""
        bands, unit = self.bands, self.unit
        object0, n_object = _range(parents["object0"], parents["n_object"])
        all_objects = self._rows("OBJECTS", object0, n_object)
        known = _as(all_objects, object_columns(bands, unit), self.path, "OBJECTS")
        parents = _as(parents, (*parent_columns(), *_PARENT_STORE), self.path, "PARENTS")
        run0, n_run = _range(parents["run0"], parents["n_run"])
        parent_runs = self._values("RUNS", run0, n_run, self._n_run)
        self._check(
            "parent", parents, _parent_checksums(parents, known, parent_runs, object0, run0)
        )
        blends = _as(
            self._rows("BLENDS", blend0, n_blend),
            (*blend_columns(bands, unit), *_BLEND_STORE), self.path, "BLENDS",
        )  # fmt: skip
        component0, n_component = _range(blends["component0"], blends["n_component"])
        components = _as(
            self._rows("COMPONENTS", component0, n_component),
            (*component_columns(bands, unit), *_COMPONENT_STORE), self.path, "COMPONENTS",
        )  # fmt: skip
        pix0, n_pix = _range(blends["pix0"], blends["n_pix"])
        codes = self._values("MORPH", pix0, n_pix, self._n_pix)
        run0, n_run = _range(blends["run0"], blends["n_run"])
        runs = self._values("RUNS", run0, n_run, self._n_run)
        self._check(
            "blend",
            blends,
            _blend_checksums(blends, components, codes, runs, component0, pix0, run0),
        )
        try:
            morph, morph_offsets = unpack(components, codes, runs, len(bands))
            boxes = table_boxes(parents)
            offsets = box_offsets(boxes)
            pixels = decode_runs(parent_runs, parents["n_run"].astype(np.int64), offsets)
        except FormatError as error:
            raise type(error)(error.message, self.path, "COMPONENTS", error.hint) from error
        objects = all_objects
        if len(parents) == 1 and n_blend < int(parents["n_blend"][0]):
            first = int(blends["object0"][0]) - object0
            objects = objects[first : first + int(blends["n_object"][0])]
            object0 += first
        return ModelSet(
            bands,
            _renumber(_as(parents, parent_columns()), blend0=blend0),
            _renumber(
                _as(blends, blend_columns(bands, unit)),
                parent=parent0, object0=object0, component0=component0,
            ),
            _renumber(objects.copy(), component0=component0),
            _renumber(_as(components, component_columns(bands, unit)), object=object0),
            pixels_to_footprints(pixels, boxes, offsets),
            morph,
            morph_offsets,
            self.psfs,
            self.psf_cells,
            self.box,
            self.kernel_reg,
            self.model_psf_sigma,
            unit,
            self.wcs,
            self.meta,
        )  # fmt: skip

    def _check(self, what: str, rows: NDArray[Any], found: NDArray[np.int64]) -> None:
        wrong = np.flatnonzero(rows["crc32"] != found)
        if len(wrong):
            raise CorruptFileError(
                f"{what} {rows['id'][wrong[0]]} {_DAMAGED}", self.path, f"{what.upper()}S",
                _REMEDY,
            )  # fmt: skip


_DAMAGED = "is damaged: its CRC-32 does not match"
_REMEDY = "re-copy the file, or make it again (coblend info FILE --command)"


def read_models(path: str) -> ModelSet:
    """Read a whole file of deblended models.

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
    """
    with ModelFile(path) as models:
        return models.read()


def verify_blends(path: str) -> list[str]:
    """Names of the parents and blends whose CRC-32 does not match, e.g. ``"blend 17"``.

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
        The file cannot be opened at all.
    """
    damaged = []
    with ModelFile(path) as models:
        for first in range(0, len(models), 256):
            last = min(first + 256, len(models))
            try:
                models.parents(first, last)
            except CorruptFileError:
                damaged += [m for row in range(first, last) if (m := _damage(models, row))]
    return damaged


def _damage(models: ModelFile, row: int) -> str:
    try:
        models.parents(row, row + 1)
    except CorruptFileError as error:
        return error.message.partition(" is damaged")[0]
    return ""


def _as(
    table: NDArray[Any], columns: tuple[Column, ...], path: str = "", hdu: str = ""
) -> NDArray[Any]:
    """Columns of a table in the order and type of ``columns``."""
    names = table.dtype.names or ()
    out = np.zeros(len(table), table_dtype(columns))
    for column in columns:
        if column.name not in names:
            raise MissingHduError(f"no column {column.name}", path or None, hdu or None)
        out[column.name] = table[column.name]
    return out


def _extend(
    table: NDArray[Any], columns: tuple[Column, ...], more: tuple[Column, ...]
) -> NDArray[Any]:
    """Columns of a record followed by columns of the file, the latter zero."""
    out = np.zeros(len(table), table_dtype((*columns, *more)))
    for column in columns:
        out[column.name] = table[column.name]
    return out


def _parent_checksums(
    parents: NDArray[Any],
    objects: NDArray[Any],
    runs: NDArray[np.int16],
    object0: int = 0,
    run0: int = 0,
) -> NDArray[np.int64]:
    return row_checksums(
        [
            _own_row(parents),
            (objects, parents["object0"] - object0, parents["n_object"]),
            (runs, parents["run0"] - run0, parents["n_run"]),
        ],
        len(parents),
    )


def _blend_checksums(
    blends: NDArray[Any],
    components: NDArray[Any],
    codes: NDArray[Any],
    runs: NDArray[np.int16],
    component0: int = 0,
    pix0: int = 0,
    run0: int = 0,
) -> NDArray[np.int64]:
    return row_checksums(
        [
            _own_row(blends),
            (components, blends["component0"] - component0, blends["n_component"]),
            (codes, blends["pix0"] - pix0, blends["n_pix"]),
            (runs, blends["run0"] - run0, blends["n_run"]),
        ],
        len(blends),
    )


def _own_row(
    table: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """The row itself without its checksum, which is its last column."""
    names = [n for n in table.dtype.names or () if n != "crc32"]
    return table[names], np.arange(len(table)), np.ones(len(table), np.int64)


def _cell_checksums(cells: NDArray[Any], stamps: NDArray[np.float32]) -> NDArray[np.int64]:
    n, per_cell = len(cells), stamps[0].size if len(stamps) else 0
    each = np.arange(n)
    flat = np.ascontiguousarray(stamps).ravel()
    return row_checksums(
        [_own_row(cells), (flat, each * per_cell, np.full(n, per_cell))], n
    )


def _write_psfs(out: FitsWriter, models: ModelSet) -> None:
    n_cell, n_band, *side = models.psfs.shape
    stamps = np.ascontiguousarray(models.psfs, np.float32).reshape(n_cell * n_band, *side)
    cells = np.zeros(n_cell, table_dtype(_CELL_COLUMNS))
    cells["y"], cells["x"] = models.psf_cells.T
    tile = (1, *side)
    if n_cell > 1:  # int32 codes take a third of the room and move a kernel by 3e-5 of its peak
        codes = np.rint(stamps / _PSF_STEP).astype(np.int32)
        stamps = (codes * _PSF_STEP).astype(np.float32)
        out.image("PSF", codes, compress="RICE_1", tile=tile, header={"BSCALE": _PSF_STEP})
    else:
        out.image("PSF", stamps, compress="GZIP_2", tile=tile)
    cells["crc32"] = _cell_checksums(cells, stamps.reshape(models.psfs.shape))
    out.table("PSF_CELLS", cells, columns=_CELL_COLUMNS)


def _renumber(table: NDArray[Any], **origins: int) -> NDArray[Any]:
    """Row numbers relative to the first row read."""
    for name, origin in origins.items():
        table[name] -= origin
    return table


def _range(first: NDArray[Any], count: NDArray[Any]) -> tuple[int, int]:
    """First row and number of rows of contiguous ranges, of which some may be empty."""
    filled = np.flatnonzero(count)
    if not len(filled):
        return 0, 0
    start = int(first[filled[0]])
    return start, int(first[filled[-1]]) + int(count[filled[-1]]) - start


def _row_of(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, wanted, sorter=order)
    row = order[np.minimum(place, len(ids) - 1)] if len(ids) else np.zeros(len(wanted), int)
    if len(wanted) and (not len(ids) or not np.array_equal(ids[row], wanted)):
        raise FormatError("an object names a parent that is not among PARENTS")
    return np.asarray(row, np.int64)


def _require_order(models: ModelSet) -> None:
    """Refuse tables whose rows are not contiguous per parent, blend and object."""
    blends, objects, components = models.blends, models.objects, models.components
    parent = _row_of(models.parents["id"], objects["parent"])
    for what, key in (
        ("objects by parent", parent),
        ("blends by parent", blends["parent"]),
        ("components by object", components["object"]),
        ("components by blend", blends["component0"]),
    ):
        if np.any(np.diff(key) < 0):
            raise FormatError(f"the models are not in order: {what}")


def _not_empty(values: NDArray[Any]) -> NDArray[Any]:
    """One dummy where there is nothing: compressed images of length 0 are not portable."""
    return values if len(values) else np.zeros(1, values.dtype)
