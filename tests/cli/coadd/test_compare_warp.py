"""``assemble-coadd --reject compare-warp`` on files."""

from dataclasses import replace

import fitsio
import numpy as np
import pytest
from astropy.table import Table
from scipy.ndimage import gaussian_filter

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.mask import PLANES
from coblend.core.psf import StampPsf
from coblend.io.exposure.exposures import read_exposure
from coblend.io.sky.wcs import tangent_plane

BIT = {name: 1 << bit for name, bit in PLANES.items()}
SIDE = 160
FIELD = Box(0, 0, SIDE, SIDE)


def stamp(sigma, side=31):
    y, x = np.mgrid[:side, :side] - side // 2
    values = np.exp(-(y**2 + x**2) / 2 / sigma**2)
    return values / values.sum()


@pytest.fixture
def epochs(rng, write_file, in_folder):
    """Six epochs, direct and matched: a star, a variable star, a trail in the second."""
    direct, matched = [], []
    for i in range(6):
        sky = np.zeros(FIELD.shape)
        sky[50, 60] = 3e4
        sky[110, 120] = 2000 * (1 + i)
        trail = np.zeros(FIELD.shape)
        if i == 1:
            trail[np.arange(SIDE), np.arange(SIDE)[::-1]] = 300
        noise = rng.normal(0, 3, FIELD.shape)
        for sigma, names in ((1.5 + 0.1 * i, direct), (3.0, matched)):
            widen = np.sqrt(sigma**2 - 1.5**2)
            own = gaussian_filter(noise, widen) if widen else noise
            image = gaussian_filter(sky, sigma) + gaussian_filter(trail, sigma) + own
            exposure = Exposure(
                image=image.astype(np.float32),
                mask=np.zeros(FIELD.shape, np.int32),
                variance=np.full(FIELD.shape, own.var(), np.float32),
                box=FIELD,
                band="g",
                unit="nJy",
                psf=StampPsf(stamp(sigma)),
                wcs=tangent_plane(150.0, 2.0, 0.2, 80, 80),
                meta={"MJD-OBS": 60000.0 + i},
            )
            kind = "d" if names is direct else "m"
            if kind == "m":
                exposure.mask[:, :5] = BIT["EDGE"]
                exposure.image[:, 150:] = np.nan
            write_file(exposure, f"{kind}{i}.fits")
            names.append(f"{kind}{i}.fits")
    return direct, matched


def test_a_trail_is_clipped_and_stars_stay(cli, epochs):
    direct, matched = epochs
    common = ("assemble-coadd", *direct, "--reject", "compare-warp")
    done = cli(*common, "--psf-matched", ",".join(matched), "-o", "c.fits", "--set",
               "template=t.fits", "--set", "artifact_masks=art_{name}.fits")  # fmt: skip
    assert done.code == 0, done.err
    coadd = read_exposure("c.fits")
    trail = np.zeros(FIELD.shape, bool)
    trail[np.arange(SIDE), np.arange(SIDE)[::-1]] = True
    trail[:, 150:] = False
    trail[40:125] = False
    clipped = (coadd.mask & BIT["CLIPPED"]) != 0
    assert clipped[trail].all()
    assert np.abs(coadd.image[trail]).max() < 8
    n_image = fitsio.read("c.fits", ext="NIMAGE")
    assert (n_image[trail] == 5).all()
    stars = [(50, 60), (110, 120)]
    assert all(n_image[y, x] == 6 for y, x in stars)
    assert not any(clipped[y - 4 : y + 5, x - 4 : x + 5].any() for y, x in stars)
    edge = (coadd.mask & BIT["SENSOR_EDGE"]) != 0
    assert edge[:, :5].all()
    assert not edge[:, 5:].any()
    lost = (coadd.mask & BIT["NO_DATA"]) != 0
    assert lost[:, 150:].all()
    assert not lost[:, :150].any()
    assert not ((coadd.mask & BIT["REJECTED"]) != 0).any()
    table = fitsio.read("c.fits", ext="ARTIFACTS")
    assert "n_clipped" in done.err
    cut = table[np.char.strip(table["decision"].astype(str)) == "CLIPPED"]
    assert set(cut["input"]) == {1}
    assert cut["area"].max() > 300
    kept = table[np.char.strip(table["decision"].astype(str)) == "PERSISTENT"]
    assert len(kept)
    assert ((kept["x0"] <= 120) & (kept["x1"] > 120) & (kept["y0"] <= 110)).all()
    assert fitsio.read_header("t.fits", ext="IMAGE")["MAGZERO"] == coadd.meta["MAGZERO"]
    template = read_exposure("t.fits")
    assert template.image[50, 60] == pytest.approx(gaussian_filter(3e4 * np.eye(1), 0)[0, 0]
                                                   / (2 * np.pi * 9), rel=0.05)  # fmt: skip
    assert coadd.meta["STATISTC"] == "MEAN"
    masks = [fitsio.read(f"art_d{i}.fits", ext="MASK") for i in range(6)]
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal((mask & BIT["NO_DATA"]) != 0, lost)
        assert bool((mask & BIT["CLIPPED"]).any()) == (i == 1)
    inside = ~lost
    np.testing.assert_array_equal(
        (masks[1] & BIT["CLIPPED"])[inside], (clipped * BIT["CLIPPED"])[inside]
    )
    header = fitsio.read_header("art_d0.fits", ext="MASK")
    assert header["MP_CLIPPED"] == PLANES["CLIPPED"]


