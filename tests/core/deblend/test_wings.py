"""Wings of bright stars: fitted as round profiles, in small stamps, and kept off other sources."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.deblend.batch import Batch
from coblend.core.deblend.blend import observe
from coblend.core.deblend.collect import collect
from coblend.core.deblend.fitting.components import Centres
from coblend.core.deblend.task import batches, make_plan
from coblend.core.deblend.wings import find_wings
from coblend.core.deblend.work import deblend_work
from coblend.core.exposure import Cube
from coblend.core.model import ModelSet
from coblend.core.params.deblend import DeblendParams
from coblend.core.psf.stamp import StampPsf

SIZE = 320
FREE = DeblendParams(wing_radius=0, max_iter=20)
ROUND = replace(FREE, wing_radius=50)


def star(y: float, x: float, side: tuple[int, int], fwhm: float = 4.0) -> np.ndarray:
    """A Moffat core with an aureole of 4 % that falls like ``r^-2.6``."""
    r2 = (np.arange(side[0])[:, None] - y) ** 2 + (np.arange(side[1]) - x) ** 2
    scale = (fwhm / 2) ** 2 / (2 ** (1 / 3) - 1)
    core = 2 / (np.pi * scale) * (1 + r2 / scale) ** -3.0
    return 0.96 * core + 0.04 * 0.3 / (np.pi * 64) * (1 + r2 / 64) ** -1.3


def scene(fields, bright: float, seed: int = 4, places=((SIZE / 2 + 0.2, SIZE / 2 - 0.3),)):
    """Stars of flux ``bright``, by default in the middle, among 20 of flux 3000."""
    rng = np.random.default_rng(seed)
    stars = [(*place, bright) for place in places]
    while len(stars) < 20 + len(places):
        place = rng.uniform(25, SIZE - 25, 2)
        if all(np.hypot(*(place - other[:2])) > 28 for other in stars):
            stars.append((*place, 3000.0))
    colour = np.array([0.7, 1.0])
    sky = sum(flux * star(y, x, (SIZE, SIZE)) for y, x, flux in stars)
    truth = colour[:, None, None] * sky
    variance = 1 + truth / 300
    image = truth + np.sqrt(variance) * rng.normal(size=truth.shape)
    stamp = star(20, 20, (41, 41))
    cube = Cube(
        image.astype("f4"), variance.astype("f4"), np.zeros(image.shape, np.int32), ("g", "r"),
        (StampPsf(stamp),) * 2, Box(50, 80, SIZE, SIZE), units=("nJy",) * 2,
    )  # fmt: skip
    return cube, fields.detections_of([stars], cube, SIZE)


def run(cube, detections, params) -> ModelSet:
    plan = make_plan(detections, cube, params)
    results = [r for b in batches(detections, cube, plan, params) for r in deblend_work(b, params)]
    return collect(detections, cube, plan, results, params)


def traced(cube, detections, params) -> tuple[ModelSet, float]:
    tracemalloc.start()
    models = run(cube, detections, params)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return models, peak


def centres_of(batch: Batch) -> Centres:
    n = len(batch.y)
    return Centres(batch.blend, np.arange(n), batch.y, batch.x, np.full(n, SIZE), np.full(n, SIZE))


@pytest.fixture(scope="module")
def bright(fields):
    return scene(fields, 3e6)


def test_wings_need_no_large_stamps(bright) -> None:
    """One wide component, fitted by rings: nearly as good a fit, in less memory, and truer."""
    cube, detections = bright
    (free, much), (rings, little) = (traced(cube, detections, params) for params in (FREE, ROUND))
    assert much > 2 * little
    assert rings.parents["log_likelihood"][0] > 1.06 * free.parents["log_likelihood"][0]
    wide = rings.components["ny"] > 131
    assert rings.components["object"][wide].tolist() == [0]
    errors = [
        np.median(np.abs(models.objects["model_flux_r"][1:] / 3000 - 1))
        for models in (free, rings)
    ]
    assert errors[1] < 0.03 < errors[0]
    assert abs(rings.objects["model_flux_r"][0] / 3e6 - 1) < 0.02


def test_the_profile_is_that_of_the_star(bright) -> None:
    cube, detections = bright
    plan = make_plan(detections, cube, ROUND)
    (batch,) = batches(detections, cube, plan, ROUND)
    wings = find_wings(observe(batch, ROUND), centres_of(batch), ROUND)
    assert wings is not None
    assert wings.centres.source.tolist() == [0]
    (stack,) = wings.stacks
    morph = stack.morph[0] * wings.spectra[0][1]
    truth = 3e6 * star(SIZE / 2 + 0.2, SIZE / 2 - 0.3, (SIZE, SIZE))[SIZE // 2, SIZE // 2 :]
    for distance in (55, 65, 75):
        own = morph[stack.radius, stack.radius + distance]
        assert abs(own / truth[distance] - 1) < 0.15
    np.testing.assert_allclose(wings.spectra[0][0] / wings.spectra[0][1], 0.7, rtol=0.05)


def test_fields_without_bright_stars_have_no_wings(fields) -> None:
    """Neither faint stars nor one side of a bright ring is taken for a wing."""
    cube, detections = scene(fields, 3e4)
    plan = make_plan(detections, cube, ROUND)
    (batch,) = batches(detections, cube, plan, ROUND)
    assert find_wings(observe(batch, ROUND), centres_of(batch), ROUND) is None
    images = cube.images.copy()
    images[:, :, : SIZE // 2] += 20
    (batch,) = batches(detections, replace(cube, images=images), plan, ROUND)
    wings = find_wings(observe(batch, ROUND), centres_of(batch), ROUND)
    assert wings is None or 0 not in wings.centres.source


def test_a_large_galaxy_has_no_wing(fields) -> None:
    """A round disk of scale 16 px is bright and even at the first ring, too, but not steep."""
    cube, detections = scene(fields, 3e4)
    y, x = np.indices((SIZE, SIZE)) - SIZE / 2
    disk = (300 * np.exp(-np.hypot(y, x) / 16)).astype("f4")
    plan = make_plan(detections, cube, ROUND)
    (batch,) = batches(detections, replace(cube, images=cube.images + disk), plan, ROUND)
    assert find_wings(observe(batch, ROUND), centres_of(batch), ROUND) is None


def test_a_star_without_usable_core_has_its_wing(bright) -> None:
    cube, detections = bright
    masks = cube.masks.copy()
    masks[cube.images > 3000] = cube.planes.value(["SAT"])
    assert (masks != 0).sum() > 100
    saturated = replace(cube, masks=masks)
    plan = make_plan(detections, saturated, ROUND)
    (batch,) = batches(detections, saturated, plan, ROUND)
    wings = find_wings(observe(batch, ROUND), centres_of(batch), ROUND)
    assert wings is not None
    assert wings.centres.source.tolist() == [0]


def test_a_faint_star_amid_bright_ones_has_no_wing(fields) -> None:
    """Four bright stars at the distance of its first ring, which therefore is bright all round."""
    middle = SIZE / 2
    places = [(middle + dy, middle + dx) for dy, dx in ((55, 0), (-55, 0), (0, 55), (0, -55))]
    cube, detections = scene(fields, 3e5, places=[*places, (middle, middle)])
    images = cube.images.copy()
    images -= np.array([0.7, 1.0])[:, None, None] * 2.97e5 * star(middle, middle, (SIZE, SIZE))
    cube = replace(cube, images=images)
    plan = make_plan(detections, cube, ROUND)
    (batch,) = batches(detections, cube, plan, ROUND)
    wings = find_wings(observe(batch, ROUND), centres_of(batch), ROUND)
    assert wings is None or 4 not in wings.centres.source


def test_a_star_in_the_corner_of_the_frame(fields) -> None:
    """A quarter of its wing is seen: the neighbours in it keep their fluxes all the same."""
    cube, detections = scene(fields, 3e6, places=[(12.3, 11.8)])
    objects = run(cube, detections, ROUND).objects
    distance = np.hypot(objects["y"] - cube.box.y0 - 12.3, objects["x"] - cube.box.x0 - 11.8)
    error = objects["model_flux_r"] / 3000 - 1
    near = (distance > 40) & (distance < 200)
    assert np.count_nonzero(near) >= 4
    assert abs(np.median(error[near])) < 0.05
    assert np.median(np.abs(error[near])) < 0.05
    assert abs(objects["model_flux_r"][0] / 3e6 - 1) < 0.05


def test_unseen_surroundings_give_no_wing(bright) -> None:
    cube, detections = bright
    weights = make_plan(detections, cube, ROUND)
    hidden = replace(weights, weights=weights.weights * 0)
    (batch,) = batches(detections, cube, hidden, ROUND)
    assert find_wings(observe(batch, ROUND), centres_of(batch), ROUND) is None
