"""``coblend simulate``: its files agree with its truth, and come out the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.cli.main import run
from coblend.core.box import Box
from coblend.core.simulate.expose import transfer_of
from coblend.core.simulate.sky import Sky, sky_images
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits
from coblend.io.sky.wcs import grid_offset, pixel_to_sky

OPTIONS = ("--size", "128", "--blends", "2", "--singles", "2", "--epochs", "2")
BANDS = ("--bands", "g,i")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulate") / "made"
    assert run(["simulate", str(out), *OPTIONS, *BANDS, "--seed", "7", "-q"]) == 0
    return out


def test_writes_one_file_per_exposure_and_the_truth(folder):
    names = {p.name for p in folder.iterdir()}
    warps = {f"warp_{band}_{epoch}.fits" for band in "gi" for epoch in range(2)}
    assert names == {"truth.fits", *warps}
    with open_fits(str(folder / "truth.fits")) as truth:
        assert truth.schema == ("truth", 1)
        assert set(truth.table("EPOCHS")["file"].astype(str)) == warps


def test_exposures_show_the_sky_of_the_truth(folder):
    """From truth.fits alone: (image - light of SOURCES as EPOCHS saw it) is noise of VARIANCE."""
    with open_fits(str(folder / "truth.fits")) as truth:
        sources, epochs = truth.table("SOURCES"), truth.table("EPOCHS")
    sky = Sky(("g", "i"), sources, Box(0, 0, 128, 128))
    for epoch in epochs:
        exposure = read_exposure(str(folder / str(epoch["file"])))
        assert exposure.band == str(epoch["band"])
        assert exposure.meta["MAGZERO"] == pytest.approx(epoch["zero_point"])
        light = sky_images(sky, exposure.band, transfer_of(epoch)[None])[0]
        scale = 10 ** (0.4 * (epoch["zero_point"] - 31.4))
        pull = exposure.image - scale * light[exposure.box.slices(sky.box)]
        pull /= np.sqrt(exposure.variance)
        if not epoch["trail"]:
            pull = pull[np.abs(pull) < 5]  # without the bad column and the cosmic rays
            assert pull.size > 0.97 * exposure.image.size
            assert np.sqrt(np.mean(pull**2)) == pytest.approx(1, abs=0.02)


def test_all_exposures_share_a_grid(folder):
    first = read_exposure(str(folder / "warp_g_0.fits"))
    with open_fits(str(folder / "truth.fits")) as truth:
        sources = truth.table("SOURCES")
    for path in folder.glob("warp_*.fits"):
        exposure = read_exposure(str(path))
        assert grid_offset(first.wcs, first.box, exposure.wcs, exposure.box) < 1e-6
        ra, dec = pixel_to_sky(exposure.wcs, exposure.box, sources["x"], sources["y"])
        np.testing.assert_allclose(ra, sources["ra"], atol=1e-9)
        np.testing.assert_allclose(dec, sources["dec"], atol=1e-9)


def test_same_seed_same_bytes(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        options = [*OPTIONS, *BANDS, "--seed", seed, "-q"]
        assert run(["simulate", str(tmp_path / name / "made"), *options]) == 0
    for path in (tmp_path / "a" / "made").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "made" / path.name).read_bytes()
    first, other = (read_exposure(str(tmp_path / n / "made" / "warp_g_0.fits")) for n in "ac")
    assert np.mean(first.image != other.image) > 0.9


def test_dry_run_writes_nothing(tmp_path, capsys):
    assert run(["simulate", str(tmp_path / "x"), *OPTIONS, "--dry-run"]) == 0
    assert not list(tmp_path.rglob("*.fits"))
    assert "n_exposure 6" in capsys.readouterr().err


def test_one_existing_file_stops_all(tmp_path, capsys):
    """The last of the files exists: exit 73, and none of the others is written."""
    (tmp_path / "warp_i_1.fits").write_text("mine")
    assert run(["simulate", str(tmp_path), *OPTIONS, *BANDS]) == 73
    assert [p.name for p in tmp_path.iterdir()] == ["warp_i_1.fits"]
    assert (tmp_path / "warp_i_1.fits").read_text() == "mine"
    assert "warp_i_1.fits: exists" in capsys.readouterr().err
    assert run(["simulate", str(tmp_path), *OPTIONS, *BANDS, "--overwrite", "-q"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "0"), "epochs is 0"),
        (("--size", "80", "--blends", "90"), "no room for"),
        (("--set", "faintest=15"), "faintest is 15 mag, brightest 18.3 mag"),
        (("--bands", "g,g"), "band g is given twice"),
        (("--bands", "a b"), "band 'a b'"),
        (("--size", "99", "--set", "dither=99"), "dither is 99 pixels"),
    ],
)
def test_bad_options(tmp_path, capsys, options, message):
    assert run(["simulate", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
