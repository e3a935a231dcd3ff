"""One band of a chunk: conservation, special objects, options."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.footprint import expand_runs
from coblend.core.kernels import model_psf
from coblend.core.model import ModelSet
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.band import BandLight, reconstruct_band, render_objects
from coblend.core.reconstruct.frames import cut_frames, memory_needed
from coblend.core.reconstruct.images import add_stamps, cut_image
from coblend.io.deblend.nested import (
    NestedBlend,
    NestedComponent,
    NestedObject,
    NestedParent,
    flatten,
)

BAND = 1


def share(models: ModelSet, exposure: Exposure | None, total=None, **options: object) -> BandLight:
    params = ReconstructParams(**options)  # type: ignore[arg-type]
    frames = cut_frames(models, exposure, params.bad_mask)
    around = None if total is None else cut_image(total, models.box, frames)
    return reconstruct_band(models, frames, BAND, params, around, with_models=True)


def sum_of(light: BandLight, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Sum of all objects' light over a box, and how many objects each pixel has."""
    spans = light.footprints.spans.astype(np.int64)
    start = (spans[:, 0] - box.y0) * box.nx + spans[:, 1] - box.x0
    pixel = expand_runs(start, spans[:, 2] - spans[:, 1] + 1)
    total = np.bincount(pixel, light.light, minlength=box.area)
    return total.reshape(box.shape), np.bincount(pixel, minlength=box.area).reshape(box.shape)


def one_blend(*sources: tuple[int, int, np.ndarray, float], psf: np.ndarray, size: int = 41):
    """A parent of ``size`` pixels whose footprint is its box; sources are y, x, morph, flux."""
    objects = []
    for i, (y, x, morph, flux) in enumerate(sources):
        h = morph.shape[0] // 2
        component = NestedComponent(y - h, x - h, morph, np.full(2, flux), (y, x))
        objects.append(NestedObject(i + 1, (y, x), [component]))
    box = Box(0, 0, size, size)
    blend = NestedBlend(7, box, objects)
    parent = NestedParent(3, 0, 0, np.ones((size, size), bool), [blend])
    return flatten([parent], ("g", "r"), np.stack([[psf, psf]]), np.zeros((1, 2)), box, "nJy")


@pytest.fixture
def models(rng: np.random.Generator, scenes) -> ModelSet:
    """Parents of 1 to 4 objects with PSFs whose kernels have negative lobes."""
    return scenes.make_models(rng, 12, psf=scenes.ringing_psf, n_cell=2, kinds=True)


@pytest.fixture
def exposure(models: ModelSet, rng: np.random.Generator, scenes) -> Exposure:
    return scenes.make_exposure(models, "r", rng)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_reg": 0.0},
        {"min_ratio": 1e-3},
        {"mask_footprint": False},
        {"stray": "nearest"},
        {"stray": "r-to-peak"},
    ],
    ids=str,
)
def test_light_is_conserved(models: ModelSet, exposure: Exposure, options: dict) -> None:
    light = share(models, exposure, **options)
    total, owners = sum_of(light, models.box)
    dark = light.objects["zero_flux"]
    assert dark.sum() == 1  # the object without components; its one pixel holds 0
    difference = np.abs(total - exposure.image)[owners > 0]
    assert difference.max() < 1e-9
    if options.get("stray", "none") != "none":
        inside = models.footprints.labels(models.box) > 0
        assert np.all(owners[inside] > 0)


@pytest.mark.parametrize("options", [{}, {"min_ratio": 1e-3}, {"stray": "nearest"}], ids=str)
def test_light_of_trails_is_conserved(models: ModelSet, exposure: Exposure, options: dict) -> None:
    """Whoever gets it: saturated rows across all parents."""
    before = share(models, exposure, **options)
    exposure.image[::23] += 1e4
    exposure.mask[::23] = exposure.planes.value(["SAT"])
    light = share(models, exposure, **options)
    total, owners = sum_of(light, models.box)
    assert np.abs(total - exposure.image)[owners > 0].max() < 1e-9
    assert light.footprints.areas.sum() > before.footprints.areas.sum()  # beyond their templates
    gained = np.nan_to_num(light.objects["flux"] - before.objects["flux"])
    per_parent = np.split(gained, np.flatnonzero(np.diff(models.objects["parent"])) + 1)
    crowded = [np.sort(one) for one in per_parent if len(one) > 2]
    assert sum(one[-1] > 1e4 and one[0] < 1e3 for one in crowded) > len(crowded) / 2


