"""Fixtures for all tests: the shared data, exposures and files with one named defect."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # as the program does, before numpy loads

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from coblend.core.box import Box  # noqa: E402
from coblend.core.exposure import Exposure  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

WCS_CARDS = tuple(
    card.ljust(80)
    for card in (
        "WCSAXES =                    2",
        "CRPIX1  =                 20.5 / Pixel coordinate of reference point",
        "CRPIX2  =                 15.5 / Pixel coordinate of reference point",
        "CDELT1  =               -5E-05 / [deg] Coordinate increment at reference point",
        "CDELT2  =                5E-05 / [deg] Coordinate increment at reference point",
        "CUNIT1  = 'deg'",
        "CUNIT2  = 'deg'",
        "CTYPE1  = 'RA---TAN'",
        "CTYPE2  = 'DEC--TAN'",
        "CRVAL1  =   150.10000000000001",
        "CRVAL2  =                  2.2",
        "RADESYS = 'ICRS'",
    )
)


@pytest.fixture(autouse=True)
def _fresh_log() -> Iterator[None]:
    """Forget how an earlier run of the program set up the log."""
    yield
    log = logging.getLogger("coblend")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.propagate = True


@pytest.fixture(autouse=True)
def _reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file a test writes is dated 1970, and no outer option leaks in."""
    for name in list(os.environ):
        if name.startswith("COBLEND_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261120)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real and simulated data beside the repository; tests that need it skip without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data beside the repository is absent")
    return folder


@pytest.fixture(scope="session")
def scenes() -> ModuleType:
    """The module `model_scenes`: made-up deblended models and exposures of them."""
    return _module("model_scenes")


@pytest.fixture(scope="session")
def fields() -> ModuleType:
    """The module `deblend_scenes`: made-up fields of stars with their detections."""
    return _module("deblend_scenes")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wcs_cards() -> tuple[str, ...]:
    """A plain TAN WCS as 80-character cards."""
    return WCS_CARDS


def gaussian_stamp(sigma: float, side: int) -> np.ndarray:
    """A sampled Gaussian of sum 1."""
    r = np.arange(side) - side // 2
    profile = np.exp(-0.5 * (r / sigma) ** 2)
    stamp = np.outer(profile, profile)
    return stamp / stamp.sum()


@pytest.fixture
def exposure(rng: np.random.Generator) -> Exposure:
    """An exposure of 40 x 30 pixels at origin (y0, x0) = (200, 100) with every kind of pixel."""
    from coblend.core.psf.stamp import StampPsf

    image = rng.normal(size=(30, 40)).astype(np.float32)
    mask = np.zeros((30, 40), np.int32)
    mask[3, 4] = 1 << 1
    mask[5, :] |= 1 << 5
    variance = rng.uniform(0.5, 2, size=(30, 40)).astype(np.float32)
    image[7, 8], variance[7, 8], mask[7, 8] = 0.0, np.inf, 1 << 8
    return Exposure(
        image=image,
        mask=mask,
        variance=variance,
        box=Box(200, 100, 30, 40),
        band="r",
        unit="nJy",
        psf=StampPsf(gaussian_stamp(1.7, 21)),
        wcs=WCS_CARDS,
        meta={"MAGZERO": 31.4, "EXPTIME": 30.0, "OBSERVER": "nobody"},
    )


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an exposure to a file of ours."""
    from coblend.io.exposure.exposures import write_exposure
    from coblend.io.fits.writer import create

    def write(exposure: Exposure, name: str = "exposure.fits", **options: object) -> Path:
        path = tmp_path / name
        with create(str(path), "exposure/1", overwrite=True) as out:
            write_exposure(out, exposure, **options)  # type: ignore[arg-type]
        return path

    return write


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test inside an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
