"""``coblend assemble-coadd`` on files."""

import gzip
import json
import re
from dataclasses import replace

import fitsio
import numpy as np
import pytest
from astropy.table import Table

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.mask import PLANES
from coblend.core.psf import CellPsf, StampPsf
from coblend.io.coadd.coadds import read_coadd_psf, text_of
from coblend.io.coadd.warps import WarpFile
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits import reader
from coblend.io.psf.psfs import parse_psf_spec
from coblend.io.sky.wcs import grid_offset, tangent_plane

BIT = {name: 1 << bit for name, bit in PLANES.items()}
SHAPE = (70, 90)
FIELD = Box(0, 0, *SHAPE)
SKY = tangent_plane(150.0, 2.0, 0.2, 35, 45)


def gaussian(fwhm, side=25):
    y, x = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-(y**2 + x**2) / 2 / (fwhm / 2.3548) ** 2)
    return stamp / stamp.sum()


@pytest.fixture
def warp(rng):
    """Make a warp of noise with a star."""

    def make(fwhm=3.0, sigma=5.0, box=FIELD, **changes):
        image = rng.normal(0, sigma, SHAPE)
        image[28:53, 33:58] += 1e5 * gaussian(fwhm)
        cut = box.slices(FIELD)
        whole = Exposure(
            image=image[cut].astype(np.float32),
            mask=np.zeros(box.shape, np.int32),
            variance=np.full(box.shape, sigma**2, np.float32),
            box=box,
            band="g",
            unit="adu",
            psf=StampPsf(gaussian(fwhm)),
            wcs=tuple(tangent_plane(150.0, 2.0, 0.2, 35 - box.y0, 45 - box.x0)),
            meta={"MAGZERO": 30.0, "EXPTIME": 20.0, "MJD-OBS": 60000.0},
        )
        return replace(whole, **changes)

    return make


@pytest.fixture
def warps(warp, write_file, in_folder):
    """Six warps of different seeing, depth and zero point."""
    for i in range(6):
        scale = 10 ** (0.4 * 0.1 * i)
        made = warp(3 + 0.2 * i, 5 + i, meta={"MAGZERO": 30 + 0.1 * i, "EXPTIME": 20.0})
        made = made.with_pixels(made.image * scale, made.mask, made.variance * scale**2)
        write_file(made, f"w{i}.fits")
    return [f"w{i}.fits" for i in range(6)]


def planes(path):
    with fitsio.FITS(path) as file:
        return {
            name: file[name].read() for name in ("IMAGE", "MASK", "VARIANCE", "NIMAGE", "WEIGHT")
        }


def test_coadd_of_calibrated_warps(cli, warps):
    done = cli("assemble-coadd", *warps, "-o", "c.fits", "--unit", "nJy", "--statistic", "mean")
    assert done.code == 0, done.err
    coadd = read_exposure("c.fits")
    assert (coadd.unit, coadd.band, coadd.box) == ("nJy", "g", Box(0, 0, *SHAPE))
    assert coadd.wcs == SKY
    table = fitsio.read("c.fits", ext="INPUTS")
    scales = [10 ** (0.4 * (1.4 - 0.1 * i)) for i in range(6)]
    np.testing.assert_allclose(table["scale"], scales, rtol=1e-12)
    variance = np.array([(5 + i) ** 2 * 10 ** (0.8 * 1.4) for i in range(6)])
    np.testing.assert_allclose(table["weight"], 1 / variance, rtol=1e-6)
    np.testing.assert_allclose(coadd.variance, 1 / (1 / variance).sum(), rtol=1e-6)
    weight = planes("c.fits")["WEIGHT"]
    np.testing.assert_allclose(weight, (1 / variance).sum(), rtol=1e-6)
    noise = coadd.image[:25] / np.sqrt(coadd.variance[:25])
    assert noise.std() == pytest.approx(1, abs=0.05)
    flux = coadd.image[28:53, 33:58].sum()
    assert flux == pytest.approx(1e5 * 10 ** (0.4 * 1.4), rel=0.02)
    w = 1 / variance
    expected = sum(wi * gaussian(3 + 0.2 * i) for i, wi in enumerate(w)) / w.sum()
    np.testing.assert_allclose(coadd.psf.at(0, 0), expected, atol=1e-9)
    header = fitsio.read_header("c.fits", ext="IMAGE")
    assert (header["NCOMBINE"], header["EXPTIME"], header["MAGZERO"]) == (6, 120, 31.4)
    assert header["PSFEXACT"]


