"""Stored models: bytes per source, and how long one blend and all of them take to read.

    OPENBLAS_NUM_THREADS=1 python benchmarks/models.py [--dense] [--sources 10000 ...]

Deblends a simulated field in five bands, repeats it until there are enough sources, and compares
the file with heavy footprints of 12 bytes a pixel and with the JSON of scarlet lite's
`ScarletModelData` in a zip (stored, as the Rubin pipelines write it, and deflated). Where scarlet
lite is installed, the same again with models that it fitted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from field import GROUPED, Field, make_field

from coblend.core.box import Box
from coblend.core.deblend.collect import collect
from coblend.core.deblend.task import batches, make_plan
from coblend.core.deblend.work import deblend_work
from coblend.core.exposure import Cube, Exposure
from coblend.core.footprint import FootprintSet
from coblend.core.kernels import model_psf
from coblend.core.model import ModelSet
from coblend.core.params.deblend import DeblendParams
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.band import reconstruct_band
from coblend.core.reconstruct.frames import cut_frames
from coblend.core.reconstruct.precision import storage_steps
from coblend.io.deblend.models import ModelFile, read_models, write_models
from coblend.io.deblend.nested import (
    NestedBlend,
    NestedComponent,
    NestedObject,
    NestedParent,
    flatten,
)
from coblend.io.fits.structure import scan
from coblend.io.fits.writer import create

_PLACES = {
    "OBJECTS": ("id", "blend", "peak_id", "component0", "n_component", "ix", "iy", "flags"),
    "PARENTS": ("id", "y0", "x0", "ny", "nx", "area", "n_peak", "blend0", "n_blend", "run0",
                "n_run", "object0", "n_object", "flags", "crc32"),
}  # fmt: skip
"""Columns that the models need; the others of these tables are the catalogue."""


def deblended(field: Field, params: DeblendParams | None = None) -> ModelSet:
    """Models of a field."""
    params = params or DeblendParams()
    plan = make_plan(field.detections, field.cube, params)
    results = [
        result
        for batch in batches(field.detections, field.cube, plan, params)
        for result in deblend_work(batch, params)
    ]
    return collect(field.detections, field.cube, plan, results, params)


def deblended_by_peer(field: Field) -> ModelSet:
    """Models of all parents by scarlet lite, with the settings of the Rubin pipelines."""
    import lsst.scarlet.lite as lite
    from lsst.scarlet.lite.component import default_adaprox_parameterization
    from lsst.scarlet.lite.initialization import FactorizedInitialization
    from lsst.scarlet.lite.utils import integrated_circular_gaussian

    cube, detections = field.cube, field.detections
    psfs = np.stack([psf.at(0, 0) for psf in cube.psfs]).astype(np.float32)
    noise = np.sqrt(cube.variances).mean((1, 2))
    sigma = {f"sigma_{band}": float(v) for band, v in zip(cube.bands, noise, strict=True)}
    parents = []
    for i in range(len(detections)):
        box, mask = detections.footprints.box(i), detections.footprints.mask(i)
        cut = (slice(None), *box.slices(cube.box))
        observation = lite.Observation(
            images=cube.images[cut].copy(), variance=cube.variances[cut].copy(),
            weights=(mask / cube.variances[cut]).astype(np.float32), psfs=psfs,
            model_psf=integrated_circular_gaussian(sigma=0.8)[None], bands=cube.bands,
            noise_rms=noise, bbox=lite.Box(box.shape, (box.y0, box.x0)),
        )  # fmt: skip
        peaks = [(int(p["iy"]), int(p["ix"])) for p in detections.peaks_of(i)]
        monotonic = lite.operators.Monotonicity((101, 101))
        start = FactorizedInitialization(observation, peaks, monotonicity=monotonic, min_snr=50)
        blend = lite.Blend(start.sources, observation).fit_spectra()
        for component in blend.components:
            component.bg_thresh = 1.0
        blend.parameterize(partial(default_adaprox_parameterization, noise_rms=noise))
        blend.fit(300, e_rel=1e-3)
        objects = [
            NestedObject(int(row["id"]), peak, peak_id=int(row["id"]), components=[
                NestedComponent(*map(int, c.bbox.origin), c.morph, c.spectrum,
                                (int(c.peak[0]), int(c.peak[1]))) for c in source.components
            ])
            for row, peak, source in zip(
                detections.peaks_of(i), peaks, blend.sources, strict=True
            )
        ]  # fmt: skip
        identifier = int(detections.parents["id"][i])
        one = NestedBlend(identifier, box, objects, 0, sigma)
        parents.append(NestedParent(identifier, box.y0, box.x0, mask, [one]))
    return flatten(parents, cube.bands, psfs[None], np.zeros((1, 2)), cube.box)


def exposures(cube: Cube) -> list[Exposure]:
    """Exposures of a cube, one per band."""
    return [
        Exposure(cube.images[b], cube.masks[b], cube.variances[b], cube.box, cube.planes, band)
        for b, band in enumerate(cube.bands)
    ]


def repeated(models: ModelSet, n: int) -> ModelSet:
    """Repeat models ``n`` times, side by side in x, with ids of their own."""
    step = models.box.nx
    tables: dict[str, list[Any]] = {"parents": [], "blends": [], "objects": [], "components": []}
    spans = []
    for i in range(n):
        part = {name: getattr(models, name).copy() for name in tables}
        for name, columns in (
            ("parents", ("x0",)), ("blends", ("x0",)), ("objects", ("x", "ix")),
            ("components", ("x0", "peak_x")),
        ):  # fmt: skip
            for column in columns:
                part[name][column] += i * step
        shift = i << 39  # another field, see core.detect.identifiers
        part["parents"]["id"] += shift
        part["parents"]["blend0"] += i * len(models.blends)
        part["blends"]["id"] += shift
        part["blends"]["parent"] += i * len(models.parents)
        part["blends"]["object0"] += i * len(models.objects)
        part["blends"]["component0"] += i * len(models.components)
        part["objects"]["component0"] += i * len(models.components)
        part["objects"]["blend"] += np.where(part["objects"]["blend"] != 0, shift, 0)
        part["objects"]["id"] += shift
        part["objects"]["parent"] += shift
        part["components"]["object"] += i * len(models.objects)
        for name in tables:
            tables[name].append(part[name])
        spans.append(
            FootprintSet(
                models.footprints.spans + np.array([0, i * step, i * step], np.int32),
                models.footprints.offsets,
            )
        )
    sizes = np.tile(np.diff(models.morph_offsets), n)
    box = models.box
    return replace(
        models,
        **{name: np.concatenate(parts) for name, parts in tables.items()},
        footprints=FootprintSet.concatenate(spans),
        morph=np.tile(models.morph, n),
        morph_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        box=Box(box.y0, box.x0, box.ny, box.nx * n),
    )


def save(models: ModelSet, path: str, error: float) -> float:
    """Write a file and return the seconds that takes."""
    start = time.perf_counter()
    with create(path, "deblended/1", overwrite=True) as out:
        write_models(out, models, storage_steps(models, error))
    return time.perf_counter() - start


def sizes(path: str, models: ModelSet) -> dict[str, float]:
    """Bytes per source of every HDU; the catalogue's columns are counted apart."""
    n = len(models.objects)
    out = {hdu.name or "header": (hdu.end - hdu.start) / n for hdu in scan(path)}
    out["catalogue"] = 0.0
    with fitsio.FITS(path) as file:
        for table, names in _PLACES.items():
            stored = file[table].get_rec_dtype()[0]
            kept = sum(stored[name].itemsize for name in names) * file[table].get_nrows() / n
            out["catalogue"] += out[table] - kept
            out[table] = kept
    out["models"] = sum(v for k, v in out.items() if k != "catalogue")
    return out


