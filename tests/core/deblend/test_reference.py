"""The reference preset follows scarlet lite: its start, steps and boxes, every iteration.

Numbers of the peer that are written down here are losses (half the weighted sum of squared
residuals) of lsst.scarlet.lite of October 2025 in float64, with ``FactorizedInitialization``,
``Blend.fit_spectra`` and ``default_adaprox_parameterization`` at their defaults and the noise of
the bands as smallest step of the spectra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.deblend.batch import Batch, CutOuts
from coblend.core.deblend.blend import deblend_batch
from coblend.core.deblend.fitting.adaprox import SCHEMES
from coblend.core.deblend.fitting.components import Centres, members_of
from coblend.core.deblend.fitting.evaluate import correlated_data, evaluate
from coblend.core.deblend.fitting.fit import fit
from coblend.core.deblend.fitting.observation import Frames, Observation
from coblend.core.deblend.fitting.reference import reference_components
from coblend.core.kernels import difference_kernel, model_psf
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams

REFERENCE = DeblendParams.PRESETS["reference"]
Scenery = Callable[..., Any]
SIGMA = np.array([0.8, 1.0, 1.4])
"""Noise of the bands of simulated blends: different, because steps are relative to their mean."""

GAUSSIANS = {
    0: 9754.4678, 1: 9304.6895, 2: 11413.9029, 3: 4232.1872, 5: 5762.8141, 8: 3961.0028,
    12: 2408.8349, 20: 1111.3342, 30: 831.8061, 40: 637.1503,
}  # fmt: skip
"""Losses of the peer for `gaussians`, by iteration."""
DISCS = {0: 9685.0918, 1: 9241.7407, 2: 8928.5484, 5: 4114.2948, 12: 2201.1236, 30: 756.4339}
"""The same within the footprint of `within_discs`."""
HSC = {
    0: 268778.2464, 1: 249274.2145, 2: 260236.5896, 3: 135576.0514, 5: 81345.7781,
    8: 52144.5961, 12: 24795.9864, 20: 12654.991, 30: 9668.969, 40: 8886.1533,
}  # fmt: skip
"""The same for `real_blend`, which then converges after 47 iterations to 8663.1813."""


def params(**changes: Any) -> DeblendParams:
    return DeblendParams(**{**REFERENCE, "relative_error": 0.0, **changes})


def started(batch: Batch, options: DeblendParams, dtype: type) -> tuple[Any, ...]:
    """Observation and components of a batch of one blend, in the given precision."""
    (cut,) = batch.cuts
    kernels = difference_kernel(batch.psfs, model_psf(), 0.0).astype(dtype)
    weight = (cut.weight * cut.footprint[:, None]).astype(dtype)
    frames = Frames.of(cut.blends, cut.data.astype(dtype), weight, kernels)
    observation = Observation((frames,))
    n, box = len(batch.y), batch.boxes[0]
    centres = Centres(batch.blend, np.arange(n), batch.y, batch.x,
                      np.full(n, box.ny), np.full(n, box.nx))  # fmt: skip
    own, stacks, _ = reference_components(
        observation, [cut.weight[0]], batch.psfs, centres, batch.sigma, model_psf(), options
    )
    return observation, own, stacks


def losses(batch: Batch, iterations: Sequence[int], dtype: type, **changes: Any) -> np.ndarray:
    """Loss after so many iterations each."""
    observation, centres, stacks = started(batch, params(**changes), dtype)
    out = []
    for n in iterations:
        result = fit(observation, centres, stacks, params(**changes, max_iter=n), batch.sigma)
        assert result.spectra.dtype == dtype
        assert all(stack.planes.dtype == dtype for stack in result.stacks)
        here = evaluate(observation, members_of(centres, 1), result.stacks, result.spectra,
                        correlated_data(observation), closed_form=False)  # fmt: skip
        out.append(here.loss[0])
    return np.array(out)


def real_blend(folder: Path) -> Batch:
    """HSC COSMOS, in units of the mean noise."""
    fitsio = pytest.importorskip("fitsio")
    planes = {
        name: np.stack([fitsio.read(str(folder / f"{b}.fits"), name) for b in "grizy"])
        for name in ("IMAGE", "VARIANCE", "PSF")
    }
    peaks = fitsio.read(str(folder / "peaks.fits"))
    sigma = np.sqrt(planes["VARIANCE"].astype(float)).mean((1, 2))
    unit = sigma[:, None, None]
    cut = CutOuts(np.zeros(1, int), (planes["IMAGE"] / unit)[None],
                  (unit**2 / planes["VARIANCE"])[None], np.ones((1, 58, 48), bool))  # fmt: skip
    return Batch(np.zeros(1, int), (Box(0, 0, 58, 48),), (cut,), planes["PSF"][None].astype(float),
                 np.zeros(1, int), np.zeros(7, int), peaks["y"].astype(int),
                 peaks["x"].astype(int), sigma)  # fmt: skip


def gaussians() -> Batch:
    """Four Gaussian sources of different colours, without noise: every number from a formula."""
    y, x = np.mgrid[:40, :46]
    sources = [(12, 14, 1.4, (90, 70, 40)), (20, 25, 2.5, (40, 60, 80)),
               (27, 15, 1.8, (25, 30, 22)), (16, 33, 3.0, (12, 20, 25))]  # fmt: skip
    image = np.zeros((3, 40, 46))
    for cy, cx, width, peak in sources:
        shape = np.exp(-((y - cy - 0.2) ** 2 + (x - cx + 0.3) ** 2) / (2 * width**2))
        image += np.array(peak)[:, None, None] * shape
    image += 0.3 * np.sin(3.1 * y + 1.7 * x)
    psfs = np.stack([model_psf(s, 25) for s in (1.6, 1.5, 1.8)])[None]
    cut = CutOuts(np.zeros(1, int), image[None], np.ones((1, *image.shape)),
                  np.ones((1, 40, 46), bool))  # fmt: skip
    at = np.array([source[:2] for source in sources])
    return Batch(np.zeros(1, int), (Box(0, 0, 40, 46),), (cut,), psfs, np.zeros(1, int),
                 np.zeros(4, int), at[:, 0], at[:, 1], SIGMA)  # fmt: skip


def within_discs(batch: Batch) -> Batch:
    """The same blend with discs of 9 pixels about its peaks as footprint."""
    (cut,) = batch.cuts
    y, x = np.mgrid[: cut.footprint.shape[1], : cut.footprint.shape[2]]
    near = [np.hypot(y - v, x - u) <= 9 for v, u in zip(batch.y, batch.x, strict=True)]
    return replace(batch, cuts=(replace(cut, footprint=np.any(near, axis=0)[None]),))


def crowd(scenery: Scenery, n: int) -> Batch:
    """Simulated blend of n stars and disks, some beside the edge of the frame."""
    rng = np.random.default_rng(1100 + n)
    shape = (44 + n, 58 - 2 * n)
    while True:
        at = rng.uniform([2, 2], np.array(shape) - 3, (n, 2))
        apart = np.hypot(*(at[:, None] - at).T) + 99 * np.eye(n)
        if apart.min() > 5 and apart.min(0).max() < 16:
            break
    flux = 10 ** rng.uniform(2.3, 4, (n, 1)) * rng.uniform(0.5, 1.5, (n, 3))
    radii = np.where(rng.uniform(size=n) < 0.4, 0, rng.uniform(1, 3, n))
    scene = scenery(at, flux, radii, seeing=(4.2, 3.6, 4.8), shape=shape, seed=n)
    return replace(scene.batch, sigma=SIGMA)


def peer_fit(batch: Batch, **options: Any) -> Any:
    """Start a blend of the peer on the same pixels, in image units and float64."""
    lite = pytest.importorskip("lsst.scarlet.lite", reason="no scarlet lite")
    from lsst.scarlet.lite.initialization import FactorizedInitialization
    from lsst.scarlet.lite.operators import Monotonicity

    (cut,), unit = batch.cuts, batch.sigma[:, None, None]
    ny, nx = batch.boxes[0].shape
    weight = cut.weight[0][:, :ny, :nx].astype(float) / unit**2
    bands = tuple("abcdefgh"[: len(unit)])
    observation = lite.Observation(
        images=cut.data[0][:, :ny, :nx].astype(float) * unit, variance=1 / weight,
        weights=weight * cut.footprint[0, :ny, :nx], psfs=batch.psfs[0].astype(float),
        model_psf=model_psf()[None], bands=bands, noise_rms=batch.sigma,
    )  # fmt: skip
    start = FactorizedInitialization(
        observation, list(zip(batch.y.tolist(), batch.x.tolist(), strict=True)),
        monotonicity=Monotonicity((101, 101)), **options,
    )  # fmt: skip
    blend = lite.Blend(start.sources, observation)
    blend.fit_spectra()
    return blend


def peer_losses(batch: Batch, n: int, parameterize: Callable[[Any], None] | None = None,
                resize: int | None = None, **options: Any) -> np.ndarray:  # fmt: skip
    blend = peer_fit(batch, **options)
    component = pytest.importorskip("lsst.scarlet.lite.component", reason="no scarlet lite")
    default = partial(component.default_adaprox_parameterization, noise_rms=batch.sigma)
    blend.parameterize(parameterize or default)
    blend.fit(n, e_rel=0, resize=resize)
    return -np.array(blend.loss)


def test_losses_are_the_peers() -> None:
    """Also when boxes change, after 10, 20 and 30 iterations."""
    for batch, numbers in ((gaussians(), GAUSSIANS), (within_discs(gaussians()), DISCS)):
        for n, expected in numbers.items():
            assert losses(batch, [n], np.float64)[0] == pytest.approx(expected, rel=1e-6)
            if n <= 12:  # later, round-off has grown
                assert losses(batch, [n], np.float32)[0] == pytest.approx(expected, rel=1e-3)
            (result,) = deblend_batch(batch, params(max_iter=n))
            assert result.loss == pytest.approx(expected, rel=1e-6)


def test_preset_follows_the_peer_on_a_real_blend(shared_data: Path) -> None:
    """As users run it; the table of the design page has the same numbers."""
    batch = real_blend(shared_data / "hsc_cosmos_35")
    (cut,) = batch.cuts
    single = replace(cut, data=cut.data.astype(np.float32), weight=cut.weight.astype(np.float32))
    batch = replace(batch, cuts=(single,))
    for n, expected in HSC.items():
        (result,) = deblend_batch(batch, DeblendParams(**{**REFERENCE, "max_iter": n}))
        assert result.loss == pytest.approx(expected, rel=1e-6)
    (result,) = deblend_batch(batch, DeblendParams(**REFERENCE))
    assert (result.n_iter, result.flags & FLAGS["not_converged"]) == (47, 0)
    assert result.loss == pytest.approx(8663.1813, rel=1e-6)


def test_faint_peaks_start_as_point_sources() -> None:
    """Of sum 1, although morphologies have maximum 1 later: a fault that is kept."""
    batch = gaussians()
    options = params(initial_background_thresh=1e6)
    _, centres, stacks = started(batch, options, np.float64)
    assert centres.source.tolist() == [0, 1, 2, 3]
    assert np.allclose([m.sum() for stack in stacks for m in stack.morph], 1)
    first, later = losses(batch, [0, 2], np.float64, initial_background_thresh=1e6)
    assert later > 10 * first  # so that the loss explodes


@pytest.mark.peer
@pytest.mark.parametrize("n", range(3, 9))
def test_starts_equal_the_peers(scenery: Scenery, n: int) -> None:
    batch = crowd(scenery, n)
    theirs = peer_fit(batch).components
    _, centres, stacks = started(batch, params(), np.float64)
    assert len(centres) == len(theirs)
    mine = {}
    for stack in stacks:
        for row, morph, (_, window, part) in zip(
            stack.rows.tolist(), stack.morph, stack.places, strict=True
        ):
            mine[row] = window, morph[part]
    for source in range(n):  # a bulge comes before its disk there
        rows = np.flatnonzero(centres.source == source)
        same = [c for c in theirs if c.peak == (batch.y[source], batch.x[source])]
        for row, component in zip(rows, sorted(same, key=lambda c: -c.morph.sum()), strict=True):
            window, morph = mine[row]
            assert component.bbox.origin == (window[0].start, window[1].start)
            assert np.allclose(morph, component.morph, rtol=0, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("n", range(3, 9))
def test_losses_of_fixed_boxes_equal_the_peers(scenery: Scenery, n: int) -> None:
    batch = crowd(scenery, n)
    expected = peer_losses(batch, 12)
    result = losses(batch, range(12), np.float64, resize_every=0)
    assert np.abs(result / expected - 1).max() < 1e-6
    result = losses(batch, range(12), np.float32, resize_every=0)
    assert np.abs(result / expected - 1).max() < 1e-3


@pytest.mark.peer
def test_losses_with_resized_boxes_equal_the_peers(scenery: Scenery) -> None:
    batch = crowd(scenery, 5)
    expected = peer_losses(batch, 40, resize=3)
    result = losses(batch, range(0, 40, 4), np.float64, resize_every=3)
    assert np.abs(result / expected[::4] - 1).max() < 1e-6


@pytest.mark.peer
def test_losses_with_the_settings_of_the_pipelines_equal_the_peers(scenery: Scenery) -> None:
    component = pytest.importorskip("lsst.scarlet.lite.component", reason="no scarlet lite")
    batch = crowd(scenery, 6)
    step = partial(component.default_adaprox_parameterization, noise_rms=batch.sigma / 10)
    expected = peer_losses(batch, 30, step, resize=3, bg_thresh=1, initial_bg_thresh=1)
    lsst = {**DeblendParams.PRESETS["lsst"], "relative_error": 0.0}
    result = losses(batch, range(0, 30, 3), np.float64, **lsst)
    assert np.abs(result / expected[::3] - 1).max() < 1e-6


@pytest.mark.peer
@pytest.mark.parametrize("n", [3, 6])
def test_losses_within_footprints_equal_the_peers(scenery: Scenery, n: int) -> None:
    """Its start looks at the whole box, its fit at the footprint."""
    batch = within_discs(crowd(scenery, n))
    expected = peer_losses(batch, 12)
    result = losses(batch, range(12), np.float64, resize_every=0)
    assert np.abs(result / expected - 1).max() < 1e-6


@pytest.mark.peer
@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_schemes_follow_the_peers(scenery: Scenery, scheme: str) -> None:
    parameters = pytest.importorskip("lsst.scarlet.lite.parameters", reason="no scarlet lite")
    batch = crowd(scenery, 4)

    def parameterize(component: Any) -> None:
        step = partial(parameters.relative_step, factor=0.01, minimum=batch.sigma)
        for name, length in (("_spectrum", step), ("_morph", 0.01)):
            value = getattr(component, name).x
            parameter = parameters.AdaproxParameter(value, step=length, scheme=scheme)
            setattr(component, name, parameter)

    expected = peer_losses(batch, 12, parameterize)
    result = losses(batch, range(12), np.float64, resize_every=0, scheme=scheme)
    assert np.abs(result / expected - 1).max() < 1e-6


@pytest.mark.peer
def test_fista_follows_the_peers(scenery: Scenery) -> None:
    """With steps for the most that the kernels amplify, which the peer leaves out."""
    parameters = pytest.importorskip("lsst.scarlet.lite.parameters", reason="no scarlet lite")
    batch = crowd(scenery, 4)
    batch = replace(batch, psfs=batch.psfs[:, :1].repeat(3, 1), sigma=np.ones(3))
    (frames,) = started(batch, params(), np.float64)[0].frames
    length = float(0.5 / np.abs(frames.kernel_ft).max() ** 2)

    def parameterize(component: Any) -> None:
        for name in ("_spectrum", "_morph"):
            value = getattr(component, name).x
            setattr(component, name, parameters.FistaParameter(value, step=length))

    expected = peer_losses(batch, 30, parameterize)
    result = losses(batch, range(30), np.float64, resize_every=0, optimizer="fista")
    assert np.abs(result / expected - 1).max() < 1e-6


def test_components_about_another_pixel_than_their_peak_are_flagged() -> None:
    batch = gaussians()
    moved = replace(batch, x=batch.x + np.array([0, 0, 1, 0]))
    for one, flags in ((batch, 0), (moved, FLAGS["recentred"])):
        (result,) = deblend_batch(one, params(max_iter=5))
        assert result.object_flags[2] & FLAGS["recentred"] == flags
        assert result.centres[result.source == 2].tolist() == [[27, one.x[2]]] * 2


# bad input


def test_dark_images_start_as_point_sources_without_flux() -> None:
    batch = gaussians()
    dark = replace(batch.cuts[0], data=-np.ones_like(batch.cuts[0].data))
    (result,) = deblend_batch(replace(batch, cuts=(dark,)), params(max_iter=0))
    assert result.object_flags.tolist() == [FLAGS["psf_init"]] * 4
    assert result.spectra.max() < 1e-19
