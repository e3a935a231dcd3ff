"""Kernels that are sums of Gaussians times polynomials (Alard & Lupton 1998; Alard 2000).

The first basis image sums to 1, every other to 0, so its coefficient is the sum of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coblend.core.psf.fields import Array
from coblend.core.psfmatch.transform import convolved

EXTENDED_SIGMAS = (0.7, 1.5, 3.0, 6.0)
EXTENDED_DEGREES = (6, 4, 2, 2)
EXTENDED_RIDGE = 1e-6
"""Basis and ridge of method ``al-extended``."""

RCOND = 1e-12


def al_basis(side: int, sigmas: Sequence[float], degrees: Sequence[int]) -> Array:
    """Build the basis images.

    Gaussians of unit sum times monomials ``(x / sigma)^a (y / sigma)^b``, total degree ascending,
    the power of x descending inside it. All but the first lose their sum by projection on the
    first (dividing by the sum fails where it nearly vanishes) and get unit norm.

    Parameters
    ----------
    side : int
        Side of the kernel, odd.
    sigmas : sequence of float
        Widths of the Gaussians, pixel.
    degrees : sequence of int
        Degree of the polynomial of each.

    Returns
    -------
    array, shape (n_basis, side, side)
    """
    axis = np.arange(side) - side // 2
    images = []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        profile = np.exp(-0.5 * (axis / sigma) ** 2)
        profile /= profile.sum()
        powers = [profile * (axis / sigma) ** p for p in range(degree + 1)]
        images += [
            np.outer(powers[total - x], powers[x])
            for total in range(degree + 1)
            for x in range(total, -1, -1)
        ]
    basis = np.stack(images)
    for _ in range(2):  # once more for what rounding left
        basis[1:] -= basis[1:].sum(axis=(1, 2))[:, None, None] * basis[0]
        basis[1:] /= np.linalg.norm(basis[1:], axis=(1, 2))[:, None, None]
    return basis


def solve_al(source: Array, target: Array, basis: Array, ridge: float = 0.0) -> Array:
    """Solve for the matching kernel of one pair of stamps, sum 1 exactly.

    Least squares over the whole domain of ``P_s * K - P_r`` plus ``ridge |K|^2``, by SVD: the
    normal equations have condition numbers of 1e10.

    Parameters
    ----------
    source, target : array, shape (n, n)
    basis : array, shape (n_basis, side, side)
        From `al_basis`.
    ridge : float
        For stamps of unit sum.

    Returns
    -------
    array, shape (side, side)
    """
    n = len(basis)
    columns = convolved(source, basis)
    wanted = np.zeros(columns.shape[1:])
    edge = (columns.shape[-1] - target.shape[-1]) // 2
    wanted[edge : edge + target.shape[-1], edge : edge + target.shape[-1]] = target
    images = np.concatenate(
        [columns.reshape(n, -1), np.sqrt(ridge) * basis.reshape(n, -1)], axis=1
    )
    right = -images[0]
    right[: wanted.size] += wanted.ravel()
    scale = np.linalg.norm(images[1:], axis=1)
    weights = np.linalg.lstsq((images[1:] / scale[:, None]).T, right, rcond=RCOND)[0] / scale
    return np.asarray(basis[0] + np.tensordot(weights, basis[1:], axes=1))