@pytest.mark.parametrize(
    ("statistic", "unit", "calibrated"),
    [
        ("median", "nJy", True),
        ("iqrange", "nJy", False),
        ("varianceclip", "nJy**2", False),
        ("meansquare", "nJy**2", False),
        ("nmasked", None, False),
        ("sum", "nJy**-1", False),
        ("sum --weight none", "nJy", True),
    ],
)
def test_units_of_statistics(cli, warps, statistic, unit, calibrated):
    """``BUNIT`` is that of what the pixels hold, and only fluxes have a zero point."""
    done = cli("assemble-coadd", *warps, "-o", "c.fits", "--unit", "nJy", "--set", "interp=false",
               "--statistic", *statistic.split())  # fmt: skip
    assert done.code == 0, done.err
    with fitsio.FITS("c.fits") as file:
        image, variance = (file[name].read_header() for name in ("IMAGE", "VARIANCE"))
    assert image.get("BUNIT") == unit
    assert ("MAGZERO" in image) == calibrated
    squares = {"nJy": "nJy**2", "nJy**2": "nJy**4", "nJy**-1": "nJy**-2", None: None}
    assert variance.get("BUNIT") == squares[unit]


def test_the_zero_point_of_an_input_does_not_matter(cli, warps):
    first = read_exposure("w3.fits")
    assert cli("assemble-coadd", *warps, "-o", "a.fits", "--unit", "zp=27").code == 0
    with fitsio.FITS("w3.fits", "rw") as file:
        file["IMAGE"].write_key("MAGZERO", first.meta["MAGZERO"] - 2.5)
    header = fitsio.read_header("w3.fits", ext="IMAGE")
    assert header["MAGZERO"] == pytest.approx(27.8)
    with fitsio.FITS("w3.fits", "rw") as file:
        file["IMAGE"].write(first.image / 10)
        file["VARIANCE"].write(first.variance / 100)
    assert cli("assemble-coadd", *warps, "-o", "b.fits", "--unit", "zp=27").code == 0
    a, b = planes("a.fits"), planes("b.fits")
    for name in ("IMAGE", "VARIANCE", "WEIGHT"):
        np.testing.assert_allclose(a[name], b[name], rtol=2e-6, atol=1e-6 * np.abs(a[name]).max())
    np.testing.assert_array_equal(a["NIMAGE"], b["NIMAGE"])


def test_lossy_coadds(cli, warps):
    """Pixels to 0.035 of the noise, the variance to 5e-4, all else as it is; the same bytes."""
    for name in ("auto", "lossy", "again"):
        how = "auto" if name == "auto" else "lossy"
        done = cli("assemble-coadd", *warps, "-o", f"{name}.fits", "--unit", "nJy",
                   "--set", f"compress={how}")  # fmt: skip
        assert done.code == 0, done.err
    whole, lossy = planes("auto.fits"), planes("lossy.fits")
    noise = np.sqrt(np.median(whole["VARIANCE"]))
    assert 0 < np.abs(lossy["IMAGE"] - whole["IMAGE"]).max() <= 0.035 * noise
    np.testing.assert_allclose(lossy["VARIANCE"], whole["VARIANCE"], rtol=5e-4)
    for name in ("MASK", "NIMAGE", "WEIGHT"):
        np.testing.assert_array_equal(lossy[name], whole[name])
    for name in ("IMAGE", "VARIANCE", "MASK"):
        np.testing.assert_array_equal(planes("again.fits")[name], lossy[name])


@pytest.mark.parametrize("statistic", ["mean", "meanclip", "median"])
def test_one_input_comes_back(cli, warp, write_file, in_folder, statistic):
    write_file(warp(), "w.fits")
    assert cli("assemble-coadd", "w.fits", "-o", "c.fits", "--statistic", statistic).code == 0
    before, after = read_exposure("w.fits"), read_exposure("c.fits")
    np.testing.assert_array_equal(before.image, after.image)
    np.testing.assert_array_equal(before.variance, after.variance)
    assert (planes("c.fits")["NIMAGE"] == 1).all()
    np.testing.assert_allclose(before.psf.at(0, 0), after.psf.at(0, 0), atol=1e-12)