def heavy_bytes(field: Field, models: ModelSet) -> float:
    """Bytes per source of heavy footprints: 12 a pixel and span, 620 of peak and records."""
    total = 0.0
    for b, exposure in enumerate(exposures(field.cube)):
        light = reconstruct_band(models, cut_frames(models, exposure), b, ReconstructParams())
        total += 12 * len(light.light) + 12 * len(light.footprints.spans)
        total += 620 * len(light.footprints)
    return total / len(models.objects)


def zip_bytes(models: ModelSet, folder: str, compression: int) -> float:
    """Bytes per source of the Rubin pipelines' zip: JSON members with the keys of scarlet lite."""
    path = os.path.join(folder, "models.scarlet")
    objects, components = models.objects, models.components
    with zipfile.ZipFile(path, "w", compression) as archive:
        psfs = {"model_psf": model_psf(models.model_psf_sigma), "psf": models.psfs[0]}
        metadata: dict[str, Any] = {"bands": models.bands, "array_keys": list(psfs)}
        for name, psf in psfs.items():
            metadata |= {name: psf.astype(np.float32).ravel().astype(float).tolist(),
                         f"{name}_shape": psf.shape, f"{name}_dtype": "float32"}  # fmt: skip
        archive.writestr("metadata", json.dumps(metadata))
        archive.writestr("version", json.dumps("1.0.1"))
        for p, parent in enumerate(models.parents):
            spans = models.footprints.mask(p)
            children = {}
            first = int(parent["blend0"])
            for blend in models.blends[first : first + int(parent["n_blend"])]:
                o0 = int(blend["object0"])
                sources = {}
                for row in objects[o0 : o0 + int(blend["n_object"])]:
                    c0 = int(row["component0"])
                    parts = []
                    for c in range(c0, c0 + int(row["n_component"])):
                        part = components[c]
                        parts.append({
                            "origin": [int(part["y0"]), int(part["x0"])],
                            "shape": [int(part["ny"]), int(part["nx"])],
                            "peak": [int(part["peak_y"]), int(part["peak_x"])],
                            "spectrum": models.spectra()[c].astype(float).tolist(),
                            "morph": models.morphology(c).ravel().astype(float).tolist(),
                            "component_type": "factorized", "version": "1.0.0",
                        })  # fmt: skip
                    sources[str(row["id"])] = {
                        "source_type": "source", "components": parts, "version": "1.0.0",
                        "metadata": {"id": int(row["id"]), "peak_id": int(row["peak_id"])},
                    }  # fmt: skip
                children[str(blend["id"])] = {
                    "blend_type": "blend", "origin": [int(blend["y0"]), int(blend["x0"])],
                    "shape": [int(blend["ny"]), int(blend["nx"])], "sources": sources,
                    "version": "1.0.0",
                }  # fmt: skip
            origin = [int(parent["y0"]), int(parent["x0"])]
            if children:
                member = {
                    "blend_type": "hierarchical", "children": children, "version": "1.0.0",
                    "metadata": {"spans": spans.ravel().tolist(), "spans_shape": spans.shape,
                                 "spans_dtype": "bool", "origin": origin,
                                 "array_keys": ["spans"]},
                }  # fmt: skip
            else:
                one = objects[objects["parent"] == parent["id"]][0]
                member = {
                    "source_type": "isolated", "origin": origin, "shape": spans.shape,
                    "peak": [float(one["iy"]), float(one["ix"])],
                    "span_array": spans.ravel().astype(float).tolist(), "version": "1.0.0",
                }  # fmt: skip
            archive.writestr(str(parent["id"]), json.dumps(member))
    return os.path.getsize(path) / len(models.objects)


