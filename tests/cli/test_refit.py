"""`refit` through files: sources added, dropped and suggested; nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.core.detection import Detections
from coblend.core.psf.grid import GridPsf
from coblend.io.deblend.models import ModelFile, read_models
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits

Cli = Callable[..., Any]
PAIR = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
TRIPLE = [(80.3, 35.0, 3000.0), (80.0, 43.8, 3000.0), (87.5, 39.1, 2000.0)]
LONE = [(30.3, 90.2, 1500.0)]
LAST = [(90.0, 100.0, 900.0), (97.0, 100.0, 900.0)]
SECOND = "139.1,287.5"  # x, y of the third star of the triple, which the catalogue lacks


def without(detections: Detections, row: int) -> Detections:
    """Detections that lack one peak."""
    parents = detections.parents.copy()
    peaks = np.delete(detections.peaks, row)
    parents["npeak"] = [np.count_nonzero(peaks["parent"] == i) for i in parents["id"]]
    parents["peak0"] = np.cumsum(parents["npeak"]) - parents["npeak"]
    return replace(detections, parents=parents, peaks=peaks)


@pytest.fixture
def bands(cli: Cli, in_folder: Path, fields) -> list[str]:
    """Exposures beside deblended.fits, which lacks the third star of the triple."""
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE, LAST], (130, 130))
    names = fields.save(cube, without(detections, 5), in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "deblended.fits")
    assert done.code == 0, done.err
    return names


def heap(path: str, blend: int) -> tuple[bytes, bytes]:
    """Stored codes of one blend's morphologies and their runs."""
    with open_fits(path) as f:
        row = next(r for r in f.table("BLENDS") if r["id"] == blend)
        return tuple(
            f.image(name, (slice(int(row[first]), int(row[first] + row[n])),)).tobytes()
            for name, first, n in (("MORPH", "pix0", "n_pix"), ("RUNS", "run0", "n_run"))
        )