def test_warps_that_cover_parts(cli, warp, write_file, in_folder):
    left, right = Box(0, 0, 70, 50), Box(10, 30, 60, 60)
    write_file(warp(3, box=left), "left.fits")
    write_file(warp(5, box=right), "right.fits")
    assert cli("assemble-coadd", "left.fits", "right.fits", "-o", "c.fits").code == 0
    coadd = read_exposure("c.fits")
    assert coadd.box == Box(0, 0, *SHAPE)
    expected = np.zeros(SHAPE, int)
    expected[left.slices(coadd.box)] += 1
    expected[right.slices(coadd.box)] += 1
    np.testing.assert_array_equal(planes("c.fits")["NIMAGE"], expected)
    np.testing.assert_array_equal((coadd.mask & BIT["NO_DATA"]) != 0, expected == 0)
    bare = ("assemble-coadd", "left.fits", "right.fits", "-o", "bare.fits")
    assert cli(*bare, "--set", "interp=false").code == 0
    before, after = planes("bare.fits"), planes("c.fits")
    np.testing.assert_array_equal(np.isnan(before["IMAGE"]), expected == 0)
    np.testing.assert_array_equal(np.isnan(before["VARIANCE"]), expected == 0)
    assert not np.isnan(after["IMAGE"]).any()
    assert not np.isinf(after["VARIANCE"]).any()
    good = expected > 0
    np.testing.assert_array_equal((after["MASK"] & BIT["INTRP"]) != 0, ~good)
    for name in ("IMAGE", "VARIANCE", "NIMAGE", "WEIGHT"):
        np.testing.assert_array_equal(before[name][good], after[name][good])
    assert isinstance(coadd.psf, CellPsf)
    exact = read_coadd_psf("c.fits")
    np.testing.assert_allclose(exact.at(5, 5), gaussian(3), atol=1e-12)
    np.testing.assert_allclose(exact.at(60, 80), gaussian(5), atol=1e-12)


def test_offsets_of_files_of_other_programs(cli, in_folder, rng):
    sky = rng.normal(size=(60, 60)).astype(np.float32)
    for name, (y, x) in {"a": (0, 0), "b": (7, 4)}.items():
        cards = fitsio.FITSHDR([*tangent_plane(150.0, 2.0, 0.2, 20 - y, 20 - x)])
        fitsio.write(f"{name}.fits", sky[y : y + 40, x : x + 50], header=cards)
        fitsio.write(f"{name}.weight.fits", np.ones((40, 50), np.float32))
    done = cli("assemble-coadd", "a.fits", "b.fits", "-o", "c.fits", "--statistic", "mean",
               "--set", "interp=false")  # fmt: skip
    assert done.code == 0, done.err
    image = fitsio.read("c.fits", ext="IMAGE")
    assert image.shape == (47, 54)
    good = np.isfinite(image)
    assert good.sum() == 2 * 40 * 50 - 33 * 46
    np.testing.assert_allclose(image[good], sky[:47, :54][good], rtol=1e-6)


def test_lists_and_dry_run(cli, warps, in_folder):
    (in_folder / "list.txt").write_text("\n".join([*warps, "# a comment", ""]))
    common = ("assemble-coadd", "@list.txt", "-o", "c.fits", "--unit", "nJy", "--json")
    planned = json.loads(cli(*common, "--dry-run").out)
    assert (planned["n_input"], planned["size"]) == (6, "90x70")
    assert planned["memory_mib"] > 0
    assert not (in_folder / "c.fits").exists()
    done = json.loads(cli(*common).out)
    assert done["n_input"] == 6
    assert done["psf"] == "constant"
    assert [row["warp"] for row in done["table"]] == warps


def test_jobs_and_memory_change_no_byte(cli, warps):
    common = ("assemble-coadd", *warps, "--unit", "nJy")
    assert cli(*common, "-o", "a.fits").code == 0
    assert cli(*common, "-o", "b.fits", "-j", "2", "--max-memory", "160MiB").code == 0
    with open("a.fits", "rb") as a, open("b.fits", "rb") as b:
        assert a.read() == b.read()


def gzip_all(names):
    """Pack files; their new names."""
    for name in names:
        with open(name, "rb") as plain, gzip.open(f"{name}.gz", "wb", 1) as packed:
            packed.write(plain.read())
    return [f"{name}.gz" for name in names]


