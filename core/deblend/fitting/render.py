"""What the morphologies of components look like in all bands: convolution with their kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft

from coblend.core.deblend.fitting.components import Floats, Place, Stack, Window
from coblend.core.deblend.fitting.observation import (
    Frames,
    Observation,
    invert,
    kernel_transform,
    transform,
)

_CHUNK = 1 << 18
"""Most values to render at once."""

Rendered = tuple[int, Window, Floats]
"""A component, its window in the frame, and its images there in all bands."""


class _Item(NamedTuple):
    """A component to render: its frames and its row there, its morphology and its place."""

    row: int
    frames: Frames
    at: int
    morph: Floats
    place: Place


def render(observation: Observation, stacks: Sequence[Stack]) -> list[list[Rendered]]:
    """Convolve every morphology with the kernels of all bands.

    Parameters
    ----------
    observation : Observation
        n blends.
    stacks : sequence of Stack
        Morphologies of their components.

    Returns
    -------
    list of list of (row, window, images)
        Per blend and component: its row, where in the frame, and its images there, shape
        (n_band, ...).
    """
    rendered: list[list[Rendered]] = [[] for _ in range(len(observation))]
    home: list[tuple[int, int]] = [(0, 0)] * len(observation)
    for g, frames in enumerate(observation.frames):
        for i, blend in enumerate(frames.blends.tolist()):
            home[blend] = g, i
    small: dict[int, list[_Item]] = {}  # by radius
    large: dict[int, list[_Item]] = {}  # by group of frames
    for stack in stacks:
        for row, r, morph, place in zip(
            stack.rows.tolist(), stack.own.tolist(), stack.morph, stack.places, strict=True
        ):
            g, i = home[place[0]]
            frames = observation.frames[g]
            # a stamp with its wings may be smaller than the frame
            if 2 * (r + frames.half) + 1 < min(frames.shape):
                small.setdefault(r, []).append(_Item(row, frames, i, *_trimmed(morph, place, r)))
            else:
                large.setdefault(g, []).append(_Item(row, frames, i, morph, place))
    common = _same_kernels(observation)
    for items in small.values():
        side = len(items[0].morph) + 2 * items[0].frames.half
        for part in _chunks(items, observation.n_band, side):
            for item, found in zip(part, _render_stamps(part, common), strict=True):
                rendered[item.place[0]].append((item.row, *found))
    for items in large.values():
        for part in _chunks(items, observation.n_band, max(items[0].frames.period)):
            for item, found in zip(part, _render_frames(part), strict=True):
                rendered[item.place[0]].append((item.row, *found))
    return [sorted(own, key=lambda one: one[0]) for own in rendered]


def _trimmed(morph: Floats, place: Place, radius: int) -> tuple[Floats, Place]:
    """Cut a stamp to a smaller radius."""
    edge = len(morph) // 2 - radius
    blend, window, (y, x) = place
    inner = slice(y.start - edge, y.stop - edge), slice(x.start - edge, x.stop - edge)
    side = slice(edge, edge + 2 * radius + 1)
    return morph[side, side], (blend, window, inner)


def _chunks(items: Sequence[_Item], n_band: int, side: int) -> Iterator[Sequence[_Item]]:
    """Parts of the items to render at once, on planes of about ``side`` squared pixels."""
    most = max(1, _CHUNK // (n_band * side * side))
    return (items[first : first + most] for first in range(0, len(items), most))


def _same_kernels(observation: Observation) -> bool:
    """Whether all blends have the kernels of the first."""
    kernels = [frames.kernels for frames in observation.frames]
    return all(len(own) == 1 and np.array_equal(own, kernels[0]) for own in kernels)


def _render_frames(items: Sequence[_Item]) -> Iterator[tuple[Window, Floats]]:
    """Render components over their whole frames, which are of one group."""
    frames = items[0].frames
    planes = np.zeros((len(items), *frames.shape), frames.data.dtype)
    for plane, item in zip(planes, items, strict=True):
        _, window, own = item.place
        plane[window] = item.morph[own]
    kernel_ft = frames.kernel_ft
    if len(kernel_ft) > 1:
        kernel_ft = kernel_ft[[item.at for item in items]]
    whole = (slice(0, frames.shape[0]), slice(0, frames.shape[1]))
    for image in frames.invert(frames.transform(planes)[:, None] * kernel_ft):
        yield whole, image


def _render_stamps(items: Sequence[_Item], common: bool) -> Iterator[tuple[Window, Floats]]:
    """Render components on their stamps, which are of one size, plus the wings of the kernel."""
    frames = items[0].frames
    half, side = frames.half, len(items[0].morph)
    full = side + 2 * half
    period = (int(fft.next_fast_len(full, real=True)),) * 2
    kernels = frames.kernels if common else np.stack([
        item.frames.kernels[item.at if len(item.frames.kernels) > 1 else 0] for item in items
    ])  # fmt: skip
    planes = np.zeros((len(items), full, full), frames.data.dtype)
    planes[:, half : half + side, half : half + side] = [item.morph for item in items]
    kernel_ft = kernel_transform(kernels, period, (full, full))
    images = invert(transform(planes, period)[:, None] * kernel_ft, period, (full, full))
    for image, item in zip(images, items, strict=True):
        _, window, own = item.place
        lows = [w.start - o.start - half for w, o in zip(window, own, strict=True)]
        cut = tuple(
            slice(max(0, low), min(n, low + full))
            for low, n in zip(lows, item.frames.shape, strict=True)
        )
        inside = tuple(
            slice(c.start - low, c.stop - low) for c, low in zip(cut, lows, strict=True)
        )
        yield (cut[0], cut[1]), image[(slice(None), *inside)]
