"""Mirror images, and the price of light without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coblend.core.deblend.blend import deblend_batch
from coblend.core.deblend.fitting.initialize import symmetrize
from coblend.core.deblend.fitting.mirror import mirror_image
from coblend.core.params.deblend import DeblendParams


def test_a_mirror_image_is_the_brightest_about_the_reflection() -> None:
    """Equal to two loops over pixels; pixels that nobody has seen allow any light."""
    rng = np.random.default_rng(3)
    stamps = rng.normal(size=(3, 11, 11)).astype(np.float32)
    outside = rng.random(stamps.shape) < 0.1
    image, open_image = mirror_image(stamps), mirror_image(stamps, outside)
    for k, y, x in np.ndindex(stamps.shape):
        v, u = 10 - y, 10 - x
        wanted = stamps[k, max(0, v - 1) : v + 2, max(0, u - 1) : u + 2].max()
        assert image[k, y, x] == wanted
        assert open_image[k, y, x] == (np.inf if outside[k, v, u] else wanted)


@pytest.mark.parametrize("shift", [(0, 0), (0.5, 0), (-0.5, 0.5)])
def test_what_falls_off_from_any_place_in_the_pixel_is_covered(shift: tuple[float, float]) -> None:
    y, x = np.mgrid[-10:11, -10:11]
    source = np.exp(-((y - shift[0]) ** 2 + (x - shift[1]) ** 2) / 18).astype(np.float32)[None]
    assert (mirror_image(source) >= source * (1 - 1e-6)).all()


def test_the_start_is_symmetric_but_for_its_core() -> None:
    stamps = np.random.default_rng(4).random((2, 9, 9)).astype(np.float32)
    start = symmetrize(stamps)
    core = np.s_[:, 3:6, 3:6]
    np.testing.assert_array_equal(start[core], stamps[core])
    turned = start[:, ::-1, ::-1].copy()
    start[core] = turned[core] = 0
    np.testing.assert_array_equal(start, turned)
    assert (start <= stamps).all()


def test_an_undetected_neighbour_is_left_alone(scenery: Callable[..., Any]) -> None:
    """A star 7 px away, too faint for a peak: its light is not the detected source's."""
    flux = np.outer([300.0, 40.0], np.ones(3))
    errors = []
    for price in (0.0, DeblendParams().asymmetry_price):
        params = DeblendParams(process_singles=True, asymmetry_price=price)
        found = []
        for seed in range(8):
            both = scenery([(25, 21), (25, 28)], flux, seed=seed).batch
            batch = replace(both, blend=both.blend[:1], y=both.y[:1], x=both.x[:1])
            (result,) = deblend_batch(batch, params)
            light = [m.sum(dtype=float) for m in result.morphs]
            found.append(light @ result.spectra)
        errors.append(np.mean(found) / 300 - 1)
    assert errors[0] > 0.08
    assert abs(errors[1]) < 0.7 * errors[0]
