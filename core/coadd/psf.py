"""PSF of a coadd: the weighted mean of the inputs' PSFs at each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.psf import CellPsf, GridPsf, Psf, StampPsf


@dataclass(frozen=True, slots=True)
class InputPsf:
    """PSF of one input of a coadd.

    Parameters
    ----------
    psf : Psf
        In the parent coordinates of the input.
    weight : float
    box : Box
        Pixels that the input covers, coadd coordinates.
    offset : tuple of int
        ``(dy, dx)``: coadd minus input coordinates.
    """

    psf: Psf
    weight: float
    box: Box
    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class CoaddPsf:
    """``sum w_i P_i / sum w_i`` over the inputs that cover a position.

    Exact for a coadd of scalar weights without clipping.

    Parameters
    ----------
    inputs : sequence of InputPsf

    Notes
    -----
    meas_algorithms ``CoaddPsf``.
    """

    inputs: Sequence[InputPsf]

    @property
    def side(self) -> int:
        """Side of the stamps: that of the largest input PSF."""
        return max(source.psf.side for source in self.inputs)

    @property
    def constant(self) -> bool:
        """Whether there is one PSF wherever there is an input."""
        same = all(source.box == self.inputs[0].box for source in self.inputs)
        return same and all(source.psf.constant for source in self.inputs)

    def contributors(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.bool_]:
        """Which inputs cover each position, shape (n_input, n)."""
        rows = np.rint(np.atleast_1d(y))
        columns = np.rint(np.atleast_1d(x))
        return np.stack([
            (rows >= s.box.y0) & (rows < s.box.y1) & (columns >= s.box.x0) & (columns < s.box.x1)
            for s in self.inputs
        ])  # fmt: skip

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return np.asarray(self.at_many([y], [x])[0])

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side).

        Raises
        ------
        FormatError
            At a position that no input covers.
        """
        y, x = np.atleast_1d(np.asarray(y, float)), np.atleast_1d(np.asarray(x, float))
        inside = self.contributors(y, x)
        total = np.array([s.weight for s in self.inputs]) @ inside
        if np.any(total <= 0):
            worst = int(np.argmin(total))
            raise FormatError(f"no input of the coadd covers x={x[worst]:g}, y={y[worst]:g}")
        out = np.zeros((y.size, self.side, self.side))
        for source, use in zip(self.inputs, inside, strict=True):
            if not use.any():
                continue
            dy, dx = source.offset
            margin = (self.side - source.psf.side) // 2
            middle = slice(margin, self.side - margin)
            if source.psf.constant:
                stamps = source.psf.at(0, 0)[None]
            else:
                stamps = source.psf.at_many(y[use] - dy, x[use] - dx)
            share = source.weight / total[use]
            out[use, middle, middle] += share[:, None, None] * stamps
        return out


def tabulated(psf: CoaddPsf, box: Box, step: int) -> Psf:
    """Coadd PSF as a stamp, a lattice or cells, which every command downstream can read.

    A stamp where all inputs cover the coadd and none varies; a lattice, to be interpolated, where
    all cover it; else cells, whose PSF jumps where an input ends.

    Parameters
    ----------
    psf : CoaddPsf
    box : Box
        The coadd.
    step : int
        Largest distance between nodes, or side of cells (pixel).
    """
    complete = all(source.box.contains(box) for source in psf.inputs)
    centre = box.y0 + (box.ny - 1) / 2, box.x0 + (box.nx - 1) / 2
    if complete and all(source.psf.constant for source in psf.inputs):
        return StampPsf(psf.at(*centre))
    if complete:
        y, x = (_nodes(first, n, step) for first, n in ((box.y0, box.ny), (box.x0, box.nx)))
        grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
        stamps = psf.at_many(grid_y.ravel(), grid_x.ravel())
        return GridPsf(stamps.reshape(len(y), len(x), psf.side, psf.side), y, x)
    boxes = _cells(box, step)
    y = (boxes[:, 0] + boxes[:, 2] - 1) / 2
    x = (boxes[:, 1] + boxes[:, 3] - 1) / 2
    filled = psf.contributors(y, x).any(axis=0)
    if not filled.any():
        raise FormatError(f"no input covers the centre of a PSF cell of {step} pixels")
    return CellPsf(psf.at_many(y[filled], x[filled]), y[filled], x[filled], boxes=boxes[filled])


def _nodes(first: int, n: int, step: int) -> NDArray[np.float64]:
    return np.linspace(first, first + n - 1, max(-(-(n - 1) // step) + 1, 2))


def _cells(box: Box, step: int) -> NDArray[np.int64]:
    """``y0, x0, y1, x1`` of nearly square cells of at most ``step`` pixels."""
    edges_y = np.linspace(box.y0, box.y1, -(-box.ny // step) + 1).astype(int)
    edges_x = np.linspace(box.x0, box.x1, -(-box.nx // step) + 1).astype(int)
    y0, x0 = np.meshgrid(edges_y[:-1], edges_x[:-1], indexing="ij")
    y1, x1 = np.meshgrid(edges_y[1:], edges_x[1:], indexing="ij")
    return np.stack([y0, x0, y1, x1], axis=-1).reshape(-1, 4)
