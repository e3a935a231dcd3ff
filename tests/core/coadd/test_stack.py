"""The stack: closed forms, a scalar reference of the clipping, invariants, noise."""

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.clip import IQR_TO_SIGMA
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.stack import stack
from coblend.core.mask import PLANES
from coblend.core.params.coadd import STATISTICS, CoaddParams

PIXEL = Box(0, 0, 1, 1)
BIT = {name: 1 << bit for name, bit in PLANES.items()}
DEFAULT = StackRules.of(CoaddParams(clip_scale="scatter"))


def one_pixel(warps, **rules):
    out = stack(warps, PIXEL, replace(DEFAULT, **rules))
    return float(out.image[0, 0]), float(out.variance[0, 0]), out


def reference_survivors(x, w, k, n_iter):
    """Indices that survive, pixel by pixel as the definition reads; also the final mean."""
    x, w = np.asarray(x, float), np.asarray(w, float)
    if len(x) == 1:
        return np.ones(1, bool), x[0]
    q25, q50, q75 = np.quantile(x, (0.25, 0.5, 0.75))
    centre, half = q50, k * IQR_TO_SIGMA * (q75 - q25)
    keep = np.ones(len(x), bool)
    for _ in range(n_iter):
        chosen = np.abs(x - centre) <= half
        if chosen.sum() < 2:
            break
        keep = chosen
        mean = np.sum(w[keep] * x[keep]) / np.sum(w[keep])
        w1, w2 = w[keep].sum(), np.sum(w[keep] ** 2)
        spread = np.sum(w[keep] * (x[keep] - mean) ** 2) / w1
        half = k * np.sqrt(spread * w1**2 / (w1**2 - w2))
        centre = mean
    return keep, np.sum(w[keep] * x[keep]) / np.sum(w[keep])


# closed forms


def test_mean_of_three(make_pixel):
    warps = make_pixel([1, 2, 6], weights=[1, 2, 1], variances=[0.1, 0.2, 0.3])
    value, variance, _ = one_pixel(warps, statistic="mean")
    assert value == 2.75
    assert variance == pytest.approx(0.075, rel=1e-6)
    assert one_pixel(warps, statistic="variance")[0] == pytest.approx(5.9, rel=1e-6)
    assert one_pixel(warps, statistic="mean", variance="scatter")[1] == pytest.approx(2.2125)
    mosaic = (0.1 + 0.4 + 0.3) / 4
    assert one_pixel(warps, statistic="mean", variance="mosaic")[1] == pytest.approx(mosaic)


@pytest.mark.parametrize(
    ("values", "k", "expected", "n_clipped"),
    [
        ([0] * 9 + [100], 3, 0, 1),
        ([0, 1, 100], 3, 101 / 3, 0),
        ([0, 0, 100], 2.5, 0, 1),
        ([0, 100], 1.35, 50, 0),
        ([0, 100], 3, 50, 0),
    ],
)
def test_meanclip_of_few(make_pixel, values, k, expected, n_clipped):
    value, _, out = one_pixel(make_pixel(values), statistic="meanclip", sigma_clip=k)
    assert value == pytest.approx(expected, rel=1e-7)
    assert out.counts[:, 1].sum() == n_clipped
    assert bool(out.mask[0, 0] & BIT["CLIPPED"]) == bool(n_clipped)


def test_median_of_four(make_pixel):
    value, variance, _ = one_pixel(make_pixel([10, 1, 3, 2]), statistic="median")
    assert value == 2.5
    assert variance == pytest.approx(np.pi * 16 / (2 * 16 * (4 + np.pi - 2)), rel=1e-6)


def test_remaining_statistics(make_pixel):
    x = np.array([1.0, 4.0, 2.0, 9.0])
    warps = make_pixel(list(x), variances=[1, 2, 3, 4])
    expected = {
        "variance": (x.var(ddof=1), 2 * 3 * x.var(ddof=1) ** 2 / 16),
        "stdev": (x.std(ddof=1), 2 * 3 * x.var(ddof=1) / 16 / 4),
        "meansquare": (np.mean(x**2), 2 * (np.mean(x**2) / 4) ** 2),
        "iqrange": (np.subtract(*np.quantile(x, (0.75, 0.25))), np.nan),
        "min": (1, 0),
        "max": (9, 0),
        "sum": (16, 10),
        "npoint": (4, 0),
        "nmasked": (0, 0),
    }
    for name, (value, variance) in expected.items():
        found = one_pixel(warps, statistic=name)[:2]
        np.testing.assert_allclose(found, (value, variance), rtol=1e-6, err_msg=name)
    outlying = make_pixel([0.0] * 5 + [1.0] * 5 + [100.0])
    assert one_pixel(outlying, statistic="nclipped")[0] == 1
    clipped = np.array([0.0] * 5 + [1.0] * 5)
    value, variance, _ = one_pixel(outlying, statistic="varianceclip")
    assert value == pytest.approx(clipped.var(ddof=1))
    assert variance == pytest.approx(2 * 9 * clipped.var(ddof=1) ** 2 / 100)
    assert one_pixel(outlying, statistic="stdevclip")[0] == pytest.approx(clipped.std(ddof=1))


