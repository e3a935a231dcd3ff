"""A PSF that is the same everywhere, and the checks that every stamp passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.errors import FormatError

ALREADY_NORMAL = 1e-12
"""A sum this close to 1 stays, so that a stamp survives a file unchanged."""


def normalized(stamps: ArrayLike, *, gaps: bool = False) -> NDArray[np.float64]:
    """Check PSF stamps and scale each to unit sum.

    Parameters
    ----------
    stamps : array, shape (..., n, n)
        Odd sides, centred on the central pixel.
    gaps : bool
        Whether some stamps may be unknown: one with any NaN becomes NaN altogether.

    Returns
    -------
    array, shape (..., n, n), float64

    Raises
    ------
    FormatError
        For even or unequal sides, non-finite values, or a sum that is not positive.
    """
    out = np.array(stamps, dtype=np.float64)
    if out.ndim < 2 or out.shape[-1] != out.shape[-2] or not out.shape[-1]:
        raise FormatError(f"a PSF stamp must be square, found shape {out.shape}")
    side = out.shape[-1]
    if side % 2 == 0:
        raise FormatError(
            f"the PSF has an even side, {side} px, so no central pixel",
            hint="pad it by one row and column so that its peak is the central pixel",
        )
    unknown = np.isnan(out).any(axis=(-2, -1)) if gaps else np.zeros(out.shape[:-2], bool)
    if unknown.any() and not unknown.all():
        out[~unknown] = normalized(out[~unknown])
        out[unknown] = np.nan
        return out
    n_wrong = int(np.count_nonzero(~np.isfinite(out)))
    if n_wrong:
        raise FormatError(f"the PSF has {n_wrong} non-finite values")
    total = out.sum(axis=(-2, -1), keepdims=True)
    floor = 1e-6 * np.abs(out).sum(axis=(-2, -1), keepdims=True)
    if np.any(total <= floor):
        worst = float(total.min())
        raise FormatError(f"the PSF sums to {worst:g}; its sum must be positive")
    rescaled = np.where(np.abs(total - 1) < ALREADY_NORMAL, 1.0, total)
    return np.asarray(out / rescaled, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class StampPsf:
    """The same stamp at every position.

    Parameters
    ----------
    stamp : array, shape (side, side)
        Effective PSF at image pixels, odd side, centred; scaled to unit sum here.

    Raises
    ------
    FormatError
        When the stamp cannot be a PSF.
    """

    stamp: NDArray[np.float64]

    def __post_init__(self) -> None:
        stamp = normalized(self.stamp)
        if stamp.ndim != 2:
            raise FormatError(f"a constant PSF needs a 2-D stamp, found shape {stamp.shape}")
        object.__setattr__(self, "stamp", stamp)

    @property
    def side(self) -> int:
        """Side of the stamp in pixels."""
        return int(self.stamp.shape[-1])

    @property
    def constant(self) -> bool:
        """Always true."""
        return True

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return self.stamp.copy()

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side), a read-only view of one stamp."""
        return np.broadcast_to(self.stamp, (np.size(y), *self.stamp.shape))
