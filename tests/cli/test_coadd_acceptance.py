"""What a coadd must be, on files through the command: closed forms, invariants, noise."""

import json
import os
import subprocess
import sys

import fitsio
import numpy as np
import pytest
from astropy.table import Table
from scipy.ndimage import gaussian_filter, label

from coblend.core.box import Box
from coblend.core.mask import PLANES
from coblend.io.coadd.coadds import read_coadd_psf
from coblend.io.sky.wcs import pixel_to_sky, sky_to_pixel, tangent_plane

BIT = {name: 1 << bit for name, bit in PLANES.items()}
SCATTER = ("--set", "clip_scale=scatter")
LOSS = 0.01033
"""Clipped fraction of 20 Gaussian samples, 3 sigma, two iterations: see `clipped_fraction`."""


def write(name, image, variance=1.0, mask=0, psf=None, header=()):
    """Write IMAGE, MASK and VARIANCE the way other programs do."""
    image = np.atleast_2d(np.asarray(image, np.float32))
    mask, variance = np.broadcast_to(mask, image.shape), np.broadcast_to(variance, image.shape)
    with fitsio.FITS(name, "rw", clobber=True) as file:
        file.write(image, extname="IMAGE", header=fitsio.FITSHDR([*header]))
        file.write(mask.astype(np.int32), extname="MASK",
                   header={f"MP_{k}": v for k, v in PLANES.items()})  # fmt: skip
        file.write(variance.astype(np.float32), extname="VARIANCE")
        if psf is not None:
            file.write(psf, extname="PSF")
    return name


def coadd(cli, inputs, *options, name="c.fits"):
    """Planes of a coadd without interpolation, and its INPUTS."""
    done = cli("assemble-coadd", *inputs, "-o", name, "--overwrite", "--set", "interp=false",
               "--set", "compress=none", *options)  # fmt: skip
    assert done.code == 0, done.err
    with fitsio.FITS(name) as file:
        out = {k: file[k].read() for k in ("IMAGE", "MASK", "VARIANCE", "NIMAGE", "INPUTS")}
        return out | {"header": file["IMAGE"].read_header()}


def stamp(fwhm, side=31):
    y, x = np.mgrid[:side, :side] - side // 2
    values = np.exp(-(y**2 + x**2) / 2 / (fwhm / 2.3548) ** 2)
    return values / values.sum()


# closed forms


def test_three_samples_by_hand(cli, in_folder):
    names = [
        write(f"{i}.fits", [[x]], v) for i, (x, v) in enumerate(((1, 0.1), (2, 0.2), (6, 0.3)))
    ]
    Table({"file": names, "weight": [1.0, 2.0, 1.0]}).write("t.ecsv")
    common = ("--weight", "column", "--statistic")
    out = coadd(cli, ["@t.ecsv"], *common, "mean")
    assert out["IMAGE"][0, 0] == 2.75
    assert out["VARIANCE"][0, 0] == pytest.approx(0.075, rel=1e-6)
    assert coadd(cli, ["@t.ecsv"], *common, "variance")["IMAGE"][0, 0] == pytest.approx(5.9)
    out = coadd(cli, ["@t.ecsv"], *common, "mean", "--set", "variance=scatter")
    assert out["VARIANCE"][0, 0] == pytest.approx(2.2125)


def columns(cases):
    """Files whose columns are the cases: lists of samples, filled up with NaN."""
    n = max(map(len, cases))
    cube = np.full((n, 1, len(cases)), np.nan)
    for k, case in enumerate(cases):
        cube[: len(case), 0, k] = case
    return [write(f"{i}.fits", plane) for i, plane in enumerate(cube)]


