"""Random access to a file of deblended models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.catalog import empty_table
from coblend.core.errors import CorruptFileError, FormatError, ParameterError
from coblend.core.footprint import FootprintSet, box_offsets, expand_runs
from coblend.core.model import (
    ModelSet,
    blend_columns,
    boxes_of,
    component_columns,
    object_columns,
    parent_columns,
    set_flag,
)
from coblend.io.deblend.encoding import decode_runs, intervals_to_footprints
from coblend.io.deblend.model_header import parse_header
from coblend.io.deblend.model_tables import (
    DAMAGED,
    REMEDY,
    as_columns,
    blend_checksums,
    cell_checksums,
    parent_checksums,
    require_columns,
    require_models,
    row_range,
)
from coblend.io.deblend.morphologies import unpack
from coblend.io.deblend.positions import parents_at
from coblend.io.fits.reader import FitsFile, open_fits

SCHEMA_KIND = "deblended"
_CELLS_KEPT = 256


@dataclass(frozen=True, slots=True)
class _Stored:
    """Rows and values as they stand in the file, and the numbers of their first rows."""

    parents: NDArray[Any]
    objects: NDArray[Any]
    footprint_runs: NDArray[np.int16]
    blends: NDArray[Any]
    components: NDArray[Any]
    codes: NDArray[Any]
    runs: NDArray[np.int16]
    parent0: int
    object0: int
    blend0: int
    component0: int


class ModelFile:
    """A file of deblended models, open for random access.

    Everything it returns is a `ModelSet` whose row numbers and PSF cells count from its own
    tables. What is read is checked against its CRC-32.

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
            self._file.require_schema(SCHEMA_KIND)
            header = parse_header(self._file.cards("PARENTS"), path)
        except BaseException:
            self._stack.close()
            raise
        self.bands, self.unit, self.box = header.bands, header.unit, header.box
        self.wcs, self.meta = header.wcs, header.meta
        self.kernel_reg, self.model_psf_sigma = header.kernel_reg, header.model_psf_sigma
        self._n_pix, self._n_run = header.n_pix, header.n_run
        self._cells: dict[int, tuple[NDArray[np.float32], NDArray[np.float64]]] = {}
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

    @property
    def psf_side(self) -> int:
        """Side of the PSF stamps (pixel)."""
        return self._file.info("PSF").shape[-1]

    def parent_of(self, identifier: int) -> int:
        """Row in PARENTS of the parent, or of that of the blend or object, with an id."""
        if identifier in self._identifiers("PARENTS"):
            return self._find("PARENTS", identifier)
        if identifier in self._identifiers("BLENDS"):
            return int(self._rows("BLENDS", self._find("BLENDS", identifier), 1)["parent"][0])
        if identifier in self._identifiers("OBJECTS"):
            return self.parent_of_object(identifier)
        raise ParameterError(f"no parent, blend or object has id {identifier}", self.path)

    def parent_of_object(self, identifier: int) -> int:
        """Row in PARENTS of the parent of an object, by id."""
        row = self._rows("OBJECTS", self._find("OBJECTS", identifier), 1)
        return self._find("PARENTS", int(row["parent"][0]))

    def table(self, name: str) -> NDArray[Any]:
        """Whole PARENTS, BLENDS, OBJECTS or COMPONENTS table, integers in their full types."""
        columns = {
            "PARENTS": parent_columns(),
            "BLENDS": blend_columns(self.bands, self.unit),
            "OBJECTS": object_columns(self.bands, self.unit),
            "COMPONENTS": component_columns(self.bands, self.unit),
        }
        rows = require_columns(self._file.table(name), name, self.path)
        return as_columns(rows, columns[name], keep=True)

    def object_rows(self, parents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows in OBJECTS of the objects of some parents (rows of PARENTS), in order.

        Raises
        ------
        CorruptFileError
            PARENTS names rows that OBJECTS does not have.
        """
        table, total = self.table("PARENTS")[parents], self._file.info("OBJECTS").shape[0]
        first, count = (table[n].astype(np.int64) for n in ("object0", "n_object"))
        wrong = np.flatnonzero((first < 0) | (count < 0) | (first + count > total))
        if len(wrong):
            row = int(wrong[0])
            raise CorruptFileError(
                f"parent {table['id'][row]} has {count[row]} objects from row {first[row]} on "
                f"(object0, n_object); OBJECTS has {total} rows",
                self.path, "PARENTS", REMEDY,
            )  # fmt: skip
        return expand_runs(first, count)

    def require_models(self) -> None:
        """Refuse a file whose blended objects have fluxes but no models."""
        require_models(self.table("OBJECTS"), self.bands, self.path)

    def read(self) -> ModelSet:
        """Everything."""
        models = self.parents(0, len(self))
        used = np.unique(self._file.table("BLENDS", columns=["psf_cell"])["psf_cell"])
        models.blends["psf_cell"] = used[models.blends["psf_cell"]]
        psfs, places = self._psfs(range(self._file.info("PSF_CELLS").shape[0]))
        return replace(models, psfs=psfs, psf_cells=places)

    def iter_parents(self, chunk: int = 256) -> Iterator[ModelSet]:
        """All parents in order, ``chunk`` at a time."""
        for first in range(0, len(self), chunk):
            yield self.parents(first, min(first + chunk, len(self)))

    def parents(self, first: int, last: int) -> ModelSet:
        """Rows ``first`` to ``last`` (exclusive) of PARENTS with all that belongs to them."""
        rows = self._rows("PARENTS", first, last - first)
        blend0, n_blend = row_range(rows["blend0"], rows["n_blend"])
        return self._assemble(self._fetch(first, rows, blend0, n_blend))

    def whole_parents(self, first: int, last: int) -> Iterator[ModelSet]:
        """Read the same in one or several parts; damaged parents come without models."""
        try:
            yield self.parents(first, last)
        except CorruptFileError:
            if last - first == 1:
                yield self._without_models(first)
                return
            middle = (first + last) // 2
            yield from self.whole_parents(first, middle)
            yield from self.whole_parents(middle, last)

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
        return self._assemble(self._fetch(parent, self._rows("PARENTS", parent, 1), row, 1))

    def source(self, identifier: int) -> ModelSet:
        """Blend that holds an object; its parent if it was not deblended."""
        row = self._find("OBJECTS", identifier)
        blend = int(self._rows("OBJECTS", row, 1)["blend"][0])
        if blend:
            return self.blend(blend)
        return self.parent(int(self._rows("OBJECTS", row, 1)["parent"][0]))

    def at(self, y: float, x: float) -> ModelSet:
        """Parent whose footprint holds the pixel at ``(y, x)``, parent coordinates.

        Raises
        ------
        ParameterError
            There is none.
        """
        (row,) = parents_at(self, np.array([y]), np.array([x])).tolist()
        return self.parents(row, row + 1)

    def _psfs(self, cells: Iterable[int]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        found = [self._cell(int(cell)) for cell in cells]
        if not found:
            side = self._file.info("PSF").shape[1:]
            return np.zeros((0, len(self.bands), *side), np.float32), np.zeros((0, 2))
        return np.stack([psf for psf, _ in found]), np.stack([place for _, place in found])

    def _cell(self, cell: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """PSFs of one cell, shape (n_band, k, k), and where they were evaluated (y, x)."""
        if cell not in self._cells:
            row = self._rows("PSF_CELLS", cell, 1)
            n_band = len(self.bands)
            shape = self._file.info("PSF").shape
            if shape[0] < (cell + 1) * n_band:
                raise CorruptFileError(f"holds {shape[0]} stamps", self.path, "PSF")
            place = (slice(cell * n_band, (cell + 1) * n_band), slice(None), slice(None))
            stamps = np.asarray(self._file.image("PSF", place), np.float32)
            if row["crc32"][0] != cell_checksums(row, stamps[None])[0]:
                raise CorruptFileError(f"cell {cell} {DAMAGED}", self.path, "PSF", REMEDY)
            if len(self._cells) >= _CELLS_KEPT:
                self._cells.clear()
            self._cells[cell] = stamps, np.array([row["y"][0], row["x"][0]])
        return self._cells[cell]

    def _rows(self, name: str, first: int, count: int) -> NDArray[Any]:
        total = self._file.info(name).shape[0]
        if first < 0 or count < 0 or first + count > total:
            raise CorruptFileError(
                f"rows {first} to {first + count} are wanted, it has {total}", self.path, name
            )
        rows = self._file.table(name, rows=slice(first, first + count))
        return require_columns(rows, name, self.path)

    def _values(self, name: str, first: int, count: int, total: int) -> NDArray[Any]:
        if first < 0 or count < 0 or first + count > total:
            raise CorruptFileError(
                f"values {first} to {first + count} are wanted, it has {total}", self.path, name
            )
        if not count:
            return np.zeros(0, np.int16 if name == "RUNS" else np.int32)
        return self._file.image(name, (slice(first, first + count),))

    def _identifiers(self, name: str) -> NDArray[np.int64]:
        if name not in self._ids:
            self._ids[name] = self._file.table(name, columns=["id"])["id"]
        return self._ids[name]

    def _find(self, name: str, identifier: int) -> int:
        ids = self._identifiers(name)
        row = np.flatnonzero(ids == identifier)
        if not len(row):
            what = name[:-1].lower()
            raise ParameterError(
                f"no {what} has id {identifier}; there are {len(ids)} {what}s", self.path
            )
        return int(row[0])

    def _fetch(self, parent0: int, parents: NDArray[Any], blend0: int, n_blend: int) -> _Stored:
        """Read what belongs to some parents and some of their blends, and check it."""
        object0, n_object = row_range(parents["object0"], parents["n_object"])
        objects = self._rows("OBJECTS", object0, n_object)
        footprint0, n_run = row_range(parents["run0"], parents["n_run"])
        footprint_runs = self._values("RUNS", footprint0, n_run, self._n_run)
        found = parent_checksums(parents, objects, footprint_runs, object0, footprint0)
        self._check("parent", parents, found)
        blends = self._rows("BLENDS", blend0, n_blend)
        component0, n_component = row_range(blends["component0"], blends["n_component"])
        components = self._rows("COMPONENTS", component0, n_component)
        pix0, n_pix = row_range(blends["pix0"], blends["n_pix"])
        codes = self._values("MORPH", pix0, n_pix, self._n_pix)
        run0, n_run = row_range(blends["run0"], blends["n_run"])
        runs = self._values("RUNS", run0, n_run, self._n_run)
        found = blend_checksums(blends, components, codes, runs, component0, pix0, run0)
        self._check("blend", blends, found)
        return _Stored(
            parents, objects, footprint_runs, blends, components, codes, runs,
            parent0, object0, blend0, component0,
        )  # fmt: skip

    def _assemble(self, stored: _Stored) -> ModelSet:
        """Decode and renumber what was read."""
        bands, unit = self.bands, self.unit
        boxes = boxes_of(stored.parents)
        offsets = box_offsets(boxes)
        try:
            morph, morph_offsets = unpack(stored.components, stored.codes, stored.runs, len(bands))
            n_run = stored.parents["n_run"].astype(np.int64)
            start, stop = decode_runs(stored.footprint_runs, n_run, offsets)
        except FormatError as error:
            raise type(error)(error.message, self.path, "COMPONENTS", error.hint) from error
        parents = as_columns(stored.parents, parent_columns())
        blends = as_columns(stored.blends, blend_columns(bands, unit))
        objects = as_columns(stored.objects, object_columns(bands, unit), keep=True)
        components = as_columns(stored.components, component_columns(bands, unit))
        object0 = stored.object0
        if len(parents) == 1 and len(blends) < int(parents["n_blend"][0]):
            first = int(blends["object0"][0]) - object0
            objects = objects[first : first + int(blends["n_object"][0])]
            object0 += first
        cells, blends["psf_cell"] = np.unique(blends["psf_cell"], return_inverse=True)
        parents["blend0"] -= stored.blend0
        blends["parent"] -= stored.parent0
        blends["object0"] -= object0
        blends["component0"] -= stored.component0
        objects["component0"] -= stored.component0
        components["object"] -= object0
        return ModelSet(
            bands, parents, blends, objects, components,
            intervals_to_footprints(start, stop, boxes, offsets), morph, morph_offsets,
            *self._psfs(cells), self.box, self.kernel_reg, self.model_psf_sigma, unit, self.wcs,
            self.meta,
        )  # fmt: skip

    def _without_models(self, parent0: int) -> ModelSet:
        """One damaged parent: its objects without models or footprint, flagged as corrupt."""
        bands, unit = self.bands, self.unit
        stored = self._rows("PARENTS", parent0, 1)
        object0, n_object = row_range(stored["object0"], stored["n_object"])
        parents = as_columns(stored, parent_columns())
        objects = as_columns(
            self._rows("OBJECTS", object0, n_object), object_columns(bands, unit), keep=True
        )
        for name in ("ny", "nx", "n_blend"):
            parents[name] = 0
        for name in ("blend", "n_component", "component0"):
            objects[name] = 0
        set_flag(parents, slice(None), "corrupt")
        set_flag(objects, slice(None), "corrupt")
        objects["parent"] = parents["id"][0]
        return ModelSet(
            bands, parents, empty_table(blend_columns(bands, unit), 0), objects,
            empty_table(component_columns(bands, unit), 0),
            FootprintSet(np.empty((0, 3), np.int32), np.zeros(2, np.int64)),
            np.zeros(0, np.float32), np.zeros(1, np.int64), *self._psfs(()), self.box,
            self.kernel_reg, self.model_psf_sigma, unit, self.wcs, self.meta,
        )  # fmt: skip

    def _check(self, what: str, rows: NDArray[Any], found: NDArray[np.int64]) -> None:
        wrong = np.flatnonzero(rows["crc32"] != found)
        if len(wrong):
            raise CorruptFileError(
                f"{what} {rows['id'][wrong[0]]} {DAMAGED}", self.path, f"{what.upper()}S",
                REMEDY,
            )  # fmt: skip
