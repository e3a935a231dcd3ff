"""The inputs of a coadd, checked and placed on one grid."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coblend.cli.run import Run
from coblend.core.box import Box
from coblend.core.coadd.photometry import Calibration, common_calibration
from coblend.core.coadd.plan import TILE
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import WarpPart
from coblend.core.coadd.scalefield import ScaleField, scale_field
from coblend.core.coadd.weights import clipped_mean, sample_boxes, usable_variance
from coblend.core.errors import FormatError, ParameterError
from coblend.core.mask import MaskPlanes
from coblend.core.params.coadd import CoaddParams
from coblend.core.psf.coadd import InputPsf
from coblend.io.coadd.coadds import inputs_table
from coblend.io.coadd.warps import WarpFile, offset_to, open_warp, require_same_band
from coblend.io.exposure.checks import require_same_wcs
from coblend.io.fits.specs import expand_lists
from coblend.io.sky.wcs import shift_cards

if TYPE_CHECKING:
    from coblend.core.coadd.artifacts import EpochMask

log = logging.getLogger("coblend")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class PlacedWarp:
    """A warp, its place on the coadd, its scale and what a comparison found in it."""

    file: WarpFile
    offset: tuple[int, int]
    box: Box
    scale: float
    epoch: EpochMask | None = None
    variation: ScaleField | None = None

    def part(self, index: int, box: Box, field: Field, weight: float = 1.0) -> WarpPart:
        """Read the pixels of ``box`` (coadd coordinates) that the warp covers."""
        common = self.box & box
        planes = field.rules.planes
        image, mask, variance = self.file.read(
            common.shift(-self.offset[0], -self.offset[1]), planes
        )
        if self.epoch is not None:
            place = common.slices(field.box)
            mask = self.epoch.apply(mask, *place, planes, field.rules.bad)
        scale: float | NDArray[np.float32] = self.scale
        if self.variation is not None:
            scale = self.variation.at(common) * np.float32(self.scale)
        return WarpPart(index, common, image, mask, variance, weight, scale)


@dataclass(frozen=True)
class Field:
    """Warps on one grid, and what they have in common."""

    warps: tuple[PlacedWarp, ...]
    box: Box
    rules: StackRules
    calibration: Calibration
    wcs: tuple[str, ...]

    @classmethod
    def of(
        cls,
        files: Sequence[WarpFile],
        params: CoaddParams,
        run: Run,
        *,
        like: Field | None = None,
        role: str = "warp",
    ) -> Field:
        """Check that the files belong together, and with ``like``, and place them."""
        run_first = files[0].info
        first = run_first if like is None else like.warps[0].file.info
        require_same_band([first, *(file.info for file in files)])
        calibration, scales = common_calibration(
            [Calibration(f.info.unit, f.info.zero_point) for f in files],
            [f.info.path for f in files],
            params.zero_point() if like is None else like.calibration.zero_point,
        )
        planes = MaskPlanes() if like is None else like.rules.planes
        warps = []
        for file, scale in zip(files, scales, strict=True):
            warp = file.info
            run.add_input(role, warp.path)
            planes = planes.union(warp.planes)
            offset = offset_to(warp, first)
            box = warp.box.shift(*offset)
            require_same_wcs(first.wcs, first.box, first.path, warp.wcs, box, warp.path)
            field = _variation(file, offset, box, params.zp_interp)
            warps.append(PlacedWarp(file, offset, box, scale, variation=field))
        box = Box.union(warp.box for warp in warps) if like is None else like.box
        wcs = shift_cards(first.wcs, box.y0 - first.box.y0, box.x0 - first.box.x0)
        return cls(tuple(warps), box, StackRules.of(params, planes), calibration, wcs)

    @property
    def tiled(self) -> bool:
        """Whether reading few rows costs as much as reading a tile of them."""
        return not all(warp.file.straight for warp in self.warps)

    def with_epochs(self, epochs: Sequence[EpochMask]) -> Field:
        """Return the field with the masks changed by a comparison."""
        pairs = zip(self.warps, epochs, strict=True)
        return replace(self, warps=tuple(replace(w, epoch=epoch) for w, epoch in pairs))

    def weigh(self, params: CoaddParams) -> NDArray[Any]:
        """Make the INPUTS table with weights; warn of warps that cannot be used.

        Raises
        ------
        FormatError
            When none can be used.
        """
        table = inputs_table([warp.file.info for warp in self.warps])
        for row, warp in zip(table, self.warps, strict=True):
            variance = self._mean_variance(warp, params)
            row["scale"], row["mean_variance"] = warp.scale, variance
            box = warp.box
            row["dy"], row["dx"] = warp.offset
            row["y0"], row["x0"], row["ny"], row["nx"] = box.y0, box.x0, box.ny, box.nx
            row["weight"] = 1 / variance if params.weight == "mean-variance" else 1.0
            row["used"] = np.isfinite(variance) and np.isfinite(row["weight"])
            if not row["used"]:
                row["reason"] = "EMPTY" if np.isnan(variance) else "WEIGHT"
                row["weight"] = 0.0
                log.warning("%s: left out: no usable pixel", warp.file.info.path)
        if not table["used"].any():
            raise FormatError(
                f"nothing to coadd: none of the {len(table)} inputs has a usable pixel",
                self.warps[0].file.info.path,
            )
        return table

    def parts(self, box: Box, table: NDArray[Any]) -> list[WarpPart]:
        """Pixels of all warps used that fall into ``box``."""
        return [
            warp.part(i, box, self, float(table["weight"][i]))
            for i, warp in enumerate(self.warps)
            if table["used"][i] and (warp.box & box).area
        ]

    def psfs(self, table: NDArray[Any]) -> list[InputPsf]:
        """PSFs, weights and outlines of the warps used; empty when one has no PSF."""
        sources = []
        for row, warp in zip(table, self.warps, strict=True):
            info = warp.file.info
            if row["used"] and info.psf is None:
                log.warning("%s: no PSF, so the coadd has none", info.path)
                return []
            if row["used"] and info.psf is not None:
                outline = info.polygon
                if outline is not None:
                    outline = outline + np.array(warp.offset)[:, None]
                sources.append(
                    InputPsf(info.psf, float(row["weight"]), warp.box, warp.offset, outline)
                )
        return sources

    def _mean_variance(self, warp: PlacedWarp, params: CoaddParams) -> float:
        blocks = sample_boxes(warp.box, 1 if warp.file.straight else TILE)
        value = float("nan")
        for boxes in (blocks, [warp.box]):
            parts = [warp.part(0, box, self) for box in boxes]
            usable = [
                usable_variance(
                    part.image, part.mask, part.variance * np.square(part.scale), self.rules.bad
                )
                for part in parts
            ]
            value = clipped_mean(np.concatenate(usable), params.sigma_clip, params.clip_iter)
            if np.isfinite(value) or blocks == [warp.box]:
                break
        return value


def _variation(
    file: WarpFile, offset: tuple[int, int], box: Box, interpolation: str
) -> ScaleField | None:
    """Return the scale that varies over a warp, from its table ZPGRID."""
    scales = file.info.scales
    if scales is None:
        return None
    try:
        return scale_field(
            scales[0] + offset[0], scales[1] + offset[1], scales[2], box, interpolation
        )
    except FormatError as error:
        raise FormatError(error.message, file.info.path, "ZPGRID") from error


def open_warps(arguments: Iterable[str]) -> list[WarpFile]:
    """Read what the headers of all inputs tell; lists are expanded.

    Raises
    ------
    ParameterError
        There is none, or one is given twice.
    """
    arguments = expand_lists(arguments)
    if not arguments:
        raise ParameterError("no warps given: the lists are empty")
    seen: set[str] = set()
    for argument in arguments:
        key = os.path.realpath(argument)
        if key in seen:
            raise ParameterError(f"input {argument} is given twice")
        seen.add(key)
    return [open_warp(argument) for argument in arguments]


def read_ahead(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """Apply ``function``, with several jobs one item ahead in a thread."""
    if jobs == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for item in items:
            coming = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
