"""The iteration: render, compare, move morphologies and spectra; all blends in lock step.

Blends of one observation advance together, each with its own momentum, damping and test of
convergence; finished ones leave. The result of a blend does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.adaprox import (
    FISTA_STEP,
    MORPH_STEP,
    accelerated_point,
    adaptive_move,
    spectrum_step,
)
from coblend.core.deblend.fitting.components import (
    PADDING,
    Centres,
    Floats,
    Stack,
    allowed_radii,
    members_of,
    radii_of,
    stack_stamps,
    support_radius,
)
from coblend.core.deblend.fitting.evaluate import TINY, correlated_data, evaluate
from coblend.core.deblend.fitting.majorize import extrapolate, step
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.operators import constrain
from coblend.core.deblend.fitting.spectra import normal_equations, solve
from coblend.core.params.deblend import DeblendParams

_SPECTRA_EVERY = 4
_DIVERGED = 8
"""Damping beyond which a fit counts as having diverged."""
_NEGLIGIBLE = 0.1
"""Changes of the log-likelihood that mean nothing, however small the blend."""
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
    observation: Observation, centres: Centres, stacks: Sequence[Stack], params: DeblendParams
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
    """
    n = len(observation)
    spectra = solve_spectra(observation, stacks, len(centres))
    n_iter, damping = np.zeros(n, np.int64), np.ones(n)
    converged = np.zeros(n, bool)
    loss_init = np.full(n, np.nan)
    done: list[Stack] = []
    live = _Live.begin(observation, centres, stacks, spectra, params)
    for it in range(params.max_iter):
        if params.optimizer == "accelerated":
            live.advance(params)
            if (it + 1) % _SPECTRA_EVERY == 0:
                live.solve_joint_spectra()
        else:
            live.advance_like_reference(params, it)
        if it == 0:
            loss_init = live.loss
        if params.resize_every and it and it % params.resize_every == 0:
            live.resize(params.background_thresh)
        n_iter[live.blends] = it + 1
        damping[live.blends] = live.damping
        finished = (live.calm >= params.patience) & (it >= params.min_iter)
        if finished.any():
            converged[live.blends[finished]] = True
            spectra[live.rows] = live.spectra
            done += live.retire(finished)
        if not len(live.blends):
            break
    spectra[live.rows] = live.spectra
    done += live.retire(np.ones(len(live.blends), bool))
    final = stack_stamps(radii_of(done, len(centres)), centres, done)
    for stack in final:
        limit = params.background_thresh / np.maximum(spectra[stack.rows].max(1), TINY)
        stack.morph[stack.morph < np.minimum(limit, 1)[:, None, None]] = 0
    reach = np.zeros(len(centres), np.int64)
    for stack in final:
        reach[stack.rows] = np.maximum(support_radius(stack.morph), 1)
    final = stack_stamps(reach, centres, final)
    return Fit(centres, final, spectra, loss_init, n_iter, converged, damping > _DIVERGED)


