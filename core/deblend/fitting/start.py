"""Spectra to start from: the best fit to all pixels, or else the images at the peaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Centres, Floats, Stack, sources_in
from coblend.core.deblend.fitting.evaluate import TINY
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.reference import unweighted_spectra
from coblend.core.deblend.fitting.render import render
from coblend.core.deblend.fitting.spectra import NormalEquations, normal_equations, solve
from coblend.core.params.deblend import DeblendParams


def first_spectra(
    observation: Observation,
    centres: Centres,
    stacks: Sequence[Stack],
    systems: Sequence[NormalEquations],
    params: DeblendParams,
) -> Floats:
    """Spectra of all components before the first iteration, shape (k, n_band)."""
    if params.start == "reference":
        spectra = unweighted_spectra(observation, centres, stacks)
    else:
        dtype = observation.frames[0].data.dtype
        spectra = np.maximum(solve(systems, len(centres)), TINY).astype(dtype)
    unsolved = ~solved_at_start(centres, len(observation), params)[centres.blend]
    if unsolved.any():
        spectra[unsolved] = peak_spectra(observation, centres, stacks)[unsolved]
    return spectra


def solve_spectra(observation: Observation, stacks: Sequence[Stack], n_component: int) -> Floats:
    """Non-negative spectra at fixed morphologies, shape (n_component, n_band)."""
    spectra = solve(normal_equations(observation, stacks), n_component)
    return np.maximum(spectra, TINY).astype(observation.frames[0].data.dtype)


def gradient_noise(systems: Sequence[NormalEquations], spectra: Floats) -> Floats:
    """Noise of the gradient of spectra, one over their own errors, shape (k, n_band)."""
    noise = np.zeros_like(spectra)
    for system in systems:
        noise[system.rows] = np.sqrt(np.einsum("bkk->kb", system.gram))
    return noise


def solved_at_start(centres: Centres, n_blend: int, params: DeblendParams) -> NDArray[np.bool_]:
    """Blends whose first spectra are the best fit to all pixels, shape (n_blend,)."""
    if not params.max_spectrum_cutoff:
        return np.full(n_blend, params.set_spectra)
    area = np.zeros(n_blend)
    area[centres.blend] = centres.ny * centres.nx
    return np.asarray(
        params.set_spectra & (sources_in(centres, n_blend) * area < params.max_spectrum_cutoff)
    )


def peak_spectra(observation: Observation, centres: Centres, stacks: Sequence[Stack]) -> Floats:
    """Spectra that put every source's model through its peak pixel, neighbours ignored.

    Returns
    -------
    array, shape (k, n_band), float32
    """
    data = observation.data
    height = np.zeros((len(centres), observation.n_band), np.float32)
    light = np.zeros_like(height)
    for i, rendered in enumerate(render(observation, stacks)):
        for row, (rows, columns), image in rendered:
            y, x = int(centres.y[row]), int(centres.x[row])
            height[row] = image[:, y - rows.start, x - columns.start]
            light[row] = data[i][:, y, x]
    total = np.zeros((int(centres.source.max(initial=-1)) + 1, observation.n_band))
    np.add.at(total, centres.source, height)
    return np.maximum(light / np.maximum(total[centres.source], TINY), TINY).astype(np.float32)