@pytest.mark.parametrize("variance", ["input", "scatter"])
def test_packed_inputs_are_read_once(cli, warps, monkeypatch, variance):
    """The running mean of gzipped files is the mean of the plain ones."""
    common = ("--unit", "nJy", "--statistic", "mean", "--set", "input_map=true", "--set",
              f"variance={variance}")  # fmt: skip
    assert cli("assemble-coadd", *warps, *common, "-o", "a.fits").code == 0
    reads = []
    read = WarpFile.read
    monkeypatch.setattr(WarpFile, "read", lambda *a: reads.append(a[0].info.path) or read(*a))
    packed = gzip_all(warps)
    done = cli("assemble-coadd", *packed, *common, "-o", "b.fits")
    assert done.code == 0, done.err
    assert reads == packed
    a, b = planes("a.fits"), planes("b.fits")
    for name in ("MASK", "NIMAGE", "IMAGE", "VARIANCE", "WEIGHT"):
        np.testing.assert_array_equal(a[name], b[name], name)
    tables = [fitsio.read(f"{x}.fits", ext="INPUTS") for x in "ab"]
    for column in ("weight", "used", "good_pixels", "rejected_pixels"):
        np.testing.assert_array_equal(*(table[column] for table in tables))


@pytest.mark.parametrize(("statistic", "n_unpacked"), [("mean", 3), ("meanclip", 4)])
def test_packed_weight_maps_are_unpacked_once_for_all_samples(
    cli, in_folder, rng, monkeypatch, statistic, n_unpacked
):
    """Twice for the headers, then for the mean or for weights and slab; the image is plain."""
    for i in range(2):
        image = rng.normal(size=(300, 1000)).astype(np.float32)
        fitsio.write(f"w{i}.fits", image, header={"BUNIT": "nJy"})
        fitsio.write(f"w{i}.weight.fits", np.ones_like(image))
    common = ("assemble-coadd", "w0.fits", "w1.fits", "--statistic", statistic, "-o")
    assert cli(*common, "a.fits").code == 0
    gzip_all(["w0.weight.fits", "w1.weight.fits"])
    for i in range(2):
        (in_folder / f"w{i}.weight.fits").unlink()
    opened = []
    scan = reader.scan
    monkeypatch.setattr(reader, "scan", lambda path: opened.append(path) or scan(path))
    assert cli(*common, "b.fits").code == 0
    assert [opened.count(f"w{i}.weight.fits.gz") for i in range(2)] == [n_unpacked] * 2
    np.testing.assert_array_equal(planes("a.fits")["IMAGE"], planes("b.fits")["IMAGE"])


@pytest.mark.parametrize(
    ("statistic", "change", "message"),
    [
        ("mean", ("running._INPUT_BYTES", 10**6), r"2 times; with --max-memory \d+MiB, once"),
        ("meanclip", ("plan._SAMPLE_BYTES", 10**5), r"3 times; with --max-memory \d+MiB, twice"),
    ],
)
def test_packed_inputs_that_memory_does_not_hold(
    cli, warp, write_file, in_folder, monkeypatch, statistic, change, message
):
    """Then slabs are read, with a warning, and nothing else changes."""
    for i in range(3):
        write_file(warp(sigma=5 + i), f"w{i}.fits")
    packed = gzip_all([f"w{i}.fits" for i in range(3)])
    common = ("assemble-coadd", *packed, "--statistic", statistic, "-o")
    done = cli(*common, "a.fits")
    assert (done.code, "unpacked" in done.err) == (0, False)
    monkeypatch.setattr(f"coblend.core.coadd.{change[0]}", change[1])
    done = cli(*common, "b.fits", "--max-memory", "1900MiB")
    assert re.search(f"gzipped files are unpacked {message}", done.err)
    with open("a.fits", "rb") as a, open("b.fits", "rb") as b:
        assert a.read() == b.read()


