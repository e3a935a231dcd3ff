"""Adaptive moments: size, shape and centre of stamps under a matched Gaussian weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.errors import FormatError

FWHM_PER_SIGMA = float(2.0 * np.sqrt(2.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian of unit sigma."""

MAX_ITERATIONS = 300
TOLERANCE = 1e-8
NARROW = 0.08
"""Part of a stamp's light in its central pixel above which pixels are too coarse for sums."""
FINER = 3
"""Samples per pixel that narrow stamps are interpolated to."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Adaptive moments of n stamps; each field has shape (n,).

    Parameters
    ----------
    sigma : array
        Radius ``det(C) ** 0.25`` of the matched Gaussian, pixel.
    e1, e2 : array
        ``(Cxx - Cyy, 2 Cxy) / (Cxx + Cyy)``.
    dy, dx : array
        Centroid from the central pixel, pixel.
    """

    sigma: NDArray[np.float64]
    e1: NDArray[np.float64]
    e2: NDArray[np.float64]
    dy: NDArray[np.float64]
    dx: NDArray[np.float64]

    @property
    def fwhm(self) -> NDArray[np.float64]:
        """Full width at half maximum of the matched Gaussian, pixel."""
        return np.asarray(self.sigma * FWHM_PER_SIGMA)


def adaptive_moments(stamps: NDArray[np.float64]) -> Moments:
    """Measure stamps with the Gaussian weight that matches each of them.

    ``w = exp(-d' C^-1 d / 2) P``, ``c = <x>``, ``C = 2 <dd'>``, repeated until C stays the same
    (Bernstein & Jarvis 2002; Hirata & Seljak 2003). Below a FWHM of about 2 pixels the weighted
    profile is narrower than a pixel and its sums collapse onto one: such stamps are interpolated
    first, which leaves 5 % in the size down to a FWHM of 0.8 pixels (WFC3/IR, NIRCam: 1.1).

    Parameters
    ----------
    stamps : array, shape (n, side, side) or (side, side)
        Odd side.

    Raises
    ------
    FormatError
        When a stamp has no such Gaussian (for example a noise stamp).
    """
    stamps = stamps.reshape(-1, *stamps.shape[-2:])
    middle = stamps.shape[-1] // 2
    narrow = stamps[:, middle, middle] > NARROW * np.maximum(stamps.sum((1, 2)), 0)
    narrow &= stamps.sum((1, 2)) > 0
    out = np.empty((5, len(stamps)))
    for rows, factor in ((np.flatnonzero(~narrow), 1), (np.flatnonzero(narrow), FINER)):
        if len(rows):
            sigma, e1, e2, dy, dx = _iterated(_finer(stamps[rows], factor), factor, rows)
            out[:, rows] = sigma / factor, e1, e2, dy / factor, dx / factor
    return Moments(*out)


def _finer(stamps: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Interpolate stamps of odd side to ``factor`` samples per pixel, by padding in Fourier space.

    The central sample stays central, so the side becomes ``factor (side - 1) + 1``.
    """
    if factor == 1:
        return stamps
    n, side = stamps.shape[-1] // 2, stamps.shape[-1]
    frequency = np.r_[0 : n + 1, -n:0]
    room = np.zeros((len(stamps), factor * side, factor * side), np.complex128)
    room[:, frequency[:, None], frequency] = fft.fft2(stamps)
    last = factor * (side - 1) + 1
    return np.asarray(fft.ifft2(room).real[:, :last, :last], np.float64)


def _iterated(
    stamps: NDArray[np.float64], factor: int, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """``sigma, e1, e2, dy, dx`` in samples, of which a pixel has ``factor``.

    ``rows`` are the numbers of the stamps, for messages.
    """
    n, side = len(stamps), stamps.shape[-1]
    axis = np.arange(side) - side // 2
    sums = np.stack([np.ones(side), axis, axis**2])  # powers 0, 1, 2 along one axis
    cyy, cxx, cxy = np.full(n, 4.0 * factor**2), np.full(n, 4.0 * factor**2), np.zeros(n)
    cy, cx = np.zeros(n), np.zeros(n)
    for _ in range(MAX_ITERATIONS):
        det = cyy * cxx - cxy**2
        dy = axis[None, :, None] - cy[:, None, None]
        dx = axis[None, None, :] - cx[:, None, None]
        form = _column(cxx / det) * dy**2 + _column(cyy / det) * dx**2
        form -= _column(2 * cxy / det) * dy * dx
        power = np.einsum("ay,nyx,bx->nab", sums, np.exp(-0.5 * form) * stamps, sums)
        if not np.all(power[:, 0, 0] > 0):
            raise _no_moments(power[:, 0, 0] > 0, rows)
        power /= power[:, :1, :1]
        cy, cx = power[:, 1, 0], power[:, 0, 1]
        old = np.stack([cyy, cxx, cxy])
        cyy = 2 * (power[:, 2, 0] - cy**2)
        cxx = 2 * (power[:, 0, 2] - cx**2)
        cxy = 2 * (power[:, 1, 1] - cy * cx)
        trace = cyy + cxx
        sane = (cyy * cxx > cxy**2) & (trace > 0) & (trace < 2 * (side / 3) ** 2)
        if not sane.all():
            raise _no_moments(sane, rows)
        if np.all(np.abs(np.stack([cyy, cxx, cxy]) - old) <= TOLERANCE * trace):
            break
    sigma = (cyy * cxx - cxy**2) ** 0.25
    return sigma, (cxx - cyy) / trace, 2 * cxy / trace, cy, cx


def fwhm_of(stamp: NDArray[np.floating]) -> float:
    """Full width at half maximum of a stamp, from the area above half its maximum (pixel).

    Of the core, whatever the wings; `adaptive_moments` weigh the whole profile.
    """
    profile = np.sort(stamp.ravel())[::-1].astype(np.float64)
    n = int(np.searchsorted(-profile, -profile[0] / 2))
    inner, outer = profile[n - 1], profile[min(n, len(profile) - 1)]
    part = (inner - profile[0] / 2) / max(inner - outer, 1e-300)
    return 2 * math.sqrt((n - 0.5 + part) / math.pi)


def _no_moments(sane: NDArray[np.bool_], rows: NDArray[np.int64]) -> FormatError:
    return FormatError(
        f"PSF stamp {rows[np.argmin(sane)]} has no adaptive moments: "
        "it is not a single peak near its centre"
    )


def _column(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[:, None, None]
