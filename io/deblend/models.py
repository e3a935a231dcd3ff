"""Deblended models in a file: any blend can be read alone, and damage is always noticed.

Tables hold what is one number per parent, blend, object or component; two one-dimensional images
hold the rest: ``MORPH``, the support pixels of all components as integers, and ``RUNS``, the run
lengths that say where those pixels are. Every row of PARENTS and BLENDS carries a CRC-32 of all
that belongs to it, because a flipped bit in Rice-compressed data decodes to wrong numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.catalog import table_dtype
from coblend.core.errors import CorruptFileError, FormatError
from coblend.core.footprint import box_offsets
from coblend.core.model import (
    BOX_FIELDS,
    ModelSet,
    blend_columns,
    boxes_of,
    component_columns,
    object_columns,
    parent_columns,
    star_columns,
)
from coblend.io.deblend.encoding import encode_runs, footprint_intervals
from coblend.io.deblend.model_file import ModelFile
from coblend.io.deblend.model_header import header_of
from coblend.io.deblend.model_tables import (
    BLEND_STORE,
    CELL_COLUMNS,
    COMPONENT_STORE,
    PARENT_STORE,
    as_columns,
    blend_checksums,
    cell_checksums,
    extended,
    narrowed,
    parent_checksums,
    require_columns,
    row_of,
)
from coblend.io.deblend.morphologies import Heap, pack
from coblend.io.fits.writer import FitsWriter

__all__ = ["SCHEMA", "ModelFile", "read_models", "verify_blends", "write_models"]

SCHEMA = "deblended/1"
_TILE = 2048
_PSF_STEP = 2e-7
"""Step at which the stamps of a varying PSF are stored; a decimal that header text holds."""
_RECIPE = (
    "Models of blend i with astropy alone:",
    "  h = fits.open(name)",
    "  b = h['BLENDS'].data[i]",
    "  k, n = b['component0'], b['n_component']",
    "  c = h['COMPONENTS'].data[k:k + n]",
    "  p = h['MORPH'].section[b['pix0']:b['pix0'] + b['n_pix']]",
    "  r = h['RUNS'].section[b['run0']:b['run0'] + b['n_run']]",
    "  morphs = []",
    "  for row in c:",
    "      runs, r = r[:row['n_run']], r[row['n_run']:]",
    "      on = np.repeat(np.arange(len(runs)) % 2 == 1, runs)",
    "      morph = np.zeros(len(on), np.float32)",
    "      morph[on] = np.float64(row['scale']) * p[:row['n_pix']]",
    "      p = p[row['n_pix']:]",
    "      morphs.append(morph.reshape(row['ny'], row['nx']))",
    "The model in a band is spectrum_<band> * morph, its first pixel is",
    "(y0, x0), parent coordinates. (kind 1: one morph per band; 2: none.)",
)


def write_models(
    out: FitsWriter, models: ModelSet, steps: NDArray[np.floating] | None = None
) -> None:
    """Append PARENTS, BLENDS, OBJECTS, COMPONENTS, MORPH, RUNS, PSF and PSF_CELLS.

    Parameters
    ----------
    out : FitsWriter
        From `coblend.io.fits.writer.create` with schema `SCHEMA`.
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
    models = _with_needed_psfs(models)
    bands, unit = models.bands, models.unit
    heap = pack(models, steps)
    boxes = boxes_of(models.parents)
    offsets = box_offsets(boxes)
    parent_runs, n_parent_run = encode_runs(
        *footprint_intervals(models.footprints, boxes, offsets), offsets
    )
    runs = np.concatenate([parent_runs, heap.runs])
    require_columns(models.objects, "OBJECTS")
    objects = as_columns(models.objects, object_columns(bands, unit), keep=True)
    parents = _parent_rows(models, n_parent_run)
    parents["crc32"] = parent_checksums(parents, objects, runs)
    components = _component_rows(models, heap)
    blends = _blend_rows(models, heap, len(parent_runs))
    blends["crc32"] = blend_checksums(blends, components, heap.codes, runs)

    header = header_of(models, len(heap.codes), len(runs))
    out.table("PARENTS", parents, columns=(*parent_columns(), *PARENT_STORE), header=header,
              wcs=models.wcs)  # fmt: skip
    out.table("BLENDS", blends, columns=(*blend_columns(bands, unit), *BLEND_STORE))
    out.table("OBJECTS", objects,
              columns=(*object_columns(bands, unit), *star_columns(bands, unit)))  # fmt: skip
    out.table("COMPONENTS", components,
              columns=(*component_columns(bands, unit), *COMPONENT_STORE))  # fmt: skip
    codec = "GZIP_2" if steps is None else "RICE_1"
    recipe = [f"COMMENT {line}".ljust(80) for line in _RECIPE]
    out.image("MORPH", _not_empty(heap.codes), compress=codec, tile=(_TILE,), wcs=recipe)
    out.image("RUNS", _not_empty(runs), compress="GZIP_2", tile=(_TILE,))
    _write_psfs(out, models, lossless=steps is None)


