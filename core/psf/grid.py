"""PSFs given as stamps at points of the image: regular lattices and irregular cells."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.errors import FormatError
from coblend.core.psf.fields import CellField, LatticeField
from coblend.core.psf.stamp import normalized


@dataclass(frozen=True, slots=True, eq=False)
class GridPsf:
    """Stamps on a lattice of rows and columns, interpolated per stamp pixel.

    Outside the lattice the nearest edge value holds.

    Parameters
    ----------
    stamps : array, shape (n_y, n_x, side, side)
        Interpolated as given, then scaled to unit sum. NaN at nodes where the PSF is unknown, as
        it then is wherever such a node is the nearest.
    y : array, shape (n_y,)
        Rows of the nodes, parent coordinates, increasing in equal steps.
    x : array, shape (n_x,)
        Columns of the nodes.
    interpolation : {"cubic", "linear"}
        Cubic needs four nodes along an axis; axes with fewer are linear. On a field whose seeing
        varies smoothly over 8 x 8 nodes linear leaves 5e-3 of the peak, cubic 2e-4.

    Raises
    ------
    FormatError
        When stamps and nodes do not fit together or a stamp cannot be a PSF.
    """

    stamps: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    interpolation: str = "cubic"
    _known: NDArray[np.bool_] = field(init=False, repr=False)
    _bridged: LatticeField = field(init=False, repr=False)

    def __post_init__(self) -> None:
        normalized(self.stamps, gaps=True)
        stamps = np.array(self.stamps, np.float64)
        known = np.asarray(np.isfinite(stamps).all((-2, -1)))
        stamps[~known] = np.nan
        bridged = LatticeField(_bridge(stamps, known), self.y, self.x, self.interpolation)
        stamps = bridged.images if known.all() else stamps
        for name, value in (
            ("stamps", stamps), ("y", bridged.y), ("x", bridged.x), ("_known", known),
            ("_bridged", bridged),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def side(self) -> int:
        """Side of the stamps in pixels."""
        return int(self.stamps.shape[-1])

    @property
    def constant(self) -> bool:
        """Whether there is only one node."""
        return self.y.size * self.x.size == 1

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return np.asarray(self.at_many([y], [x])[0])

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side)."""
        stamps = normalized(self._bridged.at_many(y, x))
        row, column = (
            np.abs(np.ravel(position)[:, None] - nodes).argmin(1)
            for position, nodes in ((y, self.y), (x, self.x))
        )
        stamps[~self._known[row, column]] = np.nan
        return stamps


def _bridge(stamps: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Stamps with those of unknown nodes interpolated from all others, weight distance^-4."""
    if known.all() or not known.any():
        return stamps
    have, want = np.argwhere(known), np.argwhere(~known)
    weight = ((want[:, None] - have) ** 2).sum(2) ** -2.0
    out = stamps.copy()
    out[~known] = np.tensordot(weight / weight.sum(1, keepdims=True), stamps[known], 1)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class CellPsf:
    """Stamps at irregular centres.

    Parameters
    ----------
    stamps : array, shape (n_cell, side, side)
        NaN where the PSF is unknown.
    y, x : array, shape (n_cell,)
        Centres, parent coordinates.
    interpolation : {"nearest", "linear"}
        Nearest: each position has the stamp of the nearest centre, which suits coadds whose PSF
        jumps where an input ends. Linear: between the three centres around (Delaunay), nearest
        outside their hull.
    boxes : array, shape (n_cell, 4), int, optional
        ``y0, x0, y1, x1`` of the cells (upper bounds exclusive), kept for files; evaluation uses
        the centres only.
    regions : array, shape (n_cell,), int, optional
        Number of the region of a map that each cell stands for.

    Raises
    ------
    FormatError
        When stamps and centres do not fit together or a stamp cannot be a PSF.
    """

    stamps: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    interpolation: str = "nearest"
    boxes: NDArray[np.int64] | None = None
    regions: NDArray[np.int64] | None = None
    _cells: CellField = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cells = CellField(normalized(self.stamps, gaps=True), self.y, self.x)
        if self.interpolation not in ("nearest", "linear"):
            raise FormatError(f"PSF interpolation {self.interpolation!r}; known: nearest, linear")
        for name, value in (
            ("stamps", cells.images), ("y", cells.y), ("x", cells.x), ("_cells", cells),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def side(self) -> int:
        """Side of the stamps in pixels."""
        return int(self.stamps.shape[-1])

    @property
    def constant(self) -> bool:
        """Whether there is only one cell."""
        return len(self.stamps) == 1

    @property
    def field(self) -> CellField:
        """The stamps as a field that jumps."""
        return self._cells

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return np.asarray(self.at_many([y], [x])[0])

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side)."""
        nearest = self._cells.at_many(y, x)
        if self.interpolation == "nearest":
            return nearest
        centres = np.stack([self.y, self.x], axis=1)
        flat = self.stamps.reshape(len(self.stamps), -1)
        from scipy.interpolate import LinearNDInterpolator
        from scipy.spatial import QhullError

        try:
            between = LinearNDInterpolator(centres, flat)
        except (QhullError, ValueError):  # fewer than three centres, or all on one line
            return nearest
        points = np.stack([np.ravel(y), np.ravel(x)], axis=1)
        stamps = between(points).reshape(nearest.shape)
        return np.where(np.isfinite(stamps), stamps, nearest)
