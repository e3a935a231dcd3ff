"""``coblend assemble-coadd``: many warps into one coadd."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.params.coadd import CoaddParams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coblend.core.box import Box
    from coblend.core.coadd.plan import SlabPlan
    from coblend.core.coadd.rules import StackRules
    from coblend.core.coadd.samples import WarpPart
    from coblend.core.exposure import HeaderValue
    from coblend.core.psf.base import Psf
    from coblend.io.coadds import PlaneStore, WarpFile

log = logging.getLogger("coblend")
T = TypeVar("T")
R = TypeVar("R")


@command(
    "assemble-coadd",
    CoaddParams,
    examples=(
        "coblend assemble-coadd warp_*_g.fits -o coadd_g.fits",
        "coblend assemble-coadd @warps.txt -o coadd_g.fits --statistic mean --unit nJy",
    ),
)
@click.argument("warps", nargs=-1, required=True, metavar="WARP...")
def assemble_coadd(run: Run, params: CoaddParams, warps: tuple[str, ...]) -> None:
    """Combine WARPs, which share one pixel grid, into a coadd.

    A WARP is a file with IMAGE, MASK and VARIANCE, or an image with a weight map; @FILE stands
    for the files listed in FILE. Warps may cover parts of the coadd; it covers all of them.
    """
    from coblend.core.coadd.plan import plan_slabs
    from coblend.io.specs import expand_lists

    with ExitStack() as stack:
        field = _Field.of(_open(expand_lists(warps)), params, run)
        plan = plan_slabs(
            field.box, len(field.inputs), run.max_memory, threads=run.jobs, tiles=field.tiled
        )
        if run.dry_run:
            run.report(_plan_summary(field, plan))
            return
        table = field.weigh(params)
        store = stack.enter_context(field.store(os.path.dirname(os.path.abspath(run.output))))
        _fill(store, field, plan, table, run)
        psf = field.psf(table, params.psf_step)
        _write(run, params, field, table, store, psf)
        run.report(_result_summary(field, table, psf), _input_rows(table))


@dataclass
class _Input:
    """An open warp, its place on the coadd and its scale."""

    file: WarpFile
    offset: tuple[int, int]
    box: Box
    scale: float

    def part(self, index: int, box: Box, rules: StackRules, weight: float = 1.0) -> WarpPart:
        """Read the pixels of ``box`` (coadd coordinates) that the warp covers."""
        from coblend.core.coadd.samples import WarpPart

        common = self.box & box
        image, mask, variance = self.file.read(
            common.shift(-self.offset[0], -self.offset[1]), rules.planes
        )
        return WarpPart(index, common, image, mask, variance, weight, self.scale)


@dataclass
class _Field:
    """The inputs on one grid, and what they have in common."""

    inputs: list[_Input]
    box: Box
    rules: StackRules
    unit: str
    zero_point: float | None
    wcs: tuple[str, ...]

    @classmethod
    def of(cls, files: Sequence[WarpFile], params: CoaddParams, run: Run) -> _Field:
        """Check that the files belong together and place them."""
        from coblend.core.box import Box
        from coblend.core.coadd.photometry import Calibration, common_calibration
        from coblend.core.coadd.rules import StackRules
        from coblend.core.mask import MaskPlanes
        from coblend.io.coadds import offset_to, require_same_band
        from coblend.io.exposures import require_same_wcs
        from coblend.io.wcs import shift_cards

        first = files[0].info
        require_same_band([file.info for file in files])
        planes = MaskPlanes()
        inputs = []
        calibration, scales = common_calibration(
            [Calibration(f.info.unit, f.info.zero_point) for f in files],
            [f.info.path for f in files],
            params.zero_point(),
        )
        for file, scale in zip(files, scales, strict=True):
            warp = file.info
            run.add_input("warp", warp.path)
            planes = planes.union(warp.planes)
            offset = offset_to(warp, first)
            box = warp.box.shift(*offset)
            require_same_wcs(first.wcs, first.box, first.path, warp.wcs, box, warp.path)
            inputs.append(_Input(file, offset, box, scale))
        box = Box.union(entry.box for entry in inputs)
        wcs = shift_cards(first.wcs, box.y0 - first.box.y0, box.x0 - first.box.x0)
        rules = StackRules.of(params, planes)
        if len(files) < 4 and rules.clips and params.sigma_clip > 2.7:
            log.warning(
                "%d inputs: no outlier can be clipped at %g sigma with fewer than 4",
                len(files), params.sigma_clip,
            )  # fmt: skip
        return cls(inputs, box, rules, calibration.unit, calibration.zero_point, wcs)

    @property
    def tiled(self) -> bool:
        """Whether reading few rows costs as much as reading a tile of them."""
        return not all(entry.file.straight for entry in self.inputs)

    def weigh(self, params: CoaddParams) -> NDArray[Any]:
        """Make the INPUTS table with weights; warn of inputs that cannot be used."""
        import numpy as np

        from coblend.core.errors import FormatError
        from coblend.io.coadds import inputs_table

        table = inputs_table([entry.file.info for entry in self.inputs])
        for row, entry in zip(table, self.inputs, strict=True):
            variance = self._mean_variance(entry, params)
            row["scale"], row["mean_variance"] = entry.scale, variance
            row["y0"], row["x0"], row["ny"], row["nx"] = (
                entry.box.y0, entry.box.x0, entry.box.ny, entry.box.nx,
            )  # fmt: skip
            row["weight"] = 1 / variance if params.weight == "mean-variance" else 1.0
            row["used"] = np.isfinite(variance) and np.isfinite(row["weight"])
            if not row["used"]:
                row["reason"] = "EMPTY" if np.isnan(variance) else "WEIGHT"
                row["weight"] = 0.0
                log.warning("%s: left out: no usable pixel", entry.file.info.path)
        if not table["used"].any():
            raise FormatError(
                f"nothing to coadd: none of the {len(table)} inputs has a usable pixel",
                self.inputs[0].file.info.path,
            )
        return table

    def _mean_variance(self, entry: _Input, params: CoaddParams) -> float:
        import numpy as np

        from coblend.core.coadd.plan import TILE
        from coblend.core.coadd.weights import clipped_mean, sample_boxes, usable_variance

        blocks = sample_boxes(entry.box, 1 if entry.file.straight else TILE)
        for boxes in (blocks, [entry.box]) if blocks != [entry.box] else (blocks,):
            parts = [entry.part(0, box, self.rules) for box in boxes]
            usable = [
                usable_variance(part.image, part.mask, part.variance, self.rules.bad)
                for part in parts
            ]
            value = clipped_mean(np.concatenate(usable), params.sigma_clip, params.clip_iter)
            if np.isfinite(value):
                break
        return value * entry.scale**2

    def parts(self, box: Box, table: NDArray[Any]) -> list[WarpPart]:
        """Pixels of all inputs used that fall into ``box``."""
        return [
            entry.part(i, box, self.rules, float(table["weight"][i]))
            for i, entry in enumerate(self.inputs)
            if table["used"][i] and (entry.box & box).area
        ]

    def store(self, folder: str) -> PlaneStore:
        """Planes to be filled."""
        from coblend.io.coadds import PlaneStore

        dtypes = {"IMAGE": "f4", "MASK": "i4", "VARIANCE": "f4", "NIMAGE": "i2", "WEIGHT": "f4"}
        return PlaneStore(folder, dtypes, self.box.shape)

    def psf(self, table: NDArray[Any], step: int) -> Psf | None:
        """PSF of the coadd; None when an input has none."""
        from coblend.core.coadd.psf import CoaddPsf, InputPsf, tabulated

        sources = []
        for row, entry in zip(table, self.inputs, strict=True):
            if row["used"]:
                psf = entry.file.info.psf
                if psf is None:
                    log.warning("%s: no PSF, so the coadd has none", entry.file.info.path)
                    return None
                sources.append(InputPsf(psf, float(row["weight"]), entry.box, entry.offset))
        return tabulated(CoaddPsf(sources), self.box, step)


def _open(arguments: Sequence[str]) -> list[WarpFile]:
    """Read what the headers of all inputs tell; the same file twice is an error."""
    from coblend.core.errors import ParameterError
    from coblend.io.coadds import open_warp

    if not arguments:
        raise ParameterError("no warps given: the lists are empty")
    seen: dict[str, str] = {}
    for argument in arguments:
        key = os.path.realpath(argument)
        if key in seen:
            raise ParameterError(f"input {argument} is given twice")
        seen[key] = argument
    return [open_warp(argument) for argument in arguments]


def _fill(store: PlaneStore, field: _Field, plan: SlabPlan, table: NDArray[Any], run: Run) -> None:
    """Combine slab after slab; adds the pixel counts to the table."""
    from coblend.core.coadd.stack import stack

    def read(box: Box) -> tuple[Box, list[WarpPart]]:
        return box, field.parts(box, table)

    n_input = len(field.inputs)
    with run.progress("coadd", field.box.ny) as advance:
        for box, parts in _ahead(read, plan.slabs(), run.jobs):
            done = stack(parts, box, field.rules, n_input=n_input, threads=run.jobs)
            store.append(
                IMAGE=done.image, MASK=done.mask, VARIANCE=done.variance, NIMAGE=done.n_image,
                WEIGHT=done.weight,
            )  # fmt: skip
            for column, count in zip(_COUNTS, done.counts.T, strict=True):
                table[column] += count
            advance(box.ny)


_COUNTS = ("good_pixels", "clipped_pixels", "rejected_pixels")


def _ahead(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
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


def _write(
    run: Run,
    params: CoaddParams,
    field: _Field,
    table: NDArray[Any],
    store: PlaneStore,
    psf: Psf | None,
) -> None:
    from coblend.io.coadds import INPUT_COLUMNS, write_planes
    from coblend.io.psfs import write_psf

    header = _header(params, field, table, psf is not None)
    with run.create("exposure/1") as out:
        write_planes(
            out, store, field.box, field.rules.planes,
            header=header, wcs=field.wcs, compress=params.compress,
        )  # fmt: skip
        if psf is not None:
            write_psf(out, psf)
        out.table("INPUTS", table, columns=INPUT_COLUMNS)


def _header(
    params: CoaddParams, field: _Field, table: NDArray[Any], has_psf: bool
) -> dict[str, HeaderValue]:
    import numpy as np

    used = table[table["used"]]
    exposures, dates = used["exptime"], used["mjd"]
    header: dict[str, Any] = {
        "BUNIT": field.unit or None,
        "BAND": field.inputs[0].file.info.band or None,
        "MAGZERO": field.zero_point,
        "NCOMBINE": len(used),
        "EXPTIME": float(exposures.sum()) if np.isfinite(exposures).all() else None,
        "STATISTC": params.statistic.upper(),
        "CLIPLOSS": _clip_loss(table),
        "PSFEXACT": has_psf and params.statistic == "mean" and params.weight != "pixel",
        "HASPSF": has_psf,
    }
    if np.isfinite(dates).all():
        header |= {
            "MJD-BEG": float(dates.min()),
            "MJD-END": float(dates.max()),
            "MJD-AVG": float(np.average(dates, weights=used["weight"])),
        }
    return {key: value for key, value in header.items() if value is not None}


def _clip_loss(table: NDArray[Any]) -> float:
    """Fraction of the available samples that were clipped."""
    clipped, good = int(table["clipped_pixels"].sum()), int(table["good_pixels"].sum())
    return clipped / max(clipped + good, 1)


def _plan_summary(field: _Field, plan: SlabPlan) -> dict[str, Any]:
    return {
        "n_input": len(field.inputs),
        "size": f"{field.box.nx}x{field.box.ny}",
        "slab_rows": plan.rows,
        "n_slab": len(plan.slabs()),
        "memory_mib": plan.n_bytes >> 20,
    }


def _result_summary(field: _Field, table: NDArray[Any], psf: Psf | None) -> dict[str, Any]:
    return {
        "n_input": int(table["used"].sum()),
        "size": f"{field.box.nx}x{field.box.ny}",
        "clipped_fraction": round(_clip_loss(table), 6),
        "psf": "none" if psf is None else "constant" if psf.constant else "varying",
    }


def _input_rows(table: NDArray[Any]) -> list[dict[str, Any]]:
    weights = table["weight"] / table["weight"].max()
    return [
        {
            "warp": str(row["warp"]),
            "used": bool(row["used"]),
            "weight": round(float(weight), 4),
            "scale": round(float(row["scale"]), 6),
            "good": int(row["good_pixels"]),
            "clipped": int(row["clipped_pixels"]),
            "rejected": int(row["rejected_pixels"]),
        }
        for row, weight in zip(table, weights, strict=True)
    ]