def timed(function: Callable[[], Any], repeat: int = 5) -> float:
    """Shortest of several runs (s)."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def bytes_read(function: Callable[[], Any]) -> int:
    """Bytes that a function reads from files (Linux)."""

    def count() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = count()
    function()
    return count() - before


def access(path: str) -> None:
    """Print times of reading and the part of the file that one blend needs."""
    with ModelFile(path) as file:
        blends = file.table("BLENDS")
    row = len(blends) // 2
    identifier = int(blends["id"][row])

    def cold() -> None:
        with ModelFile(path) as file:
            file.blend_row(row)

    size = os.path.getsize(path)
    with ModelFile(path) as file:
        file.blend_row(0)
        warm = timed(lambda: [file.blend_row(row + i) for i in range(20)]) / 20
        by_row = bytes_read(lambda: file.blend_row(row + 30)) / size
        by_id = bytes_read(lambda: file.blend(identifier)) / size
    print(f"read all            {1e3 * timed(lambda: read_models(path), 3):9.1f} ms")
    print(f"one blend, cold     {1e3 * timed(cold, 20):9.2f} ms")
    print(f"one blend, warm     {1e3 * warm:9.2f} ms   {100 * by_row:.2f} % of the file")
    print(f"one blend by id                    {100 * by_id:.2f} % of the file")


def compare(field: Field, one: ModelSet, n_source: int, folder: str) -> str:
    """Print sizes for a field repeated to ``n_source`` sources; return the path of the file."""
    models = repeated(one, max(1, round(n_source / len(one.objects))))
    path = os.path.join(folder, "models.fits")
    print(f"{len(models.objects)} sources, {len(models.components)} components, "
          f"{len(models.blends)} blends, {len(models.bands)} bands")  # fmt: skip
    for error in (0.0, 0.002, 0.01, 0.02, 0.005):
        seconds = save(models, path, error)
        parts = sizes(path, models)
        print(
            f"model_error {error:5g}: {parts['models']:7.1f} B/source (+ catalogue "
            f"{parts['catalogue']:.1f}), written in {seconds:.2f} s"
        )
    print(f"    { ({k: round(v, 1) for k, v in parts.items() if k != 'models'}) }")
    for name, value in {
        "heavy footprints": heavy_bytes(field, one),
        "zip, stored": zip_bytes(one, folder, zipfile.ZIP_STORED),
        "zip, deflated": zip_bytes(one, folder, zipfile.ZIP_DEFLATED),
    }.items():
        print(f"{name:18s} {value:9.0f} B/source, {value / parts['models']:6.1f} times ours")
    return path


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dense", action="store_true", help="deep survey: 1.6e-3 sources/pixel")
    parser.add_argument("--sources", type=int, nargs="*", default=[10_000])
    options = parser.parse_args()
    field = make_field(720) if options.dense else make_field(**GROUPED)
    one = deblended(field)
    with tempfile.TemporaryDirectory() as folder:
        for n in options.sources:
            path = compare(field, one, n, folder)
            access(path)
        if find_spec("lsst") is not None and find_spec("lsst.scarlet.lite") is not None:
            print("fitted by scarlet lite:")
            compare(field, deblended_by_peer(field), options.sources[0], folder)


if __name__ == "__main__":
    main()
