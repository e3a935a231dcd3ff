"""The iteration: render, compare, move morphologies and spectra; all blends in lock step.

Blends of one observation advance together, each with its own momentum, damping and test of
convergence; finished ones leave. The result of a blend does not depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import (
    Centres,
    Floats,
    Stack,
    radii_of,
    stack_stamps,
    support_radius,
)
from coblend.core.deblend.fitting.evaluate import TINY
from coblend.core.deblend.fitting.live import Live
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.spectra import normal_equations
from coblend.core.deblend.fitting.start import first_spectra, gradient_noise
from coblend.core.params.deblend import DeblendParams

_IDLE = 2
"""Iterations without progress that count as one: momentum and spectra make the loss waver."""
_FINE = 1e-4
"""Tolerance below which every factor of ten needs as much patience again."""
_RUNAWAY = 10
"""A loss this much higher than at the start calls for a new start with shorter steps."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted components of all blends of one observation.

    Parameters
    ----------
    centres : Centres
    stacks : list of Stack
    spectra : array, shape (k, n_band), float32 (float64 with ``start="reference"``)
        In units of the noise.
    loss_init : array, shape (n,), float64
        Half the weighted sum of squared residuals at the start; NaN without an iteration.
    n_iter : array, shape (n,), int64
    converged, diverged : array, shape (n,), bool
        Whether a fit has stopped because it moves no more, or because nothing can save it.
    """

    centres: Centres
    stacks: list[Stack]
    spectra: Floats
    loss_init: NDArray[np.float64]
    n_iter: NDArray[np.int64]
    converged: NDArray[np.bool_]
    diverged: NDArray[np.bool_]


def fit(
    observation: Observation,
    centres: Centres,
    stacks: Sequence[Stack],
    params: DeblendParams,
    unit: Floats | None = None,
) -> Fit:
    """Fit spectra and morphologies, starting from the given morphologies.

    Parameters
    ----------
    observation : Observation
        n blends.
    centres : Centres
        k components.
    stacks : sequence of Stack
        Their morphologies, of maximum 1.
    params : DeblendParams
    unit : array, shape (n_band,), optional
        Noise of the bands in the unit in which adaprox moves spectra; by default 1.

    Returns
    -------
    Fit
        Fits that nothing can save are in it, too, flagged as diverged.
    """
    n = len(observation)
    systems = normal_equations(observation, stacks)
    spectra = first_spectra(observation, centres, stacks, systems, params)
    noise = gradient_noise(systems, spectra)
    unit = np.ones(observation.n_band) if unit is None else unit
    n_iter = np.zeros(n, np.int64)
    converged, diverged = np.zeros(n, bool), np.zeros(n, bool)
    loss_init = np.full(n, np.nan)
    done: list[Stack] = []
    patience = params.patience
    if params.optimizer == "accelerated":
        patience *= _idle(params.relative_error)
    live = Live.begin(observation, centres, stacks, spectra, noise, unit, params)
    for it in range(params.max_iter):
        live.iterate(it, params, _RUNAWAY * loss_init[live.blends])
        if it == 0:
            loss_init = live.progress.loss
        if params.resize_every and it and it % params.resize_every == 0:
            live.resize(params)
        n_iter[live.blends] = it + 1
        still = live.watch_fluxes()  # in every iteration: compares with the last one
        calm = (live.progress.calm >= patience) & still & (it >= params.min_iter)
        lost = live.lost()
        if (calm | lost).any():
            converged[live.blends[calm]] = True
            diverged[live.blends[lost]] = True
            spectra[live.rows] = live.spectra
            done += live.retire(calm | lost)
        if not len(live.blends):
            break
    spectra[live.rows] = live.spectra
    done += live.retire(np.ones(len(live.blends), bool))
    final = _final_stamps(done, centres, spectra, params)
    return Fit(centres, final, spectra, loss_init, n_iter, converged, diverged)


def _final_stamps(
    stacks: Sequence[Stack], centres: Centres, spectra: Floats, params: DeblendParams
) -> list[Stack]:
    """Stamps of all components, cut to their lit pixels."""
    final = stack_stamps(radii_of(stacks, len(centres)), centres, stacks)
    if params.optimizer == "accelerated":
        # steps along gradients have met these limits in every iteration
        for stack in final:
            limit = params.background_thresh / np.maximum(spectra[stack.rows].max(1), TINY)
            stack.morph[stack.morph < np.minimum(limit, 1)[:, None, None]] = 0
    reach = np.zeros(len(centres), np.int64)
    for stack in final:
        reach[stack.rows] = np.maximum(support_radius(stack.morph), 1)
    return stack_stamps(reach, centres, final)


def _idle(relative_error: float) -> int:
    """How many iterations without progress count as one."""
    return round(_IDLE * (1 + max(0.0, math.log10(_FINE / max(relative_error, 1e-12)))))
