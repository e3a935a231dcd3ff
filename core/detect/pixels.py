"""The pixels to search, read a few rows at a time so that no full-size copies are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

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
    packed : array, shape (ny, ceil(nx / 8)), uint8
        Bits of the usable pixels: finite value, positive finite variance, none of the excluded
        planes.
    n_usable : int
    backgrounds : tuple of Mesh
        Models to subtract.
    """

    exposure: Exposure
    packed: NDArray[np.uint8]
    n_usable: int
    backgrounds: tuple[Mesh, ...] = ()

    @classmethod
    def of(cls, exposure: Exposure, exclude: Iterable[str] = ()) -> Pixels:
        """Pixels of an exposure; those of the planes ``exclude`` have weight 0.

        Unless they were interpolated (``INTRP``), or that is excluded too.
        """
        exclude = tuple(exclude)
        bits = np.int32(exposure.planes.value(exclude))
        filled = np.int32(0 if "INTRP" in exclude else exposure.planes.value(["INTRP"]))
        ny, nx = exposure.box.shape
        packed = np.empty((ny, -(-nx // 8)), np.uint8)
        n_usable = 0
        for rows in strips(ny):
            variance = exposure.variance[rows]
            usable = (variance > 0) & (variance < np.inf)
            usable &= np.isfinite(exposure.image[rows])
            if bits:
                bad = (exposure.mask[rows] & bits) != 0
                if filled and bad.any():
                    bad &= (exposure.mask[rows] & filled) == 0
                usable &= ~bad
            n_usable += int(np.count_nonzero(usable))
            packed[rows] = np.packbits(usable, axis=1)
        return cls(exposure, packed, n_usable)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.exposure.box.shape

    def usable(self, rows: slice) -> NDArray[np.bool_]:
        """Usable pixels of these rows; a new array."""
        bits = np.unpackbits(self.packed[rows], axis=1, count=self.shape[1])
        return bits.view(np.bool_)

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
        return replace(self, backgrounds=(*self.backgrounds, mesh))


def strips(n_row: int, rows: int = STRIP_ROWS) -> Iterator[slice]:
    """Cut ``n_row`` rows into slices of at most ``rows``."""
    return (slice(y, min(y + rows, n_row)) for y in range(0, n_row, rows))
