"""Outputs: none replaces an input or another output, and all are refused before the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from coblend.io.deblend.models import read_models
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits

Cli = Callable[..., Any]
PAIR = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
FAST = ("--max-iter", "2", "--min-iter", "0")
COMMANDS = {
    "clean": ("clean", "deblended.fits", "--whole", "--source", "ID"),
    "heavy": ("deblend", "merged.fits", "-o", "new.fits", "--algorithm", "sdss"),
    "mask": ("deblend", "merged.fits", "-o", "new.fits", *FAST),
    "residual": ("refit", "deblended.fits", "-o", "new.fits", "--only", "failed"),
    "light": ("reconstruct-footprints", "deblended.fits", "-o", "new.fits"),
}
PRODUCTS = {
    "clean": ("-o", "{}"),
    "heavy": ("--set", "heavy={}"),
    "mask": ("--set", "not_deblended={}"),
    "residual": ("--residual", "{}"),
    "light": ("--model-image", "{}"),
}


@pytest.fixture
def bands(cli: Cli, in_folder: Path, fields) -> list[str]:
    """Exposures beside merged.fits and deblended.fits."""
    cube, detections = fields.make_scene([PAIR], (60, 60), bands=("g", "r"))
    names = fields.save(cube, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "deblended.fits", *FAST)
    assert done.code == 0, done.err
    return names


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def command(kind: str, bands: list[str], product: str) -> list[str]:
    """Arguments of a command that also writes ``product``."""
    name, models, *rest = COMMANDS[kind]
    source = str(read_models("deblended.fits").objects["id"][0])
    rest = [source if word == "ID" else word for word in rest]
    return [name, models, *bands, *rest, *(word.format(product) for word in PRODUCTS[kind])]


@pytest.mark.parametrize("kind", COMMANDS)
def test_no_product_replaces_an_input(cli: Cli, bands, kind: str) -> None:
    before = contents()
    product = "g.fits" if kind == "mask" else "{band}.fits"
    done = cli(*command(kind, bands, product), "--overwrite")
    assert done.code == 73, done.err
    assert "g.fits: is also an input" in done.err
    assert contents() == before


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_product_that_exists_is_refused_before_the_work(cli: Cli, bands, kind: str) -> None:
    """No other output is left behind."""
    Path("old_r.fits").write_bytes(b"old")
    before = contents()
    product = "old_r.fits" if kind == "mask" else "old_{band}.fits"
    done = cli(*command(kind, bands, product))
    assert done.code == 73, done.err
    assert "old_r.fits" in done.err
    assert contents() == before


@pytest.mark.parametrize("kind", [kind for kind in COMMANDS if kind != "clean"])
def test_two_outputs_of_one_name(cli: Cli, bands, kind: str) -> None:
    before = contents()
    product = "./new.fits"
    one = bands if kind == "mask" else bands[:1]
    done = cli(*command(kind, one, product), "--overwrite")
    assert done.code == 2, done.err
    assert contents() == before


def test_one_file_for_several_bands(cli: Cli, bands) -> None:
    for kind in ("clean", "heavy", "residual", "light"):
        done = cli(*command(kind, bands, "all.fits"))
        assert done.code == 2
        assert "'all.fits' names one file for 2 bands" in done.err


def test_the_band_in_names_of_outputs(cli: Cli, bands) -> None:
    """It is that of the header; where there is none to put there, the name is refused."""
    done = cli("detect", "g.fits", "-o", "det_{band}_{name}.fits")
    assert done.code == 0, done.err
    assert Path("det_g_g.fits").exists()
    done = cli("deblend", "merged.fits", *bands, "-o", "d_{band}.fits")
    assert done.code == 2
    assert "this command has no band to put there" in done.err
    done = cli("detect", "g.fits", "-o", "{tract}.fits")
    assert done.code == 2
    source = str(read_models("deblended.fits").objects["id"][0])
    done = cli("clean", "deblended.fits", "r.fits", "--whole", "--source", source,
               "-o", "c_{band}.fits")  # fmt: skip
    assert done.code == 0, done.err
    with open_fits("c_r.fits") as file:
        assert file.has("IMAGE")
    done = cli("clean", "deblended.fits", *bands, "-o", "c_{band}.fits")
    assert done.code == 2
    assert "stamps of all bands go into one file" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("detect", "g.fits", "--psf", "p.fits[PSF]"),
        ("detect", "g.fits", "--psf", "stamp:p.fits"),
        ("reconstruct-footprints", "deblended.fits", "g.fits", "--psf", "g=p.fits"),
        ("psf-match", "r.fits", "--apply-kernel", "p.fits"),
        ("psf-match", "r.fits", "--reference", "psfex:p.fits"),
        ("refit", "deblended.fits", "g.fits", "r.fits", "--add-peaks", "p.fits"),
        ("detect", "g.fits", "--config", "p.fits"),
    ],
    ids=["psf", "stamp", "band", "kernel", "reference", "peaks", "config"],
)
def test_files_that_options_name_are_inputs(cli: Cli, bands, words: tuple[str, ...]) -> None:
    Path("p.fits").write_bytes(b"" if "--config" in words else Path("g.fits").read_bytes())
    before = contents()
    done = cli(*words, "-o", "p.fits", "--overwrite")
    assert done.code == 73, done.err
    assert "p.fits: is also an input" in done.err
    assert contents() == before


def test_a_psf_from_a_file_is_recorded(cli: Cli, bands) -> None:
    done = cli("detect", "g.fits", "--psf", "r.fits[PSF]", "-o", "det.fits")
    assert done.code == 0, done.err
    with open_fits("det.fits") as file:
        rows = file.table("PROVENANCE")
    assert [(row["role"], row["name"]) for row in rows] == [
        ("exposure", "g.fits"), ("psf", "r.fits"),
    ]  # fmt: skip


def test_products_are_those_of_the_exposures(cli: Cli, bands) -> None:
    """Not of the bands that were detected on."""
    one = (
        "deblend",
        "merged.fits",
        "g.fits",
        "-o",
        "new.fits",
        "--algorithm",
        "sdss",
        "--overwrite",
    )
    before = contents()
    done = cli(*one, "--heavy", "{band}.fits")
    assert done.code == 73, done.err
    assert contents() == before
    done = cli(*one, "--heavy", "heavy.fits")
    assert done.code == 0, done.err
    assert contents().keys() - before.keys() == {"new.fits", "heavy.fits"}


@pytest.mark.parametrize("option", ["--save-kernel", "--save-nodes"])
def test_a_kernel_does_not_replace_the_matched_image(cli: Cli, bands, option: str) -> None:
    before = contents()
    done = cli("psf-match", "g.fits", "--reference", "gaussian:fwhm=6", "-o", "m.fits",
               option, "m.fits", "--overwrite")  # fmt: skip
    assert done.code == 2, done.err
    assert "m.fits would be written twice" in done.err
    assert contents() == before


def test_files_beside_an_exposure_are_inputs(cli: Cli, bands) -> None:
    """Weight maps, found or named, and lists of files."""
    image = read_exposure("g.fits").image
    for name, plane in (("a.fits", image), ("a.weight.fits", np.ones_like(image)),
                        ("rms.fits", np.ones_like(image))):  # fmt: skip
        fitsio.write(name, plane)
    Path("list.txt").write_text("g.fits\n")
    before = contents()
    for words, name in (
        (("detect", "g=a.fits", "--psf-sigma", "1.7"), "a.weight.fits"),
        (("detect", "g=a.fits[noise=rms:rms.fits]", "--psf-sigma", "1.7"), "rms.fits"),
        (("reconstruct-footprints", "deblended.fits", "@list.txt"), "list.txt"),
    ):
        done = cli(*words, "-o", name, "--overwrite")
        assert done.code == 73, done.err
        assert f"{name}: is also an input" in done.err
    assert contents() == before
    done = cli("detect", "g=a.fits", "--psf-sigma", "1.7", "-o", "det.fits")
    assert done.code == 0, done.err
    with open_fits("det.fits") as file:
        roles = [(row["role"], row["name"]) for row in file.table("PROVENANCE")]
    assert roles == [("exposure", "a.fits"), ("plane", "a.weight.fits")]


def test_places_in_names_of_products(cli: Cli, bands) -> None:
    """Where nothing is filled in they are refused: the next band would replace the file."""
    done = cli("detect", "g.fits", "-o", "det.fits", "--out-snr", "snr_{band}.fits")
    assert done.code == 2
    assert "no band is filled in there" in done.err
