"""Parents too large to be fitted as a whole: parts of their own, coupled by passes.

A parent is cut where its deconvolved image is dark. Every pixel goes to the nearest part, every
part is fitted on what the models of all others leave, brightest first, and again in further
passes: otherwise the wings of neighbours would be taken for a part's own light. Without passes
every part is fitted to the image itself, as in the reference system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coblend.core.box import Box
from coblend.core.deblend.batch import Batch, CutOuts
from coblend.core.deblend.blend import deblend_batch, observe
from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.initialize import detection_images
from coblend.core.deblend.fitting.observation import Frames
from coblend.core.deblend.guard import guarded
from coblend.core.deblend.memory import fit_memory
from coblend.core.deblend.metrics import Patch, merge, overlap
from coblend.core.deblend.refitting.refit import refit
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.warm import Warm
from coblend.core.errors import FitError
from coblend.core.params.deblend import DeblendParams

_B3 = np.array([1, 4, 6, 4, 1]) / 16
_FASTER = 3
"""Later passes have this part of the iterations."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a parent.

    Parameters
    ----------
    peaks : array, shape (n,), int64
        Its peaks, counted within the parent.
    window : tuple of slice
        Where in the parent's frame.
    region : array, shape (ny, nx), bool
        Its pixels in the window.
    """

    peaks: NDArray[np.int64]
    window: tuple[slice, slice]
    region: NDArray[np.bool_]


def is_split(n_peak: int, area: int, memory: float, params: DeblendParams) -> bool:
    """Whether a parent is to be fitted in parts; ``memory`` is that of its joint fit (MB)."""
    if params.max_blend_memory and memory > params.max_blend_memory:
        return True
    if params.split != "auto":
        return params.split == "always" and n_peak > 1
    return n_peak > params.joint_max_peaks or area > params.joint_max_area


def fit_parts(batch: Batch, params: DeblendParams, start: Warm | None = None) -> list[BlendResult]:
    """Fit one blend in parts.

    Parameters
    ----------
    batch : Batch
        One blend.
    params : DeblendParams
    start : Warm, optional
        Components of an earlier fit; peaks without any are new.

    Returns
    -------
    list of BlendResult
        One per part, with ``peaks``; one for all if there is nowhere to cut.
    """
    frames = observe(batch, params).frames[0]
    parts = find_parts(frames, batch, params)
    if len(parts) == 1:
        return fit_within(batch, params) if start is None else [refit(batch, start, params)]
    data, weight = frames.data[0], frames.weight[0]
    light = [float((data[(slice(None), *p.window)] * p.region).sum()) for p in parts]
    order = sorted(range(len(parts)), key=lambda i: (-light[i], int(parts[i].peaks[0])))
    model = np.zeros_like(data)
    results = [_before(batch, part, start) for part in parts]
    for result in results:
        _paint(model, batch, result, 1)
    later = replace(params, max_iter=-(-params.max_iter // _FASTER))
    for number in range(1 + params.coupling_passes):
        for i in order:
            before = results[i]
            if before.error:
                continue
            _paint(model, batch, before, -1)
            left = data[(slice(None), *parts[i].window)]
            if params.coupling_passes:
                left = left - _rendered(frames, model, parts[i])
            one = _part_batch(batch, parts[i], left, weight)
            if number or len(before.source):
                fitter = partial(_again, _warm(one, before))
                (after,) = guarded(fitter, one, later if number else params)
            else:
                (after,) = guarded(fit_within, one, params)
            if number:
                after = replace(after, n_iter=after.n_iter + before.n_iter,
                                loss_init=before.loss_init)  # fmt: skip
            results[i] = replace(after, peaks=parts[i].peaks)
            _paint(model, batch, results[i], 1)
    results = _with_common_overlap(batch, results)
    return sorted(results, key=lambda result: int(result.peaks[0]))  # type: ignore[index]


def _before(batch: Batch, part: Part, start: Warm | None) -> BlendResult:
    """Return what an earlier fit left of one part: nothing but the parent, without one."""
    empty = BlendResult(int(batch.parents[0]))
    if start is None:
        return empty
    own = start.only(part.peaks)
    origin = np.array([batch.boxes[0].y0, batch.boxes[0].x0])
    sizes = np.array([morph.shape for morph in own.morphs], np.int64).reshape(-1, 2)
    return replace(
        empty, source=own.source, boxes=np.hstack([own.corners + origin, sizes]),
        centres=own.centres + origin, spectra=own.spectra * batch.sigma, morphs=tuple(own.morphs),
    )  # fmt: skip


def _again(warm: Warm, batch: Batch, params: DeblendParams) -> list[BlendResult]:
    return [refit(batch, warm, params)]


def find_parts(frames: Frames, batch: Batch, params: DeblendParams) -> list[Part]:
    """Cut a parent into parts where its deconvolved image is dark.

    As the reference system does (``_getDeconvolvedFootprints``, whose threshold also counts
    half): smooth with a B3 spline, threshold, drop small regions, add the peaks, dilate by a
    disc, label.
    """
    image = detection_images(frames)[0]
    for axis in (0, 1):
        image = ndimage.convolve1d(image, _B3, axis=axis, mode="reflect")
    footprint = batch.cuts[0].footprint[0]
    grow = params.split_grow
    y, x = np.mgrid[-grow : grow + 1, -grow : grow + 1]
    bright, n = ndimage.label(image > params.split_thresh / 2)
    areas = np.bincount(bright.ravel(), minlength=n + 1)
    bright = (bright > 0) & (areas[bright] >= params.split_min_area)
    bright[batch.y, batch.x] = True
    bright = ndimage.binary_dilation(bright, y**2 + x**2 <= grow**2) & footprint
    labels, _ = ndimage.label(bright)
    own = labels[batch.y, batch.x]
    labels[~np.isin(labels, own)] = 0
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    territory = np.where(footprint, labels[tuple(nearest)], 0)
    windows = ndimage.find_objects(territory + 1)
    parts = []
    for label in dict.fromkeys(own.tolist()):
        window = windows[label]
        parts.append(Part(np.flatnonzero(own == label), window, territory[window] == label))
    return parts


def _part_batch(batch: Batch, part: Part, data: Floats, weight: Floats) -> Batch:
    """Batch of one part, on the data that the others leave."""
    window, box = part.window, batch.boxes[0]
    own = Box(box.y0 + window[0].start, box.x0 + window[1].start, *part.region.shape)
    usable = weight[(slice(None), *window)] * part.region
    cut = CutOuts(np.zeros(1, np.int64), np.where(usable > 0, data, 0)[None].astype(np.float32),
                  usable[None], part.region[None])  # fmt: skip
    return replace(
        batch, boxes=(own,), cuts=(cut,), blend=np.zeros(len(part.peaks), np.int64),
        y=batch.y[part.peaks] - window[0].start, x=batch.x[part.peaks] - window[1].start,
    )  # fmt: skip


def _rendered(frames: Frames, model: Floats, part: Part) -> Floats:
    """Render a model over a part's window, with the light that comes from outside it."""
    wide = tuple(
        slice(max(0, w.start - frames.half), min(n, w.stop + frames.half))
        for w, n in zip(part.window, frames.shape, strict=True)
    )
    inner = tuple(
        slice(w.start - o.start, w.stop - o.start) for w, o in zip(part.window, wide, strict=True)
    )
    local = model[(slice(None), *wide)][None]
    view = Frames.of(np.zeros(1, np.int64), local, local, frames.kernels)
    return np.asarray(view.convolve(local)[0][(slice(None), *inner)])


