"""Photometric scales that vary over an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.pixelmap import between_nodes, lattice
from coblend.core.errors import FormatError

STEP = 32
"""Spacing of the lattice (pixel); linear between its nodes, which leaves 1e-5 of a quadratic
field of 10 % over 4000 pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class ScaleField:
    """Scale on a lattice.

    Parameters
    ----------
    rows, columns : array, shape (n_y,), (n_x,)
        Equidistant, parent coordinates.
    values : array, shape (n_y, n_x)
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    values: NDArray[np.float64]

    def at(self, box: Box, factor: float = 1.0) -> NDArray[np.float32]:
        """Scale of every pixel of a box times a factor, shape (ny, nx)."""
        rows, columns = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
        by_row = between_nodes(self.values, self.rows, rows)
        scale = between_nodes(by_row.T, self.columns, columns).T.astype(np.float32)
        return np.asarray(scale * np.float32(factor))


def scale_field(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    scale: NDArray[np.float64],
    box: Box,
    interpolation: str,
) -> ScaleField:
    """Spread scales measured at points over a box.

    Parameters
    ----------
    y, x, scale : array, shape (n,)
        Parent coordinates and factors on the image.
    box : Box
    interpolation : str
        ``constant``: the mean; ``linear``: between the points (Delaunay triangles), nearest
        outside their hull; ``poly2``: least squares of ``log scale`` by a polynomial of degree 2,
        or of lower degree when there are fewer than 6 (3) points.

    Raises
    ------
    FormatError
        Without a point, or for a scale that is not finite and positive.
    """
    if not scale.size:
        raise FormatError("no scales in ZPGRID")
    wrong = ~(np.isfinite(scale) & (scale > 0) & np.isfinite(y) & np.isfinite(x))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FormatError(f"row {row + 1} of ZPGRID has scale {scale[row]:g}")
    rows, columns = lattice(box, STEP)
    grid_y, grid_x = np.meshgrid(rows, columns, indexing="ij")
    if interpolation == "constant":
        values = np.full(grid_y.shape, scale.mean())
    elif interpolation == "linear":
        values = _linear(y, x, scale, grid_y, grid_x)
    else:
        values = _polynomial(y, x, scale, box, grid_y, grid_x)
    return ScaleField(rows, columns, values)


def _linear(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    scale: NDArray[np.float64],
    grid_y: NDArray[np.float64],
    grid_x: NDArray[np.float64],
) -> NDArray[np.float64]:
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.spatial import QhullError

    points = np.stack([y, x], axis=1)
    nearest = np.asarray(NearestNDInterpolator(points, scale)(grid_y, grid_x))
    try:
        between = np.asarray(LinearNDInterpolator(points, scale)(grid_y, grid_x))
    except (QhullError, ValueError):  # fewer than three points, or all on one line
        return nearest
    return np.where(np.isfinite(between), between, nearest)


def _polynomial(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    scale: NDArray[np.float64],
    box: Box,
    grid_y: NDArray[np.float64],
    grid_x: NDArray[np.float64],
) -> NDArray[np.float64]:
    n_terms = 6 if scale.size >= 6 else 3 if scale.size >= 3 else 1

    def terms(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        v = 2 * (y - box.y0) / max(box.ny - 1, 1) - 1
        u = 2 * (x - box.x0) / max(box.nx - 1, 1) - 1
        return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v][:n_terms], axis=-1)

    solution = np.linalg.lstsq(terms(y, x), np.log(scale), rcond=None)[0]
    return np.asarray(np.exp(terms(grid_y, grid_x) @ solution))
