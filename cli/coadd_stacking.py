"""From the pixels of the warps to the planes of the coadd, slab by slab or input by input."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.cli.coadd_inputs import Field, read_ahead
from coblend.cli.run import Run
from coblend.core.box import Box
from coblend.core.coadd.plan import PROGRAM_BYTES, SlabPlan, plan_slabs
from coblend.core.coadd.running import RunningMean
from coblend.core.coadd.samples import WarpPart
from coblend.core.coadd.stack import Stacked, stack
from coblend.core.params.coadd import CoaddParams
from coblend.io.coadd.coadds import PlaneStore, input_map_names

Mark = tuple[int, Callable[[Box], NDArray[np.bool_]]]

log = logging.getLogger("coblend")

_COUNTS = ("good_pixels", "clipped_pixels", "rejected_pixels")


def keep_freed_pages() -> None:
    """Let the C library reuse the memory of freed arrays instead of giving it back each time.

    Freeing an array of 30 MB, which is never touched, raises glibc's thresholds; fresh pages for
    every slab would cost as much as combining it.
    """
    np.empty(30 << 20, np.uint8)


def plan_coadd(field: Field, params: CoaddParams, run: Run, n_bytes: int) -> tuple[SlabPlan, bool]:
    """Slabs of the coadd, and whether every file is read once instead.

    Files that are gzipped as a whole are unpacked for the weights and for each slab, unless they
    are read once.
    """
    slabs = partial(
        plan_slabs, field.box, [warp.box for warp in field.warps],
        threads=run.jobs, block=field.block, input_map=params.input_map,
    )  # fmt: skip
    plan = slabs(run.max_memory - n_bytes)
    plan = replace(plan, n_bytes=plan.n_bytes + n_bytes)
    if not field.gzipped:
        return plan, False
    once = field.rules.statistic == "mean"
    needed = n_bytes + slabs(sys.maxsize).n_bytes
    if once:
        needed = PROGRAM_BYTES + n_bytes + RunningMean.n_bytes(
            field.box, field.rules, len(field.warps), input_map=params.input_map
        )  # fmt: skip
    if needed <= run.max_memory:
        return replace(plan, n_bytes=needed), once
    log.warning(
        "gzipped files are unpacked %d times; with --max-memory %dMiB, %s",
        len(plan.slabs()) + 1, -(-needed // 2**20), "once" if once else "twice",
    )  # fmt: skip
    return plan, False


def fill(store: PlaneStore, parts: Iterable[Stacked], marks: Sequence[Mark]) -> bool:
    """Store slab after slab; returns whether some pixel lacks data."""
    gaps = False
    for done in parts:
        for bits, where in marks:
            done.mask[where(done.box)] |= bits
        store.append(
            IMAGE=done.image, MASK=done.mask, VARIANCE=done.variance, NIMAGE=done.n_image,
            WEIGHT=done.weight,
            **dict(zip(input_map_names(len(done.input_map)), done.input_map, strict=True)),
        )  # fmt: skip
        gaps |= not done.n_image.all()
    return gaps


def by_slabs(
    field: Field, plan: SlabPlan, table: NDArray[Any], params: CoaddParams, run: Run
) -> Iterator[Stacked]:
    """Combine slab after slab."""
    for done, parts in stack_slabs("coadd", field, plan, table, run, input_map=params.input_map):
        _count(table, done)
        yield done
        del parts, done  # before the next slab is read


def stack_slabs(
    title: str, field: Field, plan: SlabPlan, table: NDArray[Any], run: Run, *, input_map: bool
) -> Iterator[tuple[Stacked, list[WarpPart]]]:
    """Combine slab after slab; yields what it was combined from as well."""

    def read(box: Box) -> tuple[Box, list[WarpPart]]:
        return box, field.parts(box, table)

    with run.progress(title, field.box.ny) as advance:
        for box, parts in read_ahead(read, plan.slabs(), run.jobs):
            done = stack(
                parts, box, field.rules,
                n_input=len(field.warps), threads=run.jobs, input_map=input_map,
            )  # fmt: skip
            yield done, parts
            advance(box.ny)
            del parts, done  # before the next slab is read


def by_inputs(
    field: Field, plan: SlabPlan, table: NDArray[Any], params: CoaddParams, run: Run
) -> Iterator[Stacked]:
    """Read every file once, weigh it and add it to the mean; then yield slab after slab."""
    mean = RunningMean(
        field.box, field.rules, len(field.warps), input_map=params.input_map
    )  # fmt: skip
    with run.progress("coadd", len(field.warps)) as advance:
        for i, warp in enumerate(field.warps):
            if warp.box.area:
                part = warp.part(i, warp.box, field)
                field.weigh_one(table[i], warp, params, part.cut)
            if table["used"][i]:
                mean.add(replace(part, weight=float(table["weight"][i])))
            advance(1)
    field.require_some(table)
    for box in plan.slabs():
        done = mean.result(box)
        yield done
    _count(table, done)


def _count(table: NDArray[Any], done: Stacked) -> None:
    for column, count in zip(_COUNTS, done.counts.T, strict=True):
        table[column] += count
