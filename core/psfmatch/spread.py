"""Growth of mask planes by the radius over which a kernel matters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def significant_radius(kernels: NDArray[np.float64], threshold: float) -> int:
    """Largest row or column distance at which ``|K| >= threshold max |K|`` in any kernel.

    Parameters
    ----------
    kernels : array, shape (n, side, side)
    threshold : float
    """
    size = np.abs(kernels)
    large = (size >= threshold * size.max(axis=(1, 2), keepdims=True)).any(axis=0)
    middle = kernels.shape[-1] // 2
    return int(np.abs(np.argwhere(large) - middle).max(initial=0))


def grow_mask(mask: NDArray[np.int32], radius: int) -> NDArray[np.int32]:
    """OR of the mask over squares of side ``2 radius + 1``: all planes at once.

    The window doubles: ``2 ceil(log2(2 r + 1))`` passes.

    Parameters
    ----------
    mask : array, shape (ny, nx), int32
    radius : int
    """
    if not radius or not mask.any():
        return mask
    for axis in (0, 1):
        mask = _grow_rows(mask.swapaxes(0, axis), radius).swapaxes(0, axis)
    return np.ascontiguousarray(mask)


def _grow_rows(mask: NDArray[np.int32], radius: int) -> NDArray[np.int32]:
    length = 2 * radius + 1
    out = np.pad(mask, ((radius, radius), (0, 0)))
    reached = 1
    while reached < length:  # out[i] holds the OR over rows i ... i + reached - 1
        shift = min(reached, length - reached)
        out[:-shift] |= out[shift:].copy()
        reached += shift
    return out[: mask.shape[0]]