def test_the_reference_formula_does_not_conserve_light(scenes, rng: np.random.Generator) -> None:
    """Two sharp objects within each other's dark ring: absolute values add up to too much."""
    spike = np.zeros((3, 3), np.float32)
    spike[1, 1] = 1.0
    psf = scenes.ringing_psf(3.0, 33)
    models = one_blend((20, 18, spike, 900.0), (20, 23, spike, 700.0), psf=psf)
    assert render_objects(models, BAND)[1].values.min() < -0.1
    exposure = scenes.make_exposure(models, "r", rng)
    reference = share(models, exposure, weights="reference")
    total, _ = sum_of(reference, models.box)
    assert np.abs(total - exposure.image).max() > 0.1
    assert reference.objects["flux"].sum() > exposure.image.sum() + 1
    ours = share(models, exposure, stray="nearest")
    total, _ = sum_of(ours, models.box)
    assert np.abs(total - exposure.image).max() < 1e-9


def test_lone_objects_get_their_footprint_bit_for_bit(
    models: ModelSet, exposure: Exposure
) -> None:
    light = share(models, exposure)
    isolated = np.flatnonzero(models.objects["flag_isolated"])
    assert len(isolated) == 3
    ends = np.concatenate([[0], np.cumsum(light.footprints.areas)])
    for row in isolated:
        parent = int(np.flatnonzero(models.parents["id"] == models.objects["parent"][row])[0])
        assert np.array_equal(light.footprints.of(row), models.footprints.of(parent))
        mask = models.footprints.mask(parent, models.box)
        assert np.array_equal(
            light.light[ends[row] : ends[row + 1]].astype(np.float32), exposure.image[mask]
        )
    assert np.all(np.isnan(light.objects["model_flux"][isolated]))


def test_the_only_modelled_object_gets_everything(scenes, rng: np.random.Generator) -> None:
    models = one_blend((20, 20, scenes.galaxy(rng, 8), 50.0), psf=scenes.moffat(3.0, 15))
    exposure = scenes.make_exposure(models, "r", rng)
    light = share(models, exposure)
    assert light.light.astype(np.float32).tolist() == exposure.image.ravel().tolist()
    assert light.parents["n_stray"][0] == 0


def test_identical_objects_share_equally(scenes, rng: np.random.Generator) -> None:
    morph = scenes.galaxy(rng, 8)
    models = one_blend(
        (20, 20, morph, 50.0), (20, 20, morph, 50.0), psf=scenes.ringing_psf(3.0, 21)
    )
    light = share(models, scenes.make_exposure(models, "r", rng))
    first, second = light.objects
    assert first["flux"] == second["flux"]
    assert first["flux_err"] == second["flux_err"]
    assert first["blendedness"] == pytest.approx(0.5)
    assert first["flux_overlap_frac"] == pytest.approx(1.0)


def test_an_object_without_flux_in_the_band_gets_nothing(scenes, rng: np.random.Generator) -> None:
    morph = scenes.galaxy(rng, 8)
    models = one_blend((20, 20, morph, 50.0), (22, 20, morph, 1e-20), psf=scenes.moffat(3.0, 15))
    exposure = scenes.make_exposure(models, "r", rng)
    light = share(models, exposure)
    assert light.objects["zero_flux"].tolist() == [False, True]
    assert light.objects["flux"][1] == 0.0
    assert light.footprints.of(1).tolist() == [[22, 20, 20]]
    assert np.isnan(light.objects["flux_err"][1])
    total, _ = sum_of(light, models.box)
    reached = total != 0
    assert np.array_equal(total[reached].astype(np.float32), exposure.image[reached])


def test_a_small_change_of_the_models_moves_no_pixel_far(
    models: ModelSet, exposure: Exposure, rng: np.random.Generator
) -> None:
    """Perturbed by at most 0.003 noise in any convolved pixel, light moves by less than 0.01."""
    before = share(models, exposure, kernel_reg=0.0)
    spectra = {
        f"spectrum_{b}": models.components[f"spectrum_{b}"]
        * (1 + 2e-4 * rng.uniform(-1, 1, len(models.components)))
        for b in models.bands
    }
    moved = models.components.copy()
    for name, values in spectra.items():
        moved[name] = values
    changed = replace(models, components=moved)
    old = render_objects(models, BAND, 0.0)[1]
    new = render_objects(changed, BAND, 0.0)[1]
    assert 1e-4 < np.abs(old.values - new.values).max() < 3e-3
    after = share(changed, exposure, kernel_reg=0.0)
    assert np.array_equal(before.footprints.spans, after.footprints.spans)
    assert np.abs(before.light - after.light).max() < 0.01


