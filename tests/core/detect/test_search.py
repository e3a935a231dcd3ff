"""Detection as a whole: closed forms, masks, borders, options, guarantees, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.detect.background import MeshOptions, measure_background
from coblend.core.detect.mark import marked_exposure
from coblend.core.detect.pixels import Pixels
from coblend.core.detect.prepare import psf_widths
from coblend.core.detect.search import detect
from coblend.core.detection import PEAK_FLAGS
from coblend.core.errors import FormatError, ParameterError
from coblend.core.mask import STANDARD
from coblend.core.params.detect import DetectParams

BARE = {"var_scale": "none", "noise_scale": "none"}


def search(exposure, sigma=2.0, **options):
    return detect(exposure, DetectParams(psf_sigma=sigma, **options)).detections


def check_guarantees(detections):
    """What `Detections` promises to the deblender."""
    parents, peaks = detections.parents, detections.peaks
    painted = np.zeros(detections.box.shape, int)
    for spans in detections.footprints:
        assert (np.diff(spans[:, 0]) >= 0).all()
        for y, a, b in spans - [detections.box.y0, detections.box.x0, detections.box.x0]:
            assert 0 <= a <= b < detections.box.nx
            painted[y, a : b + 1] += 1
    assert painted.max(initial=0) <= 1
    assert np.array_equal(parents["area"], detections.footprints.areas)
    assert (parents["npeak"] >= 1).all()
    assert np.array_equal(parents["peak0"], np.cumsum(parents["npeak"]) - parents["npeak"])
    labels = detections.footprints.labels(detections.box)
    row = np.repeat(np.arange(len(parents)), parents["npeak"])
    at = (peaks["iy"] - detections.box.y0, peaks["ix"] - detections.box.x0)
    assert np.array_equal(labels[at], row + 1)
    assert len(np.unique(peaks["id"])) == len(peaks)
    assert len(np.unique(parents["id"])) == len(parents)
    order = np.lexsort((peaks["ix"], peaks["iy"], -peaks["snr"], row))
    assert np.array_equal(order, np.arange(len(peaks)))


@pytest.fixture
def crowd(stars, exposure_of):
    rng = np.random.default_rng(10)
    where = rng.uniform(0, 399, (400, 2))
    flux = 40 * rng.uniform(0.002, 1, 400) ** -1.0
    sky = stars((400, 400), 1.7, [(*p, f) for p, f in zip(where, flux, strict=True)])
    return exposure_of(sky + rng.normal(0, 1, sky.shape))


@pytest.mark.parametrize(
    ("flux", "significance", "core", "grown"),
    [(100.0, 14.10474, 49, 245), (1000.0, 141.0474, 177, 481)],
)
def test_isolated_star_has_the_analytic_footprint(
    stars, exposure_of, flux, significance, core, grown
):
    """Core: lattice points with r <= 2 sigma sqrt(ln(snr / 5)); grown by r = 5."""
    image = stars((101, 101), 2.0, [(50, 50, flux)])
    found = search(exposure_of(image), **BARE)
    peak = found.peaks[0]
    assert len(found.peaks) == 1
    assert peak["snr"] == pytest.approx(significance, rel=2e-6)
    assert peak["flux"] == pytest.approx(flux, rel=1e-3)
    assert peak["flux_err"] == pytest.approx(4 * np.sqrt(np.pi), rel=1e-3)
    assert (peak["x"], peak["y"]) == pytest.approx((50, 50), abs=1e-4)
    assert found.cores.areas.tolist() == [core]
    assert found.parents["area"].tolist() == [grown]


def test_positions_are_parent_coordinates(stars, exposure_of):
    image = stars((101, 121), 2.0, [(40.3, 60.2, 900.0)])
    found = search(exposure_of(image, origin=(1000, -50)), **BARE)
    peak = found.peaks[0]
    assert (peak["iy"], peak["ix"]) == (1040, 10)
    assert (peak["y"], peak["x"]) == pytest.approx((1040.3, 10.2), abs=0.02)
    assert (found.parents["y"][0], found.parents["x"][0]) == pytest.approx((1040.3, 10.2), abs=0.3)
    check_guarantees(found)


def test_crowded_field_keeps_all_guarantees(crowd):
    for options in (
        {},
        {"peak_scales": (1.0, 0.6)},
        {"max_peaks": 4},
        {"grow_merge": "voronoi"},
        {"grow_merge": "none"},
        {"plateau": "all", "local_bg": 64},
        {"connectivity": 4, "grow_shape": "diamond", "grow": 3},
    ):
        check_guarantees(search(crowd, 1.7, **options))


def test_cut_footprints_cover_the_same_pixels(crowd):
    whole, cut = search(crowd, 1.7, max_peaks=0), search(crowd, 1.7, max_peaks=4)
    assert whole.parents["npeak"].max() > 4
    pieces = cut.parents["flag_split"]
    assert pieces.any()
    assert (cut.parents["npeak"][~cut.parents["flag_crowded"]] <= 4).all()
    assert np.array_equal(
        whole.footprints.labels(whole.box) > 0, cut.footprints.labels(cut.box) > 0
    )
    assert set(cut.peaks["id"].tolist()) == set(whole.peaks["id"].tolist())
    assert np.isin(cut.parents["blob"][pieces], cut.peaks["id"]).all()
    assert not cut.parents["blob"][~pieces].any()


def test_a_second_narrower_filter_finds_more(crowd):
    one, two = search(crowd, 1.7), search(crowd, 1.7, peak_scales=(1.0, 0.6))
    assert len(two.peaks) > 1.02 * len(one.peaks)
    assert set(one.peaks["id"].tolist()) < set(two.peaks["id"].tolist())
    narrow = two.peaks[two.peaks["scale"] < 1]
    for peak in narrow:
        others = two.peaks[two.peaks["scale"] == 1]
        assert np.hypot(others["x"] - peak["x"], others["y"] - peak["y"]).min() > 2


def test_masked_column_through_a_star_leaves_one_star(stars, exposure_of):
    """Whether beside the peak or on it; position within 0.1 px, peak pixel usable."""
    image = stars((81, 81), 2.0, [(40.2, 40.1, 800.0)])
    for column in (38, 39, 40, 41, 42):
        mask = np.zeros(image.shape, np.int32)
        mask[:, column] = 1
        broken = np.where(mask, 1e5, image)
        found = search(exposure_of(broken, 1.0, mask), exclude_mask=("BAD",), **BARE)
        assert len(found.peaks) == 1
        assert len(found.parents) == 1
        peak = found.peaks[0]
        assert np.hypot(peak["x"] - 40.1, peak["y"] - 40.2) < 0.1
        assert peak["ix"] != column
        assert found.parents["flag_masked"].all()
        assert bool(peak["flags"] & PEAK_FLAGS["masked"]) == (column == 40)
        check_guarantees(found)


def test_bad_pixels_count_for_nothing_unless_interpolated(stars, exposure_of):
    """By default: garbage in a BAD column makes no peaks, a repaired star keeps all its light."""
    image = stars((81, 81), 2.0, [(40, 40, 800.0)])
    mask = np.zeros(image.shape, np.int32)
    mask[:, 60] = STANDARD.value(["BAD"])
    mask[:, 40] = STANDARD.value(["BAD", "INTRP"])
    image[:, 60] = 9e4
    found = search(exposure_of(image, 1.0, mask), **BARE)
    assert found.peaks["ix"].tolist() == [40]
    assert found.peaks["snr"][0] == pytest.approx(800 / (4 * np.sqrt(np.pi)), rel=1e-5)
    blind = search(exposure_of(image, 1.0, mask), exclude_mask=("BAD", "INTRP"), **BARE)
    assert blind.peaks["snr"][0] < 0.95 * found.peaks["snr"][0]


def test_hole_in_a_star_keeps_its_peak_on_a_usable_pixel(stars, exposure_of):
    image = stars((81, 81), 2.0, [(40, 40, 3000.0)])
    image[38:43, 38:43] = np.nan
    found = search(exposure_of(image), **BARE)
    assert len(found.peaks) == 1
    assert np.isfinite(image[found.peaks["iy"][0], found.peaks["ix"][0]])
    check_guarantees(found)


def test_star_cut_in_two_by_a_wide_gap_is_one_parent(stars, exposure_of):
    """Both halves stay above the threshold and grow less than the gap."""
    image = stars((121, 121), 3.0, [(60, 60, 60000.0)])
    image[:, 52:69] = np.nan
    found = search(exposure_of(image), 3.0, **BARE)
    assert len(found.parents) == len(found.peaks) == 1
    columns = np.unique(found.footprints.spans[:, 1:])
    assert columns.min() < 50
    assert columns.max() > 70
    assert not (found.footprints.labels(found.box)[:, 60] > 0).any()
    check_guarantees(found)


def test_sources_at_the_border_are_kept_and_flagged(stars, exposure_of):
    image = stars((80, 80), 2.0, [(0, 40, 900.0), (40, 76, 900.0), (40, 30, 900.0)])
    kept = search(exposure_of(image), **BARE)
    assert len(kept.parents) == 3
    assert kept.parents["flag_edge"].sum() == 2
    assert kept.parents["flag_nopeak_fallback"].sum() == 1  # its maximum is a border pixel
    trimmed = search(exposure_of(image), edge="trim", **BARE)
    labels = trimmed.cores.labels(trimmed.box)
    assert labels[7:-7, 7:-7].any()
    labels[7:-7, 7:-7] = 0  # half the filter
    assert not labels.any()


def test_half_covered_source_is_partial(stars, exposure_of):
    image = stars((80, 80), 2.0, [(40, 40, 900.0), (20, 20, 900.0)])
    image[:, 39:] = np.nan
    found = search(exposure_of(image), **BARE)
    by_x = dict(
        zip(found.peaks["ix"].tolist(), found.parents["flag_partial"].tolist(), strict=True)
    )
    assert by_x[20] is False
    assert by_x[38] is True


def test_negative_sources(stars, exposure_of):
    image = stars((100, 100), 2.0, [(30, 30, 500.0)]) - stars((100, 100), 2.0, [(70, 70, 400.0)])
    both = detect(exposure_of(image), DetectParams(psf_sigma=2.0, polarity="both", **BARE))
    assert both.detections.peaks["iy"].tolist() == [30]
    assert both.negative.peaks["iy"].tolist() == [70]
    assert both.negative.peaks["flux"][0] == pytest.approx(-400, rel=1e-3)
    assert both.negative.peaks["snr"][0] > 5
    assert both.negative.parents["flag_negative"].all()
    mirrored = search(exposure_of(-image), **BARE)
    assert np.array_equal(mirrored.peaks["id"], both.negative.peaks["id"])
    check_guarantees(both.negative)


def test_hysteresis_and_smallest_area(stars, exposure_of):
    image = stars((100, 100), 2.0, [(30, 30, 50.0), (70, 70, 100.0)])  # 7 and 14 sigma
    assert len(search(exposure_of(image), **BARE).peaks) == 2
    strict = search(exposure_of(image), peak_threshold=10.0, **BARE)
    assert strict.peaks["iy"].tolist() == [70]
    assert strict.cores.areas.tolist() == [49]  # down to the lower threshold
    large = search(exposure_of(image), min_pixels=30, **BARE)
    assert large.peaks["iy"].tolist() == [70]


def test_local_background_thins_out_the_peaks_of_cores(crowd):
    """On a pedestal of half a sigma noise bumps become peaks; the local background has them."""
    raised = replace(crowd, image=crowd.image + np.float32(0.5))
    plain, local = (search(raised, 1.7, local_bg=n, noise_scale="none") for n in (0, 64))
    level = search(crowd, 1.7, noise_scale="none")
    assert len(plain.peaks) > 1.1 * len(level.peaks)
    assert len(local.peaks) < len(plain.peaks)
    assert len(local.parents) == len(plain.parents)
    check_guarantees(local)


@pytest.fixture
def saturated(rng, exposure_of):
    """A star at (120, 60) that fills a disc and a trail of 220 rows."""
    y, x = np.mgrid[:240, :120]
    star = 2e7 / (1 + np.hypot(y - 120, x - 60) ** 2 / 4) ** 2.5
    full = np.hypot(y - 120, x - 60) < 14
    full |= (np.abs(x - 60) < 3) & (np.abs(y - 120) < 110)
    image = np.where(full, 5e4, np.minimum(star, 5e4)) + 300 * rng.normal(size=full.shape)
    mask = np.where(full, STANDARD.value(["SAT"]), 0)
    return exposure_of(image, 300.0**2, mask)


def test_a_saturated_star_with_a_bleed_trail_is_one_peak(saturated):
    params = DetectParams(psf_sigma=2.0, peak_scales=(1.0, 0.6))

    def found(params):
        peaks = detect(saturated, params).detections.peaks
        return peaks[saturated.mask[peaks["iy"], peaks["ix"]] > 0]

    (one,) = found(params)
    assert np.hypot(one["y"] - 120, one["x"] - 60) < 1.5
    assert len(found(replace(params, plateau="all"))) > 10


def test_sources_on_a_trail_that_other_inputs_have_filled_stay(exposure_of, stars):
    """Pixels flagged saturated join peaks only where they are bright themselves."""
    image = stars((60, 200), 2.0, [(30, 30 + 40 * i, 100 + 50 * i) for i in range(4)])
    trail = np.full(image.shape, STANDARD.value(["SAT"]), np.int32)
    peaks = search(exposure_of(image, mask=trail), 2.0).peaks
    assert sorted(peaks["ix"].tolist()) == [30, 70, 110, 150]


def test_reference_preset(crowd):
    reference = DetectParams(psf_sigma=1.7, **DetectParams.PRESETS["reference"])
    found = detect(crowd, reference).detections
    check_guarantees(found)
    assert np.array_equal(found.peaks["ix"], found.peaks["x"])
    half = 6
    assert found.peaks["ix"].min() >= half
    assert found.peaks["iy"].max() < 400 - half


def test_false_alarms_follow_gaussian_statistics(exposure_of):
    """A u exp(-u^2 / 2) / ((2 pi)^1.5 2 sigma^2) peaks above u; ratio 0.7 to 1.15."""
    u, sigma, shape = 3.5, 1.93, (1000, 1000)
    n = 0
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(0, 1, shape)
        n += len(search(exposure_of(noise), sigma, threshold=u, **BARE).peaks)
    expected = 4e6 * u * np.exp(-(u**2) / 2) / ((2 * np.pi) ** 1.5 * 2 * sigma**2)
    assert 0.7 < n / expected < 1.15


def test_flux_of_a_footprint_is_the_sum_of_its_usable_pixels(crowd):
    found = search(crowd, 1.7)
    labels = found.footprints.labels(found.box)
    sums = np.bincount(labels.ravel(), weights=crowd.image.ravel().astype(float))[1:]
    np.testing.assert_allclose(found.parents["flux"], sums, rtol=1e-4, atol=1e-3)


def test_significance_map_is_what_was_searched(crowd):
    """Its maxima are the peaks, in the units of the table; negative ones are negative."""
    params = DetectParams(psf_sigma=1.7, polarity="both", threshold=4.0)
    found = detect(replace(crowd, variance=crowd.variance / 4), params, keep_map=True)
    for catalogue, sign in ((found.detections, 1), (found.negative, -1)):
        peaks = catalogue.peaks
        values = sign * found.significance[peaks["iy"], peaks["ix"]]
        np.testing.assert_allclose(values, peaks["snr"], rtol=1e-6)
    cores = found.detections.cores.labels(crowd.box) > 0
    assert np.array_equal(cores, found.significance >= np.float32(found.threshold))
    assert detect(crowd, params).significance is None


def test_images_that_are_filtered_already(crowd):
    """Given the significance as image and 1 as variance, the same cores and peaks come out."""
    options = {"threshold": 5.0, **BARE}
    own = detect(crowd, DetectParams(psf_sigma=1.7, **options), keep_map=True)
    image = own.significance
    filtered = replace(crowd, image=image, variance=np.ones_like(image))
    found = search(filtered, 1.7, filter="none", **options)
    assert np.array_equal(found.cores.spans, own.detections.cores.spans)
    assert np.array_equal(found.peaks["id"], own.detections.peaks["id"])
    np.testing.assert_allclose(found.peaks["snr"], own.detections.peaks["snr"], rtol=1e-6)
    np.testing.assert_allclose(found.peaks["value"], found.peaks["snr"], rtol=1e-6)


def test_saturation_flag(stars, exposure_of):
    image = stars((80, 120), 2.0, [(40, 30, 900.0), (40, 90, 900.0)])
    mask = np.zeros(image.shape, np.int32)
    mask[40, 30] = STANDARD.value(["SAT"])
    found = search(exposure_of(image, 1.0, mask), **BARE)
    by_x = dict(zip(found.peaks["ix"].tolist(), found.parents["flag_sat"].tolist(), strict=True))
    assert by_x == {30: True, 90: False}


def test_identifiers_do_not_change_with_a_distant_source(stars, exposure_of):
    near = [(40, 40, 900.0), (44, 47, 500.0)]
    few = search(exposure_of(stars((150, 300), 2.0, near)), **BARE)
    many = search(exposure_of(stars((150, 300), 2.0, [*near, (100, 250, 900.0)])), **BARE)
    assert set(few.peaks["id"].tolist()) < set(many.peaks["id"].tolist())


def test_inputs_are_not_changed_and_threads_do_not_matter(crowd):
    before = [plane.copy() for plane in (crowd.image, crowd.variance, crowd.mask)]
    params = DetectParams(psf_sigma=1.7, bg_mesh=64, polarity="both", peak_scales=(1.0, 0.7))
    one, four = (detect(crowd, params, threads=n) for n in (1, 4))
    for plane, old in zip((crowd.image, crowd.variance, crowd.mask), before, strict=True):
        assert np.array_equal(plane, old)
    assert one.detections.peaks.tobytes() == four.detections.peaks.tobytes()
    assert one.detections.footprints.spans.tobytes() == four.detections.footprints.spans.tobytes()


def test_marked_exposure(crowd):
    found = detect(crowd, DetectParams(psf_sigma=1.7, bg_mesh=64, polarity="both"))
    stale = replace(crowd, mask=np.full_like(crowd.mask, STANDARD.value(["DETECTED", "BAD"])))
    out = marked_exposure(stale, found)
    detected = (out.mask & STANDARD.value(["DETECTED"])) != 0
    assert np.array_equal(detected, found.detections.footprints.labels(crowd.box) > 0)
    assert (out.mask & STANDARD.value(["BAD"])).all()
    scale = found.detections.meta["VARSCAL1"]
    np.testing.assert_allclose(out.variance, crowd.variance * np.float32(scale))
    restored = out.image + found.background.rows(np.arange(400))
    assert np.abs(restored - crowd.image).max() <= np.spacing(
        np.float32(np.abs(crowd.image).max())
    )


def test_wide_background_is_subtracted_for_the_search_only(stars, exposure_of):
    rng = np.random.default_rng(3)
    image = stars((256, 256), 2.0, [(128, 128, 900.0)]) + rng.normal(50, 1, (256, 256))
    exposure = exposure_of(image)
    with pytest.raises(FormatError, match="background is not subtracted"):
        search(replace_size(exposure, 4), var_scale="none", noise_scale="none")
    found = search(exposure, wide_bg=128, **BARE)
    assert len(found.peaks) == 1
    assert found.parents["flux"][0] > 50 * 200  # of the image as it is


def replace_size(exposure, times):
    """The same exposure, repeated to a size at which a full footprint is suspicious."""
    tile = (times, times)
    image = np.tile(exposure.image, tile)
    return replace(
        exposure,
        image=image,
        mask=np.tile(exposure.mask, tile),
        variance=np.tile(exposure.variance, tile),
        box=Box(0, 0, *image.shape),
    )


def test_blank_image_gives_an_empty_catalogue(exposure_of):
    found = search(exposure_of(np.zeros((100, 100))), **BARE)
    assert len(found.parents) == len(found.peaks) == len(found.footprints) == 0


class Growing:
    """A Gaussian PSF that widens with x, unknown beyond a column."""

    side, constant = 41, False

    def __init__(self, slope, end=np.inf):
        self.slope, self.end = slope, end

    def width(self, x):
        return 1.5 + self.slope * np.asarray(x, float)

    def at_many(self, y, x):
        r2 = np.add.outer(np.arange(-20, 21) ** 2, np.arange(-20, 21) ** 2)
        stamps = np.exp(-0.5 * r2 / self.width(x)[:, None, None] ** 2)
        stamps /= stamps.sum(axis=(1, 2), keepdims=True)
        stamps[np.asarray(x) > self.end] = np.nan
        return stamps


def test_psf_width_over_a_field():
    """In the middle of each of 5 x 5 cells; one if they differ by less than 10 %."""
    box = Box(0, 0, 100, 1000)
    widths = psf_widths(Growing(1e-3), box)
    assert widths.shape == (5, 5)
    np.testing.assert_allclose(widths, np.tile(1.6 + 0.2 * np.arange(5), (5, 1)), atol=2e-3)
    np.testing.assert_allclose(psf_widths(Growing(1e-4), box), [[1.55]], atol=1e-3)
    holed = psf_widths(Growing(1e-3, end=600), box)
    np.testing.assert_allclose(holed[0], [1.6, 1.8, 2.0, 1.8, 1.8], atol=2e-3)
    with pytest.raises(FormatError, match="unknown on all of the image"):
        psf_widths(Growing(1e-3, end=-1), box)


def test_varying_psf_is_filtered_cell_by_cell(stars, exposure_of):
    """Every star keeps the significance, flux and value of the filter of its own width."""
    psf = Growing(2e-3)
    image = np.zeros((200, 1000))
    for x in range(100, 1000, 200):
        image += stars(image.shape, float(psf.width(x)), [(100, x, 900.0)])
    exposure = replace(exposure_of(image), psf=psf)
    found = detect(exposure, DetectParams(**BARE, peak_scales=(1.0, 0.6))).detections
    peaks = found.peaks[np.argsort(found.peaks["x"])]
    width = psf.width(peaks["ix"])
    np.testing.assert_allclose(peaks["snr"], 900 / (2 * width * np.sqrt(np.pi)), rtol=1e-3)
    np.testing.assert_allclose(peaks["flux"], 900, rtol=3e-3)
    np.testing.assert_allclose(peaks["value"], 900 / (4 * np.pi * width**2), rtol=5e-3)
    assert found.meta["PSFMIN1"] == pytest.approx(1.7, abs=0.01)
    assert found.meta["PSFMAX1"] == pytest.approx(3.3, abs=0.01)
    one = detect(exposure, DetectParams(**BARE, psf_sigma=found.meta["PSFSIG1"])).detections
    assert one.peaks["snr"].sum() < 0.99 * found.peaks["snr"].sum()
    check_guarantees(found)


def test_background_model_uses_every_pixel(exposure_of):
    mesh = measure_background(Pixels.of(exposure_of(np.ones((130, 70)))), MeshOptions(64))
    assert mesh.values.shape == (2, 1)
    assert mesh.counts.sum() == 130 * 70


def test_bad_input(stars, exposure_of):
    image = stars((64, 64), 2.0, [(32, 32, 900.0)])
    exposure = exposure_of(image)
    with pytest.raises(FormatError, match="has no PSF"):
        detect(exposure, DetectParams())
    with pytest.raises(ParameterError, match="at most 8"):
        search(exposure, 20.0)
    with pytest.raises(FormatError, match="only 0 of 4096 pixels are usable"):
        search(exposure_of(np.full((64, 64), np.nan)))
    with pytest.raises(FormatError, match="only 0 of 4096"):
        search(exposure_of(image, 0.0))
    with pytest.raises(ParameterError, match="no mask plane BADD"):
        search(exposure, exclude_mask=("BADD",))
    for options, match in (
        ({"peak_threshold": 3.0}, "below threshold 5"),
        ({"connectivity": 6}, "allowed: 4, 8"),
        ({"peak_scales": (0.6, 1.0)}, "the first must be 1"),
        ({"bg_filter": 4}, "must be odd"),
        ({"noise_scale_limits": (1.0,)}, "give two numbers"),
        ({"threshold": 0.0}, "allowed: 0.01 or more"),
        ({"filter": "matched2"}, "allowed: matched, conv, none"),
        ({"filter": "none", "peak_scales": (1.0, 0.6)}, "needs a filter"),
    ):
        with pytest.raises(ParameterError, match=match):
            DetectParams(**options)


@pytest.mark.parametrize("shape", [(320, 1), (1, 320), (9, 9)])
def test_an_image_too_small_for_its_psf(exposure_of, shape):
    """The image is to blame where any PSF would be too wide for it."""
    exposure = exposure_of(np.zeros(shape, np.float32))
    with pytest.raises(FormatError, match=f"{shape[1]}x{shape[0]} pixels is too small"):
        detect(exposure, DetectParams(psf_sigma=2.0))
