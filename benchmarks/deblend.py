"""Time, likelihood, memory and accuracy of the deblender, beside scarlet lite where importable.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/deblend.py [--size 1000] [--hsc DIR]
    ... python benchmarks/deblend.py --growth       (number of sources, blend size, bands)

Both get the same footprints and peaks and run from scratch to their own convergence on one core,
in turn, parent by parent (the peer) and batch by batch (coblend). Times are CPU times of the fit
from its start and of sharing the light of the image among the sources.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from field import Field, make_field
from scipy.spatial import cKDTree

from coblend.core.catalog import empty_table
from coblend.core.deblend.collect import collect
from coblend.core.deblend.task import batches, make_plan, model_width
from coblend.core.deblend.work import deblend_work
from coblend.core.detection import Detections, parent_columns, peak_columns
from coblend.core.exposure import Cube
from coblend.core.footprint import FootprintSet
from coblend.core.params.deblend import DeblendParams
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.band import reconstruct_band
from coblend.core.reconstruct.frames import cut_frames
from coblend.io.exposure.exposures import read_cube

try:
    from functools import partial

    from lsst.scarlet.lite import Blend, Observation
    from lsst.scarlet.lite import Box as PeerBox
    from lsst.scarlet.lite.component import default_adaprox_parameterization
    from lsst.scarlet.lite.initialization import FactorizedInitialization
    from lsst.scarlet.lite.operators import Monotonicity
    from lsst.scarlet.lite.utils import integrated_circular_gaussian
except ImportError:
    Blend = None


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Parameters
    ----------
    seconds, fitting, sharing : float
        CPU time, and those parts of it in which blends were started and fitted, and in which the
        light of the image was shared. The rest is coblend's: noise, PSFs and cut-outs, which the
        peer gets for nothing, and the catalogue.
    loss : array, shape (n_parent,)
        Half the weighted sum of squared residuals of each parent.
    n_iter : array, shape (n_parent,)
    flux, light : array, shape (n_peak, n_band)
        Fluxes of the models, and of the image redistributed by them.
    """

    seconds: float
    fitting: float
    sharing: float
    loss: np.ndarray
    n_iter: np.ndarray
    flux: np.ndarray
    light: np.ndarray


def run_coblend(
    cube: Cube, detections: Detections, *, part: bool = False, **options: object
) -> Outcome:
    """Deblend all parents, isolated ones too.

    Of a part of the parents of an image its noise, which is that of the whole, is not timed.
    """
    params = DeblendParams(process_singles=True, **options)
    start = time.process_time()
    plan = make_plan(detections, cube, params)
    start = time.process_time() if part else start
    params = replace(params, model_psf_sigma=model_width(plan, params))
    results, fitting = [], 0.0
    for batch in batches(detections, cube, plan, params):
        begin = time.process_time()
        results += deblend_work(batch, params)
        fitting += time.process_time() - begin
    models = collect(detections, cube, plan, results, params)
    fitted = time.process_time()
    light = np.stack(
        [
            reconstruct_band(models, cut_frames(models, exposure), b, ReconstructParams())
            .objects["flux"]
            for b, exposure in enumerate(map(cube.exposure, range(len(cube.bands))))
        ],
        axis=1,
    )  # fmt: skip
    end = time.process_time()
    results.sort(key=lambda result: result.parent)
    flux = np.stack([models.objects[f"model_flux_{b}"] for b in cube.bands], 1)
    return Outcome(end - start, fitting, end - fitted, np.array([r.loss for r in results]),
                   np.array([r.n_iter for r in results]), flux, light)  # fmt: skip


def run_peer(
    cube: Cube, detections: Detections, relative_error: float, *, pipelines: bool = False
) -> Outcome:
    """Deblend all parents with scarlet lite, at its library defaults or as the pipelines set it.

    The pipelines cut at 1 sigma, resize every 3 iterations, and make at least 5.
    """
    start_options = {"initial_bg_thresh": 1.0, "bg_thresh": 1.0} if pipelines else {}
    fit_options = {"min_iter": 5, "resize": 3} if pipelines else {}
    psfs = np.stack([psf.at(0, 0) for psf in cube.psfs]).astype(np.float32)
    noise = np.sqrt(cube.variances).mean((1, 2))
    narrow = integrated_circular_gaussian(sigma=0.8)[None]
    monotonic = Monotonicity((101, 101))
    loss, n_iter, flux, light, seconds, sharing = [], [], [], [], 0.0, 0.0
    for i in range(len(detections)):
        box = detections.footprints.box(i)
        cut = (slice(None), *box.slices(cube.box))
        weight = (detections.footprints.mask(i) / cube.variances[cut]).astype(np.float32)
        peaks = [(int(p["iy"]), int(p["ix"])) for p in detections.peaks_of(i)]
        start = time.process_time()
        observation = Observation(
            images=cube.images[cut].copy(), variance=cube.variances[cut].copy(), weights=weight,
            psfs=psfs, model_psf=narrow, bands=cube.bands, noise_rms=noise,
            bbox=PeerBox(box.shape, (box.y0, box.x0)),
        )  # fmt: skip
        start_up = FactorizedInitialization(
            observation, peaks, monotonicity=monotonic, **start_options
        )
        blend = Blend(start_up.sources, observation)
        blend.fit_spectra()
        step = noise / 10 if pipelines else noise
        blend.parameterize(partial(default_adaprox_parameterization, noise_rms=step))
        for component in blend.components if pipelines else ():
            component.bg_thresh = 1.0
        blend.fit(300, e_rel=relative_error, **fit_options)
        fitted = time.process_time()
        blend.conserve_flux()
        end = time.process_time()
        seconds, sharing = seconds + end - start, sharing + end - fitted
        loss.append(-blend.log_likelihood)
        n_iter.append(blend.it)
        flux += [
            source.get_model().data.sum((1, 2)) if source.components else np.zeros(len(noise))
            for source in blend.sources
        ]
        light += [source.flux_weighted_image.data.sum((1, 2)) for source in blend.sources]
    return Outcome(seconds, seconds - sharing, sharing, np.array(loss), np.array(n_iter),
                   np.array(flux), np.array(light))  # fmt: skip


