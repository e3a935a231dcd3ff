"""`deblend` through files: whole fields go through unattended, the same for any --jobs.

Wrong input: test_deblend_input.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.core.deblend import work
from coblend.core.deblend.batch import Batch
from coblend.core.deblend.blend import deblend_batch
from coblend.core.deblend.report import BlendResult
from coblend.core.mask import PLANES
from coblend.core.params.deblend import DeblendParams
from coblend.core.psf.grid import CellPsf, GridPsf
from coblend.io.deblend.models import read_models
from coblend.io.fits.reader import open_fits

Cli = Callable[..., Any]
PAIR = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
TRIPLE = [(80.3, 35.0, 3000.0), (80.0, 43.8, 3000.0), (87.5, 39.1, 2000.0)]
LONE = [(30.3, 90.2, 1500.0)]
LAST = [(90.0, 100.0, 900.0), (97.0, 100.0, 900.0)]
FAST = ("--max-iter", "12", "--set", "minIter=2")


@pytest.fixture
def bands(in_folder: Path, fields) -> list[str]:
    """The names of exposures beside merged.fits; the PSF of the triple is NaN."""
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE, LAST], (130, 130))
    stamps = np.repeat(fields.gaussian(0, 0)[None], 3, 0)
    stamps[2] = np.nan
    psf = CellPsf(stamps, np.array([230.0, 290, 281]), np.array([134.0, 200, 139]))
    cube = replace(cube, psfs=(psf,) * 3)
    return fields.save(cube, detections, in_folder)


def test_poisoned_patch_runs_through_and_jobs_do_not_matter(cli: Cli, bands: list[str]) -> None:
    common = ("--set", "psf_grid=16", "--set", "max_failed=1", "--set",
              "max_footprint_size=40", *FAST)  # fmt: skip
    done = cli("deblend", "merged.fits", *bands, "-o", "one.fits", *common, "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["n_failed"], summary["n_isolated"]) == (1, 1)
    for jobs in (2, 8):
        done = cli("deblend", "merged.fits", *bands, "-o", "two.fits", *common, "-j", str(jobs),
                   "--overwrite")  # fmt: skip
        assert done.code == 0, done.err
        assert Path("one.fits").read_bytes() == Path("two.fits").read_bytes()
    models = read_models("one.fits")
    assert models.parents["error"].tolist() == ["", "", "NoPsf", ""]
    assert len(models.objects) == 8
    assert (
        np.isfinite(models.objects["model_flux_r"]).tolist()
        == [True] * 3 + [False] * 3 + [True] * 2
    )


def test_a_lattice_with_an_unknown_node_fails_its_parents_only(
    cli: Cli, in_folder: Path, fields
) -> None:
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE, LAST], (130, 130))
    stamps = np.tile(fields.gaussian(0, 0), (5, 5, 1, 1))
    stamps[3, 1] = np.nan  # at y = 275, x = 140: the triple's
    psf = GridPsf(stamps, np.arange(5) * 25.0 + 200, np.arange(5) * 30.0 + 110)
    names = fields.save(replace(cube, psfs=(psf,) * 3), detections, in_folder)
    common = ("--set", "psf_grid=8", "--set", "max_failed=1", *FAST)
    done = cli("deblend", "merged.fits", *names, "-o", "one.fits", *common)
    assert done.code == 0, done.err
    models = read_models("one.fits")
    assert models.parents["error"].tolist() == ["", "", "NoPsf", ""]
    assert np.isfinite(models.psfs).all()


def test_skipped_peaks_are_announced(cli: Cli, bands: list[str]) -> None:
    """With their number and the remedy; a dry run lists what becomes of the parents."""
    done = cli("deblend", "merged.fits", *bands, "-o", "one.fits", "--max-number-of-peaks", "2",
               "-n", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert "1 parent(s) with 3 peaks (38 % of all) are not fitted; --crowded psf" in done.err
    table = json.loads(done.out)["table"]
    fates = {row["parent"]: row["fate"] for row in table}
    assert fates == {1: "fitted", 2: "isolated", 3: "skipped_too_many_peaks", 4: "fitted"}
    assert all(row["memory_mb"] > 0 for row in table)


def test_too_many_failures_exit_3_with_a_complete_file(cli: Cli, bands: list[str]) -> None:
    done = cli("deblend", "merged.fits", *bands, "-o", "one.fits", "--set", "psf_grid=16", *FAST)
    assert done.code == 3
    assert "1 of 3 blends failed" in done.err
    assert len(read_models("one.fits").objects) == 8


def test_a_bug_costs_one_parent_and_is_named(
    cli: Cli, bands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is fitted; -vv shows where the bug is."""

    def broken(batch: Batch, params: DeblendParams) -> list[BlendResult]:
        if 3 in batch.parents:
            raise IndexError("the last parent")
        return deblend_batch(batch, params)

    monkeypatch.setattr(work, "deblend_batch", broken)
    done = cli("deblend", "merged.fits", *bands, "-o", "one.fits", "--max-failed", "1", *FAST,
               "-vv")  # fmt: skip
    assert done.code == 0, done.err
    assert "parent 4: Internal:IndexError; 1 parent(s) met a bug" in done.err
    assert "in broken" in done.err
    models = read_models("one.fits")
    assert models.parents["error"].tolist() == ["", "", "NoPsf", "Internal:IndexError"]
    assert len(models.objects) == 8


