"""`clean`: what is left of a blend is the object alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.io.deblend.models import read_models
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits

Cli = Callable[..., Any]
PAIR = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
LONE = [(30.3, 90.2, 1500.0)]
OTHER = [(80.0, 40.0, 3000.0), (80.0, 48.0, 3000.0)]


@pytest.fixture
def bands(cli: Cli, in_folder: Path, fields) -> list[str]:
    cube, detections = fields.make_scene([PAIR, LONE, OTHER], (120, 120))
    names = fields.save(cube, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "deblended.fits")
    assert done.code == 0, done.err
    return names


def aperture(stamp: np.ndarray) -> float:
    y, x = np.indices(stamp.shape) - stamp.shape[0] // 2
    return float(stamp[np.hypot(y, x) < 7].sum())


@pytest.mark.parametrize("mode", ["subtract", "noise"])
def test_aperture_fluxes_are_those_of_the_objects_alone(cli: Cli, bands, fields, mode) -> None:
    """A circle of 7 px holds 99.98 % of a star, and much of its neighbour before cleaning."""
    done = cli("clean", "deblended.fits", *bands, "-o", "stamps.fits", "--mode", mode,
               "--side", "31")  # fmt: skip
    assert done.code == 0, done.err
    truth = np.array([4000, 2500, 1500, 3000, 3000])
    with open_fits("stamps.fits") as f:
        table = f.table("OBJECTS")
        for b, band in enumerate("GRI"):
            cube = f.image(f"IMAGE_{band}")
            assert cube.shape == (5, 31, 31)
            flux = np.array([aperture(stamp) for stamp in cube])
            np.testing.assert_allclose(flux, truth * fields.COLOUR[b], rtol=0.05, atol=50)
            if mode == "noise":  # the corners are noise of the right strength
                assert abs(cube[:, :5, :5].std() - 1) < 0.2
    assert table["x0"].tolist() == (read_models("deblended.fits").objects["ix"] - 15).tolist()


def test_stamps_are_calibrated(cli: Cli, bands) -> None:
    """Their headers say band, unit and zero point, as the exposure's does."""
    with fitsio.FITS("r.fits", "rw") as f:
        f["IMAGE"].write_key("MAGZERO", 31.4)
    done = cli("clean", "deblended.fits", "r.fits", "-o", "stamps.fits")
    assert done.code == 0, done.err
    image, variance = (fitsio.read_header("stamps.fits", f"{n}_R") for n in ("IMAGE", "VARIANCE"))
    assert (image["BAND"], image["BUNIT"], image["MAGZERO"]) == ("r", "nJy", 31.4)
    assert variance["BUNIT"] == "nJy**2"


def test_isolated_neighbours_become_noise(cli: Cli, in_folder: Path, fields) -> None:
    """They have no models to subtract: their footprints, and only these, are replaced."""
    pair = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
    cube, detections = fields.make_scene([pair, [(56.0, 34.0, 9000.0)]], (90, 90))
    names = fields.save(cube, detections, in_folder)
    assert cli("deblend", "merged.fits", *names, "-o", "deblended.fits").code == 0
    done = cli("clean", "deblended.fits", "r.fits", "-o", "stamps.fits", "--side", "63")
    assert done.code == 0, done.err
    models = read_models("deblended.fits")
    with open_fits("stamps.fits") as f:
        first, table = f.image("IMAGE_R")[0], f.table("OBJECTS")
    window = Box(int(table["y0"][0]), int(table["x0"][0]), 63, 63)
    star = models.footprints.mask(1, window)
    assert star.sum() > 200
    assert abs(first[star].std() - 1) < 0.15
    assert abs(first[star].mean()) < 0.2
    assert abs(aperture(first) / 4000 - 1) < 0.05


def test_stamp_does_not_depend_on_the_others(cli: Cli, bands) -> None:
    objects = read_models("deblended.fits").objects["id"]
    cli("clean", "deblended.fits", bands[1], "-o", "all.fits", "--mode", "noise")
    done = cli("clean", "deblended.fits", bands[1], "-o", "one.fits", "--mode", "noise",
               "--source", str(objects[3]))  # fmt: skip
    assert done.code == 0, done.err
    with open_fits("all.fits") as every, open_fits("one.fits") as one:
        np.testing.assert_array_equal(every.image("IMAGE_R")[3], one.image("IMAGE_R")[0])
    cli("clean", "deblended.fits", bands[1], "-o", "other.fits", "--mode", "noise", "--seed", "2")
    with open_fits("all.fits") as every, open_fits("other.fits") as other:
        assert (every.image("IMAGE_R") != other.image("IMAGE_R")).any()


