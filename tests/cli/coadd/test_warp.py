"""``coblend warp`` on files."""

import json
from dataclasses import replace

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.mask import PLANES
from coblend.core.psf import StampPsf
from coblend.io.coadd.coadds import text_of
from coblend.io.exposure.exposures import read_exposure
from coblend.io.sky.wcs import sky_to_pixel, tangent_plane

SHAPE = (120, 140)
GRID = tangent_plane(150.0, 2.0, 0.2, 100, 110)
SIGMA = 1.7


def turned(angle, ra=150.0, dec=2.0, scale=0.2, y=60.0, x=70.0):
    """Tangent plane with rotated axes."""
    cos, sin = (f(np.radians(angle)) * scale / 3600 for f in (np.cos, np.sin))
    values = {"CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos}
    cards = []
    for card in tangent_plane(ra, dec, scale, y, x):
        key = card[:8].strip()
        cards.append(f"{key:<8}= {values[key]:>20.13E}".ljust(80) if key in values else card)
    return tuple(cards)


def psf_stamp(side=21):
    y, x = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-(y**2 + x**2) / 2 / SIGMA**2)
    return stamp / stamp.sum()


STARS = np.array([[150.0, 2.0], [150.001, 2.002], [149.998, 1.9985]])
FLUXES = np.array([1e5, 4e4, 7e4])


@pytest.fixture
def exposure():
    """Three stars on a turned grid."""
    cards, box = turned(25.0), Box(0, 0, *SHAPE)
    image = np.zeros(SHAPE)
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    x, y = sky_to_pixel(cards, box, *STARS.T)
    for sx, sy, flux in zip(x, y, FLUXES, strict=True):
        profile = np.exp(-((ys - sy) ** 2 + (xs - sx) ** 2) / 2 / SIGMA**2)
        image += flux * profile / (2 * np.pi * SIGMA**2)
    return Exposure(
        image.astype(np.float32), np.zeros(SHAPE, np.int32), np.full(SHAPE, 4, np.float32), box,
        band="g", unit="adu", psf=StampPsf(psf_stamp()), wcs=cards,
        meta={"MAGZERO": 29.0, "EXPTIME": 30.0},
    )  # fmt: skip


@pytest.fixture
def grid(in_folder):
    """A file with the grid of a coadd."""
    header = fitsio.FITSHDR([*GRID, "LTV1    = -1000", "LTV2    = -500"])
    fitsio.write("grid.fits", np.zeros((200, 220), np.uint8), header=header)
    return Box(500, 1000, 200, 220)


def test_stars_land_where_the_sky_says(cli, exposure, write_file, grid):
    write_file(exposure, "e.fits")
    done = cli("warp", "e.fits", "--like", "grid.fits", "-o", "w.fits")
    assert done.code == 0, done.err
    warp = read_exposure("w.fits")
    assert grid.contains(warp.box)
    assert (warp.band, warp.unit, warp.meta["MAGZERO"]) == ("g", "adu", 29.0)
    x, y = sky_to_pixel(warp.wcs, warp.box, *STARS.T)
    on_grid = sky_to_pixel(GRID, grid, *STARS.T)
    np.testing.assert_allclose([x, y], on_grid, atol=1e-6)
    ys, xs = np.mgrid[warp.box.y0 : warp.box.y1, warp.box.x0 : warp.box.x1]
    for sx, sy, flux in zip(x, y, FLUXES, strict=True):
        near = (ys - sy) ** 2 + (xs - sx) ** 2 < 12**2
        part = np.where(near, warp.image, 0).astype(float)
        assert part.sum() == pytest.approx(flux, rel=5e-4)
        assert (part * ys).sum() / part.sum() == pytest.approx(sy, abs=2e-3)
        assert (part * xs).sum() / part.sum() == pytest.approx(sx, abs=2e-3)
    star = warp.image / FLUXES[0]
    y0, x0 = round(y[0]) - warp.box.y0, round(x[0]) - warp.box.x0
    n = warp.psf.side // 2
    stamp = warp.psf.at(y[0], x[0])
    inside = star[y0 - n : y0 + n + 1, x0 - n : x0 + n + 1]
    # one star differs by its place in the pixel; many: tests/cli/test_coadd_acceptance.py
    np.testing.assert_allclose(inside, stamp, atol=5e-3 * stamp.max())


def test_what_goes_with_the_pixels(cli, exposure, write_file, grid):
    exposure.mask[60:64, 70:74] = 1 << PLANES["SAT"]
    write_file(exposure, "e.fits")
    assert cli("warp", "e.fits", "--like", "grid.fits", "-o", "w.fits").code == 0
    warp = read_exposure("w.fits")
    good = np.isfinite(warp.variance)
    np.testing.assert_array_equal((warp.mask & (1 << PLANES["NO_DATA"])) == 0, good)
    n_saturated = np.count_nonzero(warp.mask & (1 << PLANES["SAT"]))
    assert 64 <= n_saturated <= 100  # 4 x 4 pixels and all whose kernel reaches them
    header = fitsio.read_header("w.fits", ext="IMAGE")
    assert 0.7 < header["NOISECOR"] < 0.85
    assert np.median(warp.variance[good]) == pytest.approx(4 * header["NOISECOR"], rel=0.05)
    acf = fitsio.read("w.fits", ext="NOISE_ACF")
    assert acf.shape == (5, 5)
    assert acf[2, 2] == 1
    polygon = fitsio.read("w.fits", ext="POLYGONS")
    assert abs(0.5 * np.sum(
        polygon["x"] * np.roll(polygon["y"], 1) - polygon["y"] * np.roll(polygon["x"], 1)
    )) == pytest.approx(SHAPE[0] * SHAPE[1], rel=1e-3)  # fmt: skip


