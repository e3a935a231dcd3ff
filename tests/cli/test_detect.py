"""`coblend detect` through files: outputs, options, repeatability, messages."""

from __future__ import annotations

import json
from dataclasses import replace

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.detect.mesh import Mesh
from coblend.core.exposure import Exposure
from coblend.core.mask import STANDARD
from coblend.core.psf.stamp import StampPsf
from coblend.io.detect.detections import read_detections
from coblend.io.detect.maps import read_background
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits


@pytest.fixture
def field(wcs_cards):
    """Stars on unit noise, PSF in the file."""
    rng = np.random.default_rng(4)
    r = np.arange(25) - 12
    stamp = np.exp(-0.5 * np.add.outer(r**2, r**2) / 1.8**2)
    stamp /= stamp.sum()
    padded = np.pad(rng.normal(0, 1, (200, 220)), 12)
    for y, x, flux in rng.uniform((0, 0, 40), (200, 220, 2000), (40, 3)):
        padded[int(y) : int(y) + 25, int(x) : int(x) + 25] += flux * stamp
    image = padded[12:-12, 12:-12].astype(np.float32)
    return Exposure(
        image,
        np.zeros(image.shape, np.int32),
        np.ones(image.shape, np.float32),
        Box(500, 700, *image.shape),
        band="i",
        unit="nJy",
        psf=StampPsf(stamp),
        wcs=wcs_cards,
    )


@pytest.fixture
def coadd(field, write_file):
    return write_file(field, "coadd.fits")


def test_writes_a_catalogue_with_sky_positions(cli, coadd, tmp_path):
    out = tmp_path / "det.fits"
    done = cli("detect", coadd, "-o", out, "--json", "--set", "field_id=9")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    found = read_detections(str(out))
    assert summary["n_parent"] == len(found.parents) > 20
    assert summary["n_peak"] == len(found.peaks)
    assert summary["psf_sigma"] == pytest.approx(1.8, abs=0.01)
    assert np.isfinite(found.peaks["ra"]).all()
    assert (found.bands, found.unit, found.box) == (("i",), "nJy", Box(500, 700, 200, 220))
    assert (found.peaks["id"] >> 39 == 9).all()


def test_an_exposure_that_does_not_fit_into_memory(cli, coadd, tmp_path):
    done = cli("detect", coadd, "-o", tmp_path / "d.fits", "--max-memory", "10kB")
    assert done.code == 75
    assert "needs about" in done.err
    assert not (tmp_path / "d.fits").exists()


def test_same_bytes_for_any_jobs(cli, coadd, tmp_path):
    paths = [tmp_path / f"{n}.fits" for n in "ab"]
    for path, jobs in zip(paths, (1, 2), strict=True):
        assert cli("detect", coadd, "-o", path, "-j", jobs).code == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_band_and_psf_from_the_command_line(cli, field, write_file, tmp_path):
    bare = write_file(replace(field, band="", psf=None), "bare.fits")
    out = tmp_path / "det.fits"
    assert cli("detect", f"r={bare}", "--psf", "gaussian:fwhm=4.24", "-o", out).code == 0
    assert read_detections(str(out)).bands == ("r",)
    again = ("-o", out, "--overwrite")
    assert cli("detect", f"r={bare}", "--psf", "r=gaussian:fwhm=4.24", *again).code == 0
    refused = cli("detect", f"r={bare}", "--psf", "q=gaussian:fwhm=4.24", *again)
    assert refused.code == 2
    assert "--psf: no exposure of band q\n  there is r" in refused.err
    assert cli("detect", f"r={bare}", "--psf-sigma", 1.8, *again).code == 0
    refused = cli("detect", bare, "--psf-sigma", 1.8, "-o", tmp_path / "no.fits")
    assert refused.code == 65
    assert "band is unknown" in refused.err
    refused = cli("detect", f"r={bare}", "-o", tmp_path / "no.fits")
    assert refused.code == 65
    assert "--psf moffat:fwhm=4.2 or x.psf, or --psf-sigma PIXELS" in refused.err
    assert not (tmp_path / "no.fits").exists()


def test_a_chi2_coadd_is_filtered_already(cli, field, write_file, tmp_path):
    """What its scatter means is said in place of advice that does not help."""
    path = write_file(replace(field, meta={"CHI2BAND": "g,r"}), "chi2.fits")
    run = ("detect", path, "-o", tmp_path / "det.fits", "--overwrite")
    assert "chi2.fits: a chi2 coadd is filtered already: give --filter none" in cli(*run).err
    assert "filtered already" not in cli(*run, "--filter", "none").err