def test_a_table_names_the_partners(cli, epochs, in_folder):
    direct, matched = epochs
    Table({"file": direct, "psf_matched": matched}).write("inputs.ecsv")
    common = ("--reject", "compare-warp")
    assert cli("assemble-coadd", "@inputs.ecsv", *common, "-o", "a.fits").code == 0
    done = cli("assemble-coadd", *direct, *common, "--psf-matched", ",".join(matched), "-o",
               "b.fits")  # fmt: skip
    assert done.code == 0
    ids = [f"visit {i}" for i in range(6)]
    Table({"file": direct, "id": ids}).write("direct.ecsv")
    Table({"file": matched[::-1], "id": ids[::-1]}).write("matched.ecsv")
    paired = ("assemble-coadd", "@direct.ecsv", *common, "-o", "i.fits", "--psf-matched")
    assert cli(*paired, "@matched.ecsv").code == 0
    np.testing.assert_array_equal(fitsio.read("i.fits", ext="MASK"),
                                  fitsio.read("a.fits", ext="MASK"))  # fmt: skip
    Table({"file": matched, "id": [*ids[:5], "visit 9"]}).write("wrong.ecsv")
    done = cli(*paired, "@wrong.ecsv", "--overwrite")
    assert done.code == 2
    assert "do not pair: visit 5, visit 9" in done.err
    for name in ("IMAGE", "MASK", "NIMAGE"):
        np.testing.assert_array_equal(fitsio.read("a.fits", ext=name),
                                      fitsio.read("b.fits", ext=name))  # fmt: skip


@pytest.mark.parametrize("block", [1, 37])
def test_slabs_change_nothing(cli, epochs, monkeypatch, block):
    """The comparison in slabs of few rows and of all rows gives the same pixels and table."""
    direct, matched = epochs
    common = ("assemble-coadd", *direct, "--reject", "compare-warp", "--psf-matched",
              ",".join(matched), "--set", "streaks=true", "-o")  # fmt: skip
    assert cli(*common, "a.fits").code == 0
    monkeypatch.setattr("coblend.core.coadd.plan._CACHE_BYTES", 1)
    monkeypatch.setattr("coblend.core.coadd.comparison.BLOCK", 50)
    monkeypatch.setattr("coblend.core.coadd.stack.STRIP_BYTES", 4 * 6 * SIDE * block)
    monkeypatch.setattr("coblend.core.coadd.regions.BLOCK", 50)
    assert cli(*common, "b.fits").code == 0
    with open("a.fits", "rb") as a, open("b.fits", "rb") as b:
        assert a.read() == b.read()


def test_a_faint_trail_is_followed(cli, in_folder, write_file, rng):
    """The bright half of a trail is found; with streaks=true its faint half goes too."""
    side, names, trail = 300, [], np.zeros((300, 300))
    x = np.arange(side)
    trail[150, x] = np.where(x < 130, 120, 30.0) * (x < 250)
    for i in range(6):
        noise = rng.normal(0, 1, (side, side))
        image = gaussian_filter(noise, 1) / 0.282 + (i == 2) * gaussian_filter(trail, 3)
        exposure = Exposure(
            image=image.astype(np.float32), mask=np.zeros(image.shape, np.int32),
            variance=np.ones(image.shape, np.float32), box=Box(0, 0, side, side), band="g",
            unit="nJy", psf=StampPsf(stamp(3.0)), wcs=tangent_plane(150.0, 2.0, 0.2, 80, 80),
        )  # fmt: skip
        names += [write_file(exposure, f"{k}{i}.fits").name for k in "dm"]
    clipped = {}
    for streaks in ("false", "true"):
        done = cli("assemble-coadd", *names[::2], "--reject", "compare-warp", "--psf-matched",
                   ",".join(names[1::2]), "-o", "c.fits", "--overwrite", "--set",
                   f"streaks={streaks}")  # fmt: skip
        assert done.code == 0, done.err
        clipped[streaks] = fitsio.read("c.fits", ext="MASK") & BIT["CLIPPED"] != 0
        n_image = fitsio.read("c.fits", ext="NIMAGE")
        np.testing.assert_array_equal(n_image, 6 - clipped[streaks])
    assert clipped["false"][150, 5:120].all()
    assert not clipped["false"][150, 160:].any()
    assert clipped["true"][145:156, 5:225].all()
    assert not clipped["true"][:, 290:].any()
    assert not clipped["true"][:120].any()


