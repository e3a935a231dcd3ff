"""One band of a chunk of parents: from models and pixels to footprints with light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.catalog import empty_table
from coblend.core.footprint import FootprintSet
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.columns import MEASURED, STRAY
from coblend.core.reconstruct.frames import Frames
from coblend.core.reconstruct.measure import (
    drop_unseen,
    measure_chi2,
    measure_light,
    measure_overlap,
)
from coblend.core.reconstruct.render import band_kernels, render
from coblend.core.reconstruct.share import (
    ROUND_OFF,
    Pieces,
    join,
    positive_shares,
    reference_shares,
    settle_excess,
    stray_pieces,
    template_pieces,
    whole_pieces,
)
from coblend.core.reconstruct.stamps import (
    Stamps,
    common_pixels,
    group_sum,
    modelled_objects,
    object_stamps,
)


@dataclass(frozen=True, slots=True)
class BandLight:
    """What one band of a chunk of parents holds.

    Parameters
    ----------
    objects : structured array
        `MEASURED`, one row per row of OBJECTS.
    parents : structured array
        `STRAY`, one row per row of PARENTS.
    footprints : FootprintSet
        Of the objects; empty for objects that were not deblended.
    light : array, shape (n_value,), float64
        Light of every footprint pixel, in the order of the spans.
    rendered : Stamps
        Whole models as the band sees them, in the order of `modelled_objects`; none where they
        were not asked for.
    """

    objects: NDArray[Any]
    parents: NDArray[Any]
    footprints: FootprintSet
    light: NDArray[np.float64]
    rendered: Stamps


@dataclass(frozen=True, slots=True)
class Members:
    """How the objects of a chunk relate to its parents.

    Parameters
    ----------
    parent : array, shape (n_object,), int64
        Row in PARENTS of each object.
    modelled : array, shape (n_modelled,), int64
        Objects with components, in the order of the stamps.
    cell : array, shape (n_modelled,), int64
        Their PSF cells.
    alone : array, shape (n_object,), bool
        Objects that are the only ones of their parent with a model.
    untouched : array, shape (n_object,), bool
        Objects that were not modelled because they have their parent to themselves.
    """

    parent: NDArray[np.int64]
    modelled: NDArray[np.int64]
    cell: NDArray[np.int64]
    alone: NDArray[np.bool_]
    untouched: NDArray[np.bool_]


def members_of(models: ModelSet) -> Members:
    """Relate objects to parents, blends and PSF cells."""
    objects = models.objects
    n_parent = len(models.parents)
    parent = _rows(models.parents["id"], objects["parent"])
    modelled = modelled_objects(models)
    blend = _rows(models.blends["id"], objects["blend"][modelled])
    n_model = np.bincount(parent[modelled], minlength=n_parent)
    n_object = np.bincount(parent, minlength=n_parent)
    has_model = objects["n_component"] > 0
    single = objects["flags"] & (FLAGS["isolated"] | FLAGS["skipped_pseudo"]) != 0
    return Members(
        parent,
        modelled,
        models.blends["psf_cell"][blend].astype(np.int64),
        has_model & (n_model[parent] == 1),
        single & ~has_model & (n_object[parent] == 1),
    )


def render_objects(
    models: ModelSet,
    band: int,
    reg: float | None = None,
    within: NDArray[np.int64] | None = None,
) -> tuple[Stamps, Stamps, Stamps]:
    """Models of all objects with components, as fitted and as the band sees them.

    Parameters
    ----------
    models : ModelSet
    band : int
    reg : float, optional
        Regularisation of the kernels; default: the one of the fit.
    within : array, shape (n, 4), int64, optional
        Boxes to which what the band sees is cut, of each object with components.

    Returns
    -------
    stamps, rendered, templates : Stamps
        Unconvolved; convolved with K; their positive parts convolved with K+.
    """
    stamps = object_stamps(models, band)
    if not len(stamps):
        return stamps, stamps, stamps
    kernels = band_kernels(models, band, reg)
    cell = members_of(models).cell
    if np.all(stamps.values >= 0):
        rendered, templates = render(stamps, kernels, cell, within)
        return stamps, rendered, templates
    positive = Stamps(stamps.boxes, np.maximum(stamps.values, 0.0))
    (rendered,) = render(stamps, kernels[:1], cell, within)
    (templates,) = render(positive, kernels[1:], cell, within)
    return stamps, rendered, templates


def reconstruct_band(
    models: ModelSet,
    frames: Frames,
    band: int,
    params: ReconstructParams,
    total: NDArray[np.float64] | None = None,
    *,
    with_models: bool = False,
) -> BandLight:
    """Give every object of a chunk of parents its light in one band.

    Models are rendered, templates cut to the footprints, made shares of each pixel and multiplied
    with the image; then all is measured. Arrays are let go as soon as they have served: together
    they would be several times the image.

    Parameters
    ----------
    models : ModelSet
        The chunk.
    frames : Frames
        Pixels of its parents (`cut_frames`).
    band : int
        Band of the models.
    params : ReconstructParams
    total : array, shape (n_pixel,), float64, optional
        Sum of the templates of all objects over the frames, those of other parents included:
        their wings keep their share of the light. Default: other parents do not count.
    with_models : bool
        Whether to return the models, wings beyond the boxes of the parents included.
    """
    members = members_of(models)
    within = None if with_models else frames.boxes[members.parent[members.modelled]]
    stamps, rendered, templates = render_objects(models, band, params.kernel_reg, within)
    if params.kind == "model" or params.weights == "reference":
        templates = rendered
    parent = members.parent[members.modelled]
    pieces = template_pieces(
        frames, templates, members.modelled, parent, confined=params.mask_footprint
    )
    seen = stamps if params.metrics == "model" else templates
    stray = np.zeros(0, np.int64)
    if params.kind == "model":
        light = pieces.value
        pieces = pieces.with_values(np.full(len(light), np.nan))
    else:
        other = None
        if total is not None and params.weights == "positive":
            other = _others(frames, templates, parent, total)
        del templates  # large, as all arrays of this function
        pieces, stray = _shares(models, frames, members, pieces, params, other)
        light = _light(frames, pieces, rendered, params.fill_bad)

    table = empty_table(MEASURED, len(models.objects))
    peak = _peak_pixels(models, frames, members)
    measure_light(table, frames, pieces, light, peak)
    if params.kind == "flux":  # the light of models needs no data
        drop_unseen(table)
    table["model_flux"][members.modelled] = stamps.sums()
    measure_overlap(table, frames, seen, members.modelled, parent)
    measure_chi2(table, frames, pieces, _sum_over(frames, rendered, parent))

    pieces = _with_dark_peaks(models, table, pieces.with_values(light), peak)
    footprints = _footprints(frames, members, pieces)
    if not with_models:
        rendered = Stamps(np.zeros((0, 4), np.int64), np.zeros(0))
    return BandLight(table, _stray_table(frames, stray), footprints, pieces.value, rendered)


def _with_dark_peaks(
    models: ModelSet, table: NDArray[Any], pieces: Pieces, peak: NDArray[np.int64]
) -> Pieces:
    """Light, and one pixel of none at the peak of each blended object that has no other.

    Fills in the columns of these objects.
    """
    dark = np.flatnonzero((models.objects["blend"] != 0) & (table["n_pix"] == 0) & (peak >= 0))
    table["zero_flux"][dark] = True
    for name in ("flux", "peak_flux", "coverage"):
        table[name][dark] = 0.0
    if not len(dark):
        return pieces
    none = np.full(len(dark), -1, pieces.source.dtype)
    return join([pieces, Pieces(dark.astype(np.int32), peak[dark], np.zeros(len(dark)), none)])


def _shares(
    models: ModelSet,
    frames: Frames,
    members: Members,
    pieces: Pieces,
    params: ReconstructParams,
    other: NDArray[np.float64] | None,
) -> tuple[Pieces, NDArray[np.int64]]:
    """Shares of the light, and the footprint pixels that no model reaches."""
    n_pixel = len(frames.inside)
    # An object that has its parent to itself gets all that neighbours leave, templates or not.
    alone = members.alone & (params.weights == "positive")
    exclusive = alone & (other is None)
    whole = np.flatnonzero(members.untouched | exclusive)
    pieces = pieces.take(~exclusive[pieces.owner])
    if params.weights == "reference":
        pieces = reference_shares(pieces, n_pixel)
    else:
        templates = pieces
        pieces = positive_shares(templates, n_pixel, other, params.min_ratio)
        if params.fill_bad == "keep":
            pieces = settle_excess(pieces, templates, frames, other)

    reached = np.bincount(pieces.pixel, minlength=n_pixel) > 0
    if other is not None:
        reached |= other > 0
    modelled = np.zeros(len(frames.boxes), bool)
    modelled[members.parent[members.modelled]] = True
    modelled[members.parent[whole]] = False
    in_modelled = np.repeat(modelled, frames.boxes[:, 2] * frames.boxes[:, 3])
    stray = np.flatnonzero(frames.inside & in_modelled & ~reached)

    parts = [pieces, whole_pieces(frames, whole, members.parent[whole])]
    takers = members.modelled
    if params.stray == "none":
        takers = takers[alone[takers]]
    takers = takers[np.argsort(models.objects["id"][takers], kind="stable")]
    peaks = np.stack([models.objects["iy"], models.objects["ix"]], axis=1).astype(np.int64)
    rule = "nearest" if params.stray == "none" else params.stray
    parts += stray_pieces(rule, stray, frames, takers, members.parent[takers], peaks[takers])
    return join(parts), stray


def _others(
    frames: Frames, templates: Stamps, parent: NDArray[np.int64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Templates of the objects of other parents over the frames."""
    other = total - _sum_over(frames, templates, parent)
    return np.where(other > ROUND_OFF * total, other, 0.0)