def test_light_is_the_same_without_the_wings_of_models(
    models: ModelSet, exposure: Exposure
) -> None:
    whole = share(models, exposure)
    params = ReconstructParams()
    frames = cut_frames(models, exposure, params.bad_mask)
    confined = reconstruct_band(models, frames, BAND, params)
    assert not len(confined.rendered)
    assert np.array_equal(confined.footprints.spans, whole.footprints.spans)
    np.testing.assert_allclose(confined.light, whole.light, rtol=0, atol=1e-9)
    for name in ("flux", "flux_err", "model_flux", "chi2"):
        np.testing.assert_allclose(confined.objects[name], whole.objects[name], rtol=1e-9)


def test_models_alone_need_no_image(models: ModelSet, exposure: Exposure) -> None:
    light = share(models, None, kind="model", mask_footprint=False)
    rendered = light.rendered
    modelled = np.flatnonzero(models.objects["n_component"])
    ends = np.concatenate([[0], np.cumsum(light.footprints.areas)])
    for i, row in enumerate(modelled[:6]):
        mine = light.light[ends[row] : ends[row + 1]]
        assert mine.sum() == pytest.approx(rendered.stamp(i).sum(), rel=0.02)
    isolated = models.objects["flag_isolated"]
    assert np.all(np.isnan(light.objects["flux"][isolated]))
    assert np.all(light.footprints.areas[isolated] == 0)
    with_image = share(models, exposure, kind="model", mask_footprint=False)
    assert np.array_equal(with_image.light, light.light)


def test_a_delta_rendered_with_its_own_psf_is_the_model(scenes) -> None:
    morph = model_psf().astype(np.float32)
    models = one_blend((20, 20, morph, 9.0), (12, 20, morph, 3.0), psf=model_psf())
    light = share(models, None, kind="model", kernel_reg=0.0)
    total, _ = sum_of(light, models.box)
    expected = np.zeros((41, 41))
    expected[13:28, 13:28] += 9 * morph
    expected[5:20, 13:28] += 3 * morph
    np.testing.assert_allclose(total, expected, atol=1e-5)


@pytest.mark.parametrize("rule", ["keep", "model", "zero"])
def test_bad_pixels(models: ModelSet, exposure: Exposure, rule: str) -> None:
    row = int(np.flatnonzero(models.objects["n_component"])[0])
    y, x = models.objects["iy"][row] - models.box.y0, models.objects["ix"][row] - models.box.x0
    exposure.image[y, x] = 1e4
    exposure.mask[y, x] = 1 << exposure.planes.bits["SAT"]
    light = share(models, exposure, fill_bad=rule)
    peak = light.objects["peak_flux"][row]
    assert light.objects["bad_frac"][row] == pytest.approx(1 / light.objects["n_pix"][row])
    assert light.objects["coverage"][row] == 1.0
    if rule == "keep":
        assert peak > 1e3
    elif rule == "zero":
        assert peak == 0.0
    else:
        stamp = int(np.searchsorted(np.flatnonzero(models.objects["n_component"]), row))
        y0, x0 = light.rendered.boxes[stamp, :2]
        own = light.rendered.stamp(stamp)[y + models.box.y0 - y0, x + models.box.x0 - x0]
        assert peak == pytest.approx(own, rel=1e-6)


def test_pixels_without_data_count_for_coverage_only(models: ModelSet, exposure: Exposure) -> None:
    row = int(np.flatnonzero(models.objects["n_component"])[0])
    y, x = models.objects["iy"][row] - models.box.y0, models.objects["ix"][row] - models.box.x0
    exposure.image[y, x] = np.nan
    light = share(models, exposure)
    n = light.objects["n_pix"][row]
    assert light.objects["coverage"][row] == pytest.approx(1 - 1 / n)
    assert light.objects["peak_flux"][row] == 0.0
    assert np.isfinite(light.objects["flux"]).all()
    assert np.isfinite(light.light).all()


