"""A smooth surface through values on a mesh of bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator, CubicSpline
from scipy.spatial import cKDTree


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Background values on a mesh, and the surface through them.

    The surface is interpolated along columns, then along rows (afw: BackgroundMI); beyond the
    outer centres it is constant. Akima needs 5 nodes, the spline 3, the line 2: the order is
    lowered where there are fewer.

    Parameters
    ----------
    y, x : array, shape (n_y,), (n_x,), float64
        Centres of the bins, array coordinates.
    values, errors : array, shape (n_y, n_x), float64
        Background and its error, unit of the image.
    counts : array, shape (n_y, n_x), int64
        Pixels that entered each value; 0 where it was filled from its neighbours.
    nx : int
        Columns of the image.
    interpolation : str
        ``akima``, ``spline`` or ``linear``.
    """

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    counts: NDArray[np.int64]
    nx: int
    interpolation: str = "akima"

    def rows(self, y: NDArray[np.int64]) -> NDArray[np.float32]:
        """Surface over whole rows ``y``, shape (len(y), nx), float32."""
        nodes = _interpolate(self.y, self.values.T, y, self.interpolation).T
        columns = np.arange(self.nx)
        return _interpolate(self.x, nodes, columns, self.interpolation).astype(np.float32)


def _interpolate(
    nodes: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.int64], how: str
) -> NDArray[np.float64]:
    """Interpolate along the last axis.

    A cubic Hermite piece is linear in its values and slopes, so that many rows at once are two
    matrix products; only the slopes depend on the method.
    """
    n = len(nodes)
    if n == 1:
        return np.broadcast_to(values, (*values.shape[:-1], len(at)))
    if how == "akima" and n >= 5:
        slopes = Akima1DInterpolator(nodes, values, axis=-1).derivative()(nodes)
    elif how != "linear" and n >= 3:
        slopes = CubicSpline(nodes, values, axis=-1, bc_type="natural").derivative()(nodes)
    else:
        slopes = None
    position = np.clip(at, nodes[0], nodes[-1])
    piece = np.clip(np.searchsorted(nodes, position, "right") - 1, 0, n - 2)
    width = nodes[piece + 1] - nodes[piece]
    t = (position - nodes[piece]) / width
    column = np.arange(len(at))
    by_value = np.zeros((n, len(at)))
    if slopes is None:
        by_value[piece, column] = 1 - t
        by_value[piece + 1, column] = t
        return values @ by_value
    by_value[piece, column] = (1 + 2 * t) * (1 - t) ** 2
    by_value[piece + 1, column] = t**2 * (3 - 2 * t)
    by_slope = np.zeros((n, len(at)))
    by_slope[piece, column] = width * t * (1 - t) ** 2
    by_slope[piece + 1, column] = -width * t**2 * (1 - t)
    out: NDArray[np.float64] = values @ by_value + slopes @ by_slope
    return out


def fill_empty(
    values: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Replace NaN bins by the inverse-square-distance mean of the four nearest others."""
    empty = np.isnan(values)
    if not empty.any():
        return values
    centres = np.stack(np.broadcast_arrays(y[:, None], x), axis=-1)
    known = values[~empty]
    k = min(4, len(known))
    distance, index = cKDTree(centres[~empty]).query(centres[empty], k=np.arange(1, k + 1))
    weight = distance**-2.0
    filled = values.copy()
    filled[empty] = np.sum(weight * known[index], axis=1) / weight.sum(axis=1)
    return filled
