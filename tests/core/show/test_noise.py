"""Noise that is said and noise that is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.mask import PLANES
from coblend.core.show.noise import negative_width, noise_image, sky_ratios


@pytest.fixture
def sky(rng: np.random.Generator) -> Exposure:
    """Noise of 6 where the variance says 4, a source, and a pixel without data."""
    image = rng.normal(0, 6, (200, 300)).astype(np.float32)
    variance = np.full(image.shape, 16, np.float32)
    mask = np.zeros(image.shape, np.int32)
    image[50:60, 50:60], mask[50:60, 50:60] = 1e4, 1 << PLANES["DETECTED"]
    variance[0, 0], mask[0, 0] = np.inf, 1 << PLANES["NO_DATA"]
    return Exposure(image, mask, variance, Box(0, 0, *image.shape))


def test_ratios_of_the_sky_have_the_width_of_the_real_noise(sky: Exposure) -> None:
    ratios = sky_ratios(sky)
    assert len(ratios) == sky.image.size - 101
    assert negative_width(ratios) == pytest.approx(1.5, rel=0.01)


def test_faint_sources_do_not_widen_the_negative_side(sky: Exposure) -> None:
    brighter = replace(sky, image=np.where(sky.image > 0, 3 * sky.image, sky.image))
    assert negative_width(sky_ratios(brighter)) == negative_width(sky_ratios(sky))


def test_noise_is_known_where_there_are_data(sky: Exposure) -> None:
    noise = noise_image(sky)
    assert np.isnan(noise[0, 0])
    assert (noise.ravel()[1:] == 4).all()


# bad input


def test_no_sky_has_no_width(sky: Exposure) -> None:
    sky.mask[:] = 1 << PLANES["DETECTED"]
    assert np.isnan(negative_width(sky_ratios(sky)))
