"""Whether a peak is a star: least-squares fits of the PSF with its neighbours and a plane."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.point import shifted_stamps
from coblend.core.psf.moments import fwhm_of

CHI2_LIMIT = 1.5
"""Largest chi-square per degree of freedom of a star (``psfChisqCut``)."""
_STEPS = 3


@dataclass(frozen=True, slots=True)
class PsfFit:
    """Result of the test.

    Parameters
    ----------
    is_star : bool
    flux : float
    y, x : float
        Centre, frame coordinates.
    """

    is_star: bool
    flux: float
    y: float
    x: float


NOT_A_STAR = PsfFit(False, 0.0, math.nan, math.nan)


def paint_psf(psf: Floats, y: float, x: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """PSF at a sub-pixel place of a frame, 0 beyond its stamp, shape ``shape``."""
    iy, ix = math.floor(y + 0.5), math.floor(x + 0.5)
    stamp = shifted_stamps(psf, np.array(y - iy), np.array(x - ix))
    half = psf.shape[-1] // 2
    out = np.zeros(shape)
    y0, y1 = max(0, iy - half), min(shape[0], iy + half + 1)
    x0, x1 = max(0, ix - half), min(shape[1], ix + half + 1)
    if y0 < y1 and x0 < x1:
        out[y0:y1, x0:x1] = stamp[y0 - iy + half : y1 - iy + half, x0 - ix + half : x1 - ix + half]
    return out


def fit_psf(
    data: Floats, weight: Floats, psf: Floats, peaks: NDArray[np.int64], index: int
) -> PsfFit:
    """Test one peak.

    Parameters
    ----------
    data, weight : array, shape (ny, nx)
        Image and inverse variance, 0 outside the footprint.
    psf : array, shape (k, k)
    peaks : array, shape (n, 2), int64
        ``y, x`` of all peaks of the parent.
    index : int
        Which one to test.

    Notes
    -----
    The test of ``meas_deblender`` (``_fitPsf``): the PSF, a plane and the PSFs of neighbours,
    without and with a shift. There the shift has the wrong sign and is found in one step, so that
    moved PSFs hardly ever fit; here the columns are derivatives with respect to the centre, and
    steps are repeated until a bright star between pixels is reached.
    """
    cy, cx = (float(c) for c in peaks[index])
    width = fwhm_of(psf)
    inner, outer = math.ceil(width), math.ceil(1.5 * width)
    grid = np.indices(data.shape, np.float64)
    y, x = grid[0], grid[1]
    radius = np.hypot(y - cy, x - cx)
    ramp = np.clip((outer - radius) / max(outer - inner, 1), 0, 1) * (weight > 0)
    use = ramp > 0
    if not use.any():
        return NOT_A_STAR
    reach = outer + psf.shape[-1] / 2
    distance = np.hypot(*(peaks - peaks[index]).T)
    near = [i for i in np.flatnonzero(distance < reach) if i != index]
    others = [
        paint_psf(psf, float(peaks[i, 0]), float(peaks[i, 1]), data.shape)[use] for i in near
    ]
    plane = [np.ones(np.count_nonzero(use)), (x - cx)[use], (y - cy)[use]]
    system = _System(data[use], (weight * ramp)[use], ramp[use].sum(), [*plane, *others])

    def at(py: float, px: float) -> NDArray[np.float64]:
        return np.asarray(paint_psf(psf, py, px, data.shape)[use])

    found, quality = system.solve([at(cy, cx)])
    best = PsfFit(bool(quality < CHI2_LIMIT and found[0] > 0), float(found[0]), cy, cx)
    y1, x1 = cy, cx
    for _ in range(_STEPS):
        gradient = [(at(y1 + 1, x1) - at(y1 - 1, x1)) / 2, (at(y1, x1 + 1) - at(y1, x1 - 1)) / 2]
        moved = system.solve([at(y1, x1), *gradient])[0]
        if not moved[0] > 0:
            return best
        y1, x1 = y1 + float(moved[1] / moved[0]), x1 + float(moved[2] / moved[0])
        if max(abs(y1 - cy), abs(x1 - cx)) >= 1:
            return best
    found, moved_quality = system.solve([at(y1, x1)])
    if moved_quality < min(CHI2_LIMIT, quality) and found[0] > 0:
        return PsfFit(True, float(found[0]), y1, x1)
    return best


@dataclass(frozen=True, slots=True)
class _System:
    """Weighted least squares with common columns."""

    data: Floats
    weight: Floats
    n: float
    common: list[NDArray[np.float64]]

    def solve(self, columns: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
        """Coefficients (of ``columns`` first) and chi-square per degree of freedom."""
        matrix = np.stack([*columns, *self.common], 1)
        root = np.sqrt(self.weight.astype(np.float64))
        values = root * self.data
        found = np.linalg.lstsq(matrix * root[:, None], values, rcond=None)[0]
        left = values - (matrix * root[:, None]) @ found
        freedom = float(self.n) - matrix.shape[1]
        return found, float(left @ left / freedom) if freedom > 0 else math.inf