def test_mask_of_what_was_not_deblended(cli: Cli, bands: list[str]) -> None:
    done = cli(
        "deblend", "merged.fits", *bands, "-o", "one.fits", "--set", "not_deblended=mask.fits",
        "--max-number-of-peaks", "2", *FAST,
    )  # fmt: skip
    assert done.code == 0, done.err
    models = read_models("one.fits")
    with open_fits("mask.fits") as f:
        mask, header = f.image("MASK"), f.header("MASK")
    assert header["MP_NOT_DEBLENDED"] == PLANES["NOT_DEBLENDED"]
    np.testing.assert_array_equal(
        mask != 0, models.footprints.mask(2, models.box) & models.parents["flags"][2].astype(bool)
    )


def test_names_of_the_reference_system(cli: Cli, bands: list[str]) -> None:
    """Its options are accepted, or refused with the reason why there is none."""
    done = cli("deblend", "merged.fits", *bands, "-o", "x.fits", "-n", "--dump-config", "--set",
               "maxIter=7", "--set", "footprintSNRThresh=4", "--set", "maxNumberOfPeaks=9",
               "--set", "growSize=1", "--preset", "lsst")  # fmt: skip
    assert done.code == 0, done.err
    for line in ("max-iter = 7", "split-thresh = 4", "max-number-of-peaks = 9", "split-grow = 1",
                 'split = "always"', "coupling-passes = 0", "min-iter = 5"):  # fmt: skip
        assert line in done.out
    Path("own.toml").write_text("[deblend]\nfallback = false\n")
    done = cli("deblend", "merged.fits", *bands, "-o", "x.fits", "--config", "own.toml")
    assert done.code == 78
    assert "only fallback=true" in done.err


def test_psfs_and_exposures_given_apart(cli: Cli, in_folder: Path, fields) -> None:
    """``--psf`` where the files have none, and a list of files: the same catalogue."""
    cube, detections = fields.make_scene([PAIR, LONE], (130, 130))
    names = fields.save(cube, detections, in_folder)
    assert cli("deblend", "merged.fits", *names, "-o", "with.fits", *FAST).code == 0
    fields.save(replace(cube, psfs=(None,) * 3), detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "one.fits", *FAST)
    assert done.code == 65
    assert "--psf" in done.err
    Path("list").write_text("\n".join(names))
    spec = f"gaussian:sigma={fields.SIGMA},size=21"
    done = cli("deblend", "merged.fits", "@list", "-o", "one.fits", "--psf", spec, "--psf",
               f"g={spec}", *FAST)  # fmt: skip
    assert done.code == 0, done.err
    one, other = (read_models(name).objects for name in ("with.fits", "one.fits"))
    np.testing.assert_allclose(one["model_flux_g"], other["model_flux_g"], rtol=1e-3)
    done = cli("deblend", "merged.fits", *names, "-o", "x.fits", "--psf", spec, "--psf", spec)
    assert done.code == 2
    assert "two PSFs" in done.err


def test_exposures_that_do_not_fit_into_memory(cli: Cli, bands: list[str]) -> None:
    done = cli("deblend", "merged.fits", *bands, "-o", "x.fits", "--max-memory", "500kB")
    assert done.code == 75
    assert "merged.fits: needs about 1 MB, --max-memory is 500kB" in done.err
    assert not Path("x.fits").exists()


