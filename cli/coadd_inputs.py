"""The inputs of a coadd, checked and placed on one grid."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
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
from coblend.core.errors import FormatError, ParameterError, concerning
from coblend.core.mask import MaskPlanes
from coblend.core.params.coadd import CoaddParams
from coblend.core.psf.coadd import InputPsf
from coblend.io.coadd.coadds import PlaneStore, inputs_table
from coblend.io.coadd.grid import Grid, offset_to, read_grid
from coblend.io.coadd.inputs import Listed
from coblend.io.coadd.warps import WarpFile, open_warp, require_same_band
from coblend.io.exposure.checks import require_same_wcs
from coblend.io.fits.specs import parse_band_spec
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
            scale = self.variation.at(common, self.scale)
        return WarpPart(index, common, image, mask, variance, weight, scale)

    def artifacts(self, field: Field) -> Iterator[NDArray[np.int32]]:
        """Mask of what the comparison found, on the pixels of the coadd, some rows at a time."""
        rows, columns = (slice(0, n) for n in field.box.shape)
        for first in range(0, rows.stop, TILE):
            block = slice(first, min(first + TILE, rows.stop))
            if self.epoch is not None:
                yield self.epoch.apply(None, block, columns, field.rules.planes, 0)


@dataclass(frozen=True)
class Field:
    """Warps on one grid, and what they have in common."""

    warps: tuple[PlacedWarp, ...]
    grid: Grid
    rules: StackRules
    calibration: Calibration

    @property
    def box(self) -> Box:
        """Pixels of the coadd."""
        return self.grid.box

    @property
    def wcs(self) -> tuple[str, ...]:
        """Celestial WCS, array coordinates."""
        return self.grid.wcs

    @classmethod
    def of(cls, files: Sequence[WarpFile], params: CoaddParams, run: Run) -> Field:
        """Check that the files belong together and place them; ``--like`` gives the grid."""
        first = files[0].info.grid
        if params.like:
            first = read_grid(params.like)
            run.add_input("grid", first.path)
        require_same_band([file.info for file in files])
        planes = MaskPlanes()
        for file in files:
            planes = planes.union(file.info.planes)
        calibration, warps = _placed(files, first, params, params.zero_point())
        box = first.box if params.like else Box.union(warp.box for warp in warps)
        offset = box.y0 - first.box.y0, box.x0 - first.box.x0
        grid = Grid(first.path, box, shift_cards(first.wcs, *offset), first.framed)
        for warp in warps:
            _add_files(run, "warp", warp.file)
        warps = tuple(replace(warp, box=warp.box & box) for warp in warps)
        return cls(warps, grid, StackRules.of(params, planes), calibration)

    def partners(self, files: Sequence[WarpFile], params: CoaddParams, run: Run) -> Field:
        """Place other files, one for each warp, on the same grid and scale."""
        require_same_band([*(warp.file.info for warp in self.warps), *(f.info for f in files)])
        planes = self.rules.planes
        for file in files:
            _add_files(run, "psf-matched", file)
            planes = planes.union(file.info.planes)
        calibration, warps = _placed(files, self.grid, params, self.calibration.zero_point)
        warps = tuple(replace(warp, box=warp.box & self.box) for warp in warps)
        return Field(warps, self.grid, StackRules.of(params, planes), calibration)

    @property
    def gzipped(self) -> bool:
        """Whether a few rows of some warp cost as much as all."""
        return any(warp.file.whole for warp in self.warps)

    @property
    def block(self) -> int:
        """Rows that cost no more to read than one."""
        if self.gzipped:
            return self.box.ny
        return 1 if all(warp.file.straight for warp in self.warps) else TILE

    @staticmethod
    def sample_tile(warp: PlacedWarp) -> int:
        """Side of the square parts that a sample of a warp is read in; 1: rows."""
        return 1 if warp.file.straight else TILE

    def with_epochs(self, epochs: Sequence[EpochMask]) -> Field:
        """Return the field with the masks changed by a comparison."""
        pairs = zip(self.warps, epochs, strict=True)
        return replace(self, warps=tuple(replace(w, epoch=epoch) for w, epoch in pairs))

    def table(self) -> NDArray[Any]:
        """Make the INPUTS table; weights are for `weigh` to find."""
        table = inputs_table([warp.file.info for warp in self.warps])
        for row, warp in zip(table, self.warps, strict=True):
            box = warp.box
            row["scale"], (row["dy"], row["dx"]) = warp.scale, warp.offset
            row["y0"], row["x0"], row["ny"], row["nx"] = box.y0, box.x0, box.ny, box.nx
        return table

    def weigh(self, params: CoaddParams) -> NDArray[Any]:
        """Make the INPUTS table with weights; warn of warps that cannot be used."""
        table = self.table()
        for i, warp in enumerate(self.warps):
            with warp.file.opened():
                self.weigh_one(table[i], warp, params, partial(warp.part, i, field=self))
        self.require_some(table)
        return table

    def weigh_one(
        self, row: Any, warp: PlacedWarp, params: CoaddParams, read: Callable[[Box], WarpPart]
    ) -> None:
        """Fill the weight of a row of INPUTS; ``read`` gives pixels of the warp."""
        variance = self._mean_variance(warp, params, read) if warp.box.area else np.nan
        row["mean_variance"], row["weight"] = variance, _weight(warp, variance, params)
        row["used"] = np.isfinite(variance) and 0 < row["weight"] < np.inf
        if not row["used"]:
            reason = "WEIGHT" if np.isfinite(variance) else "EMPTY"
            row["reason"] = reason if warp.box.area else "NOOVERLAP"
            row["weight"] = 0.0
            log.warning("%s: left out: %s", warp.file.info.path, _REASONS[row["reason"]])

    def require_some(self, table: NDArray[Any]) -> None:
        """Refuse to make a coadd of nothing.

        Raises
        ------
        FormatError
            When no warp can be used.
        """
        if not table["used"].any():
            raise FormatError(
                f"nothing to coadd: none of the {len(table)} inputs has a usable pixel",
                self.warps[0].file.info.path,
            )

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

    def _mean_variance(
        self, warp: PlacedWarp, params: CoaddParams, read: Callable[[Box], WarpPart]
    ) -> float:
        value = float("nan")
        for boxes in (sample_boxes(warp.box, self.sample_tile(warp)), [warp.box]):
            usable = [usable_variance(read(box), self.rules.bad) for box in boxes]
            value = clipped_mean(np.concatenate(usable), params.sigma_clip, params.clip_iter)
            if np.isfinite(value) or boxes == [warp.box]:
                break
        return value


_REASONS = {
    "EMPTY": "no usable pixel",
    "WEIGHT": "its weight is zero or not finite",
    "NOOVERLAP": "does not overlap the coadd",
}


def _weight(warp: PlacedWarp, variance: float, params: CoaddParams) -> float:
    if params.weight == "mean-variance":
        return 1 / variance
    if params.weight == "column":
        return float(warp.file.info.weight or 0)
    return 1.0


def _placed(
    files: Sequence[WarpFile], grid: Grid, params: CoaddParams, zero_point: float | None
) -> tuple[Calibration, tuple[PlacedWarp, ...]]:
    """Place files on a grid and scale them; a scale of a table of inputs needs no zero point."""
    given = [file.info.scale for file in files]
    rest = [file for file, scale in zip(files, given, strict=True) if scale is None]
    calibration, scales = Calibration(files[0].info.unit, zero_point), iter([1.0])
    if rest:
        calibration, found = common_calibration(
            [Calibration(f.info.unit, f.info.zero_point) for f in rest],
            [f.info.path for f in rest],
            zero_point,
        )
        scales = iter(found)
    warps = []
    for file, factor in zip(files, given, strict=True):
        info = file.info
        offset = offset_to(info.grid, grid)
        box = info.box.shift(*offset)
        require_same_wcs(grid.wcs, grid.box, grid.path, info.wcs, box, info.path)
        scale = next(scales) if factor is None else factor
        field = _variation(file, offset, box, params.zp_interp)
        warps.append(PlacedWarp(file, offset, box, scale, variation=field))
    return calibration, tuple(warps)


def _add_files(run: Run, role: str, file: WarpFile) -> None:
    """Record the files of a warp as inputs."""
    for path in file.paths:
        run.add_input(role if path == file.info.path else "plane", path)


def _variation(
    file: WarpFile, offset: tuple[int, int], box: Box, interpolation: str
) -> ScaleField | None:
    """Return the scale that varies over a warp, from its table ZPGRID."""
    scales = file.info.scales
    if scales is None:
        return None
    with concerning(file.info.path, "ZPGRID"):
        return scale_field(
            scales[0] + offset[0], scales[1] + offset[1], scales[2], box, interpolation
        )


def open_warps(listed: Sequence[Listed]) -> list[WarpFile]:
    """Read what the headers of all inputs tell.

    Raises
    ------
    ParameterError
        There is none, or one is given twice.
    """
    if not listed:
        raise ParameterError("no warps given: the lists are empty")
    seen: set[tuple[Any, ...]] = set()
    for entry in listed:
        _, spec = parse_band_spec(entry.file)
        key = os.path.realpath(spec.path), spec.hdu, spec.version, spec.section
        if key in seen:
            raise ParameterError(f"input {entry.file} is given twice")
        seen.add(key)
    return [open_warp(entry) for entry in listed]


def require_weights(listed: Sequence[Listed], params: CoaddParams) -> None:
    """Refuse ``--weight column`` when the weight of an input is not given."""
    missing = [entry.file for entry in listed if entry.weight is None]
    if params.weight == "column" and missing:
        raise ParameterError(
            f"no weight given for {missing[0]}",
            hint="list the inputs in a table with columns file and weight: @TABLE",
        )


def room_for(run: Run, dtypes: Mapping[str, str], shape: tuple[int, int]) -> PlaneStore:
    """Room for planes: in memory if they need less than a quarter of it, else on disk."""
    n_bytes = shape[0] * shape[1] * sum(np.dtype(dtype).itemsize for dtype in dtypes.values())
    folder = None if 4 * n_bytes < run.max_memory else os.path.dirname(os.path.abspath(run.output))
    return PlaneStore(folder, dtypes, shape)


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
