"""Fitting a blend again from where it stopped, with sources added or taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.blend import observe
from coblend.core.deblend.fitting.components import Centres, Floats, Stack
from coblend.core.deblend.fitting.fit import fit
from coblend.core.deblend.fitting.initialize import initial_components
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.render import render
from coblend.core.deblend.report import BlendResult, report
from coblend.core.deblend.warm import Warm, centres_of, join, stacks_of
from coblend.core.errors import FitError
from coblend.core.params.deblend import DeblendParams
from coblend.core.psf.moments import fwhm_of

_NEAR = 3
"""Sources as near to a new one start anew (widths of the PSF)."""


def refit(batch: Batch, warm: Warm, params: DeblendParams) -> BlendResult:
    """Fit one blend, starting from an earlier fit.

    Peaks of the batch without a component in ``warm`` are new: they start on what the earlier
    models leave of the data, where bright neighbours do not hide them. Sources next to a new one
    start anew with it, because their models may have swallowed its light.

    Parameters
    ----------
    batch : Batch
        One blend; its peaks are those of the result.
    warm : Warm
    params : DeblendParams

    Raises
    ------
    FitError
        The message is the reason, as for `blend.deblend_batch`.
    """
    if not (batch.cuts[0].weight > 0).any():
        raise FitError("NoData")
    observation = observe(batch, params)
    box = batch.boxes[0]
    warm = _away_from_new(warm, batch)
    old = centres_of(warm, box.shape)
    stacks = stacks_of(warm, old)
    point = np.zeros(len(old), bool)
    fresh = np.setdiff1d(np.arange(len(batch.y)), warm.source)
    if len(fresh):
        peaks = Centres(
            np.zeros(len(fresh), np.int64), fresh, batch.y[fresh], batch.x[fresh],
            np.full(len(fresh), box.ny), np.full(len(fresh), box.nx),
        )  # fmt: skip
        left = residual(observation, stacks, warm.spectra)
        new, more, starts = initial_components(
            left, batch.psfs[batch.cell], peaks, threshold=params.initial_background_thresh,
            min_snr=params.min_snr, psf_sigma=params.model_psf_sigma,
        )  # fmt: skip
        point = np.concatenate([point, starts])
        old, stacks, order = join(old, stacks, new, more)
        point = point[order]
    unit = batch.sigma if params.start == "reference" else None
    result = fit(observation, old, stacks, params, unit)
    return report(batch, observation, result, point, params)[0]


def _away_from_new(warm: Warm, batch: Batch) -> Warm:
    """Components of sources that are not next to a peak without any."""
    places = np.stack([batch.y, batch.x], 1)
    fresh = np.setdiff1d(np.arange(len(places)), warm.source)
    near = _NEAR * max(fwhm_of(psf) for psf in batch.psfs[batch.cell[0]])
    distance = np.hypot(*(places[:, None] - places[fresh]).transpose(2, 0, 1))
    keep = np.flatnonzero(distance.min(1, initial=np.inf) > near)
    rows = np.flatnonzero(np.isin(warm.source, keep))
    return replace(
        warm, source=warm.source[rows], centres=warm.centres[rows], corners=warm.corners[rows],
        spectra=warm.spectra[rows], morphs=[warm.morphs[int(row)] for row in rows],
    )  # fmt: skip


def residual(observation: Observation, stacks: Sequence[Stack], spectra: Floats) -> Observation:
    """Observation of one blend with its rendered models subtracted."""
    frames = observation.frames[0]
    data = frames.data.copy()
    for row, window, image in render(observation, stacks)[0]:
        data[(0, slice(None), *window)] -= spectra[row][:, None, None] * image
    data *= frames.weight > 0
    return Observation((replace(frames, data=data),))


def left_over(batch: Batch, warm: Warm, params: DeblendParams) -> Floats:
    """Residual of a batch of one blend, shape (n_band, ny, nx)."""
    observation = observe(batch, params)
    centres = centres_of(warm, batch.boxes[0].shape)
    left = residual(observation, stacks_of(warm, centres), warm.spectra)
    return np.asarray(left.frames[0].data[0])
