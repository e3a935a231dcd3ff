"""Accelerated steps for morphologies, each pixel scaled by its own majoriser of the curvature.

For non-negative kernels and morphologies the loss is majorised by a separable parabola with
curvature ``s K'(w K M) / m``, M the model of all components: a step is then multiplicative, large
where a component is bright and dominates, small where others do. A small constant added to m lets
dark pixels come back. Nesterov's extrapolation, set back where the loss rises, does the rest.

The majoriser is that of multiplicative updates (De Pierro 1995, IEEE Trans. Med. Imaging 14, 132;
Lee & Seung 2001), only an approximate one where the gradient is sharpened or pooled; what a rising
loss does follows O'Donoghue & Candes (2015, Found. Comput. Math. 15, 715).

Light without a mirror image has a price: where a source is fainter than what its noise and its
undetected neighbours would add to it, the model stays symmetric.
"""

from __future__ import annotations

import numpy as np

from coblend.core.deblend.fitting.components import Floats, Stack
from coblend.core.deblend.fitting.mirror import shrink_asymmetry
from coblend.core.deblend.fitting.monotonic import pool_gradient
from coblend.core.deblend.fitting.operators import constrain

_FLOOR = np.float32(0.02)
"""Added to morphologies (of maximum 1), so that pixels at 0 can rise again."""
_OVERLAPPING = 4.0
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
    stack: Stack,
    point: Floats,
    pull: Floats,
    load: Floats,
    stiffness: Floats,
    damping: Floats,
    price: Floats,
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
        Bound on the load of a morphology that is 1 everywhere, ``sum_b s_b^2 max(w_b)`` for
        kernels of sum 1: what the floor adds to the load.
    damping : array, shape (m,)
        What to divide steps by.
    price : array, shape (m,)
        What a unit of morphology (of maximum 1) without a mirror image adds to the loss.

    Returns
    -------
    stack : Stack
        Plane 0 new, plane 1 the old plane 0 in the new normalisation.
    scale : array, shape (m,), float32
        Factor for the spectra.
    """
    length = np.maximum(load, 0)  # the curvature first, its inverse in the end
    length += (_FLOOR * _OVERLAPPING * stiffness).astype(np.float32)[:, None, None]
    np.maximum(length, np.float32(1e-30), out=length)
    np.divide(point + _FLOOR, length, out=length)
    length *= (_RELAX / damping).astype(np.float32)[:, None, None]
    move = pool_gradient(point, pull)
    move *= length
    target = np.subtract(point, move, out=move)
    if price.any():
        length *= price.astype(np.float32)[:, None, None]
        target = shrink_asymmetry(target, stack.morph, length, stack.outside)
    np.maximum(target, 0, out=target)
    morph, scale = constrain(target, stack.outside)
    before = stack.morph / scale[:, None, None]
    return stack.with_planes(np.stack([morph, before])), scale