def solve_spectra(observation: Observation, stacks: Sequence[Stack], n_component: int) -> Floats:
    """Non-negative spectra at fixed morphologies, shape (n_component, n_band), float32."""
    spectra = solve(normal_equations(observation, stacks), n_component)
    return np.maximum(spectra, TINY).astype(np.float32)


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
    kernel_power: Floats
    moments: Floats
    nesterov: NDArray[np.float64]
    damping: NDArray[np.float64]
    loss: NDArray[np.float64]
    before: NDArray[np.float64]
    calm: NDArray[np.int64]

    @classmethod
    def begin(
        cls,
        observation: Observation,
        centres: Centres,
        stacks: Sequence[Stack],
        spectra: Floats,
        params: DeblendParams,
    ) -> _Live:
        """Start with everything live."""
        planes = {"accelerated": 2, "fista": 2, "adaprox": 4}[params.optimizer]
        n = len(observation)
        members = members_of(centres, n)
        observation = observation.split(np.array([len(rows) == 1 for rows in members], bool))
        stacks = stack_stamps(radii_of(stacks, len(centres)), centres, stacks, planes)
        for stack in stacks if planes == 2 else ():
            stack.planes[1] = stack.planes[0]
        moments = np.zeros((3, *spectra.shape), np.float32)
        if params.optimizer == "fista":
            moments[0] = spectra
        top = np.stack([weight.max((1, 2)) for weight in observation.weight])
        power = np.stack([
            np.square(kernel).sum((1, 2)) for kernel in observation.by_blend([
                np.broadcast_to(f.kernels, (len(f), *f.kernels.shape[1:]))
                for f in observation.frames
            ])
        ])  # fmt: skip
        return cls(
            observation, centres, members, stacks, spectra, np.arange(n), np.arange(len(centres)),
            correlated_data(observation), top, power, moments, np.ones(n), np.ones(n),
            np.full(n, np.inf),
            np.full(n, np.inf), np.zeros(n, np.int64),
        )  # fmt: skip

    def advance(self, params: DeblendParams) -> None:
        """One iteration: morphologies move, spectra are rescaled with them."""
        t = (1 + np.sqrt(1 + 4 * self.nesterov**2)) / 2
        momentum = ((self.nesterov - 1) / t).astype(np.float32)
        blend = self.centres.blend
        points = [extrapolate(s, momentum[blend[s.rows]]) for s in self.stacks]
        here = evaluate(self.observation, self.members, points, self.spectra, self.correlated)
        rose = here.loss > self.loss
        self.nesterov = np.where(rose, 1.0, t)
        # a restart that does not help calls for shorter steps
        self.damping = np.where(rose & (momentum == 0), 2 * self.damping, self.damping)
        self._settle(here.loss, params.relative_error)
        stiffness = np.einsum("kb,kb,kb->k", here.spectra, here.spectra, self.top_weight[blend])
        damping = self.damping[blend]
        scale = np.ones(len(self.spectra), np.float32)
        for i, (stack, point) in enumerate(zip(self.stacks, points, strict=True)):
            rows = stack.rows
            self.stacks[i], scale[rows] = step(
                stack, point.morph, here.pull[i], here.load[i], stiffness[rows], damping[rows]
            )
        self.spectra = here.spectra * scale[:, None]

    def advance_like_reference(self, params: DeblendParams, it: int) -> None:
        """One iteration of AdaProx or FISTA: gradient steps for spectra and morphologies."""
        here = evaluate(
            self.observation, self.members, self.stacks, self.spectra, self.correlated, False
        )
        self._settle(here.loss, params.relative_error)
        blend, old = self.centres.blend, self.spectra
        strength = np.square(old) * self.top_weight[blend]
        if params.optimizer == "fista":
            spectra = self._fista_spectra(here.spectrum_pull)
        else:
            move = adaptive_move(self.moments, here.spectrum_pull, params.scheme, it)
            spectra = np.maximum(old - spectrum_step(old) * move, TINY)
        limit = np.minimum(params.background_thresh / np.maximum(spectra.max(1), TINY), 2)
        noise = params.gradient_floor * np.sqrt((strength * self.kernel_power[blend]).sum(1))
        scale = np.ones(len(old), np.float32)
        for stack, pull in zip(self.stacks, here.pull, strict=True):
            rows = stack.rows
            if params.optimizer == "fista":
                length = (FISTA_STEP / np.maximum(strength.sum(1)[rows], TINY))[:, None, None]
                target = stack.planes[1] - length.astype(np.float32) * pull
            else:
                floor = noise[rows].astype(np.float32)[:, None, None]
                move = adaptive_move(stack.planes[1:], pull, params.scheme, it, floor)
                target = stack.morph - np.float32(MORPH_STEP) * move
            morph, scale[rows] = constrain(target, stack.outside, limit[rows].astype(np.float32))
            if params.optimizer == "fista":
                stack.planes[1], _ = accelerated_point(
                    morph, stack.morph, self.nesterov[blend[rows]]
                )
            stack.planes[0] = morph
        self.spectra = spectra * scale[:, None] if params.rescale_spectra else spectra
        self.nesterov = (1 + np.sqrt(1 + 4 * self.nesterov**2)) / 2

    def _fista_spectra(self, pull: Floats) -> Floats:
        """Spectra after a FISTA step; its point is the first plane of the moments."""
        blend = self.centres.blend
        light = np.zeros(len(self.spectra))
        for stack in self.stacks:
            light[stack.rows] = np.square(stack.morph).sum((1, 2))
        length = FISTA_STEP / np.maximum(light[:, None] * self.top_weight[blend], TINY)
        spectra = np.maximum(self.moments[0] - length.astype(np.float32) * pull, TINY)
        spectra = np.asarray(spectra, np.float32)
        self.moments[0], _ = accelerated_point(spectra, self.spectra, self.nesterov[blend])
        return spectra

    def solve_joint_spectra(self) -> None:
        """Solve for the spectra of blends with several components."""
        joint = np.array([len(rows) > 1 for rows in self.members], bool)[self.centres.blend]
        if joint.any():
            same = np.arange(len(joint)), np.arange(len(self.members))
            stacks = _take(self.stacks, joint, *same, self.centres)
            solved = solve_spectra(self.observation, stacks, len(joint))
            self.spectra[joint] = solved[joint]

    def _settle(self, loss: NDArray[np.float64], relative_error: float) -> None:
        """Count the iterations in which the loss has hardly changed."""
        # two steps back as well: a loss that rose and fell again has not converged
        change = np.maximum(np.abs(loss - self.loss), np.abs(loss - self.before) / 4)
        still = change < np.maximum(relative_error * np.abs(loss), _NEGLIGIBLE)
        self.calm = np.where(still, self.calm + 1, 0)
        self.before, self.loss = self.loss, loss

    def resize(self, threshold: float) -> None:
        """Adapt the stamps to the lit pixels."""
        needed = np.zeros(len(self.centres), np.int64)
        for stack in self.stacks:
            top = np.maximum(self.spectra[stack.rows].max(1), TINY)
            lit = stack.morph * top[:, None, None] >= threshold
            needed[stack.rows] = support_radius(lit) + PADDING
        now = radii_of(self.stacks, len(self.centres))
        new = allowed_radii(needed, self.centres)
        new = np.where((new < now) & (new > _SHRINK * now), now, new)
        if (new != now).any():
            planes = len(self.stacks[0].planes)
            self.stacks = stack_stamps(new, self.centres, self.stacks, planes)

    def retire(self, finished: NDArray[np.bool_]) -> list[Stack]:
        """Remove finished blends; return their stamps as components of the whole."""
        blend = self.centres.blend
        gone = finished[blend]
        out = _take(self.stacks, gone, self.rows, self.blends, self.centres)
        kept_blends, kept_rows = np.flatnonzero(~finished), np.flatnonzero(~gone)
        number, position = np.cumsum(~finished) - 1, np.cumsum(~gone) - 1
        self.stacks = _take(self.stacks, ~gone, position, number, self.centres)
        self.correlated = [
            array[~finished[frames.blends]]
            for frames, array in zip(self.observation.frames, self.correlated, strict=True)
            if not finished[frames.blends].all()
        ]
        self.observation = self.observation.select(~finished)
        self.centres = self.centres.select(kept_rows).with_blend(number[blend[kept_rows]])
        self.members = members_of(self.centres, len(kept_blends))
        self.spectra, self.rows = self.spectra[kept_rows], self.rows[kept_rows]
        self.moments = self.moments[:, kept_rows]
        for name in (
            "blends",
            "top_weight",
            "kernel_power",
            "nesterov",
            "damping",
            "loss",
            "before",
            "calm",
        ):
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
