"""``assemble-coadd --reject compare-warp``: find artifacts in the PSF-matched warps.

The PSF-matched warps are read once, a few rows at a time: what differs from the template there is
kept as lists of pixels, so memory does not grow with the coadd.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.cli.coadd_inputs import Field, read_ahead, room_for
from coblend.cli.matched_warps import matched_warps, stamp_of
from coblend.cli.run import Run
from coblend.core.box import Box
from coblend.core.catalog import Column
from coblend.core.coadd.artifacts import (
    ARTIFACT_COLUMNS,
    Candidates,
    EpochMask,
    find_candidates,
    judge,
    reach,
)
from coblend.core.coadd.differences import (
    Look,
    Template,
    difference,
    look,
    noise_factor,
    scaled,
    smoothed_difference,
)
from coblend.core.coadd.plan import plan_slabs
from coblend.core.coadd.regions import BLOCK, Regions, values_at
from coblend.core.coadd.samples import WarpPart
from coblend.core.coadd.sparse import Indices, Runs
from coblend.core.coadd.stack import Stacked, stack
from coblend.core.coadd.streaks import MIN_AREA, band, extent, line_of
from coblend.core.coadd.weights import sample_boxes
from coblend.core.params.coadd import CoaddParams
from coblend.core.psf.moments import adaptive_moments
from coblend.io.coadd.coadds import PlaneStore

log = logging.getLogger("coblend")


@dataclass(frozen=True)
class Comparison:
    """What the comparison of the epochs found.

    Parameters
    ----------
    epochs : list of EpochMask
    table : structured array
        ARTIFACTS, with its columns.
    template : PlaneStore
        The template, and how many epochs can be compared with it.
    edges : Runs
        Where a PSF-matched warp has ``EDGE``: the PSF is not exact there.
    """

    epochs: list[EpochMask]
    table: NDArray[Any]
    columns: tuple[Column, ...]
    template: PlaneStore
    edges: Runs


def compare_warps(
    direct: Field,
    params: CoaddParams,
    run: Run,
    partners: Sequence[str],
    ids: Sequence[str],
    resources: ExitStack,
) -> Comparison:
    """Compare every PSF-matched warp with their template.

    Parameters
    ----------
    direct : Field
    params : CoaddParams
    run : Run
    partners : sequence of str
        The PSF-matched warps, in the order of the warps or with ids.
    ids : sequence of str
        Those of the warps, "" without.
    resources : ExitStack
        Closes the template.

    Raises
    ------
    ParameterError
        No PSF-matched warps, or another number of them.
    FormatError
        They have no PSF.
    """
    matched = matched_warps(direct, params, run, partners, ids)
    if len(direct.warps) < 3:
        log.warning("%d inputs: no artifact can be told from a source", len(direct.warps))
    sigma = float(adaptive_moments(stamp_of(matched.warps[0])).sigma[0])
    template = resources.enter_context(room_for(run, _PLANES, matched.box.shape))
    seen = _look_at_all(matched, params, run, template)
    regions = Regions.of(template.read, matched.box.shape, sigma, params)
    n = len(matched.warps)
    rounds = [[_bright_candidates(matched, seen.looks[i], sigma) for i in range(n)]]
    if params.faint_artifacts:
        rounds.append([_faint_candidates(matched, i, seen, template, sigma) for i in range(n)])
    clipped: list[list[Indices]] = [[] for _ in matched.warps]
    tables = []
    for found in rounds:
        judged = _judge_all(found, template, regions, params)
        for i, (candidates, (pixels, rows)) in enumerate(zip(found, judged, strict=True)):
            clipped[i].append(pixels)
            if params.streaks:
                trails = _trails(matched, i, candidates, rows, seen, template, sigma)
                clipped[i].append(trails[regions.at(trails) == 0])
            rows["input"] = i
            tables.append(rows)
    epochs = [
        EpochMask(
            matched.box.nx, np.unique(np.concatenate(pixels)), Runs.joined([k.seen for k in looks])
        )
        for pixels, looks in zip(clipped, seen.looks, strict=True)
    ]
    table = np.concatenate(tables)
    for name, origin in (("x", matched.box.x0), ("y", matched.box.y0)):
        table[f"{name}0"] += origin
        table[f"{name}1"] += origin
    return Comparison(epochs, table, ARTIFACT_COLUMNS, template, seen.edges)


_PLANES = {"IMAGE": "f4", "MASK": "i4", "VARIANCE": "f4", "NIMAGE": "i2", "WEIGHT": "f4"}


@dataclass(frozen=True)
class _Seen:
    """All looks at all epochs, from the bottom to the top, and the noise and weight of each."""

    looks: list[list[Look]]
    edges: Runs
    noise: list[float]
    weights: NDArray[np.float64]


def _look_at_all(field: Field, params: CoaddParams, run: Run, template: PlaneStore) -> _Seen:
    """Make the template and compare all epochs with it, slab by slab."""
    table = field.weigh(params)
    noise = [_noise(field, i) for i in range(len(field.warps))]
    looks: list[list[Look]] = [[] for _ in field.warps]
    edges = []
    plan = plan_slabs(
        field.box, len(field.warps), run.max_memory - 2 * template.n_bytes_in_memory,
        threads=run.jobs, block=field.block, input_map=True,
    )  # fmt: skip

    def read(box: Box) -> tuple[Box, list[WarpPart]]:
        return box, field.parts(box, table)

    with run.progress("compare", field.box.ny) as advance:
        for box, parts in read_ahead(read, plan.slabs(), run.jobs):
            done = stack(
                parts, box, field.rules,
                n_input=len(field.warps), threads=run.jobs, input_map=True,
            )  # fmt: skip
            n_image, edge = np.zeros(box.shape, np.uint16), np.zeros(box.shape, bool)
            for part in parts:
                seen, usable, near_edge = _look(part, noise[part.index], done, field, params)
                cut = part.box.slices(box)
                n_image[cut] += usable
                edge[cut] |= near_edge
                looks[part.index].append(seen)
            first = (box.y0 - field.box.y0) * field.box.nx
            edges.append(Runs.of(edge, first))
            template.append(
                IMAGE=done.image, MASK=done.mask, VARIANCE=done.variance, NIMAGE=n_image,
                WEIGHT=done.weight,
            )  # fmt: skip
            advance(box.ny)
            del parts, done  # before the next slab is read
    return _Seen(looks, Runs.joined(edges), noise, table["weight"])


def _look(
    part: WarpPart, noise: float, done: Stacked, field: Field, params: CoaddParams
) -> tuple[Look, NDArray[np.bool_], NDArray[np.bool_]]:
    cut = part.box.slices(done.box)
    own = Template(done.image[cut], done.variance[cut], done.weight[cut])
    plane, bit = divmod(part.index, 31)
    inside = (done.input_map[plane][cut] >> bit & 1).astype(bool)
    louder = replace(part, variance=part.variance * np.float32(noise))
    return look(louder, own, inside, field.box, field.rules.planes, params)


def _noise(field: Field, i: int) -> float:
    """Ratio of the real noise of an epoch to its variance plane, from parts of it."""
    warp = field.warps[i]
    if not warp.box.area:
        return 1.0
    boxes = sample_boxes(warp.box, field.sample_tile(warp))
    pairs = [scaled(warp.part(i, box, field), field.rules.planes) for box in boxes]
    return noise_factor(pairs)


def _judge_all(
    found: Sequence[Candidates], template: PlaneStore, regions: Regions, params: CoaddParams
) -> Iterator[tuple[Indices, NDArray[np.void]]]:
    """Judge the candidates of all epochs together: pixels to clip, and rows of ARTIFACTS."""
    pixels = [candidates.pixels for candidates in found]
    everywhere, n_different = np.unique(np.concatenate(pixels), return_counts=True)
    n_image = values_at(template.blocks("NIMAGE"), everywhere, np.uint16)
    region = regions.at(everywhere)
    for candidates in found:
        own = np.searchsorted(everywhere, candidates.pixels)
        places = n_image[own], n_different[own], region[own]
        yield judge(candidates, *places, template.shape[1], params)


def _bright_candidates(field: Field, looks: Sequence[Look], sigma: float) -> Candidates:
    """Significant pixels of an epoch."""
    nothing = [np.zeros(0, np.int64)]
    found = (
        np.concatenate([look.positive for look in looks] or nothing),
        np.concatenate([look.negative for look in looks] or nothing),
    )
    flagged = Runs.joined([look.flagged for look in looks])
    return find_candidates(found, _MIN_AREA, flagged, field.box.shape, sigma)


def _faint_candidates(
    field: Field, i: int, seen: _Seen, template: PlaneStore, sigma: float
) -> Candidates:
    """Wide areas of an epoch whose smoothed difference is significant."""
    height, width = field.box.shape
    margin = reach(sigma)
    above: list[Indices] = [np.zeros(0, np.int64)]
    below = list(above)
    for first in range(0, height, BLOCK):
        last = min(first + BLOCK, height)
        low, high = max(first - margin, 0), min(last + margin, height)
        rows = _rows(field, i, low, high, seen, template)
        if rows is None:
            continue
        place, image, variance, own = rows
        found = np.full((high - low, width), np.nan, np.float32)
        weight = float(seen.weights[i])
        found[place] = smoothed_difference(image, variance, own, weight, sigma)
        found = found[first - low : last - low]
        above.append(np.flatnonzero(found >= _FAINT) + first * width)
        below.append(np.flatnonzero(found <= -_FAINT) + first * width)
    flagged = Runs.joined([look.flagged for look in seen.looks[i]])
    both = np.concatenate(above), np.concatenate(below)
    return find_candidates(both, 4 * np.pi * sigma**2, flagged, (height, width), sigma)


_MIN_AREA = 4.0
_FAINT = 5.0  # standard deviations of the smoothed difference


def _trails(
    field: Field,
    i: int,
    candidates: Candidates,
    rows: NDArray[np.void],
    seen: _Seen,
    template: PlaneStore,
    sigma: float,
) -> Indices:
    """Pixels of the trails that the clipped candidates of an epoch belong to."""
    shape = field.box.shape
    found = [np.zeros(0, np.int64)]
    for k in np.flatnonzero((rows["decision"] == "CLIPPED") & (rows["area"] >= MIN_AREA)):
        line = line_of(candidates.pixels[candidates.offsets[k] : candidates.offsets[k + 1]],
                       shape[1])  # fmt: skip
        if line is None:
            continue
        near, along = band(line, 2 * sigma, shape)
        first, last = extent(line, along, _significance(field, i, near, seen, template))
        pixels, along = band(line, max(5 * sigma, 3 * line.sigma), shape)
        found.append(pixels[(along >= first) & (along <= last)])
    return np.unique(np.concatenate(found))


def _significance(
    field: Field, i: int, pixels: Indices, seen: _Seen, template: PlaneStore
) -> NDArray[np.float32]:
    """Significance of the difference at ascending flat indices, NaN where it is not known.

    A trail too faint to be found was not clipped from the template either.
    """
    out = np.full(pixels.size, np.nan, np.float32)
    width = field.box.nx
    first, last = (int(p) // width for p in (pixels[0], pixels[-1]))
    for row in range(first, last + 1, BLOCK):
        end = min(row + BLOCK, last + 1)
        rows = _rows(field, i, row, end, seen, template)
        if rows is None:
            continue
        place, image, variance, own = rows
        full = np.full((end - row, width), np.nan, np.float32)
        everywhere = np.ones(image.shape, bool)
        full[place] = difference(image, variance, own, float(seen.weights[i]), everywhere)
        low, high = np.searchsorted(pixels, (row * width, end * width))
        out[low:high] = full.ravel()[pixels[low:high] - row * width]
    return out


def _rows(
    field: Field, i: int, first: int, last: int, seen: _Seen, template: PlaneStore
) -> tuple[tuple[slice, slice], NDArray[np.float32], NDArray[np.float32], Template] | None:
    """Place of an epoch in some rows, its image and variance there, and the template."""
    frame, warp = field.box, field.warps[i]
    rows = Box(frame.y0 + first, frame.x0, last - first, frame.nx)
    if not (rows & warp.box).area:
        return None
    part = warp.part(i, rows, field)
    image, variance = scaled(part, field.rules.planes)
    place = part.box.slices(rows)
    planes = (template.read(name, first, last)[place] for name in _TEMPLATE)
    return place, image, variance * np.float32(seen.noise[i]), Template(*planes)


_TEMPLATE = ("IMAGE", "VARIANCE", "WEIGHT")
