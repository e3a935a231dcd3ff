"""The footprints and peaks of several bands as one list, most trusted band first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.detection import Detections


@dataclass(frozen=True, slots=True, eq=False)
class FootprintLists:
    """All bands in priority order; inside a band in catalogue order.

    Parameters
    ----------
    n_band, n_footprint : int
    spans : array, shape (n_span, 3), int32
        Parent coordinates; disjoint inside a band.
    span_owner : array, shape (n_span,), int64
        Footprint of each span.
    footprint_band : array, shape (n_footprint,), int64
        Ascending.
    y, x : array, shape (n_peak,)
        Peak positions, integer or sub-pixel.
    peak_owner : array, shape (n_peak,), int64
        Footprint of each peak, ascending.
    """

    n_band: int
    n_footprint: int
    spans: NDArray[np.int32]
    span_owner: NDArray[np.int64]
    footprint_band: NDArray[np.int64]
    y: NDArray[Any]
    x: NDArray[Any]
    peak_owner: NDArray[np.int64]

    @property
    def peak_band(self) -> NDArray[np.int64]:
        """Band of each peak."""
        return self.footprint_band[self.peak_owner]

    @classmethod
    def of(cls, catalogues: Sequence[Detections], subpixel: bool = False) -> FootprintLists:
        """Concatenate catalogues given in priority order."""
        counts = [len(c.parents) for c in catalogues]
        first = np.cumsum([0, *counts])
        columns = ("y", "x") if subpixel else ("iy", "ix")
        kind = np.float64 if subpixel else np.int64
        y, x = (
            np.concatenate([np.empty(0, kind), *(c.peaks[name] for c in catalogues)])
            for name in columns
        )
        return cls(
            len(catalogues),
            int(first[-1]),
            np.concatenate(
                [np.empty((0, 3), np.int32), *(c.footprints.spans for c in catalogues)]
            ),
            _joined([c.footprints.owner + f for c, f in zip(catalogues, first, strict=False)]),
            np.repeat(np.arange(len(catalogues)), counts),
            y,
            x,
            _joined(
                [
                    np.repeat(np.arange(n) + f, c.parents["npeak"])
                    for c, n, f in zip(catalogues, counts, first, strict=False)
                ]
            ),
        )


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *parts])
