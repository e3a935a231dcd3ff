"""Templates of objects in one band: symmetric about their peak, smooth and monotonic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.monotonic import project

_MEDIAN = 2
"""Half side of the median filter (pixel)."""
_BRIGHT_EDGE = 3.0
"""Templates brighter than this at the border are continued beyond it (units of the noise)."""


def symmetric_template(
    image: Floats, footprint: NDArray[np.bool_], y: int, x: int
) -> NDArray[np.float64]:
    """Smaller of each pixel and its reflection about a peak, not below 0.

    Parameters
    ----------
    image : array, shape (ny, nx)
    footprint : array, shape (ny, nx), bool
        Pixels without a partner in it are 0.
    y, x : int
        The peak.
    """
    ny, nx = image.shape
    rows, columns = 2 * y - np.arange(ny), 2 * x - np.arange(nx)
    inside = ((rows >= 0) & (rows < ny))[:, None] & ((columns >= 0) & (columns < nx))
    mirror = np.ix_(np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1))
    both = footprint & inside & footprint[mirror]
    return np.where(both, np.maximum(np.minimum(image, image[mirror]), 0), 0).astype(np.float64)


def ramped_template(
    image: Floats,
    footprint: NDArray[np.bool_],
    template: NDArray[np.float64],
    psf: Floats,
    reach: int,
    y: int,
    x: int,
) -> NDArray[np.float64]:
    """Rebuild a template whose border is bright, with the light continued by the PSF's fall.

    The reflection of a source at the border of a parent is cut where the parent ends; instead,
    pixels outside get the largest of the PSFs that pass through the template's border pixels.
    """
    border = template * _border(footprint)
    if border.max(initial=0) < _BRIGHT_EDGE:
        return template
    ny, nx = image.shape
    wide = np.pad(np.where(footprint, image, 0).astype(np.float64), reach)
    half = min(reach, psf.shape[-1] // 2)
    middle = psf.shape[-1] // 2
    fall = psf[middle - half : middle + half + 1, middle - half : middle + half + 1]
    fall = fall / fall.max()
    beyond = np.zeros(wide.shape)
    for ey, ex in np.argwhere(border > 0):
        window = (slice(ey + reach - half, ey + reach + half + 1),
                  slice(ex + reach - half, ex + reach + half + 1))  # fmt: skip
        np.maximum(beyond[window], template[ey, ex] * fall, out=beyond[window])
    own = np.pad(footprint, reach)
    wide = np.where(own, wide, beyond)
    rebuilt = symmetric_template(wide, own | (beyond > 0), y + reach, x + reach)
    inner = rebuilt[reach : reach + ny, reach : reach + nx]
    return np.where(footprint, np.minimum(inner, np.maximum(image, 0)), 0)


def patched_template(
    image: Floats,
    footprint: NDArray[np.bool_],
    template: NDArray[np.float64],
    y: int,
    x: int,
) -> NDArray[np.float64]:
    """Give pixels whose reflection lies outside the parent's box their own value."""
    ny, nx = image.shape
    rows, columns = 2 * y - np.arange(ny), 2 * x - np.arange(nx)
    inside = ((rows >= 0) & (rows < ny))[:, None] & ((columns >= 0) & (columns < nx))
    return np.where(footprint & ~inside, np.maximum(image, 0), template)


def _border(footprint: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a footprint beside one that is not."""
    return np.asarray(footprint & ~ndimage.binary_erosion(footprint), bool)


def smoothed(template: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median over 5x5 pixels; the outer two pixels and small templates stay."""
    if min(template.shape) < 2 * _MEDIAN + 1:
        return template
    out = template.copy()
    inner = (slice(_MEDIAN, -_MEDIAN),) * 2
    out[inner] = ndimage.median_filter(template, 2 * _MEDIAN + 1)[inner]
    return out


def monotonic(template: NDArray[np.float64], y: int, x: int) -> NDArray[np.float64]:
    """Let a template fall off monotonically from its peak, as `monotonic.project`."""
    ny, nx = template.shape
    radius = max(y, x, ny - 1 - y, nx - 1 - x, 1)
    stamp = np.zeros((1, 2 * radius + 1, 2 * radius + 1))
    outside = np.ones(stamp.shape, bool)
    place = (0, slice(radius - y, radius - y + ny), slice(radius - x, radius - x + nx))
    stamp[place], outside[place] = template, False
    return np.asarray(project(stamp, outside)[place], np.float64)


def apportion(image: Floats, templates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share the light of every pixel in proportion to the templates.

    Parameters
    ----------
    image : array, shape (ny, nx)
    templates : array, shape (n, ny, nx)

    Returns
    -------
    array, shape (n, ny, nx), float64
        Adds up to the image wherever a template is positive; 0 elsewhere.
    """
    positive = np.maximum(templates, 0)
    total = positive.sum(0)
    share = np.divide(positive, total, out=np.zeros(positive.shape), where=total > 0)
    return np.asarray(share * image, np.float64)