def test_a_table_of_inputs(cli, warps, in_folder):
    """Weights, scales, zero points and PSFs of a table overrule the headers."""
    table = Table({"file": warps[:3], "weight": [1.0, 2.0, 0.0], "scale": [1.0, 2.0, 4.0],
                   "psf": ["", "gaussian:fwhm=4", ""]})  # fmt: skip
    table.write("inputs.fits")
    done = cli("assemble-coadd", "@inputs.fits", "-o", "c.fits", "--weight", "column",
               "--statistic", "mean")  # fmt: skip
    assert done.code == 0, done.err
    assert "w2.fits: left out: its weight is zero" in done.err
    a, b = (read_exposure(f"w{i}.fits") for i in range(2))
    found = planes("c.fits")
    np.testing.assert_allclose(found["IMAGE"], (a.image + 4 * b.image) / 3, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found["VARIANCE"], (a.variance + 16 * b.variance) / 9, rtol=1e-6)
    np.testing.assert_array_equal(found["WEIGHT"], 3)
    table = fitsio.read("c.fits", ext="INPUTS")
    assert list(table["used"]) == [True, True, False]
    assert text_of(table["reason"][2]) == "WEIGHT"
    expected = (gaussian(3.0) + 2 * parse_psf_spec("gaussian:fwhm=4,size=25").at(0, 0)) / 3
    stamp = read_exposure("c.fits").psf.at(0, 0)
    cut = stamp.shape[0] // 2
    np.testing.assert_allclose(stamp[cut - 6 : cut + 7, cut - 6 : cut + 7],
                               expected[6:19, 6:19], atol=1e-4)  # fmt: skip
    done = cli("assemble-coadd", *warps, "-o", "d.fits", "--weight", "column", "--unit", "nJy")
    assert done.code == 2
    assert "no weight given for w0.fits" in done.err


def test_pixels_of_another_file(cli, warp, write_file, in_folder):
    """--like gives the pixels of the coadd; what lies outside of them does not count."""
    for i, box in enumerate((FIELD, Box(0, 0, 70, 50), Box(0, 0, 20, 20))):
        write_file(warp(box=box), f"w{i}.fits")
    write_file(warp(), "like.fits")
    names = [f"w{i}.fits" for i in range(3)]
    assert cli("assemble-coadd", *names, "-o", "a.fits", "--statistic", "mean").code == 0
    done = cli("assemble-coadd", *names, "-o", "b.fits", "--statistic", "mean", "--like",
               "like.fits[41:90,31:60]")  # fmt: skip
    assert done.code == 0, done.err
    assert "w2.fits: left out: does not overlap the coadd" in done.err
    whole, part = read_exposure("a.fits"), read_exposure("b.fits")
    assert part.box == Box(30, 40, 30, 50)
    np.testing.assert_array_equal(part.image, whole.image[30:60, 40:90])
    np.testing.assert_array_equal(part.mask, whole.mask[30:60, 40:90])
    assert grid_offset(part.wcs, part.box, whole.wcs, whole.box) < 1e-6
    table = fitsio.read("b.fits", ext="INPUTS")
    assert [text_of(r) for r in table["reason"]] == ["", "", "NOOVERLAP"]
    grown = write_file(warp(box=FIELD), "big.fits")
    done = cli("assemble-coadd", "w1.fits", "-o", "c.fits", "--like", str(grown), "--set",
               "interp=false")  # fmt: skip
    assert done.code == 0
    assert np.isnan(fitsio.read("c.fits", ext="IMAGE")[:, 50:]).all()
    assert cli("assemble-coadd", "w0.fits", "-o", "d.fits", "--like", "gone.fits").code == 66


@pytest.mark.parametrize(("scale", "warned"), [("input", True), ("scatter", False)])
def test_variances_that_are_not_of_the_noise(cli, warp, write_file, in_folder, scale, warned):
    for i in range(6):
        write_file(warp(variance=np.full(SHAPE, 2, np.float32)), f"w{i}.fits")
    names = [f"w{i}.fits" for i in range(6)]
    done = cli("assemble-coadd", *names, "-o", "c.fits", "--set", f"clip_scale={scale}")
    assert done.code == 0
    assert ("if the variances (or weight maps) of the inputs are not" in done.err) == warned


def test_an_empty_input_is_left_out(cli, warps):
    with fitsio.FITS("w2.fits", "rw") as file:
        file["IMAGE"].write(np.full(SHAPE, np.nan, np.float32))
    done = cli("assemble-coadd", *warps, "-o", "c.fits", "--unit", "nJy")
    assert done.code == 0
    assert "w2.fits: left out: no usable pixel" in done.err
    table = fitsio.read("c.fits", ext="INPUTS")
    assert list(table["used"]) == [True, True, False, True, True, True]
    assert table["reason"][2].strip() in ("EMPTY", b"EMPTY")
    assert planes("c.fits")["NIMAGE"].max() == 5


