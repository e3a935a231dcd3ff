"""``assemble-coadd --reject compare-warp``: find artifacts in the PSF-matched warps.

They are read once, a few rows at a time; only what `faint_artifacts` and `streaks` look at is
read again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from coblend.cli.coadd_inputs import Field, room_for
from coblend.cli.coadd_stacking import stack_slabs
from coblend.cli.matched_warps import matched_warps, stamp_of
from coblend.cli.run import Run
from coblend.core.box import Box
from coblend.core.coadd.artifacts import EpochMask
from coblend.core.coadd.comparison import Epoch, EpochRows, compare_slab, find_artifacts
from coblend.core.coadd.differences import Look, Template, noise_factor, scaled
from coblend.core.coadd.plan import plan_slabs
from coblend.core.coadd.regions import Regions
from coblend.core.coadd.sparse import Runs
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
        ARTIFACTS.
    template : PlaneStore
        The template, and how many epochs can be compared with it.
    edges : Runs
        Where a PSF-matched warp has ``EDGE``: the PSF is not exact there.
    """

    epochs: list[EpochMask]
    table: NDArray[Any]
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
    epochs, edges = _look_at_all(matched, params, run, template)
    regions = Regions.of(template.read, matched.box.shape, sigma, params)
    n_image = partial(template.blocks, "NIMAGE")
    masks, table = find_artifacts(epochs, regions, n_image, sigma, params)
    for name, origin in (("x", matched.box.x0), ("y", matched.box.y0)):
        table[f"{name}0"] += origin
        table[f"{name}1"] += origin
    return Comparison(masks, table, template, edges)


_PLANES = {"IMAGE": "f4", "MASK": "i4", "VARIANCE": "f4", "NIMAGE": "i2", "WEIGHT": "f4"}


def _look_at_all(
    field: Field, params: CoaddParams, run: Run, template: PlaneStore
) -> tuple[list[Epoch], Runs]:
    """Make the template and compare all epochs with it, slab by slab."""
    n = len(field.warps)
    table = field.weigh(params)
    noise = [_noise(field, i) for i in range(n)]
    looks: list[list[Look]] = [[] for _ in range(n)]
    edges = []
    # as wide as the coadd: what the comparison of a part takes is not counted
    boxes = [replace(warp.box, x0=field.box.x0, nx=field.box.nx) for warp in field.warps]
    plan = plan_slabs(
        field.box, boxes, run.max_memory - 2 * template.n_bytes_in_memory,
        threads=run.jobs, block=field.block, input_map=True,
    )  # fmt: skip
    for done, parts in stack_slabs("compare", field, plan, table, run, input_map=True):
        found = compare_slab(parts, noise, done, field.box, field.rules.planes, params)
        for i, seen in found.looks.items():
            looks[i].append(seen)
        edges.append(found.edges)
        template.append(
            IMAGE=done.image, MASK=done.mask, VARIANCE=done.variance, NIMAGE=found.n_image,
            WEIGHT=done.weight,
        )  # fmt: skip
        del parts, done  # before the next slab is read
    epochs = [
        Epoch(field.box.shape, float(weight), own, partial(_rows, field, i, noise[i], template))
        for i, (weight, own) in enumerate(zip(table["weight"], looks, strict=True))
    ]
    return epochs, Runs.joined(edges)


def _noise(field: Field, i: int) -> float:
    """Ratio of the real noise of an epoch to its variance plane, from parts of it."""
    warp = field.warps[i]
    if not warp.box.area:
        return 1.0
    boxes = sample_boxes(warp.box, field.sample_tile(warp))
    with warp.file.opened():
        pairs = [scaled(warp.part(i, box, field), field.rules.planes) for box in boxes]
    return noise_factor(pairs)


def _rows(
    field: Field, i: int, noise: float, template: PlaneStore, first: int, last: int
) -> EpochRows | None:
    """Read some rows of an epoch and of the template."""
    frame, warp = field.box, field.warps[i]
    rows = Box(frame.y0 + first, frame.x0, last - first, frame.nx)
    if not (rows & warp.box).area:
        return None
    part = warp.part(i, rows, field)
    place = part.box.slices(rows)
    planes = (template.read(name, first, last)[place] for name in _TEMPLATE)
    return EpochRows(place, *scaled(part, field.rules.planes, noise), Template(*planes))


_TEMPLATE = ("IMAGE", "VARIANCE", "WEIGHT")