def _parent_rows(models: ModelSet, n_run: NDArray[np.int64]) -> NDArray[Any]:
    """PARENTS as stored, without checksums."""
    rows = extended(models.parents, parent_columns(), PARENT_STORE)
    rows["run0"], rows["n_run"] = np.cumsum(n_run) - n_run, n_run
    owner = row_of(models.parents["id"], models.objects["parent"])
    rows["n_object"] = np.bincount(owner, minlength=len(rows))
    rows["object0"] = np.cumsum(rows["n_object"]) - rows["n_object"]
    return narrowed(rows)


def _component_rows(models: ModelSet, heap: Heap) -> NDArray[Any]:
    """COMPONENTS as stored."""
    columns = component_columns(models.bands, models.unit)
    rows = extended(models.components, columns, COMPONENT_STORE)
    for name, column in zip(BOX_FIELDS, heap.boxes.T, strict=True):
        rows[name] = column
    rows["scale"], rows["n_pix"], rows["n_run"] = heap.scale, heap.n_pix, heap.n_run
    return narrowed(rows)


def _blend_rows(models: ModelSet, heap: Heap, n_parent_run: int) -> NDArray[Any]:
    """BLENDS as stored, without checksums."""
    rows = extended(models.blends, blend_columns(models.bands, models.unit), BLEND_STORE)
    for first, count, values, shift in (
        ("pix0", "n_pix", heap.n_pix, 0),
        ("run0", "n_run", heap.n_run, n_parent_run),
    ):
        ends = np.concatenate([[0], np.cumsum(values)])
        start = rows["component0"].astype(np.int64)
        rows[first] = ends[start] + shift
        rows[count] = ends[start + rows["n_component"]] - ends[start]
    return narrowed(rows)


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


def _with_needed_psfs(models: ModelSet) -> ModelSet:
    """Leave out PSF cells that no blend uses, and those that repeat another."""
    if len(models.psfs) < 2:
        return models
    used = np.unique(models.blends["psf_cell"]) if len(models.blends) else np.zeros(1, np.int64)
    kept: dict[bytes, int] = {}
    place = np.zeros(len(models.psfs), np.int32)
    for cell in used.tolist():
        place[cell] = kept.setdefault(models.psfs[cell].tobytes(), len(kept))
    cells = used[np.unique(place[used], return_index=True)[1]]
    blends = models.blends.copy()
    blends["psf_cell"] = place[blends["psf_cell"]]
    return replace(
        models, blends=blends, psfs=models.psfs[cells], psf_cells=models.psf_cells[cells]
    )


def _write_psfs(out: FitsWriter, models: ModelSet, *, lossless: bool) -> None:
    n_cell, n_band, *side = models.psfs.shape
    stamps = np.ascontiguousarray(models.psfs, np.float32).reshape(n_cell * n_band, *side)
    cells = np.zeros(n_cell, table_dtype(CELL_COLUMNS))
    cells["y"], cells["x"] = models.psf_cells.T
    tile = (1, *side)
    # Codes take a third of the room of floats and move a kernel by 3e-5 of its peak.
    if n_cell > 1 and not lossless:
        codes = np.rint(stamps / _PSF_STEP).astype(np.int32)
        stamps = (codes * _PSF_STEP).astype(np.float32)
        out.image("PSF", codes, compress="RICE_1", tile=tile, header={"BSCALE": _PSF_STEP})
    else:
        out.image("PSF", stamps, compress="GZIP_2", tile=tile)
    cells["crc32"] = cell_checksums(cells, stamps.reshape(models.psfs.shape))
    out.table("PSF_CELLS", cells, columns=CELL_COLUMNS)


def _require_order(models: ModelSet) -> None:
    """Refuse tables whose rows are not contiguous per parent, blend and object."""
    blends, objects, components = models.blends, models.objects, models.components
    parent = row_of(models.parents["id"], objects["parent"])
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
