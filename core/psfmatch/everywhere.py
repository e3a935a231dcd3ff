"""A kernel for every position: how many nodes and which order the PSF needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coblend.core.box import Box
from coblend.core.params.match import MatchParams
from coblend.core.psf.fields import Array, ChebyshevField, LatticeField, n_terms
from coblend.core.psfmatch.spatial import (
    chebyshev_nodes,
    domain_of,
    fit_field,
    midpoints,
    node_counts,
)
from coblend.core.psfmatch.transform import residual

Pairs = Callable[[Array, Array], tuple[Array, Array]]
"""Source and target stamps at positions ``(y, x)``."""
Solver = Callable[[Array, Array], Array]

NODE_STEPS = (6, 8, 12)
FIRST_ORDER, LAST_ORDER = 2, 8
NODES_PER_TERM = 1.5
CLOSE_TO_BEST = 1.1


def fit_everywhere(
    pairs: Pairs, box: Box, solve: Solver, params: MatchParams
) -> tuple[ChebyshevField | LatticeField, float, list[str]]:
    """Solve at nodes and fit the variation between them.

    For each number of nodes the lowest order is taken whose residual, at the nodes and midway
    between them, is close to the best of all orders. Nodes are added until it is no worse than
    twice the tolerance or 1.5 times that of the kernels solved at the nodes. A PSF that no
    polynomial follows gets a lattice of kernels with splines between them.

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
        Largest residual at the nodes and midway between them, over the peak of the reference.
    warnings : list of str
    """
    domain = domain_of(box)
    order = params.spatial_order or 0
    enough = int(np.ceil(np.sqrt(NODES_PER_TERM * n_terms(order))))
    first = max(params.nodes, enough, order + 1)
    for n in (first, *(n for n in NODE_STEPS if n > first)):
        counts = node_counts(box, n)
        y, x = chebyshev_nodes(domain, counts)
        source, target = pairs(y, x)
        kernels = _solve_all(solve, source, target)
        solved = _worst(kernels, source, target)
        test_y, test_x = np.concatenate([(y, x), midpoints(domain, counts)], axis=1)
        source, target = pairs(test_y, test_x)
        fields = [
            fit_field(
                kernels, y, x, domain, order, params.rank_tolerance, params.max_rank,
                unit_sum=True,
            )
            for order in _orders(counts, params.spatial_order)
        ]  # fmt: skip
        errors = np.array([_worst(f.at_many(test_y, test_x), source, target) for f in fields])
        choice = int(np.flatnonzero(errors <= CLOSE_TO_BEST * errors.min())[0])
        field, error = fields[choice], float(errors[choice])
        if error <= max(2 * params.tolerance, 1.5 * solved):
            return field, error, []
        if params.spatial_order is not None:
            return field, error, [
                f"order {params.spatial_order} leaves {error:.1e} of the peak, solving at the "
                f"nodes {solved:.1e}: leave spatial_order unset or raise it"
            ]  # fmt: skip
    note = (
        f"the PSF is not smooth: {error:.1e} of the peak remains, {solved:.1e} where kernels were "
        "solved; if it jumps, give it as cells (PSFINTRP NEAREST)"
    )
    lattice = _lattice(pairs, box, solve)
    between = _worst(lattice.at_many(test_y, test_x), source, target)
    return (lattice, between, [note]) if between < error else (field, error, [note])


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
