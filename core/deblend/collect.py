"""From the results of all blends to the tables of one `ModelSet`.

Every peak of the input has a row in OBJECTS, whether its parent was fitted, passed through as
isolated, skipped or failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.catalog import empty_table
from coblend.core.deblend.isolated import fill_isolated
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.task import Plan
from coblend.core.detection import Detections
from coblend.core.exposure import Cube
from coblend.core.footprint import spans_to_labels
from coblend.core.mask import STANDARD
from coblend.core.model import (
    FLAGS,
    ModelSet,
    blend_columns,
    component_columns,
    object_columns,
    parent_columns,
    set_flag,
    star_columns,
)
from coblend.core.params.deblend import DeblendParams

_BOX = ("y0", "x0", "ny", "nx")


@np.errstate(over="ignore")  # chi2 where a pixel is 1e30
def collect(
    detections: Detections,
    cube: Cube,
    plan: Plan,
    results: Sequence[BlendResult],
    params: DeblendParams,
) -> ModelSet:
    """Sort results by parent and build all tables.

    Identifiers of blends follow the largest of the parents', those of objects follow the
    blends'; an isolated object keeps its parent's. A blend that failed has used up its own, so
    that it does not change those of others.
    """
    outcome = _Outcome.of(detections, cube, plan, results)
    parents = _parents(outcome, params)
    blends = _blends(outcome)
    objects = _objects(outcome, params)
    if params.single_psf_flux:
        fill_isolated(objects, outcome.order, detections, cube, plan)
    objects["parent_n_child"] = np.repeat(parents["n_child"], parents["n_peak"])
    components, morph, offsets = _components(outcome)
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
        psfs=plan.psfs,
        psf_cells=plan.psf_cells,
        box=cube.box,
        kernel_reg=params.kernel_reg,
        model_psf_sigma=params.model_psf_sigma,
        unit=outcome.unit,
        wcs=cube.wcs,
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was asked for and what came of it.

    Parameters
    ----------
    detections : Detections
    cube : Cube
    plan : Plan
    results : list of BlendResult
        By parent.
    order : array, shape (n_object,), int64
        Row of PEAKS of every object: those of a blend follow each other, pseudo peaks come last
        in their parent.
    rows : list of array, int64
        Rows of OBJECTS of every result.
    """

    detections: Detections
    cube: Cube
    plan: Plan
    results: list[BlendResult]
    order: NDArray[np.int64]
    rows: list[NDArray[np.int64]]

    @classmethod
    def of(
        cls, detections: Detections, cube: Cube, plan: Plan, results: Sequence[BlendResult]
    ) -> _Outcome:
        """Sort the results and find the rows of their objects."""
        ordered = sorted((*plan.refused, *results), key=lambda result: result.parent)
        order = plan.members.rows.copy()
        rows = []
        for parent, group in groupby(ordered, key=lambda result: result.parent):
            row, own = int(plan.members.first[parent]), plan.members.of_parent(parent)
            for result in group:
                peaks = own if result.peaks is None else own[result.peaks]
                rows.append(np.arange(row, row + len(peaks)))
                order[rows[-1]] = peaks
                row += len(peaks)
        return cls(detections, cube, plan, ordered, order, rows)

    @property
    def unit(self) -> str:
        """Unit of all bands, "" if they differ."""
        units = set(self.cube.units)
        return units.pop() if len(units) == 1 else ""

    @property
    def first_id(self) -> int:
        """Identifier of the first result; one for each, then one for each object."""
        return int(self.detections.parents["id"].max(initial=0)) + 1

    @property
    def fitted(self) -> NDArray[np.int64]:
        """Results that did not fail."""
        return np.flatnonzero([not result.error for result in self.results])


