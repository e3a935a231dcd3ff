"""Exposures: noise as the variance plane says, defects where they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.mask import STANDARD
from coblend.core.params.simulate import SimulateParams
from coblend.core.simulate.expose import expose, psf_stamp, random_epochs, transfer_of
from coblend.core.simulate.sky import random_sky, sky_images

PARAMS = SimulateParams(size=256, blends=6, singles=10)
CLEAN = replace(PARAMS, bad_columns=0, cosmic_rays=0, trail=False)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(5)
    sky, epochs = random_sky(PARAMS, rng), random_epochs(PARAMS, rng)
    light = sky_images(sky, "i", np.stack([transfer_of(e) for e in epochs[-5:]]))
    return sky, epochs, light


def observe(scene, index, params):
    sky, epochs, light = scene
    epoch = epochs[len(epochs) - 5 + index].copy()
    epoch["trail"] &= params.trail
    return epoch, expose(light[index], sky, epoch, params, np.random.default_rng(index))


def test_noise_is_what_the_variance_plane_says(scene):
    """rms of (image - truth) / sigma is 1, on the sky and on the sources."""
    sky, _, light = scene
    for index in range(5):
        epoch, exposure = observe(scene, index, CLEAN)
        scale = 10 ** (0.4 * (epoch["zero_point"] - 31.4))
        truth = light[index][exposure.box.slices(sky.box)] * scale
        pull = (exposure.image - truth) / np.sqrt(exposure.variance.astype(float))
        bright = truth > 0.02 * epoch["sky"] / PARAMS.gain
        assert bright.sum() > 500
        for part, tolerance in ((~bright, 0.012), (bright, 0.09)):
            assert np.sqrt(np.mean(pull[part] ** 2)) == pytest.approx(1, abs=tolerance)
            assert abs(pull[part].mean()) < 4 / np.sqrt(part.sum())


def test_variance_holds_the_photons_of_sky_and_sources(scene):
    sky, _, light = scene
    epoch, exposure = observe(scene, 0, CLEAN)
    scale = 10 ** (0.4 * (epoch["zero_point"] - 31.4))
    electrons = epoch["sky"] + PARAMS.gain * scale * light[0][exposure.box.slices(sky.box)]
    np.testing.assert_allclose(exposure.variance, electrons / PARAMS.gain**2, rtol=5e-4)


def test_first_exposure_covers_the_patch_the_others_are_offset(scene):
    _, epochs, _ = scene
    patch = Box(0, 0, PARAMS.size, PARAMS.size)
    for epoch in epochs:
        box = Box(*(int(epoch[n]) for n in ("y0", "x0", "ny", "nx")))
        assert patch.contains(box)
        assert min(box.ny, box.nx) >= PARAMS.size - PARAMS.dither
        if epoch["epoch"] == 0:
            assert box == patch
    assert len({(e["y0"], e["x0"], e["ny"], e["nx"]) for e in epochs}) > 4


def test_conditions_vary_and_one_exposure_has_the_trail(scene):
    _, epochs, _ = scene
    for name in ("psf_fwhm", "zero_point", "sky", "psf_angle"):
        assert len(np.unique(epochs[name])) == len(epochs)
    assert epochs["trail"].sum() == 1
    assert len(np.unique(epochs["file"])) == len(epochs)


def plane(exposure, name):
    return (exposure.mask & STANDARD.value([name])) != 0


def test_the_mask_shows_every_defect(scene):
    """Where no plane is set the damaged exposure equals the clean one, to 0.02 sigma."""
    _, clean = observe(scene, 0, CLEAN)
    sky, epochs, light = scene
    epoch = epochs[-5].copy()
    epoch["trail"] = True
    exposure = expose(light[0], sky, epoch, PARAMS, np.random.default_rng(0))
    bad, hit, crossed = (plane(exposure, name) for name in ("BAD", "CR", "STREAK"))
    assert bad.sum() == exposure.box.ny
    assert np.all(bad.all(axis=0) | ~bad.any(axis=0))
    assert 10 <= hit.sum() <= 10 * 24
    assert crossed.sum() > 8 * PARAMS.size
    sigma = np.sqrt(np.median(exposure.variance))
    added = (exposure.image - clean.image) / sigma
    assert np.all(np.abs(added[exposure.mask == 0]) < 0.02)
    assert np.all(added[hit & ~bad] > 9)
    assert added[crossed & ~bad & ~hit].max() == pytest.approx(12, abs=0.2)


def test_artifacts_can_be_left_for_the_coadd_to_find(scene):
    _, shown = observe(scene, 0, PARAMS)
    _, hidden = observe(scene, 0, replace(PARAMS, mask_artifacts=False))
    np.testing.assert_array_equal(shown.image, hidden.image)
    assert plane(shown, "CR").any()
    assert not plane(hidden, "CR").any()
    np.testing.assert_array_equal(plane(shown, "BAD"), plane(hidden, "BAD"))


def test_psf_is_that_of_the_epoch(scene):
    epoch, exposure = observe(scene, 1, CLEAN)
    stamp = psf_stamp(epoch)
    assert stamp.shape == (41, 41)
    assert 0.99 < stamp.sum() < 1
    np.testing.assert_allclose(exposure.psf.at(0, 0), stamp / stamp.sum(), rtol=1e-12)
    assert np.unravel_index(stamp.argmax(), stamp.shape) == (20, 20)
    assert exposure.meta["MAGZERO"] == epoch["zero_point"]


def test_whole_units_and_seed(scene):
    _, first = observe(scene, 2, PARAMS)
    _, again = observe(scene, 2, PARAMS)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.image, np.rint(first.image))


def test_without_dither_all_cover_the_patch():
    epochs = random_epochs(replace(PARAMS, dither=0), np.random.default_rng(0))
    assert set(epochs["ny"]) == set(epochs["nx"]) == {PARAMS.size}
