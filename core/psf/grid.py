"""PSFs given as stamps at points of the image: regular lattices and irregular cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LinearNDInterpolator, make_interp_spline
from scipy.spatial import QhullError, cKDTree

from coblend.core.errors import FormatError
from coblend.core.psf.stamp import normalized


@dataclass(frozen=True, slots=True, eq=False)
class GridPsf:
    """Stamps on a lattice of rows and columns, interpolated per stamp pixel.

    Outside the lattice the nearest edge value holds.

    Parameters
    ----------
    stamps : array, shape (n_y, n_x, side, side)
        Interpolated as given, then scaled to unit sum.
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

    def __post_init__(self) -> None:
        stamps = np.array(self.stamps, dtype=np.float64)
        nodes = {"y": np.array(self.y, float), "x": np.array(self.x, float)}
        expected = (nodes["y"].size, nodes["x"].size)
        if stamps.ndim != 4 or stamps.shape[:2] != expected:
            raise FormatError(
                f"a PSF lattice of {expected[1]} x {expected[0]} nodes "
                f"cannot have stamps of shape {stamps.shape}"
            )
        normalized(stamps)
        for name, node in nodes.items():
            step = np.diff(node)
            if not (np.isfinite(node).all() and np.all(step > 0) and np.allclose(step, step[:1])):
                raise FormatError(
                    f"the {name} positions of the PSF lattice do not increase in equal steps"
                )
            object.__setattr__(self, name, node)
        if self.interpolation not in ("cubic", "linear"):
            raise FormatError(f"PSF interpolation {self.interpolation!r}; known: cubic, linear")
        object.__setattr__(self, "stamps", stamps)

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
        wy = _node_weights(self.y, np.atleast_1d(y), self.interpolation)
        wx = _node_weights(self.x, np.atleast_1d(x), self.interpolation)
        weights = (wy[:, :, None] * wx[:, None, :]).reshape(wy.shape[0], -1)
        stamps = weights @ self.stamps.reshape(weights.shape[1], -1)
        return normalized(stamps.reshape(-1, self.side, self.side))


@dataclass(frozen=True, slots=True, eq=False)
class CellPsf:
    """Stamps at irregular centres.

    Parameters
    ----------
    stamps : array, shape (n_cell, side, side)
    y, x : array, shape (n_cell,)
        Centres, parent coordinates.
    interpolation : {"nearest", "linear"}
        Nearest: each position has the stamp of the nearest centre, which suits coadds whose PSF
        jumps where an input ends. Linear: between the three centres around (Delaunay), nearest
        outside their hull.
    boxes : array, shape (n_cell, 4), int, optional
        ``y0, x0, y1, x1`` of the cells (upper bounds exclusive), kept for files; evaluation uses
        the centres only.

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

    def __post_init__(self) -> None:
        stamps = normalized(self.stamps)
        y, x = np.array(self.y, float), np.array(self.x, float)
        if stamps.ndim != 3 or not len(stamps) or y.shape != x.shape != stamps.shape[:1]:
            raise FormatError(
                f"{y.size} PSF cell centres cannot have stamps of shape {stamps.shape}"
            )
        if not (np.isfinite(y).all() and np.isfinite(x).all()):
            raise FormatError("a PSF cell centre is not finite")
        if self.interpolation not in ("nearest", "linear"):
            raise FormatError(f"PSF interpolation {self.interpolation!r}; known: nearest, linear")
        for name, value in (("stamps", stamps), ("y", y), ("x", x)):
            object.__setattr__(self, name, value)

    @property
    def side(self) -> int:
        """Side of the stamps in pixels."""
        return int(self.stamps.shape[-1])

    @property
    def constant(self) -> bool:
        """Whether there is only one cell."""
        return len(self.stamps) == 1

    def cell_of(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.int64]:
        """Index of the nearest centre, shape (n,)."""
        tree = cKDTree(np.stack([self.y, self.x], axis=1))
        points = np.stack([np.ravel(y), np.ravel(x)], axis=1)
        return np.asarray(tree.query(points)[1], dtype=np.int64)

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return np.asarray(self.at_many([y], [x])[0])

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side)."""
        nearest = self.stamps[self.cell_of(y, x)]
        if self.interpolation == "nearest":
            return nearest
        centres = np.stack([self.y, self.x], axis=1)
        flat = self.stamps.reshape(len(self.stamps), -1)
        try:
            between = LinearNDInterpolator(centres, flat)
        except (QhullError, ValueError):  # fewer than three centres, or all on one line
            return nearest
        points = np.stack([np.ravel(y), np.ravel(x)], axis=1)
        stamps = between(points).reshape(nearest.shape)
        return np.where(np.isfinite(stamps), stamps, nearest)


def _node_weights(
    nodes: NDArray[np.float64], position: NDArray[np.float64], interpolation: str
) -> NDArray[np.float64]:
    """Weight of each node at each position, shape (n_position, n_node).

    Spline interpolation is linear in the values, so the splines of unit vectors are the weights.
    """
    if nodes.size == 1:
        return np.ones((position.size, 1))
    degree = 3 if interpolation == "cubic" and nodes.size >= 4 else 1
    spline = make_interp_spline(nodes, np.eye(nodes.size), k=degree)
    inside = np.clip(position, nodes[0], nodes[-1])
    return np.asarray(spline(inside), dtype=np.float64)
