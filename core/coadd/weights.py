"""Weight of an input: one over the clipped mean of its variance plane.

With one weight per input the coadd without clipping is linear in the images, so its PSF is
exactly the weighted mean of the inputs' PSFs (Mandelbaum et al. 2022, arXiv:2209.09253).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.clip import IQR_TO_SIGMA
from coblend.core.coadd.samples import WarpPart

_SAMPLE = 1 << 16
_BLOCKS = 16
_TILES = 12


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


def usable_variance(part: WarpPart, bad: int) -> NDArray[np.float32]:
    """Scaled variances of the pixels that are finite, positive and without a bad bit, shape (n,).

    Parameters
    ----------
    part : WarpPart
    bad : int
        Bits that exclude a pixel.
    """
    variance = part.variance * np.square(part.scale)
    usable = np.isfinite(part.image) & np.isfinite(variance) & (variance > 0)
    if part.mask is not None:
        usable &= (part.mask & np.int32(bad)) == 0
    return np.asarray(variance[usable])


def sample_boxes(box: Box, tile: int = 1) -> list[Box]:
    """Parts spread over ``box`` that stand for all its pixels.

    16 blocks of whole rows with 65536 pixels; or, where pixels are read by square tiles, up to
    twelve of them in different rows and columns. For a variance that changes by 5 % over the
    image the mean over the parts is that of all pixels to 0.1 %.

    Parameters
    ----------
    box : Box
    tile : int
        Side of the tiles that are read together; 1: rows are.
    """
    if tile > 1:
        return _sample_tiles(box, tile)
    rows = max(_SAMPLE // (box.nx * _BLOCKS), 1)
    n = max(min(_BLOCKS, _SAMPLE // (rows * box.nx)), 3)
    if n * rows >= box.ny:
        return [box]
    starts = np.linspace(0, box.ny - rows, n).astype(int)
    return [Box(box.y0 + int(y), box.x0, rows, box.nx) for y in starts]


def _sample_tiles(box: Box, tile: int) -> list[Box]:
    """Tiles like the queens of a chess problem: about one per row and per column of tiles."""
    n_y, n_x = -(-box.ny // tile), -(-box.nx // tile)
    n = min(max(n_y, n_x), _TILES)
    if n_y * n_x <= n:
        return [box]
    stride = next(s for s in range(int(0.6 * n) + 1, 2 * n) if math.gcd(s, n) == 1)
    k = np.arange(n)
    rows = ((k + 0.5) / n * n_y).astype(int)
    columns = ((k * stride % n + 0.5) / n * n_x).astype(int)
    return [
        Box(box.y0 + int(y) * tile, box.x0 + int(x) * tile, tile, tile) & box
        for y, x in zip(rows, columns, strict=True)
    ]