@pytest.mark.parametrize("statistic", STATISTICS)
def test_no_sample(make_pixel, statistic):
    out = one_pixel(make_pixel([1, 2], masks=[BIT["NO_DATA"]] * 2), statistic=statistic)[2]
    assert np.isnan(out.image).all()
    assert np.isnan(out.variance).all()
    assert out.mask[0, 0] == BIT["NO_DATA"]
    assert out.n_image[0, 0] == 0
    assert out.weight[0, 0] == 0


@pytest.mark.parametrize("clip_scale", ["scatter", "input"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_rows_that_no_warp_covers(make_warp, statistic, clip_scale):
    """They have no data, and the rows that are covered what they have alone."""
    warps = [make_warp(i, i, shape=(4, 5), origin=(96, 0)) for i in range(3)]
    rules = replace(DEFAULT, statistic=statistic, clip_scale=clip_scale)
    out = stack(warps, Box(0, 0, 100, 5), rules)
    assert np.isnan(out.image[:96]).all()
    assert np.isnan(out.variance[:96]).all()
    assert (out.mask[:96] == BIT["NO_DATA"]).all()
    assert not out.n_image[:96].any()
    assert not out.weight[:96].any()
    alone = stack(warps, Box(96, 0, 4, 5), rules)
    np.testing.assert_array_equal(out.image[96:], alone.image)


@pytest.mark.parametrize("k", [0.3, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("n_iter", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
def test_meanclip_equals_scalar_reference(rng, make_warp, n, n_iter, k):
    x = rng.normal(100, 3, (n, 20, 25)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] += 40
    weights = rng.uniform(0.3, 1, n)
    warps = [make_warp(i, x[i], weight=weights[i], shape=(20, 25)) for i in range(n)]
    rules = replace(DEFAULT, statistic="meanclip", sigma_clip=k, clip_iter=n_iter)
    out = stack(warps, Box(0, 0, 20, 25), rules)
    for pixel in np.ndindex(20, 25):
        keep, mean = reference_survivors(x[(slice(None), *pixel)], weights, k, n_iter)
        assert out.n_image[pixel] == keep.sum()
        assert out.image[pixel] == pytest.approx(mean, rel=1e-7)


@pytest.mark.parametrize(
    ("values", "amplitude", "survivors"),
    [
        ([10, 10.5, 9.8, 30], 0.0, [True, True, True, False]),
        ([10, 10.5, 9.8, 30], 2.0, [True, True, True, True]),
        ([1009, 1010, 1200], 0.0, [True, True, False]),
        ([1009, 1010, 1200], 0.3, [True, True, True]),
        ([10, 10.5], 0.0, [True, True]),
        ([10, 40], 0.0, [True, True]),
        ([7], 0.0, [True]),
    ],
)
def test_clipping_by_the_inputs_variances(make_pixel, values, amplitude, survivors):
    warps = make_pixel(values, variances=[1.0, 9.0, 1.0, 1.0][: len(values)])
    _, _, out = one_pixel(
        warps, statistic="meanclip", clip_scale="input", sigma_clip=3, clip_amplitude=amplitude
    )
    assert list(out.counts[:, 0] == 1) == survivors


# invariants


@pytest.mark.parametrize("statistic", ["mean", "meanclip", "median"])
@pytest.mark.parametrize("weight", [1.0, 0.3, 1e-60])
def test_one_input_comes_back_bit_for_bit(rng, make_warp, statistic, weight):
    image = rng.normal(0, 1e4, (9, 11)).astype(np.float32)
    variance = rng.uniform(0.1, 1e6, (9, 11)).astype(np.float32)
    warp = make_warp(0, image, variance=variance, weight=weight, shape=(9, 11))
    out = stack([warp], Box(0, 0, 9, 11), replace(DEFAULT, statistic=statistic))
    np.testing.assert_array_equal(out.image, image)
    np.testing.assert_array_equal(out.variance, variance)
    assert (out.n_image == 1).all()


@pytest.mark.parametrize("statistic", ["mean", "meanclip"])
def test_copies_of_one_input(rng, make_warp, statistic):
    image = rng.normal(0, 1e4, (9, 11)).astype(np.float32)
    variance = rng.uniform(0.1, 1e3, (9, 11)).astype(np.float32)
    warps = [make_warp(i, image, variance=variance, shape=(9, 11)) for i in range(7)]
    out = stack(warps, Box(0, 0, 9, 11), replace(DEFAULT, statistic=statistic))
    np.testing.assert_array_max_ulp(out.image, image, 1)
    np.testing.assert_allclose(out.variance, variance / 7, rtol=1e-6)
    assert out.counts[:, 1].sum() == 0


@pytest.mark.parametrize("statistic", ["mean", "median", "meanclip"])
def test_order_of_inputs_does_not_matter(random_warps, statistic):
    warps, box = random_warps()
    rules = replace(DEFAULT, statistic=statistic)
    a, b = stack(warps, box, rules), stack(warps[::-1], box, rules)
    np.testing.assert_allclose(a.image, b.image, rtol=2e-7)
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(a.n_image, b.n_image)
    if statistic == "median":
        np.testing.assert_array_equal(a.image, b.image)


@pytest.mark.parametrize("statistic", ["mean", "median", "meanclip"])
@pytest.mark.parametrize("rows", [1, 7, 16])
def test_slabs_and_threads_do_not_matter(random_warps, monkeypatch, statistic, rows):
    warps, box = random_warps()
    rules = replace(DEFAULT, statistic=statistic)
    whole = stack(warps, box, rules, input_map=True)
    monkeypatch.setattr("coblend.core.coadd.stack.STRIP_BYTES", 0)
    counts = np.zeros_like(whole.counts)
    for y in range(0, box.ny, rows):
        slab = Box.from_bounds(y, 0, min(y + rows, box.ny), box.nx)
        cut = slab.slices(box)
        part = stack(warps, slab, rules, n_input=len(warps), threads=2, input_map=True)
        counts += part.counts
        for name in ("image", "mask", "variance", "n_image", "weight"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[cut])
        np.testing.assert_array_equal(part.input_map, whole.input_map[(slice(None), *cut)])
    np.testing.assert_array_equal(counts, whole.counts)


def test_scaling_an_input_changes_nothing_but_its_scale(random_warps):
    warps, box = random_warps()
    rules = replace(DEFAULT, statistic="meanclip")
    brighter = replace(
        warps[2], image=warps[2].image * 8, variance=warps[2].variance * 64, scale=1 / 8
    )
    a = stack(warps, box, rules)
    b = stack([*warps[:2], brighter, *warps[3:]], box, rules)
    np.testing.assert_allclose(a.image, b.image, rtol=1e-6)
    np.testing.assert_allclose(a.variance, b.variance, rtol=1e-6)


def test_no_data_is_no_image_and_the_input_map_counts(random_warps):
    warps, box = random_warps(n=33)
    for rules in (replace(DEFAULT, bad=0xFFFF), DEFAULT):
        out = stack(warps[:1] if rules.bad == 0xFFFF else warps, box, rules, input_map=True)
        empty = (out.mask & BIT["NO_DATA"]) != 0
        np.testing.assert_array_equal(empty, out.n_image == 0)
        np.testing.assert_array_equal(empty, np.isnan(out.image))
        np.testing.assert_array_equal(empty, np.isnan(out.variance))
        count = np.bitwise_count(out.input_map).sum(axis=0)
        np.testing.assert_array_equal(count, out.n_image)


def test_sums_of_counts(random_warps):
    warps, box = random_warps()
    out = stack(warps, box, DEFAULT)
    np.testing.assert_array_equal(out.counts.sum(axis=1), [w.image.size for w in warps])
    assert out.counts[:, 0].sum() == out.n_image.sum()


def test_pixel_weights_minimise_the_variance(random_warps):
    warps, box = random_warps()
    rules = replace(DEFAULT, statistic="mean", pixel_weights=True)
    out = stack(warps, box, rules)
    inverse = np.zeros(box.shape)
    total = np.zeros(box.shape)
    for warp in warps:
        good = (warp.mask & DEFAULT.bad) == 0
        good &= np.isfinite(warp.image) & (warp.variance > 0)
        part = np.where(good, 1 / warp.variance.astype(float), 0)
        inverse[warp.box.slices(box)] += part
        total[warp.box.slices(box)] += part * np.where(good, warp.image, 0)
    some = inverse > 0
    np.testing.assert_allclose(out.variance[some], 1 / inverse[some], rtol=1e-6)
    np.testing.assert_allclose(out.image[some], total[some] / inverse[some], rtol=1e-6)
    np.testing.assert_allclose(out.weight, inverse, rtol=1e-6)


def test_inputs_are_not_changed(random_warps):
    warps, box = random_warps()
    before = [(w.image.copy(), w.mask.copy(), w.variance.copy()) for w in warps]
    stack(warps, box, DEFAULT)
    for warp, planes in zip(warps, before, strict=True):
        for now, then in zip((warp.image, warp.mask, warp.variance), planes, strict=True):
            np.testing.assert_array_equal(now, then)


# noise