def test_neighbours_keep_their_wings(scenes, rng: np.random.Generator) -> None:
    """A bright object of another parent: with its templates, its wing is left to it."""
    morph = scenes.galaxy(rng, 8)
    psf = scenes.moffat(4.0, 33)
    mask = np.ones((30, 30), bool)

    def parent(number: int, x0: int, flux: float) -> NestedParent:
        objects = []
        for k, dx in enumerate((0, 4)):
            peak = (15, x0 + 15 + dx)
            component = NestedComponent(7, x0 + 7 + dx, morph, np.full(2, flux), peak)
            objects.append(NestedObject(10 * number + k, peak, [component]))
        blend = NestedBlend(number, Box(0, x0, 30, 30), objects)
        return NestedParent(number, 0, x0, mask, [blend])

    parents = [parent(1, 0, 10.0), parent(2, 30, 1e4)]
    psfs, places = np.stack([[psf, psf]]), np.zeros((1, 2))
    models = flatten(parents, ("g", "r"), psfs, places, Box(0, 0, 30, 60), "nJy")
    exposure = scenes.make_exposure(models, "r")
    total = np.zeros(models.box.shape)
    templates = render_objects(models, BAND)[2]
    add_stamps(total, models.box, templates)
    alone, shared = share(models, exposure), share(models, exposure, total)
    truth = light_of(render_objects(models, BAND)[1], models)
    assert alone.objects["flux"][1] > 1.2 * truth[1]
    np.testing.assert_allclose(shared.objects["flux"][:2], truth[:2], rtol=0.02)


def light_of(rendered, models: ModelSet) -> np.ndarray:
    """Light of the rendered models inside their parents' footprints."""
    out = []
    for i in range(len(rendered)):
        image = np.zeros(models.box.shape)
        y0, x0, ny, nx = rendered.boxes[i].tolist()
        own = Box(y0, x0, ny, nx)
        common = own & models.box
        image[common.slices(models.box)] = rendered.stamp(i)[common.slices(own)]
        parent = int(np.flatnonzero(models.parents["id"] == models.objects["parent"][i])[0])
        out.append(image[models.footprints.mask(parent, models.box)].sum())
    return np.array(out)


def test_a_chunk_gives_what_its_parents_give_alone(
    models: ModelSet, exposure: Exposure, tmp_path
) -> None:
    from coblend.io.deblend.models import ModelFile, write_models
    from coblend.io.fits.writer import create

    path = str(tmp_path / "m.fits")
    with create(path, "deblended/1") as out:
        write_models(out, models)
    with ModelFile(path) as file:
        whole = share(file.read(), exposure)
        parts = [share(file.parents(i, i + 1), exposure) for i in range(len(file))]
    assert np.array_equal(np.concatenate([p.light for p in parts]), whole.light)
    table = np.concatenate([p.objects for p in parts])
    assert table.tobytes() == whole.objects.tobytes()


@pytest.mark.parametrize(("rule", "limit"), [("none", 1.2e9), ("nearest", 1.6e9)])
def test_memory_of_a_large_parent(
    scenes, rng: np.random.Generator, rule: str, limit: float
) -> None:
    """600 objects in 4000 x 4000 pixels need less than 2 GB: the same, scaled to 1000 x 1000.

    Beside the exposure and libraries (0.35 GB), and within what is asked for beforehand.
    """
    size, profile = 1000, scenes.galaxy(rng, 30)
    places = rng.integers(31, size - 31, (38, 2)).tolist()
    sources = [(y, x, profile, 50.0) for y, x in places]
    models = one_blend(*sources, psf=scenes.moffat(4.0, 41), size=size)
    exposure = scenes.make_exposure(models, "r", rng)
    tracemalloc.start()
    try:
        share(models, exposure, stray=rule)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak * 16 < limit
    assert peak <= 1.1 * memory_needed(models.parents, rule)[0]


def test_objects_that_were_not_deblended_stay_empty(scenes, rng: np.random.Generator) -> None:
    objects = [NestedObject(i, (5, 5 + i), flags=("skipped_too_big",)) for i in range(2)]
    parent = NestedParent(1, 0, 0, np.ones((20, 20), bool), objects=objects)
    models = flatten([parent], ("g", "r"), np.stack([[scenes.moffat(3.0, 15)] * 2]),
                     np.zeros((1, 2)), Box(0, 0, 20, 20), "nJy")  # fmt: skip
    light = share(models, scenes.make_exposure(models, "r", rng))
    assert np.all(np.isnan(light.objects["flux"]))
    assert not light.objects["zero_flux"].any()
    assert len(light.light) == 0


def test_nothing_at_all(scenes) -> None:
    models = flatten([], ("g", "r"), np.stack([[scenes.moffat(3.0, 15)] * 2]),
                     np.zeros((1, 2)), Box(0, 0, 20, 20), "nJy")  # fmt: skip
    light = share(models, scenes.make_exposure(models, "r"))
    assert len(light.objects) == len(light.light) == len(light.footprints) == 0
