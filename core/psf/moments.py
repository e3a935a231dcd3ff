"""Adaptive moments: size, shape and centre of stamps under a matched Gaussian weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import FormatError

FWHM_PER_SIGMA = float(2.0 * np.sqrt(2.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian of unit sigma."""

MAX_ITERATIONS = 300
TOLERANCE = 1e-8


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
    (Bernstein & Jarvis 2002; Hirata & Seljak 2003).

    Parameters
    ----------
    stamps : array, shape (n, side, side) or (side, side)

    Raises
    ------
    FormatError
        When a stamp has no such Gaussian (for example a noise stamp).
    """
    stamps = stamps.reshape(-1, *stamps.shape[-2:])
    n, side = len(stamps), stamps.shape[-1]
    axis = np.arange(side) - side // 2
    sums = np.stack([np.ones(side), axis, axis**2])  # powers 0, 1, 2 along one axis
    cyy, cxx, cxy = np.full(n, 4.0), np.full(n, 4.0), np.zeros(n)
    cy, cx = np.zeros(n), np.zeros(n)
    for _ in range(MAX_ITERATIONS):
        det = cyy * cxx - cxy**2
        dy = axis[None, :, None] - cy[:, None, None]
        dx = axis[None, None, :] - cx[:, None, None]
        form = _column(cxx / det) * dy**2 + _column(cyy / det) * dx**2
        form -= _column(2 * cxy / det) * dy * dx
        power = np.einsum("ay,nyx,bx->nab", sums, np.exp(-0.5 * form) * stamps, sums)
        if not np.all(power[:, 0, 0] > 0):
            raise _no_moments(power[:, 0, 0] > 0)
        power /= power[:, :1, :1]
        cy, cx = power[:, 1, 0], power[:, 0, 1]
        old = np.stack([cyy, cxx, cxy])
        cyy = 2 * (power[:, 2, 0] - cy**2)
        cxx = 2 * (power[:, 0, 2] - cx**2)
        cxy = 2 * (power[:, 1, 1] - cy * cx)
        trace = cyy + cxx
        sane = (cyy * cxx > cxy**2) & (trace > 0) & (trace < 2 * (side / 3) ** 2)
        if not sane.all():
            raise _no_moments(sane)
        if np.all(np.abs(np.stack([cyy, cxx, cxy]) - old) <= TOLERANCE * trace):
            break
    return Moments(
        sigma=(cyy * cxx - cxy**2) ** 0.25,
        e1=(cxx - cyy) / trace,
        e2=2 * cxy / trace,
        dy=cy,
        dx=cx,
    )


def _no_moments(sane: NDArray[np.bool_]) -> FormatError:
    return FormatError(
        f"PSF stamp {int(np.argmin(sane))} has no adaptive moments: "
        "it is not a single peak near its centre"
    )


def _column(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[:, None, None]
