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

from coblend.core.deblend.fitting.adaprox import GradientSteps
from coblend.core.deblend.fitting.components import (
    PADDING,
    Centres,
    Floats,
    Stack,
    allowed_radii,
    limits_of,
    limits_of_light,
    members_of,
    radii_of,
    sources_in,
    stack_stamps,
    support_radius,
)
from coblend.core.deblend.fitting.converge import FluxWatch, Progress
from coblend.core.deblend.fitting.evaluate import TINY, correlated_data, evaluate
from coblend.core.deblend.fitting.majorize import extrapolate, step
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.sharpen import sharpened
from coblend.core.deblend.fitting.spectra import normal_equations
from coblend.core.deblend.fitting.start import first_spectra, gradient_noise, solve_spectra
from coblend.core.params.deblend import DeblendParams

_SHARP = 16
"""Iterations with a sharpened gradient, which does not vanish where the loss is least."""
_EVERY = 4
"""Iterations between adaptations of the gradient."""
_SOLVE = 8
"""Iterations between solutions for the spectra, which otherwise only follow the morphologies; the
first comes after half as many."""
_IDLE = 2
"""Iterations without progress that count as one: momentum and spectra make the loss waver."""
_FINE = 1e-4
"""Tolerance below which every factor of ten needs as much patience again."""
_SET_BACK = 2.0
"""What a higher loss takes off Nesterov's sequence, which grows by 1/2 per iteration: enough to
stop an overshoot. To start anew would throw away what a few solved spectra have disturbed."""
_CROWD = 4
"""Sources of a blend beyond which the price of asymmetry falls, with the root of their number: it
would lift the loss of crowded blends above that of a coarser fit."""
_SHORTER, _LONGER = 1.25, 0.97
"""Factors of the damping after iterations that raised or lowered the loss."""
_DIVERGED = 8
"""Damping beyond which a fit counts as having diverged."""
_RUNAWAY = 10
"""A loss this much higher than at the start calls for a new start with shorter steps."""
_SHRINK = 0.7
"""Stamps shrink when less than this fraction of their radius is needed."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted components of all blends of one observation.

    Parameters
    ----------
    centres : Centres
    stacks : list of Stack
    spectra : array, shape (k, n_band), float32
        In units of the noise.
    loss_init : array, shape (n,), float64
        Half the weighted sum of squared residuals at the start.
    n_iter : array, shape (n,), int64
    converged, diverged : array, shape (n,), bool
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
    """
    n = len(observation)
    systems = normal_equations(observation, stacks)
    spectra = first_spectra(observation, centres, stacks, systems, params)
    noise = gradient_noise(systems, spectra)
    unit = np.ones(observation.n_band) if unit is None else unit
    n_iter, damping = np.zeros(n, np.int64), np.ones(n)
    converged = np.zeros(n, bool)
    loss_init = np.full(n, np.nan)
    done: list[Stack] = []
    patience = params.patience
    if params.optimizer == "accelerated":
        patience *= _idle(params.relative_error)
    live = _Live.begin(observation, centres, stacks, spectra, noise, unit, params)
    for it in range(params.max_iter):
        if live.steps is not None:
            live.advance_along_gradient(live.steps, it)
            live.retreat(live.steps, _RUNAWAY * loss_init[live.blends])
        else:
            live.advance(params)
            if it % _EVERY == 0 and it <= _SHARP:
                live.sharpen(it)
            if it + 1 == _SOLVE // 2 or (it + 1) % _SOLVE == 0:
                live.solve_joint_spectra()
        if it == 0:
            loss_init = live.progress.loss
        if params.resize_every and it and it % params.resize_every == 0:
            live.resize(params)
        n_iter[live.blends] = it + 1
        damping[live.blends] = live.damping
        calm = (live.progress.calm >= patience) & live.settled() & (it >= params.min_iter)
        finished = calm | ((live.damping > _DIVERGED) & (live.steps is not None))
        if finished.any():
            converged[live.blends[calm]] = True
            spectra[live.rows] = live.spectra
            done += live.retire(finished)
        if not len(live.blends):
            break
    spectra[live.rows] = live.spectra
    done += live.retire(np.ones(len(live.blends), bool))
    final = stack_stamps(radii_of(done, len(centres)), centres, done)
    # with the reference system's steps, morphologies have met the limits of these spectra
    for stack in final if params.optimizer == "accelerated" else ():
        limit = params.background_thresh / np.maximum(spectra[stack.rows].max(1), TINY)
        stack.morph[stack.morph < np.minimum(limit, 1)[:, None, None]] = 0
    reach = np.zeros(len(centres), np.int64)
    for stack in final:
        reach[stack.rows] = np.maximum(support_radius(stack.morph), 1)
    final = stack_stamps(reach, centres, final)
    return Fit(centres, final, spectra, loss_init, n_iter, converged, damping > _DIVERGED)


