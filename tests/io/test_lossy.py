"""Exposures stored with less precision: what is lost, and what never is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.io.exposure.exposures import read_exposure
from coblend.io.exposure.lossy import rounding_step
from coblend.io.fits.structure import scan
from coblend.io.fits.summary import verify

SIDE = 720


@pytest.fixture
def noisy(rng: np.random.Generator) -> Exposure:
    """Noise of 3 that grows by a fifth to the right, a bright source, zeros, no data."""
    sigma = np.linspace(3.0, 3.6, SIDE) * np.ones((SIDE, 1))
    image = (rng.normal(size=(SIDE, SIDE)) * sigma).astype(np.float32)
    y, x = np.indices(image.shape)
    image += (3e5 * np.exp(-0.5 * ((y - 300) ** 2 + (x - 400) ** 2) / 9)).astype(np.float32)
    variance = (sigma**2).astype(np.float32)
    image[::50, ::70] = 0.0
    image[600:, :200], variance[600:, :200] = 0.0, np.inf
    mask = np.where(np.isfinite(variance), 0, 1 << 8).astype(np.int32)
    return Exposure(image, mask, variance, Box(0, 0, SIDE, SIDE), band="i", unit="nJy")


def test_lossy_exposures(noisy: Exposure, write_file: Callable[..., Path]) -> None:
    """Acceptance 15, against the noise: 0.035 a pixel, 1e-4 in the mean; zeros and NaN stay."""
    path = write_file(noisy, compress="lossy")
    back = read_exposure(str(path))
    with fits.open(path) as hdus:
        stored = hdus["IMAGE"].data
        assert hdus["IMAGE"].header["BUNIT"] == "nJy"
    good = np.isfinite(noisy.variance)
    error = (back.image - noisy.image)[good] / np.sqrt(noisy.variance[good])
    assert np.abs(error).max() <= 0.035
    assert abs(error.mean(dtype=float)) < 1e-4
    assert np.array_equal(back.image == 0, noisy.image == 0)
    assert np.array_equal(np.isnan(stored), ~good)
    assert np.array_equal(stored[good], back.image[good])  # astropy subtracts the same dither
    np.testing.assert_allclose(back.variance[good], noisy.variance[good], rtol=5e-4)
    assert np.array_equal(back.mask, noisy.mask)
    assert verify(str(path)) == []


def test_lossy_exposures_are_small(noisy: Exposure, write_file: Callable[..., Path]) -> None:
    sizes = {}
    for compress in ("none", "auto", "lossy"):
        path = write_file(noisy, f"{compress}.fits", compress=compress)
        sizes[compress] = sum(h.end - h.start for h in scan(str(path))[1:4])
    assert sizes["none"] > 9 * sizes["lossy"]
    assert sizes["auto"] > 3 * sizes["lossy"]


def test_the_same_pixels_give_the_same_bytes(
    noisy: Exposure, write_file: Callable[..., Path]
) -> None:
    paths = [write_file(noisy, name, compress="lossy") for name in ("a.fits", "b.fits")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("kind", ["constant", "empty", "too bright"])
def test_what_cannot_be_rounded_is_stored_as_it_is(
    noisy: Exposure, write_file: Callable[..., Path], kind: str
) -> None:
    """An image without noise, without data, or with pixels 10^9 times the noise."""
    image, variance = noisy.image.copy(), noisy.variance.copy()
    if kind == "constant":
        image[:], variance[:] = 3.25, 1e-20
    elif kind == "empty":
        image[:], variance[:] = 0.0, np.inf
    else:
        image[0, 0] = 1e10
    exposure = replace(noisy, image=image, variance=variance)
    assert rounding_step(image, variance) is None
    path = write_file(exposure, compress="lossy")
    back = read_exposure(str(path), allow_empty=True)
    assert np.array_equal(back.image, image)
