"""Kernels with one unknown per pixel, a ridge that grows outwards, and an exact sum.

Minimise ``|P_s * K - P_r|^2 + lam E_s sum_u w(u) K(u)^2`` subject to ``sum K = 1``, with
``w(u) = 1 + alpha |u|^2 / h^2`` and ``E_s = sum P_s^2``. For a given support the ridge traces the
lower envelope of residual against noise gain; the weight keeps the kernel compact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg

from coblend.core.errors import FormatError
from coblend.core.psf.fields import Array
from coblend.core.psfmatch.transform import correlated

LARGEST_DENSE = 61
"""Larger kernels are solved by conjugate gradients: the dense cost grows as side ** 6."""
JITTER = 1e-15
"""Fraction of the mean diagonal added so that rounding cannot make the matrix indefinite."""
CG_TOLERANCE = 1e-10
CG_ITERATIONS = 2000


def radial_weight(side: int, alpha: float) -> Array:
    """Weight of the ridge at each kernel pixel, ``1 + alpha r^2 / h^2``."""
    axis = (np.arange(side) - side // 2) / (side // 2)
    return np.asarray(1 + alpha * (axis[:, None] ** 2 + axis[None, :] ** 2))


def solve_delta(
    source: Array,
    target: Array,
    side: int,
    lam: float,
    alpha: float,
    noise: Array | None = None,
) -> Array:
    """Solve for the matching kernel of one pair of stamps.

    Parameters
    ----------
    source, target : array, shape (n, n)
        PSFs of unit sum, odd sides.
    side : int
        Side of the kernel, odd.
    lam : float
        Strength of the ridge relative to the energy of the source.
    alpha : float
        Growth of the ridge with radius.
    noise : array, shape (m, m), optional
        Autocorrelation of the input noise, centre 1; white when absent.

    Returns
    -------
    array, shape (side, side), float64
        Sums to 1; true convolution of the source with it approaches the target.

    Raises
    ------
    FormatError
        When the system has no finite solution.
    """
    solve = _dense if side <= LARGEST_DENSE else _iterative
    ridge = lam * float(np.sum(source**2))
    kernel = solve(source, target, radial_weight(side, alpha), ridge, noise)
    if not np.isfinite(kernel).all():
        raise FormatError(
            f"the matching kernel of side {side} has no finite solution",
            hint="raise the regularization or use a wider reference",
        )
    return kernel


def _dense(
    source: Array, target: Array, weight: Array, ridge: float, noise: Array | None
) -> Array:
    """Cholesky solution: ``y = A^-1 b``, ``z = A^-1 1``, ``K = y + z (1 - sum y) / sum z``."""
    side = len(weight)
    half = side // 2
    lag = correlated(source, source, 2 * half)
    if noise is not None:
        lag = lag + ridge * _off_centre(noise, 2 * half)
    matrix = _toeplitz(lag, side)
    diagonal = ridge * weight.ravel()
    matrix.flat[:: side**2 + 1] += diagonal + JITTER * (lag[2 * half, 2 * half] + diagonal.mean())
    right = np.stack([correlated(target, source, half).ravel(), np.ones(side**2)], axis=1)
    factor = linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
    y, z = linalg.cho_solve(factor, right, overwrite_b=True, check_finite=False).T
    return np.asarray((y + z * ((1 - y.sum()) / z.sum())).reshape(side, side))


def _iterative(
    source: Array, target: Array, weight: Array, ridge: float, noise: Array | None
) -> Array:
    """Solve for both right-hand sides by preconditioned conjugate gradients with FFTs."""
    side = len(weight)
    half = side // 2
    period = fft.next_fast_len(2 * side + source.shape[-1], real=True)
    lag = correlated(source, source, 2 * half)
    if noise is not None:
        lag = lag + ridge * _off_centre(noise, 2 * half)
    room = np.zeros((period, period))
    offsets = np.arange(-2 * half, 2 * half + 1) % period
    room[np.ix_(offsets, offsets)] = lag
    power = fft.rfft2(room)
    smooth = 1 / (np.maximum(power.real, 0) + ridge * float(weight.mean()))

    def apply(spectrum: NDArray[np.complex128], x: Array) -> Array:
        full = fft.irfft2(spectrum * fft.rfft2(x, (period, period)), (period, period))
        return np.asarray(full[..., :side, :side])

    right = np.stack([correlated(target, source, half), np.ones((side, side))])
    x = np.zeros_like(right)
    rest = right.copy()
    ready = apply(smooth, rest)
    direction = ready.copy()
    product = _dot(rest, ready)
    for _ in range(CG_ITERATIONS):
        image = apply(power, direction) + ridge * weight * direction
        step = product / _dot(direction, image)
        x += step * direction
        rest -= step * image
        if np.all(_dot(rest, rest) <= CG_TOLERANCE**2 * _dot(right, right)):
            break
        ready = apply(smooth, rest)
        new = _dot(rest, ready)
        direction = ready + (new / product) * direction
        product = new
    y, z = x
    return np.asarray(y + z * ((1 - y.sum()) / z.sum()))


def _toeplitz(lag: Array, side: int) -> Array:
    """Matrix ``M[u, v] = lag(u - v)`` over the pixels of a kernel."""
    index = np.arange(side)
    offset = index[:, None] - index[None, :] + side - 1
    matrix = lag[offset[:, None, :, None], offset[None, :, None, :]]
    return np.ascontiguousarray(matrix.reshape(side**2, side**2))


def _off_centre(noise: Array, reach: int) -> Array:
    """Noise autocorrelation without its centre, on offsets up to ``reach``."""
    half = min(noise.shape[-1] // 2, reach)
    middle = noise.shape[-1] // 2
    inner = noise[middle - half : middle + half + 1, middle - half : middle + half + 1]
    out = np.pad(inner.astype(np.float64), reach - half)
    out[reach, reach] = 0.0
    return out


def _dot(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(axis=(-2, -1), keepdims=True))
