"""Mask planes as one image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.exposure import Exposure


def plane_image(exposure: Exposure) -> tuple[NDArray[np.int64], list[tuple[str, float]]]:
    """Paint the planes that are set by number, common ones first.

    Returns
    -------
    image : array, shape (ny, nx), int64
        Number of the rarest plane of every pixel, from 1; 0 without any.
    planes : list of (str, float)
        Name of each plane and the part of all pixels that have it.
    """
    bits = {name: (exposure.mask >> b) & 1 == 1 for name, b in exposure.planes.bits.items()}
    found = sorted(((m.mean(), name) for name, m in bits.items() if m.any()), reverse=True)
    image = np.zeros(exposure.image.shape, np.int64)
    for number, (_, name) in enumerate(found, 1):
        image[bits[name]] = number
    return image, [(name, float(share)) for share, name in found]
