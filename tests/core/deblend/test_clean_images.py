"""Stamps and exposures without neighbours: what is left and what was taken add up."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.deblend.clean import clean_image, clean_stamps
from coblend.core.deblend.collect import collect
from coblend.core.deblend.task import batches, make_plan
from coblend.core.deblend.work import deblend_work
from coblend.core.params.clean import CleanParams
from coblend.core.params.deblend import DeblendParams
from coblend.core.reconstruct.band import render_objects
from coblend.core.reconstruct.images import add_stamps

PAIR = [(30.2, 30.4, 800.0), (30.0, 41.0, 600.0)]
STAR = [(80.0, 90.0, 1e7), (80.0, 103.0, 4e5)]


@pytest.fixture(scope="module")
def scene(fields):
    """A faint pair, and far away a star ten thousand times as bright, with a neighbour."""
    cube, detections = fields.make_scene([PAIR, STAR], (120, 130))
    params = DeblendParams(max_iter=20)
    plan = make_plan(detections, cube, params)
    parts = batches(detections, cube, plan, params)
    results = [r for part in parts for r in deblend_work(part, params)]
    return collect(detections, cube, plan, results, params), cube


def test_what_is_left_and_what_was_taken_are_the_image(scene) -> None:
    models, cube = scene
    exposure = cube.exposure(1)
    others = np.zeros(exposure.box.shape)
    _, rendered, _ = render_objects(models, 1)
    add_stamps(others, exposure.box, rendered)
    alone = [clean_image(models, exposure, np.array([i]), CleanParams()).image for i in range(4)]
    for image in alone:  # together they hold all models, and the residual once each
        assert np.isfinite(image).all()
    total = np.sum(alone, 0, dtype=float) - 3 * (exposure.image - others)
    np.testing.assert_allclose(total, exposure.image, atol=1e-6 * exposure.image.max())


def test_a_bright_star_elsewhere_does_not_hollow_out_a_faint_object(scene) -> None:
    """Every pixel holds light or noise, however bright the rest of the exposure is."""
    models, cube = scene
    params = CleanParams(mode="noise", side=31)
    whole = clean_image(models, cube.exposure(1), np.array([0]), params).image
    ((stamp,),) = clean_stamps(models, cube.exposure(1), np.array([0]), params)
    assert (whole != 0).all()
    assert (stamp != 0).all()
    assert abs(whole[:50, 60:].std() - 1) < 0.05
    y, x = np.indices(whole.shape)
    aperture = np.hypot(y - 30.2, x - 30.4) < 7
    assert abs(whole[aperture].sum() / 800 - 1) < 0.1


@pytest.mark.parametrize("mode", ["subtract", "noise"])
def test_stamps_do_not_depend_on_how_many_are_rendered_together(scene, monkeypatch, mode) -> None:
    """Parent by parent and all at once: the same bytes, of stamps and of whole exposures."""
    models, cube = scene
    params, rows = CleanParams(mode=mode, side=31), np.array([0, 1, 3])
    made = []
    for limit in (1 << 30, 1):
        monkeypatch.setattr("coblend.core.deblend.clean._CHUNK", limit)
        parts = list(clean_stamps(models, cube.exposure(1), rows, params))
        whole = clean_image(models, cube.exposure(1), rows, params)
        made.append((len(parts), np.concatenate(parts).tobytes(), whole.image.tobytes()))
    assert [n for n, _, _ in made] == [1, 2]
    assert made[0][1:] == made[1][1:]