def test_added_source_improves_the_likelihood(cli: Cli, bands: list[str]) -> None:
    """One command adds the missing star: its flux is right, and other parents stay the same."""
    done = cli("refit", "deblended.fits", *bands, "-o", "new.fits", "--add-peaks", SECOND,
               "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert "made from" not in done.err
    (row,) = json.loads(done.out)["table"]
    assert row["log_likelihood"] > row["log_likelihood_before"] + 1000
    old, new = read_models("deblended.fits"), read_models("new.fits")
    assert len(new.objects) == len(old.objects) + 1
    assert set(old.objects["id"]) < set(new.objects["id"])
    added = new.objects[~np.isin(new.objects["id"], old.objects["id"])][0]
    assert added["id"] > max(old.objects["id"].max(), old.blends["id"].max())
    assert (added["ix"], added["iy"], added["parent"]) == (139, 288, 3)
    assert abs(added["model_flux_r"] / 2000 - 1) < 0.05
    assert new.blends["n_iter"][1] > old.blends["n_iter"][1]
    assert new.blends["id"].tolist() == old.blends["id"].tolist()
    for i in (0, 2):
        blend = int(old.blends["id"][i])
        assert heap("deblended.fits", blend) == heap("new.fits", blend)
        kept = old.objects["blend"] == blend
        again = new.objects[new.objects["blend"] == blend]
        for name in set(old.objects.dtype.names) - {"component0"}:
            assert old.objects[kept][name].tobytes() == again[name].tobytes()
        assert old.blends["log_likelihood"][i] == new.blends["log_likelihood"][i]
    np.testing.assert_array_equal(old.psfs, new.psfs)


def test_tutorial_in_one_command(cli: Cli, bands: list[str]) -> None:
    """A source is added, the blend fitted, and the residual about it written: it is noise."""
    done = cli("refit", "deblended.fits", *bands, "-o", "new.fits", "--add-peaks", SECOND,
               "--residual", "{band}.left.fits")  # fmt: skip
    assert done.code == 0, done.err
    (parent,) = (p for p in read_models("new.fits").parents if p["id"] == 3)
    for band in "gri":
        left = read_exposure(f"{band}.left.fits")
        assert (left.box.y0, left.box.x0, *left.box.shape) == tuple(
            parent[name] for name in ("y0", "x0", "ny", "nx")
        )
        assert left.image.std() < 1.1
    done = cli("refit", "deblended.fits", *bands, "-o", "x.fits", "--add-peaks", SECOND,
               "--residual", "left.fits")  # fmt: skip
    assert done.code == 2
    assert not Path("x.fits").exists()


def test_dropping_what_was_added_gives_the_old_likelihood(cli: Cli, bands: list[str]) -> None:
    cli("refit", "deblended.fits", *bands, "-o", "new.fits", "--add-peaks", SECOND)
    old, new = read_models("deblended.fits"), read_models("new.fits")
    (added,) = set(new.objects["id"]) - set(old.objects["id"])
    done = cli("refit", "new.fits", *bands, "-o", "back.fits", "--drop-peaks", str(added))
    assert done.code == 0, done.err
    back = read_models("back.fits")
    assert back.objects["id"].tolist() == old.objects["id"].tolist()
    before, after = old.blends["log_likelihood"][1], back.blends["log_likelihood"][1]
    with_it = new.blends["log_likelihood"][1]
    assert abs(after - before) < 0.1 * abs(with_it - before)  # a blend with a star too few


def test_suggested_peak_is_the_missing_star(cli: Cli, bands: list[str]) -> None:
    """The table of suggestions holds it, and is what --add-peaks wants."""
    blend = str(read_models("deblended.fits").blends["id"][1])
    done = cli("refit", "deblended.fits", *bands, "-o", "peaks.fits", "--blend", blend,
               "--suggest-peaks", "--json")  # fmt: skip
    assert done.code == 0, done.err
    with open_fits("peaks.fits") as f:
        peaks = f.table("PEAKS")
    assert np.hypot(peaks["x"][0] - 139.1, peaks["y"][0] - 287.5) < 1.5
    assert (peaks["parent"] == 3).all()
    done = cli("refit", "deblended.fits", *bands, "-o", "new.fits", "--add-peaks", "peaks.fits")
    assert done.code == 0, done.err
    assert len(read_models("new.fits").objects) == 7 + len(peaks)


def test_only_skipped_parents(cli: Cli, bands: list[str]) -> None:
    """Parents that were beyond a limit are fitted once the limit is lifted."""
    done = cli("deblend", "merged.fits", *bands, "-o", "skip.fits", "--set",
               "max_footprint_size=20")  # fmt: skip
    assert done.code == 0, done.err
    skipped = read_models("skip.fits")
    assert len(skipped.blends) == 0
    done = cli("refit", "skip.fits", *bands, "-o", "new.fits", "--only", "skipped")
    assert done.code == 0, done.err
    new = read_models("new.fits")
    assert len(new.blends) == 3
    assert not new.parents["flag_skipped_too_big"].any()
    assert new.objects["id"].tolist() == skipped.objects["id"].tolist()
    whole = read_models("deblended.fits")
    # not the same stopping rule; the triple lacks a star, whose light the others share somehow
    np.testing.assert_allclose(
        new.objects["model_flux_r"], whole.objects["model_flux_r"], rtol=0.04
    )


def test_only_failed_parents(cli: Cli, in_folder: Path, fields) -> None:
    """Parents without a PSF are fitted once there is one; the others keep their rows."""
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE], (130, 130))
    stamps = np.tile(fields.gaussian(0, 0), (5, 5, 1, 1))
    stamps[3, 1] = np.nan  # at y = 275, x = 140: the triple's
    hole = GridPsf(stamps, np.arange(5) * 25.0 + 200, np.arange(5) * 30.0 + 110)
    names = fields.save(replace(cube, psfs=(hole,) * 3), detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "hole.fits", "--set", "psf_grid=8")
    assert done.code == 3
    old = read_models("hole.fits")
    assert old.parents["error"].tolist() == ["", "", "NoPsf"]
    done = cli("refit", "hole.fits", *names, "-o", "new.fits", "--only", "failed", "--psf",
               f"gaussian:sigma={fields.SIGMA},size=21")  # fmt: skip
    assert done.code == 0, done.err
    new = read_models("new.fits")
    assert new.parents["error"].tolist() == [""] * 3
    assert not new.objects["flag_failed"].any()
    assert new.objects["id"].tolist() == old.objects["id"].tolist()
    assert new.objects["model_flux_r"][:3].tolist() == old.objects["model_flux_r"][:3].tolist()
    np.testing.assert_allclose(new.objects["model_flux_r"][3:], [3000, 3000, 2000], rtol=0.05)


def test_unconverged_parents_converge_when_they_may(cli: Cli, bands: list[str]) -> None:
    cli("deblend", "merged.fits", *bands, "-o", "short.fits", "--max-iter", "3")
    assert read_models("short.fits").parents["flag_not_converged"].sum() == 3
    done = cli("refit", "short.fits", *bands, "-o", "new.fits", "--only", "unconverged",
               "--relative-error", "1e-3")  # fmt: skip
    assert done.code == 0, done.err
    short, new = read_models("short.fits"), read_models("new.fits")
    assert (new.blends["log_likelihood"] > short.blends["log_likelihood"]).all()
    assert (new.blends["n_iter"] > 3).all()
    assert not new.parents["flag_not_converged"][[0, 3]].any()


