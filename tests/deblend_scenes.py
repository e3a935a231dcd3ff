"""Made-up fields of point sources for the tests of the deblender's task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from coblend.core.box import Box
from coblend.core.catalog import empty_table
from coblend.core.detection import Detections, parent_columns, peak_columns
from coblend.core.exposure import Cube, Exposure
from coblend.core.footprint import FootprintSet
from coblend.core.psf.stamp import StampPsf, normalized
from coblend.io.detect.detections import write_detections
from coblend.io.exposure.exposures import write_exposure
from coblend.io.fits.writer import create

BANDS = ("g", "r", "i")
SIGMA = 1.7
COLOUR = np.array([0.6, 1.0, 1.4])
ORIGIN = (200, 100)  # y0, x0: a mistake in the origin must not go unnoticed


@dataclass(frozen=True)
class HolePsf:
    """A Gaussian PSF that is NaN within ``radius`` of ``hole`` (y, x)."""

    hole: tuple[float, float]
    radius: float
    side: int = 21
    constant: bool = False

    def at(self, y: float, x: float) -> np.ndarray:
        return self.at_many([y], [x])[0]

    def at_many(self, y: ArrayLike, x: ArrayLike) -> np.ndarray:
        y, x = np.asarray(y, float), np.asarray(x, float)
        stamps = np.repeat(normalized(gaussian(0, 0, self.side))[None], len(y), 0)
        stamps[np.hypot(y - self.hole[0], x - self.hole[1]) < self.radius] = np.nan
        return stamps


def gaussian(dy: float, dx: float, side: int = 21) -> np.ndarray:
    r = np.arange(side) - side // 2
    return np.exp(-(((r[:, None] - dy) ** 2) + (r - dx) ** 2) / (2 * SIGMA**2)) / (
        2 * np.pi * SIGMA**2
    )


def make_scene(
    groups: Sequence[Sequence[tuple[float, float, float]]],
    shape: tuple[int, int],
    seed: int = 1,
    radius: float = 9,
    bands: tuple[str, ...] = BANDS,
) -> tuple[Cube, Detections]:
    """Stars at (y, x, flux), array coordinates; one parent per group, noise 1 in all bands."""
    rng = np.random.default_rng(seed)
    colour = COLOUR[: len(bands)]
    image = np.zeros(shape)
    for y, x, flux in (star for group in groups for star in group):
        iy, ix = round(y), round(x)
        stamp, box = flux * gaussian(y - iy, x - ix, 25), Box(iy - 12, ix - 12, 25, 25)
        common = box & Box(0, 0, *shape)
        image[common.slices(Box(0, 0, *shape))] += stamp[common.slices(box)]
    images = (colour[:, None, None] * image + rng.normal(size=(len(bands), *shape))).astype("f4")
    psf = StampPsf(gaussian(0, 0))
    cube = Cube(
        images, np.ones_like(images), np.zeros(images.shape, np.int32), bands,
        (psf,) * len(bands), Box(*ORIGIN, *shape), units=("nJy",) * len(bands),
    )  # fmt: skip
    return cube, detections_of(groups, cube, radius)


def detections_of(
    groups: Sequence[Sequence[tuple[float, float, float]]], cube: Cube, radius: float
) -> Detections:
    """Discs about all stars of a group as footprint, the stars as peaks."""
    y, x = np.mgrid[: cube.box.ny, : cube.box.nx]
    sets = []
    peaks = empty_table(peak_columns(cube.bands), sum(len(g) for g in groups))
    parents = empty_table(parent_columns(cube.bands), len(groups))
    row = 0
    for i, group in enumerate(groups):
        mask = np.zeros(cube.box.shape, bool)
        for sy, sx, _ in group:
            near = [slice(max(0, int(s - radius)), int(s + radius) + 2) for s in (sy, sx)]
            mask[*near] |= np.hypot(y[*near] - sy, x[*near] - sx) <= radius
        sets.append(FootprintSet.from_mask(mask, cube.box.y0, cube.box.x0))
        own = peaks[row : row + len(group)]
        own["y"], own["x"] = (
            [s[0] + cube.box.y0 for s in group],
            [s[1] + cube.box.x0 for s in group],
        )
        own["iy"], own["ix"] = np.rint(own["y"]), np.rint(own["x"])
        own["parent"], own["rank"] = i + 1, np.arange(len(group))
        parents["id"][i], parents["peak0"][i], parents["npeak"][i] = i + 1, row, len(group)
        row += len(group)
    peaks["id"] = np.arange(1, len(peaks) + 1)
    footprints = FootprintSet.concatenate(sets)
    parents["area"] = footprints.areas
    for name, values in zip(("y0", "x0", "ny", "nx"), footprints.boxes().T, strict=True):
        parents[f"box_{name}"] = values
    parents["nspan"] = np.diff(footprints.offsets)
    parents["span0"] = footprints.offsets[:-1]
    return Detections(cube.bands, parents, peaks, footprints, cube.box, unit="nJy")


def only(detections: Detections, rows: Sequence[int]) -> Detections:
    """The same detections without the other parents."""
    keep = np.asarray(rows)
    peaks = np.concatenate([detections.peaks_of(int(i)) for i in keep])
    parents = detections.parents[keep].copy()
    parents["peak0"] = np.cumsum(parents["npeak"]) - parents["npeak"]
    footprints = detections.footprints.select(keep)
    parents["span0"] = footprints.offsets[:-1]
    return replace(detections, parents=parents, peaks=peaks, footprints=footprints)


def save(cube: Cube, detections: Detections, folder: Path) -> list[str]:
    """Write merged.fits and one exposure per band; return the names of the latter."""
    names = []
    for b, band in enumerate(cube.bands):
        exposure = Exposure(
            cube.images[b], cube.masks[b], cube.variances[b], cube.box, cube.planes, band,
            cube.units[b], cube.psfs[b],
        )  # fmt: skip
        names.append(f"{band}.fits")
        with create(str(folder / names[-1]), "exposure/1", overwrite=True) as out:
            write_exposure(out, exposure)
    with create(str(folder / "merged.fits"), "merged/1", overwrite=True) as out:
        write_detections(out, detections)
    return names
