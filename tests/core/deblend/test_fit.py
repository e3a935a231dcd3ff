"""Whole fits of simulated blends against the truth."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.deblend.batch import Batch, CutOuts
from coblend.core.deblend.blend import deblend_batch, observe
from coblend.core.deblend.fitting.components import Centres, stack_stamps
from coblend.core.deblend.fitting.evaluate import correlated_data, evaluate
from coblend.core.deblend.fitting.initialize import initial_components
from coblend.core.deblend.fitting.observation import Frames, Observation
from coblend.core.deblend.fitting.start import solve_spectra
from coblend.core.deblend.split import fit_parts
from coblend.core.errors import FitError
from coblend.core.kernels import model_psf
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams

Scenery = Callable[..., object]
PARAMS = DeblendParams(process_singles=True)


def start(batch: Batch, params: DeblendParams = PARAMS):
    observation = observe(batch, params)
    box = batch.boxes[0]
    n = len(batch.y)
    centres = Centres(batch.blend, np.arange(n), batch.y, batch.x,
                      np.full(n, box.ny), np.full(n, box.nx))  # fmt: skip
    own, stacks, _ = initial_components(
        observation, batch.psfs[batch.cell], centres, threshold=params.initial_background_thresh,
        min_snr=params.min_snr, psf_sigma=params.model_psf_sigma,
    )  # fmt: skip
    return observation, own, stacks


@pytest.mark.parametrize("n_source", [1, 3])
@pytest.mark.parametrize("shape", [(50, 50), (47, 52)])
def test_gradients_are_the_differences_of_the_loss(
    scenery: Scenery, n_source: int, shape: tuple[int, int]
) -> None:
    """The two ways of evaluating (one component, several) against central differences."""
    positions = [(20, 20), (25, 29), (31, 17)][:n_source]
    scene = scenery(positions, np.full((n_source, 3), 60.0), shape=shape)
    observation, centres, stacks = start(scene.batch)
    (frames,) = observation.frames
    frames = Frames.of(*(
        a.astype(float) if a.dtype == np.float32 else a
        for a in (frames.blends, frames.data, frames.weight, frames.kernels)
    ))  # fmt: skip
    observation = Observation((frames,)).split(np.array([n_source == 1]))
    stacks = [stack.with_planes(stack.planes.astype(float)) for stack in stacks]
    members, data = [list(range(len(centres)))], correlated_data(observation)
    spectra = solve_spectra(observation, stacks, len(centres))

    def loss() -> float:
        return float(evaluate(observation, members, stacks, spectra, data).loss[0])

    def slope(array: np.ndarray, index: tuple[int, ...], step: float) -> float:
        old, losses = array[index], []
        for sign in (1, -1):
            array[index] = old + sign * step
            losses.append(loss())
        array[index] = old
        return (losses[0] - losses[1]) / (2 * step)

    here = evaluate(observation, members, stacks, spectra, data)
    rng = np.random.default_rng(3)
    largest = max(np.abs(pull).max() for pull in here.pull)
    for _ in range(20):
        s = rng.integers(len(stacks))
        k = rng.integers(len(stacks[s].rows))
        r = stacks[s].radius
        index = (int(k), *(int(v) for v in rng.integers(r - 5, r + 6, 2)))
        expected = slope(stacks[s].morph, index, 1e-4)
        assert here.pull[s][index] == pytest.approx(expected, rel=1e-6, abs=1e-6 * largest)
    spectra += 3.0  # away from the best ones, where the gradient vanishes
    here = evaluate(observation, members, stacks, spectra, data, closed_form=False)
    for k, b in np.ndindex(spectra.shape):
        if n_source > 1:
            expected = slope(spectra, (k, b), 1e-3)
            assert here.spectrum_pull[k, b] == pytest.approx(expected, rel=1e-6)


def test_exact_scene_gives_the_true_spectra() -> None:
    """Noise-free image of known morphologies: the spectra come back to 1e-4."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[-12:13, -12:13]
    shape = (40, 44)
    at = [(15, 14), (19, 24), (24, 17)]
    psfs = np.stack([model_psf(s, 31) for s in (1.5, 1.7, 2.0)])[None].astype(np.float32)
    blank = np.zeros((1, 3, *shape), np.float32)
    cut = CutOuts(np.zeros(1, int), blank, np.ones_like(blank), np.ones((1, *shape), bool))
    batch = Batch(np.zeros(1, int), (Box(0, 0, *shape),), (cut,), psfs, np.zeros(1, int),
                  np.zeros(3, int), np.array([a for a, _ in at]), np.array([b for _, b in at]),
                  np.ones(3))  # fmt: skip
    observation = observe(batch, PARAMS)
    centres = Centres(np.zeros(3, int), np.arange(3), batch.y, batch.x, np.full(3, 40),
                      np.full(3, 44))  # fmt: skip
    stacks = stack_stamps(np.full(3, 12), centres, [])
    (stack,) = stacks
    stack.planes[0] = np.exp(-np.hypot(y, x)[None] / np.array([1.5, 2.5, 3.5])[:, None, None])
    truth = rng.uniform(10, 100, (3, 3)).astype(np.float32)
    model = np.zeros((1, 3, *shape), np.float32)
    for k, (_, frame, part) in enumerate(stack.places):
        model[(0, slice(None), *frame)] += truth[k][:, None, None] * stack.morph[k][part]
    (frames,) = observation.frames
    exact = replace(observation, frames=(replace(frames, data=frames.convolve(model)),))
    assert np.allclose(solve_spectra(exact, stacks, 3), truth, rtol=1e-4)


