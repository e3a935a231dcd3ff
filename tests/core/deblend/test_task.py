"""The deblender's task: every peak has a row, and nothing that fails harms its neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.deblend.collect import collect, not_deblended
from coblend.core.deblend.fitting.observation import noise_rms
from coblend.core.deblend.guard import guarded
from coblend.core.deblend.report import BlendResult, chi2_image
from coblend.core.deblend.task import batches, evaluate_psfs, make_plan
from coblend.core.deblend.work import deblend_work
from coblend.core.errors import FitError, FormatError, ParameterError, ShapeMismatchError
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
    plan = make_plan(detections, cube, params)
    results = [
        r for batch in batches(detections, cube, plan, params) for r in deblend_work(batch, params)
    ]
    return collect(detections, cube, plan, results, params)


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
    assert len(np.unique(models.objects[["parent", "peak_id"]])) == len(models.objects)
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
    places = ["ix", "iy", "x", "y"]
    np.testing.assert_array_equal(models.objects[places][:-1], reference.objects[places])
    assert models.objects["flags"][-1] == FLAGS["skipped_pseudo"] | FLAGS["skipped"]
    assert models.objects["blend"][-1] == 0
    for i in range(2):
        same_blend(models, i, reference, i)


def test_parent_without_real_peaks_passes_through(field) -> None:
    cube, detections = field
    peaks = detections.peaks.copy()
    peaks["merge_peak_sky"][:2] = True
    models = run(cube, replace(detections, peaks=peaks))
    assert models.objects["flag_skipped_pseudo"][:2].all()
    assert models.objects["id"][0] == 1
    assert len(np.unique(models.objects["id"])) == len(models.objects)


@pytest.mark.parametrize(
    ("options", "flag", "skipped"),
    [
        ({"max_number_of_peaks": 2}, "too_many_peaks", [2]),
        ({"max_number_of_peaks": 0}, "too_many_peaks", []),
        ({"max_footprint_area": 600}, "too_big", [2]),
        ({"max_footprint_size": 28}, "too_big", []),
        ({"max_footprint_size": 20}, "too_big", [0, 2]),
        ({"min_footprint_axis_ratio": 0.9}, "too_big", [0]),
        ({"max_area_times_peaks": 1500}, "too_big", [2]),
        ({"max_blend_memory": 1.0}, "too_big", [0, 2]),
        ({"mask_limits": ("SAT=0.1",)}, "masked", [2]),
        ({"mask_limits": ("SAT=0",), "max_footprint_area": 600}, "too_big", [2]),
    ],
)
def test_skip_rules_flag_and_mask_exactly_their_parents(field, options, flag, skipped) -> None:
    """Their flag and ``skipped``, their spans NOT_DEBLENDED, all their rows; the rest is free."""
    cube, detections = field
    masks = cube.masks.copy()
    masks[1][detections.footprints.mask(2, cube.box) & (np.arange(130) < 40)] |= 1 << 1
    models = run(replace(cube, masks=masks), detections, replace(FAST, **options))
    expected = np.array([0, FLAGS["isolated"], 0])
    expected[skipped] = FLAGS[f"skipped_{flag}"] | FLAGS["skipped"]
    bits = FLAGS["isolated"] | sum(v for k, v in FLAGS.items() if k.startswith("skipped"))
    assert (models.parents["flags"] & bits).tolist() == expected.tolist()
    plane = STANDARD.value(["NOT_DEBLENDED"])
    inside = [detections.footprints.mask(row, cube.box) for row in skipped]
    expected_mask = np.logical_or.reduce([np.zeros(SHAPE, bool), *inside])
    np.testing.assert_array_equal(not_deblended(models) == plane, expected_mask)
    assert len(models.objects) == len(detections.peaks)
    rows = np.isin(models.objects["parent"] - 1, skipped)
    assert (models.objects["flag_skipped"] == rows).all()


def test_not_converged_are_exactly_those_that_ran_out_of_iterations(field) -> None:
    """One blend needs more than it may have; isolated and skipped parents are never flagged."""
    cube, detections = field
    free = run(cube, detections, replace(FAST, max_iter=300))
    assert not free.parents["flag_not_converged"].any()
    n_iter = free.parents["n_iter"][[0, 2]]
    most = int(n_iter.min())
    assert most < n_iter.max()
    capped = run(cube, detections, replace(FAST, max_iter=most))
    expected = np.zeros(3, bool)
    expected[[0, 2]] = n_iter > most
    assert capped.parents["flag_not_converged"].tolist() == expected.tolist()
    assert capped.parents["n_iter"][[0, 2]].tolist() == [most, most]
    skipped = run(cube, detections, replace(FAST, max_iter=1, max_number_of_peaks=2))
    assert skipped.parents["flag_not_converged"].tolist() == [True, False, False]
    start = run(cube, detections, replace(FAST, max_iter=0))
    assert not start.parents["flag_not_converged"].any()


def test_limits_of_a_trial(field) -> None:
    """The first parents of the asked size are fitted; the rest is marked and has its rows."""
    cube, detections = field
    trial = replace(FAST, use_limits=True, limit_peaks=(2, 3), limit_parents=1)
    models = run(cube, detections, trial)
    assert models.parents["n_blend"].tolist() == [1, 0, 0]
    assert models.parents["flag_skipped"].tolist() == [False, False, True]
    assert run(cube, detections, replace(trial, limit_peaks=(3, 9))).parents[
        "n_blend"
    ].tolist() == [0, 0, 1]


def test_columns_of_the_reference_system(field) -> None:
    """Numbers inherited from parent and blend, sums over blends, bands of the peaks."""
    cube, detections = field
    detections.peaks["merge_peak_r"][1::2] = True
    detections.parents["merge_footprint_g"][:2] = True
    models = run(cube, detections)
    parents, objects, blends = models.parents, models.objects, models.blends
    assert objects["parent_n_peak"].tolist() == objects["parent_n_child"].tolist()
    assert objects["parent_n_peak"].tolist() == [2, 2, 1, 3, 3, 3]
    assert objects["blend_n_child"].tolist() == [2, 2, 0, 3, 3, 3]
    assert objects["merge_footprint_g"].tolist() == [True, True, True, False, False, False]
    assert not objects["merge_footprint_r"].any()
    assert objects["merge_peak_r"].tolist() == [False, True, False, True, False, True]
    fitted = parents["n_blend"] > 0
    for name in ("n_iter", "n_component", "log_likelihood", "log_likelihood_init"):
        assert parents[name][fitted].tolist() == blends[name].tolist()
    assert (blends["log_likelihood"] > blends["log_likelihood_init"]).all()
    assert parents["flag_spectrum_init"].tolist() == [True, False, True]
    assert (parents["memory"] > 0).all()


def test_spectra_from_the_peaks_or_solved(field) -> None:
    """Whichever the fit starts from, the fluxes come out; the cut-off decides parent by parent."""
    cube, detections = field
    areas = detections.footprints.boxes()[:, 2:].prod(1) * detections.parents["npeak"]
    cut = replace(FAST, max_spectrum_cutoff=int(areas[[0, 2]].mean()))
    models = run(cube, detections, cut)
    assert models.parents["flag_spectrum_init"].tolist() == [True, False, False]
    without = run(cube, detections, replace(FAST, set_spectra=False))
    assert not without.parents["flag_spectrum_init"].any()
    truth = [4000, 2500, 1500, 3000, 3000, 2000]
    for one in (models, without):
        np.testing.assert_allclose(one.objects["model_flux_r"], truth, rtol=0.06)


@pytest.mark.parametrize("sigma", [0.6, 1.1])
def test_width_of_the_model_psf(field, sigma: float) -> None:
    """It goes with the models; fluxes do not depend on it."""
    cube, detections = field
    models = run(cube, detections, replace(FAST, max_iter=40, model_psf_sigma=sigma))
    assert models.model_psf_sigma == sigma
    truth = [4000, 2500, 1500, 3000, 3000, 2000]
    np.testing.assert_allclose(models.objects["model_flux_r"], truth, rtol=0.05)


def test_doubtful_pixels_do_not_count_for_the_noise(field) -> None:
    cube, _ = field
    variances, masks = cube.variances.copy(), cube.masks.copy()
    variances[:, :80], masks[:, :80] = 9, cube.planes.value(["INTRP"])
    odd = replace(cube, variances=variances, masks=masks)
    assert noise_rms(odd, ("BAD",))[0].tolist() == [3, 3, 3]
    sigma, weight = noise_rms(odd, ("BAD",), stats_planes=("INTRP",))
    assert sigma.tolist() == [1, 1, 1]
    np.testing.assert_allclose(np.unique(weight), [1 / 9, 1])


def test_nan_psf_of_one_parent_leaves_the_others_bit_identical(field, fields) -> None:
    cube, detections = field
    reference = run(replace(cube, psfs=(fields.HolePsf((0, 0), 1),) * 3),
                    fields.only(detections, [0, 1]))  # fmt: skip
    hole = fields.HolePsf((284, 139), 5)
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
        psfs = (*cube.psfs[:2], fields.HolePsf((284, 139), 5))
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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"process_singles": True},
        {"crowded": "psf", "max_number_of_peaks": 1},
        {"algorithm": "sdss"},
    ],
    ids=["isolated", "singles", "stars", "sdss"],
)
def test_a_band_that_sees_next_to_nothing_of_a_source(fields, options) -> None:
    """Its wing on a few pixels gives no flux, whatever the fit; its neighbours keep theirs."""
    groups = [[(30.0, 28.0, 4000.0), (30.0, 40.0, 2500.0)], [(30.3, 90.2, 1500.0)]]
    cube, detections = fields.make_scene(groups, (60, 110))
    images = cube.images.copy()
    images[2, :, 37:60], images[2, :, 88:] = np.nan, np.nan  # 2 and 5 % of the light are left
    objects = run(replace(cube, images=images), detections, replace(FAST, **options)).objects
    assert np.isnan(objects["model_flux_i"]).tolist() == [False, True, True]
    assert np.isnan(objects["model_flux_err_i"]).tolist() == [False, True, True]
    assert objects["flag_no_data"].tolist() == [False, True, True]
    for band, colour in zip("gr", fields.COLOUR, strict=False):
        np.testing.assert_allclose(
            objects[f"model_flux_{band}"], colour * np.array([4000, 2500, 1500]), rtol=0.08
        )


@pytest.mark.parametrize("value", [1e30, 3e38, -1e30])
def test_a_pixel_of_absurd_size_harms_its_parent_only(field, value: float) -> None:
    """That one has diverged by name; no overflow is shouted about (warnings are errors here)."""
    cube, detections = field
    images = cube.images.copy()
    images[1, 80, 40] = value
    models, reference = run(replace(cube, images=images), detections), run(cube, detections)
    assert models.parents["error"].tolist() == ["", "", "Diverged"]
    same_blend(models, 0, reference, 0)
    assert models.objects["id"].tolist() == reference.objects["id"].tolist()
    stars = replace(FAST, crowded="psf", max_number_of_peaks=1)
    flux = run(replace(cube, images=images), detections, stars).objects["model_flux_g"][:3]
    np.testing.assert_allclose(flux, [2400, 1500, 900], rtol=0.05)


def test_fluxes_beyond_single_precision_are_failures(field) -> None:
    cube, detections = field
    images = cube.images.copy()
    images[1, 76:85, 31:40] = images[1, 26:35, 86:95] = 3e38
    for options in ({"crowded": "psf", "max_number_of_peaks": 1}, {"algorithm": "sdss"}):
        models = run(replace(cube, images=images), detections, replace(FAST, **options))
        assert models.parents["error"].tolist() == ["", "", "NonFinite"]
        assert models.objects["flag_failed"].tolist() == [False] * 3 + [True] * 3
        assert np.isnan(models.objects["model_flux_r"][2])
        assert models.objects["flag_no_data"][2]


def test_evaluate_psfs_pads_and_shares() -> None:
    from coblend.core.psf.stamp import StampPsf

    small, large = StampPsf(np.ones((3, 3))), StampPsf(np.ones((5, 5)))
    stamps, places, missing, cell = evaluate_psfs(
        [small, large, None], np.array([[3.0, 4], [900, 900]]), 64, np.ones((3, 3))
    )
    assert stamps.shape == (1, 3, 5, 5)
    assert places.shape == (1, 2)
    assert cell.tolist() == [0, 0]
    np.testing.assert_allclose(stamps[0, 0], np.pad(np.full((3, 3), 1 / 9), 1), rtol=1e-6)
    assert missing.tolist() == [[False, False, True]]


def test_a_hole_in_the_middle_of_a_cell_is_not_in_its_parents(field, fields) -> None:
    """Parents that have a PSF where they are, are fitted with that."""
    cube, detections = field
    middle = (256 + 32, 128 + 32)  # of the triple's cell of 64 pixels; 26 pixels from the triple
    hole = fields.HolePsf(middle, 15)
    assert np.isnan(hole.at(*middle)).all()
    models = run(replace(cube, psfs=(hole,) * 3), detections)
    assert models.parents["error"].tolist() == ["", "", ""]
    whole = run(replace(cube, psfs=(fields.HolePsf((0, 0), 1),) * 3), detections)
    for i in range(2):
        same_blend(models, i, whole, i)


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
    plan = make_plan(detections, cube, FAST)
    (batch,) = batches(detections, cube, plan, FAST)
    for error, name in (
        (np.linalg.LinAlgError("x"), "LinAlg"), (MemoryError(), "MemoryLimit"),
        (FitError("NonFinite"), "NonFinite"), (IndexError("x"), "Internal:IndexError"),
        (FormatError("something"), "Internal:FormatError"), (OSError(5), "Internal:OSError"),
    ):  # fmt: skip

        def fitter(part, params, error=error):
            if 2 in part.parents:
                raise error
            return [BlendResult(int(i)) for i in part.parents]

        results = {r.parent: r for r in guarded(fitter, batch, FAST)}
        assert {parent: r.error for parent, r in results.items()} == {0: "", 2: name}
        assert results[0].trace == ""
        assert "in fitter" in results[2].trace


def test_a_fit_worse_than_nothing_has_diverged(rng) -> None:
    data, weight = rng.normal(size=(2, 2, 9, 9)).astype(np.float32)
    rendered = [(0, (slice(0, 9), slice(0, 9)), data.copy())]
    one = np.ones((1, 2), np.float32)
    chi2, _ = chi2_image(data, np.abs(weight), one, rendered)
    assert chi2.max() == 0
    for spectra in (-one, np.nan * one):
        with pytest.raises(FitError, match="Diverged"):
            chi2_image(data, np.abs(weight), spectra, rendered)


def test_failures_can_be_seen(field) -> None:
    cube, detections = field
    images = np.full_like(cube.images, np.nan)
    with pytest.raises(FitError, match="NoData"):
        run(replace(cube, images=images), detections, replace(FAST, catch_failures=False))


def test_bad_input_is_refused(field) -> None:
    cube, detections = field
    with pytest.raises(ShapeMismatchError, match="cover"):
        make_plan(replace(detections, box=Box(0, 0, 5, 5)), cube, FAST)
    with pytest.raises(FormatError, match="band r has no PSF"):
        make_plan(detections, replace(cube, psfs=(cube.psfs[0], None, cube.psfs[2])), FAST)
    for text in ("SAT", "SAT=x"):
        with pytest.raises(ParameterError, match="mask_limits"):
            make_plan(detections, cube, replace(FAST, mask_limits=(text,)))