def test_clipping_of_few_by_hand(cli, in_folder):
    names = columns([[0] * 9 + [100], [0, 1, 100], [0, 100]])
    common = ("--statistic", "meanclip", "--weight", "none", *SCATTER)
    out = coadd(cli, names, *common)
    np.testing.assert_allclose(out["IMAGE"][0], [0, 101 / 3, 50], rtol=1e-6)
    np.testing.assert_array_equal(out["NIMAGE"][0], [9, 3, 2])
    np.testing.assert_array_equal((out["MASK"][0] & BIT["CLIPPED"]) != 0, [True, False, False])
    out = coadd(cli, columns([[0, 0, 100], [0, 100]]), *common, "--sigma-clip", "2.5")
    np.testing.assert_array_equal(out["IMAGE"][0], [0, 50])


def test_median_of_four_by_hand(cli, in_folder):
    out = coadd(cli, columns([[1, 2, 3, 10]]), "--statistic", "median")
    assert out["IMAGE"][0, 0] == 2.5
    assert out["VARIANCE"][0, 0] == pytest.approx(0.3055, abs=5e-5)


def test_planes_of_rejected_samples(cli, in_folder):
    masks = np.zeros((10, 1, 5), np.int32)
    masks[0, 0, 0] = BIT["SAT"]
    masks[:2, 0, 1] = BIT["SAT"]
    masks[0, 0, 2] = BIT["EDGE"]
    masks[0, 0, 3] = BIT["NO_DATA"]
    names = [write(f"{i}.fits", np.ones((1, 5)), mask=mask) for i, mask in enumerate(masks)]
    out = coadd(cli, names, "--statistic", "mean", "--weight", "none")
    rejected = BIT["REJECTED"] | BIT["INEXACT_PSF"]
    expected = [rejected, rejected | BIT["SAT"], BIT["SENSOR_EDGE"] | BIT["INEXACT_PSF"], 0, 0]
    assert list(out["MASK"][0]) == expected


def test_gaps_by_hand(cli, in_folder):
    row = [np.nan, 5, 7, 3, 1, np.nan, 4, 9, 2]
    write("a.fits", [row, np.full(9, 6.5)])
    assert cli("assemble-coadd", "a.fits", "-o", "c.fits", "--statistic", "mean").code == 0
    image, mask = (fitsio.read("c.fits", ext=k) for k in ("IMAGE", "MASK"))
    assert image[0, 0] == pytest.approx(1.4288 * 5 - 0.4288 * 7, abs=5e-4)
    inner = -0.2737 * 3 + 0.7737 * 1 + 0.7737 * 4 - 0.2737 * 9
    assert image[0, 5] == pytest.approx(inner, abs=5e-4)
    bits = BIT["NO_DATA"] | BIT["INTRP"]
    np.testing.assert_array_equal(mask[0] == bits, np.isnan(row))


def test_one_star_at_two_zero_points(cli, in_folder):
    for name, zero_point, flux in (("a", 27.0, 1.0), ("b", 29.5, 10.0)):
        write(f"{name}.fits", flux * stamp(4), header=[f"MAGZERO = {zero_point}", "BUNIT='adu'"])
    out = coadd(cli, ["a.fits", "b.fits"], "--unit", "nJy", "--statistic", "mean")
    np.testing.assert_allclose(out["INPUTS"]["scale"], [10**1.76, 10**0.76], rtol=1e-9)
    np.testing.assert_allclose(out["IMAGE"], 10**1.76 * stamp(4), rtol=1e-6)


# invariants


@pytest.fixture
def noisy(rng, in_folder):
    """Seven inputs with outliers, masked pixels and unflagged NaN."""
    names = []
    for i in range(7):
        image = rng.normal(1e4, 20, (40, 50))
        image[rng.random(image.shape) < 0.02] = np.nan
        image[rng.random(image.shape) < 0.03] += 900
        mask = rng.choice([0, 0, 0, 0, 1, 2, 16, 32, 256], image.shape)
        names.append(write(f"n{i}.fits", image, 400 + 10 * i, mask))
    return names


