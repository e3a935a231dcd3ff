"""Weight of an input: one over the clipped mean of its variance plane.

With one weight per input the coadd without clipping is linear in the images, so its PSF is
exactly the weighted mean of the inputs' PSFs (Mandelbaum et al. 2022, arXiv:2209.09253).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.clip import IQR_TO_SIGMA

_SAMPLE = 1 << 16
_BLOCKS = 32


def clipped_mean(values: NDArray[np.floating], sigma_clip: float, clip_iter: int) -> float:
    """Mean of the values inside the clip window of `coblend.core.coadd.clip`.

    Parameters
    ----------
    values : array, shape (n,)
        Finite.
    sigma_clip : float
    clip_iter : int

    Returns
    -------
    float
        NaN for no values.
    """
    if not values.size:
        return float("nan")
    lower, centre, upper = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    half = sigma_clip * IQR_TO_SIGMA * (upper - lower)
    for _ in range(clip_iter):
        inside = values[np.abs(values - values.dtype.type(centre)) <= half].astype(np.float64)
        centre = float(np.mean(inside))
        half = sigma_clip * float(np.std(inside, ddof=1)) if inside.size > 1 else 0.0
    return float(centre)


def usable_variance(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    variance: NDArray[np.float32],
    bad: int,
) -> NDArray[np.float32]:
    """Variances of the pixels that are finite, positive and without a bad bit, shape (n,).

    Parameters
    ----------
    image, mask, variance : array, equal shapes
    bad : int
        Bits that exclude a pixel.
    """
    usable = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    if mask is not None:
        usable &= (mask & np.int32(bad)) == 0
    return variance[usable]


def sample_boxes(box: Box, tile: int = 1) -> list[Box]:
    """Blocks of whole rows, evenly spread over ``box``, that stand for all its pixels.

    They hold 65536 pixels, or three tiles if that is more. Variance planes vary
    slowly, so the mean over the blocks differs by less than 0.1 % from that of all pixels.

    Parameters
    ----------
    box : Box
    tile : int
        Rows that are read together.
    """
    rows = max(_SAMPLE // (box.nx * _BLOCKS), tile)
    n = max(min(_BLOCKS, _SAMPLE // (rows * box.nx)), 3)
    if n * rows >= box.ny:
        return [box]
    starts = np.linspace(0, box.ny - rows, n).astype(int)
    starts -= starts % tile
    return [Box(box.y0 + int(y), box.x0, rows, box.nx) for y in starts]