def test_masks_propagate(cli, warps):
    for name, row in (("w0.fits", "SAT"), ("w1.fits", "CR")):
        with fitsio.FITS(name, "rw") as file:
            mask = file["MASK"].read().astype(np.int32)
            mask[5, 5] = BIT[row]
            file["MASK"].write(mask)
    args = ("-o", "c.fits", "--unit", "nJy", "--statistic", "mean")
    assert cli("assemble-coadd", *warps, *args).code == 0
    mask = planes("c.fits")["MASK"]
    wanted = BIT["SAT"] | BIT["CR"] | BIT["REJECTED"] | BIT["INEXACT_PSF"]
    assert mask[5, 5] == wanted
    assert not np.delete(mask.ravel(), 5 * 90 + 5).any()


def test_input_map_and_exact_psf(cli, warp, write_file, in_folder):
    names = []
    for i in range(5):
        made = warp(3 + 0.5 * i, psf=StampPsf(gaussian(3 + 0.5 * i)))
        if i == 2:
            made.image[10, 12] = 4000
        if i == 4:
            made.image[:] = np.nan
        names.append(f"w{i}.fits")
        write_file(made, names[-1])
    done = cli("assemble-coadd", *names, "-o", "c.fits", "--set", "input_map=true")
    assert done.code == 0, done.err
    used = fitsio.read("c.fits", ext="INPUTMAP")
    np.testing.assert_array_equal(np.bitwise_count(used), planes("c.fits")["NIMAGE"])
    assert used[10, 12] == 0b1011
    exact = read_coadd_psf("c.fits", exact=True).at(10, 12)
    expected = np.mean([gaussian(3 + 0.5 * i) for i in (0, 1, 3)], axis=0)
    np.testing.assert_allclose(exact, expected, atol=2e-4)
    plain = read_coadd_psf("c.fits").at(10, 12)
    np.testing.assert_allclose(plain, np.mean([gaussian(3 + 0.5 * i) for i in range(4)], axis=0),
                               atol=2e-4)  # fmt: skip
    assert np.abs(plain - expected).max() > 5e-4


def test_bright_objects_are_marked(cli, warps, in_folder):
    (in_folder / "bright.reg").write_text('fk5\ncircle(150.0,2.0,1.03")\n')
    common = ("assemble-coadd", *warps, "-o", "c.fits", "--unit", "nJy", "--overwrite")
    assert cli(*common, "--bright-objects", "bright.reg").code == 0
    marked = (planes("c.fits")["MASK"] & BIT["BRIGHT_OBJECT"]) != 0
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    expected = np.hypot(ys - 35, xs - 45) * 0.2 <= 1.03
    np.testing.assert_array_equal(marked, expected)
    (in_folder / "bright.reg").write_text("fk5\ncircle(150.0)\n")
    done = cli(*common, "--bright-objects", "bright.reg")
    assert done.code == 65
    assert "bright.reg: line 2: circle with 1 numbers" in done.err
    done = cli(*common, "--set", "bright_plane=GLOW")
    assert done.code == 2
    assert "no mask plane GLOW" in done.err


@pytest.mark.parametrize("interpolation", ["linear", "poly2"])
def test_scales_that_vary(cli, warp, write_file, in_folder, interpolation):
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    fields = [1 + 0.1 * xs / 90, 1.1 - 0.1 * ys / 70]
    nodes = np.array([(y, x) for y in (0, 35, 69) for x in (0, 45, 89)])
    for i, field in enumerate(fields):
        flat = np.full(SHAPE, 7.0)
        image, variance = ((flat / field**n).astype(np.float32) for n in (1, 2))
        write_file(warp(image=image, variance=variance), f"w{i}.fits")
        table = np.zeros(len(nodes), [("Y", "f8"), ("X", "f8"), ("SCALE", "f8")])
        table["Y"], table["X"] = nodes.T
        table["SCALE"] = field[tuple(nodes.T)]
        with fitsio.FITS(f"w{i}.fits", "rw") as file:
            file.write_table(table, extname="ZPGRID")
            file[0].write_key("NEXTEND", len(file) - 1)
    done = cli("assemble-coadd", "w0.fits", "w1.fits", "-o", "c.fits", "--statistic", "mean",
               "--set", f"zp_interp={interpolation}")  # fmt: skip
    assert done.code == 0, done.err
    found = planes("c.fits")
    np.testing.assert_allclose(found["IMAGE"], 7, rtol=2e-3)
    np.testing.assert_allclose(found["VARIANCE"], 3.5, rtol=2e-3)


