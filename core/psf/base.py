"""What every PSF model can do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray


@runtime_checkable
class Psf(Protocol):
    """A PSF model in parent coordinates (0-based, pixel centres at integers).

    Stamps are the effective PSF sampled at image pixels: float64, odd sides, sum 1, centred on
    the central pixel.
    """

    @property
    def side(self) -> int:
        """Side of the stamps in pixels, odd."""
        ...

    @property
    def constant(self) -> bool:
        """Whether the PSF is the same everywhere."""
        ...

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``, shape (side, side)."""
        ...

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side)."""
        ...