@pytest.mark.parametrize("mode", ["subtract", "noise"])
def test_whole_exposures_hold_the_chosen_objects(cli: Cli, bands, fields, mode) -> None:
    """Apertures on the kept objects have their light, those on the others have none."""
    models = read_models("deblended.fits")
    kept = [0, 2, 3]
    names = ",".join(str(i) for i in models.objects["id"][kept])
    done = cli("clean", "deblended.fits", *bands, "-o", "only_{band}.fits", "--whole", "--mode",
               mode, "--source", names)  # fmt: skip
    assert done.code == 0, done.err
    flux = np.array([4000, 2500, 1500, 3000, 3000])
    for b, band in enumerate("gri"):
        exposure = read_exposure(f"only_{band}.fits")
        original = read_exposure(f"{band}.fits")
        np.testing.assert_array_equal(exposure.variance, original.variance)
        truth = np.zeros(exposure.box.shape)
        rows, columns = np.indices(exposure.box.shape)
        places = models.objects["y"] - exposure.box.y0, models.objects["x"] - exposure.box.x0
        for y, x, f in zip(*places, flux * np.isin(np.arange(5), kept), strict=True):
            r2 = (rows - y) ** 2 + (columns - x) ** 2
            norm = 2 * np.pi * fields.SIGMA**2
            truth += f * fields.COLOUR[b] / norm * np.exp(-r2 / (2 * fields.SIGMA**2))
        for y, x in zip(*places, strict=True):
            near = np.hypot(rows - y, columns - x) < 4
            expected = truth[near].sum()
            assert abs(exposure.image[near].sum() - expected) < 60 + 0.04 * expected
        if mode == "noise":
            assert abs(exposure.image[:10, 40:].std() - 1) < 0.1


def test_isolated_objects_keep_their_footprint_among_noise(cli: Cli, bands) -> None:
    models = read_models("deblended.fits")
    lone = int(np.flatnonzero(models.objects["flag_isolated"])[0])
    done = cli("clean", "deblended.fits", "r.fits", "-o", "lone.fits", "--whole", "--mode",
               "noise", "--source", str(models.objects["id"][lone]))  # fmt: skip
    assert done.code == 0, done.err
    inside = models.footprints.mask(1, models.box)
    image, original = (read_exposure(p).image for p in ("lone.fits", "r.fits"))
    np.testing.assert_array_equal(image[inside], original[inside])
    assert (image[~inside] != original[~inside]).mean() > 0.99


def test_bad_input(cli: Cli, bands) -> None:
    common = ("clean", "deblended.fits", *bands, "-o", "stamps.fits")
    assert cli(*common, "--side", "30").code == 2
    assert "reconstruct-footprints" in cli(*common, "--whole").err
    assert "{band}" in cli(*common, "--whole", "--mode", "noise").err
    done = cli(*common, "--source", "999")
    assert done.code == 2
    assert "no object has id 999" in done.err
    done = cli(*common, "--max-memory", "10kB")
    assert done.code == 75
    assert "g.fits: needs about 0 MB, --max-memory is 10kB" in done.err
    assert cli("clean", "deblended.fits", "q=r.fits", "-o", "stamps.fits").code == 65
    cli("deblend", "merged.fits", *bands, "-o", "sdss.fits", "--algorithm", "sdss")
    done = cli("clean", "sdss.fits", *bands, "-o", "stamps.fits")
    assert done.code == 65
    assert "no model" in done.err
    assert not Path("stamps.fits").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(cli: Cli, bands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps wait in a nameless file; what is named is the output, of which nothing is left."""
    with open("/dev/full", "wb", 0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        done = cli("clean", "deblended.fits", *bands, "-o", "stamps.fits")
    assert done.code == 74, done.err
    assert "stamps.fits" in done.err
    assert "disk full" in done.err
    assert not Path("stamps.fits").exists()