@pytest.mark.parametrize("statistic", ["mean", "meanclip"])
def test_copies_of_one_input(cli, noisy, statistic):
    names = [f"copy{i}.fits" for i in range(5)]
    for name in names:
        os.link(noisy[0], name)
    inputs = [os.rename(n, n + "_") or f"{n}_" for n in names]
    one = coadd(cli, noisy[:1], "--statistic", statistic)
    out = coadd(cli, [f"./{n}" for n in inputs], "--statistic", statistic)
    np.testing.assert_array_max_ulp(out["IMAGE"], one["IMAGE"], 1)
    np.testing.assert_allclose(out["VARIANCE"], one["VARIANCE"] / 5, rtol=1e-6)
    assert out["INPUTS"]["clipped_pixels"].sum() == 0


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_order_of_inputs(cli, noisy, rng, statistic):
    a = coadd(cli, noisy, "--statistic", statistic)
    b = coadd(cli, rng.permutation(noisy), "--statistic", statistic)
    np.testing.assert_allclose(a["IMAGE"], b["IMAGE"], rtol=2e-7 if statistic == "mean" else 0)
    for name in ("MASK", "NIMAGE"):
        np.testing.assert_array_equal(a[name], b[name])


# noise


@pytest.fixture(scope="module")
def white(tmp_path_factory):
    """Twenty images of 1024 x 1024 pixels of noise with one weight map, and with outliers."""
    folder, rng = tmp_path_factory.mktemp("white"), np.random.default_rng(7)
    fitsio.write(folder / "weight.fits", np.full((1024, 1024), 1 / 25, np.float32))
    names = {"clean": [], "dirty": []}
    for i in range(20):
        image = 5 * rng.standard_normal((1024, 1024), np.float32)
        for kind, group in names.items():
            if kind == "dirty":
                hit = rng.random(image.shape) < 5e-4
                image[hit] += rng.uniform(100, 5000, hit.sum()).astype(np.float32)
            group.append(str(folder / f"{kind}{i:02d}.fits"))
            fitsio.write(group[-1], image)
            os.symlink(folder / "weight.fits", folder / f"{kind}{i:02d}.weight.fits")
    return names


def test_clipped_fraction_of_the_definition(rng):
    """The number that coadds must reproduce, from the definition written out."""
    x = rng.normal(size=(20, 200_000))
    lower, centre, upper = np.quantile(x, (0.25, 0.5, 0.75), axis=0)
    half = 3 * 0.741301109252802 * (upper - lower)
    inside = np.abs(x - centre) <= half
    n = inside.sum(axis=0)
    mean = np.sum(x * inside, axis=0) / n
    spread = np.sum((x - mean) ** 2 * inside, axis=0) / (n - 1)
    assert np.mean(np.abs(x - mean) > 3 * np.sqrt(spread)) == pytest.approx(LOSS, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        (("mean",), 0.995, 1.005),
        (("meanclip", *SCATTER), 0.995, 1.04),
        (("meanclip",), 0.995, 1.04),
        (("median",), 0.99, 1.01),
    ],
)
def test_noise_is_that_of_the_variance_plane(cli, white, in_folder, options, low, high):
    out = coadd(cli, white["clean"], "--statistic", *options)
    assert low < np.std(out["IMAGE"] / np.sqrt(out["VARIANCE"])) < high
    if SCATTER[0] in options:
        assert out["header"]["CLIPLOSS"] == pytest.approx(LOSS, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["scatter", "input"])
def test_outliers_are_removed(cli, white, in_folder, scale):
    out = coadd(cli, white["dirty"], "--statistic", "meanclip", "--set", f"clip_scale={scale}")
    assert np.count_nonzero(np.abs(out["IMAGE"]) > 6 * np.sqrt(out["VARIANCE"])) == 0
    assert (out["INPUTS"]["clipped_pixels"] > 5e-4 * 1024**2).all()


# PSF


