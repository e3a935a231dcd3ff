"""Sharpening the gradient: the kernels damp fine structure twice, and it would converge last.

A residual of the data is rendered light that the model lacks, plus noise. Where light prevails,
the adjoint kernel may be replaced by nearly the inverse one, as Wiener's filter does; where noise
does, sharpening it would only fit the noise sooner.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.observation import Frames, Observation

_LEAST_EXCESS = 0.2
"""Power of the residual's light, in units of that of its noise, below which nothing is gained."""
_MOST_EXCESS = 1.0
"""More of a gain leaves dark rings about bright cores that later iterations are slow to fill."""


def sharpened(observation: Observation, loss: NDArray[np.float64] | None) -> Observation:
    """Return the observation with gradients sharpened as its residuals allow.

    Parameters
    ----------
    observation : Observation
        n blends.
    loss : array, shape (n,), float64, or None
        Half the weighted sum of squared residuals of each; None: gradients as they are.
    """
    if loss is None:
        return Observation(
            tuple(f if f.gain is None else replace(f, gain=None) for f in observation.frames)
        )
    return Observation(tuple(_sharpened(f, loss[f.blends]) for f in observation.frames))


def _sharpened(frames: Frames, loss: NDArray[np.float64]) -> Frames:
    """Frames with ``(1 + q) / (1 + q |K|^2)`` for the gain, q the power of light over noise."""
    n_pixel = (frames.weight > 0).sum((1, 2, 3))
    excess = np.clip(2 * loss / np.maximum(n_pixel, 1) - 1, 0, _MOST_EXCESS)
    excess[excess < _LEAST_EXCESS] = 0
    if not excess.any():
        return frames if frames.gain is None else replace(frames, gain=None)
    q = excess.astype(frames.data.dtype)[:, None, None]
    power = np.square(np.abs(frames.kernel_ft)).mean(1)
    return replace(frames, gain=(1 + q) / (1 + q * power))
