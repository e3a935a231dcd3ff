"""A globular cluster from images to fluxes: detection, point sources, what the residual adds.

    python benchmarks/cluster.py FOLDER [--stars 14000] [--size 1150] [--rounds 2]

Three bands of stars in one place, most of them too close to another to be detected at once. They
are detected, merged, fitted as point sources (``--crowded psf``), and in every round the peaks
that ``refit --suggest-peaks`` finds in the residual of the largest parent are added. Prints the
fluxes of the stars that were found against the truth: of all, and of those without a star in
their PSF's width that was not.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from field import PSF_SIDE, _psf
from scipy.spatial import cKDTree

from coblend.core.box import Box
from coblend.core.deblend.point import shifted_stamps
from coblend.core.exposure import Exposure
from coblend.core.mask import STANDARD
from coblend.core.psf.stamp import StampPsf
from coblend.io.deblend.models import read_models
from coblend.io.exposure.exposures import write_exposure
from coblend.io.fits.writer import create

BANDS, COLOUR, FWHM = ("g", "r", "i"), (0.6, 1.0, 1.4), 4.0
FAINTEST, BRIGHTEST, SLOPE = 100.0, 1e5, 1.2
SAME = 1.5
"""A peak within this of a star is the star (pixel)."""


def make_cluster(n: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places ``y, x`` and fluxes of the stars, in units of the noise."""
    rng = np.random.default_rng(seed)
    radius, angle = np.abs(rng.normal(0, size / 4.2, n)), rng.uniform(0, 2 * np.pi, n)
    place = size / 2 + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    place = place[((place > PSF_SIDE) & (place < size - PSF_SIDE)).all(1)]
    flux = FAINTEST * rng.uniform(0, 1, len(place)) ** (-1 / SLOPE)
    return place, np.minimum(flux, BRIGHTEST)


def write_exposures(folder: Path, place: np.ndarray, flux: np.ndarray, size: int) -> list[str]:
    """One exposure per band, noise 1."""
    psf, half, rng = _psf(FWHM), PSF_SIDE // 2, np.random.default_rng(2)
    pixel = np.rint(place).astype(int)
    image = np.zeros((size, size))
    for (y, x), (dy, dx), f in zip(pixel, place - pixel, flux, strict=True):
        stamp = shifted_stamps(psf, np.array(dy), np.array(dx))
        image[y - half : y + half + 1, x - half : x + half + 1] += f * stamp
    names = []
    for band, colour in zip(BANDS, COLOUR, strict=True):
        data = (colour * image + rng.normal(size=image.shape)).astype(np.float32)
        exposure = Exposure(
            data, np.zeros(data.shape, np.int32), np.ones_like(data), Box(0, 0, size, size),
            STANDARD, band, "nJy", StampPsf(psf),
        )  # fmt: skip
        names.append(str(folder / f"{band}.fits"))
        with create(names[-1], "exposure/1", overwrite=True) as out:
            write_exposure(out, exposure)
    return names


def run(command: str, *arguments: str) -> None:
    """Run coblend; print CPU time and, of the largest run so far, the resident set."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "coblend", command, *arguments, "--overwrite", "-q"],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{command}: {seconds:.1f} s, {after.ru_maxrss / 1024:.0f} MiB")


def judge(path: str, place: np.ndarray, flux: np.ndarray) -> int:
    """Print fluxes against the truth in the parent of most peaks; return the id of its blend."""
    models = read_models(path)
    row = int(models.parents["n_peak"].argmax())
    parent = models.parents[row]
    objects = models.objects[models.objects["parent"] == parent["id"]]
    owner = _stars_of(np.stack([objects["y"], objects["x"]], 1), place, flux)
    missed = np.setdiff1d(np.arange(len(flux)), owner)
    near = cKDTree(place[missed]).query(place[owner])[0] < FWHM
    print(f"  {parent['n_peak']} peaks in one parent of {parent['ny']} x {parent['nx']} pixels, "
          f"chi2 {parent['chi2']:.1f}")  # fmt: skip
    for band, colour in zip(BANDS, COLOUR, strict=True):
        found = objects[f"model_flux_{band}"].astype(float)
        error = objects[f"model_flux_err_{band}"].astype(float)
        truth = np.where(owner >= 0, colour * flux[owner], np.nan)
        texts = []
        for low, high in ((20, 40), (40, 100), (100, np.inf)):
            part = (truth / error > low) & (truth / error <= high)
            bias = [100 * np.median((found / truth)[q] - 1) for q in (part, part & ~near)]
            texts.append(
                f"{part.sum():5d} {bias[0]:+.1f} | {(part & ~near).sum():4d} {bias[1]:+.1f}"
            )
        print(f"  {band}, S/N 20-40, 40-100, more: " + ",   ".join(texts) + " %")
    return int(models.blends["id"][models.blends["parent"] == row][0])


def _stars_of(peaks: np.ndarray, place: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Star of every peak, the brightest first to choose the nearest; -1: none."""
    tree, owner = cKDTree(peaks), np.full(len(peaks), -1)
    for star in np.argsort(-flux):
        near = [i for i in tree.query_ball_point(place[star], SAME) if owner[i] < 0]
        if near:
            owner[min(near, key=lambda i: np.hypot(*(peaks[i] - place[star])))] = star
    return owner


def main() -> None:
    """Make the cluster, fit it, add what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stars", type=int, default=14000)
    parser.add_argument("--size", type=int, default=1150)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True, parents=True)
    place, flux = make_cluster(args.stars, args.size, args.seed)
    names = write_exposures(args.folder, place, flux, args.size)
    merged, models, peaks = (str(args.folder / f"{n}.fits") for n in ("merged", "0", "peaks"))
    found = [name.replace(".fits", ".det.fits") for name in names]
    for name, detections in zip(names, found, strict=True):
        run("detect", name, "-o", detections, "--peak-scales", "1,0.6")
    run("merge-detections", *found, "-o", merged, "--min-new-peak", "1.5px", "--max-same-peak",
        "1.2px")  # fmt: skip
    run("deblend", merged, *names, "-o", models, "--crowded", "psf")
    for number in range(1, args.rounds + 1):
        blend = judge(models, place, flux)
        run("refit", models, *names, "-o", peaks, "--blend", str(blend), "--suggest-peaks",
            "--set", "suggest_distance=2")  # fmt: skip
        new = str(args.folder / f"{number}.fits")
        run("refit", models, *names, "-o", new, "--add-peaks", peaks)
        models = new
    judge(models, place, flux)


if __name__ == "__main__":
    main()
