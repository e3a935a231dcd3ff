"""Where fits start: sub-pixel places, and stars that start as stars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coblend.core.deblend.blend import deblend_batch
from coblend.core.deblend.fitting.components import Centres
from coblend.core.deblend.fitting.initialize import embed, point_sources, subpixel_offsets
from coblend.core.params.deblend import DeblendParams

PARAMS = DeblendParams(process_singles=True)
OFFSETS = [(0.0, 0.0), (0.4, -0.3), (-0.45, 0.2)]


def centres_at(*pixels: tuple[int, int]) -> Centres:
    y, x = np.array(pixels).T
    index = np.arange(len(pixels))
    return Centres(np.zeros_like(index), index, y, x, np.full_like(index, 30),
                   np.full_like(index, 30))  # fmt: skip


@pytest.mark.parametrize("offset", OFFSETS)
def test_the_place_of_a_gaussian_is_exact(offset: tuple[float, float]) -> None:
    y, x = np.mgrid[:30, :30]
    image = np.exp(-(((y - 12 - offset[0]) / 2.0) ** 2 + ((x - 17 - offset[1]) / 1.5) ** 2) / 2)
    found = subpixel_offsets([image], centres_at((12, 17)))
    np.testing.assert_allclose(found, [offset], atol=1e-12)


def test_places_without_a_maximum_are_the_middle_of_the_pixel() -> None:
    """At an edge, beside a dead pixel, and where the light rises to one side only."""
    image = np.full((30, 30), 5.0)
    image[12, 17], image[12, 18] = 9.0, 0.0
    image[20] = np.exp(np.arange(30) ** 2 / 60)
    assert not subpixel_offsets([image], centres_at((0, 29), (20, 10)))[0].any()
    beside = subpixel_offsets([image], centres_at((12, 17), (20, 10)))
    assert beside[0].tolist() == [0, 0]
    assert beside[1, 1] == 0


@pytest.mark.parametrize("offset", OFFSETS)
def test_point_sources_are_where_they_are_said_to_be(offset: tuple[float, float]) -> None:
    (stamp,) = point_sources(np.array([offset[0]]), np.array([offset[1]]), 0.8)
    assert stamp.max() == 1
    half = len(stamp) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    total = stamp.sum()
    assert abs((stamp * y).sum() / total - offset[0]) < 1e-3
    assert abs((stamp * x).sum() / total - offset[1]) < 1e-3
    for side in (5, 41):
        wide = embed(stamp[None], side)[0]
        assert wide.shape == (side, side)
        assert np.unravel_index(wide.argmax(), wide.shape) == (side // 2, side // 2)
        np.testing.assert_allclose(wide.sum(), total, rtol=2e-2 if side == 5 else 1e-6)


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_bright_star_starts_as_one(
    scenery: Callable[..., object], offset: tuple[float, float]
) -> None:
    """Wherever in its pixel it is, the first model of a star is close to the noise.

    A deconvolved image alone starts with a loss dozens of times higher, and ends above.
    """
    scene = scenery([(25 + offset[0], 24 + offset[1])], np.full((1, 3), 20_000.0))
    (ours,) = deblend_batch(scene.batch, PARAMS)
    (whole,) = deblend_batch(scene.batch, replace(PARAMS, min_snr=1e9))
    half_of_the_noise = 0.5 * scene.batch.cuts[0].data.size
    assert ours.loss_init < 2.5 * half_of_the_noise
    assert whole.loss_init > 10 * ours.loss_init
    assert ours.loss < 1.05 * half_of_the_noise
    assert ours.loss < whole.loss
