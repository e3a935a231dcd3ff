"""`reconstruct-footprints`: time per source and band, memory, accuracy, growth.

    OPENBLAS_NUM_THREADS=1 python benchmarks/reconstruct.py [--dense] [--sources 10000 ...]
        [--fields 3]

Times the steps on a deblended field, in CPU seconds of one core, and scarlet lite's
`Blend.conserve_flux` on the same models where it is installed; compares the flux that each way of
sharing gives with the truth; then runs the command on the field repeated to 10^4 to 10^5 sources.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from field import GROUPED, Field, make_field
from models import deblended, exposures, repeated, save
from scipy.spatial import cKDTree

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.model import ModelSet
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.band import reconstruct_band
from coblend.core.reconstruct.frames import chunk_parents, cut_frames
from coblend.io.deblend.models import ModelFile
from coblend.io.exposure.exposures import write_exposure
from coblend.io.fits.writer import create


def cpu(function: Callable[[], Any], repeat: int = 3) -> float:
    """Shortest CPU time of several runs (s)."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def steps(path: str, images: list[Exposure]) -> None:
    """Print the CPU time of each step per source and band."""
    params = ReconstructParams()
    with ModelFile(path) as file:
        chunks = chunk_parents(file.table("PARENTS"), np.arange(len(file)))
        parts = [file.parents(*c) for c in chunks]
        n = sum(len(p.objects) for p in parts)
        frames = [cut_frames(p, images[1], params.bad_mask) for p in parts]
        times = {
            "decode": cpu(lambda: [file.parents(*c) for c in chunks]),
            "cut": cpu(lambda: [cut_frames(p, images[1], params.bad_mask) for p in parts]),
            "share and measure": cpu(
                lambda: [
                    reconstruct_band(p, f, 1, params) for p, f in zip(parts, frames, strict=True)
                ]
            ),
        }
    for name, seconds in times.items():
        print(f"{name:18s} {1e3 * seconds / n:7.3f} ms per source and band")
    total = 1e3 * sum(times.values()) / n
    print(
        f"{'together':18s} {total:7.3f} ms per source and band ({n} sources, {len(chunks)} chunks)"
    )


def peer_blends(
    models: ModelSet, exposure: Exposure, band: int, dtype: type = np.float32
) -> Iterator[tuple[np.ndarray, Any]]:
    """Rows of OBJECTS of every modelled parent with the same models as scarlet lite's blend.

    In single precision, as the pipelines have it, the peer's own round-off is 0.002 of the noise
    where its sums cross zero.
    """
    import lsst.scarlet.lite as lite
    from lsst.scarlet.lite.io.cube_component import ComponentCube
    from lsst.scarlet.lite.utils import integrated_circular_gaussian

    model_psf = integrated_circular_gaussian(sigma=models.model_psf_sigma)[None]
    for p, parent in enumerate(models.parents):
        if not parent["n_blend"]:
            continue
        box = models.footprints.box(p)
        cut = box.slices(exposure.box)
        row = models.blends[int(parent["blend0"])]
        psf = models.psfs[int(row["psf_cell"]), band][None]
        observation = lite.Observation(
            images=exposure.image[cut][None].astype(dtype),
            variance=exposure.variance[cut][None].astype(dtype),
            weights=models.footprints.mask(p, box)[None].astype(dtype), psfs=psf.astype(dtype),
            model_psf=model_psf, bands=("r",), bbox=lite.Box(box.shape, (box.y0, box.x0)),
            convolution_mode="real",
        )  # fmt: skip
        sources = []
        rows = np.flatnonzero(models.objects["parent"] == parent["id"])
        for one in models.objects[rows]:
            first = int(one["component0"])
            components = []
            for c in range(first, first + int(one["n_component"])):
                part = models.components[c]
                data = models.morphology(c)[None] * models.spectra()[c, band].astype(dtype)
                image = lite.Image(data, yx0=(int(part["y0"]), int(part["x0"])), bands=("r",))
                components.append(ComponentCube(image, (int(part["peak_y"]), int(part["peak_x"]))))
            sources.append(lite.Source(components))
        yield rows, lite.Blend(sources, observation)


def peer(models: ModelSet, images: list[Exposure]) -> None:
    """Print the time of scarlet lite's conserve_flux, one band at a time as the pipelines do."""
    if find_spec("lsst") is None or find_spec("lsst.scarlet.lite") is None:
        print("scarlet lite is not installed")
        return
    seconds, n = 0.0, 0
    for rows, blend in peer_blends(models, images[1], 1):
        start = time.process_time()
        blend.conserve_flux()
        seconds += time.process_time() - start
        n += len(rows)
    print(f"scarlet lite       {1e3 * seconds / n:7.3f} ms per source and band (shares only)")


