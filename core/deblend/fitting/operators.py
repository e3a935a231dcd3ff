"""Constraints on morphologies, on stacks of stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.monotonic import project, project_about_brightest

_TINY = 1e-20


def constrain(
    stamps: Floats,
    outside: NDArray[np.bool_] | None,
    threshold: Floats | None = None,
    *,
    closed: bool = False,
) -> tuple[Floats, Floats]:
    """Make stamps monotonic, sparse, non-negative and of maximum 1.

    Parameters
    ----------
    stamps : array, shape (k, n, n), float32 or float64
    outside : array, shape (k, n, n), bool, or None
        Pixels outside the frame; they come out 0.
    threshold : array, shape (k,), optional
        Pixels below become 0.
    closed : bool
        As the reference system: about the brightest of the central pixels, and pixels outside
        are dark instead of unknown.

    Returns
    -------
    stamps : array, shape (k, n, n), dtype of ``stamps``
    scale : array, shape (k,)
        What the stamps were divided by; multiply the spectra by it to keep the model.
    """
    stamps = (project_about_brightest if closed else project)(stamps, outside)
    if threshold is not None:
        stamps[stamps < threshold[:, None, None]] = 0
    np.maximum(stamps, 0, out=stamps)
    middle = stamps.shape[-1] // 2
    stamps[:, middle, middle] = np.maximum(stamps[:, middle, middle], _TINY)
    scale = stamps.max((1, 2))
    stamps /= scale[:, None, None]
    return stamps, scale


def reflect(image: Floats, y: int, x: int) -> Floats:
    """Smaller of each pixel and its reflection about a pixel; 0 where that lies outside.

    Parameters
    ----------
    image : array, shape (ny, nx)
    y, x : int
    """
    out = np.zeros_like(image)
    ny, nx = image.shape
    part = (
        slice(max(0, 2 * y - ny + 1), min(ny, 2 * y + 1)),
        slice(max(0, 2 * x - nx + 1), min(nx, 2 * x + 1)),
    )
    out[part] = np.minimum(image[part], image[part][::-1, ::-1])
    return out


def monotonic_mask(image: Floats, y: int, x: int, variance: float = 0.0) -> NDArray[np.bool_]:
    """Pixels that a path without rise leads to.

    Parameters
    ----------
    image : array, shape (ny, nx)
    y, x : int
        Where paths start.
    variance : float
        What a step of a path may rise at most.

    Returns
    -------
    array, shape (ny, nx), bool
        The start and all positive pixels that can be reached through edges, each at most
        ``variance`` brighter than the one before.
    """
    padded = np.pad(image, 1)
    flat, width = padded.ravel(), padded.shape[1]
    reached = np.zeros(flat.size, bool)
    front = np.array([(y + 1) * width + x + 1])
    reached[front] = True
    while front.size:
        near = front[:, None] + (-width, -1, 1, width)
        light = flat[near]
        new = (light <= flat[front, None] + variance) & (light > 0) & ~reached[near]
        front = np.unique(near[new])
        reached[front] = True
    return reached.reshape(padded.shape)[1:-1, 1:-1]
