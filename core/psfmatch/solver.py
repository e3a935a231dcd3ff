"""One kernel for one pair of stamps, with the family and strength that the options ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coblend.core.params.match import MatchParams
from coblend.core.psf.fields import Array
from coblend.core.psfmatch.al import (
    EXTENDED_DEGREES,
    EXTENDED_RIDGE,
    EXTENDED_SIGMAS,
    al_basis,
    solve_al,
)
from coblend.core.psfmatch.delta import solve_delta
from coblend.core.psfmatch.diagnose import largest_gain, noise_gain
from coblend.core.psfmatch.regularize import GRID, Solve, choose_strength, hardest

N_PROBE = 3
"""Pairs that are solved to choose the strength: the smallest that any of them needs serves all."""


@dataclass(frozen=True, slots=True, eq=False)
class DeltaSolver:
    """Kernels with one unknown per pixel, all with the same ridge.

    A ridge that varied would make the kernels rough over the image.
    """

    side: int
    alpha: float
    strength: float
    noise: Array | None = None

    def __call__(self, source: Array, target: Array) -> Array:
        """Solve for the kernel of one pair."""
        return solve_delta(source, target, self.side, self.strength, self.alpha, self.noise)


@dataclass(frozen=True, slots=True, eq=False)
class AlSolver:
    """Kernels that are sums of basis images."""

    basis: Array
    strength: float

    def __call__(self, source: Array, target: Array) -> Array:
        """Solve for the kernel of one pair."""
        return solve_al(source, target, self.basis, self.strength)


Solver = DeltaSolver | AlSolver


def make_solver(
    source: Array, target: Array, side: int, params: MatchParams, noise: Array | None
) -> Solver:
    """Choose the family of kernels, and the strength of the ridge for all pairs of stamps.

    Parameters
    ----------
    source, target : array, shape (n, side, side)
        Stamps at the nodes; the three that are hardest to match are tried.
    side : int
        Side of the kernel.
    params : MatchParams
    noise : array, optional
    """
    if params.method == "al":
        basis = al_basis(side, params.al_sigmas, params.al_degrees)
        return AlSolver(basis, params.regularization or 0.0)
    if params.method == "al-extended":
        basis = al_basis(side, EXTENDED_SIGMAS, EXTENDED_DEGREES)
        return AlSolver(
            basis, EXTENDED_RIDGE if params.regularization is None else params.regularization
        )
    if params.regularization is not None:
        return DeltaSolver(side, params.alpha, params.regularization, noise)
    chosen = hardest(source, target, params.tolerance, N_PROBE)
    probes = [(source[i], target[i]) for i in chosen]

    def solve(s: Array, t: Array, strength: float) -> Array:
        return solve_delta(s, t, side, strength, params.alpha, noise)

    strength = choose_strength(probes, solve, params.tolerance)
    if params.deconvolution != "allow":
        strength = _within_limits(probes, solve, strength, params)
    return DeltaSolver(side, params.alpha, strength, noise)


def _within_limits(
    probes: Sequence[tuple[Array, Array]], solve: Solve, strength: float, params: MatchParams
) -> float:
    """Raise the strength until no kernel amplifies noise or a frequency too much."""
    index = int(np.searchsorted(-GRID, -strength))
    for source, target in probes:
        while index > 0:
            kernel = solve(source, target, float(GRID[index]))
            if (
                noise_gain(kernel) <= params.max_noise_gain
                and largest_gain(kernel) <= params.max_gain
            ):
                break
            index -= 1
    return float(GRID[index])