def not_deblended(models: ModelSet) -> NDArray[np.int32]:
    """Mask over the pixel grid with NOT_DEBLENDED where parents were skipped or failed."""
    flags = models.parents["flags"]
    bits = sum(bit for name, bit in FLAGS.items() if name.startswith("skipped"))
    rows = np.flatnonzero((flags & (bits | FLAGS["failed"])) != 0)
    spans = models.footprints.select(rows).spans
    return spans_to_labels(spans, models.box, STANDARD.value(["NOT_DEBLENDED"]))


def _parents(outcome: _Outcome, params: DeblendParams) -> NDArray[np.void]:
    """PARENTS."""
    source, plan = outcome.detections.parents, outcome.plan
    table = empty_table(parent_columns(), len(source))
    table["id"], table["area"] = source["id"], source["area"]
    table["n_peak"] = source["npeak"]
    for name, values in zip(_BOX, outcome.detections.footprints.boxes().T, strict=True):
        table[name] = values
    table["memory"] = plan.memory
    set_flags(table, np.arange(len(table)), plan.flags)
    kept = (plan.flags & (FLAGS["isolated"] | FLAGS["skipped_pseudo"])) != 0
    table["n_child"][kept] = source["npeak"][kept]
    row = 0
    for i, group in groupby(outcome.results, key=lambda result: result.parent):
        own = list(group)
        done = [result for result in own if not result.error]
        table["blend0"][i], table["n_blend"][i] = row, len(done)
        table["error"][i] = next((result.error for result in own if result.error), "")
        flags = np.bitwise_or.reduce([result.flags for result in own])
        if done:
            counts = [len(result.object_flags) for result in done]
            table["n_child"][i] = sum(counts)
            table["n_component"][i] = sum(len(result.source) for result in done)
            table["n_iter"][i] = sum(result.n_iter for result in done)
            table["n_pass"][i] = params.coupling_passes if done[0].peaks is not None else 0
            table["chi2"][i] = np.average([result.chi2 for result in done], weights=counts)
            table["log_likelihood"][i] = -sum(result.loss for result in done)
            table["log_likelihood_init"][i] = -sum(result.loss_init for result in done)
            if flags & FLAGS["failed"]:
                flags += FLAGS["child_failed"] - FLAGS["failed"]
        set_flags(table, np.array([i]), np.array([flags]))
        row += len(done)
    return table


def set_flags(table: NDArray[np.void], rows: NDArray[np.int64], flags: NDArray[np.int64]) -> None:
    """Set every flag of a bit pattern per row, with its column."""
    for name, bit in FLAGS.items():
        hit = rows[(flags & bit) != 0]
        if len(hit):
            set_flag(table, hit, name)


def _blends(outcome: _Outcome) -> NDArray[np.void]:
    """BLENDS: one row per fitted parent, or part of one."""
    cube, plan = outcome.cube, outcome.plan
    fitted = [outcome.results[i] for i in outcome.fitted]
    rows = [outcome.rows[i] for i in outcome.fitted]
    table = empty_table(blend_columns(cube.bands, outcome.unit), len(fitted))
    parents = np.array([result.parent for result in fitted], np.int64)
    table["id"] = outcome.first_id + outcome.fitted
    table["parent"] = parents
    boxes = outcome.detections.footprints.boxes()[parents]
    for name, values in zip(_BOX, boxes.T, strict=True):
        table[name] = values
    table["object0"], table["n_object"] = [own[0] for own in rows], [len(own) for own in rows]
    counts = np.array([len(result.source) for result in fitted], np.int64)
    table["component0"], table["n_component"] = np.cumsum(counts) - counts, counts
    table["psf_cell"] = plan.cells[parents]
    for name in ("n_iter", "chi2", "flags"):
        table[name] = [getattr(result, name) for result in fitted]
    table["log_likelihood"] = [-result.loss for result in fitted]
    table["log_likelihood_init"] = [-result.loss_init for result in fitted]
    for band, sigma in zip(cube.bands, plan.sigma, strict=True):
        table[f"sigma_{column_suffix(band)}"] = sigma
    return table