@pytest.mark.parametrize(("ratios", "n", "bias", "pull", "chi2"), [
    ((100, 200, 300), 100, 0.01, (0.7, 1.5), (0.95, 1.05)),
    ((2000, 2000, 2000), 25, 0.005, (0, 2), (0.95, 1.4)),
])  # fmt: skip
def test_isolated_stars(
    scenery: Scenery,
    ratios: tuple[int, ...],
    n: int,
    bias: float,
    pull: tuple[float, float],
    chi2: tuple[float, float],
) -> None:
    """Fluxes at signal-to-noise ratios per band: bias, errors in units of those quoted, chi2."""
    psf = scenery([(20, 20)], np.ones((1, 3))).batch.psfs[0]
    flux = np.array(ratios) / np.sqrt(np.square(psf, dtype=float).sum((1, 2)))
    errors, pulls, reduced = [], [], []
    for i, offset in enumerate(np.random.default_rng(8).uniform(-0.5, 0.5, (5, 2))):
        scene = scenery([20 + offset], flux[None], shape=(41, 41)).again(n // 5, i)
        for result in deblend_batch(scene.batch, replace(PARAMS, flux_err_floor=0.0)):
            error = result.objects["model_flux"][0] - flux
            errors.append(error / flux)
            pulls.append(error / result.objects["model_flux_err"][0])
            reduced.append(result.chi2)
    assert np.abs(np.mean(errors, 0)).max() < bias
    assert pull[0] < np.std(pulls, 0).min()
    assert np.std(pulls, 0).max() < pull[1]
    assert chi2[0] < np.mean(reduced) < chi2[1]


def test_a_source_without_light_in_a_band_has_an_error_there(scenery: Scenery) -> None:
    """Fluxes are never negative; the errors of those at 0 are of the size of the others'."""
    flux = np.array([[3000.0, 3000, 3000], [900, 0, 900]])
    scene = scenery([(25, 19), (25, 31)], flux).again(20, seed=3)
    psf = scene.batch.psfs[0, 1].astype(float)
    expected = 1 / np.sqrt(np.square(psf).sum())
    results = deblend_batch(scene.batch, PARAMS)
    found = np.array([r.objects["model_flux"][1, 1] for r in results])
    errors = np.array([r.objects["model_flux_err"][1, 1] for r in results])
    assert 0 < np.count_nonzero(found < 1e-6 * expected) < 20
    assert (errors > 0.8 * expected).all()
    assert (errors < 1.5 * expected).all()
    assert found.max() < 4 * expected


@pytest.mark.parametrize("ratio", [3, 10])
def test_two_stars_joint_fit_is_unbiased(scenery: Scenery, ratio: int) -> None:
    flux = np.array([[10000.0] * 3, [10000.0 / ratio] * 3])
    scene = scenery([(25, 19), (25, 31)], flux).again(50, seed=1)
    truth = scene.truth[1].sum((1, 2))
    errors = [
        scene.redistributed(result)[1].sum((1, 2)) / truth - 1
        for result in deblend_batch(scene.batch, PARAMS)
    ]
    assert np.abs(np.mean(errors, 0)).max() < 0.03


@pytest.mark.parametrize(("passes", "n"), [(0, 10), (2, 50)])
def test_two_stars_in_parts_of_their_own(scenery: Scenery, passes: int, n: int) -> None:
    """Cut between the stars by force: two passes bring the faint one back to 5 %.

    Without passes each part is fitted as if it were alone: the model of the faint star takes the
    bright one's wing, which is what passes are for.
    """
    flux = np.array([[10000.0] * 3, [1000.0] * 3])
    scene = scenery([(25, 19), (25, 31)], flux).again(n, seed=1)
    truth = scene.truth[1].sum((1, 2))
    params = replace(PARAMS, split="always", split_thresh=60, split_grow=0, coupling_passes=passes)
    shared, models = [], []
    for i in range(n):
        bright, faint = fit_parts(scene.batch.alone(i), params)
        assert (bright.peaks.tolist(), faint.peaks.tolist()) == ([0], [1])
        whole = replace(
            bright, source=np.concatenate([bright.source, faint.source + 1]),
            spectra=np.concatenate([bright.spectra, faint.spectra]),
            boxes=np.concatenate([bright.boxes, faint.boxes]), morphs=bright.morphs + faint.morphs,
        )  # fmt: skip
        shared.append(scene.redistributed(whole)[1].sum((1, 2)) / truth - 1)
        models.append(faint.objects["model_flux"][0] / flux[1] - 1)
    assert np.abs(np.mean(shared, 0)).max() < 0.05
    bias = np.abs(np.mean(models, 0))
    assert (bias > 0.05).all() if passes == 0 else (bias < 0.05).all()


@pytest.mark.parametrize("distance", [5, 7])
@pytest.mark.parametrize("colours", [False, True])
def test_two_disks(scenery: Scenery, distance: int, colours: bool) -> None:
    tilt = np.array([1.5, 1.0, 0.5]) if colours else np.ones(3)
    flux = np.array([3000 * tilt, 1800 * tilt[::-1]])
    scene = scenery([(25, 22), (25, 22 + distance)], flux, (2.0, 2.0)).again(60, seed=1)
    truth = scene.truth.sum((2, 3))
    errors = [
        scene.redistributed(result).sum((2, 3)) / truth - 1
        for result in deblend_batch(scene.batch, PARAMS)
    ]
    assert np.abs(errors).mean() < 0.04


def test_shared_light_adds_up_to_the_image(scenery: Scenery) -> None:
    scene = scenery([(20, 20), (26, 28)], np.full((2, 3), 800.0))
    (result,) = deblend_batch(scene.batch, PARAMS)
    shared = scene.redistributed(result).sum(0)
    lit = np.abs(shared) > 0
    assert np.allclose(shared[lit], scene.batch.cuts[0].data[0][lit], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_one_band_missing_in_half_of_the_blend(scenery: Scenery, seed: int) -> None:
    """Six stars and galaxies in a row, one band without weight over the right half.

    The other bands hardly change; nor does what is mostly seen; what is not seen has no flux.
    """
    rng = np.random.default_rng(seed)
    positions = np.stack([rng.uniform(12, 48, 6), np.arange(12, 59, 9) + rng.uniform(-2, 2, 6)], 1)
    flux = rng.uniform(800, 8000, (6, 1)) * rng.uniform(0.6, 1.4, (6, 3))
    radii = rng.uniform(0, 2, 6) * (rng.uniform(size=6) < 0.6)
    scene = scenery([tuple(p) for p in positions], flux, radii, shape=(60, 70), seed=seed)
    (whole,) = deblend_batch(scene.batch, PARAMS)
    cut = scene.batch.cuts[0]
    weight = cut.weight.copy()
    weight[0, 1, :, 35:] = 0
    hidden = replace(cut, weight=weight, data=np.where(weight > 0, cut.data, 0))
    (result,) = deblend_batch(replace(scene.batch, cuts=(hidden,)), PARAMS)
    change = result.objects["model_flux"] / whole.objects["model_flux"] - 1
    seen = scene.truth[:, 1, :, :35].sum((1, 2)) / scene.truth[:, 1].sum((1, 2))
    no_data = (result.object_flags & FLAGS["no_data"]) != 0
    assert 2 <= np.count_nonzero(seen < 0.1) <= 3
    assert np.abs(change[:, [0, 2]]).max() < 0.05
    assert np.abs(change[seen > 0.5, 1]).max() < 0.10
    assert no_data[seen < 0.1].all()
    assert not no_data[seen > 0.5].any()
    assert np.isnan(result.objects["model_flux"][no_data, 1]).all()
    assert np.isnan(result.objects["model_flux_err"][no_data, 1]).all()


@pytest.mark.parametrize("optimizer", ["accelerated", "adaprox", "fista"])
def test_units_do_not_matter(scenery: Scenery, optimizer: str) -> None:
    params = replace(PARAMS, optimizer=optimizer)
    flux = np.array([[2000.0, 1600, 1200], [900, 1000, 1200]])
    results = [
        deblend_batch(scenery([(22, 20), (27, 29)], flux, scale=scale).batch, params)[0]
        for scale in (1.0, 1e-25)
    ]
    assert np.allclose(results[1].objects["model_flux"] / 1e-25,
                       results[0].objects["model_flux"], rtol=1e-5)  # fmt: skip
    assert np.allclose(results[1].spectra / np.float32(1e-25), results[0].spectra, rtol=1e-5)


def test_two_stars_from_point_starts(scenery: Scenery) -> None:
    """The model PSF as first morphology: the loss does not explode, fluxes to 1.5 % at the end."""
    flux = np.array([[6000.0] * 3, [2000.0] * 3])
    scene = scenery([(25, 20), (25, 30)], flux).again(20, seed=1)
    params = replace(PARAMS, initial_background_thresh=1e9)
    for few in deblend_batch(scene.batch, replace(params, max_iter=12, min_iter=12)):
        assert few.loss < 1.5 * few.loss_init
    for result in deblend_batch(scene.batch, params):
        assert (result.object_flags & FLAGS["psf_init"]).all()
        assert np.abs(result.objects["model_flux"] / flux - 1).max() < 0.015


@pytest.mark.parametrize("changes", [
    {}, {"optimizer": "adaprox", "scheme": "radam", "max_iter": 30},
    {"optimizer": "fista", "max_iter": 30}, dict(DeblendParams.PRESETS["reference"]),
], ids=["default", "radam", "fista", "reference"])  # fmt: skip
def test_a_blend_does_not_depend_on_its_company(scenery: Scenery, changes: dict) -> None:
    """Bit for bit the same alone and in a batch of other shapes."""
    params = replace(PARAMS, **changes)
    one = scenery([(15, 15)], np.full((1, 3), 900.0), shape=(31, 30)).batch
    two = scenery([(20, 20), (26, 28)], np.full((2, 3), 800.0)).batch
    cuts = (replace(one.cuts[0]), replace(two.cuts[0], blends=np.array([1])))
    both = Batch(
        np.array([4, 7]), one.boxes + two.boxes, cuts, one.psfs, np.zeros(2, int),
        np.concatenate([one.blend, two.blend + 1]), np.concatenate([one.y, two.y]),
        np.concatenate([one.x, two.x]), one.sigma,
    )  # fmt: skip
    together = deblend_batch(both, params)
    assert [r.parent for r in together] == [4, 7]
    for alone, result in zip((one, two), together, strict=True):
        (expected,) = deblend_batch(alone, params)
        assert np.array_equal(result.spectra, expected.spectra)
        assert all(
            np.array_equal(a, b) for a, b in zip(result.morphs, expected.morphs, strict=True)
        )
        assert result.n_iter == expected.n_iter


def test_no_iterations_give_the_initial_model(scenery: Scenery) -> None:
    scene = scenery([(20, 20), (26, 28)], np.full((2, 3), 800.0))
    for n in (0, 1):
        (result,) = deblend_batch(scene.batch, replace(PARAMS, max_iter=n))
        assert result.n_iter == n
        assert np.isfinite(result.loss)
        assert bool(result.flags & FLAGS["not_converged"]) == (n == 1)


@pytest.mark.parametrize(("n", "side", "most"), [(3, 60, 5.7), (10, 120, 5.7), (10, 150, 5.7),
                                                 (30, 300, 15)])  # fmt: skip
def test_memory_of_a_fit(scenery: Scenery, n: int, side: int, most: float) -> None:
    """Extra memory of a blend in five bands, all sources bright enough for two components."""
    rng = np.random.default_rng(n)
    places = [tuple(p) for p in rng.uniform(20, side - 20, (n, 2))]
    flux = rng.uniform(1000, 20000, (n, 5))
    seeing = (4.6, 4.2, 3.7, 3.9, 4.1)
    batch = scenery(places, flux, rng.uniform(0, 2, n), seeing=seeing, shape=(side, side)).batch
    params = replace(PARAMS, max_iter=5)  # with spectra solved once on the way
    (result,) = deblend_batch(batch, params)  # plans and transforms stay in caches
    tracemalloc.start()
    deblend_batch(batch, params)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert len(result.morphs) > 1.6 * n
    assert peak < most


def test_real_blend(shared_data: Path) -> None:
    """HSC COSMOS: the likelihood of the peer (half chi-square 8642) and better."""
    fitsio = pytest.importorskip("fitsio")
    folder = shared_data / "hsc_cosmos_35"
    planes = {
        name: np.stack([fitsio.read(str(folder / f"{b}.fits"), name) for b in "grizy"])
        for name in ("IMAGE", "VARIANCE", "PSF")
    }
    peaks = fitsio.read(str(folder / "peaks.fits"))
    sigma = np.sqrt(np.median(planes["VARIANCE"], (1, 2)))
    unit = sigma[:, None, None]
    cut = CutOuts(
        np.zeros(1, int), (planes["IMAGE"] / unit)[None].astype(np.float32),
        (unit**2 / planes["VARIANCE"])[None].astype(np.float32), np.ones((1, 58, 48), bool),
    )  # fmt: skip
    batch = Batch(np.zeros(1, int), (Box(0, 0, 58, 48),), (cut,),
                  planes["PSF"][None].astype(np.float32), np.zeros(1, int), np.zeros(7, int),
                  peaks["y"].astype(int), peaks["x"].astype(int), sigma)  # fmt: skip
    (standard,) = deblend_batch(batch, PARAMS)
    assert standard.loss < 8640
    assert standard.n_iter < 60
    preset = DeblendParams(**DeblendParams.PRESETS["model"])
    (model,) = deblend_batch(batch, preset)
    assert model.loss < 8300


# bad input


def test_nothing_to_fit(scenery: Scenery) -> None:
    scene = scenery([(20, 20)], np.full((1, 3), 800.0))
    empty = replace(scene.batch.cuts[0], weight=np.zeros_like(scene.batch.cuts[0].weight))
    with pytest.raises(FitError, match="NoData"):
        deblend_batch(replace(scene.batch, cuts=(empty,)), PARAMS)


def test_a_psf_that_is_not_finite(scenery: Scenery) -> None:
    scene = scenery([(20, 20)], np.full((1, 3), 800.0))
    with pytest.raises(FitError, match="NoPsf"):
        deblend_batch(replace(scene.batch, psfs=np.full_like(scene.batch.psfs, np.nan)), PARAMS)
