"""Mask planes as numbers."""

from __future__ import annotations

import numpy as np

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.mask import PLANES
from coblend.core.show.planes import plane_image


def made(mask: np.ndarray) -> Exposure:
    plane = np.ones(mask.shape, np.float32)
    return Exposure(plane, mask, plane, Box(0, 0, *mask.shape))


def test_rare_planes_cover_common_ones() -> None:
    mask = np.zeros((2, 5), np.int32)
    mask[0] = 1 << PLANES["EDGE"]
    mask[0, 0] |= 1 << PLANES["SAT"]
    image, planes = plane_image(made(mask))
    assert planes == [("EDGE", 0.5), ("SAT", 0.1)]
    assert image.tolist() == [[2, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_nothing_is_set() -> None:
    image, planes = plane_image(made(np.zeros((2, 5), np.int32)))
    assert not image.any()
    assert planes == []
