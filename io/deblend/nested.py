"""Models as nested records, as other programs keep them, and their flat tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.catalog import empty_table
from coblend.core.footprint import FootprintSet
from coblend.core.model import (
    BOX_FIELDS,
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
    objects = [
        (p, b, o) for p in parents for b, o in
        [*((b, o) for b in p.blends for o in b.objects), *((None, o) for o in p.objects)]
    ]  # fmt: skip
    components = [(i, c) for i, (_, _, o) in enumerate(objects) for c in o.components]
    footprints = _footprints(parents)
    values = [np.asarray(c.morph, np.float32).ravel() for _, c in components]
    offsets = np.concatenate([[0], np.cumsum([len(v) for v in values])]).astype(np.int64)
    models = ModelSet(
        bands, _parent_rows(parents, footprints), _blend_rows(parents, bands, unit),
        _object_rows(objects, bands, unit), _component_rows(components, bands, unit), footprints,
        np.concatenate(values) if values else np.zeros(0, np.float32), offsets,
        np.asarray(psfs, np.float32), np.asarray(psf_cells, np.float64), box, unit=unit, **rest,
    )  # fmt: skip
    _sum_models(models)
    return models


def _footprints(parents: Sequence[NestedParent]) -> FootprintSet:
    spans = [FootprintSet.from_mask(np.asarray(p.mask, bool), p.y0, p.x0).spans for p in parents]
    return FootprintSet(
        np.concatenate(spans) if spans else np.empty((0, 3), np.int32),
        np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64),
    )


def _parent_rows(parents: Sequence[NestedParent], footprints: FootprintSet) -> NDArray[Any]:
    table = empty_table(parent_columns(), len(parents))
    for name, values in zip(BOX_FIELDS, footprints.boxes().T, strict=True):
        table[name] = values
    table["area"] = footprints.areas
    table["blend0"] = _fill(table, "n_blend", (len(p.blends) for p in parents))
    for i, parent in enumerate(parents):
        table["id"][i] = parent.id
        table["n_peak"][i] = table["n_child"][i] = _n_object(parent)
        _flag(table, i, parent.flags)
    return table


def _blend_rows(parents: Sequence[NestedParent], bands: Sequence[str], unit: str) -> NDArray[Any]:
    table = empty_table(blend_columns(bands, unit), sum(len(p.blends) for p in parents))
    row = object0 = component0 = 0
    for i, parent in enumerate(parents):
        first = object0
        for blend in parent.blends:
            one = table[row]
            one["id"], one["parent"], one["psf_cell"] = blend.id, i, blend.psf_cell
            one["y0"], one["x0"] = blend.box.y0, blend.box.x0
            one["ny"], one["nx"] = blend.box.shape
            one["object0"], one["n_object"] = object0, len(blend.objects)
            one["component0"] = component0
            one["n_component"] = sum(len(o.components) for o in blend.objects)
            for name, value in blend.values.items():
                one[name] = value
            row += 1
            object0 += len(blend.objects)
            component0 += int(one["n_component"])
        object0 = first + _n_object(parent)
        component0 += sum(len(o.components) for o in parent.objects)
    return table


def _object_rows(
    objects: Sequence[tuple[NestedParent, NestedBlend | None, NestedObject]],
    bands: Sequence[str],
    unit: str,
) -> NDArray[Any]:
    table = empty_table(object_columns(bands, unit), len(objects))
    counts = (len(o.components) for _, _, o in objects)
    table["component0"] = _fill(table, "n_component", counts)
    for i, (parent, blend, one) in enumerate(objects):
        row = table[i]
        row["id"], row["parent"], row["peak_id"] = one.id, parent.id, one.peak_id
        row["blend"] = 0 if blend is None else blend.id
        row["iy"], row["ix"] = row["y"], row["x"] = one.peak
        _flag(table, i, one.flags)
    return table


def _component_rows(
    components: Sequence[tuple[int, NestedComponent]], bands: Sequence[str], unit: str
) -> NDArray[Any]:
    table = empty_table(component_columns(bands, unit), len(components))
    for i, (owner, c) in enumerate(components):
        row = table[i]
        row["object"], row["kind"], row["y0"], row["x0"] = owner, c.kind, c.y0, c.x0
        row["ny"], row["nx"] = c.morph.shape[-2:]
        row["peak_y"], row["peak_x"] = c.peak
        for b, band in enumerate(bands):
            row[f"spectrum_{column_suffix(band)}"] = c.spectrum[b]
    return table


def _n_object(parent: NestedParent) -> int:
    return len(parent.objects) + sum(len(blend.objects) for blend in parent.blends)


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