def test_a_psf_narrower_than_that_of_the_models(cli: Cli, in_folder: Path, fields) -> None:
    """The band is named and the models become as sharp, unless asked to be, or the reference's."""
    cube, detections = fields.make_scene([PAIR, LONE], (130, 130))
    names = fields.save(cube, detections, in_folder)
    spec = ("--psf", "gaussian:sigma=2,size=21", "--psf", "g=gaussian:sigma=0.7,size=21")
    run = ("deblend", "merged.fits", *names, *spec, *FAST, "-v", "-o")
    done = cli(*run, "a.fits")
    assert done.code == 0, done.err
    assert done.err.count("narrower than that of the models") == 1
    assert "band g: its PSF (sigma 0.7" in done.err
    assert read_models("a.fits").model_psf_sigma == 0.6
    done = cli(*run, "b.fits", "--set", "model_psf_sigma=0.5")
    assert "narrower" not in done.err
    assert read_models("b.fits").model_psf_sigma == 0.5
    done = cli(*run, "c.fits", "--preset", "reference")
    assert read_models("c.fits").model_psf_sigma == 0.8


def test_epochs_of_one_filter(cli: Cli, in_folder: Path, fields) -> None:
    """Three exposures of one band under names of their own; a star that varies is followed."""
    cube, detections = fields.make_scene([PAIR, LONE, TRIPLE], (130, 130))
    names = fields.save(replace(cube, bands=("r", "r2", "r3")), detections, in_folder)
    with open_fits("r3.fits") as f:
        assert f.header("IMAGE")["BAND"] == "r3"
    epochs = [f"night{i}={name}" for i, name in enumerate(names)]
    done = cli("deblend", "merged.fits", *epochs, "-o", "one.fits")
    assert done.code == 0, done.err
    objects = read_models("one.fits").objects
    truth = np.array([4000, 2500, 1500, 3000, 3000, 2000])
    for i, factor in enumerate(fields.COLOUR):
        np.testing.assert_allclose(objects[f"model_flux_night{i}"], factor * truth, rtol=0.05)


@pytest.mark.parametrize("name", [*DeblendParams.FIXED, *DeblendParams.WITHOUT])
def test_what_the_reference_system_can_and_this_cannot(cli: Cli, in_folder: Path, name) -> None:
    """Refused with the reason, from the command line and from a file, before anything is read."""
    value, reason = DeblendParams.FIXED.get(name, ("", DeblendParams.WITHOUT.get(name, "")))
    run = ("deblend", "none.fits", "none.fits", "-o", "x.fits")
    done = cli(*run, "--set", f"{name}=7")
    assert done.code == 2
    Path("own.toml").write_text(f"[deblend]\n{name} = 7\n")
    filed = cli(*run, "--config", "own.toml")
    assert filed.code == 78
    for text in (done.err, filed.err):
        assert name in text
        assert reason in text
        assert not value or f"only {name}={value}" in text


REFERENCE = """
minIter = 5
maxIter = 300
relativeError = 1e-3
resizeFrequency = 3
optimizer = "adaprox"
maxProxIter = 1
backgroundThresh = 1.0
initialBackgroundThresh = 1.0
morphThresh = 1
minSNR = 50
sourceModel = "double"
fallback = true
setSpectra = true
maxSpectrumCutoff = 1000000
processSingles = false
persistIsolated = true
useWeights = true
badMask = ["BAD", "NO_DATA", "SAT", "SUSPECT", "EDGE"]
statsMask = ["SAT", "INTRP", "NO_DATA"]
maskLimits = {SAT = 0.1, NO_DATA = 0.25}
modelPsfSigma = 0.8
modelPsfSize = 11
convolutionType = "fft"
footprintSNRThresh = 5.0
growSize = 2
minDeconvolvedArea = 9
maxNumberOfPeaks = 600
maxFootprintArea = 2000000
maxFootprintSize = 0
minFootprintAxisRatio = 0.0
maxAreaTimesPeaks = 1000000000
notDeblendedMask = "NOT_DEBLENDED"
catchFailures = true
pseudoColumns = ["merge_peak_sky", "sky_source"]
measureParents = false
saveTemplates = true
useCiLimits = false
ciDeblendChildRange = [5, 10]
ciNumParentsToDeblend = 10
eRel = 0.001
useFootprints = true
"""
"""The configuration of the reference system's task (section 18.1 of the design page)."""


