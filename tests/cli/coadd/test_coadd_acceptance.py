"""What a coadd must be, on files through the command: closed forms and invariants."""

import os

import fitsio
import numpy as np
import pytest
from astropy.table import Table

from coblend.core.mask import PLANES

BIT = {name: 1 << bit for name, bit in PLANES.items()}
SCATTER = ("--set", "clip_scale=scatter")


@pytest.fixture
def columns(write, in_folder):
    """Make files whose columns are the cases: lists of samples, filled up with NaN."""

    def make(cases):
        n = max(map(len, cases))
        cube = np.full((n, 1, len(cases)), np.nan)
        for k, case in enumerate(cases):
            cube[: len(case), 0, k] = case
        return [write(f"{i}.fits", plane) for i, plane in enumerate(cube)]

    return make


# closed forms


def test_three_samples_by_hand(write, coadd, in_folder):
    names = [
        write(f"{i}.fits", [[x]], v) for i, (x, v) in enumerate(((1, 0.1), (2, 0.2), (6, 0.3)))
    ]
    Table({"file": names, "weight": [1.0, 2.0, 1.0]}).write("t.ecsv")
    common = ("--weight", "column", "--statistic")
    out = coadd(["@t.ecsv"], *common, "mean")
    assert out["IMAGE"][0, 0] == 2.75
    assert out["VARIANCE"][0, 0] == pytest.approx(0.075, rel=1e-6)
    assert coadd(["@t.ecsv"], *common, "variance")["IMAGE"][0, 0] == pytest.approx(5.9)
    out = coadd(["@t.ecsv"], *common, "mean", "--set", "variance=scatter")
    assert out["VARIANCE"][0, 0] == pytest.approx(2.2125)


def test_clipping_of_few_by_hand(coadd, columns):
    names = columns([[0] * 9 + [100], [0, 1, 100], [0, 100]])
    common = ("--statistic", "meanclip", "--weight", "none", *SCATTER)
    out = coadd(names, *common)
    np.testing.assert_allclose(out["IMAGE"][0], [0, 101 / 3, 50], rtol=1e-6)
    np.testing.assert_array_equal(out["NIMAGE"][0], [9, 3, 2])
    np.testing.assert_array_equal((out["MASK"][0] & BIT["CLIPPED"]) != 0, [True, False, False])
    names = columns([[0, 0, 100], [0, 100]])
    for k, expected in (("2.5", [0, 50]), ("1.35", [0, 50])):
        out = coadd(names, *common, "--sigma-clip", k)
        np.testing.assert_array_equal(out["IMAGE"][0], expected)


def test_median_of_four_by_hand(coadd, columns):
    out = coadd(columns([[1, 2, 3, 10]]), "--statistic", "median")
    assert out["IMAGE"][0, 0] == 2.5
    assert out["VARIANCE"][0, 0] == pytest.approx(0.3055, abs=5e-5)


def test_planes_of_rejected_samples(write, coadd, in_folder):
    masks = np.zeros((10, 1, 5), np.int32)
    masks[0, 0, 0] = BIT["SAT"]
    masks[:2, 0, 1] = BIT["SAT"]
    masks[0, 0, 2] = BIT["EDGE"]
    masks[0, 0, 3] = BIT["NO_DATA"]
    names = [write(f"{i}.fits", np.ones((1, 5)), mask=mask) for i, mask in enumerate(masks)]
    out = coadd(names, "--statistic", "mean", "--weight", "none")
    rejected = BIT["REJECTED"] | BIT["INEXACT_PSF"]
    expected = [rejected, rejected | BIT["SAT"], BIT["SENSOR_EDGE"] | BIT["INEXACT_PSF"], 0, 0]
    assert list(out["MASK"][0]) == expected


def test_gaps_by_hand(write, cli, in_folder):
    """By the coefficients; a ramp over single pixels and a constant row come back."""
    row = [np.nan, 5, 7, 3, 1, np.nan, 4, 9, 2]
    ramp, flat = np.arange(9.0) * 3 - 7, np.full(9, 6.5)
    gaps = np.isnan([row, row, row]) | np.array(
        [[False] * 9, [False] * 9, [True] * 4 + [False] * 5]
    )
    gaps[1, 0] = False  # a ramp is not continued beyond the border
    write("a.fits", np.where(gaps, np.nan, [row, ramp, flat]))
    assert cli("assemble-coadd", "a.fits", "-o", "c.fits", "--statistic", "mean").code == 0
    image, mask = (fitsio.read("c.fits", ext=k) for k in ("IMAGE", "MASK"))
    assert image[0, 0] == pytest.approx(1.4288 * 5 - 0.4288 * 7, abs=5e-4)
    inner = -0.2737 * 3 + 0.7737 * 1 + 0.7737 * 4 - 0.2737 * 9
    assert image[0, 5] == pytest.approx(inner, abs=5e-4)
    np.testing.assert_allclose(image[1:], [ramp, flat], rtol=1e-6)
    np.testing.assert_array_equal(mask == BIT["NO_DATA"] | BIT["INTRP"], gaps)


