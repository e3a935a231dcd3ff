"""PSFs whose pixels are polynomials of the position, among them PSFEx models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.errors import FormatError
from coblend.core.psf.fields import ChebyshevField, n_terms
from coblend.core.psf.resample import lanczos_matrix
from coblend.core.psf.stamp import normalized


@dataclass(frozen=True, slots=True, eq=False)
class PolyPsf:
    """A PSF whose pixels are polynomials of the position.

    Parameters
    ----------
    field : ChebyshevField
        Evaluated, then scaled to unit sum.
    """

    field: ChebyshevField

    @property
    def side(self) -> int:
        """Side of the stamps in pixels."""
        return self.field.side

    @property
    def constant(self) -> bool:
        """Whether the order is 0."""
        return self.field.constant

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return np.asarray(self.at_many([y], [x])[0])

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side)."""
        return normalized(self.field.at_many(y, x))


@dataclass(frozen=True, slots=True, eq=False)
class PsfexPsf:
    """A PSFEx model: polynomial planes, sampled at ``sampling`` pixels.

    Planes are resampled to whole pixels with Lanczos-4 once; the result is centred on the central
    pixel and scaled to unit sum. Plane ``k`` belongs to ``u^i v^j`` with i fastest: 1, u, u^2, v,
    uv, v^2.

    Parameters
    ----------
    planes : array, shape (n_plane, n, n), float32
        Even sides are allowed; the centre is pixel ``n // 2``.
    degree : int
    zero, scale : tuple of float
        ``(x, y)``: ``u = (X - zero[0]) / scale[0]`` with X counted from 1.
    sampling : float
        Pixels per sample (``PSF_SAMP``).
    origin : tuple of int
        Parent coordinates ``(y0, x0)`` of the first pixel of the image PSFEx saw.

    Raises
    ------
    FormatError
        When the planes do not fit the degree, or the planes are not finite.
    """

    planes: NDArray[np.float32]
    degree: int = 0
    zero: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    sampling: float = 1.0
    origin: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        planes = np.array(self.planes, dtype=np.float32)
        if planes.ndim != 3 or planes.shape[1] != planes.shape[2]:
            raise FormatError(f"a PSFEx model needs square planes, found shape {planes.shape}")
        if self.degree < 0 or len(planes) != n_terms(self.degree):
            raise FormatError(
                f"a PSFEx model of degree {self.degree} cannot have {len(planes)} planes"
            )
        if not (0 < self.sampling < np.inf):
            raise FormatError(f"PSF_SAMP is {self.sampling}, expected a positive number")
        if not np.isfinite(planes).all():
            raise FormatError("the planes of the PSFEx model are not all finite")
        object.__setattr__(self, "planes", planes)

    @property
    def side(self) -> int:
        """Side of the stamps in pixels."""
        return int(lanczos_matrix(self.planes.shape[-1], self.sampling).shape[0])

    @property
    def constant(self) -> bool:
        """Whether the degree is 0."""
        return self.degree == 0

    def samples(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Model at n positions as PSFEx samples it, not rescaled, shape (n, n_in, n_in)."""
        return self._mix(y, x, self.planes.astype(np.float64))

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return np.asarray(self.at_many([y], [x])[0])

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side)."""
        matrix = lanczos_matrix(self.planes.shape[-1], self.sampling)
        return normalized(self._mix(y, x, matrix @ self.planes.astype(np.float64) @ matrix.T))

    def _mix(self, y: ArrayLike, x: ArrayLike, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        u = (np.ravel(x) - self.origin[1] + 1 - self.zero[0]) / self.scale[0]
        v = (np.ravel(y) - self.origin[0] + 1 - self.zero[1]) / self.scale[1]
        powers = [(i, j) for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        terms = np.stack([u**i * v**j for i, j in powers], axis=1)
        return np.asarray(np.tensordot(terms, planes, axes=1), dtype=np.float64)
