"""Surroundings of bright sources, and values of planes at pixels, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from coblend.core.coadd.artifacts import bright, reach
from coblend.core.coadd.sparse import Indices
from coblend.core.components import label_spans
from coblend.core.footprint import mask_to_spans
from coblend.core.params.coadd import CoaddParams

BLOCK = 256
"""Rows at a time."""

Rows = Callable[[str, int, int], NDArray[Any]]
"""Rows from the second to before the third argument of the plane that is named."""


@dataclass(frozen=True, slots=True)
class Regions:
    """Surroundings of bright sources: spans of flat indices, and the number of their region.

    Parameters
    ----------
    first, last, labels : array, shape (n_span,), int64
        Ends of the spans, both inside.
    """

    first: Indices
    last: Indices
    labels: Indices

    @classmethod
    def of(cls, rows: Rows, shape: tuple[int, int], sigma: float, params: CoaddParams) -> Regions:
        """Find them in the template (planes IMAGE and VARIANCE) of a PSF of width ``sigma``."""
        height, width = shape
        margin, found = reach(sigma), []
        for first in range(0, height, BLOCK):
            last = min(first + BLOCK, height)
            low, high = max(first - margin, 0), min(last + margin, height)
            image, variance = (rows(name, low, high) for name in ("IMAGE", "VARIANCE"))
            inside = bright(image, variance, sigma, params)[first - low : last - low]
            found.append(mask_to_spans(inside) + np.array([first, 0, 0], np.int32))
        spans = np.concatenate(found)
        y, left, right = spans.T.astype(np.int64)
        return cls(y * width + left, y * width + right, label_spans(spans)[0])

    def at(self, pixels: Indices) -> Indices:
        """Find the number of the region at each pixel, 0: none."""
        if not self.first.size:
            return np.zeros(pixels.size, np.int64)
        place = np.maximum(np.searchsorted(self.first, pixels, side="right") - 1, 0)
        inside = (self.first[place] <= pixels) & (pixels <= self.last[place])
        return np.where(inside, self.labels[place] + 1, 0)


def values_at(blocks: Iterable[NDArray[Any]], pixels: Indices, dtype: DTypeLike) -> NDArray[Any]:
    """Values at ascending flat indices of a plane that comes in blocks of whole rows."""
    out, first = np.empty(pixels.size, dtype), 0
    for block in blocks:
        low, high = np.searchsorted(pixels, (first, first + block.size))
        out[low:high] = block.ravel()[pixels[low:high] - first]
        first += block.size
    return out