@pytest.mark.parametrize(
    ("options", "rtol"),
    [
        (("--set", "split=always"), 0.06),
        (("--crowded", "psf", "--max-number-of-peaks", "1"), 0.03),
    ],
)
def test_parts_and_star_fields_start_from_their_models(
    cli: Cli, in_folder: Path, fields, options, rtol: float
) -> None:
    """A parent in parts, or of point sources: the missing star comes in, the rest stays near."""
    stars = [(30.3, 30.1, 5000.0), (30.0, 47.4, 2500.0), (45.2, 44.7, 3000.0), (46, 30.4, 2000.0)]
    cube, detections = fields.make_scene([stars], (76, 80), radius=11)
    names = fields.save(cube, without(detections, 3), in_folder)
    assert cli("deblend", "merged.fits", *names, "-o", "old.fits", *options).code == 0
    old = read_models("old.fits")
    assert len(old.blends) > 1 or old.objects["flag_psf_only"].all()
    done = cli("refit", "old.fits", *names, "-o", "peaks.fits", "--suggest-peaks", "--blend",
               str(old.blends["id"][0]))  # fmt: skip
    assert done.code == 0, done.err
    with open_fits("peaks.fits") as f:
        found = f.table("PEAKS")[0]
    assert np.hypot(found["x"] - 130.4, found["y"] - 246) < 1.5
    done = cli("refit", "old.fits", *names, "-o", "new.fits", "--add-peaks", "130.4,246", *options,
               "--max-iter", "30")  # fmt: skip
    assert done.code == 0, done.err
    new = read_models("new.fits")
    assert new.parents["log_likelihood"][0] > old.parents["log_likelihood"][0] + 1000
    assert new.objects["flag_psf_only"].all() == old.objects["flag_psf_only"].all()
    flux = new.objects["model_flux_r"][np.argsort(new.objects["peak_id"])]
    np.testing.assert_allclose(flux, [5000, 2500, 3000, 2000], rtol=rtol)


def test_stars_beside_the_border_of_their_parent(cli: Cli, in_folder: Path, fields) -> None:
    """Their stamps reach beyond its box: the residual is searched all the same, and is empty.

    A table without peaks is nothing to add, not an error.
    """
    stars = [(4.2, 30.1, 5000.0), (5.0, 40.4, 2500.0), (12.2, 33.7, 3000.0)]
    cube, detections = fields.make_scene([stars], (60, 80), radius=4)
    names = fields.save(cube, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "old.fits", "--crowded", "psf",
               "--max-number-of-peaks", "1")  # fmt: skip
    assert done.code == 0, done.err
    blend = str(read_models("old.fits").blends["id"][0])
    done = cli(
        "refit", "old.fits", *names, "-o", "peaks.fits", "--suggest-peaks", "--blend", blend
    )
    assert done.code == 0, done.err
    with open_fits("peaks.fits") as f:
        assert len(f.table("PEAKS")) == 0
    done = cli("refit", "old.fits", *names, "-o", "new.fits", "--add-peaks", "peaks.fits")
    assert done.code == 0, done.err
    assert read_models("old.fits").objects.tobytes() == read_models("new.fits").objects.tobytes()


def test_a_blend_becomes_a_field_of_stars(cli: Cli, bands: list[str]) -> None:
    """Where free shapes are wrong for one parent: all of its objects become point sources."""
    blend = str(read_models("deblended.fits").blends["id"][0])
    done = cli("refit", "deblended.fits", *bands, "-o", "new.fits", "--blend", blend, "--crowded",
               "psf", "--max-number-of-peaks", "1")  # fmt: skip
    assert done.code == 0, done.err
    old, new = read_models("deblended.fits"), read_models("new.fits")
    assert new.objects["id"].tolist() == old.objects["id"].tolist()
    assert new.objects["flag_psf_only"].tolist() == [True, True, *[False] * 5]
    np.testing.assert_allclose(new.objects["model_flux_r"][:2], [4000, 2500], rtol=0.02)


def test_failed_refit_is_reported(cli: Cli, bands: list[str], fields, in_folder: Path) -> None:
    """Pixels that have become NaN: exit 3, and a complete file that names the reason."""
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE, LAST], (130, 130))
    cube.images[:, detections.footprints.mask(0, cube.box)] = np.nan
    fields.save(cube, detections, in_folder)
    blend = str(read_models("deblended.fits").blends["id"][0])
    done = cli("refit", "deblended.fits", *bands, "-o", "new.fits", "--blend", blend,
               "--force")  # fmt: skip
    assert done.code == 3, done.err
    old, new = read_models("deblended.fits"), read_models("new.fits")
    assert new.parents["error"].tolist() == ["NoData", "", "", ""]
    assert new.objects["id"].tolist() == old.objects["id"].tolist()
    assert new.objects["flag_failed"].tolist() == [True, True, *[False] * 5]


