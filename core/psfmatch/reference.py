"""The fit of the reference system, faults included, to compare with.

Least squares inside the stamps only, no constraint on the sum; the first coefficient is then
overwritten by 1 without fitting the others again (ip_diffim ``ModelPsfMatchTask``,
``SpatialKernelSolution``).
"""

from __future__ import annotations

import numpy as np

from coblend.core.box import Box
from coblend.core.errors import ParameterError
from coblend.core.params.match import MatchParams
from coblend.core.psf.fields import Array, ChebyshevField, exponents, n_terms
from coblend.core.psf.resample import resized
from coblend.core.psfmatch.al import al_basis
from coblend.core.psfmatch.everywhere import Pairs
from coblend.core.psfmatch.spatial import domain_of
from coblend.core.psfmatch.transform import convolved

DEFAULT_SIDE = 21
DEFAULT_ORDER = 2


def stamp_side(own: int, params: MatchParams) -> int:
    """Side to which the reference system pads PSF stamps.

    Raises
    ------
    ParameterError
        When the kernel does not fit into the stamps.
    """
    side = params.kernel_size or DEFAULT_SIDE
    if params.auto_pad_psf:
        wanted = int(np.ceil(side * params.auto_pad_psf_to))
        padded = max(own, wanted + 1 - wanted % 2)
    else:
        padded = own + params.pad_psf_by
    largest = padded - 1 - padded % 2
    if side > largest:
        raise ParameterError(
            f"a kernel of {side} pixels does not fit into PSF stamps of {padded} pixels",
            hint=f"use kernel_size {largest} or less, auto_pad_psf, or a larger pad_psf_by",
        )
    return padded


def grown_cells(box: Box, cell: int) -> tuple[Array, Array]:
    """Centres of the cells of a box grown by one cell on every side, y and x."""
    grown = box.grow(cell)
    centres = []
    for first, n in ((grown.y0, grown.ny), (grown.x0, grown.nx)):
        count = n // cell
        centres.append(first - 0.5 + (np.arange(count) + 0.5) * n / count)
    grid = np.meshgrid(*centres, indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


def fit_reference(
    pairs: Pairs, box: Box, params: MatchParams, *, constant: bool
) -> ChebyshevField:
    """Fit a kernel as the reference system does.

    Parameters
    ----------
    pairs : callable
        Stamps at positions.
    box : Box
    params : MatchParams
    constant : bool
        Whether both PSFs are constant; then one node and order 0 give the same kernel.
    """
    side = params.kernel_size or DEFAULT_SIDE
    order = DEFAULT_ORDER if params.spatial_order is None else params.spatial_order
    order = 0 if constant else order
    basis = al_basis(side, params.al_sigmas, params.al_degrees)
    domain = domain_of(box.grow(params.cell_size))
    y, x = grown_cells(box, params.cell_size)
    if constant:
        y, x = y[:1], x[:1]
    source, target = pairs(y, x)
    padded = stamp_side(source.shape[-1], params)
    source, target = resized(source, padded), resized(target, padded)
    products = np.empty((len(y), len(basis), len(basis)))
    moments = np.empty((len(y), len(basis)))
    inner = padded - side + 1
    for i, (s, t) in enumerate(zip(source, target, strict=True)):
        columns = resized(convolved(s, basis), inner).reshape(len(basis), -1)
        products[i] = columns @ columns.T
        moments[i] = columns @ resized(t, inner).ravel()
    blank = ChebyshevField(basis[:1], np.zeros((1, n_terms(order))), domain)
    px, py = exponents(order)
    terms = blank.columns(x)[:, px] * blank.rows(y)[:, py]
    return ChebyshevField(basis, _joint_fit(products, moments, terms), domain)


def _joint_fit(products: Array, moments: Array, terms: Array) -> Array:
    """Coefficients of all nodes at once: the first basis image constant, the others varying."""
    n_basis, n_term = products.shape[1], terms.shape[1]
    matrix = np.einsum("nij,np,nq->ipjq", products, terms, terms, optimize=True)
    vector = np.einsum("ni,np->ip", moments, terms)
    keep = np.ones((n_basis, n_term), dtype=bool)
    keep[0, 1:] = False
    used = np.flatnonzero(keep)
    matrix = matrix.reshape(n_basis * n_term, -1)[np.ix_(used, used)]
    solution = np.zeros(n_basis * n_term)
    solution[used] = np.linalg.lstsq(matrix, vector.ravel()[used], rcond=1e-15)[0]
    solution[0] = 1.0
    return solution.reshape(n_basis, n_term)
