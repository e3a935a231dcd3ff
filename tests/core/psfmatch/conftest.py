"""The eight PSF pairs and the varying PSF on which the design was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.psf import AnalyticPsf
from coblend.core.psf.moments import FWHM_PER_SIGMA

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def stamp(kind: str, fwhm: float, beta: float = 3.0, e: float = 0.0, pa: float = 0.0) -> Pair:
    """A 43-px stamp sampled at the pixel centres."""
    e1, e2 = e * np.cos(2 * np.radians(pa)), e * np.sin(2 * np.radians(pa))
    return AnalyticPsf(kind, fwhm, beta, e1, e2, integrated=False, size=43).stamp()


def analytic_pairs() -> dict[str, Pair]:
    s = FWHM_PER_SIGMA
    return {
        "gaussian": (stamp("GAUSSIAN", 2.0 * s), stamp("GAUSSIAN", 2.6 * s)),
        "moffat": (stamp("MOFFAT", 3.5, 2.5), stamp("GAUSSIAN", 5.5)),
        "elliptical gaussian": (stamp("GAUSSIAN", 2.0 * s, e=0.15, pa=30),
                                stamp("GAUSSIAN", 2.5 * s)),
        "elliptical moffat": (stamp("MOFFAT", 3.5, e=0.15, pa=30), stamp("MOFFAT", 4.2)),
    }  # fmt: skip


@pytest.fixture(scope="session")
def pairs(shared_data: Path) -> dict[str, Pair]:
    """Source and target by name; the last four are real PSFs, matched to the worst seeing."""
    from coblend.io.psf.psfs import parse_psf_spec

    folder = shared_data / "hsc_cosmos_35"
    real = {band: parse_psf_spec(str(folder / f"{band}.fits")).at(0, 0) for band in "grizy"}
    return analytic_pairs() | {band: (real[band], real["g"]) for band in "rizy"}


@dataclass(frozen=True)
class VaryingMoffat:
    """Field F: a Moffat whose width and shape are quadratic in the position."""

    box: Box
    side: int = 43
    constant: bool = False

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        return self.at_many([y], [x])[0]

    def at_many(self, y: object, x: object) -> NDArray[np.float64]:
        v = 2 * (np.ravel(y) - self.box.y0 + 0.5) / self.box.ny - 1
        u = 2 * (np.ravel(x) - self.box.x0 + 0.5) / self.box.nx - 1
        fwhm = 3.4 + 0.3 * u + 0.2 * v + 0.25 * (u**2 + v**2)
        e1, e2 = 0.05 * u + 0.04 * u * v, 0.03 * v + 0.05 * u**2
        stamps = [stamp("MOFFAT", f, e=np.hypot(a, b), pa=np.degrees(np.arctan2(b, a)) / 2)
                  for f, a, b in zip(fwhm, e1, e2, strict=True)]  # fmt: skip
        return np.stack(stamps)


@pytest.fixture(scope="session")
def field_f() -> type[VaryingMoffat]:
    """Class of the varying PSF; its reference is a round Moffat of FWHM 4.7 px."""
    return VaryingMoffat


@pytest.fixture(scope="session")
def wide_moffat() -> AnalyticPsf:
    return AnalyticPsf("MOFFAT", 4.7, integrated=False, size=43)
