"""Steps of the reference system: adaptive moments (AdaProx, six schemes) and FISTA.

Kept for comparison; the default steps are those of `majorize`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats

SCHEMES = ("amsgrad", "adam", "nadam", "padam", "adamx", "radam")
_BETA1, _BETA2, _EPS, _POWER = 0.9, 0.999, 1e-8, 0.25
_FIRST_STEP = 0.1
"""Shortens the very first step, whose length says nothing about the gradient."""
MORPH_STEP = 0.01
FISTA_STEP = 0.5


def adaptive_move(
    moments: Floats, gradient: Floats, scheme: str, it: int, floor: Floats | float = 0.0
) -> Floats:
    """Direction of an adaptive step, to be multiplied by the step length.

    Parameters
    ----------
    moments : array, shape (3, ...), float32
        First moment, second moment and its largest value so far; updated in place.
    gradient : array, shape (...), float32
    scheme : str
        One of `SCHEMES`.
    it : int
        Iteration, from 0.
    floor : array or float
        Smallest denominator: the expected noise of the gradient keeps round-off from being
        blown up to full steps.

    Returns
    -------
    array, shape (...), float32

    Notes
    -----
    Kingma & Ba (2015), Dozat (2016), Reddi et al. (2018), Phuong & Phong (2019), Chen & Gu
    (2018), Liu et al. (2019); with the constants of proxmin's ``adaprox``.
    """
    first, second, largest = moments
    first += np.float32(1 - _BETA1) * (gradient - first)
    second += np.float32(1 - _BETA2) * (gradient * gradient - second)
    np.maximum(largest, second, out=largest)
    t = it + 1
    unbiased1, unbiased2 = 1 - _BETA1**t, 1 - _BETA2**t
    move, scale = first, np.sqrt(np.maximum(largest, np.float32(_EPS)))
    if scheme == "padam":
        scale = np.maximum(largest, np.float32(_EPS)) ** np.float32(_POWER)
    elif scheme in ("adam", "nadam"):
        scale = np.sqrt(second / np.float32(unbiased2)) + np.float32(_EPS)
        if scheme == "nadam":
            move = np.float32(_BETA1) * first + np.float32(1 - _BETA1) * gradient
        move = move / np.float32(unbiased1)
    elif scheme == "radam":
        move = first / np.float32(unbiased1)
        scale = np.sqrt(second / np.float32(unbiased2)) / np.float32(_rectifier(t))
        scale = np.maximum(scale, np.float32(math.sqrt(_EPS))) if _rectified(t) else np.float32(1)
    shortened = np.float32(_FIRST_STEP if it == 0 else 1.0)
    return np.asarray(shortened * move / np.maximum(scale, floor), np.float32)


def _length(t: int) -> tuple[float, float]:
    """Length of the moving average of RAdam, at the end and at iteration t."""
    limit = 2 / (1 - _BETA2) - 1
    return limit, limit - 2 * t * _BETA2**t / (1 - _BETA2**t)


def _rectified(t: int) -> bool:
    return _length(t)[1] > 4


def _rectifier(t: int) -> float:
    limit, now = _length(t)
    if now <= 4:
        return 1.0
    return math.sqrt((now - 4) * (now - 2) * limit / ((limit - 4) * (limit - 2) * now))


def spectrum_step(spectra: Floats) -> Floats:
    """Step length of spectra: a percent of their mean, at least a tenth of the noise."""
    step = np.maximum(0.01 * spectra.mean(1, keepdims=True), 0.1)
    return np.asarray(step, np.float32)


def accelerated_point(
    new: Floats, old: Floats, t: NDArray[np.float64]
) -> tuple[Floats, NDArray[np.float64]]:
    """Where FISTA continues from: ``new + (t - 1) / t' (new - old)``.

    Parameters
    ----------
    new, old : array, shape (m, ...)
    t : array, shape (m,)

    Returns
    -------
    point : array, shape (m, ...), float32
    t : array, shape (m,)
        Of the next iteration.
    """
    following = (1 + np.sqrt(1 + 4 * t * t)) / 2
    weight = ((t - 1) / following).reshape(-1, *(1,) * (new.ndim - 1))
    return np.asarray(new + weight * (new - old), np.float32), following
