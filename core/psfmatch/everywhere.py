"""A kernel for every position: how many nodes and which order the PSF needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.params.match import MatchParams
from coblend.core.psf.fields import ChebyshevField, LatticeField, n_terms
from coblend.core.psfmatch.spatial import (
    between_nodes,
    chebyshev_nodes,
    domain_of,
    fit_field,
    node_counts,
)
from coblend.core.psfmatch.transform import residual

Array = NDArray[np.float64]
Pairs = Callable[[Array, Array], tuple[Array, Array]]
"""Source and target stamps at positions ``(y, x)``."""
Solver = Callable[[Array, Array], Array]

NODE_STEPS = (6, 8, 12)
FIRST_ORDER, LAST_ORDER = 2, 8
NODES_PER_TERM = 1.5


def fit_everywhere(
    pairs: Pairs, box: Box, solve: Solver, params: MatchParams
) -> tuple[ChebyshevField | LatticeField, float, list[str]]:
    """Solve at nodes and fit the variation between them.

    The order rises, then the number of nodes, until the residual midway between the nodes is no
    worse than twice the tolerance or 1.5 times that at the nodes. A PSF that no polynomial
    follows gets a lattice of kernels with splines between them.

    Parameters
    ----------
    pairs : callable
        Stamps at positions.
    box : Box
    solve : callable
        Kernel of one pair.
    params : MatchParams

    Returns
    -------
    kernel : Field
    worst : float
        Largest residual midway between the nodes, over the peak of the reference.
    warnings : list of str
    """
    domain = domain_of(box)
    steps = [n for n in NODE_STEPS if n > params.nodes]
    best: tuple[float, ChebyshevField | LatticeField] | None = None
    for n in (params.nodes, *steps):
        counts = node_counts(box, n)
        y, x = chebyshev_nodes(domain, counts)
        source, target = pairs(y, x)
        kernels = _solve_all(solve, source, target)
        at_nodes = _worst(kernels, source, target)
        between = between_nodes(domain, counts)
        source, target = pairs(*between)
        for order in _orders(counts, params.spatial_order):
            field = fit_field(
                kernels, y, x, domain, order, params.rank_tolerance, params.max_rank,
                unit_sum=True,
            )  # fmt: skip
            error = _worst(field.at_many(*between), source, target)
            if best is None or error < best[0]:
                best = error, field
            if error <= max(2 * params.tolerance, 1.5 * at_nodes):
                return field, error, []
        if params.spatial_order is not None:
            break
    assert best is not None
    if params.spatial_order is not None:
        return best[1], best[0], [
            f"order {params.spatial_order} leaves {best[0]:.1e} of the peak between the nodes, "
            f"{at_nodes:.1e} at them: leave spatial_order unset or raise it"
        ]  # fmt: skip
    lattice = _lattice(pairs, box, solve)
    error = _worst(lattice.at_many(*between), source, target)
    if error < best[0]:
        best = error, lattice
    return best[1], best[0], [
        f"the PSF is not smooth: {best[0]:.1e} of the peak remains between the nodes, "
        f"{at_nodes:.1e} at them; if it jumps, give it as cells (PSFINTRP NEAREST)"
    ]  # fmt: skip


def _lattice(pairs: Pairs, box: Box, solve: Solver) -> LatticeField:
    """Kernels on a lattice of equal steps from border to border."""
    counts = node_counts(box, NODE_STEPS[-1])
    y = np.linspace(box.y0 - 0.5, box.y1 - 0.5, counts[0])
    x = np.linspace(box.x0 - 0.5, box.x1 - 0.5, counts[1])
    grid = np.meshgrid(y, x, indexing="ij")
    kernels = _solve_all(solve, *pairs(grid[0].ravel(), grid[1].ravel()))
    return LatticeField(kernels.reshape(*counts, *kernels.shape[1:]), y, x)


def _orders(counts: tuple[int, int], fixed: int | None) -> list[int]:
    if fixed is not None:
        return [fixed]
    most = min(LAST_ORDER, min(counts) - 1)
    enough = counts[0] * counts[1] / NODES_PER_TERM
    return [o for o in range(FIRST_ORDER, most + 1) if n_terms(o) <= enough] or [1]


def _solve_all(solve: Solver, source: Array, target: Array) -> Array:
    return np.stack([solve(s, t) for s, t in zip(source, target, strict=True)])


def _worst(kernels: Array, source: Array, target: Array) -> float:
    left = np.abs(residual(kernels, source, target)).max(axis=(1, 2))
    return float((left / target.max(axis=(1, 2))).max())