def _idle(relative_error: float) -> int:
    """How many iterations without progress count as one."""
    return round(_IDLE * (1 + max(0.0, math.log10(_FINE / max(relative_error, 1e-12)))))


@dataclass(slots=True)
class _Live:
    """The blends that are still moving, and what the iteration remembers of them.

    ``blends`` and ``rows`` tell which blends and components of the whole they are.
    """

    observation: Observation
    centres: Centres
    members: list[list[int]]
    stacks: list[Stack]
    spectra: Floats
    blends: NDArray[np.int64]
    rows: NDArray[np.int64]
    correlated: list[Floats]
    top_weight: Floats
    steps: GradientSteps | None
    safe: list[Stack]
    safe_spectra: Floats
    watch: FluxWatch | None
    nesterov: NDArray[np.float64]
    damping: NDArray[np.float64]
    progress: Progress

    @classmethod
    def begin(
        cls,
        observation: Observation,
        centres: Centres,
        stacks: Sequence[Stack],
        spectra: Floats,
        noise: Floats,
        unit: Floats,
        params: DeblendParams,
    ) -> _Live:
        """Start with everything live."""
        planes = {"accelerated": 2, "fista": 2, "adaprox": 4}[params.optimizer]
        n = len(observation)
        members = members_of(centres, n)
        observation = observation.split(np.array([len(rows) == 1 for rows in members], bool))
        radii, limits = radii_of(stacks, len(centres)), limits_of(stacks, len(centres))
        stacks = stack_stamps(radii, centres, stacks, planes, limits)
        for stack in stacks if planes == 2 else ():
            stack.planes[1] = stack.planes[0]
        steps, safe = None, []
        if params.optimizer != "accelerated":
            steps = GradientSteps.begin(observation, centres, spectra, noise, unit, params)
            if params.rescale_spectra:  # else the loss jumps by design
                safe = stack_stamps(radii, centres, stacks, 2, limits)
        top = np.stack([weight.max((1, 2)) for weight in observation.weight])
        watch = None
        if params.flux_tol:
            flux = np.full(noise.shape, np.inf)
            watch = FluxWatch(params.flux_tol, params.flux_err_floor, noise, flux)
        return cls(
            observation, centres, members, stacks, spectra, np.arange(n), np.arange(len(centres)),
            correlated_data(observation), top, steps, safe, spectra.copy(), watch, np.ones(n),
            np.ones(n), Progress.begin(sources_in(centres, n)),
        )  # fmt: skip

    def advance(self, params: DeblendParams) -> None:
        """One iteration: morphologies move, spectra are rescaled with them."""
        t = (1 + np.sqrt(1 + 4 * self.nesterov**2)) / 2
        momentum = ((self.nesterov - 1) / t).astype(np.float32)
        blend = self.centres.blend
        points = [extrapolate(s, momentum[blend[s.rows]]) for s in self.stacks]
        here = evaluate(self.observation, self.members, points, self.spectra, self.correlated)
        rose = here.loss > self.progress.loss
        self.nesterov = np.maximum(1.0, np.where(rose, t - _SET_BACK, t))
        # steps that overshoot are shortened for a while
        self.damping = np.clip(np.where(rose, _SHORTER, _LONGER) * self.damping, 1, _DIVERGED)
        self.progress.after(here.loss, params.relative_error)
        stiffness = np.einsum("kb,kb,kb->k", here.spectra, here.spectra, self.top_weight[blend])
        damping = self.damping[blend]
        crowd = np.maximum(self.progress.n_source / _CROWD, 1)
        price = (params.asymmetry_price / np.sqrt(crowd))[blend]
        scale = np.ones(len(self.spectra), np.float32)
        for i, (stack, point) in enumerate(zip(self.stacks, points, strict=True)):
            rows = stack.rows
            self.stacks[i], scale[rows] = step(
                stack, point.morph, here.pull[i], here.load[i], stiffness[rows], damping[rows],
                price[rows],
            )  # fmt: skip
        self.spectra = here.spectra * scale[:, None]

    def advance_along_gradient(self, steps: GradientSteps, it: int) -> None:
        """One iteration of the reference system: gradient steps for morphologies and spectra."""
        here = evaluate(
            self.observation, self.members, self.stacks, self.spectra, self.correlated, False
        )
        self.progress.after_any(here.loss, steps.params.relative_error)
        damping = self.damping[self.centres.blend]
        self.spectra = steps.step(self.stacks, self.spectra, here, damping, it)

    def retreat(self, steps: GradientSteps, highest: NDArray[np.float64]) -> None:
        """Put blends of too high a loss back to their start, to go on with shorter steps."""
        wild = ~((self.progress.loss <= highest) | np.isnan(highest))
        wild &= self.damping <= _DIVERGED
        if not wild.any() or not self.safe:
            return
        n, own = len(self.centres), wild[self.centres.blend]
        back = _take(self.safe, own, np.arange(n), np.arange(len(wild)), self.centres)
        both = [*self.stacks, *back]
        planes = len(self.stacks[0].planes)
        self.stacks = stack_stamps(
            radii_of(both, n), self.centres, both, planes, limits_of(both, n)
        )
        self.spectra[own] = self.safe_spectra[own]
        steps.restart(np.flatnonzero(own), self.spectra)
        self.damping[wild] *= 2

    def solve_joint_spectra(self) -> None:
        """Solve for the spectra of blends with several components."""
        joint = np.array([len(rows) > 1 for rows in self.members], bool)[self.centres.blend]
        if joint.any():
            same = np.arange(len(joint)), np.arange(len(self.members))
            stacks = _take(self.stacks, joint, *same, self.centres)
            solved = solve_spectra(self.observation, stacks, len(joint))
            self.spectra[joint] = solved[joint]

    def sharpen(self, it: int) -> None:
        """Sharpen the gradient as far as the residuals are light, not noise; in the end not."""
        loss = self.progress.loss if it < _SHARP else np.zeros(len(self.blends))
        before, self.observation = self.observation, sharpened(self.observation, loss)
        for i, (old, new) in enumerate(zip(before.frames, self.observation.frames, strict=True)):
            if new is not old:
                self.correlated[i] = new.correlate(new.weight * new.data)

    def settled(self) -> NDArray[np.bool_]:
        """Blends whose fluxes have settled, shape (n,)."""
        if self.watch is None:
            return np.ones(len(self.blends), bool)
        return self.watch.settled(self.stacks, self.spectra, self.centres, len(self.blends))

    def resize(self, params: DeblendParams) -> None:
        """Adapt the stamps to the lit pixels."""
        needed = np.zeros(len(self.centres), np.int64)
        limits = self.centres.whole_box()
        for stack in self.stacks:
            top = np.maximum(self.spectra[stack.rows].max(1), TINY)
            lit = stack.morph * top[:, None, None] >= params.background_thresh
            needed[stack.rows] = support_radius(lit) + PADDING
            limits[stack.rows] = limits_of_light(lit, self.centres.select(stack.rows))
        planes = len(self.stacks[0].planes)
        if self.steps is not None and params.edge == "zero":
            self.stacks = stack_stamps(
                self.centres.radii_of(limits), self.centres, self.stacks, planes, limits
            )
            return
        now = radii_of(self.stacks, len(self.centres))
        new = allowed_radii(needed, self.centres)
        new = np.where((new < now) & (new > _SHRINK * now), now, new)
        if (new != now).any():
            self.stacks = stack_stamps(new, self.centres, self.stacks, planes)

    def retire(self, finished: NDArray[np.bool_]) -> list[Stack]:
        """Remove finished blends; return their stamps as components of the whole."""
        blend = self.centres.blend
        gone = finished[blend]
        out = _take(self.stacks, gone, self.rows, self.blends, self.centres)
        kept_blends, kept_rows = np.flatnonzero(~finished), np.flatnonzero(~gone)
        number, position = np.cumsum(~finished) - 1, np.cumsum(~gone) - 1
        self.stacks = _take(self.stacks, ~gone, position, number, self.centres)
        self.safe = _take(self.safe, ~gone, position, number, self.centres)
        self.correlated = [
            array[~finished[frames.blends]]
            for frames, array in zip(self.observation.frames, self.correlated, strict=True)
            if not finished[frames.blends].all()
        ]
        self.observation = self.observation.select(~finished)
        self.centres = self.centres.select(kept_rows).with_blend(number[blend[kept_rows]])
        self.members = members_of(self.centres, len(kept_blends))
        self.spectra, self.rows = self.spectra[kept_rows], self.rows[kept_rows]
        self.safe_spectra = self.safe_spectra[kept_rows]
        self.steps = self.steps and self.steps.select(kept_rows)
        self.watch = self.watch and self.watch.select(kept_rows)
        self.progress = self.progress.select(kept_blends)
        for name in ("blends", "top_weight", "nesterov", "damping"):
            setattr(self, name, getattr(self, name)[kept_blends])
        return out


def _take(
    stacks: Sequence[Stack],
    chosen: NDArray[np.bool_],
    rows: NDArray[np.int64],
    blends: NDArray[np.int64],
    centres: Centres,
) -> list[Stack]:
    """Stamps of the chosen components, under other numbers of components and blends."""
    out = []
    for stack in stacks:
        index = np.flatnonzero(chosen[stack.rows])
        if len(index):
            own = stack.rows[index]
            out.append(stack.take(index, rows[own], blends[centres.blend[own]]))
    return out