def test_side_products(cli, coadd, tmp_path):
    out, image, labels, regions = (
        tmp_path / n for n in ("det.fits", "image.fits", "labels.fits", "ds9.reg")
    )
    done = cli(
        "detect", coadd, "-o", out, "--bg-mesh", 64, "--polarity", "both", "--out-image", image,
        "--out-segmentation", labels, "--regions", regions,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = read_detections(str(out))
    with open_fits(str(labels)) as file:
        painted = file.image("SEGMENTATION")
    assert np.array_equal(painted, found.footprints.labels(found.box))
    marked = read_exposure(str(image))
    detected = (marked.mask & STANDARD.value(["DETECTED"])) != 0
    assert np.array_equal(detected, painted > 0)
    with open_fits(str(out)) as file:
        assert {"BACKGROUND", "NEG_PARENTS", "NEG_PEAKS", "NEG_SPANS"} <= set(file.names)
    lines = regions.read_text().splitlines()
    points = [line for line in lines if line.startswith("point")]
    assert len(points) == len(found.peaks)
    x, y = (float(v) for v in points[0].split("(")[1].split(")")[0].split(","))
    first = found.peaks[0]
    assert (x, y) == pytest.approx((first["x"] - 700 + 1, first["y"] - 500 + 1), abs=0.006)


def test_significance_and_noise_of_the_tiles(cli, coadd, tmp_path):
    out, snr = tmp_path / "det.fits", tmp_path / "snr.fits"
    done = cli("detect", coadd, "-o", out, "--out-snr", snr)
    assert done.code == 0, done.err
    found = read_detections(str(out))
    with open_fits(str(snr)) as file:
        significance = file.image("SNR")
        level = file.header("SNR")["THRESH"]
    assert significance.dtype == np.float32
    peaks = found.peaks
    values = significance[peaks["iy"] - 500, peaks["ix"] - 700]
    np.testing.assert_allclose(values, peaks["snr"], rtol=1e-6)
    assert np.count_nonzero(significance >= level) == found.cores.areas.sum()
    with open_fits(str(out)) as file:
        noise = file.table("NOISE")
    assert (noise["y0"].tolist(), noise["x0"].tolist()) == ([500], [700])
    assert noise["noise_scale"][0] == pytest.approx(found.meta["NOISESC1"], rel=1e-3)


def test_the_background_can_be_put_back(cli, field, write_file, tmp_path):
    """Image of --out-image and surface of the table BACKGROUND: the input, to 1 float32 ulp."""
    y, x = np.mgrid[:200, :220]
    image = (field.image + 40 + 0.02 * y - 0.01 * x).astype(np.float32)
    out, flat = tmp_path / "det.fits", tmp_path / "flat.fits"
    given = write_file(replace(field, image=image), "sky.fits")
    done = cli("detect", given, "--bg-mesh", 64, "-o", out, "--out-image", flat)
    assert done.code == 0, done.err
    subtracted = read_exposure(str(flat)).image
    assert abs(np.median(subtracted)) < 0.2
    surface = Mesh(**read_background(str(out))).rows(np.arange(200))
    assert np.abs(subtracted + surface - image).max() <= np.spacing(np.float32(image.max()))


def test_outlines_of_regions_surround_each_footprint(cli, coadd, tmp_path):
    """The length of all lines is that of the borders, counted on the label image."""
    regions, out = tmp_path / "ds9.reg", tmp_path / "det.fits"
    assert cli("detect", coadd, "-o", out, "--regions", regions).code == 0
    found = read_detections(str(out))
    labels = np.pad(found.footprints.labels(found.box), 1)
    border = (labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum()
    length = 0.0
    for line in regions.read_text().splitlines():
        if line.startswith("line("):
            x0, y0, x1, y1 = (float(v) for v in line[5:].split(")")[0].split(","))
            length += abs(x1 - x0) + abs(y1 - y0)
    assert length == border


def test_blank_image_is_an_empty_catalogue_and_a_warning(cli, field, write_file, tmp_path):
    blank = write_file(replace(field, image=np.zeros_like(field.image)), "blank.fits")
    out = tmp_path / "det.fits"
    done = cli("detect", blank, "-o", out, "--set", "var_scale=none", "--set", "noise_scale=none")
    assert done.code == 0
    assert "nothing above 5 sigma" in done.err
    assert len(read_detections(str(out)).parents) == 0


def test_dry_run_writes_nothing(cli, coadd, tmp_path):
    out = tmp_path / "det.fits"
    assert cli("detect", coadd, "-o", out, "-n", "--regions", tmp_path / "r.reg").code == 0
    assert not out.exists()
    assert not (tmp_path / "r.reg").exists()


def test_reference_preset(cli, coadd, tmp_path):
    out = tmp_path / "det.fits"
    assert cli("detect", coadd, "-o", out, "--preset", "reference").code == 0
    peaks = read_detections(str(out)).peaks
    assert np.array_equal(peaks["x"], peaks["ix"])


def test_what_cannot_be_searched(cli, field, write_file, tmp_path):
    """Each is refused with the offending value, the file and the remedy; no output is left."""
    out = tmp_path / "out.fits"
    nothing = np.zeros_like(field.variance)
    holes = np.full_like(field.image, np.nan)
    holes[5, 5:30] = 1.0
    bright = np.tile(field.image, (2, 2)) + 100
    large = replace(
        field, image=bright, mask=np.zeros(bright.shape, np.int32),
        variance=np.ones_like(bright), box=Box(0, 0, *bright.shape),
    )  # fmt: skip
    files = {
        "plain": field,
        "variance": replace(field, variance=nothing),
        "holes": replace(field, image=holes),
        "bright": large,
        "bare": replace(field, psf=None),
    }
    paths = {name: write_file(exposure, f"{name}.fits") for name, exposure in files.items()}
    paths["cube"], paths["alone"] = str(tmp_path / "cube.fits"), str(tmp_path / "alone.fits")
    fitsio.write(paths["cube"], np.ones((3, 50, 60), np.float32))
    fitsio.write(paths["alone"], field.image)

    for name, options, code, *texts in (
        ("variance", (), 65, "no usable pixel", "variance that is not positive"),
        ("holes", (), 65, "only 25 of 44000 pixels are usable", "VARIANCE"),
        ("cube", ("--psf-sigma", 2), 65, "cube.fits"),
        ("alone", ("--psf-sigma", 2), 65, "alone.fits", "variance"),
        ("bare", (), 65, "has no PSF", "--psf-sigma"),
        (
            "bright",
            ("--noise-scale", "none", "--var-scale", "none"),
            65,
            "above the threshold",
            "image median 100",
            "--bg-mesh 128",
            "max_area=1",
        ),
        ("plain", ("--psf-sigma", 60), 2, "60 px, at most 25"),
        ("plain", ("--psf-sigma", 0), 2, "psf_sigma is 0"),
        ("plain", ("--psf-sigma", "nan"), 2, "psf_sigma is nan"),
        ("plain", ("--threshold", 0), 2, "threshold is 0"),
        ("plain", ("--set", "peak_threshold=2"), 2, "peak_threshold 2 is below threshold 5"),
        ("plain", ("--psf-sigma", 20, "--set", "grow_nsigma=4"), 2, "80 px, at most 64", "grow=N"),
        ("plain", ("--exclude-mask", "BADD"), 2, "no mask plane BADD", "NO_DATA"),
    ):
        done = cli("detect", f"i={paths[name]}", *options, "-o", out)
        assert done.code == code, (name, done.err)
        for text in texts:
            assert text in done.err
        assert len(done.err.splitlines()) <= 6
        assert not out.exists()
        assert not list(tmp_path.glob(".*coblend*"))
    done = cli("detect", paths["plain"], "--psf-sigma", 0.4, "-o", out)
    assert done.code == 0
    assert "PSF sigma 0.40 px: the image is undersampled" in done.err


def test_bad_input(cli, field, write_file, coadd, tmp_path):
    out = tmp_path / "out.fits"
    noisy = write_file(replace(field, variance=field.variance / 400), "noisy.fits")
    done = cli("detect", noisy, "-o", out)
    assert done.code == 65
    assert "noisy.fits" in done.err
    assert "--var-scale none" in done.err
    assert cli("detect", tmp_path / "none.fits", "-o", out).code == 66
    assert cli("detect", coadd, "-o", out, "--threshold", -1).code == 2
    unknown = cli("detect", coadd, "-o", out, "--exclude-mask", "NODATA")
    assert unknown.code == 2
    assert "NO_DATA" in unknown.err  # the known ones are listed
    out.write_text("mine")
    assert cli("detect", coadd, "-o", out).code == 73
    assert cli("detect", coadd, "-o", tmp_path / "o.fits", "--regions", out).code == 73
    assert out.read_text() == "mine"
    assert not (tmp_path / "o.fits").exists()