def test_stars_of_warps_through_their_own_wcs(cli, in_folder, rng):
    """Stars of turned exposures, warped and coadded, against the PSF of the coadd."""
    grid = tangent_plane(150.0, 2.0, 0.2, 150, 150)
    fitsio.write("grid.fits", np.zeros((300, 300), np.uint8), header=fitsio.FITSHDR([*grid]))
    ys, xs = (g.ravel() for g in np.mgrid[40:270:32, 40:270:32])
    sky = pixel_to_sky(grid, Box(0, 0, 300, 300), xs, ys)
    for i in range(12):
        angle, sigma = rng.uniform(0, 360), rng.uniform(3, 6) / 2.3548
        cards = turned(angle)
        image, (v, u) = np.zeros((360, 360)), np.mgrid[:360, :360]
        for x, y in zip(*sky_to_pixel(cards, Box(0, 0, 360, 360), *sky), strict=True):
            cut = np.s_[max(int(y) - 15, 0) : int(y) + 16, max(int(x) - 15, 0) : int(x) + 16]
            image[cut] += np.exp(-((v[cut] - y) ** 2 + (u[cut] - x) ** 2) / 2 / sigma**2)
        psf = stamp(sigma * 2.3548)
        flux = 1e4 / (2 * np.pi * sigma**2)
        write(f"e{i}.fits", flux * image, rng.uniform(1, 3), psf=psf, header=cards)
    exposures = [f"e{i}.fits" for i in range(12)]
    assert cli("warp", *exposures, "--like", "grid.fits", "-o", "w_{name}.fits").code == 0
    done = cli("assemble-coadd", *(f"w_{n}" for n in exposures), "-o", "c.fits", "--statistic",
               "mean", "--like", "grid.fits")  # fmt: skip
    assert done.code == 0, done.err
    image, n_image = (fitsio.read("c.fits", ext=k) for k in ("IMAGE", "NIMAGE"))
    psf, errors = read_coadd_psf("c.fits"), []
    for y, x in zip(ys, xs, strict=True):
        half = 10
        cut = np.s_[y - half : y + half + 1, x - half : x + half + 1]
        if n_image[cut].min() < n_image[cut].max() or n_image[y, x] < 10:
            continue
        model = psf.at(y, x)
        middle = model.shape[0] // 2
        model = model[middle - half : middle + half + 1, middle - half : middle + half + 1]
        star = image[cut].astype(float)
        star *= model.sum() / star.sum()
        errors.append(np.abs(star - model).max() / model.max())
    assert len(errors) >= 40
    assert max(errors) < 3e-3