@pytest.mark.parametrize("plane", ["CR", "SAT"])
def test_no_light_of_defects_in_clean_pixels(cli, exposure, write_file, grid, plane):
    """Neither that of raw cosmic rays nor the ringing about saturated plateaus."""
    y, x = (np.random.default_rng(5).integers(20, n - 20, 12) for n in SHAPE)
    exposure.image[:] = 0
    exposure.image[y, x] = 1e4
    exposure.mask[y, x] = 1 << PLANES[plane]
    write_file(exposure, "e.fits")
    assert cli("warp", "e.fits", "--like", "grid.fits", "-o", "w.fits").code == 0
    warp = read_exposure("w.fits")
    clean = (warp.mask & warp.planes.value(["NO_DATA", "SAT"])) == 0
    assert clean.mean() > 0.4
    assert np.abs(warp.image[clean]).max() < 1e-3


def test_warps_coadd(cli, exposure, write_file, grid):
    for i in range(3):
        write_file(replace(exposure, wcs=turned(10.0 * i)), f"e{i}.fits")
    done = cli("warp", "e0.fits", "e1.fits", "e2.fits", "--like", "grid.fits", "-o",
               "w_{name}.fits", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["n_warp"] == 3
    for i in range(3):  # each warp names its own inputs
        rows = fitsio.read(f"w_e{i}.fits", ext="PROVENANCE")
        assert sorted(text_of(name) for name in rows["name"]) == [f"e{i}.fits", "grid.fits"]
    made_by = "coblend warp e0.fits e1.fits e2.fits --like grid.fits -o w_{name}.fits"
    assert cli("info", "w_e1.fits", "--command").out.strip() == made_by
    names = [f"w_e{i}.fits" for i in range(3)]
    done = cli("assemble-coadd", *names, "-o", "c.fits")
    assert done.code == 0, done.err
    assert fitsio.read("c.fits", ext="NIMAGE").max() == 3


def test_surface_brightness_stays(cli, exposure, write_file, grid):
    """On pixels of a quarter of the area: equal values, and zero point and area that fit them.

    As in the files of JWST; the fluxes of the stars are the same in any unit.
    """
    area = (0.2 * np.pi / 180 / 3600) ** 2
    meta = {"PIXAR_SR": area, "PIXAR_A2": 0.04, "MAGZERO": 8.9 - 2.5 * np.log10(1e6 * area)}
    image = exposure.image + np.float32(7)
    write_file(replace(exposure, image=image, unit="MJy/sr", meta=meta), "e.fits")
    write_file(replace(exposure, image=image), "flux.fits")
    header = fitsio.FITSHDR([*tangent_plane(150.0, 2.0, 0.1, 200, 220)])
    fitsio.write("fine.fits", np.zeros((400, 440), np.uint8), header=header)
    for name in ("e", "flux"):
        done = cli("warp", f"{name}.fits", "--like", "fine.fits", "-o", f"w_{name}.fits")
        assert done.code == 0, done.err
    warp, flux = read_exposure("w_e.fits"), read_exposure("w_flux.fits")
    good = np.isfinite(warp.variance)
    assert np.percentile(warp.image[good], 20) == pytest.approx(7, rel=1e-3)
    assert np.median(warp.variance[good]) == pytest.approx(16 * np.median(flux.variance[good]))
    assert warp.unit == "MJy/sr"
    assert warp.meta["PIXAR_SR"] == pytest.approx(area / 4, rel=1e-6)
    assert warp.meta["PIXAR_A2"] == pytest.approx(0.01, rel=1e-6)
    zero = 8.9 - 2.5 * np.log10(1e6 * warp.meta["PIXAR_SR"])
    assert warp.meta["MAGZERO"] == pytest.approx(zero, abs=1e-6)
    scale = 10 ** (0.4 * (meta["MAGZERO"] - warp.meta["MAGZERO"]))
    np.testing.assert_allclose(warp.image[good] * scale, flux.image[good], rtol=1e-3, atol=1e-3)


def test_a_psf_from_the_command_line(cli, exposure, write_file, grid):
    """It is warped as that of the file would be; without any there is a warning."""
    write_file(exposure, "e.fits")
    write_file(replace(exposure, psf=None), "bare.fits")
    to_grid = ("--like", "grid.fits", "--overwrite", "-o")
    assert cli("warp", "e.fits", *to_grid, "w.fits").err.count("PSF") == 0
    fitsio.write("p.fits", psf_stamp())
    done = cli("warp", "bare.fits", "--psf", "g=p.fits", *to_grid, "b.fits")
    assert (done.code, done.err.count("PSF")) == (0, 0)
    psfs = [read_exposure(name).psf for name in ("w.fits", "b.fits")]
    np.testing.assert_array_equal(*(psf.at(600, 1100) for psf in psfs))
    done = cli("warp", "bare.fits", *to_grid, "b.fits")
    assert done.code == 0
    assert "bare.fits: no PSF, so its warp has none; give one with --psf" in done.err
    done = cli("warp", "bare.fits", "--psf", "r=p.fits", *to_grid, "b.fits")
    assert (done.code, "no exposure of band r\n  there is g" in done.err) == (2, True)


def test_same_grid_is_a_copy(cli, exposure, write_file, in_folder):
    write_file(exposure, "e.fits")
    assert cli("warp", "e.fits", "--like", "e.fits", "-o", "w.fits").code == 0
    warp = read_exposure("w.fits")
    inner = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(warp.image[inner], exposure.image[inner], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(warp.psf.at(0, 0), exposure.psf.at(0, 0), atol=1e-6)


def test_dry_run_writes_nothing(cli, exposure, write_file, grid, in_folder):
    write_file(exposure, "e.fits")
    done = cli("warp", "e.fits", "--like", "grid.fits", "-o", "w.fits", "-n", "--json")
    assert done.code == 0
    (row,) = json.loads(done.out)["table"]
    assert row["nx"] > 100
    assert not (in_folder / "w.fits").exists()


# bad input


def test_a_warp_without_a_usable_pixel_is_warned_of(cli, exposure, write_file, grid):
    """Its name is said; the warp is written all the same."""
    variance = np.full(SHAPE, np.nan, np.float32)
    variance[0, 0] = 4  # at the border, where no kernel fits
    write_file(replace(exposure, variance=variance), "e.fits")
    write_file(exposure, "f.fits")
    done = cli("warp", "e.fits", "f.fits", "--like", "grid.fits", "-o", "w_{name}.fits")
    assert done.code == 0, done.err
    assert "e.fits: its warp has no usable pixel" in done.err
    assert "f.fits: its" not in done.err


def test_an_output_that_exists_stops_all(cli, exposure, write_file, grid, in_folder):
    for name in ("e0.fits", "e1.fits", "w_e1.fits"):
        write_file(exposure, name)
    done = cli("warp", "e0.fits", "e1.fits", "--like", "grid.fits", "-o", "w_{name}.fits")
    assert done.code == 73
    assert "w_e1.fits" in done.err
    assert not (in_folder / "w_e0.fits").exists()


def test_pixels_that_do_not_fit_into_memory_stop_all(cli, exposure, write_file, grid, in_folder):
    """Pixels before and after count; nothing is written before one exposure is refused."""
    write_file(exposure, "e0.fits")
    write_file(exposure, "e1.fits")
    common = ("warp", "e1.fits", "e0.fits", "--like", "grid.fits", "-o", "w_{name}.fits")
    done = cli(*common, "--max-memory", "1MB")  # of which the exposure takes 0.74
    assert done.code == 75
    assert "e1.fits: needs about 1 MB, --max-memory is 1MB" in done.err
    small = slice(0, 20), slice(0, 30)
    planes = {name: getattr(exposure, name)[small] for name in ("image", "mask", "variance")}
    write_file(replace(exposure, **planes, box=Box(0, 0, 20, 30)), "e1.fits")
    assert "e0.fits: needs" in cli(*common, "--max-memory", "1MB").err
    assert not list(in_folder.glob("w_*"))
    done = cli(*common, "--max-memory", "2MB")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("e.fits",), 2, "pass --like FILE"),
        (("e.fits", "--like", "gone.fits"), 66, "gone.fits"),
        (("e.fits", "--like", "plain.fits"), 65, "plain.fits: no image with a celestial WCS"),
        (("e.fits", "far.fits", "--like", "grid.fits"), 2, "put {name} into --output"),
        (("far.fits", "--like", "grid.fits"), 65, "does not overlap the grid"),
        (("bare.fits", "--like", "grid.fits"), 65, "bare.fits: no celestial WCS"),
        (("e.fits", "--like", "grid.fits", "--kernel", "sinc"), 2, "kernel is 'sinc'"),
        (("@gone.txt", "--like", "grid.fits"), 66, "gone.txt"),
    ],
)
def test_bad_arguments(cli, exposure, write_file, grid, in_folder, arguments, code, message):
    write_file(exposure, "e.fits")
    write_file(replace(exposure, wcs=turned(0.0, ra=151.0)), "far.fits")
    write_file(replace(exposure, wcs=()), "bare.fits")
    fitsio.write("plain.fits", np.zeros((5, 5), np.float32))
    done = cli("warp", *arguments, "-o", "w.fits")
    assert done.code == code, done.err
    assert message in done.err
    assert not (in_folder / "w.fits").exists()
