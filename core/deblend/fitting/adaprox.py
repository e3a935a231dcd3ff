"""Steps of the reference system: adaptive moments (AdaProx, six schemes) and FISTA.

Kept for comparison; the default steps are those of `majorize`. Steps of padam, and the first ones
of radam, grow with the gradient instead of only following its sign. Made for losses of order one,
they overshoot on bright blends, here as in the reference system.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Centres, Floats, Stack
from coblend.core.deblend.fitting.evaluate import TINY, Evaluation
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.operators import constrain
from coblend.core.params.deblend import DeblendParams

SCHEMES = ("amsgrad", "adam", "nadam", "padam", "adamx", "radam")
_BETA1, _BETA2, _EPS, _POWER = 0.9, 0.999, 1e-8, 0.25
_FIRST_STEP = 0.1
"""Shortens the very first step, whose length says nothing about the gradient."""
_MORPH_STEP, _RELATIVE_STEP = 0.01, 0.01
_FISTA_STEP = 0.5
_ALL = 2.0
"""Threshold that no pixel of a morphology reaches."""


@dataclass(slots=True)
class GradientSteps:
    """Steps along gradients, and what they remember of every component.

    Parameters
    ----------
    params : DeblendParams
    unit : array, shape (n_band,)
        Noise of the bands in the unit in which spectra move.
    curvature : array, shape (k, n_band)
        Bound on the curvature of the loss per unit of rendered light.
    power : array, shape (k, n_band)
        Variance of the gradient of a morphology whose spectrum is 1.
    noise : array, shape (k, n_band)
        Noise of the gradient of the spectra.
    moments : array, shape (3, k, n_band), float64
        Of the spectra (adaprox); the first is where steps of fista start from.
    t : array, shape (k,)
        Nesterov's sequence.
    """

    params: DeblendParams
    unit: Floats
    curvature: Floats
    power: Floats
    noise: Floats
    moments: Floats
    t: Floats

    @classmethod
    def begin(
        cls,
        observation: Observation,
        centres: Centres,
        spectra: Floats,
        noise: Floats,
        unit: Floats,
        params: DeblendParams,
    ) -> GradientSteps:
        """Start from the given morphologies and spectra."""
        top = np.stack([weight.max((1, 2)) for weight in observation.weight])
        gain, power = np.zeros_like(top), np.zeros_like(top)
        for frames in observation.frames:
            gain[frames.blends] = np.square(np.abs(frames.kernel_ft)).max((2, 3))
            power[frames.blends] = np.square(frames.kernels).sum((2, 3))
        blend = centres.blend
        steps = cls(
            params, unit, (top * gain)[blend], (top * power)[blend], noise,
            np.zeros((3, *spectra.shape)), np.ones_like(spectra[:, 0]),
        )  # fmt: skip
        steps.restart(np.arange(len(centres)), spectra)
        return steps

    def restart(self, rows: NDArray[np.int64], spectra: Floats) -> None:
        """Forget all of components ``rows``, which continue from the given spectra."""
        self.moments[:, rows] = 0
        self.t[rows] = 1
        if self.params.optimizer == "fista":
            self.moments[0, rows] = spectra[rows]

    def select(self, rows: NDArray[np.int64]) -> GradientSteps:
        """Keep what is known of components ``rows``."""
        return GradientSteps(
            self.params, self.unit, self.curvature[rows], self.power[rows], self.noise[rows],
            self.moments[:, rows], self.t[rows],
        )  # fmt: skip

    def step(
        self, stacks: Sequence[Stack], spectra: Floats, here: Evaluation, damping: Floats, it: int
    ) -> Floats:
        """Move morphologies, in place, and spectra.

        Parameters
        ----------
        stacks : sequence of Stack
            Planes 1 to 3 hold moments (adaprox), plane 1 where steps start from (fista).
        spectra : array, shape (k, n_band)
        here : Evaluation
            At these morphologies and spectra.
        damping : array, shape (k,)
            What to divide steps by.
        it : int
            Iteration, from 0.

        Returns
        -------
        array, shape (k, n_band)
            Spectra.
        """
        move = self._fista if self.params.optimizer == "fista" else self._adaprox
        new, scale = move(stacks, spectra, here, damping.astype(spectra.dtype), it)
        if not self.params.rescale_spectra:
            return new
        if self.params.optimizer == "fista":
            self.moments[0] *= scale[:, None]  # the next step starts in the same normalisation
        return new * scale[:, None]

    def _adaprox(
        self, stacks: Sequence[Stack], spectra: Floats, here: Evaluation, damping: Floats, it: int
    ) -> tuple[Floats, Floats]:
        """Adaptive steps; spectra and what morphologies were divided by."""
        scheme, floor = self.params.scheme, self.params.gradient_floor
        slope = here.spectrum_pull / self.unit
        move = adaptive_move(self.moments, slope, scheme, it, floor * self.noise / self.unit)
        length = spectrum_step(spectra, self.params.spectrum_step, self.unit) / damping[:, None]
        new = np.maximum(spectra - (length * move).astype(spectra.dtype), TINY)
        least = floor * np.sqrt((np.square(spectra) * self.power).sum(1))
        scale = np.ones_like(damping)
        for stack, pull in zip(stacks, here.pull, strict=True):
            rows = stack.rows
            move = adaptive_move(stack.planes[1:], pull, scheme, it, least[rows, None, None])
            move *= (_MORPH_STEP / damping)[rows, None, None]
            stack.planes[0] -= move
            scale[rows] = _constrain(stack, new, self.params)
        return new, scale

    def _fista(
        self, stacks: Sequence[Stack], spectra: Floats, here: Evaluation, damping: Floats, _: int
    ) -> tuple[Floats, Floats]:
        """Accelerated steps (Beck & Teboulle 2009) of a length that follows from the model."""
        light = np.zeros_like(damping)
        for stack in stacks:
            light[stack.rows] = np.square(stack.morph).sum((1, 2))
        step = _FISTA_STEP / damping
        length = step[:, None] / np.maximum(light[:, None] * self.curvature, TINY)
        new = np.maximum(self.moments[0] - length * here.spectrum_pull, TINY).astype(spectra.dtype)
        length = step / np.maximum((np.square(spectra) * self.curvature).sum(1), TINY)
        following = (1 + np.sqrt(1 + 4 * self.t * self.t)) / 2
        momentum = (self.t - 1) / following
        self.moments[0] = new + momentum[:, None] * (new - spectra)
        self.t[:] = following
        scale = np.ones_like(damping)
        for stack, pull in zip(stacks, here.pull, strict=True):
            rows, before = stack.rows, stack.morph.copy()
            stack.planes[0] = stack.planes[1] - length[rows, None, None] * pull
            scale[rows] = _constrain(stack, new, self.params)
            ahead = momentum[rows, None, None] * (stack.morph - before)
            stack.planes[1] = stack.morph + ahead
        return new, scale


def _constrain(stack: Stack, spectra: Floats, params: DeblendParams) -> Floats:
    """Constrain morphologies in place; what they were divided by."""
    top = np.maximum(spectra[stack.rows].max(1), TINY)
    limit = np.minimum(params.background_thresh / top, _ALL)
    closed = params.edge == "zero"
    stack.planes[0], scale = constrain(stack.morph, stack.outside, limit, closed=closed)
    return scale


def adaptive_move(
    moments: Floats, gradient: Floats, scheme: str, it: int, floor: Floats | float = 0.0
) -> Floats:
    """Direction of an adaptive step, to be multiplied by the step length.

    Parameters
    ----------
    moments : array, shape (3, ...)
        First moment, second moment and its largest value so far; updated in place.
    gradient : array, shape (...)
    scheme : str
        One of `SCHEMES`.
    it : int
        Iteration, from 0.
    floor : array or float
        Smallest denominator: the expected noise of the gradient keeps round-off from being
        blown up to full steps.

    Returns
    -------
    array, shape (...), dtype of ``gradient``

    Notes
    -----
    Kingma & Ba (2015), Dozat (2016), Reddi et al. (2018), Phuong & Phong (2019), Chen & Gu
    (2018), Liu et al. (2019); with the constants of proxmin's ``adaprox``.
    """
    first, second, largest = moments
    first += (1 - _BETA1) * (gradient - first)
    second += (1 - _BETA2) * (gradient * gradient - second)
    np.maximum(largest, second, out=largest)
    t = it + 1
    unbiased1, unbiased2 = 1 - _BETA1**t, 1 - _BETA2**t
    move = first
    if scheme in ("amsgrad", "adamx"):  # alike while the decay of the first moment is constant
        scale = np.sqrt(np.maximum(largest, _EPS))
    elif scheme == "padam":
        scale = np.maximum(largest, _EPS) ** _POWER
    elif scheme == "radam":
        move = first / unbiased1
        rectifier = _rectifier(t)
        scale = np.sqrt(second / unbiased2) / rectifier if rectifier else np.ones_like(first)
        scale = np.maximum(scale, math.sqrt(_EPS))
    else:
        if scheme == "nadam":
            move = _BETA1 * first + (1 - _BETA1) * gradient
        move = move / unbiased1
        scale = np.sqrt(second / unbiased2) + _EPS
    shortened = _FIRST_STEP if it == 0 else 1.0
    return np.asarray(shortened * move / np.maximum(scale, floor), gradient.dtype)


def _rectifier(t: int) -> float:
    """Rectification of RAdam at iteration t; 0 while the variance of its moments is infinite."""
    limit = 2 / (1 - _BETA2) - 1
    now = limit - 2 * t * _BETA2**t / (1 - _BETA2**t)
    if now <= 4:
        return 0.0
    return math.sqrt((now - 4) * (now - 2) * limit / ((limit - 4) * (limit - 2) * now))


def spectrum_step(spectra: Floats, least: float, unit: Floats) -> Floats:
    """Step lengths of spectra: a percent of their mean over the bands, at least ``least``.

    Parameters
    ----------
    spectra : array, shape (k, n_band)
        In units of the noise.
    least : float
    unit : array, shape (n_band,)
        Noise of the bands in the unit in which the mean is taken.

    Returns
    -------
    array, shape (k, n_band)
    """
    mean = (spectra * unit).mean(1, keepdims=True)
    return np.asarray(np.maximum(_RELATIVE_STEP * mean / unit, least))
