"""`coblend merge-detections` through files: our catalogues, others', and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.mask import STANDARD
from coblend.core.psf.stamp import StampPsf
from coblend.io.detect.detections import read_detections
from coblend.io.fits.reader import open_fits
from coblend.io.sky.wcs import tangent_plane

CARDS = tangent_plane(150.1, 2.2, 0.2, 60, 80)


@pytest.fixture
def bands(write_file):
    """Coadds of three bands of one sky."""
    rng = np.random.default_rng(8)
    stars = rng.uniform((10, 10, 60), (170, 210, 900), (30, 3))
    paths = {}
    for k, (band, sigma) in enumerate((("g", 2.0), ("r", 1.8), ("i", 1.6))):
        r = np.arange(25) - 12
        stamp = np.exp(-0.5 * np.add.outer(r**2, r**2) / sigma**2)
        stamp /= stamp.sum()
        padded = np.pad(rng.normal(0, 1, (180, 220)), 12)
        for y, x, flux in stars:
            if rng.random() < 0.8:
                padded[int(y) : int(y) + 25, int(x) : int(x) + 25] += flux * (1 + k / 2) * stamp
        image = padded[12:-12, 12:-12].astype(np.float32)
        exposure = Exposure(
            image, np.zeros(image.shape, np.int32), np.ones(image.shape, np.float32),
            Box(0, 0, *image.shape), band=band, unit="nJy", psf=StampPsf(stamp), wcs=CARDS,
        )  # fmt: skip
        paths[band] = (exposure, write_file(exposure, f"coadd_{band}.fits"))
    return paths


@pytest.fixture
def catalogues(cli, bands, tmp_path):
    out = {}
    for band, (_, path) in bands.items():
        out[band] = tmp_path / f"det_{band}.fits"
        assert cli("detect", path, "-o", out[band]).code == 0
    return out


def test_three_bands_become_one_catalogue(cli, catalogues, tmp_path):
    out = tmp_path / "merged.fits"
    done = cli(
        "merge-detections", *catalogues.values(), "--priority", "i,r,z,g", "-o", out, "--json"
    )
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    merged = read_detections(str(out))
    assert merged.bands == ("i", "r", "g")
    sky = merged.parents["merge_footprint_sky"]
    assert summary["n_sky_object"] == sky.sum() > 5
    assert summary["n_parent"] == (~sky).sum() > 15
    assert (merged.peaks["n_band"][~merged.peaks["merge_peak_sky"]] >= 1).all()
    assert (merged.peaks["n_band"] == 3).sum() > 5
    assert np.isfinite(merged.peaks["ra"]).all()
    assert merged.meta["MINNEW2"] == 25
    assert merged.meta["MAXSAME2"] == pytest.approx(2.25)
    for band in "gri":
        own = read_detections(str(catalogues[band]))
        source = merged.peaks[f"src_{band}"]
        assert np.isin(source[source > 0], own.peaks["id"]).all()


def test_sky_objects_follow_the_seed(cli, catalogues, tmp_path):
    paths = [tmp_path / f"{n}.fits" for n in "abc"]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        assert cli("merge-detections", catalogues["g"], "--seed", seed, "-o", path).code == 0
    first, again, other = (read_detections(str(p)) for p in paths)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert np.array_equal(first.peaks["id"], again.peaks["id"])
    assert not np.array_equal(first.peaks["id"], other.peaks["id"])


def test_a_table_of_positions_with_one_footprint_for_all(cli, bands, tmp_path):
    table = np.zeros(3, [("x", "f8"), ("y", "f8")])
    table["x"], table["y"] = [20, 100, 200], [30, 90, 150]
    fitsio.write(str(tmp_path / "peaks.fits"), table)
    out = tmp_path / "merged.fits"
    done = cli(
        "merge-detections", f"g={tmp_path / 'peaks.fits'}", "--like", bands["g"][1],
        "--footprint-radius", 300, "-o", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    merged = read_detections(str(out))
    assert merged.parents["area"].tolist() == [180 * 220]
    assert sorted(merged.peaks["ix"].tolist()) == [20, 100, 200]
    assert np.isfinite(merged.peaks["snr"]).all()  # measured on the image
    assert np.isfinite(merged.peaks["ra"]).all()


def test_segmentation_image_of_another_program(cli, bands, catalogues, tmp_path):
    """Our own label image and positions, given as another program's: same footprints."""
    own = read_detections(str(catalogues["i"]))
    labels = own.footprints.labels(own.box)
    fitsio.write(str(tmp_path / "seg.fits"), labels)
    table = np.zeros(len(own.peaks), [("X_IMAGE", "f8"), ("Y_IMAGE", "f8"), ("NUMBER", "i4")])
    table["X_IMAGE"], table["Y_IMAGE"] = own.peaks["x"] + 1, own.peaks["y"] + 1
    table["NUMBER"] = np.repeat(np.arange(len(own.parents)) + 1, own.parents["npeak"])
    fitsio.write(str(tmp_path / "cat.fits"), table)
    out = tmp_path / "merged.fits"
    done = cli(
        "merge-detections", f"i={tmp_path / 'cat.fits'}", catalogues["g"], "--like",
        bands["i"][1], "--segmentation", f"i={tmp_path / 'seg.fits'}", "-o", out,
        "--set", "sky_objects=0",
    )  # fmt: skip
    assert done.code == 0, done.err
    plain = tmp_path / "plain.fits"
    assert cli("merge-detections", catalogues["i"], catalogues["g"], "-o", plain,
               "--set", "sky_objects=0").code == 0  # fmt: skip
    a, b = read_detections(str(out)), read_detections(str(plain))
    assert np.array_equal(a.footprints.labels(a.box) > 0, b.footprints.labels(b.box) > 0)
    assert len(a.peaks) == pytest.approx(len(b.peaks), abs=2)


