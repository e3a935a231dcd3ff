"""Images of known point sources for the detection tests."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.exposure import Exposure


def point_sources(shape, sigma, sources, half=30):
    """Sum of sampled Gaussians; ``sources`` holds (y, x, flux)."""
    padded = np.zeros((shape[0] + 2 * half, shape[1] + 2 * half))
    offset = np.arange(-half, half + 1)
    for y, x, flux in sources:
        iy, ix = round(y), round(x)
        down = np.exp(-0.5 * ((offset + iy - y) / sigma) ** 2)
        along = np.exp(-0.5 * ((offset + ix - x) / sigma) ** 2)
        stamp = flux * np.outer(down, along) / (2 * np.pi * sigma**2)
        padded[iy : iy + 2 * half + 1, ix : ix + 2 * half + 1] += stamp
    return padded[half:-half, half:-half]


def make_exposure(image, variance=1.0, mask=None, origin=(0, 0), band="g"):
    image = np.asarray(image, np.float32)
    plane = np.broadcast_to(np.float32(variance), image.shape).copy()
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    return Exposure(image, mask, plane, Box(*origin, *image.shape), band=band)


@pytest.fixture
def stars():
    return point_sources


@pytest.fixture
def exposure_of():
    return make_exposure