def test_the_reference_systems_configuration_is_accepted(cli: Cli, bands: list[str]) -> None:
    """As a file, and option by option."""
    inherited = "{deblend_nChild='deblend_parentNChild', deblend_nPeaks='deblend_parentNPeaks'}"
    Path("own.toml").write_text(f"[deblend]{REFERENCE}columnInheritance = {inherited}")
    run = ("deblend", "merged.fits", *bands, "-o", "x.fits", "-n")
    done = cli(*run, "--config", "own.toml", "--dump-config")
    assert done.code == 0, done.err
    assert "max-spectrum-cutoff = 1000000" in done.out
    assert 'mask-limits = ["SAT=0.1", "NO_DATA=0.25"]' in done.out
    lines = [line.replace('"', "").replace(" = ", "=") for line in REFERENCE.strip().split("\n")]
    plain = [line.translate(dict.fromkeys(map(ord, "[]{}"), "")) for line in lines]
    assignments = [word for line in plain for word in ("--set", line)]
    done = cli(*run, *assignments)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "mode",
    [
        (),
        ("--process-singles", "--set", "split=always"),
        ("--crowded", "psf", "--max-number-of-peaks", "1"),
        ("--algorithm", "sdss"),
        ("--preset", "lsst"),
    ],
    ids=["default", "parts", "stars", "sdss", "lsst"],
)
def test_a_patch_of_oddities_goes_through(cli: Cli, in_folder: Path, fields, mode) -> None:
    """Without a word but those asked for: every peak has a row, every flux or a flag.

    Bad columns in all bands, a row in one; a band that ends, one without a PSF in the left half,
    one masked there; a saturated core, a value of 1e30; parents on the border; two peaks in one
    pixel, two side by side, a sky peak amid a blend and a parent of sky alone.
    """
    groups = [
        PAIR, LONE, TRIPLE, [(3.2, 60.1, 3000.0), (2.0, 68.3, 1500.0)],
        [(126.3, 125.2, 2000.0), (128.6, 118.0, 2500.0)], [(70.3, 127.5, 900.0)],
        [(75.0, 90.0, 800.0), (75.2, 97.0, 800.0)], [(110.0, 20.0, 0.1)],
        [(110.3, 60.2, 2000.0), (110.3, 60.2, 2000.0), (110.3, 70.0, 2000.0)],
        [(60.2, 60.2, 2000.0), (60.2, 61.2, 2000.0)],
    ]  # fmt: skip
    cube, detections = fields.make_scene(groups, (130, 130))
    images, masks = cube.images.copy(), cube.masks.copy()
    images[:, :, 34:36], images[0, 80], images[2, :, 120:] = np.nan, np.nan, np.nan
    images[1, 75, 92] = 1e30
    masks[:, 28:33, 28:33] |= cube.planes.value(["SAT"])
    masks[1, :, :50] |= cube.planes.value(["BAD"])
    half = np.tile(fields.gaussian(0, 0), (14, 14, 1, 1))
    half[:, :6] = np.nan
    psf = GridPsf(half, np.arange(14) * 10.0 + 200, np.arange(14) * 10.0 + 100)
    sky = [4, np.flatnonzero(detections.peaks["parent"] == 8)[0]]  # 4: amid the triple
    detections.peaks["merge_peak_sky"][sky] = True
    odd = replace(cube, images=images, masks=masks, psfs=(*cube.psfs[:2], psf))
    names = fields.save(odd, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "x.fits", "--max-failed", "1", "--set",
               "psf_grid=8", *mode)  # fmt: skip
    assert done.code == 0, done.err
    assert "warning" not in done.err.lower()
    models = read_models("x.fits")
    objects, parents = models.objects, models.parents
    assert sorted(objects["peak_id"]) == detections.peaks["id"].tolist()
    assert set(parents["error"]) <= {"", "Diverged"}
    assert objects["flag_skipped_pseudo"].sum() == 2
    told = objects["flag_no_data"] | objects["flag_failed"] | objects["flag_skipped"]
    told |= objects["flag_isolated"] & (mode == ("--preset", "lsst"))  # which measures none
    lost = [~np.isfinite(objects[f"model_flux_{band}"]) for band in "gri"]
    assert (told | ~np.any(lost, axis=0)).all()
    kept = objects["parent"] == 4  # untouched by all that
    np.testing.assert_allclose(objects["model_flux_r"][kept], [3000, 1500], rtol=0.08)