def test_the_deblender_gets_every_parent_and_peak_once(cli, bands, catalogues, tmp_path):
    """From three simulated bands to models: parents are its parents, peaks its sources."""
    merged, out = tmp_path / "merged.fits", tmp_path / "deblended.fits"
    ordered = [catalogues[b] for b in "irg"]
    assert cli("merge-detections", *ordered, "--sky-objects", 5, "-o", merged).code == 0
    done = cli("deblend", merged, *(bands[b][1] for b in "gri"), "-o", out)
    assert done.code == 0, done.err
    found = read_detections(str(merged))
    with open_fits(str(out)) as file:
        parents, objects = file.table("PARENTS"), file.table("OBJECTS")
    assert np.array_equal(np.sort(objects["peak_id"]), np.sort(found.peaks["id"]))
    assert np.array_equal(np.sort(parents["id"]), np.sort(found.parents["id"]))
    owner = dict(zip(found.peaks["id"].tolist(), found.peaks["parent"].tolist(), strict=True))
    assert [owner[p] for p in objects["peak_id"].tolist()] == objects["parent"].tolist()


def test_limits_of_one_band(cli, catalogues, tmp_path):
    """With a wide limit of its own a band adds hardly any peaks; the others do as before."""
    g, r, i = (catalogues[b] for b in "gri")
    n_peak, meta = {}, {}
    for name, limit in (("same", "1arcsec"), ("own", "5px,r=40px")):
        out = tmp_path / f"{name}.fits"
        done = cli("merge-detections", i, r, g, "--min-new-peak", limit, "-o", out)
        assert done.code == 0, done.err
        merged = read_detections(str(out))
        n_peak[name] = (merged.peaks["band"] == "r").sum()
        meta[name] = merged.meta
    assert n_peak["own"] < n_peak["same"]
    assert meta["same"]["MINNEW2"] == 25
    assert [meta["own"][f"MINNEW_{k}"] for k in (1, 2, 3)] == [25, 1600, 25]


def test_sky_objects_avoid_bad_pixels_of_the_exposures(
    cli, bands, catalogues, write_file, tmp_path
):
    """A band of NO_DATA and one of BAD; without --mask sky objects lie on them."""
    exposure, _ = bands["g"]
    mask = np.zeros_like(exposure.mask)
    mask[:, :60] = STANDARD.value(["BAD"])
    mask[120:, :] = STANDARD.value(["NO_DATA"])
    holes = write_file(replace(exposure, mask=mask), "holes.fits")
    counts = {}
    for name, extra in (("plain", ()), ("masked", ("--mask", bands["i"][1], "--mask", holes))):
        out = tmp_path / f"{name}.fits"
        done = cli("merge-detections", catalogues["g"], *extra, "-o", out)
        assert done.code == 0, done.err
        merged = read_detections(str(out))
        sky = np.flatnonzero(merged.parents["merge_footprint_sky"])
        painted = merged.footprints.select(sky).labels(merged.box) > 0
        counts[name] = np.count_nonzero(painted & (mask != 0))
        assert len(sky) > 3
    assert counts["plain"] > 0
    assert counts["masked"] == 0


