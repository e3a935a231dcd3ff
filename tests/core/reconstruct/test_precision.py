"""Stored models stay within the promised fraction of the noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.bands import column_suffix
from coblend.core.model import ModelSet
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.band import reconstruct_band, render_objects
from coblend.core.reconstruct.frames import cut_frames
from coblend.core.reconstruct.images import light_images
from coblend.core.reconstruct.precision import storage_steps
from coblend.core.reconstruct.stamps import object_stamps
from coblend.io.deblend.encoding import from_codes, to_codes


def stored(models: ModelSet, steps: np.ndarray) -> ModelSet:
    """Models as they come back from a file with these steps."""
    out = models.morph.copy()
    step = steps.astype(np.float32).astype(np.float64)
    for c in range(len(models.components)):
        part = slice(*models.morph_offsets[c : c + 2])
        values = out[part]
        on = values != 0
        n = np.array([on.sum()])
        codes = to_codes(values[on].astype(np.float64), n, step[c : c + 1])
        values[on] = from_codes(codes, n, step[c : c + 1])
    return replace(models, morph=out)


@pytest.mark.parametrize("error", [0.002, 0.005, 0.02])
def test_convolved_pixels_and_fluxes(rng: np.random.Generator, scenes, error: float) -> None:
    """For every object and band, whatever the kernel's lobes and the flux."""
    for flux in (1.0, 300.0):
        models = scenes.make_models(rng, 12, psf=scenes.ringing_psf, flux=flux)
        steps = storage_steps(models, error)
        assert steps is not None
        other = stored(models, steps)
        assert not np.array_equal(other.morph, models.morph)
        for b in range(len(models.bands)):
            before, after = (render_objects(m, b)[1] for m in (models, other))
            assert np.abs(before.values - after.values).max() <= error
            flux_error = object_stamps(models, b).sums() - object_stamps(other, b).sums()
            response = 1 / np.sqrt((scenes.ringing_psf(3.2 + 0.3 * b) ** 2).sum())
            assert np.abs(flux_error).max() < 2 * error * response


def test_shared_light_moves_less_than_a_hundredth_of_the_noise(
    rng: np.random.Generator, scenes
) -> None:
    models = scenes.make_models(rng, 12, psf=scenes.ringing_psf)
    other = stored(models, storage_steps(models, 0.005))
    exposure = scenes.make_exposure(models, "r", rng)
    frames = cut_frames(models, exposure)
    params = ReconstructParams(mask_footprint=True)
    a, b = (reconstruct_band(m, frames, 1, params) for m in (models, other))
    assert np.abs(a.objects["flux"] - b.objects["flux"]).max() < 0.05
    before, after = (light_images(x.footprints, x.light, models.box) for x in (a, b))
    assert 0 < np.abs(before - after).max() < 0.01


def test_steps_are_clipped(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 4)
    for band in models.bands:
        models.components[f"spectrum_{column_suffix(band)}"][:] = 0.0
    assert storage_steps(models, 0.005) == pytest.approx(np.full(len(models.components), 2**-4))
    for band in models.bands:
        models.components[f"spectrum_{column_suffix(band)}"][:] = 1e12
    assert storage_steps(models, 0.005) == pytest.approx(np.full(len(models.components), 2**-24))


def test_bands_without_noise_do_not_limit(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 4)
    plain = storage_steps(models, 0.005)
    models.blends["sigma_g"] = np.nan
    fewer = storage_steps(models, 0.005)
    assert np.all(fewer >= plain)
    assert np.any(fewer > plain)


def test_lossless(rng: np.random.Generator, scenes) -> None:
    assert storage_steps(scenes.make_models(rng, 4), 0.0) is None
