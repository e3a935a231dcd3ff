"""Real images: a Hyper Suprime-Cam COSMOS cut-out with seven sources in five bands.

The likelihood is computed here from the residual images and the input's own planes, so that it
judges what `reconstruct-footprints` renders, not what `deblend` believes of its fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.cli.main import run
from coblend.io.deblend.models import read_models
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits

BANDS = "grizy"
MOST = 9000.0
"""Half the weighted sum of squared residuals over the five bands; the peer's fit stops at 8642."""

pytestmark = pytest.mark.slow


def call(*arguments: object) -> None:
    assert run([*map(str, arguments), "-q"]) == 0


@pytest.fixture(scope="module")
def images(shared_data: Path) -> list[str]:
    return [f"{band}={shared_data / 'hsc_cosmos_35' / f'{band}.fits'}" for band in BANDS]


@pytest.fixture(scope="module")
def from_peaks(
    shared_data: Path, images: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Deblended from the peak list that comes with the images, the whole cut-out one parent."""
    folder = tmp_path_factory.mktemp("peaks")
    data = shared_data / "hsc_cosmos_35"
    call(
        "merge-detections", f"i={data / 'peaks.fits'}", "--like", data / "i.fits",
        "--footprint-radius", 100, "--sky-objects", 0, "-o", folder / "merged.fits",
    )  # fmt: skip
    call("deblend", folder / "merged.fits", *images, "-o", folder / "deblended.fits")
    reconstruct(folder, images)
    return folder


@pytest.fixture(scope="module")
def from_detect(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deblended from our own detections."""
    folder = tmp_path_factory.mktemp("detect")
    for band, image in zip(BANDS, images, strict=True):
        call("detect", image, "-o", folder / f"det_{band}.fits")
    dets = [folder / f"det_{band}.fits" for band in "irzyg"]
    call("merge-detections", *dets, "-o", folder / "merged.fits")
    call("deblend", folder / "merged.fits", *images, "-o", folder / "deblended.fits")
    reconstruct(folder, images)
    return folder


def reconstruct(folder: Path, images: list[str]) -> None:
    call(
        "reconstruct-footprints", folder / "deblended.fits", *images,
        "-o", folder / "footprints.fits", "--residual", folder / "residual_{band}.fits",
    )  # fmt: skip


def half_chi_square(folder: Path, shared_data: Path) -> float:
    total = 0.0
    for band in BANDS:
        residual = read_exposure(str(folder / f"residual_{band}.fits"))
        original = read_exposure(str(shared_data / "hsc_cosmos_35" / f"{band}.fits"))
        np.testing.assert_array_equal(residual.variance, original.variance)
        pull = residual.image.astype(np.float64) ** 2 / original.variance
        assert pull.size == 58 * 48
        total += 0.5 * pull.sum()
    return total


def test_fit_from_the_given_peaks(from_peaks: Path, shared_data: Path) -> None:
    models = read_models(str(from_peaks / "deblended.fits"))
    assert len(models.objects) == 7
    assert set(models.bands) == set(BANDS)
    assert half_chi_square(from_peaks, shared_data) <= MOST


def test_fit_from_our_own_detections(from_detect: Path, shared_data: Path) -> None:
    models = read_models(str(from_detect / "deblended.fits"))
    assert len(models.objects) >= 5
    assert half_chi_square(from_detect, shared_data) <= MOST


@pytest.mark.parametrize("route", ["from_peaks", "from_detect"])
def test_light_is_conserved(route: str, shared_data: Path, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(route)
    models = read_models(str(folder / "deblended.fits"))
    with open_fits(str(folder / "footprints.fits")) as file:
        objects: Any = file.table("OBJECTS")
    for band in BANDS:
        original = read_exposure(str(shared_data / "hsc_cosmos_35" / f"{band}.fits"))
        for row, parent in enumerate(models.parents):
            inside = original.image[models.footprints.mask(row, original.box)].astype(float)
            shared = objects[f"flux_{band}"][objects["parent"] == parent["id"]].sum()
            assert shared == pytest.approx(inside.sum(), abs=1e-6 * np.abs(inside).sum())


def test_own_detections_find_the_known_sources(from_detect: Path, shared_data: Path) -> None:
    """All but at most two of the seven peaks lie within 2 pixels of an object of ours."""
    with open_fits(str(shared_data / "hsc_cosmos_35" / "peaks.fits")) as file:
        peaks = file.table(1)
    objects = read_models(str(from_detect / "deblended.fits")).objects
    distance = np.hypot(
        peaks["x"][:, None] - objects["x"], peaks["y"][:, None] - objects["y"]
    ).min(axis=1)
    assert np.count_nonzero(distance < 2) >= 5


def test_same_bytes_for_any_number_of_workers(
    from_detect: Path, images: list[str], tmp_path: Path
) -> None:
    written = []
    for jobs in ("1", "2"):
        output = tmp_path / jobs / "deblended.fits"
        call("deblend", from_detect / "merged.fits", *images, "-o", output, "-j", jobs)
        written.append(output.read_bytes())
    assert written[0] == written[1]


def test_added_source_of_the_tutorial(
    from_peaks: Path, images: list[str], shared_data: Path, tmp_path: Path
) -> None:
    """A source that the catalogue lacks: one command, and a better residual there.

    Row 52, column 12: the images are 48 pixels wide, so the pair cannot be meant as x, y.
    """
    call(
        "refit", from_peaks / "deblended.fits", *images, "-o", tmp_path / "deblended.fits",
        "--add-peaks", "12,52",
    )  # fmt: skip
    reconstruct(tmp_path, images)
    folders = from_peaks, tmp_path
    before, after = (half_chi_square(folder, shared_data) for folder in folders)
    assert after < before - 25  # what a source of 7 sigma explains
    old, new = (read_models(str(folder / "deblended.fits")) for folder in folders)
    assert new.blends["log_likelihood"][0] > old.blends["log_likelihood"][0] + 25
    (added,) = new.objects[~np.isin(new.objects["id"], old.objects["id"])]
    assert (added["ix"], added["iy"]) == (12, 52)
    assert all(added[f"model_flux_{band}"] > 0 for band in "gri")
    residuals = [read_exposure(str(folder / "residual_i.fits")) for folder in folders]
    near = [np.square(r.image[48:57, 8:17]) / r.variance[48:57, 8:17] for r in residuals]
    assert near[1].sum() < near[0].sum()