def test_one_star_at_two_zero_points(stamp, write, coadd, in_folder):
    for name, zero_point, flux in (("a", 27.0, 1.0), ("b", 29.5, 10.0)):
        write(f"{name}.fits", flux * stamp(4), header=[f"MAGZERO = {zero_point}", "BUNIT='adu'"])
    out = coadd(["a.fits", "b.fits"], "--unit", "nJy", "--statistic", "mean")
    np.testing.assert_allclose(out["INPUTS"]["scale"], [10**1.76, 10**0.76], rtol=1e-9)
    np.testing.assert_allclose(out["IMAGE"], 10**1.76 * stamp(4), rtol=1e-6)


# invariants


@pytest.fixture
def noisy(write, rng, in_folder):
    """Seven inputs with outliers, masked pixels and unflagged NaN."""
    names = []
    for i in range(7):
        image = rng.normal(1e4, 20, (40, 50))
        image[rng.random(image.shape) < 0.02] = np.nan
        image[rng.random(image.shape) < 0.03] += 900
        mask = rng.choice([0, 0, 0, 0, 1, 2, 16, 32, 256], image.shape)
        names.append(write(f"n{i}.fits", image, 400 + 10 * i, mask))
    return names


@pytest.mark.parametrize("statistic", [("mean",), ("meanclip",), ("meanclip", *SCATTER)])
def test_copies_of_one_input(coadd, noisy, statistic):
    names = [f"copy{i}.fits" for i in range(5)]
    for name in names:
        os.link(noisy[0], name)
    inputs = [os.rename(n, n + "_") or f"{n}_" for n in names]
    one = coadd(noisy[:1], "--statistic", *statistic)
    out = coadd([f"./{n}" for n in inputs], "--statistic", *statistic)
    np.testing.assert_array_max_ulp(out["IMAGE"], one["IMAGE"], 1)
    np.testing.assert_allclose(out["VARIANCE"], one["VARIANCE"] / 5, rtol=1e-6)
    assert out["INPUTS"]["clipped_pixels"].sum() == 0


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_order_of_inputs(coadd, noisy, rng, statistic):
    a = coadd(noisy, "--statistic", statistic)
    b = coadd(rng.permutation(noisy), "--statistic", statistic)
    np.testing.assert_allclose(a["IMAGE"], b["IMAGE"], rtol=2e-7 if statistic == "mean" else 0)
    for name in ("MASK", "NIMAGE"):
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("statistic", [("mean",), ("meanclip", *SCATTER), ("median",)])
def test_slabs_strips_and_threads(coadd, noisy, monkeypatch, statistic):
    """Few rows at a time and two threads give the same pixels, counts and weights."""
    one = coadd(noisy, "--statistic", *statistic)
    monkeypatch.setattr("coblend.core.coadd.plan._CACHE_BYTES", 1)
    monkeypatch.setattr("coblend.core.coadd.stack.STRIP_BYTES", 1)
    for jobs in ("1", "2"):
        many = coadd(noisy, "--statistic", *statistic, "-j", jobs)
        for name in ("IMAGE", "MASK", "VARIANCE", "NIMAGE"):
            np.testing.assert_array_equal(many[name], one[name])
        for name in ("weight", "good_pixels", "clipped_pixels", "rejected_pixels"):
            np.testing.assert_array_equal(many["INPUTS"][name], one["INPUTS"][name])


@pytest.mark.parametrize("statistic", [("mean",), ("meanclip", *SCATTER), ("median",)])
def test_scale_of_an_input(write, coadd, noisy, statistic):
    """One input in other units, its zero point changed with them."""
    for name in noisy:
        with fitsio.FITS(name, "rw") as file:
            file["IMAGE"].write_key("MAGZERO", 27.0)
    with fitsio.FITS(noisy[3]) as file:
        image, mask, variance = (file[k].read() for k in ("IMAGE", "MASK", "VARIANCE"))
    scale = 3.7
    write("other.fits", image * scale, variance * scale**2, mask,
          header=[f"MAGZERO = {float(27 + 2.5 * np.log10(scale))!r}"])  # fmt: skip
    options = ("--unit", "zp=27", "--statistic", *statistic)
    one = coadd(noisy, *options)
    other = coadd([*noisy[:3], "other.fits", *noisy[4:]], *options)
    for name in ("IMAGE", "VARIANCE"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-6)
    for name in ("MASK", "NIMAGE"):
        np.testing.assert_array_equal(other[name], one[name])
    brighter = coadd(noisy, "--unit", "zp=29.5", "--statistic", *statistic)
    np.testing.assert_allclose(brighter["IMAGE"], 10 * one["IMAGE"], rtol=1e-6)
    np.testing.assert_allclose(brighter["VARIANCE"], 100 * one["VARIANCE"], rtol=1e-6)
