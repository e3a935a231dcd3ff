"""Positions of output pixels in the input, exact on a lattice and linear between its nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box

Positions = NDArray[np.float64]
Lines = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PixelMap:
    """Input positions of the pixels of a box.

    Parameters
    ----------
    box : Box
        Output pixels, parent coordinates.
    rows, columns : array, shape (n_y,), (n_x,)
        Output positions of the nodes; the first and last rows and columns of the box are nodes.
    y, x : array, shape (n_y, n_x), float64
        Input array coordinates of the nodes; NaN where there is none.
    """

    box: Box
    rows: Positions
    columns: Positions
    y: Positions
    x: Positions

    @property
    def jacobian(self) -> NDArray[np.float64]:
        """Derivatives of the input's (y, x) by the output's (y, x), shape (2, 2, n_y, n_x)."""
        by = (self.rows, self.columns)
        return np.array([np.gradient(plane, *by, edge_order=2) for plane in (self.y, self.x)])

    @property
    def area(self) -> Positions:
        """Input pixels per output pixel at the nodes, shape (n_y, n_x)."""
        j = self.jacobian
        return np.asarray(np.abs(j[0, 0] * j[1, 1] - j[0, 1] * j[1, 0]))

    def at(self, box: Box) -> tuple[Positions, Positions, Positions]:
        """Input position ``y, x`` and area of every pixel of ``box``, each of its shape."""
        rows, columns = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
        y, x = self.positions(rows, columns)
        return y, x, self._between(self.area, rows, columns)

    def positions(self, rows: Lines, columns: Lines) -> tuple[Positions, Positions]:
        """Input position ``y, x`` where the rows and columns cross, shape (n_row, n_column)."""
        return self._between(self.y, rows, columns), self._between(self.x, rows, columns)

    def jacobian_at(self, rows: Lines, columns: Lines) -> Positions:
        """`jacobian` where the rows and columns cross, shape (2, 2, n_row, n_column)."""
        return np.array(
            [[self._between(p, rows, columns) for p in line] for line in self.jacobian]
        )

    def _between(self, plane: Positions, rows: Lines, columns: Lines) -> Positions:
        return between_nodes(between_nodes(plane, self.rows, rows).T, self.columns, columns).T


def lattice(box: Box, step: int) -> tuple[Positions, Positions]:
    """Rows and columns of nodes at most ``step`` pixels apart that include the borders of a box.

    At least two along each axis, so that positions outside a box of one pixel follow a line.
    """
    return _nodes(box.y0, box.ny, step), _nodes(box.x0, box.nx, step)


def _nodes(first: int, n: int, step: int) -> Positions:
    last = max(n - 1, 1)
    return np.linspace(first, first + last, max(-(-last // step) + 1, 3))


def between_nodes(values: Positions, nodes: Positions, at: Lines) -> Positions:
    """Interpolate along the first axis between equidistant nodes."""
    place = (at - nodes[0]) / (nodes[1] - nodes[0])
    low = np.clip(place.astype(int), 0, len(nodes) - 2)
    fraction = (place - low)[:, None]
    return np.asarray(values[low] + fraction * (values[low + 1] - values[low]))
