"""Warps for the tests of the stack."""

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.samples import WarpPart


@pytest.fixture
def make_warp():
    """Make a WarpPart from arrays or scalars."""

    def make(
        index, image, *, variance=1.0, mask=0, weight=1.0, scale=1.0, shape=(1, 1), origin=(0, 0)
    ):
        planes = [
            np.array(np.broadcast_to(plane, shape), dtype)
            for plane, dtype in ((image, np.float32), (mask, np.int32), (variance, np.float32))
        ]
        box = Box(*origin, *planes[0].shape)
        return WarpPart(index, box, *planes, weight, scale)

    return make


@pytest.fixture
def make_pixel(make_warp):
    """Make the warps of a single pixel from lists of samples."""

    def make(values, *, variances=None, weights=None, masks=None):
        n = len(values)
        return [
            make_warp(
                i,
                values[i],
                variance=(variances or [1.0] * n)[i],
                weight=float((weights or [1.0] * n)[i]),
                mask=(masks or [0] * n)[i],
            )
            for i in range(n)
        ]

    return make


@pytest.fixture
def random_warps(make_warp):
    """Warps of noise with masked, unflagged-NaN and outlying samples, covering partly."""

    def make(n=7, shape=(40, 50), seed=3):
        rng = np.random.default_rng(seed)
        warps = []
        for i in range(n):
            y0, x0 = (0, 0) if i % 3 else (rng.integers(0, 9), rng.integers(0, 9))
            ny, nx = shape[0] - y0 - (i % 2) * 5, shape[1] - x0
            image = rng.normal(10, 2, (ny, nx)).astype(np.float32)
            image[rng.random((ny, nx)) < 0.02] = np.nan
            image[rng.random((ny, nx)) < 0.03] += 60
            variance = rng.uniform(3, 5, (ny, nx)).astype(np.float32)
            variance[rng.random((ny, nx)) < 0.01] = -1
            bits = np.array([0, 0, 0, 0, 0, 0, 1, 2, 16, 32, 256])
            mask = rng.choice(bits, (ny, nx)).astype(np.int32)
            warps.append(
                make_warp(
                    i, image, variance=variance, mask=mask, weight=float(rng.uniform(0.2, 1)),
                    shape=(ny, nx), origin=(int(y0), int(x0)),
                )
            )  # fmt: skip
        return warps, Box(0, 0, *shape)

    return make
