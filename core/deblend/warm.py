"""Components as an earlier fit left them, and how they meet new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.deblend.fitting.components import (
    PADDING,
    Centres,
    Floats,
    Stack,
    allowed_radii,
    radii_of,
    stack_stamps,
)


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


def centres_of(warm: Warm, shape: tuple[int, int]) -> Centres:
    """Centres of the components in a frame."""
    zero = np.zeros(len(warm.source), np.int64)
    y, x = warm.centres.T
    return Centres(zero, warm.source, y, x, zero + shape[0], zero + shape[1])


def stacks_of(warm: Warm, centres: Centres) -> list[Stack]:
    """Morphologies on stamps about their centres, as far as they lie in the frame.

    Those of point sources may reach beyond it.
    """
    sizes = np.array([morph.shape for morph in warm.morphs], np.int64).reshape(-1, 2)
    ends = warm.corners + sizes - 1
    reach = np.maximum(warm.centres - warm.corners, ends - warm.centres).max(1, initial=1)
    stacks = stack_stamps(allowed_radii(reach + PADDING, centres), centres, [])
    for stack in stacks:
        for i, (row, (_, frame, part)) in enumerate(zip(stack.rows, stack.places, strict=True)):
            whole = Box(0, 0, int(centres.ny[row]), int(centres.nx[row]))
            own = Box(*warm.corners[row].tolist(), *sizes[row].tolist())
            canvas = np.zeros(whole.shape, np.float32)
            common = own & whole
            canvas[common.slices(whole)] = warm.morphs[row][common.slices(own)]
            stack.morph[i][part] = canvas[frame]
    return stacks


def join(
    old: Centres, stacks: Sequence[Stack], new: Centres, more: Sequence[Stack]
) -> tuple[Centres, list[Stack], NDArray[np.int64]]:
    """Components of two lists as one, in the order of the sources.

    Returns
    -------
    centres : Centres
    stacks : list of Stack
    order : array, shape (k,), int64
        Where each component stood when the lists are laid end to end.
    """
    n_old, n = len(old), len(old) + len(new)
    order = np.argsort(np.concatenate([old.source, new.source]), kind="stable")
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    both = Centres(
        *(np.concatenate([getattr(old, f), getattr(new, f)])[order] for f in Centres.__slots__)
    )
    moved = [replace(s, rows=place[s.rows]) for s in stacks]
    moved += [replace(s, rows=place[s.rows + n_old]) for s in more]
    return both, stack_stamps(radii_of(moved, n), both, moved), order