def test_an_image_full_of_sources_has_no_sky_objects(cli, bands, tmp_path):
    """Room for none is not an error."""
    table = np.zeros(1, [("x", "f8"), ("y", "f8")])
    table["x"], table["y"] = 110, 90
    fitsio.write(str(tmp_path / "t.fits"), table)
    done = cli(
        "merge-detections", f"g={tmp_path / 't.fits'}", "--like", bands["g"][1],
        "--footprint-radius", 300, "-o", tmp_path / "full.fits",
    )  # fmt: skip
    assert done.code == 0
    assert "room for 0 of 100 sky objects" in done.err


def test_warnings(cli, catalogues, tmp_path):
    def warned(*arguments):
        done = cli("merge-detections", *catalogues.values(), *arguments, "-o",
                   tmp_path / "out.fits", "--overwrite", "-v")  # fmt: skip
        assert done.code == 0
        return done.err

    limits = ("--min-new-peak", "2px", "--max-same-peak", "4px")
    assert "every peak is either the same or new" in warned(*limits)
    assert "either the same or new" not in warned()
    assert "no detections of band z: skipped" in warned("--priority", "z,g,r,i")


def test_real_blend(cli, shared_data, tmp_path):
    folder = shared_data / "hsc_cosmos_35"
    out = tmp_path / "merged.fits"
    done = cli(
        "merge-detections", f"g={folder / 'peaks.fits'}", "--like", folder / "g.fits",
        "--footprint-radius", 80, "-o", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    merged = read_detections(str(out))
    assert merged.parents["area"].tolist() == [58 * 48]
    assert len(merged.peaks) == 7


def test_bad_input(cli, bands, catalogues, write_file, tmp_path):
    out = tmp_path / "merged.fits"
    g, r = catalogues["g"], catalogues["r"]

    def refused(code, text, *arguments):
        done = cli("merge-detections", *arguments, "-o", out)
        assert done.code == code, done.err
        assert text in done.err
        assert len(done.err.splitlines()) <= 6
        assert "Traceback" not in done.err
        assert not out.exists()

    refused(66, "none.fits", tmp_path / "none.fits", g)
    refused(65, "two catalogues of band g", g, g)
    refused(2, "band r is not in --priority g", g, r, "--priority", "g")
    refused(2, "expected a distance", g, "--min-new-peak", "far")
    exposure, coadd = bands["r"]
    refused(65, "expected detections", f"r={coadd}", g)
    shifted = write_file(
        replace(exposure, wcs=tangent_plane(150.1, 2.2, 0.2, 60, 81)), "shifted.fits"
    )
    assert cli("detect", shifted, "-o", tmp_path / "det_s.fits").code == 0
    refused(65, "1 px off that of", g, tmp_path / "det_s.fits")
    forced = cli("merge-detections", g, tmp_path / "det_s.fits", "--set", "ignore_wcs=true", "-o",
                 tmp_path / "forced.fits")  # fmt: skip
    assert forced.code == 0
    assert cli("detect", bands["r"][1], "-o", tmp_path / "f.fits", "--set", "field_id=3").code == 0
    refused(65, "different fields: 0, 3", g, tmp_path / "f.fits")
    nowhere = write_file(replace(exposure, wcs=()), "nowhere.fits")
    for band in "gr":
        assert cli("detect", f"{band}={nowhere}", "-o", tmp_path / f"det_{band}_n.fits").code == 0
    refused(2, "give it in pixels", tmp_path / "det_g_n.fits", tmp_path / "det_r_n.fits")
    table = np.zeros(1, [("x", "f8"), ("y", "f8")])
    fitsio.write(str(tmp_path / "t.fits"), table)
    refused(65, "needs --like", f"g={tmp_path / 't.fits'}")
    table["x"] = 5000
    fitsio.write(str(tmp_path / "t.fits"), table, clobber=True)
    refused(65, "none of 1 sources lies in the image", f"g={tmp_path / 't.fits'}", "--like", coadd)
    refused(2, "no catalogue of that band", g, "--segmentation", f"z={coadd}")
    negative = tmp_path / "neg.fits"
    assert (
        cli("detect", coadd, "-o", negative, "--polarity", "negative", "--threshold", 3).code == 0
    )
    refused(65, "holds negative detections", negative)
    refused(2, "bands FUV and NUV have the same identifier code", f"FUV={g}", f"NUV={r}")
    refused(2, "has a limit for band z; the inputs have g, r", g, r, "--min-new-peak", "1,z=2")
    refused(2, "-1 is for all bands or for none", g, r, "--min-new-peak", "1,r=-1")
    refused(2, "two distances for one band", g, "--max-same-peak", "1,2")
    refused(2, "the other bands have none", g, "--max-same-peak", "g=2px")
    refused(2, "labels that are parents do not grow", g, "--set", "grow=2",
            "--set", "seg_parent=label")  # fmt: skip
    refused(65, "px off that of", g, "--mask", shifted)
    refused(66, "none.fits", g, "--mask", tmp_path / "none.fits")
    refused(2, "no mask plane BADD", g, "--mask", coadd, "--set", "sky_avoid_mask=BADD")
    (tmp_path / "page.html").write_text("<html><body>404</body></html>")
    refused(65, "page.html", f"g={tmp_path / 'page.html'}", "--like", coadd)


def test_culling_leaves_every_label_a_peak(cli, bands, tmp_path):
    """Labels that touch are parents of their own, though they make one core of 64 peaks."""
    sources = np.zeros(64, [(name, "f8") for name in ("label", "x", "y", "flux", "flux_err")])
    y, x = np.divmod(np.arange(64), 8)
    sources["label"], sources["x"], sources["y"] = np.arange(1, 65), 5 * x + 52, 5 * y + 62
    sources["flux"], sources["flux_err"] = 500 + 10 * np.arange(64), 10
    fitsio.write(str(tmp_path / "t.fits"), sources)
    labels = np.zeros((180, 220), np.int32)
    labels[60:100, 50:90] = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((5, 5), np.int32))
    fitsio.write(str(tmp_path / "seg.fits"), labels)
    done = cli("merge-detections", f"g={tmp_path / 't.fits'}", "--like", bands["g"][1],
               "--segmentation", f"g={tmp_path / 'seg.fits'}", "--set", "seg_parent=label",
               "-o", tmp_path / "merged.fits")  # fmt: skip
    assert done.code == 0, done.err
    merged = read_detections(str(tmp_path / "merged.fits"))
    assert merged.parents["npeak"].tolist() == [1] * len(merged.parents)


def test_bad_segmentation_images(cli, bands, tmp_path):
    """Each is refused with the reason, and leaves no output."""
    out, labels, table = (tmp_path / name for name in ("merged.fits", "seg.fits", "t.fits"))
    sources = np.zeros(1, [("x", "f8"), ("y", "f8")])
    sources["x"], sources["y"] = 50, 60
    fitsio.write(str(table), sources)
    good = np.zeros((180, 220), np.int32)
    good[58:63, 48:53] = 1
    orphan = good.copy()
    orphan[100:105, 100:105] = 2

    def run(image, path):
        fitsio.write(str(labels), image, clobber=True)
        return cli("merge-detections", f"g={table}", "--like", bands["g"][1],
                   "--segmentation", f"g={labels}", "-o", path)  # fmt: skip

    for image, text in (
        (good[:-1], "has 220x179 pixels"),
        (-good, "labels down to -1"),
        (0 * good, "all labels are 0"),
        (good * 0.5, "fractions"),
        (orphan, "1 of 2 labels no row"),
    ):
        done = run(image, out)
        assert done.code == 65, done.err
        assert text in done.err
        assert "Traceback" not in done.err
        assert not out.exists()
    assert run(good, out).code == 0  # the same call with good labels, so nothing else is wrong