def _paint(model: Floats, batch: Batch, result: BlendResult, sign: int) -> None:
    """Add the unconvolved model of a part (units of the noise) to that of the parent, in place."""
    box = batch.boxes[0]
    for (y0, x0, ny, nx), spectrum, morph in zip(
        result.boxes, result.spectra, result.morphs, strict=True
    ):
        y, x = y0 - box.y0, x0 - box.x0
        model[:, y : y + ny, x : x + nx] += (
            sign * (spectrum / batch.sigma).astype(np.float32)[:, None, None] * morph
        )


def _with_common_overlap(batch: Batch, results: Sequence[BlendResult]) -> list[BlendResult]:
    """Measure how much sources overlap with those of all parts, not only of their own."""
    patches: list[Patch] = []
    for result in results:
        patches += _patches(batch, result)
    if not patches:
        return list(results)
    metrics, first, out = overlap(patches), 0, []
    for result in results:
        own = slice(first, first + len(result.object_flags))
        first = own.stop
        objects = dict(result.objects)
        for name in ("max_overlap", "flux_overlap", "flux_overlap_frac", "blendedness"):
            if name in objects:
                unit = batch.sigma if name in ("max_overlap", "flux_overlap") else 1.0
                values = getattr(metrics, name)[own] * unit
                objects[name] = np.where(np.isnan(objects["model_flux"]), np.nan, values)
        out.append(replace(result, objects=objects))
    return out


def _patches(batch: Batch, result: BlendResult) -> list[Patch]:
    """Unconvolved models of the sources of one part in the parent's frame (units of the noise)."""
    box = batch.boxes[0]
    own: list[list[Patch]] = [[] for _ in result.object_flags]
    for k, (y0, x0, ny, nx), spectrum, morph in zip(
        result.source, result.boxes, result.spectra, result.morphs, strict=True
    ):
        y, x = int(y0) - box.y0, int(x0) - box.x0
        image = (spectrum / batch.sigma).astype(np.float32)[:, None, None] * morph
        own[k].append(((slice(y, y + int(ny)), slice(x, x + int(nx))), image))
    return [merge(patches) for patches in own]


def _warm(batch: Batch, before: BlendResult) -> Warm:
    """Components of an earlier pass."""
    origin = np.array([batch.boxes[0].y0, batch.boxes[0].x0])
    return Warm(
        before.source, before.centres - origin, before.boxes[:, :2] - origin,
        (before.spectra / batch.sigma).astype(np.float32), before.morphs,
    )  # fmt: skip


def oversized(batch: Batch, params: DeblendParams) -> Sequence[bool]:
    """Whether each blend of a batch is to be fitted in parts."""
    counts = np.bincount(batch.blend, minlength=len(batch))
    return [
        is_split(int(n), box.area, needed, params)
        for n, box, needed in zip(counts, batch.boxes, memory_of(batch), strict=True)
    ]


def memory_of(batch: Batch) -> NDArray[np.float64]:
    """Memory that the joint fit of each blend of a batch takes (MB)."""
    counts = np.bincount(batch.blend, minlength=len(batch))
    ny, nx = np.array([box.shape for box in batch.boxes]).T
    return fit_memory(counts, ny, nx, *batch.psfs.shape[1:3])


def fit_within(batch: Batch, params: DeblendParams) -> list[BlendResult]:
    """Fit a batch of one blend jointly unless there is not the memory for it.

    Raises
    ------
    FitError
        ``MemoryLimit``, or as `blend.deblend_batch`.
    """
    if params.max_blend_memory and memory_of(batch)[0] > params.max_blend_memory:
        raise FitError("MemoryLimit")
    return deblend_batch(batch, params)