def _light(frames: Frames, pieces: Pieces, rendered: Stamps, fill_bad: str) -> NDArray[np.float64]:
    """Light of each piece."""
    light = pieces.value * frames.image[pieces.pixel]
    if fill_bad == "keep":
        return np.asarray(light)
    bad = frames.bad[pieces.pixel]
    if fill_bad == "zero":
        return np.where(bad, 0.0, light)
    bad &= pieces.source >= 0
    light[bad] = rendered.values[pieces.source[bad]]
    return np.asarray(light)


def _sum_over(frames: Frames, stamps: Stamps, parent: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of stamps over the frames of their parents, shape (n_pixel,), float64."""
    inside, pixel, _ = common_pixels(
        stamps.boxes, stamps.offsets[:-1], frames.boxes[parent], frames.offsets[parent]
    )
    return group_sum(pixel, stamps.values[inside], len(frames.inside))


def _peak_pixels(models: ModelSet, frames: Frames, members: Members) -> NDArray[np.int64]:
    """Flat index of each object's peak pixel in its frame; -1 outside."""
    box = frames.boxes[members.parent]
    y = models.objects["iy"] - box[:, 0]
    x = models.objects["ix"] - box[:, 1]
    inside = (y >= 0) & (y < box[:, 2]) & (x >= 0) & (x < box[:, 3])
    return np.where(inside, frames.offsets[members.parent] + y * box[:, 3] + x, -1)


def _footprints(frames: Frames, members: Members, pieces: Pieces) -> FootprintSet:
    """Footprints of all objects from their pixels."""
    owner, pixel = pieces.owner, pieces.pixel
    origin = frames.offsets[members.parent]
    box = frames.boxes[members.parent]
    column = (pixel - origin[owner]) % box[owner, 3]
    starts = column == 0
    starts[1:] |= (pixel[1:] != pixel[:-1] + 1) | (owner[1:] != owner[:-1])
    starts[:1] = True
    first = np.flatnonzero(starts)
    length = np.diff(np.append(first, len(pixel)))
    box, mine = box[owner[first]], owner[first]
    y = (pixel[first] - origin[mine]) // box[:, 3] + box[:, 0]
    x = column[first] + box[:, 1]
    spans = np.stack([y, x, x + length - 1], axis=1)
    ends = np.searchsorted(mine, np.arange(len(members.parent) + 1))
    return FootprintSet(spans.astype(np.int32), ends.astype(np.int64))


def _stray_table(frames: Frames, stray: NDArray[np.int64]) -> NDArray[Any]:
    n = len(frames.boxes)
    table = empty_table(STRAY, n)
    frame = np.searchsorted(frames.offsets, stray, side="right") - 1
    table["n_stray"] = np.bincount(frame, minlength=n)
    table["stray_flux"] = group_sum(frame, frames.image[stray], n)
    return table


def _rows(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each wanted id; ids are unique and hold all that is wanted."""
    order = np.argsort(ids, kind="stable")
    return np.asarray(order[np.searchsorted(ids, wanted, sorter=order)], np.int64)
