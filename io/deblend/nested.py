"""Models as nested records, as other programs keep them, and their flat tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import column_suffix, empty_table
from coblend.core.footprint import FootprintSet
from coblend.core.model import (
    CUBE,
    FACTORIZED,
    ModelSet,
    blend_columns,
    component_columns,
    object_columns,
    parent_columns,
    set_flag,
)


@dataclass(frozen=True, slots=True)
class NestedComponent:
    """One component: ``spectrum[b] * morph``, or a cube ``spectrum[b] * morph[b]``.

    Parameters
    ----------
    y0, x0 : int
        First pixel of ``morph``, parent coordinates.
    morph : array, shape (ny, nx) or (n_band, ny, nx)
    spectrum : array, shape (n_band,)
    peak : tuple of int
        ``(y, x)`` of the centre.
    kind : int
        `FACTORIZED`, `CUBE` or `POINT`; a point source has an empty ``morph``.
    """

    y0: int
    x0: int
    morph: NDArray[Any]
    spectrum: NDArray[Any]
    peak: tuple[int, int]
    kind: int = FACTORIZED


@dataclass(frozen=True, slots=True)
class NestedObject:
    """One object, with its components if it was deblended."""

    id: int
    peak: tuple[int, int]
    components: Sequence[NestedComponent] = ()
    peak_id: int = 0
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NestedBlend:
    """Objects that were fitted together; ``values`` fills further columns of BLENDS."""

    id: int
    box: Box
    objects: Sequence[NestedObject]
    psf_cell: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NestedParent:
    """A footprint with its blends, or with objects that were not deblended."""

    id: int
    y0: int
    x0: int
    mask: NDArray[np.bool_]
    blends: Sequence[NestedBlend] = ()
    objects: Sequence[NestedObject] = ()
    flags: tuple[str, ...] = ()


def flatten(
    parents: Sequence[NestedParent],
    bands: tuple[str, ...],
    psfs: NDArray[Any],
    psf_cells: NDArray[np.float64],
    box: Box,
    unit: str = "",
    **rest: Any,
) -> ModelSet:
    """Flat tables of nested models.

    Parameters
    ----------
    parents : sequence of NestedParent
    bands, psfs, psf_cells, box, unit
        As in `ModelSet`; ``rest`` are its further fields.
    """
    blends = [(i, b) for i, p in enumerate(parents) for b in p.blends]
    objects = [
        (p, b, o) for p in parents for b, o in
        [*((b, o) for b in p.blends for o in b.objects), *((None, o) for o in p.objects)]
    ]  # fmt: skip
    components = [(i, c) for i, (_, _, o) in enumerate(objects) for c in o.components]

    parent_table = empty_table(parent_columns(), len(parents))
    spans = [FootprintSet.from_mask(np.asarray(p.mask, bool), p.y0, p.x0).spans for p in parents]
    footprints = FootprintSet(
        np.concatenate(spans) if spans else np.empty((0, 3), np.int32),
        np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64),
    )
    for name, values in zip(("y0", "x0", "ny", "nx"), footprints.boxes().T, strict=True):
        parent_table[name] = values
    parent_table["area"] = footprints.areas
    n_blend = _fill(parent_table, "n_blend", (len(p.blends) for p in parents))
    parent_table["blend0"] = n_blend
    n_child = [len(p.objects) + sum(len(b.objects) for b in p.blends) for p in parents]
    for i, parent in enumerate(parents):
        parent_table["id"][i] = parent.id
        parent_table["n_peak"][i] = parent_table["n_child"][i] = n_child[i]
        _flag(parent_table, i, parent.flags)

    object_table = empty_table(object_columns(bands, unit), len(objects))
    object_table["component0"] = _fill(
        object_table, "n_component", (len(o.components) for _, _, o in objects)
    )
    for i, (parent, blend, one) in enumerate(objects):
        row = object_table[i]
        row["id"], row["parent"], row["peak_id"] = one.id, parent.id, one.peak_id
        row["blend"] = 0 if blend is None else blend.id
        row["iy"], row["ix"] = row["y"], row["x"] = one.peak
        _flag(object_table, i, one.flags)

    blend_table = empty_table(blend_columns(bands, unit), len(blends))
    first = np.concatenate([[0], np.cumsum([len(o.components) for _, _, o in objects])])
    start = np.concatenate([[0], np.cumsum(n_child)]).astype(int)
    place: dict[int, int] = {}
    for i, (p, blend) in enumerate(blends):
        object0 = place.get(p, int(start[p]))
        place[p] = stop = object0 + len(blend.objects)
        row = blend_table[i]
        row["id"], row["parent"], row["psf_cell"] = blend.id, p, blend.psf_cell
        row["y0"], row["x0"], row["ny"], row["nx"] = blend.box.y0, blend.box.x0, *blend.box.shape
        row["object0"], row["n_object"] = object0, len(blend.objects)
        row["component0"], row["n_component"] = first[object0], first[stop] - first[object0]
        for name, value in blend.values.items():
            row[name] = value

    component_table = empty_table(component_columns(bands, unit), len(components))
    for i, (owner, c) in enumerate(components):
        row = component_table[i]
        row["object"], row["kind"], row["y0"], row["x0"] = owner, c.kind, c.y0, c.x0
        row["ny"], row["nx"] = c.morph.shape[-2:]
        row["peak_y"], row["peak_x"] = c.peak
        for b, band in enumerate(bands):
            row[f"spectrum_{column_suffix(band)}"] = c.spectrum[b]
    values = [np.asarray(c.morph, np.float32).ravel() for _, c in components]
    offsets = np.concatenate([[0], np.cumsum([len(v) for v in values])]).astype(np.int64)
    models = ModelSet(
        bands, parent_table, blend_table, object_table, component_table, footprints,
        np.concatenate(values) if values else np.zeros(0, np.float32), offsets,
        np.asarray(psfs, np.float32), np.asarray(psf_cells, np.float64), box, unit=unit, **rest,
    )  # fmt: skip
    _sum_models(models)
    return models


def _sum_models(models: ModelSet) -> None:
    """Fill in ``model_flux_<band>`` of objects with components."""
    rows = models.components
    cube = rows["kind"] == CUBE
    area = rows["ny"].astype(np.int64) * rows["nx"]
    running = np.concatenate([[0.0], np.cumsum(models.morph, dtype=np.float64)])
    owner = rows["object"]
    has = models.objects["n_component"] > 0
    for b, band in enumerate(models.bands):
        start = models.morph_offsets[:-1] + np.where(cube, b * area, 0)
        stop = np.where(cube, start + area, models.morph_offsets[1:])
        total = running[stop] - running[start]
        total[rows["kind"] > CUBE] = 1.0  # a point source has the flux of its spectrum
        flux = np.bincount(owner, models.spectra()[:, b] * total, minlength=len(models.objects))
        models.objects[f"model_flux_{column_suffix(band)}"][has] = flux[has]


def _fill(table: NDArray[Any], name: str, counts: Iterable[int]) -> NDArray[np.int64]:
    """Write counts into a column and return where each range starts."""
    values = np.fromiter(counts, np.int64, len(table))
    table[name] = values
    return np.asarray(np.cumsum(values) - values)


def _flag(table: NDArray[Any], row: int, names: tuple[str, ...]) -> None:
    for name in names:
        set_flag(table, row, name)
