"""A whole patch through ``coblend deblend``: flags, bytes, time and resident set.

    python benchmarks/patch.py FOLDER [--size 2000] [--seed 20]

Makes five bands of a field with a parent of hundreds of stars, one whose box is beyond the limit,
and a PSF that is NaN at one node of its lattice, where a parent of several peaks is; deblends it
with one worker and with two, and once more without the parents that failed. Prints what became of
the parents.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from field import BANDS, NOISE, SEEING, _psf, detect, make_field

from coblend.core.detection import Detections
from coblend.core.exposure import Exposure
from coblend.core.model import FLAGS
from coblend.core.psf.grid import GridPsf
from coblend.io.deblend.models import read_models
from coblend.io.detect.detections import read_detections, write_detections
from coblend.io.exposure.exposures import write_exposure
from coblend.io.fits.writer import create

N_STAR = 2600
STEP = 64
"""Distance of the PSF's nodes (pixel)."""


def write_patch(folder: Path, size: int, seed: int) -> None:
    """Exposures with a hole in their PSF, and merged.fits."""
    field = make_field(size, seed=seed)
    cube, rng = field.cube, np.random.default_rng(seed + 1)
    images = cube.images.copy()
    radius, angle = 0.13 * size * np.sqrt(rng.uniform(size=N_STAR)), rng.uniform(size=N_STAR)
    y = 0.8 * size + radius * np.sin(2 * np.pi * angle)
    x = 0.8 * size + radius * np.cos(2 * np.pi * angle)
    flux = 500 * rng.uniform(size=N_STAR) ** -0.8
    for b, fwhm in enumerate(SEEING):
        psf = _psf(fwhm)
        half = len(psf) // 2
        for sy, sx, f in zip(np.rint(y).astype(int), np.rint(x).astype(int), flux, strict=True):
            images[b, sy - half : sy + half + 1, sx - half : sx + half + 1] += NOISE[b] * f * psf
        arm = int(0.75 * size)
        spike = 8 * NOISE[b] * np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
        images[b, 36:45, 20 : 20 + arm] += spike[:, None]
        images[b, 20 : 20 + arm, 36:45] += spike
    cube = replace(cube, images=images)
    detections = detect(cube)
    nodes = np.arange(0.0, size + STEP, STEP)
    boxes = detections.footprints.boxes()
    middle = (boxes[:, :2] + (boxes[:, 2:] - 1) / 2) / STEP
    several = (detections.parents["npeak"] > 1) & (detections.parents["npeak"] < 20)
    distance = np.where(several, np.hypot(*(middle - np.rint(middle)).T), np.inf)
    hole = tuple(np.rint(middle[distance.argmin()]).astype(int))
    write_merged(folder / "merged.fits", detections)
    for b, band in enumerate(cube.bands):
        stamps = np.tile(_psf(SEEING[b]), (len(nodes), len(nodes), 1, 1))
        stamps[hole] = np.nan
        exposure = Exposure(
            cube.images[b], cube.masks[b], cube.variances[b], cube.box, cube.planes, band, "nJy",
            GridPsf(stamps, nodes, nodes),
        )  # fmt: skip
        with create(str(folder / f"{band}.fits"), "exposure/1", overwrite=True) as out:
            write_exposure(out, exposure)
    print(f"{len(detections)} parents, {len(detections.peaks)} peaks")


def write_merged(path: Path, detections: Detections) -> None:
    """Write detections, with the rows of their tables counted anew."""
    parents = detections.parents
    parents["span0"] = detections.footprints.offsets[:-1]
    parents["nspan"] = np.diff(detections.footprints.offsets)
    parents["peak0"] = np.cumsum(parents["npeak"]) - parents["npeak"]
    with create(str(path), "merged/1", overwrite=True) as out:
        write_detections(out, detections)


def without(detections: Detections, parents: np.ndarray) -> Detections:
    """Return detections without some parents, by identifier."""
    keep = np.flatnonzero(~np.isin(detections.parents["id"], parents))
    return replace(
        detections, parents=detections.parents[keep].copy(),
        peaks=detections.peaks[~np.isin(detections.peaks["parent"], parents)],
        footprints=detections.footprints.select(keep),
    )  # fmt: skip


def deblend(folder: Path, merged: str, jobs: int) -> Path:
    """Run the command; print time and resident set."""
    output = folder / f"{merged}_{jobs}.fits"
    exposures = [str(folder / f"{band}.fits") for band in BANDS]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "coblend", "deblend", str(folder / f"{merged}.fits"), *exposures,
         "-o", str(output), "-j", str(jobs), "--overwrite", "--json", "--set", "max_failed=0.1"],
        capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
    )  # fmt: skip
    seconds = time.perf_counter() - start
    print(f"{merged}, {jobs} workers: {seconds:.1f} s, exit {done.returncode}")
    print(done.stdout, done.stderr)
    return output


def main() -> None:
    """Make the patch, deblend it three times, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True, parents=True)
    # in a process of its own: a child's peak resident set starts from that of its parent
    maker = multiprocessing.get_context("spawn").Process(
        target=write_patch, args=(args.folder, args.size, args.seed)
    )
    maker.start()
    maker.join()
    one, two = (deblend(args.folder, "merged", jobs) for jobs in (1, 2))
    print("same bytes for 1 and 2 workers:", one.read_bytes() == two.read_bytes())
    models = read_models(str(one))
    flags = models.parents["flags"]
    for name, bit in FLAGS.items():
        print(f"  {name}: {np.count_nonzero(flags & bit)}")
    failed = (flags & FLAGS["failed"]) != 0
    print("errors:", np.unique(models.parents["error"][failed], return_counts=True))
    lost = models.parents["id"][failed]
    sound = without(read_detections(str(args.folder / "merged.fits")), lost)
    write_merged(args.folder / "sound.fits", sound)
    again = read_models(str(deblend(args.folder, "sound", 2)))
    kept = models.objects[~np.isin(models.objects["parent"], lost)]
    same = [
        kept[name].tobytes() == again.objects[name].tobytes()
        for name in ("peak_id", "flags", "chi2", *(f"model_flux_{band}" for band in BANDS))
    ]
    print("all others as in a run without those that failed:", all(same))
    images = 5 * args.size**2 * (4 + 4 + 4) / 2**20
    print(f"images, variances and masks: {images:.0f} MiB")


if __name__ == "__main__":
    main()
