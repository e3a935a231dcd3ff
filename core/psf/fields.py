"""Images that vary over an exposure, as matching kernels and PSFs do.

The weight of each basis image is a sum of products of a function of y and a function of x, so
that the weights of a whole tile are two small matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from coblend.core.errors import FormatError

Array = NDArray[np.float64]

LATTICE_TOLERANCE = 1e-4
"""Relative error allowed when the images of a lattice are written as a mix of fewer."""


class Field(Protocol):
    """An image at every position, ``sum_b [rows(y) matrices[b] columns(x)'] basis[b]``."""

    @property
    def side(self) -> int:
        """Side of the images in pixels, odd."""
        ...

    @property
    def constant(self) -> bool:
        """Whether the image is the same everywhere."""
        ...

    def at_many(self, y: ArrayLike, x: ArrayLike) -> Array:
        """Images at n positions, shape (n, side, side)."""
        ...

    def separable(self) -> tuple[Array, Array]:
        """Basis (n_basis, side, side) and matrices (n_basis, n_row, n_column)."""
        ...

    def rows(self, y: ArrayLike) -> Array:
        """Functions of y, shape (n, n_row)."""
        ...

    def columns(self, x: ArrayLike) -> Array:
        """Functions of x, shape (n, n_column)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ChebyshevField:
    """Images whose mix is polynomial.

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

    basis: Array
    coefficients: Array
    domain: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        basis = np.array(self.basis, dtype=np.float64)
        coefficients = np.array(self.coefficients, dtype=np.float64)
        _check_images(basis, 3)
        if coefficients.ndim != 2 or len(coefficients) != len(basis):
            raise FormatError(
                f"{len(basis)} basis images, coefficients of shape {coefficients.shape}"
            )
        order_of(coefficients.shape[1])
        if not np.isfinite(coefficients).all():
            raise FormatError("the coefficients of the basis images are not all finite")
        x_min, x_max, y_min, y_max = self.domain
        if not (x_max > x_min and y_max > y_min):
            raise FormatError(
                f"domain x {x_min:g} to {x_max:g}, y {y_min:g} to {y_max:g} is empty"
            )
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "coefficients", coefficients)

    @classmethod
    def of_constant(cls, image: Array) -> ChebyshevField:
        """Field with the same image everywhere."""
        return cls(image[None], np.ones((1, 1)), (0.0, 1.0, 0.0, 1.0))

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

    def at_many(self, y: ArrayLike, x: ArrayLike) -> Array:
        """Images at n positions, shape (n, side, side)."""
        return _mixed(self, y, x)

    def separable(self) -> tuple[Array, Array]:
        """Basis and matrices; one image per term where that is fewer than the basis."""
        n = self.order + 1
        px, py = exponents(self.order)
        weights = self.coefficients
        basis = self.basis
        if weights.shape[1] < weights.shape[0]:
            basis = np.tensordot(weights.T, basis, axes=1)
            weights = np.eye(weights.shape[1])
        matrices = np.zeros((len(weights), n, n))
        matrices[:, py, px] = weights
        return basis, matrices

    def rows(self, y: ArrayLike) -> Array:
        """Chebyshev polynomials of y."""
        return self._polynomials(y, self.domain[2], self.domain[3])

    def columns(self, x: ArrayLike) -> Array:
        """Chebyshev polynomials of x."""
        return self._polynomials(x, self.domain[0], self.domain[1])

    def _polynomials(self, position: ArrayLike, low: float, high: float) -> Array:
        scaled = (2 * np.ravel(np.asarray(position, float)) - low - high) / (high - low)
        return np.asarray(chebyshev.chebvander(scaled, self.order))


@dataclass(frozen=True, slots=True, eq=False)
class LatticeField:
    """Images on a lattice of equal steps, interpolated per pixel; constant outside it.

    Parameters
    ----------
    images : array, shape (n_y, n_x, side, side)
    y, x : array, shape (n_y,), (n_x,)
        Rows and columns of the nodes, parent coordinates, increasing in equal steps.
    interpolation : {"cubic", "linear"}
        Cubic needs four nodes along an axis; axes with fewer are linear.

    Raises
    ------
    FormatError
        When images and nodes do not fit together.
    """

    images: Array
    y: Array
    x: Array
    interpolation: str = "cubic"

    def __post_init__(self) -> None:
        images = np.array(self.images, dtype=np.float64)
        nodes = {"y": np.array(self.y, float), "x": np.array(self.x, float)}
        expected = (nodes["y"].size, nodes["x"].size)
        if images.ndim != 4 or images.shape[:2] != expected:
            raise FormatError(
                f"a lattice of {expected[1]} x {expected[0]} nodes cannot have images of shape "
                f"{images.shape}"
            )
        _check_images(images, 4)
        for name, node in nodes.items():
            step = np.diff(node)
            if not (np.isfinite(node).all() and np.all(step > 0) and np.allclose(step, step[:1])):
                raise FormatError(f"the {name} positions of the lattice have no equal steps")
            object.__setattr__(self, name, node)
        if self.interpolation not in ("cubic", "linear"):
            raise FormatError(f"interpolation {self.interpolation!r}; known: cubic, linear")
        object.__setattr__(self, "images", images)

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[-1])

    @property
    def constant(self) -> bool:
        """Whether there is only one node."""
        return self.y.size * self.x.size == 1

    def at_many(self, y: ArrayLike, x: ArrayLike) -> Array:
        """Images at n positions, shape (n, side, side)."""
        rows, columns = self.rows(y), self.columns(x)
        weights = rows[:, :, None] * columns[:, None, :]
        images = np.tensordot(weights, self.images, axes=2)
        return np.asarray(images)

    def separable(self) -> tuple[Array, Array]:
        """Mean and principal images, and their weights at the nodes."""
        shape = self.images.shape
        basis, weights = principal_images(
            self.images.reshape(-1, *shape[2:]), LATTICE_TOLERANCE, shape[0] * shape[1]
        )
        return basis, weights.T.reshape(-1, *shape[:2])

    def rows(self, y: ArrayLike) -> Array:
        """Weight of each row of nodes."""
        return self._weights(self.y, y)

    def columns(self, x: ArrayLike) -> Array:
        """Weight of each column of nodes."""
        return self._weights(self.x, x)

    def _weights(self, nodes: Array, position: ArrayLike) -> Array:
        """Splines of unit vectors: spline interpolation is linear in the values."""
        position = np.ravel(np.asarray(position, float))
        if nodes.size == 1:
            return np.ones((position.size, 1))
        degree = 3 if self.interpolation == "cubic" and nodes.size >= 4 else 1
        from scipy.interpolate import make_interp_spline

        spline = make_interp_spline(nodes, np.eye(nodes.size), k=degree)
        return np.asarray(spline(np.clip(position, nodes[0], nodes[-1])))