def turned(degrees):
    """Tangent plane with rotated axes."""
    cos, sin = (f(np.radians(degrees)) * 0.2 / 3600 for f in (np.cos, np.sin))
    values = {"CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos}
    cards = []
    for card in tangent_plane(150.0, 2.0, 0.2, 180, 180):
        key = card[:8].strip()
        cards.append(f"{key:<8}= {values[key]:>20.13E}".ljust(80) if key in values else card)
    return cards


# artifacts


@pytest.mark.parametrize("n", [2, 5, 12])
def test_artifacts(cli, in_folder, n):
    """Cosmic rays, a trail and variable stars in matched epochs; the direct ones are the same."""
    rng, side, sigma = np.random.default_rng(n), 384, 7.7 / 2.3548
    sky = np.zeros((side, side))
    stars = rng.integers(12, side - 12, (60, 2))
    sky[stars[:, 0], stars[:, 1]] = 10 ** rng.uniform(2, 4.3, 60)
    variable = rng.integers(15, side - 15, (5, 2))
    names, artifacts = [], []
    for i in range(n):
        fluxes = sky.copy()
        fluxes[variable[:, 0], variable[:, 1]] += rng.uniform(500, 8000, 5)
        noise = gaussian_filter(rng.normal(size=sky.shape), 0.8)
        extra = np.zeros_like(sky)
        for y, x in rng.integers(8, side - 8, (6, 2)):
            extra[y : y + rng.integers(2, 6), x : x + rng.integers(2, 6)] += rng.uniform(10, 80)
        if i % 4 == 0:
            t = np.arange(side)
            extra[t, (t * 0.6 + rng.integers(0, side // 3)).astype(int)] += 60
        extra = gaussian_filter(extra, 1.0)
        image = gaussian_filter(fluxes, sigma) * rng.normal(1, 0.002) + noise / noise.std() + extra
        names += [write(f"{k}{i}.fits", image, psf=stamp(7.7, 41)) for k in "dm"]
        artifacts.append(extra)
    done = cli("assemble-coadd", *names[::2], "--reject", "compare-warp", "--psf-matched",
               ",".join(names[1::2]), "-o", "c.fits", "--set", "artifact_masks=a_{name}.fits",
               "--set", "template=t.fits")  # fmt: skip
    assert done.code == 0, done.err
    cut = [fitsio.read(f"a_d{i}.fits", ext="MASK") & BIT["CLIPPED"] != 0 for i in range(n)]
    if n == 2:
        assert not np.any(cut)
        assert "no artifact can be told from a source" in done.err
        return
    bright = gaussian_filter(np.nan_to_num(fitsio.read("t.fits", ext="IMAGE")), 3) > 20
    changing = np.zeros_like(bright)
    for y, x in variable:
        changing[y - 12 : y + 13, x - 12 : x + 13] = True
    free = ~changing & ~bright
    found = missed = spurious = hit = 0
    for mask, extra in zip(cut, artifacts, strict=True):
        real, quiet = (
            (extra > 8.25 * np.sqrt(1 + 1 / (n - 1))) & free,
            gaussian_filter(extra, 3) < 1e-3,
        )
        found, missed = (
            found + np.count_nonzero(real & mask),
            missed + np.count_nonzero(real & ~mask),
        )
        spurious += np.count_nonzero(mask & free & quiet)
        hit += label(mask & changing & quiet)[1]
    assert found / (found + missed) >= 0.96
    assert spurious < 2e-4 * n * side**2
    assert hit <= max(0.02 * 5 * n, 1)


# memory


def peak(words, in_folder):
    """Peak memory (MiB) of a run of the program, which a shell starts: a child's peak begins
    with the size of the process that it comes from.
    """
    shell = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "coblend", *words]
    done = subprocess.run([*shell, "--json", "-q"], capture_output=True, check=True, cwd=in_folder)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rows"), [(20, 1024), (20, 4096), (200, 1024)])
@pytest.mark.parametrize("statistic", ["mean", "meanclip"])
def test_memory_is_bounded(in_folder, rng, n, rows, statistic):
    """Whatever the number of inputs and their height, and as the dry run says."""
    fitsio.write("a.fits", rng.standard_normal((rows, 512), np.float32))
    fitsio.write("weight.fits", np.ones((rows, 512), np.float32))
    names = []
    for i in range(n):  # the same pixels: what is measured is memory
        os.link("a.fits", f"{i}.fits")
        os.link("weight.fits", f"{i}.weight.fits")
        names.append(f"{i}.fits")
    (in_folder / "list.txt").write_text("\n".join(names))
    words = ("assemble-coadd", "@list.txt", "-o", "c.fits", "--statistic", statistic,
             "--max-memory", "200MiB", "--set", "compress=none")  # fmt: skip
    planned = peak([*words, "-n"], in_folder)["memory_mib"]
    used = peak(words, in_folder)["peak_rss_mib"]
    assert used <= planned <= 200


@pytest.mark.slow
def test_memory_of_the_comparison_is_bounded(in_folder, rng):
    shape = (6000, 512)
    image = rng.standard_normal(shape, np.float32)
    names = []
    for kind in "dm":
        write("plain.fits", image, psf=stamp(7.7, 41))
        for i in range(6):
            os.link("plain.fits", f"{kind}{i}.fits")
            names.append(f"{kind}{i}.fits")
        os.unlink("plain.fits")
    words = ["assemble-coadd", *names[:6], "--reject", "compare-warp", "--psf-matched",
             ",".join(names[6:]), "-o", "c.fits", "--max-memory", "200MiB"]  # fmt: skip
    assert peak([*words, "--set", "compress=none"], in_folder)["peak_rss_mib"] < 200
