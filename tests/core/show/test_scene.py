"""Images of models and of single objects."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.show.scene import (
    model_images,
    modelled_footprints,
    source_images,
    stamp_half_size,
)


def test_models_as_seen_are_the_exposure_made_of_them(
    scenes: ModuleType, rng: np.random.Generator
) -> None:
    """Sharp and seen models hold the same flux; a part of the sky is a cut of the whole."""
    models = scenes.make_models(rng, n_parent=4)
    exposure = scenes.make_exposure(models, "r")
    sharp, seen = model_images(models, 1, models.box)
    np.testing.assert_allclose(seen, exposure.image, atol=1e-4 * exposure.image.max())
    assert sharp.sum() == pytest.approx(seen.sum(), rel=0.01)
    assert sharp.max() > seen.max()
    part = Box(models.box.y0 + 30, models.box.x0 + 20, 40, 50)
    np.testing.assert_array_equal(model_images(models, 1, part)[1], seen[part.slices(models.box)])


def test_objects_add_up_to_the_scene(scenes: ModuleType, rng: np.random.Generator) -> None:
    """Models sum to the model image, light to the image inside the footprint."""
    models = scenes.make_models(rng, n_parent=4, kinds=True)
    exposure = scenes.make_exposure(models, "g", rng, noise=0.01)
    every = np.arange(len(models.objects))
    found = source_images(models, 0, exposure, every)
    assert found.model.shape == found.light.shape == (len(every), *exposure.box.shape)
    seen = model_images(models, 0, exposure.box)[1]
    np.testing.assert_allclose(found.model.sum(axis=0), seen, atol=1e-4 * seen.max())
    without = models.objects["n_component"] == 0
    assert without.sum() == 2
    assert not found.model[without].any()
    reached = found.light.sum(axis=0)[found.light.any(axis=0)]
    np.testing.assert_allclose(reached, exposure.image[found.light.any(axis=0)], rtol=1e-4)
    some = source_images(models, 0, exposure, every[5:2:-1])
    np.testing.assert_array_equal(some.model, found.model[5:2:-1])
    np.testing.assert_array_equal(some.light, found.light[5:2:-1])


def test_modelled_parents(scenes: ModuleType, rng: np.random.Generator) -> None:
    """Every fourth parent of the scene was not deblended."""
    models = scenes.make_models(rng, n_parent=8)
    with_models, without = modelled_footprints(models)
    assert (len(with_models), len(without)) == (6, 2)
    np.testing.assert_array_equal(without.of(0), models.footprints.of(0))


def test_half_size_holds_the_fraction_of_the_largest_object() -> None:
    """A uniform square of side 11 holds (9/11)^2 = 67 % within 4 pixels, 100 % within 5."""
    model = np.zeros((2, 40, 40))
    model[0, 10:21, 15:26] = 1.0
    model[1, 30, 30] = 100.0
    y, x = np.array([15, 30]), np.array([20, 30])
    assert stamp_half_size(model, y, x, 0.66) == 4
    assert stamp_half_size(model, y, x, 0.95) == 5
    assert stamp_half_size(model[1:], y[1:], x[1:]) == 0
    assert stamp_half_size(np.zeros((1, 5, 5)), y[:1] * 0, x[:1] * 0) == 0
