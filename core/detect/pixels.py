"""The pixels to search, read a few rows at a time so that no full-size copies are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    usable : array, shape (ny, nx), bool
        Finite value, positive finite variance, none of the excluded planes.
    backgrounds : tuple of Mesh
        Models to subtract.
    """

    exposure: Exposure
    usable: NDArray[np.bool_]
    backgrounds: tuple[Mesh, ...] = ()

    @classmethod
    def of(cls, exposure: Exposure, exclude: Iterable[str] = ()) -> Pixels:
        """Pixels of an exposure; those of the planes ``exclude`` have weight 0."""
        bits = np.int32(exposure.planes.value(exclude))
        usable = np.empty(exposure.box.shape, bool)
        for rows in strips(len(usable)):
            variance, good = exposure.variance[rows], usable[rows]
            np.greater(variance, 0, out=good)
            good &= variance < np.inf
            good &= np.isfinite(exposure.image[rows])
            if bits:
                good &= (exposure.mask[rows] & bits) == 0
        return cls(exposure, usable)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.exposure.box.shape

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
        return Pixels(self.exposure, self.usable, (*self.backgrounds, mesh))


def strips(n_row: int, rows: int = STRIP_ROWS) -> Iterator[slice]:
    """Cut ``n_row`` rows into slices of at most ``rows``."""
    return (slice(y, min(y + rows, n_row)) for y in range(0, n_row, rows))