def test_columns_are_described(cli, epochs):
    direct, matched = epochs
    done = cli("assemble-coadd", *direct, "--reject", "compare-warp", "--psf-matched",
               ",".join(matched), "-o", "c.fits")  # fmt: skip
    assert done.code == 0
    for name in ("INPUTS", "ARTIFACTS"):
        header = fitsio.read_header("c.fits", ext=name)
        for k in range(1, header["TFIELDS"] + 1):
            assert header[f"TUCD{k}"], header[f"TTYPE{k}"]
            assert header[f"TCOMM{k}"], header[f"TTYPE{k}"]


def test_jobs_change_no_byte(cli, epochs):
    direct, matched = epochs
    common = ("assemble-coadd", *direct, "--reject", "compare-warp", "--psf-matched")
    assert cli(*common, ",".join(matched), "-o", "a.fits").code == 0
    assert cli(*common, ",".join(matched), "-o", "b.fits", "-j", "2").code == 0
    with open("a.fits", "rb") as a, open("b.fits", "rb") as b:
        assert a.read() == b.read()


# bad input


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "compare-warp needs the PSF-matched warps"),
        (("--psf-matched", "m0.fits,m1.fits"), 2, "2 PSF-matched warps for 6 warps"),
        (("--psf-matched", "m0.fits,m0.fits"), 2, "m0.fits is given twice"),
        (("--psf-matched", "gone.fits"), 66, "gone.fits"),
        (("--psf-matched", "@all.txt", "--max-memory", "2MB"), 2, "max_memory"),
        (("--psf-matched", "@all.txt", "--reject", "none"), 2, "are for --reject compare-warp"),
        (("--psf-matched", "@all.txt", "--set", "artifact_masks=a.fits"), 2, "put {name} into"),
        (
            ("--psf-matched", "@all.txt", "--set", "artifact_masks={name}.fits", "--overwrite"),
            73,
            "is also an input",
        ),
        (
            ("--psf-matched", "@all.txt", "--set", "template=d0.fits", "--overwrite"),
            73,
            "is also an input",
        ),
        (("--psf-matched", "@all.txt", "--set", "template=m0.fits"), 73, "m0.fits: exists"),
        (("--psf-matched", "@all.txt", "--set", "template=c.fits"), 2, "would be written twice"),
        (("--psf-matched", "@wrong.txt"), 65, "list the PSF-matched warps in the order"),
        (("--psf-matched", "@direct.txt"), 65, "w1.fits: its PSF and that of w0.fits differ"),
    ],
)
def test_bad_partners(cli, epochs, in_folder, arguments, code, message):
    (in_folder / "all.txt").write_text("\n".join(epochs[1]))
    (in_folder / "wrong.txt").write_text("\n".join(epochs[1][::-1]))
    for i in range(6):
        (in_folder / f"w{i}.fits").write_bytes((in_folder / f"d{i}.fits").read_bytes())
    (in_folder / "direct.txt").write_text("\n".join(f"w{i}.fits" for i in range(6)))
    done = cli(
        "assemble-coadd", *epochs[0], "--reject", "compare-warp", *arguments, "-o", "c.fits"
    )
    assert done.code == code, done.err
    assert message in done.err
    assert not (in_folder / "c.fits").exists()


def test_matched_warps_without_a_psf(cli, epochs, write_file, in_folder):
    for name in epochs[1]:
        write_file(replace(read_exposure(name), psf=None), name)
    done = cli("assemble-coadd", *epochs[0], "-o", "c.fits", "--reject", "compare-warp",
               "--psf-matched", ",".join(epochs[1]))  # fmt: skip
    assert done.code == 65
    assert "m0.fits: no PSF" in done.err
