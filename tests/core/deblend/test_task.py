"""The deblender's task: every peak has a row, and nothing that fails harms its neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.deblend.collect import collect, not_deblended
from coblend.core.deblend.guard import guarded
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.task import batches, evaluate_psfs, plan
from coblend.core.deblend.work import deblend_work
from coblend.core.errors import FormatError, ParameterError, ShapeMismatchError
from coblend.core.exposure import Cube
from coblend.core.mask import STANDARD
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.deblend import DeblendParams

PAIR = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
TRIPLE = [(80.3, 35.0, 3000.0), (80.0, 43.8, 3000.0), (87.5, 39.1, 2000.0)]
LONE = [(30.3, 90.2, 1500.0)]
SHAPE = (130, 130)
FAST = DeblendParams(max_iter=12, min_iter=2)


def run(cube: Cube, detections, params: DeblendParams = FAST) -> ModelSet:
    work = plan(detections, cube, params)
    results = [
        r for batch in batches(detections, cube, work, params) for r in deblend_work(batch, params)
    ]
    return collect(detections, cube, work, results, params)


def same_blend(a: ModelSet, i: int, b: ModelSet, j: int) -> None:
    """Blend i of a and blend j of b agree bit for bit, identifiers apart."""
    for one, k, other, m in ((a, i, b, j),):
        first, second = one.blends[k], other.blends[m]
        rows = slice(first["component0"], first["component0"] + first["n_component"])
        again = slice(second["component0"], second["component0"] + second["n_component"])
        np.testing.assert_array_equal(one.spectra()[rows], other.spectra()[again])
        np.testing.assert_array_equal(
            one.morph[slice(*one.morph_offsets[[rows.start, rows.stop]])],
            other.morph[slice(*other.morph_offsets[[again.start, again.stop]])],
        )
        assert first["log_likelihood"] == second["log_likelihood"]


@pytest.fixture(scope="module")
def field(fields):
    return fields.make_scene([PAIR, LONE, TRIPLE], SHAPE)


def test_every_peak_has_one_row_and_blends_are_contiguous(field) -> None:
    cube, detections = field
    models = run(cube, detections)
    assert sorted(models.objects["peak_id"]) == sorted(detections.peaks["id"])
    assert len(np.unique(models.objects["id"])) == len(models.objects)
    assert models.parents["n_child"].tolist() == [2, 1, 3]
    for blend in models.blends:
        rows = slice(blend["object0"], blend["object0"] + blend["n_object"])
        assert (models.objects["blend"][rows] == blend["id"]).all()
    assert models.objects["id"][2] == 2  # an isolated object keeps its parent's


def test_isolated_star_has_its_psf_flux(fields) -> None:
    """Unbiased over 24 stars at random sub-pixel places, scatter as the errors say, chi2 of 1."""
    rng = np.random.default_rng(3)
    groups = [
        [(20 + 25 * i + rng.uniform(-0.5, 0.5), 20 + 25 * j + rng.uniform(-0.5, 0.5), 1000.0)]
        for i in range(4)
        for j in range(6)
    ]
    cube, detections = fields.make_scene(groups, (120, 165))
    objects = run(cube, detections).objects
    for b, band in enumerate(cube.bands):
        pull = (objects[f"model_flux_{band}"] - 1000 * fields.COLOUR[b]) / objects[
            f"model_flux_err_{band}"
        ]
        assert abs(pull.mean()) < 4 / np.sqrt(24)
        assert 0.6 < pull.std() < 1.5
    assert abs(objects["chi2"].mean() - 1) < 0.05
    np.testing.assert_allclose(
        objects["model_flux_err_r"], np.sqrt(4 * np.pi) * fields.SIGMA, rtol=0.02
    )
    silent = run(cube, detections, replace(FAST, single_psf_flux=False)).objects
    assert np.isnan(silent["model_flux_r"]).all()


def test_sky_peak_before_a_real_one(field) -> None:
    """It is not fitted, comes last in its parent and takes nothing from the real peaks."""
    cube, detections = field
    reference = run(cube, detections)
    first = detections.parents["peak0"][2]
    peaks = np.insert(detections.peaks, first, detections.peaks[first])
    peaks[first]["id"], peaks[first]["merge_peak_sky"] = 99, True
    peaks[first]["ix"] += 5
    parents = detections.parents.copy()
    parents["npeak"][2] += 1
    models = run(cube, replace(detections, parents=parents, peaks=peaks))
    assert models.objects["peak_id"].tolist() == [*reference.objects["peak_id"], 99]
    assert models.objects["flags"][-1] == FLAGS["skipped_pseudo"]
    assert models.objects["blend"][-1] == 0
    for i in range(2):
        same_blend(models, i, reference, i)


def test_parent_without_real_peaks_passes_through(field) -> None:
    cube, detections = field
    peaks = detections.peaks.copy()
    peaks["merge_peak_sky"][:2] = True
    models = run(cube, replace(detections, peaks=peaks))
    assert (models.objects["flags"][:2] == FLAGS["skipped_pseudo"]).all()
    assert models.objects["id"][0] == 1
    assert len(np.unique(models.objects["id"])) == len(models.objects)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"max_number_of_peaks": 2}, "skipped_too_many_peaks"),
        ({"max_footprint_area": 600}, "skipped_too_big"),
        ({"max_footprint_size": 28}, None),
        ({"max_area_times_peaks": 1500}, "skipped_too_big"),
        ({"mask_limits": ("SAT=0.1",)}, "skipped_masked"),
    ],
)
def test_skip_rules_flag_and_mask_exactly_their_parents(field, options, flag) -> None:
    """The triple is skipped, with its spans as NOT_DEBLENDED, and has all its rows."""
    cube, detections = field
    masks = cube.masks.copy()
    footprint = detections.footprints.mask(2, cube.box)
    masks[1][footprint & (np.arange(130) < 40)] |= 1 << 1
    models = run(replace(cube, masks=masks), detections, replace(FAST, **options))
    expected = [0, FLAGS["isolated"], 0 if flag is None else FLAGS[flag]]
    bits = FLAGS["isolated"] | sum(v for k, v in FLAGS.items() if k.startswith("skipped"))
    assert (models.parents["flags"] & bits).tolist() == expected
    plane = STANDARD.value(["NOT_DEBLENDED"])
    np.testing.assert_array_equal(not_deblended(models) == plane, footprint & (flag is not None))
    assert len(models.objects) == len(detections.peaks)


def test_nan_psf_of_one_parent_leaves_the_others_bit_identical(field, fields) -> None:
    cube, detections = field
    reference = run(replace(cube, psfs=(fields.HolePsf((0, 0), 1),) * 3),
                    fields.only(detections, [0, 1]))  # fmt: skip
    hole = fields.HolePsf((288, 160), 20)
    models = run(replace(cube, psfs=(hole,) * 3), detections)
    assert models.parents["error"].tolist() == ["", "", "NoPsf"]
    assert (models.objects["flags"][3:] & FLAGS["failed"] != 0).all()
    assert len(models.blends) == 1
    assert np.isfinite(models.psfs).all()
    same_blend(models, 0, reference, 0)
    np.testing.assert_array_equal(models.objects["model_flux_r"][:3],
                                  reference.objects["model_flux_r"])  # fmt: skip


def test_nan_pixels_of_one_parent_leave_the_others_bit_identical(field, fields) -> None:
    cube, detections = field
    images = cube.images.copy()
    images[:, detections.footprints.mask(2, cube.box)] = np.nan
    poisoned = replace(cube, images=images)
    models = run(poisoned, detections)
    assert models.parents["error"].tolist() == ["", "", "NoData"]
    same_blend(models, 0, run(poisoned, fields.only(detections, [0])), 0)


@pytest.mark.parametrize("cause", ["psf", "data"])
def test_band_missing_in_one_parent(field, fields, cause) -> None:
    """Fitted without it: NaN columns there, the other bands as in a run without the band."""
    cube, detections = field
    if cause == "psf":
        psfs = (*cube.psfs[:2], fields.HolePsf((288, 160), 20))
        broken = replace(cube, psfs=psfs)
    else:
        images = cube.images.copy()
        images[2, detections.footprints.mask(2, cube.box)] = np.nan
        broken = replace(cube, images=images)
    models = run(broken, detections)
    assert models.parents["flag_bands_missing"].tolist() == [False, False, True]
    assert not models.parents["flag_failed"].any()
    objects = models.objects[3:]
    for name in ("model_flux_i", "model_flux_err_i", "blendedness_i"):
        assert np.isnan(objects[name]).all()
    assert objects["flag_no_data"].all()
    np.testing.assert_allclose(objects["model_flux_r"], [3000, 3000, 2000], rtol=0.05)


def test_evaluate_psfs_pads_and_shares() -> None:
    from coblend.core.psf.stamp import StampPsf

    small, large = StampPsf(np.ones((3, 3))), StampPsf(np.ones((5, 5)))
    stamps, places, missing, cell = evaluate_psfs(
        [small, large, None], np.array([[3.0, 4], [900, 900]]), 64
    )
    assert stamps.shape == (1, 3, 5, 5)
    assert places.shape == (1, 2)
    assert cell.tolist() == [0, 0]
    np.testing.assert_allclose(stamps[0, 0], np.pad(np.full((3, 3), 1 / 9), 1), rtol=1e-6)
    assert missing.tolist() == [[False, False, True]]


def test_no_parents_give_empty_tables(field, fields) -> None:
    cube, detections = field
    empty = replace(
        detections, parents=detections.parents[:0], peaks=detections.peaks[:0],
        footprints=detections.footprints.select(np.zeros(0, np.int64)),
    )  # fmt: skip
    models = run(cube, empty)
    assert len(models.objects) == len(models.blends) == len(models.parents) == 0


def test_failures_have_names_and_leave_the_rest_of_a_batch(field) -> None:
    """A fitter that breaks on one blend: the others are fitted, the failure is classified."""
    cube, detections = field
    work = plan(detections, cube, FAST)
    (batch,) = batches(detections, cube, work, FAST)
    for error, name in (
        (np.linalg.LinAlgError("x"), "LinAlg"), (MemoryError(), "MemoryLimit"),
        (FormatError("NonFinite"), "NonFinite"), (IndexError("x"), "Internal:IndexError"),
        (FormatError("something"), "Internal:FormatError"),
    ):  # fmt: skip

        def fitter(part, params, error=error):
            if 2 in part.parents:
                raise error
            return [BlendResult(int(i)) for i in part.parents]

        results = {r.parent: r.error for r in guarded(fitter, batch, FAST)}
        assert results == {0: "", 2: name}


def test_bad_input_is_refused(field) -> None:
    cube, detections = field
    with pytest.raises(ShapeMismatchError, match="cover"):
        plan(replace(detections, box=Box(0, 0, 5, 5)), cube, FAST)
    with pytest.raises(FormatError, match="band r has no PSF"):
        plan(detections, replace(cube, psfs=(cube.psfs[0], None, cube.psfs[2])), FAST)
    for text in ("SAT", "SAT=x"):
        with pytest.raises(ParameterError, match="mask_limits"):
            plan(detections, cube, replace(FAST, mask_limits=(text,)))
