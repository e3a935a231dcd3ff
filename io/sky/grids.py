"""Positions of pixels from one celestial grid to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import WcsMismatchError
from coblend.io.sky.wcs import pixel_to_pixel

_OUTLINE = 16  # points per side


def map_positions(
    from_cards: Sequence[str],
    from_box: Box,
    to_cards: Sequence[str],
    to_box: Box,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Parent coordinates ``(y, x)`` in the second grid of positions in the first.

    Parameters
    ----------
    from_cards, to_cards : sequence of str
        WCS, array coordinates of the boxes.
    from_box, to_box : Box
    y, x : array, equal shapes

    Returns
    -------
    array, shape (2, ...), float64
        NaN where a projection has no such point.

    Raises
    ------
    WcsMismatchError
        A grid has no celestial WCS.
    """
    if not from_cards or not to_cards:
        raise WcsMismatchError("no celestial WCS", hint="warping needs one in both files")
    there_x, there_y = pixel_to_pixel(from_cards, from_box, to_cards, to_box, x.ravel(), y.ravel())
    return np.stack([there_y.reshape(y.shape), there_x.reshape(x.shape)])


def outline(box: Box) -> NDArray[np.float64]:
    """Points around the outer border of the pixels of a box, shape (2, n), order ``(y, x)``."""
    t = np.linspace(-0.5, box.ny - 0.5, _OUTLINE, endpoint=False)
    s = np.linspace(-0.5, box.nx - 0.5, _OUTLINE, endpoint=False)
    top, right = box.ny - 0.5, box.nx - 0.5
    y = np.concatenate([np.full(_OUTLINE, -0.5), t, np.full(_OUTLINE, top), top - 0.5 - t])
    x = np.concatenate([s, np.full(_OUTLINE, right), right - 0.5 - s, np.full(_OUTLINE, -0.5)])
    return np.stack([y + box.y0, x + box.x0])
