"""Shapes on the pixel grid, painted by the centres of pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A circle, ellipse, box or polygon, mapped to pixels by a linear map about its centre.

    Parameters
    ----------
    kind : str
        ``ellipse`` (circles too), ``box`` or ``polygon``.
    y, x : float
        Centre, parent coordinates; 0 for polygons.
    inverse : array, shape (2, 2)
        From pixel offsets ``(dy, dx)`` to the shape's own axes, in which the ellipse is the unit
        circle and the box is ``|u|, |v| <= 1``.
    vertices : array, shape (2, n)
        Of a polygon, ``(y, x)``; empty otherwise.
    exclude : bool
        Whether the shape is cut out of what was painted before.
    """

    kind: str
    y: float
    x: float
    inverse: NDArray[np.float64]
    vertices: NDArray[np.float64]
    exclude: bool = False

    def bounds(self) -> Box:
        """Pixels that the shape may touch; none where it is not on the map."""
        if self.kind == "polygon":
            low, high = self.vertices.min(axis=1), self.vertices.max(axis=1)
        else:
            axes = np.linalg.inv(self.inverse)
            reach = np.hypot(*axes.T) if self.kind == "ellipse" else np.abs(axes).sum(axis=1)
            centre = np.array([self.y, self.x])
            low, high = centre - reach, centre + reach
        if not np.isfinite([low, high]).all():
            return Box(0, 0, 0, 0)
        (y0, x0), (y1, x1) = np.ceil(low).astype(int), np.floor(high).astype(int)
        return Box.from_bounds(int(y0), int(x0), int(y1) + 1, int(x1) + 1)

    def covers(self, box: Box) -> NDArray[np.bool_]:
        """Which pixel centres of ``box`` are inside, shape (ny, nx)."""
        y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(float)
        if self.kind == "polygon":
            return inside_polygon(self.vertices, y, x)
        u, v = np.tensordot(self.inverse, np.stack([y - self.y, x - self.x]), 1)
        if self.kind == "box":
            return np.asarray((np.abs(u) <= 1) & (np.abs(v) <= 1))
        return np.asarray(u**2 + v**2 <= 1)


def paint(regions: Iterable[Region], box: Box) -> NDArray[np.bool_]:
    """Pixels of ``box`` inside the regions, in their order, shape (ny, nx)."""
    out = np.zeros(box.shape, bool)
    for region in regions:
        common = region.bounds() & box
        if common.area:
            part = out[common.slices(box)]
            part[region.covers(common)] = not region.exclude
    return out


def inside_polygon(
    polygon: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether positions lie inside a polygon, by the even-odd rule.

    Parameters
    ----------
    polygon : array, shape (2, n)
        Vertices ``(y, x)``.
    y, x : array, equal shapes
    """
    inside = np.zeros(y.shape, bool)
    for y1, x1, y2, x2 in zip(*polygon, *np.roll(polygon, -1, axis=1), strict=True):
        if y1 != y2:
            crosses = (y1 <= y) != (y2 <= y)
            inside ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside
