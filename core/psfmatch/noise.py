"""Noise of a convolved image: the kernel squared, and the correlation that appears."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import FormatError
from coblend.core.psf.fields import Array, CellField, ChebyshevField, Kernel, LatticeField
from coblend.core.psf.resample import resized
from coblend.core.psfmatch.spatial import chebyshev_nodes, fit_field
from coblend.core.psfmatch.transform import correlated

N_NODE = 16
SQUARE_TOLERANCE = 1e-4
"""Leaves 3e-4 in the variance of a field of varying seeing; 1e-3 leaves 2e-3."""


def squared(kernel: Kernel) -> Kernel:
    """Field of ``K(u) ** 2``, which convolves the variance.

    Products of polynomials of order o are polynomials of order 2 o; few images suffice.
    """
    if isinstance(kernel, CellField):
        return CellField(kernel.images**2, kernel.y, kernel.x)
    if isinstance(kernel, LatticeField):
        return LatticeField(kernel.images**2, kernel.y, kernel.x, kernel.interpolation)
    y, x = chebyshev_nodes(kernel.domain, (N_NODE, N_NODE))
    if kernel.constant:
        return ChebyshevField.of_constant(kernel.at_many(y[:1], x[:1])[0] ** 2)
    images = kernel.at_many(y, x) ** 2
    order = min(2 * kernel.order, N_NODE - 1)
    return fit_field(images, y, x, kernel.domain, order, SQUARE_TOLERANCE, N_NODE)


def as_correlation(data: NDArray[Any]) -> Array:
    """Check an autocorrelation of noise and scale it to 1 at the centre.

    Raises
    ------
    FormatError
        It is not a square of odd side, or not positive at its centre.
    """
    if data.ndim != 2 or data.shape[0] != data.shape[1] or data.shape[0] % 2 == 0:
        raise FormatError(
            f"a noise autocorrelation of shape {data.shape}, expected a square of odd side"
        )
    centre = float(data[data.shape[0] // 2, data.shape[1] // 2])
    if not 0 < centre < np.inf:
        raise FormatError(f"a noise autocorrelation of {centre:g} at its centre, expected 1")
    return np.asarray(data.astype(np.float64) / centre)


def autocorrelation(kernel: Array, input_noise: Array | None = None) -> Array:
    """Correlation of the noise between pixels at each offset after convolution.

    Parameters
    ----------
    kernel : array, shape (k, k)
    input_noise : array, shape (m, m), optional
        Autocorrelation before; white when absent.

    Returns
    -------
    array, shape (2 k - 1, 2 k - 1), float64
        Centre 1.
    """
    reach = kernel.shape[-1] - 1
    own = correlated(kernel, kernel, reach)
    if input_noise is not None:
        from_input = correlated(input_noise.astype(np.float64), own, reach)
        own = from_input
    return np.asarray(own / own[reach, reach])


def flux_noise_factor(correlation: Array, psf: Array) -> float:
    """Error of a PSF-weighted flux over what the variance plane alone implies."""
    reach = min(correlation.shape[-1] // 2, psf.shape[-1] - 1)
    overlap = correlated(psf, psf, reach)
    near = resized(correlation, 2 * reach + 1)
    return float(np.sqrt(np.sum(overlap * near) / np.sum(psf**2)))
