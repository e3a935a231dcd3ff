"""Simulated blends for the tests of the fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.signal import fftconvolve

from coblend.core.box import Box
from coblend.core.deblend.batch import Batch, CutOuts
from coblend.core.deblend.report import BlendResult
from coblend.core.kernels import difference_kernel, model_psf
from coblend.core.simulate.profiles import (
    DISK_NU,
    STAMP_SIDE,
    moffat_transfer,
    spergel_transform,
    stamps,
)

SIDE = 41


@dataclass(frozen=True)
class Scene:
    """One blend in units of the noise.

    Parameters
    ----------
    batch : Batch
    truth : array, shape (n_source, n_band, ny, nx)
        Noise-free light of every source.
    flux : array, shape (n_source, n_band)
    """

    batch: Batch
    truth: np.ndarray
    flux: np.ndarray

    def again(self, n: int, seed: int) -> Scene:
        """Return the same sources n times in one batch, with new noise each time."""
        one = self.batch
        rng = np.random.default_rng(seed)
        clean = self.truth.sum(0) / one.sigma[:, None, None]
        data = (clean + rng.normal(size=(n, *clean.shape))).astype(np.float32)
        whole = np.ones((n, *clean.shape[1:]), bool)
        cut = CutOuts(np.arange(n), data, np.ones_like(data), whole)
        batch = Batch(
            np.arange(n), one.boxes * n, (cut,), one.psfs, np.zeros(n, np.int64),
            np.repeat(np.arange(n), len(one.y)), np.tile(one.y, n), np.tile(one.x, n), one.sigma,
        )  # fmt: skip
        return Scene(batch, self.truth, self.flux)

    def redistributed(self, result: BlendResult) -> np.ndarray:
        """Light of the image shared in proportion to the models behind non-negative kernels.

        Returns
        -------
        array, shape (n_source, n_band, ny, nx)
        """
        batch = self.batch
        kernels = np.maximum(difference_kernel(batch.psfs[0], model_psf()), 0)
        shares = np.zeros(self.truth.shape)
        for k, spectrum, morph, box in zip(
            result.source, result.spectra, result.morphs, result.boxes, strict=True
        ):
            y, x = box[0] - batch.boxes[0].y0, box[1] - batch.boxes[0].x0
            plane = np.zeros(self.truth.shape[2:])
            plane[y : y + box[2], x : x + box[3]] = morph
            for b, kernel in enumerate(kernels):
                shares[k, b] += spectrum[b] * np.maximum(fftconvolve(plane, kernel, "same"), 0)
        shares /= np.maximum(shares.sum(0), 1e-30)
        image = batch.cuts[0].data[result.parent if len(batch) > 1 else 0]
        return shares * image[:, : shares.shape[2], : shares.shape[3]]


Scenery = Callable[..., Scene]


@pytest.fixture(scope="session")
def scenery() -> Scenery:
    """Function that makes a `Scene`: positions, fluxes (per band), radii (0: star), seeing."""
    return make_scene


def make_scene(
    positions: Sequence[tuple[float, float]],
    fluxes: np.ndarray,
    radii: Sequence[float] = (),
    *,
    seeing: Sequence[float] = (4.2, 4.2, 4.2),
    shape: tuple[int, int] = (50, 50),
    seed: int | None = 1,
    scale: float = 1.0,
) -> Scene:
    """Simulate one blend whose footprint is the whole frame; noise of 1 (times ``scale``)."""
    flux = np.asarray(fluxes, float)
    n_band = len(seeing)
    truth = np.zeros((len(positions), n_band, *shape))
    transfers = [moffat_transfer(fwhm, 3.0) for fwhm in seeing]
    for k, (y, x) in enumerate(positions):
        radius = radii[k] if len(radii) else 0.0
        profile = spergel_transform(DISK_NU, radius, 1.0, 0.0) if radius else 1.0
        for b, transfer in enumerate(transfers):
            cy, cx = round(y), round(x)
            image = flux[k, b] * stamps(profile * transfer, y - cy, x - cx)
            half = STAMP_SIDE // 2
            for row in range(shape[0]):
                at = row - cy + half
                if 0 <= at < image.shape[0]:
                    low, high = max(0, cx - half), min(shape[1], cx - half + image.shape[1])
                    truth[k, b, row, low:high] = image[at, low - cx + half : high - cx + half]
    noise = 0.0 if seed is None else np.random.default_rng(seed).normal(size=truth.shape[1:])
    data = (truth.sum(0) + noise)[None].astype(np.float32)
    psfs = np.stack([_stamp(transfer) for transfer in transfers])[None].astype(np.float32)
    peaks = np.rint(np.asarray(positions)).astype(np.int64)
    cut = CutOuts(np.zeros(1, np.int64), data, np.ones_like(data), np.ones((1, *shape), bool))
    batch = Batch(
        np.zeros(1, np.int64), (Box(0, 0, *shape),), (cut,), psfs, np.zeros(1, np.int64),
        np.zeros(len(peaks), np.int64), peaks[:, 0], peaks[:, 1], np.full(n_band, scale),
    )  # fmt: skip
    return Scene(batch, truth * scale, flux * scale)


def _stamp(transfer: np.ndarray) -> np.ndarray:
    image = stamps(transfer, 0.0, 0.0)
    middle, half = STAMP_SIDE // 2, SIDE // 2
    cut = image[middle - half : middle + half + 1, middle - half : middle + half + 1]
    return cut / cut.sum()
