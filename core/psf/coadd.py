"""PSF of a coadd: the weighted mean of the inputs' PSFs at each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.psf.base import Psf
from coblend.core.region import inside_polygon


@dataclass(frozen=True, slots=True, eq=False)
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
    polygon : array, shape (2, n), float64, optional
        Outline ``(y, x)`` of the covered part of the box, coadd coordinates.
    """

    psf: Psf
    weight: float
    box: Box
    offset: tuple[int, int] = (0, 0)
    polygon: NDArray[np.float64] | None = None

    def covers(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the pixels nearest to n positions are covered, shape (n,)."""
        row, column = np.rint(y), np.rint(x)
        inside = (row >= self.box.y0) & (row < self.box.y1)
        inside &= (column >= self.box.x0) & (column < self.box.x1)
        if self.polygon is not None:
            inside[inside] = inside_polygon(self.polygon, row[inside], column[inside])
        return inside


@dataclass(frozen=True, slots=True, eq=False)
class InputMap:
    """Which inputs were used in every pixel: bit j of plane p for input ``31 p + j``.

    Parameters
    ----------
    box : Box
    planes : array, shape (n_plane, ny, nx), int32
    """

    box: Box
    planes: NDArray[np.int32]

    def used(
        self, n_input: int, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which inputs were used at the pixels nearest to n positions, shape (n_input, n)."""
        row, column = (
            np.clip(np.rint(p).astype(int) - first, 0, size - 1)
            for p, first, size in ((y, self.box.y0, self.box.ny), (x, self.box.x0, self.box.nx))
        )
        words = self.planes[:, row, column]
        i = np.arange(n_input)
        return np.asarray((words[i // 31] >> (i % 31)[:, None]) & 1 == 1)


@dataclass(frozen=True, slots=True, eq=False)
class CoaddPsf:
    """``sum w_i P_i / sum w_i`` over the inputs that cover a position.

    Exact for a coadd of one weight per input; where samples were clipped or masked, with the
    input map.

    Parameters
    ----------
    inputs : sequence of InputPsf
    input_map : InputMap, optional
        Takes the place of boxes and polygons.

    Notes
    -----
    meas_algorithms ``CoaddPsf``.
    """

    inputs: Sequence[InputPsf]
    input_map: InputMap | None = None

    @property
    def side(self) -> int:
        """Side of the stamps: that of the largest input PSF."""
        return max(source.psf.side for source in self.inputs)

    @property
    def constant(self) -> bool:
        """Whether there is one PSF wherever there is an input."""
        first = self.inputs[0]
        same = all(source.box == first.box and source.polygon is None for source in self.inputs)
        alike = self.input_map is None and all(source.psf.constant for source in self.inputs)
        return same and alike

    def contributors(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.bool_]:
        """Which inputs contribute at each position, shape (n_input, n)."""
        y, x = np.atleast_1d(np.asarray(y, float)), np.atleast_1d(np.asarray(x, float))
        if self.input_map is not None:
            return self.input_map.used(len(self.inputs), y, x)
        return np.stack([source.covers(y, x) for source in self.inputs])

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return np.asarray(self.at_many([y], [x])[0])

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side).

        Positions with the same contributors share the sum over constant PSFs.

        Raises
        ------
        FormatError
            At a position that no input covers.
        """
        y, x = np.atleast_1d(np.asarray(y, float)), np.atleast_1d(np.asarray(x, float))
        inside = self.contributors(y, x)
        groups, group = np.unique(inside, axis=1, return_inverse=True)
        shares = groups * np.array([[source.weight] for source in self.inputs])
        total = shares.sum(axis=0)
        if np.any(total <= 0):
            worst = int(np.flatnonzero(total[group] <= 0)[0])
            raise FormatError(f"no input of the coadd covers x={x[worst]:g}, y={y[worst]:g}")
        shares /= total
        base = np.zeros((groups.shape[1], self.side, self.side))
        for source, share in zip(self.inputs, shares, strict=True):
            if source.psf.constant and share.any():
                base[:, *self._middle(source)] += share[:, None, None] * source.psf.at(0, 0)
        out = base[group.ravel()]
        for source, share, use in zip(self.inputs, shares, inside, strict=True):
            if not source.psf.constant and use.any():
                dy, dx = source.offset
                stamps = source.psf.at_many(y[use] - dy, x[use] - dx)
                part = share[group.ravel()[use]]
                out[use, *self._middle(source)] += part[:, None, None] * stamps
        return out

    def _middle(self, source: InputPsf) -> tuple[slice, slice]:
        margin = (self.side - source.psf.side) // 2
        return slice(margin, self.side - margin), slice(margin, self.side - margin)
