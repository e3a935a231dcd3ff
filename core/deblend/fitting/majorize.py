"""Accelerated steps for morphologies, each pixel scaled by its own majoriser of the curvature.

For non-negative kernels and morphologies the loss is majorised by a separable parabola with
curvature ``s K'(w K M) / m``, M the model of all components: a step is then multiplicative, large
where a component is bright and dominates, small where others do. A small constant added to m lets
dark pixels come back. Nesterov's extrapolation, restarted where the loss rises, does the rest.
"""

from __future__ import annotations

import numpy as np

from coblend.core.deblend.fitting.components import Floats, Stack
from coblend.core.deblend.fitting.monotonic import pool_gradient
from coblend.core.deblend.fitting.operators import constrain

_FLOOR = np.float32(0.02)
"""Added to morphologies (of maximum 1), so that pixels at 0 can rise again."""
_CROWD = 4.0
"""Components whose floors overlap; exact only for equal ones, but the loss decides."""
_RELAX = np.float32(1.5)
"""Over-relaxation of the step."""


def extrapolate(stack: Stack, momentum: Floats) -> Stack:
    """Continue the last step by ``momentum`` of its length.

    Parameters
    ----------
    stack : Stack
        Plane 0 holds the morphologies, plane 1 the previous ones.
    momentum : array, shape (m,), float32
    """
    now, before = stack.planes
    ahead = now - before
    ahead *= momentum[:, None, None]
    ahead += now
    np.maximum(ahead, 0, out=ahead)
    return stack.with_planes(ahead[None])


def step(
    stack: Stack, point: Floats, pull: Floats, load: Floats, stiffness: Floats, damping: Floats
) -> tuple[Stack, Floats]:
    """Move morphologies one step down the loss.

    Parameters
    ----------
    stack : Stack
        Plane 0 holds the morphologies.
    point : array, shape (m, n, n), float32
        Where the loss was evaluated.
    pull, load : array, shape (m, n, n), float32
        Gradient there and the model's part of it, see `evaluate.Evaluation`.
    stiffness : array, shape (m,)
        Curvature of the loss for all pixels of a component together.
    damping : array, shape (m,)
        What to divide steps by.

    Returns
    -------
    stack : Stack
        Plane 0 new, plane 1 the old plane 0 in the new normalisation.
    scale : array, shape (m,), float32
        Factor for the spectra.
    """
    move = pool_gradient(point, pull)
    curvature = np.maximum(load, 0)
    curvature += (_FLOOR * _CROWD * stiffness).astype(np.float32)[:, None, None]
    curvature /= point + _FLOOR
    move *= (_RELAX / damping).astype(np.float32)[:, None, None]
    move /= np.maximum(curvature, np.float32(1e-30))
    morph, scale = constrain(point - move, stack.outside)
    before = stack.morph / scale[:, None, None]
    return stack.with_planes(np.stack([morph, before])), scale
