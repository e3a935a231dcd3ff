"""From kernels at nodes to a kernel everywhere: principal images with polynomial weights."""

from __future__ import annotations

import numpy as np

from coblend.core.box import Box
from coblend.core.psf import CellPsf, Psf
from coblend.core.psf.fields import Array, ChebyshevField, exponents, n_terms, principal_images
from coblend.core.psfmatch.convolve import label_cells

Domain = tuple[float, float, float, float]


def domain_of(box: Box) -> Domain:
    """Outer pixel edges ``x_min, x_max, y_min, y_max`` of a box."""
    return box.x0 - 0.5, box.x1 - 0.5, box.y0 - 0.5, box.y1 - 0.5


def node_counts(box: Box, n: int) -> tuple[int, int]:
    """Nodes along y and x: ``n`` each for a square, more along the longer side of a strip."""
    stretch = np.sqrt(box.ny / box.nx)
    counts = np.clip(np.round([n * stretch, n / stretch]), n, max(12, n)).astype(int)
    return int(counts[0]), int(counts[1])


def cell_centres(psf: Psf, box: Box) -> tuple[Array, Array] | None:
    """Centres of the cells that own a pixel of a box, y and x, for a PSF that jumps.

    None for other PSFs. When a map of regions decides where a cell holds, all cells count.
    """
    if not isinstance(psf, CellPsf) or psf.interpolation != "nearest" or psf.constant:
        return None
    if psf.regions is not None:
        return psf.y, psf.x
    used = np.unique(label_cells(psf.field, box))
    return psf.y[used], psf.x[used]


def chebyshev_nodes(domain: Domain, counts: tuple[int, int]) -> tuple[Array, Array]:
    """Positions of the Chebyshev nodes of a domain, y and x, each shape (n_y * n_x,)."""
    x_min, x_max, y_min, y_max = domain
    unit = [-np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in counts]
    y = (y_min + y_max) / 2 + unit[0] * (y_max - y_min) / 2
    x = (x_min + x_max) / 2 + unit[1] * (x_max - x_min) / 2
    grid = np.meshgrid(y, x, indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


def midpoints(domain: Domain, counts: tuple[int, int]) -> tuple[Array, Array]:
    """Positions midway between the Chebyshev nodes, where a fit is tested."""
    y, x = chebyshev_nodes(domain, counts)
    y, x = y.reshape(counts), x.reshape(counts)
    middle = [(a[1:, 1:] + a[:-1, :-1]) / 2 for a in (y, x)]
    return middle[0].ravel(), middle[1].ravel()


def fit_field(
    images: Array,
    y: Array,
    x: Array,
    domain: Domain,
    order: int,
    tolerance: float,
    max_rank: int,
    *,
    unit_sum: bool = False,
) -> ChebyshevField:
    """Fit a field to images at nodes: principal images, weights by least squares.

    The number of images to convolve with is the rank, not the number of polynomial terms.

    Parameters
    ----------
    images : array, shape (n, side, side)
    y, x : array, shape (n,)
    domain : tuple of float
    order : int
        Total degree of the polynomials.
    tolerance : float
        What the principal images may leave, relative to the images.
    max_rank : int
    unit_sum : bool
        Whether every image sums to 1; the field then does so exactly everywhere.
    """
    basis, weights = principal_images(images, tolerance, max_rank)
    if unit_sum:
        basis[0] /= basis[0].sum()
        basis[1:] -= basis[1:].sum(axis=(1, 2))[:, None, None] * basis[0]
    blank = ChebyshevField(basis[:1], np.zeros((1, n_terms(order))), domain)
    px, py = exponents(order)
    design = blank.columns(x)[:, px] * blank.rows(y)[:, py]
    fitted = np.linalg.lstsq(design, weights[:, 1:], rcond=None)[0].T
    first = np.zeros((1, n_terms(order)))
    first[0, 0] = 1.0
    return ChebyshevField(basis, np.concatenate([first, fitted]), domain)