def test_impossible_scales(cli, warp, write_file, in_folder):
    write_file(warp(), "w.fits")
    table = np.array([(1.0, 1.0, -1.0)], [("Y", "f8"), ("X", "f8"), ("SCALE", "f8")])
    with fitsio.FITS("w.fits", "rw") as file:
        file.write_table(table, extname="ZPGRID")
        file[0].write_key("NEXTEND", len(file) - 1)
    done = cli("assemble-coadd", "w.fits", "-o", "c.fits")
    assert done.code == 65
    assert "w.fits[ZPGRID]: row 1 of ZPGRID has scale -1" in done.err


def test_without_psf(cli, warp, write_file, in_folder):
    write_file(warp(), "a.fits")
    write_file(warp(psf=None), "b.fits")
    done = cli("assemble-coadd", "a.fits", "b.fits", "-o", "c.fits")
    assert done.code == 0
    assert "b.fits: no PSF, so the coadd has none" in done.err
    assert read_exposure("c.fits").psf is None
    assert not fitsio.read_header("c.fits", ext="IMAGE")["HASPSF"]
    with pytest.raises(FormatError, match="holds no PSFs of its inputs"):
        read_coadd_psf("c.fits")
    write_file(warp(), "b.fits")
    assert cli("assemble-coadd", "a.fits", "b.fits", "-o", "d.fits").code == 0
    with pytest.raises(FormatError, match="no input map"):
        read_coadd_psf("d.fits", exact=True)


# bad input


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"unit": "electron"}, 65, r"electron.*cannot be compared"),
        ({"meta": {"MAGZERO": 28.0}}, 65, "choose the coadd's unit: --unit nJy"),
        ({"band": "r"}, 65, "band r, but a.fits has g"),
        ({"wcs": tangent_plane(150.0, 2.0, 0.2, 35, 45.4)}, 65, "WCS.*differs by 0.4 pixels"),
        ({"wcs": tangent_plane(150.0, 2.0, 0.21, 35, 45)}, 65, "WCS.*differs by"),
        ({"wcs": ()}, 65, "WCS.*missing in one"),
    ],
)
def test_inputs_that_do_not_belong_together(
    cli, warp, write_file, in_folder, changes, code, message
):
    import re

    write_file(warp(), "a.fits")
    write_file(warp(**changes), "b.fits")
    done = cli("assemble-coadd", "a.fits", "b.fits", "-o", "c.fits")
    assert done.code == code
    assert re.search(message, done.err)
    assert "b.fits" in done.err
    assert len(done.err.strip().splitlines()) <= 6
    assert sorted(p.name for p in in_folder.iterdir()) == ["a.fits", "b.fits"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a.fits", "a.fits"), 2, "a.fits is given twice"),
        (("a.fits", "g=./a.fits"), 2, "a.fits is given twice"),
        (("a.fits", "gone.fits"), 66, "gone.fits"),
        (("a.fits", "--statistic", "mode"), 2, "statistic is 'mode'"),
        (("a.fits", "--sigma-clip", "0"), 2, "sigma_clip is 0"),
        (("a.fits", "--clip-iter", "0"), 2, "clip_iter is 0"),
        (("a.fits", "--bad-planes", "BDA"), 2, "no mask plane BDA"),
        (("a.fits", "--set", "propagate=SAT=2"), 2, "fraction from 0 to 1"),
        (("a.fits", "--unit", "mag"), 2, "allowed: input, nJy, zp=MAG"),
        (("a.fits", "--statistic", "min", "--set", "interp=true"), 2, "cannot be interpolated"),
        (("a.fits", "--max-memory", "1MiB"), 2, "need at least"),
        (("@gone.txt",), 66, "gone.txt"),
        (("@empty.txt",), 2, "the lists are empty"),
    ],
)
def test_bad_arguments(cli, warp, write_file, in_folder, arguments, code, message):
    write_file(warp(), "a.fits")
    (in_folder / "empty.txt").write_text("# nothing\n")
    done = cli("assemble-coadd", *arguments, "-o", "c.fits")
    assert done.code == code, done.err
    assert message in done.err
    assert not (in_folder / "c.fits").exists()


def test_nothing_usable(cli, warp, write_file, in_folder):
    write_file(warp(mask=np.full(SHAPE, BIT["BAD"], np.int32)), "a.fits")
    done = cli("assemble-coadd", "a.fits", "-o", "c.fits")
    assert done.code == 65
    assert "nothing to coadd: none of the 1 inputs has a usable pixel" in done.err
    assert [p.name for p in in_folder.iterdir()] == ["a.fits"]