def flux_errors(
    field: Field, models: ModelSet, images: list[Exposure], weights: str = "positive"
) -> dict[str, np.ndarray]:
    """Relative errors of i-band fluxes of blended objects of S/N above 20.

    Returns
    -------
    dict of str to array
        ``truth``: against the true flux; ``shares``: against the image shared in proportion to
        the true images of the sources that have an object; ``best``: of those shares against the
        true flux: the light of sources that were not detected, and noise.
    """
    band, objects = 2, models.objects
    frames = cut_frames(models, images[band])
    places = np.stack([objects["x"], objects["y"]], axis=1)
    near, best = cKDTree(np.stack([field.truth["x"], field.truth["y"]], axis=1)).query(places)
    total = true_image(field, np.unique(best), band)
    light = reconstruct_band(models, frames, band, ReconstructParams(weights=weights))
    measured = light.objects
    errors: dict[str, list[float]] = {"truth": [], "shares": [], "best": []}
    for row in np.flatnonzero((objects["blend"] != 0) & (near < 2)):
        flux = measured["flux"][row]
        if not flux > 20 * measured["flux_err"][row]:
            continue
        own = true_image(field, [best[row]], band)
        mask = light.footprints.mask(int(row), images[band].box)
        truth = field.truth["flux"][best[row], band]
        shared = (images[band].image[mask] * own[mask] / np.maximum(total[mask], 1e-9)).sum()
        for name, value in (
            ("truth", flux / truth), ("shares", flux / shared), ("best", shared / truth),
        ):  # fmt: skip
            errors[name].append(value - 1)
    return {name: np.array(values) for name, values in errors.items()}


def scatter(values: np.ndarray) -> float:
    """Scaled median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def accuracy(n_field: int) -> None:
    """Print bias and scatter of fluxes in fields whose clustered sources gather in groups."""
    for name, n_host in (("pairs", 0), ("30 groups", 30), ("10 groups", 10)):
        errors: dict[str, list[np.ndarray]] = {}
        for seed in range(20, 20 + n_field):
            field = make_field(**{**GROUPED, "n_host": n_host}, seed=seed)
            models, images = deblended(field), exposures(field.cube)
            for weights in ("positive", "reference"):
                for kind, values in flux_errors(field, models, images, weights).items():
                    errors.setdefault(f"{weights}, {kind}", []).append(values)
        for kind, parts in errors.items():
            values = np.concatenate(parts)
            print(f"{name:10s} {kind:18s} bias {100 * np.median(values):6.2f} %, scatter "
                  f"{100 * scatter(values):5.2f} % ({len(values)} blended sources)")  # fmt: skip


def true_image(field: Field, sources: Iterable[int], band: int) -> np.ndarray:
    """Add up the true images of some sources."""
    out = np.zeros(field.cube.box.shape)
    for source in sources:
        stamp = field.images[source, band]
        half = stamp.shape[0] // 2
        y0 = round(float(field.truth["y"][source])) - half
        x0 = round(float(field.truth["x"][source])) - half
        own = Box(y0, x0, *stamp.shape)
        common = own & field.cube.box
        out[common.slices(field.cube.box)] += stamp[common.slices(own)]
    return out


def growth(models: ModelSet, images: list[Exposure], n_source: int, folder: str) -> None:
    """Run the command on the field repeated to ``n_source`` and print its time and memory."""
    n = max(1, round(n_source / len(models.objects)))
    many = repeated(models, n)
    path = os.path.join(folder, "many.fits")
    seconds = save(many, path, 0.005)
    image = images[1]
    tiled = replace(
        image, image=np.tile(image.image, (1, n)), mask=np.tile(image.mask, (1, n)),
        variance=np.tile(image.variance, (1, n)), box=many.box,
    )  # fmt: skip
    coadd = os.path.join(folder, "r.fits")
    with create(coadd, "exposure/1", overwrite=True) as out:
        write_exposure(out, tiled, compress="none")
    script = (
        "import re, sys, time; from pathlib import Path; from coblend.cli.main import run; "
        "code = run(sys.argv[1:]); status = Path('/proc/self/status').read_text(); "
        "peak = re.search(r'VmHWM:\\s+(\\d+)', status)[1]; "
        "print(code, time.process_time(), int(peak) // 1024)"
    )
    call = ["reconstruct-footprints", path, f"r={coadd}", "-o", os.path.join(folder, "out.fits"),
            "--overwrite", "--set", "ignore_units=true", "-q"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *call], capture_output=True, text=True, check=True
    )
    code, used, peak = done.stdout.split()[-3:]
    rest = (sum(t.nbytes for t in (many.objects, many.parents)) + 12 * tiled.image.size) >> 20
    print(f"{len(many.objects):7d} sources, {tiled.image.size / 1e6:5.1f} Mpx: exit {code}, "
          f"{1e3 * float(used) / len(many.objects):.3f} ms per source, peak {peak} MiB of which "
          f"tables and image {rest}; file written in {seconds:.1f} s")  # fmt: skip


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dense", action="store_true", help="deep survey: 1.6e-3 sources/pixel")
    parser.add_argument("--sources", type=int, nargs="*", default=[10_000, 30_000, 100_000])
    parser.add_argument("--fields", type=int, default=3, help="fields of each kind for accuracy")
    options = parser.parse_args()
    field = make_field(720) if options.dense else make_field(**GROUPED)
    models = deblended(field)
    images = exposures(field.cube)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "models.fits")
        save(models, path, 0.005)
        steps(path, images)
        peer(models, images)
        accuracy(options.fields)
        for n in options.sources:
            growth(models, images, n, folder)


if __name__ == "__main__":
    main()
