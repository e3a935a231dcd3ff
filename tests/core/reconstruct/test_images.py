"""Residuals, model images and cut-outs."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.footprint import FootprintSet
from coblend.core.model import ModelSet
from coblend.core.reconstruct.band import render_objects
from coblend.core.reconstruct.frames import cut_frames
from coblend.core.reconstruct.images import (
    add_stamps,
    cut_image,
    light_images,
    median_noise,
    model_exposure,
    residual_exposure,
    residual_statistics,
    rounding_step,
)


@pytest.fixture
def models(rng: np.random.Generator, scenes) -> ModelSet:
    return scenes.make_models(rng, 9)


def test_an_exactly_modelled_scene_leaves_nothing(models: ModelSet, scenes) -> None:
    exposure = scenes.make_exposure(models, "r")
    model = np.zeros(models.box.shape, np.float32)
    add_stamps(model, models.box, render_objects(models, 1)[1])
    residual = residual_exposure(exposure, model)
    assert np.abs(residual.image).max() < 1e-6 * exposure.image.max()


def test_residual_and_model_add_up_to_the_image(
    models: ModelSet, rng: np.random.Generator, scenes
) -> None:
    exposure = scenes.make_exposure(models, "r", rng)
    model = rng.normal(0, 30, models.box.shape).astype(np.float32)
    total = residual_exposure(exposure, model).image + model_exposure(exposure, model).image
    scale = np.maximum(np.abs(model), np.abs(exposure.image))
    assert np.all(np.abs(total - exposure.image) <= np.spacing(scale))


def test_statistics_of_pure_noise(models: ModelSet, rng: np.random.Generator, scenes) -> None:
    exposure = scenes.make_exposure(models, "r", rng, noise=3.0)
    model = np.zeros(models.box.shape, np.float32)
    add_stamps(model, models.box, render_objects(models, 1)[1])
    found = residual_statistics(residual_exposure(exposure, model), models.footprints)
    n = models.footprints.areas.sum()
    assert abs(found.median) < 5 / np.sqrt(n)
    assert found.mad == pytest.approx(1.0, abs=6 / np.sqrt(n))
    assert found.chi2 == pytest.approx(1.0, abs=8 / np.sqrt(n))
    assert median_noise(exposure) == pytest.approx(3.0)


def test_no_data_is_zero_in_the_residual(models: ModelSet, scenes) -> None:
    exposure = scenes.make_exposure(models, "r")
    exposure.image[50, 50], exposure.variance[50, 50] = np.nan, np.inf
    residual = residual_exposure(exposure, np.ones(models.box.shape, np.float32))
    assert residual.image[50, 50] == 0.0
    assert residual.image[0, 0] == -1.0


def test_statistics_without_footprints(models: ModelSet, scenes) -> None:
    found = residual_statistics(scenes.make_exposure(models, "r"), FootprintSet.empty())
    assert np.isnan(found.chi2)


def test_stamps_outside_the_image_are_lost(models: ModelSet) -> None:
    stamps = render_objects(models, 0)[1]
    full = np.zeros(models.box.shape)
    add_stamps(full, models.box, stamps)
    part = models.box.grow(-60)
    cut = np.zeros(part.shape)
    add_stamps(cut, part, stamps)
    assert np.array_equal(cut, full[part.slices(models.box)])


def test_cut_image_is_zero_outside(models: ModelSet, rng: np.random.Generator) -> None:
    frames = cut_frames(models, None)
    box = models.box.grow(-50)
    image = rng.normal(size=box.shape)
    wide = np.pad(image, 50)
    cut = cut_image(image, box, frames)
    for i, (y0, x0, ny, nx) in enumerate(frames.boxes.tolist()):
        expected = wide[Box(y0, x0, ny, nx).slices(models.box)]
        assert np.array_equal(cut[slice(*frames.offsets[i : i + 2])], expected.ravel())


def test_light_images(rng: np.random.Generator) -> None:
    masks = [rng.random((6, 7)) < 0.5, np.zeros((6, 7), bool), rng.random((6, 7)) < 0.5]
    sets = FootprintSet.concatenate([FootprintSet.from_mask(m, 10, 20) for m in masks])
    light = rng.normal(size=sum(m.sum() for m in masks)).astype(np.float32)
    images = light_images(sets, light, Box(8, 20, 7, 9))
    ends = np.cumsum([0, *(m.sum() for m in masks)])
    for i, mask in enumerate(masks):
        expected = np.zeros((6, 7), np.float32)
        expected[mask] = light[ends[i] : ends[i + 1]]
        assert np.array_equal(images[i, 2:, :7], expected[:5])
        assert np.all(images[i, :2] == 0)


def test_rounding_steps_are_short_decimals() -> None:
    assert rounding_step(0.02, 1.23456) == 0.0247
    assert rounding_step(0.0, 1.0) == 0.0
    assert rounding_step(0.02, float("nan")) == 0.0
    assert rounding_step(0.02, 1.0, 1e7) == 0.02
    assert rounding_step(0.02, 1.0, 1e8) == rounding_step(0.02, 1.0, float("inf")) == 0.0
