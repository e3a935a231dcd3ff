"""Parents fitted in parts: every peak once, and passes repair what the cut spoils."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from coblend.core.deblend.blend import observe
from coblend.core.deblend.collect import collect
from coblend.core.deblend.split import find_parts, is_split
from coblend.core.deblend.task import batches, make_plan
from coblend.core.deblend.work import deblend_work
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.deblend import DeblendParams

JOINT = DeblendParams(max_iter=60)
PARTS = replace(JOINT, split="always")
UNEVEN = [(40.2, 30.3, 60000.0), (40.0, 42.4, 3000.0), (48.0, 70.0, 3000.0), (49.0, 78.0, 2500.0)]


def run(cube, detections, params) -> ModelSet:
    plan = make_plan(detections, cube, params)
    shares = batches(detections, cube, plan, params)
    results = [r for share in shares for r in deblend_work(share, params)]
    return collect(detections, cube, plan, results, params)


@pytest.fixture(scope="module")
def field(fields):
    return fields.make_scene([UNEVEN], (90, 110), radius=13)


def test_parts_hold_every_peak_once(field) -> None:
    cube, detections = field
    models = run(cube, detections, PARTS)
    assert models.parents["n_blend"][0] == len(models.blends) > 1
    assert sorted(models.objects["peak_id"]) == [1, 2, 3, 4]
    assert models.blends["n_object"].sum() == 4
    for blend in models.blends:
        rows = slice(blend["object0"], blend["object0"] + blend["n_object"])
        assert (models.objects["blend"][rows] == blend["id"]).all()
    owner = models.components["object"]
    assert (np.diff(owner) >= 0).all()
    # components lie about their own object's peak, whatever the order of the parts
    distance = np.hypot(models.components["peak_y"] - models.objects["iy"][owner],
                        models.components["peak_x"] - models.objects["ix"][owner])  # fmt: skip
    assert distance.max() < 2


def test_parts_fill_the_footprint_in_tight_windows(field) -> None:
    """Every pixel of the footprint is in one part, that of its peaks; no window could be less."""
    cube, detections = field
    plan = make_plan(detections, cube, PARTS)
    (batch,) = batches(detections, cube, plan, PARTS)
    footprint = batch.cuts[0].footprint[0]
    times = np.zeros(footprint.shape, int)
    parts = find_parts(observe(batch, PARTS).frames[0], batch, PARTS)
    assert len(parts) > 1
    for part in parts:
        times[part.window] += part.region
        rows, columns = np.nonzero(part.region)
        assert (rows.min(), columns.min()) == (0, 0)
        assert (rows.max() + 1, columns.max() + 1) == part.region.shape
        y, x = (
            where[part.peaks] - side.start
            for where, side in zip((batch.y, batch.x), part.window, strict=True)
        )
        assert part.region[y, x].all()
    np.testing.assert_array_equal(times, footprint)


def test_passes_bring_the_joint_fluxes(field) -> None:
    """Wings of a star twenty times brighter: taken by the faint one without coupling."""
    cube, detections = field
    fluxes = {}
    for name, params in (
        ("joint", JOINT), ("independent", replace(PARTS, coupling_passes=0)), ("coupled", PARTS),
    ):  # fmt: skip
        objects = run(cube, detections, params).objects
        fluxes[name] = np.sort(objects, order="peak_id")["model_flux_r"]
    truth = np.array([star[2] for star in UNEVEN])
    error = {name: np.abs(flux / truth - 1).max() for name, flux in fluxes.items()}
    assert error["coupled"] < 0.08
    assert error["coupled"] < error["joint"] + 0.05
    assert error["coupled"] <= error["independent"] + 0.005


def test_overlap_counts_the_sources_of_all_parts(fields) -> None:
    """Equal to sums over the models of the whole parent, whichever part they belong to."""
    cube, detections = fields.make_scene(
        [[*UNEVEN[:3], (49.0, 73.5, 2500.0)]], (90, 110), radius=13
    )
    models = run(cube, detections, PARTS)
    assert len(models.blends) > 1
    box = models.footprints.box(0)
    images = np.zeros((4, *box.shape))
    for k, row in enumerate(models.components):
        y, x = row["y0"] - box.y0, row["x0"] - box.x0
        images[row["object"], y : y + row["ny"], x : x + row["nx"]] += row[
            "spectrum_r"
        ] * models.morphology(k)
    for i, own in enumerate(images):
        others = (images.sum(0) - own)[own > 0]
        expected = others.sum(), others.max()
        found = models.objects["flux_overlap_r"][i], models.objects["max_overlap_r"][i]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.05)
    assert (models.objects["flux_overlap_r"] > 0).any()


def test_limits_decide(field) -> None:
    assert not is_split(4, 900, 1, JOINT)
    assert is_split(201, 900, 1, JOINT)
    assert is_split(2, 1_000_001, 1, JOINT)
    assert not is_split(500, 2_000_000, 1, replace(JOINT, split="never"))
    assert not is_split(1, 900, 1, PARTS)
    assert is_split(2, 900, 513, replace(JOINT, split="never"))
    assert not is_split(2, 900, 513, replace(JOINT, max_blend_memory=0))
    cube, detections = field
    models = run(cube, detections, replace(JOINT, joint_max_peaks=3))
    assert models.parents["n_blend"][0] > 1


def test_close_pair_cannot_be_cut(fields) -> None:
    cube, detections = fields.make_scene([[(30.0, 30.0, 4000.0), (30.0, 36.0, 4000.0)]], (60, 66))
    models, joint = run(cube, detections, PARTS), run(cube, detections, JOINT)
    assert models.parents["n_blend"][0] == 1
    assert models.morph.tobytes() == joint.morph.tobytes()


def test_memory_limit_splits_then_skips(field, fields) -> None:
    """Parts where the joint fit needs too much; no fit where the images alone do; or a failure."""
    cube, detections = field
    joint = run(cube, detections, replace(JOINT, max_iter=2)).parents["memory"][0]
    models = run(cube, detections, replace(JOINT, max_blend_memory=0.98 * joint))
    assert models.parents["n_blend"][0] > 1
    assert models.parents["n_pass"][0] == JOINT.coupling_passes
    skipped = run(cube, detections, replace(JOINT, max_blend_memory=1.0))
    assert skipped.parents["flags"][0] == FLAGS["skipped_too_big"] | FLAGS["skipped"]
    assert len(skipped.objects) == len(models.objects)
    pair = fields.make_scene([[(30.0, 30.0, 4000.0), (30.0, 36.0, 4000.0)]], (60, 66))
    needed = run(*pair, JOINT).parents["memory"][0]
    failed = run(*pair, replace(JOINT, max_blend_memory=0.98 * needed))
    assert failed.parents["error"][0] == "MemoryLimit"


@pytest.mark.parametrize("n", [3, 12])
def test_memory_is_not_underestimated(fields, rng, n: int) -> None:
    """The traced peak of a fit, and no more than thrice that of what was announced."""
    stars = [(25 + 12 * (i // 4) + rng.uniform(), 25 + 12 * (i % 4), 3000.0) for i in range(n)]
    cube, detections = fields.make_scene([stars], (90, 90))
    plan = make_plan(detections, cube, JOINT)
    (batch,) = batches(detections, cube, plan, JOINT)
    deblend_work(batch, JOINT)  # caches
    tracemalloc.start()
    deblend_work(batch, JOINT)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak < plan.memory[0] < 4 * peak + 1


def test_a_part_without_data_fails_alone(field) -> None:
    cube, detections = field
    images = cube.images.copy()
    images[:, 30:, 58:] = np.nan
    models = run(replace(cube, images=images), detections, PARTS)
    failed = models.objects["flag_failed"]
    assert models.parents["error"][0] == "NoData"
    assert models.parents["flag_child_failed"][0]
    assert not models.parents["flag_failed"][0]
    assert 0 < failed.sum() < 4
    assert np.isfinite(models.objects["model_flux_r"][~failed]).all()
