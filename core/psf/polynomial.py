"""Stamps whose pixels are polynomials of the position: varying PSFs, PSFEx models, kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from coblend.core.errors import FormatError
from coblend.core.psf.resample import lanczos_matrix
from coblend.core.psf.stamp import normalized


def n_terms(order: int) -> int:
    """Count the terms of a polynomial of total degree ``order`` in two variables."""
    return (order + 1) * (order + 2) // 2


def order_of(n_term: int) -> int:
    """Find the total degree of a polynomial with ``n_term`` terms.

    Raises
    ------
    FormatError
        No polynomial has that many.
    """
    order = int((2 * n_term) ** 0.5) - 1
    for candidate in (order, order + 1):
        if candidate >= 0 and n_terms(candidate) == n_term:
            return candidate
    raise FormatError(f"{n_term} terms; a polynomial in x and y has 1, 3, 6, 10, 15, ...")


def exponents(order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Degrees in x and in y of each term.

    Total degree n ascending, inside it j = 0 ... n for ``T_{n-j}(x) T_j(y)``.
    """
    pairs = [(n - j, j) for n in range(order + 1) for j in range(n + 1)]
    px, py = np.array(pairs, dtype=np.int64).T
    return px, py


def chebyshev_terms(x: ArrayLike, y: ArrayLike, order: int) -> NDArray[np.float64]:
    """Values of all terms at positions scaled to -1 ... 1, shape (n_position, n_term)."""
    px, py = exponents(order)
    tx = chebyshev.chebvander(np.ravel(x), order)
    ty = chebyshev.chebvander(np.ravel(y), order)
    return np.asarray(tx[:, px] * ty[:, py], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class ChebyshevField:
    """Images whose mix varies over the exposure.

    ``image(x, y) = sum_b [ sum_t coefficients[b, t] phi_t(xi, eta) ] basis[b]`` with ``phi_t``
    products of Chebyshev polynomials (`exponents`) and ``xi``, ``eta`` running from -1 to 1 over
    the domain.

    Parameters
    ----------
    basis : array, shape (n_basis, side, side), float64
    coefficients : array, shape (n_basis, n_term), float64
    domain : tuple of float
        ``x_min, x_max, y_min, y_max``: outer pixel edges, parent coordinates.

    Raises
    ------
    FormatError
        When the shapes do not fit together or a value is not finite.
    """

    basis: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    domain: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        basis = np.array(self.basis, dtype=np.float64)
        coefficients = np.array(self.coefficients, dtype=np.float64)
        side = basis.shape[-1]
        if basis.ndim != 3 or basis.shape[1] != side or side % 2 == 0:
            raise FormatError(f"a basis of odd square images cannot have shape {basis.shape}")
        if coefficients.ndim != 2 or len(coefficients) != len(basis):
            raise FormatError(
                f"{len(basis)} basis images, coefficients of shape {coefficients.shape}"
            )
        order_of(coefficients.shape[1])
        if not (np.isfinite(basis).all() and np.isfinite(coefficients).all()):
            raise FormatError("basis images or coefficients are not finite")
        x_min, x_max, y_min, y_max = self.domain
        if not (x_max > x_min and y_max > y_min):
            raise FormatError(
                f"domain x {x_min:g} to {x_max:g}, y {y_min:g} to {y_max:g} is empty"
            )
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "coefficients", coefficients)

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(self.basis.shape[-1])

    @property
    def order(self) -> int:
        """Total degree of the polynomials."""
        return order_of(self.coefficients.shape[1])

    @property
    def constant(self) -> bool:
        """Whether the image is the same everywhere."""
        return self.order == 0

    def scaled(self, y: ArrayLike, x: ArrayLike) -> tuple[NDArray[np.float64], ...]:
        """Positions in units of the domain: ``(eta, xi)``."""
        x_min, x_max, y_min, y_max = self.domain
        xi = (2 * np.asarray(x, float) - x_min - x_max) / (x_max - x_min)
        eta = (2 * np.asarray(y, float) - y_min - y_max) / (y_max - y_min)
        return eta, xi

    def weights(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Weight of each basis image at n positions, shape (n, n_basis)."""
        eta, xi = self.scaled(y, x)
        return np.asarray(chebyshev_terms(xi, eta, self.order) @ self.coefficients.T)

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Images at n positions, shape (n, side, side)."""
        flat = self.weights(y, x) @ self.basis.reshape(len(self.basis), -1)
        return np.asarray(flat.reshape(-1, self.side, self.side))

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Image at one position, shape (side, side)."""
        return np.asarray(self.at_many([y], [x])[0])


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
        return normalized(self.field.at(y, x))

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
