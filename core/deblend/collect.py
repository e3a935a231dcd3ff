"""From the results of all blends to the tables of one `ModelSet`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.catalog import column_suffix, empty_table
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.task import Plan
from coblend.core.detection import Detections
from coblend.core.exposure import Cube
from coblend.core.model import (
    FLAGS,
    ModelSet,
    blend_columns,
    component_columns,
    object_columns,
    parent_columns,
    set_flag,
)
from coblend.core.params.deblend import DeblendParams

_BOX = ("y0", "x0", "ny", "nx")


def collect(
    detections: Detections,
    cube: Cube,
    work: Plan,
    results: Sequence[BlendResult],
    params: DeblendParams,
) -> ModelSet:
    """Sort results by parent and build all tables.

    Identifiers of blends follow the largest of the parents', those of objects follow the
    blends'; an isolated object keeps its parent's.
    """
    results = sorted(results, key=lambda result: result.parent)
    fitted = [result for result in results if not result.error]
    unit = cube.units[0] if cube.units else ""
    first_id = int(detections.parents["id"].max(initial=0)) + 1
    parents = _parents(detections, work, results)
    blends = _blends(detections, cube, work, fitted, first_id, unit)
    objects = _objects(detections, cube, work, results, blends, first_id, unit)
    components, morph, offsets = _components(detections, cube, fitted, unit)
    _count_components(objects, components)
    return ModelSet(
        bands=cube.bands,
        parents=parents,
        blends=blends,
        objects=objects,
        components=components,
        footprints=detections.footprints,
        morph=morph,
        morph_offsets=offsets,
        psfs=work.psfs,
        psf_cells=work.psf_cells,
        box=cube.box,
        kernel_reg=params.kernel_reg,
        unit=unit,
        wcs=cube.wcs,
    )


def _parents(
    detections: Detections, work: Plan, results: Sequence[BlendResult]
) -> NDArray[np.void]:
    """PARENTS."""
    source = detections.parents
    table = empty_table(parent_columns(), len(source))
    table["id"], table["area"] = source["id"], source["area"]
    table["n_peak"] = source["npeak"]
    for name, values in zip(_BOX, detections.footprints.boxes().T, strict=True):
        table[name] = values
    set_flags(table, np.arange(len(table)), work.flags)
    kept = (work.flags & (FLAGS["isolated"] | FLAGS["skipped_pseudo"])) != 0
    table["n_child"][kept] = source["npeak"][kept]
    row = 0
    for result in results:
        i = result.parent
        table["blend0"][i], table["n_blend"][i] = row, int(not result.error)
        table["chi2"][i], table["error"][i] = result.chi2, result.error
        table["n_child"][i] = len(result.object_flags)
        set_flags(table, np.array([i]), np.array([result.flags]))
        row += not result.error
    return table


def set_flags(table: NDArray[np.void], rows: NDArray[np.int64], flags: NDArray[np.int64]) -> None:
    """Set every flag of a bit pattern per row, with its column."""
    for name, bit in FLAGS.items():
        hit = rows[(flags & bit) != 0]
        if len(hit):
            set_flag(table, hit, name)


def _blends(
    detections: Detections,
    cube: Cube,
    work: Plan,
    fitted: Sequence[BlendResult],
    first_id: int,
    unit: str,
) -> NDArray[np.void]:
    """BLENDS: one row per fitted parent."""
    n = len(fitted)
    table = empty_table(blend_columns(cube.bands, unit), n)
    rows = np.array([result.parent for result in fitted], np.int64)
    table["id"] = first_id + np.arange(n)
    table["parent"] = rows
    for name, values in zip(_BOX, detections.footprints.boxes()[rows].T, strict=True):
        table[name] = values
    table["object0"] = detections.parents["peak0"][rows]
    table["n_object"] = detections.parents["npeak"][rows]
    counts = np.array([len(result.source) for result in fitted], np.int64)
    table["component0"], table["n_component"] = np.cumsum(counts) - counts, counts
    table["psf_cell"] = work.cells[np.searchsorted(work.fitted, rows)]
    for name, attribute in (
        ("n_iter", "n_iter"), ("chi2", "chi2"), ("flags", "flags"),
    ):  # fmt: skip
        table[name] = [getattr(result, attribute) for result in fitted]
    table["log_likelihood"] = [-result.loss for result in fitted]
    table["log_likelihood_init"] = [-result.loss_init for result in fitted]
    for band, sigma in zip(cube.bands, work.sigma, strict=True):
        table[f"sigma_{column_suffix(band)}"] = sigma
    return table


def _objects(
    detections: Detections,
    cube: Cube,
    work: Plan,
    results: Sequence[BlendResult],
    blends: NDArray[np.void],
    first_id: int,
    unit: str,
) -> NDArray[np.void]:
    """OBJECTS: one row per peak, in the order of the peaks."""
    peaks, parents = detections.peaks, detections.parents
    n_blend = len(blends)
    table = empty_table(object_columns(cube.bands, unit), len(peaks))
    owner = np.repeat(np.arange(len(parents)), parents["npeak"])
    lone = (work.flags[owner] & (FLAGS["isolated"] | FLAGS["skipped_pseudo"])) != 0
    table["id"] = np.where(lone, parents["id"][owner], first_id + n_blend + np.arange(len(peaks)))
    table["parent"] = parents["id"][owner]
    table["peak_id"] = peaks["id"]
    for name in ("x", "y", "ra", "dec", "ix", "iy"):
        table[name] = peaks[name]
    set_flags(table, np.arange(len(table)), work.flags[owner])
    blend = iter(blends)
    for result in results:
        first = int(parents["peak0"][result.parent])
        rows = np.arange(first, first + int(parents["npeak"][result.parent]))
        set_flags(table, rows, np.full(len(rows), result.flags))
        if result.error:
            continue
        table["blend"][rows] = next(blend)["id"]
        table["n_iter"][rows] = result.n_iter
        set_flags(table, rows, result.object_flags)
        for name, values in result.objects.items():
            if values.ndim == 1:
                table[name][rows] = values
                continue
            for band, column in zip(cube.bands, values.T, strict=True):
                table[f"{name}_{column_suffix(band)}"][rows] = column
    return table


def _components(
    detections: Detections, cube: Cube, fitted: Sequence[BlendResult], unit: str
) -> tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.int64]]:
    """COMPONENTS with their morphologies in one array."""
    n = sum(len(result.source) for result in fitted)
    table = empty_table(component_columns(cube.bands, unit), n)
    morphs = [morph.ravel() for result in fitted for morph in result.morphs]
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in morphs])]).astype(np.int64)
    if not n:
        return table, np.zeros(0, np.float32), np.zeros(1, np.int64)
    first = detections.parents["peak0"][[result.parent for result in fitted]]
    table["object"] = np.concatenate(
        [result.source + int(row) for result, row in zip(fitted, first, strict=True)]
    )
    boxes = np.concatenate([result.boxes for result in fitted])
    for name, values in zip(_BOX, boxes.T, strict=True):
        table[name] = values
    centres = np.concatenate([result.centres for result in fitted])
    table["peak_y"], table["peak_x"] = centres.T
    spectra = np.concatenate([result.spectra for result in fitted])
    for band, values in zip(cube.bands, spectra.T, strict=True):
        table[f"spectrum_{column_suffix(band)}"] = values
    return table, np.concatenate(morphs), offsets


def _count_components(objects: NDArray[np.void], components: NDArray[np.void]) -> None:
    """Fill in where each object's components are."""
    counts = np.bincount(components["object"], minlength=len(objects))
    objects["n_component"] = counts
    objects["component0"] = np.cumsum(counts) - counts
