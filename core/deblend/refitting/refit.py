"""Fitting a blend again from where it stopped, with sources added or taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.blend import observe
from coblend.core.deblend.fitting.components import (
    PADDING,
    Centres,
    Floats,
    Stack,
    allowed_radii,
    radii_of,
    stack_stamps,
)
from coblend.core.deblend.fitting.fit import fit
from coblend.core.deblend.fitting.initialize import initial_components
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.spectra import render
from coblend.core.deblend.report import BlendResult, report
from coblend.core.errors import FormatError
from coblend.core.kernels import model_psf
from coblend.core.params.deblend import DeblendParams


@dataclass(frozen=True, slots=True)
class Warm:
    """Components of a blend as an earlier fit left them, frame coordinates of its box.

    Parameters
    ----------
    source : array, shape (k,), int64
        Peak of each component, counted within the blend.
    centres : array, shape (k, 2), int64
        ``y, x``.
    corners : array, shape (k, 2), int64
        First pixel ``y, x`` of each morphology.
    spectra : array, shape (k, n_band), float32
        In units of the noise.
    morphs : sequence of array, shape (ny, nx), float32
        Largest value 1.
    """

    source: NDArray[np.int64]
    centres: NDArray[np.int64]
    corners: NDArray[np.int64]
    spectra: Floats
    morphs: Sequence[Floats]

    def centroids(self) -> NDArray[np.float64]:
        """Mean positions ``y, x`` of the components' light, shape (k, 2)."""
        out = np.zeros((len(self.morphs), 2))
        for i, morph in enumerate(self.morphs):
            light = morph.astype(np.float64) / morph.sum(dtype=np.float64)
            out[i] = [
                light.sum(1) @ np.arange(len(light)),
                light.sum(0) @ np.arange(light.shape[1]),
            ]
        return out + self.corners

    def only(self, sources: NDArray[np.int64]) -> Warm:
        """Components of some sources, which are numbered anew in that order."""
        rows = np.flatnonzero(np.isin(self.source, sources))
        number = np.searchsorted(sources, self.source[rows])
        return Warm(number, self.centres[rows], self.corners[rows], self.spectra[rows],
                    [self.morphs[int(row)] for row in rows])  # fmt: skip


def refit(batch: Batch, warm: Warm, params: DeblendParams) -> BlendResult:
    """Fit one blend, starting from an earlier fit.

    Peaks of the batch without a component in ``warm`` are new: they start on what the earlier
    models leave of the data, where bright neighbours do not hide them.

    Parameters
    ----------
    batch : Batch
        One blend; its peaks are those of the result.
    warm : Warm
    params : DeblendParams

    Raises
    ------
    FormatError
        The message is the reason, as for `blend.deblend_batch`.
    """
    if not (batch.cuts[0].weight > 0).any():
        raise FormatError("NoData")
    observation = observe(batch, params)
    box = batch.boxes[0]
    old = _centres(warm, box.shape)
    stacks = _stacks(warm, old)
    point = np.zeros(len(old), bool)
    fresh = np.setdiff1d(np.arange(len(batch.y)), warm.source)
    if len(fresh):
        peaks = Centres(
            np.zeros(len(fresh), np.int64), fresh, batch.y[fresh], batch.x[fresh],
            np.full(len(fresh), box.ny), np.full(len(fresh), box.nx),
        )  # fmt: skip
        left = residual(observation, stacks, warm.spectra)
        new, more, starts = initial_components(
            left, batch.psfs[batch.cell], peaks, threshold=params.background_thresh,
            min_snr=params.min_snr, psf_morph=model_psf(params.model_psf_sigma),
        )  # fmt: skip
        old, stacks, point = _join(old, stacks, new, more, starts)
    return report(batch, observation, fit(observation, old, stacks, params), point, params)[0]


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
    centres = _centres(warm, batch.boxes[0].shape)
    left = residual(observation, _stacks(warm, centres), warm.spectra)
    return np.asarray(left.frames[0].data[0])


def _centres(warm: Warm, shape: tuple[int, int]) -> Centres:
    zero = np.zeros(len(warm.source), np.int64)
    y, x = warm.centres.T
    return Centres(zero, warm.source, y, x, zero + shape[0], zero + shape[1])


def _stacks(warm: Warm, centres: Centres) -> list[Stack]:
    """Morphologies on stamps about their centres."""
    sizes = np.array([morph.shape for morph in warm.morphs], np.int64).reshape(-1, 2)
    ends = warm.corners + sizes - 1
    reach = np.maximum(warm.centres - warm.corners, ends - warm.centres).max(1, initial=1)
    stacks = stack_stamps(allowed_radii(reach + PADDING, centres), centres, [])
    for stack in stacks:
        for i, (row, (_, frame, part)) in enumerate(zip(stack.rows, stack.places, strict=True)):
            canvas = np.zeros((int(centres.ny[row]), int(centres.nx[row])), np.float32)
            (y, x), (ny, nx) = warm.corners[row], sizes[row]
            canvas[y : y + ny, x : x + nx] = warm.morphs[row]
            stack.morph[i][part] = canvas[frame]
    return stacks


def _join(
    old: Centres,
    stacks: Sequence[Stack],
    new: Centres,
    more: Sequence[Stack],
    starts: NDArray[np.bool_],
) -> tuple[Centres, list[Stack], NDArray[np.bool_]]:
    """Components of two lists as one, in the order of the sources."""
    n_old, n = len(old), len(old) + len(new)
    source = np.concatenate([old.source, new.source])
    order = np.argsort(source, kind="stable")
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    both = Centres(
        *(np.concatenate([getattr(old, f), getattr(new, f)])[order] for f in Centres.__slots__)
    )
    moved = [replace(s, rows=place[s.rows]) for s in stacks]
    moved += [replace(s, rows=place[s.rows + n_old]) for s in more]
    point = np.concatenate([np.zeros(n_old, bool), starts])[order]
    return both, stack_stamps(radii_of(moved, n), both, moved), point
