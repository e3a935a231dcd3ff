"""The blends that an iteration moves: their state, and what one iteration does to it."""

from __future__ import annotations

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
from coblend.core.deblend.fitting.start import solve_spectra
from coblend.core.params.deblend import DeblendParams

_SHARP = 16
"""Iterations with a sharpened gradient, which does not vanish where the loss is least."""
_SHARPEN_EVERY = 4
"""Iterations between adaptations of the gradient."""
_SOLVE_EVERY = 8
"""Iterations between solutions for the spectra, which otherwise only follow the morphologies; the
first comes after half as many."""
_SET_BACK = 2.0
"""What a higher loss takes off Nesterov's sequence, which grows by 1/2 per iteration: enough to
stop an overshoot. To start anew would throw away what a few solved spectra have disturbed."""
_CROWDED = 4
"""Sources of a blend beyond which the price of asymmetry falls, with the root of their number: it
would lift the loss of crowded blends above that of a coarser fit."""
_SHORTER, _LONGER = 1.25, 0.97
"""Factors of the damping after iterations that raised or lowered the loss."""
_MOST_DAMPING = 8
"""Largest damping of accelerated steps."""
_GIVE_UP = 8
"""Damping of steps along gradients beyond which a fit has diverged."""
_SHRINK = 0.7
"""Stamps shrink when less than this fraction of their radius is needed."""


@dataclass(slots=True)
class Live:
    """The blends that are still moving, and what the iteration remembers of them.

    Parameters
    ----------
    observation, centres, members, spectra
        Of these blends, numbered anew; ``members`` are the components of each blend.
    stacks : list of Stack
        Plane 0 holds the morphologies; accelerated steps keep those before in plane 1, fista where
        the next step starts, adaprox its moments in planes 1 to 3.
    blends, rows : array, shape (n,) and (k,), int64
        Which blends and components of the whole they are.
    correlated : list of array
        ``K'(w d)`` per group of frames.
    top_weight : array, shape (n, n_band)
        Largest weight of each blend.
    steps : GradientSteps or None
        None with accelerated steps.
    safe, safe_spectra
        The start, to which `retreat` returns; empty where it never does.
    watch : FluxWatch or None
    nesterov, damping : array, shape (n,), float64
        Nesterov's sequence, and what steps are divided by.
    progress : Progress
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
    ) -> Live:
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

    def iterate(self, it: int, params: DeblendParams, highest: NDArray[np.float64]) -> None:
        """One iteration, number ``it`` from 0.

        Steps along gradients start anew, and shorter, where the loss exceeds ``highest``, shape
        (n,).
        """
        if self.steps is not None:
            self.advance_along_gradient(self.steps, it)
            self.retreat(self.steps, highest)
            return
        self.advance(params, it)
        if it % _SHARPEN_EVERY == 0 and it <= _SHARP:
            self.sharpen(it)
        if it + 1 == _SOLVE_EVERY // 2 or (it + 1) % _SOLVE_EVERY == 0:
            self.solve_joint_spectra()

    def advance(self, params: DeblendParams, it: int) -> None:
        """Morphologies move, spectra are rescaled with them."""
        t = (1 + np.sqrt(1 + 4 * self.nesterov**2)) / 2
        momentum = ((self.nesterov - 1) / t).astype(np.float32)
        blend = self.centres.blend
        points = [extrapolate(s, momentum[blend[s.rows]]) for s in self.stacks]
        here = evaluate(self.observation, self.members, points, self.spectra, self.correlated)
        rose = here.loss > self.progress.loss
        self.nesterov = np.maximum(1.0, np.where(rose, t - _SET_BACK, t))
        # steps that overshoot are shortened for a while
        self.damping = np.clip(np.where(rose, _SHORTER, _LONGER) * self.damping, 1, _MOST_DAMPING)
        self.progress.after(here.loss, params.relative_error, it)
        stiffness = np.einsum("kb,kb,kb->k", here.spectra, here.spectra, self.top_weight[blend])
        damping = self.damping[blend]
        crowd = np.maximum(self.progress.n_source / _CROWDED, 1)
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
        """As the reference system: gradient steps for morphologies and spectra."""
        here = evaluate(
            self.observation, self.members, self.stacks, self.spectra, self.correlated, False
        )
        self.progress.after_any(here.loss, steps.params.relative_error)
        damping = self.damping[self.centres.blend]
        self.spectra = steps.step(self.stacks, self.spectra, here, damping, it)

    def retreat(self, steps: GradientSteps, highest: NDArray[np.float64]) -> None:
        """Put blends of too high a loss back to their start, to go on with shorter steps."""
        wild = ~((self.progress.loss <= highest) | np.isnan(highest))
        wild &= self.damping <= _GIVE_UP
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
        loss = self.progress.loss if it < _SHARP else None
        before, self.observation = self.observation, sharpened(self.observation, loss)
        for i, (old, new) in enumerate(zip(before.frames, self.observation.frames, strict=True)):
            if new is not old:
                self.correlated[i] = new.correlate(new.weight * new.data)

    def watch_fluxes(self) -> NDArray[np.bool_]:
        """Blends whose fluxes have not moved since the last call, shape (n,)."""
        if self.watch is None:
            return np.ones(len(self.blends), bool)
        return self.watch.after(self.stacks, self.spectra, self.centres, len(self.blends))

    def lost(self) -> NDArray[np.bool_]:
        """Blends that no further iteration would save, shape (n,)."""
        if self.steps is None:
            return ~np.isfinite(self.progress.loss)
        return self.damping > _GIVE_UP

    def resize(self, params: DeblendParams) -> None:
        """Adapt the stamps to the lit pixels."""
        needed = np.zeros(len(self.centres), np.int64)
        limits = self.centres.whole_box()
        for stack in self.stacks:
            top = np.maximum(self.spectra[stack.rows].max(1), TINY)
            lit = (stack.morph > 0) & (
                stack.morph * top[:, None, None] >= params.background_thresh
            )
            needed[stack.rows] = support_radius(lit) + PADDING
            limits[stack.rows] = limits_of_light(lit, self.centres.select(stack.rows))
        planes = len(self.stacks[0].planes)
        if self.steps is not None and params.edge == "zero":
            self.stacks = stack_stamps(
                self.centres.reach_within(limits), self.centres, self.stacks, planes, limits
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
