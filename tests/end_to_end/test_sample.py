"""The chain on the sample data does what the project promises, measured against the truth."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from coblend.cli.main import run
from coblend.core.mask import STANDARD
from coblend.io.deblend.footprints import read_heavy
from coblend.io.deblend.models import read_models
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits

ROOT = Path(__file__).resolve().parent.parent.parent
TRUTH = ROOT / "sample_data" / "truth.fits"
BANDS = ("i", "r", "g")
MIB = 1 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]


def table(path: Path, name: str) -> Any:
    with open_fits(str(path)) as file:
        return file.table(name)


def test_sample_is_small_and_what_its_command_makes(tmp_path: Path) -> None:
    """Made again it has the same pixels (but rounding may depend on the processor)."""
    size = sum(p.stat().st_size for p in (ROOT / "sample_data").iterdir() if p.is_file())
    assert size <= 3 * MIB
    again = tmp_path / "sample_data"
    assert run(["simulate", str(again), "--seed", "1", "-q"]) == 0
    names = sorted(p.name for p in (ROOT / "sample_data").glob("*.fits"))
    assert names == sorted(p.name for p in again.iterdir())
    for name in names:
        if name.startswith("warp"):
            kept = read_exposure(str(ROOT / "sample_data" / name))
            made = read_exposure(str(again / name))
            assert kept.box == made.box
            assert np.mean(kept.image != made.image) < 1e-3
            np.testing.assert_array_equal(kept.mask, made.mask)
            np.testing.assert_allclose(kept.variance, made.variance, rtol=1e-3)


@pytest.mark.parametrize("band", BANDS)
def test_coadd_noise_is_its_variance_plane(demo: Path, compare: ModuleType, band: str) -> None:
    """rms of (coadd - truth) / sqrt(VARIANCE) is 1 within 2 %, over all pixels."""
    pull = compare.pulls(demo / f"coadd_{band}.fits", compare.read_truth(TRUTH))
    assert pull.size > 0.999 * 320 * 320
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1, abs=0.02)
    assert abs(pull.mean()) < 0.02


def test_flux_of_blended_sources(demo: Path, compare: ModuleType) -> None:
    """Against their own light in the same footprint: median 8 %, 90th percentile 35 %."""
    truth = compare.read_truth(TRUTH)
    error = np.concatenate([
        np.abs(shared.error[shared.judged(20)])
        for shared in (compare.shared_flux(demo, band, truth) for band in BANDS)
    ])  # fmt: skip
    assert len(error) > 100
    middle, tail = np.percentile(error, [50, 90])
    assert middle <= 0.08
    assert tail <= 0.35


@pytest.mark.parametrize("band", BANDS)
def test_light_is_conserved(demo: Path, band: str) -> None:
    """In every parent the fluxes of its objects, and the pixels of their footprints, add up to
    the image inside its footprint, to 1e-6 of the sum of absolute values."""
    models = read_models(str(demo / "deblended.fits"))
    exposure = read_exposure(str(demo / f"coadd_{band}.fits"))
    objects = table(demo / "footprints.fits", "OBJECTS")
    heavy = read_heavy(str(demo / f"heavy_{band}.fits"))
    with open_fits(str(demo / f"heavy_{band}.fits")) as file:
        step = float(file.header("FLUX")["BSCALE"])
    ends = np.concatenate([[0], np.cumsum(heavy.footprints.areas)])
    pixels = np.array([heavy.light[a:b].sum() for a, b in pairwise(ends)])
    for row, parent in enumerate(models.parents):
        footprint = models.footprints.mask(row, exposure.box)
        inside = exposure.image[footprint].astype(np.float64)
        tolerance = 1e-6 * np.abs(inside).sum()
        shared = objects[f"flux_{band}"][objects["parent"] == parent["id"]].sum()
        assert shared == pytest.approx(inside.sum(), abs=tolerance)
        own = heavy.table["parent"] == parent["id"]
        tolerance += 0.5 * step * np.count_nonzero(own)  # rounding of each stored footprint
        assert pixels[own].sum() == pytest.approx(inside.sum(), abs=tolerance)


def test_every_peak_is_an_object(demo: Path) -> None:
    peaks = table(demo / "merged.fits", "PEAKS")
    objects = table(demo / "footprints.fits", "OBJECTS")
    np.testing.assert_array_equal(np.sort(peaks["id"]), np.sort(objects["peak_id"]))


def test_matched_coadds_share_a_psf(demo: Path) -> None:
    """The stamps of all bands agree to 1 % of the peak, though those of the coadds do not."""
    for name, agree in (("matched", True), ("coadd", False)):
        stamps = [read_exposure(str(demo / f"{name}_{b}.fits")).psf.at(160, 160) for b in BANDS]
        side = min(len(s) for s in stamps)
        cut = [s[len(s) // 2 - side // 2 :][:side, len(s) // 2 - side // 2 :][:, :side]
               for s in stamps]  # fmt: skip
        spread = np.ptp(cut, axis=0).max() / cut[0].max()
        assert (spread < 0.01) == agree, (name, spread)


def test_same_bytes_for_any_number_of_workers(
    demo: Path, make_chain: Callable[..., None], tmp_path: Path
) -> None:
    """A second run, with two workers in every step that has any, writes the same files."""
    again = tmp_path / "out"
    make_chain(again, "OPTIONS=-q --jobs 2")
    names = sorted(p.name for p in demo.glob("*.fits"))
    assert names == sorted(p.name for p in again.glob("*.fits"))
    different = [n for n in names if (demo / n).read_bytes() != (again / n).read_bytes()]
    assert different == []


def test_all_files_are_whole(demo: Path) -> None:
    assert run(["verify", *map(str, sorted(demo.glob("*.fits")))]) == 0


def test_clipping_finds_what_the_masks_do_not_show(tmp_path: Path, compare: ModuleType) -> None:
    """Cosmic rays and a trail left in the exposures are gone from a clipped mean of five."""
    options = ["--size", "160", "--blends", "2", "--singles", "4", "--set", "dither=0"]
    sky = str(tmp_path / "sky")
    assert (
        run(["simulate", sky, *options, "--set", "mask_artifacts=false", "--bands", "r", "-q"])
        == 0
    )
    warps = [f"{sky}/warp_r_{epoch}.fits" for epoch in range(5)]
    left = {}
    for statistic in ("mean", "meanclip"):
        coadd = tmp_path / f"{statistic}.fits"
        common = ["-o", str(coadd), "--unit", "nJy", "-q"]
        assert run(["assemble-coadd", *warps, "--statistic", statistic, *common]) == 0
        pull = compare.pulls(coadd, compare.read_truth(f"{sky}/truth.fits"))
        left[statistic] = np.mean(np.abs(pull) > 6)
    clipped = read_exposure(str(tmp_path / "meanclip.fits")).mask & STANDARD.value(["CLIPPED"])
    assert left["mean"] > 0.01
    assert left["meanclip"] < 0.03 * left["mean"]
    assert np.mean(clipped != 0) > left["mean"]