def _objects(outcome: _Outcome, params: DeblendParams) -> NDArray[np.void]:
    """OBJECTS: one row per peak."""
    cube, plan, detections = outcome.cube, outcome.plan, outcome.detections
    peaks, parents = detections.peaks[outcome.order], detections.parents
    columns = object_columns(cube.bands, outcome.unit)
    if params.algorithm == "sdss":
        columns += star_columns(cube.bands, outcome.unit)
    table = empty_table(columns, len(peaks))
    owner = np.repeat(np.arange(len(parents)), parents["npeak"])
    lone = (plan.flags[owner] & (FLAGS["isolated"] | FLAGS["skipped_pseudo"])) != 0
    lone &= np.arange(len(peaks)) == plan.members.first[owner]
    own_id = outcome.first_id + len(outcome.results) + np.arange(len(peaks))
    table["id"] = np.where(lone, parents["id"][owner], own_id)
    table["parent"] = parents["id"][owner]
    table["peak_id"] = peaks["id"]
    table["parent_n_peak"] = parents["npeak"][owner]
    for band in set(cube.bands) & set(detections.bands):
        peak, parent = (f"merge_{what}_{column_suffix(band)}" for what in ("peak", "footprint"))
        table[peak], table[parent] = peaks[peak], parents[parent][owner]
    for name in ("x", "y", "ra", "dec", "ix", "iy"):
        table[name] = peaks[name]
    rank = np.arange(len(peaks)) - plan.members.first[owner]
    sky = (rank >= plan.members.n_real[owner]) & ~plan.members.pseudo[owner]
    flags = np.where(sky, FLAGS["skipped_pseudo"] | FLAGS["skipped"], plan.flags[owner])
    set_flags(table, np.arange(len(table)), flags)
    for i, (result, rows) in enumerate(zip(outcome.results, outcome.rows, strict=True)):
        set_flags(table, rows, np.full(len(rows), result.flags))
        if result.error:
            continue
        table["blend"][rows] = outcome.first_id + i
        table["n_iter"][rows], table["blend_n_child"][rows] = result.n_iter, len(rows)
        set_flags(table, rows, result.object_flags)
        for name, values in result.objects.items():
            if values.ndim == 1:
                table[name][rows] = values
                continue
            for band, column in zip(cube.bands, values.T, strict=True):
                table[f"{name}_{column_suffix(band)}"][rows] = column
    return table


def _components(
    outcome: _Outcome,
) -> tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.int64]]:
    """COMPONENTS with their morphologies in one array."""
    bands, fitted = outcome.cube.bands, [outcome.results[i] for i in outcome.fitted]
    n = sum(len(result.source) for result in fitted)
    table = empty_table(component_columns(bands, outcome.unit), n)
    morphs = [morph.ravel() for result in fitted for morph in result.morphs]
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in morphs])]).astype(np.int64)
    if not n:
        return table, np.zeros(0, np.float32), np.zeros(1, np.int64)
    table["object"] = np.concatenate([
        outcome.rows[i][outcome.results[i].source] for i in outcome.fitted
    ])  # fmt: skip
    boxes = np.concatenate([result.boxes for result in fitted])
    for name, values in zip(_BOX, boxes.T, strict=True):
        table[name] = values
    centres = np.concatenate([result.centres for result in fitted])
    table["peak_y"], table["peak_x"] = centres.T
    spectra = np.concatenate([result.spectra for result in fitted])
    for band, values in zip(bands, spectra.T, strict=True):
        table[f"spectrum_{column_suffix(band)}"] = values
    return table, np.concatenate(morphs), offsets


def _count_components(objects: NDArray[np.void], components: NDArray[np.void]) -> None:
    """Fill in where each object's components are."""
    counts = np.bincount(components["object"], minlength=len(objects))
    objects["n_component"] = counts
    objects["component0"] = np.cumsum(counts) - counts