@dataclass(frozen=True, slots=True, eq=False)
class CellField:
    """Images that jump: each position has that of the nearest centre.

    Parameters
    ----------
    images : array, shape (n, side, side)
        NaN where unknown.
    y, x : array, shape (n,)
        Centres, parent coordinates.
    """

    images: Array
    y: Array
    x: Array

    def __post_init__(self) -> None:
        images = np.array(self.images, dtype=np.float64)
        y, x = np.array(self.y, float), np.array(self.x, float)
        _check_images(np.where(np.isnan(images), 0, images), 3)
        if not (y.shape == x.shape == images.shape[:1] and len(images)):
            raise FormatError(f"{y.size} centres cannot have images of shape {images.shape}")
        if not (np.isfinite(y).all() and np.isfinite(x).all()):
            raise FormatError("the centre of a cell is not finite")
        for name, value in (("images", images), ("y", y), ("x", x)):
            object.__setattr__(self, name, value)

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[-1])

    @property
    def constant(self) -> bool:
        """Whether there is only one cell."""
        return len(self.images) == 1

    def cell_of(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.int64]:
        """Index of the nearest centre, shape (n,)."""
        from scipy.spatial import cKDTree

        tree = cKDTree(np.stack([self.y, self.x], axis=1))
        points = np.stack([np.ravel(y), np.ravel(x)], axis=1)
        return np.asarray(tree.query(points)[1], dtype=np.int64)

    def at_many(self, y: ArrayLike, x: ArrayLike) -> Array:
        """Images at n positions, shape (n, side, side)."""
        return np.asarray(self.images[self.cell_of(y, x)])


Kernel = ChebyshevField | LatticeField | CellField
"""What a matching kernel can be."""


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
    order = int(np.sqrt(2 * n_term)) - 1
    if n_term < 1 or n_terms(order) != n_term:
        raise FormatError(f"{n_term} terms; a polynomial in x and y has 1, 3, 6, 10, 15, ...")
    return order


def exponents(order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Degrees in x and in y of each term.

    Total degree n ascending, inside it j = 0 ... n for ``T_{n-j}(x) T_j(y)``.
    """
    pairs = [(n - j, j) for n in range(order + 1) for j in range(n + 1)]
    px, py = np.array(pairs, dtype=np.int64).T
    return px, py


def principal_images(images: Array, tolerance: float, max_rank: int) -> tuple[Array, Array]:
    """Write images as their mean plus a mix of as few others as needed.

    Parameters
    ----------
    images : array, shape (n, side, side)
    tolerance : float
        Root of the summed squares left over, relative to that of the images.
    max_rank : int
        Most images besides the mean.

    Returns
    -------
    basis : array, shape (1 + rank, side, side)
        The mean first.
    weights : array, shape (n, 1 + rank)
        ``images ~ weights @ basis``; the first column is 1.
    """
    flat = images.reshape(len(images), -1)
    mean = flat.mean(axis=0)
    u, s, vt = np.linalg.svd(flat - mean, full_matrices=False)
    left = np.sqrt(np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0))  # after 0, 1, ... components
    rank = int(np.argmax(left <= tolerance * np.linalg.norm(flat)))
    rank = min(rank, max_rank)
    basis = np.concatenate([mean[None], vt[:rank]]).reshape(-1, *images.shape[1:])
    weights = np.concatenate([np.ones((len(flat), 1)), u[:, :rank] * s[:rank]], axis=1)
    return basis, weights


def _mixed(field: Field, y: ArrayLike, x: ArrayLike) -> Array:
    basis, matrices = field.separable()
    weights = np.einsum("ni,bij,nj->nb", field.rows(y), matrices, field.columns(x))
    images = weights @ basis.reshape(len(basis), -1)
    return np.asarray(images.reshape(-1, field.side, field.side))


def _check_images(images: Array, n_axis: int) -> None:
    if images.ndim != n_axis or images.shape[-1] != images.shape[-2] or images.shape[-1] % 2 == 0:
        raise FormatError(f"images of a field have odd equal sides, found shape {images.shape}")
    if not np.isfinite(images).all():
        raise FormatError("the images of a field are not all finite")
