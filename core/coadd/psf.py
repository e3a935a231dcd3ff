"""PSF of a coadd in a form that every command reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.psf import CellPsf, GridPsf, Psf, StampPsf
from coblend.core.psf.coadd import CoaddPsf


def tabulated(psf: CoaddPsf, box: Box, step: int) -> Psf:
    """Coadd PSF as a stamp, a lattice or cells, which every command downstream can read.

    A stamp where all inputs cover the coadd and none varies; a lattice, to be interpolated, where
    all cover it; else cells, whose PSF jumps where an input ends. A cell has the PSF of its
    centre, or of the middle of what is covered; cells that no input touches are left out.

    Parameters
    ----------
    psf : CoaddPsf
    box : Box
        The coadd.
    step : int
        Largest distance between nodes, or side of cells (pixel).

    Raises
    ------
    FormatError
        No input covers a pixel of the box.
    """
    y, x = (_nodes(first, n, step) for first, n in ((box.y0, box.ny), (box.x0, box.nx)))
    grid_y, grid_x = (plane.ravel() for plane in np.meshgrid(y, x, indexing="ij"))
    complete = bool(psf.contributors(grid_y, grid_x).all())
    if complete and all(source.psf.constant for source in psf.inputs):
        return StampPsf(psf.at(y[0], x[0]))
    if complete:
        stamps = psf.at_many(grid_y, grid_x)
        return GridPsf(stamps.reshape(len(y), len(x), psf.side, psf.side), y, x)
    boxes = _cells(box, step)
    y = (boxes[:, 0] + boxes[:, 2] - 1) / 2
    x = (boxes[:, 1] + boxes[:, 3] - 1) / 2
    for cell in np.flatnonzero(~psf.contributors(y, x).any(axis=0)):
        y[cell], x[cell] = _covered_pixel(psf, Box.from_bounds(*boxes[cell].tolist()))
    filled = np.isfinite(y)
    if not filled.any():
        raise FormatError("the outlines of the inputs cover no pixel of the coadd")
    return CellPsf(psf.at_many(y[filled], x[filled]), y[filled], x[filled], boxes=boxes[filled])


def _covered_pixel(psf: CoaddPsf, cell: Box) -> tuple[float, float]:
    """Pixel ``y, x`` in the middle of those of a cell that inputs cover; NaN without any."""
    near = [source for source in psf.inputs if (source.box & cell).area]
    y, x = np.mgrid[cell.y0 : cell.y1, cell.x0 : cell.x1].reshape(2, -1).astype(float)
    covered = np.any([source.covers(y, x) for source in near] or False, axis=0)
    if not covered.any():
        return float("nan"), float("nan")
    y, x = y[covered], x[covered]
    nearest = np.argmin(np.hypot(y - y.mean(), x - x.mean()))
    return float(y[nearest]), float(x[nearest])


def _nodes(first: int, n: int, step: int) -> NDArray[np.float64]:
    return np.linspace(first, first + n - 1, max(-(-(n - 1) // step) + 1, 2))


def _cells(box: Box, step: int) -> NDArray[np.int64]:
    """``y0, x0, y1, x1`` of nearly square cells of at most ``step`` pixels."""
    edges_y = np.linspace(box.y0, box.y1, -(-box.ny // step) + 1).astype(int)
    edges_x = np.linspace(box.x0, box.x1, -(-box.nx // step) + 1).astype(int)
    y0, x0 = np.meshgrid(edges_y[:-1], edges_x[:-1], indexing="ij")
    y1, x1 = np.meshgrid(edges_y[1:], edges_x[1:], indexing="ij")
    return np.stack([y0, x0, y1, x1], axis=-1).reshape(-1, 4)
