"""`deblend --algorithm sdss` through files: each band on its own, in one band and in several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.io.deblend.footprints import read_heavy
from coblend.io.deblend.models import read_models
from coblend.io.fits.reader import open_fits

Cli = Callable[..., Any]
PAIR = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
TRIPLE = [(80.3, 35.0, 3000.0), (80.0, 43.8, 3000.0), (87.5, 39.1, 2000.0)]
LONE = [(30.3, 90.2, 1500.0)]
SDSS = ("--algorithm", "sdss")


def test_single_band_algorithm(cli: Cli, in_folder: Path, fields) -> None:
    """Light is shared per band: catalogue, heavy footprints, and the image where both add up."""
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE], (130, 130))
    names = fields.save(cube, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "one.fits", *SDSS, "--set",
               "heavy={band}.heavy.fits")  # fmt: skip
    assert done.code == 0, done.err
    models = read_models("one.fits")
    assert len(models.objects) == 6
    assert len(models.components) == 0
    fitted = models.objects["blend"] > 0
    assert fitted.sum() == 5
    truth = np.array([4000, 2500, 1500, 3000, 3000, 2000])
    np.testing.assert_allclose(models.objects["model_flux_r"], truth, rtol=0.12)
    assert models.objects["flag_as_psf"][fitted].mean() > 0.5
    heavy = read_heavy("r.heavy.fits")
    assert heavy.table["id"].tolist() == models.objects["id"][fitted].tolist()
    ends = np.concatenate([[0], np.cumsum(heavy.footprints.areas)])
    sums = np.add.reduceat(heavy.light.astype(float), ends[:-1])
    np.testing.assert_allclose(sums, models.objects["model_flux_r"][fitted], rtol=1e-4)


def test_a_symmetric_source_keeps_every_pixel(cli: Cli, in_folder: Path, fields) -> None:
    """Without noise, and alone in its parent: its light is the image, bit for bit."""
    cube, detections = fields.make_scene([[(20, 20, 1.0)], [(20, 60, 1.0)]], (41, 81))
    y, x = np.indices((41, 81))
    sky = sum(
        100 * np.exp(-np.hypot((y - 20) / squeeze, x - at) / 3)
        for at, squeeze in ((20, 1), (60, 0.6))
    )
    images = np.stack([colour * sky for colour in fields.COLOUR]).astype(np.float32)
    names = fields.save(replace(cube, images=images), detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "one.fits", *SDSS, "--process-singles",
               "--set", "heavy={band}.heavy.fits")  # fmt: skip
    assert done.code == 0, done.err
    assert not read_models("one.fits").objects["flag_as_psf"].any()
    for image, band in zip(images, cube.bands, strict=True):
        heavy = read_heavy(f"{band}.heavy.fits")
        for row in range(2):
            inside = detections.footprints.mask(row, cube.box)
            np.testing.assert_array_equal(heavy.footprints.mask(row, cube.box), inside)
            first, last = np.concatenate([[0], np.cumsum(heavy.footprints.areas)])[row : row + 2]
            np.testing.assert_array_equal(heavy.light[first:last], image[inside])


def test_faint_stars_are_known(cli: Cli, in_folder: Path, fields, rng) -> None:
    """One band, S/N 20, anywhere within the pixel: more than 90 % are found to be stars."""
    flux = 20 * np.sqrt(4 * np.pi) * fields.SIGMA / fields.COLOUR[0]
    stars = [[(*(16 + 28 * np.array([i, j]) + rng.uniform(-0.5, 0.5, 2)), flux)]
             for i in range(10) for j in range(10)]  # fmt: skip
    cube, detections = fields.make_scene(stars, (285, 285), bands=("g",))
    names = fields.save(cube, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "one.fits", *SDSS, "--process-singles")
    assert done.code == 0, done.err
    assert read_models("one.fits").objects["flag_as_psf"].sum() > 90


@pytest.mark.parametrize("bands", [("g",), ("g", "r", "i")])
def test_places_of_stars(cli: Cli, in_folder: Path, fields, bands: tuple[str, ...]) -> None:
    """In every band the PSF is found 0.3 px right of the peak's pixel and 0.2 below, to 0.05."""
    groups = [[(20 + 40 * i - 0.2, 20 + 50 * j + 0.3, 3000.0), (32 + 40 * i - 0.2, 29.3 + 50 * j,
               1500.0)] for i in range(3) for j in range(3)]  # fmt: skip
    cube, detections = fields.make_scene(groups, (132, 150), bands=bands)
    names = fields.save(cube, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "one.fits", *SDSS)
    assert done.code == 0, done.err
    objects = read_models("one.fits").objects
    assert objects["flag_as_psf"].all()
    for band, colour in zip(bands, fields.COLOUR, strict=False):
        shift = objects[f"psf_x_{band}"] - objects["ix"], objects[f"psf_y_{band}"] - objects["iy"]
        np.testing.assert_allclose(shift[0], 0.3, atol=0.05)
        np.testing.assert_allclose(shift[1], -0.2, atol=0.05)
        truth = colour * np.tile([3000, 1500], 9)
        np.testing.assert_allclose(objects[f"psf_flux_{band}"], truth, rtol=0.03)
    with open_fits("one.fits") as f:
        header = f.header("OBJECTS")
    texts = [str(value) for key, value in header.items() if key.startswith("TCOMM")]
    assert sum("PSF that fits" in text for text in texts) == 3 * len(bands)


# bad input


def test_heavy_footprints_that_there_are_not(cli: Cli, in_folder: Path, fields) -> None:
    """One file for several bands, or of another algorithm; and models that there are not."""
    names = fields.save(*fields.make_scene([PAIR], (60, 70)), in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "x.fits", "--set", "heavy=a.fits",
               *SDSS)  # fmt: skip
    assert done.code == 2
    done = cli("deblend", "merged.fits", *names, "-o", "x.fits", "--set", "heavy={band}.fits")
    assert done.code == 2
    assert "reconstruct-footprints" in done.err
    assert cli("deblend", "merged.fits", *names, "-o", "one.fits", *SDSS).code == 0
    done = cli("reconstruct-footprints", "one.fits", *names, "-o", "x.fits")
    assert done.code == 65
    assert "heavy" in done.err
    assert not Path("x.fits").exists()
