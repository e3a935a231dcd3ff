"""A reference that several PSFs can all reach: the narrowest safe round Moffat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize

from coblend.core.box import Box
from coblend.core.psf import AnalyticPsf, Psf
from coblend.core.psf.fields import Array
from coblend.core.psf.moments import adaptive_moments
from coblend.core.psfmatch.guard import SAFE_GAIN, gains
from coblend.core.psfmatch.regularize import GRID, fourier_residuals
from coblend.core.psfmatch.spatial import cell_centres, chebyshev_nodes, domain_of

BETA_RANGE = (2.0, 5.0)
FWHM_STEP = 0.01
N_NODE = 4
WIDER, N_WIDER = 1.05, 4


def common_references(psfs: Sequence[tuple[Psf, Box]], tolerance: float) -> Iterator[AnalyticPsf]:
    """Yield references to try: `common_reference`, then wider ones in steps of 5 %.

    Kernels of limited support may miss what those of unlimited support reach, most of all where
    the PSF is undersampled. Arguments as of `common_reference`.
    """
    first = common_reference(psfs, tolerance)
    for i in range(N_WIDER + 1):
        yield replace(first, fwhm=round(first.fwhm * WIDER**i, 2))


def common_reference(psfs: Sequence[tuple[Psf, Box]], tolerance: float) -> AnalyticPsf:
    """Find the narrowest round Moffat that all PSFs reach to the tolerance with a gain of 1.5.

    A Gaussian would have to be 1.4 times wider than the seeing: its wings fall faster than those
    of any real PSF.

    Parameters
    ----------
    psfs : sequence of (Psf, Box)
        The models, and the pixels where each is used.
    tolerance : float
        Largest residual relative to the peak of the reference.

    Returns
    -------
    AnalyticPsf
        FWHM a multiple of 0.01 px and beta of 0.1, so that its text form says all.
    """
    nodes = [_stamps(psf, box) for psf, box in psfs]
    betas = [_moffat_beta(stamps.mean(axis=0)) for stamps in nodes]
    beta = float(np.clip(np.round(np.median(betas), 1), *BETA_RANGE))
    widest = max(float(adaptive_moments(stamps).fwhm.max()) for stamps in nodes)
    low, high = int(0.5 * widest / FWHM_STEP), int(3 * widest / FWHM_STEP)
    while high - low > 1:  # the gain falls as the width grows
        middle = (low + high) // 2
        psf = AnalyticPsf("MOFFAT", round(middle * FWHM_STEP, 2), beta=beta)
        wide = adaptive_moments(psf.stamp()).fwhm[0] >= widest
        if wide and all(_reaches(s, psf, tolerance) for stamps in nodes for s in stamps):
            high = middle
        else:
            low = middle
    return AnalyticPsf("MOFFAT", round(high * FWHM_STEP, 2), beta=beta)


def text_form(psf: AnalyticPsf) -> str:
    """Specification of a round Moffat for the command line."""
    return f"moffat:fwhm={psf.fwhm:g},beta={psf.beta:g}"


def _stamps(psf: Psf, box: Box) -> Array:
    count = 1 if psf.constant else N_NODE
    places = cell_centres(psf, box) or chebyshev_nodes(domain_of(box), (count, count))
    return np.unique(psf.at_many(*places), axis=0)


def _reaches(stamp: Array, psf: AnalyticPsf, tolerance: float) -> bool:
    """Whether a kernel of unlimited support reaches the reference without much gain."""
    target = psf.stamp(max(psf.side, stamp.shape[-1]))
    good = np.flatnonzero(fourier_residuals(stamp, target) <= tolerance)
    if not good.size:
        return False
    strength = float(GRID[good[0]])
    return bool(gains(stamp[None], target[None], strength=strength)[0] <= SAFE_GAIN)


def _moffat_beta(stamp: Array) -> float:
    """Exponent of the round Moffat that fits a stamp best."""
    start = float(adaptive_moments(stamp).fwhm[0])
    side = stamp.shape[-1]

    def left(values: Array) -> Array:
        model = AnalyticPsf("MOFFAT", values[0], beta=values[1], integrated=False).stamp(side)
        return np.asarray((model - stamp).ravel())

    bounds = ([0.3 * start, BETA_RANGE[0]], [3 * start, BETA_RANGE[1]])
    fit = optimize.least_squares(left, [start, 3.0], bounds=bounds, x_scale=[start, 1.0])
    return float(fit.x[1])