def accuracy(field: Field, flux: np.ndarray) -> str:
    """Median and scatter of i magnitudes and g - i colours, isolated and blended, S/N > 20."""
    peaks, truth = field.detections.peaks, field.truth
    tree = cKDTree(np.stack([truth["y"], truth["x"]], 1))
    near = tree.query_ball_point(np.stack([peaks["iy"], peaks["ix"]], 1), 2.0)
    match = np.array([max(n, key=lambda j: truth["flux"][j].sum()) if n else -1 for n in near])
    unique = np.bincount(match[match >= 0], minlength=len(truth)) == 1
    good = (match >= 0) & unique[match] & (truth["flux"][match, 2] > 150 * 1.8)
    lone = np.repeat(field.detections.parents["npeak"] == 1, field.detections.parents["npeak"])
    text = []
    for name, chosen in (("isolated", good & lone), ("blended", good & ~lone)):
        with np.errstate(divide="ignore", invalid="ignore"):
            error = -2.5 * np.log10(flux[chosen] / truth["flux"][match[chosen]])
        for what, values in (("i", error[:, 2]), ("g-i", error[:, 0] - error[:, 2])):
            low, middle, high = np.percentile(values[np.isfinite(values)], [16, 50, 84])
            text.append(f"{name} {what} {middle:+.3f} / {(high - low) / 2:.3f}")
    return ", ".join(text)


def report(name: str, outcome: Outcome, field: Field | None, n_peak: int, n_band: int) -> None:
    """Print one run."""
    print(
        f"{name:34s} {outcome.seconds:7.2f} s ({outcome.sharing:.2f} sharing)  "
        f"{1e3 * outcome.seconds / n_peak / n_band:6.2f} ms/source/band  "
        f"{outcome.n_iter.sum():6d} iterations  total {outcome.loss.sum():.0f}  "
        f"median {np.median(outcome.loss):.2f}"
    )
    if field is not None:
        print(f"{'models':>34s} {accuracy(field, outcome.flux)}")
        print(f"{'redistributed':>34s} {accuracy(field, outcome.light)}")


def hsc(folder: Path) -> tuple[Cube, Detections]:
    """Real blend with the whole cut-out as its footprint."""
    import fitsio

    cube = read_cube([f"{b}={folder / b}.fits" for b in "grizy"])
    table = fitsio.read(str(folder / "peaks.fits"))
    footprints = FootprintSet.from_mask(np.ones(cube.box.shape, bool))
    parents = empty_table(parent_columns(cube.bands), 1)
    peaks = empty_table(peak_columns(cube.bands), len(table))
    parents["id"], parents["npeak"], parents["area"] = 1, len(table), cube.box.area
    peaks["id"], peaks["parent"] = np.arange(1, len(table) + 1), 1
    for name in "xy":
        peaks[name] = peaks[f"i{name}"] = table[name]
    return cube, Detections(cube.bands, parents, peaks, footprints, cube.box)


def until(cube: Cube, detections: Detections, loss: float) -> tuple[int, Outcome]:
    """Fewest iterations after which the fit is as likely as that, and what they give."""
    for most in range(1, 100):
        run = run_coblend(cube, detections, max_iter=most)
        if run.loss.sum() <= loss:
            break
    return most, run


def peak_memory(field: Field, most: int = 150) -> str:
    """Largest extra memory while one blend of 3 to 10 peaks is fitted alone."""
    boxes, counts = field.detections.footprints.boxes(), field.detections.parents["npeak"]
    rows = np.flatnonzero((counts >= 3) & (counts <= 10) & (boxes[:, 2:].max(1) <= most))
    params = DeblendParams()
    plan = make_plan(field.detections, field.cube, params)
    peaks = []
    for batch in batches(field.detections, field.cube, plan, params):
        for i in np.flatnonzero(np.isin(batch.parents, rows)):
            alone = batch.alone(int(i))
            tracemalloc.start()
            deblend_work(alone, params)
            peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
            tracemalloc.stop()
    return f"{len(peaks)} blends: median {np.median(peaks):.1f} MB, largest {max(peaks):.1f} MB"


