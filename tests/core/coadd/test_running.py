"""The mean of inputs added one after the other is that of the stack, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.running import RunningMean
from coblend.core.coadd.stack import stack
from coblend.core.params.coadd import CoaddParams

MEAN = StackRules.of(CoaddParams(statistic="mean", propagate=("SAT=0.1", "CR=0.3")))


@pytest.mark.parametrize("variance", ["input", "scatter", "mosaic"])
@pytest.mark.parametrize("pixel_weights", [False, True])
def test_equals_the_stack(random_warps, variance, pixel_weights):
    warps, box = random_warps(n=33)
    rules = replace(MEAN, variance=variance, pixel_weights=pixel_weights)
    mean = RunningMean(box, rules, len(warps), input_map=True)
    for warp in warps:
        mean.add(warp)
    whole = stack(warps, box, rules, input_map=True)
    for y in range(0, box.ny, 13):
        slab = Box.from_bounds(y, 0, min(y + 13, box.ny), box.nx)
        part, cut = mean.result(slab), slab.slices(box)
        for name in ("image", "mask", "variance", "n_image", "weight"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[cut], name)
        np.testing.assert_array_equal(part.input_map, whole.input_map[:, *cut])
        np.testing.assert_array_equal(part.counts, whole.counts)


def test_scaled_inputs(make_warp, rng):
    values = rng.normal(5, 1, (4, 6, 7))
    warps = [make_warp(i, v / (i + 1), scale=float(i + 1), shape=(6, 7)) for i, v in
             enumerate(values)]  # fmt: skip
    box = Box(0, 0, 6, 7)
    mean = RunningMean(box, MEAN, 4)
    for warp in warps:
        mean.add(warp)
    out = mean.result(box)
    np.testing.assert_allclose(out.image, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(out.variance, (1 + 4 + 9 + 16) / 16, rtol=1e-6)


def test_a_part_of_a_warp(random_warps):
    warps, _ = random_warps()
    warp = replace(warps[0], scale=np.full(warps[0].image.shape, 2, np.float32))
    box = Box(warp.box.y0 + 3, warp.box.x0 + 2, 5, 6)
    part, place = warp.cut(box), (slice(3, 8), slice(2, 8))
    assert part.box == box
    for name in ("image", "mask", "variance", "scale"):
        np.testing.assert_array_equal(getattr(part, name), getattr(warp, name)[place])


def test_no_input():
    out = RunningMean(Box(0, 0, 2, 3), MEAN, 1).result(Box(0, 0, 2, 3))
    assert np.isnan(out.image).all()
    assert (out.n_image == 0).all()