def test_peaks_of_one_pixel_are_no_obstacle(cli: Cli, in_folder: Path, fields) -> None:
    """A catalogue with a peak twice: its parent is fitted again like any other."""
    twice = [*PAIR, PAIR[1]]
    names = fields.save(*fields.make_scene([twice], (60, 70)), in_folder)
    assert cli("deblend", "merged.fits", *names, "-o", "old.fits").code == 0
    third = str(read_models("old.fits").objects["id"][2])
    again = ("refit", "old.fits", *names, "-o", "new.fits")
    done = cli(*again, "--blend", str(read_models("old.fits").blends["id"][0]))
    assert done.code == 0, done.err
    assert read_models("new.fits").objects["flag_degenerate"].tolist() == [False, False, True]
    done = cli(*again, "--drop-peaks", third, "--overwrite")
    assert done.code == 0, done.err
    np.testing.assert_allclose(
        read_models("new.fits").objects["model_flux_r"], [4000, 5000], rtol=0.05
    )


def test_jobs_do_not_matter(cli: Cli, bands: list[str]) -> None:
    cli("deblend", "merged.fits", *bands, "-o", "short.fits", "--max-iter", "3")
    for name, jobs in (("one.fits", 1), ("two.fits", 2)):
        done = cli("refit", "short.fits", *bands, "-o", name, "--only", "unconverged", "-j", jobs)
        assert done.code == 0, done.err
    assert Path("one.fits").read_bytes() == Path("two.fits").read_bytes()


def test_any_identifier_names_a_blend(cli: Cli, bands: list[str]) -> None:
    """That of the blend, of its parent, or of one of its objects; printed in full."""
    models = read_models("deblended.fits")
    own = models.objects[models.objects["parent"] == 3]
    for identifier in (models.blends["id"][1], 3, own["id"][0]):
        done = cli("refit", "deblended.fits", *bands, "-o", "peaks.fits", "--overwrite", "--blend",
                   str(identifier), "--suggest-peaks", "--json")  # fmt: skip
        assert done.code == 0, done.err
        assert '"parent": 3,' in done.out


def test_nothing_to_do_copies(cli: Cli, bands: list[str]) -> None:
    done = cli("refit", "deblended.fits", *bands, "-o", "new.fits", "--only", "failed")
    assert done.code == 0, done.err
    old, new = read_models("deblended.fits"), read_models("new.fits")
    assert old.objects.tobytes() == new.objects.tobytes()
    assert old.morph.tobytes() == new.morph.tobytes()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "no blend is chosen"),
        (("--blend", "987654"), 2, "no parent, blend or object has id 987654"),
        (
            ("--add-peaks", "1,1"),
            2,
            "no parent holds pixel x=1, y=1\n  positions are x,y; the "
            "exposures cover [100:230, 200:330]",
        ),
        (("--add-peaks", "134.5,280.4"), 2, "same pixel"),
        (("--add-peaks", "none.fits"), 66, "none.fits"),
        (("--drop-peaks", "99999"), 2, "no object has id 99999"),
        (("--only", "all"), 2, "only"),
    ],
)
def test_bad_input(cli: Cli, bands: list[str], options, code: int, message: str) -> None:
    done = cli("refit", "deblended.fits", *bands, "-o", "new.fits", *options)
    assert done.code == code, done.err
    assert message in done.err
    assert not Path("new.fits").exists()


def test_wrong_exposures(cli: Cli, bands: list[str], fields, tmp_path: Path) -> None:
    options = ("-o", "new.fits", "--add-peaks", SECOND)
    assert cli("refit", "deblended.fits", *bands[:2], *options).code == 65
    with ModelFile("deblended.fits") as models:
        first = str(models.table("OBJECTS")["id"][2])
    done = cli("refit", "deblended.fits", *bands, "-o", "x.fits", "--drop-peaks", first)
    assert done.code == 2
    assert "no peak left" in done.err


def test_other_exposures_need_force(cli: Cli, bands: list[str], fields, in_folder: Path) -> None:
    """The models of another night start the fit only when asked to."""
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE, LAST], (130, 130), seed=2)
    fields.save(cube, detections, in_folder)
    options = ("-o", "new.fits", "--add-peaks", SECOND)
    done = cli("refit", "deblended.fits", *bands, *options)
    assert done.code == 65
    assert "g.fits: not what deblended.fits was made from" in done.err
    assert "--force" in done.err
    assert not Path("new.fits").exists()
    done = cli("refit", "deblended.fits", *bands, *options, "--force")
    assert done.code == 0, done.err
    objects = read_models("new.fits").objects
    assert abs(objects["model_flux_r"][objects["parent"] == 3].sum() / 8000 - 1) < 0.05
