"""``assemble-coadd --reject compare-warp``: find artifacts in the PSF-matched warps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.cli.coadd_inputs import Field, PlacedWarp, open_warps
from coblend.cli.run import Run
from coblend.core.catalog import Column
from coblend.core.coadd.artifacts import (
    ARTIFACT_COLUMNS,
    EpochMask,
    Template,
    difference,
    find_candidates,
    judge,
    noise_factor,
    protected_regions,
)
from coblend.core.coadd.plan import plan_slabs
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.stack import map_planes, stack
from coblend.core.errors import FormatError, ParameterError
from coblend.core.params.coadd import CoaddParams
from coblend.core.psf.moments import adaptive_moments

log = logging.getLogger("coblend")

_FRAME_BYTES = 96  # per pixel: template, counts and the planes of one epoch


@dataclass(frozen=True)
class Comparison:
    """What the comparison of the epochs found.

    Parameters
    ----------
    epochs : list of EpochMask
    table : structured array
        ARTIFACTS, with its columns.
    template : Template
    edges : array, shape (ny, nx), bool
        Where a PSF-matched warp has ``EDGE``: the PSF is not exact there.
    """

    epochs: list[EpochMask]
    table: NDArray[Any]
    columns: tuple[Column, ...]
    template: Template
    edges: NDArray[np.bool_]


def compare_warps(direct: Field, params: CoaddParams, run: Run) -> Comparison:
    """Compare every PSF-matched warp with their template.

    Raises
    ------
    ParameterError
        No PSF-matched warps, another number of them, or too little memory.
    FormatError
        They have no PSF.
    """
    matched = _matched(direct, params, run)
    _require_memory(matched, run)
    if len(direct.warps) < 3:
        log.warning("%d inputs: no artifact can be told from a source", len(direct.warps))
    sigma = _psf_sigma(matched.warps[0])
    template, in_template, table = _template(matched, params, run)
    shape = matched.box.shape
    n_image, n_different = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    edges = np.zeros(shape, bool)
    found, lost = [], []
    for i, image, variance, mask in _epochs(matched):
        planes = matched.rules.planes
        weight, inside = float(table["weight"][i]), in_template[i // 31] >> (i % 31) & 1 == 1
        variance *= np.float32(noise_factor(image, variance))
        significance = difference(image, variance, template, weight, inside)
        flagged = (mask & planes.value(["NO_DATA", "BAD", "SUSPECT"])) != 0
        candidates = find_candidates(significance, flagged, sigma, params)
        unusable = (mask & planes.value(["NO_DATA", "BAD", "SAT"])) != 0
        n_image += np.isfinite(significance) & ~unusable
        n_different.ravel()[candidates.pixels] += 1
        edges |= (mask & planes.value(["EDGE"])) != 0
        found.append(candidates)
        lost.append(np.isnan(image))
    regions = protected_regions(template, sigma, params)
    epochs, tables = [], []
    for i, (candidates, absent) in enumerate(zip(found, lost, strict=True)):
        pixels, rows = judge(candidates, n_image, n_different, regions, params)
        rows["input"] = i
        epochs.append(EpochMask.of(pixels, absent))
        tables.append(rows)
    artifacts = np.concatenate(tables)
    for name, origin in (("x0", matched.box.x0), ("y0", matched.box.y0)):
        artifacts[name] += origin
        artifacts[name.replace("0", "1")] += origin
    return Comparison(epochs, artifacts, ARTIFACT_COLUMNS, template, edges)


def _matched(direct: Field, params: CoaddParams, run: Run) -> Field:
    if not params.psf_matched:
        raise ParameterError(
            "compare-warp needs the PSF-matched warps",
            hint="pass --psf-matched @LIST, in the order of the warps",
        )
    files = open_warps(params.psf_matched)
    if len(files) != len(direct.warps):
        raise ParameterError(
            f"{len(files)} PSF-matched warps for {len(direct.warps)} warps; expected one for each"
        )
    field = Field.of(files, params, run, like=direct, role="psf-matched")
    for own, other in zip(field.warps, direct.warps, strict=True):
        if not (own.box & other.box).area:
            raise FormatError(
                f"does not overlap {other.file.info.path}, its partner", own.file.info.path
            )
    rules = StackRules(
        statistic="meanclip",
        sigma_clip=2.5,
        clip_iter=3,
        bad=field.rules.planes.value(["NO_DATA"]),
        planes=field.rules.planes,
    )
    return replace(field, rules=rules)


def _require_memory(field: Field, run: Run) -> None:
    n = len(field.warps)
    needed = field.box.area * (_FRAME_BYTES + 4 * map_planes(n) + n // 4 + 1)
    if needed > run.max_memory:
        raise ParameterError(
            f"max_memory is {run.max_memory >> 20} MiB; compare-warp of {n} warps of "
            f"{field.box.nx}x{field.box.ny} pixels needs {needed >> 20} MiB",
            hint=f"pass --max-memory {(needed >> 20) + 1}MiB",
        )


def _psf_sigma(warp: PlacedWarp) -> float:
    psf = warp.file.info.psf
    if psf is None:
        raise FormatError("no PSF; compare-warp needs that of the matched warps",
                          warp.file.info.path)  # fmt: skip
    box = warp.file.info.box
    return float(adaptive_moments(psf.at(box.y0 + box.ny / 2, box.x0 + box.nx / 2)).sigma[0])


def _template(
    field: Field, params: CoaddParams, run: Run
) -> tuple[Template, NDArray[np.int32], NDArray[Any]]:
    """Template, which epochs are part of it in each pixel, and the INPUTS table of the epochs."""
    table = field.weigh(params)
    n = len(field.warps)
    shape = field.box.shape
    template = Template(*(np.empty(shape, np.float32) for _ in range(3)))
    used = np.empty((map_planes(n), *shape), np.int32)
    plan = plan_slabs(field.box, n, run.max_memory, threads=run.jobs, tiles=field.tiled)
    with run.progress("template", field.box.ny) as advance:
        for box in plan.slabs():
            done = stack(
                field.parts(box, table), box, field.rules,
                n_input=n, threads=run.jobs, input_map=True,
            )  # fmt: skip
            cut = box.slices(field.box)
            template.image[cut], template.variance[cut] = done.image, done.variance
            template.weight[cut] = done.weight
            used[(slice(None), *cut)] = done.input_map
            advance(box.ny)
    return template, used, table


def _epochs(
    field: Field,
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]]:
    """Scaled image, variance and mask of each warp on the frame; NaN and 0 where it has none."""
    for i, warp in enumerate(field.warps):
        part = warp.part(i, field.box, field)
        place = part.box.slices(field.box)
        image = np.full(field.box.shape, np.nan, np.float32)
        variance = np.full(field.box.shape, np.nan, np.float32)
        mask = np.zeros(field.box.shape, np.int32)
        image[place] = part.image * part.scale
        variance[place] = part.variance * np.square(part.scale)
        if part.mask is not None:
            mask[place] = part.mask
        absent = (mask & field.rules.bad) != 0
        absent |= ~(variance > 0) | ~np.isfinite(image)
        image[absent] = np.nan
        variance[absent] = np.nan
        yield i, image, variance, mask