def growth(seed: int) -> None:
    """Print milliseconds per source and band for more sources, larger blends and other bands."""
    run_coblend(*_cut(make_field(200, seed=seed)), max_iter=1)
    for size in (250, 500, 1000, 1400):
        _row(f"{size} pixels", *_cut(field := make_field(size, seed=seed)))
    for n_band in (1, 2, 3, 5):
        _row(f"{n_band} bands", *_cut(field, bands=n_band))
    counts = field.detections.parents["npeak"]
    for least, most in ((1, 1), (2, 2), (3, 4), (5, 9), (10, 99)):
        rows = np.flatnonzero((counts >= least) & (counts <= most))
        if len(rows):
            _row(f"blends of {least} to {most}", *_cut(field, rows), part=True)


def _cut(field: Field, rows: np.ndarray | None = None, bands: int = 5) -> tuple[Cube, Detections]:
    """Return some of the parents, in some of the bands."""
    cube, detections = field.cube, field.detections
    cube = Cube.from_exposures([cube.exposure(b) for b in range(bands)])
    detections = replace(detections, bands=cube.bands)
    if rows is None:
        return cube, detections
    parents = detections.parents[rows].copy()
    peaks = np.concatenate([detections.peaks_of(int(row)) for row in rows])
    parents["peak0"] = np.cumsum(parents["npeak"]) - parents["npeak"]
    spans = detections.footprints.select(rows)
    return cube, replace(detections, parents=parents, peaks=peaks, footprints=spans)


def _row(name: str, cube: Cube, detections: Detections, *, part: bool = False) -> None:
    """Print a row; that of a part of the parents beside the peer's times."""
    own = run_coblend(cube, detections, part=part)
    report(name, own, None, len(detections.peaks), len(cube.bands))
    for pipelines in (False, True) if part and Blend is not None else ():
        peer = run_peer(cube, detections, 1e-3, pipelines=pipelines)
        print(f"{'as the pipelines' if pipelines else 'scarlet lite':>34s} takes "
              f"{peer.seconds / own.seconds:.1f} times as long")  # fmt: skip


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1000, help="side of the field (pixel)")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--hsc", type=Path, help="folder of the blend hsc_cosmos_35")
    parser.add_argument("--growth", action="store_true", help="only how the time grows")
    args = parser.parse_args()
    if args.growth:
        growth(args.seed)
        return
    field = make_field(args.size, seed=args.seed)
    counts = field.detections.parents["npeak"]
    print(f"{len(field.truth)} true sources, {len(counts)} parents, {counts.sum()} peaks, "
          f"{np.count_nonzero(counts == 1)} isolated; footprint pixels x bands / 2: "
          f"{field.detections.parents['area'].sum() * len(field.cube.bands) / 2:.0f}")  # fmt: skip
    scenes: list[tuple[str, Cube, Detections, Field | None]] = [
        ("field", field.cube, field.detections, field)
    ]
    if args.hsc:
        scenes.append(("hsc_cosmos_35", *hsc(args.hsc), None))
    for scene, cube, detections, truth in scenes:
        size = len(detections.peaks), len(cube.bands)
        run_coblend(cube, detections, max_iter=1)  # plans and caches
        for error in (1e-3, 1e-4):
            if Blend is not None:
                peer = run_peer(cube, detections, error)
                report(f"{scene} scarlet lite {error:g}", peer, truth, *size)
                tuned = run_peer(cube, detections, error, pipelines=True)
                report(f"{scene} the same, as the pipelines {error:g}", tuned, truth, *size)
            own = run_coblend(cube, detections, relative_error=error)
            report(f"{scene} coblend {error:g}", own, truth, *size)
            if Blend is not None:
                print(f"{'':34s} ratio of times {peer.seconds / own.seconds:.1f}, of the fits "
                      f"{peer.fitting / own.fitting:.1f}, lower in "
                      f"{100 * np.mean(own.loss < peer.loss):.0f} % of the parents")  # fmt: skip
            if Blend is not None and truth is None:
                most, own = until(cube, detections, peer.loss.sum())
                report(f"{scene} coblend, {most} iterations", own, truth, *size)
                print(f"{'':34s} as likely; ratio of times {peer.seconds / own.seconds:.1f}, "
                      f"of the fits {peer.fitting / own.fitting:.1f}")  # fmt: skip
        preset = run_coblend(cube, detections, **DeblendParams.PRESETS["model"])
        report(f"{scene} coblend preset model", preset, truth, *size)
    print("memory:", peak_memory(field))


if __name__ == "__main__":
    main()
