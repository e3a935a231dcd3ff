"""The pixels to search, read a few rows at a time so that no full-size copies are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.mesh import Mesh
from coblend.core.exposure import Exposure

STRIP_ROWS = 256
"""Rows handled at once by everything but the filter: about 1 MB of flags for 4000 columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An exposure with its exclusions and backgrounds applied on reading.

    Parameters
    ----------
    exposure : Exposure
    exclude : int
        Bit mask of the planes whose pixels have weight 0.
    backgrounds : tuple of Mesh
        Models to subtract.
    """

    exposure: Exposure
    exclude: int
    backgrounds: tuple[Mesh, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.exposure.box.shape

    def good(self, rows: slice) -> NDArray[np.bool_]:
        """Pixels of these rows with a finite value, a positive variance and no excluded plane."""
        variance = self.exposure.variance[rows]
        usable = (variance > 0) & (variance < np.inf)
        usable &= np.isfinite(self.exposure.image[rows])
        if self.exclude:
            usable &= (self.exposure.mask[rows] & np.int32(self.exclude)) == 0
        return usable

    def image(self, rows: slice) -> NDArray[np.float32]:
        """Image of these rows less the backgrounds; not to be written to."""
        image = self.exposure.image[rows]
        for mesh in self.backgrounds:
            image = image - mesh.rows(np.arange(*rows.indices(self.shape[0])))
        return image

    def variance(self, rows: slice) -> NDArray[np.float32]:
        """Variance of these rows; not to be written to."""
        return self.exposure.variance[rows]

    def with_background(self, mesh: Mesh) -> Pixels:
        """Return the same pixels with one more background."""
        return Pixels(self.exposure, self.exclude, (*self.backgrounds, mesh))


def strips(n_row: int, rows: int = STRIP_ROWS) -> Iterator[slice]:
    """Cut ``n_row`` rows into slices of at most ``rows``."""
    return (slice(y, min(y + rows, n_row)) for y in range(0, n_row, rows))
