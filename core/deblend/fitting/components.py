"""The model of blends: spectra times morphologies, on square stamps about their centres.

Stamps of one radius are stacked, whichever blend they belong to, so that each operator runs once
per radius and not once per source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike, NDArray

Floats = NDArray[np.floating]
Window = tuple[slice, slice]
Place = tuple[int, Window, Window]
"""Number of a blend, a window in its frame, and the same pixels in the stamp."""

RADII = (7, 10, 15, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300)
"""Radii of stamps; larger ones grow by a quarter each."""
_RING_COST = 200
"""Cost of a ring of calls, in pixels."""
PADDING = 5
"""Room around the lit pixels of a stamp, to grow into (pixel)."""


def stamp_radius(needed: int) -> int:
    """Smallest radius of the ladder that is at least ``needed``."""
    for radius in RADII:
        if radius >= needed:
            return radius
    radius = RADII[-1]
    while radius < needed:
        radius = radius * 5 // 4
    return radius


@dataclass(frozen=True, slots=True)
class Centres:
    """Where components are, and how far their frame reaches.

    Parameters
    ----------
    blend : array, shape (k,), int64
        Number of the blend in the observation.
    source : array, shape (k,), int64
        Row of the peak; components of one source share it.
    y, x : array, shape (k,), int64
        Centre, frame coordinates.
    ny, nx : array, shape (k,), int64
        Rows and columns of the blend's own box.
    """

    blend: NDArray[np.int64]
    source: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    ny: NDArray[np.int64]
    nx: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.blend)

    def select(self, rows: NDArray[np.int64]) -> Centres:
        """Components ``rows``."""
        return Centres(*(getattr(self, name)[rows] for name in self.__slots__))

    def with_blend(self, blend: NDArray[np.int64]) -> Centres:
        """Return the same components, in blends of other numbers."""
        return replace(self, blend=blend)

    def whole_box(self) -> NDArray[np.int64]:
        """First and end row and column of the blends' boxes, shape (k, 4)."""
        zero = np.zeros(len(self), np.int64)
        return np.stack([zero, self.ny, zero, self.nx], 1)

    @property
    def reach(self) -> NDArray[np.int64]:
        """Offset of the farthest pixel of the box, shape (k,)."""
        return self.reach_within(self.whole_box())

    def reach_within(self, limits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Largest offset of a pixel within limits, shape (k,)."""
        y0, y1, x0, x1 = limits.T
        offsets = self.y - y0, y1 - 1 - self.y, self.x - x0, x1 - 1 - self.x
        return np.asarray(np.maximum.reduce(offsets), np.int64)


@dataclass(frozen=True, slots=True)
class Stack:
    """Stamps of one size.

    Parameters
    ----------
    radius : int
        Of the stamps; ``n = 2 radius + 1``.
    own : array, shape (m,), int64
        Radius that each component may use, at most ``radius``.
    rows : array, shape (m,), int64
        The components, rows of `Centres`.
    planes : array, shape (p, m, n, n), float32 (float64 with ``start="reference"``)
        Morphologies in plane 0, whatever the optimiser keeps per pixel in the others.
    outside : array, shape (m, n, n), bool, or None
        Pixels beyond the own radius or the blend's box; None when there are none.
    places : tuple of Place
    """

    radius: int
    own: NDArray[np.int64]
    rows: NDArray[np.int64]
    planes: Floats
    outside: NDArray[np.bool_] | None
    places: tuple[Place, ...]

    @property
    def morph(self) -> Floats:
        """Morphologies, shape (m, n, n)."""
        first: Floats = self.planes[0]
        return first

    @classmethod
    def empty(
        cls,
        own: NDArray[np.int64],
        rows: NDArray[np.int64],
        centres: Centres,
        planes: int = 1,
        dtype: DTypeLike = np.float32,
        limits: NDArray[np.int64] | None = None,
    ) -> Stack:
        """Stack of zeros for components ``rows`` of radii ``own``; see `stack_stamps`."""
        radius = int(own.max())
        side = 2 * radius + 1
        at = centres.select(rows)
        places = []
        outside = np.ones((len(rows), side, side), bool)
        edges = at.whole_box() if limits is None else limits[rows]
        for i, (r, (y0, y1, x0, x1)) in enumerate(zip(own.tolist(), edges.tolist(), strict=True)):
            y, x = int(at.y[i]), int(at.x[i])
            fy = slice(max(y0, y - r), min(y1, y + r + 1))
            fx = slice(max(x0, x - r), min(x1, x + r + 1))
            sy = slice(fy.start - y + radius, fy.stop - y + radius)
            sx = slice(fx.start - x + radius, fx.stop - x + radius)
            places.append((int(at.blend[i]), (fy, fx), (sy, sx)))
            outside[i, sy, sx] = False
        zeros = np.zeros((planes, len(rows), side, side), dtype)
        return cls(radius, own, rows, zeros, outside if outside.any() else None, tuple(places))

    def take(
        self, members: NDArray[np.int64], rows: NDArray[np.int64], blends: NDArray[np.int64]
    ) -> Stack:
        """Take some of the stamps, as components ``rows`` of blends ``blends``."""
        places = ((int(b), *self.places[i][1:]) for b, i in zip(blends, members, strict=True))
        outside = None if self.outside is None else self.outside[members]
        return Stack(
            self.radius, self.own[members], rows, self.planes[:, members], outside, tuple(places)
        )

    def with_planes(self, planes: Floats) -> Stack:
        """Return the same places with other pixels."""
        return Stack(self.radius, self.own, self.rows, planes, self.outside, self.places)

    def cut(self, images: Sequence[Floats]) -> Floats:
        """Cut the stamps out of one plane per blend; 0 outside the box."""
        out = np.zeros_like(self.morph)
        for stamp, (blend, frame, part) in zip(out, self.places, strict=True):
            stamp[part] = images[blend][frame]
        return out


def stack_stamps(
    radii: NDArray[np.int64],
    centres: Centres,
    old: Sequence[Stack],
    planes: int = 1,
    limits: NDArray[np.int64] | None = None,
) -> list[Stack]:
    """Sort components into stacks by radius and copy what the old stacks hold of them.

    Pixels beyond an old stamp are 0; those beyond a new one are dropped.

    Parameters
    ----------
    radii : array, shape (k,), int64
        Those below 1 count as 1: monotonic stamps have neighbours.
    centres : Centres
    old : sequence of Stack
    planes : int
    limits : array, shape (k, 4), int64, optional
        First and end row, first and end column that each component may use; by default those of
        the blend's box.
    """
    home = {int(row): (stack, i) for stack in old for i, row in enumerate(stack.rows)}
    dtype = np.result_type(np.float32, *(stack.planes for stack in old))
    radii = np.maximum(radii, 1)
    stacks = []
    for low, high in _sizes(radii):
        rows = np.flatnonzero((radii > low) & (radii <= high))
        stack = Stack.empty(radii[rows], rows, centres, planes, dtype, limits)
        for i, row in enumerate(stack.rows):
            if int(row) in home:
                source, j = home[int(row)]
                small = min(source.radius, stack.radius)
                here = slice(stack.radius - small, stack.radius + small + 1)
                there = slice(source.radius - small, source.radius + small + 1)
                n = min(planes, len(source.planes))
                stack.planes[:n, i, here, here] = source.planes[:n, j, there, there]
        if stack.outside is not None:
            stack.planes[:, stack.outside] = 0
        stacks.append(stack)
    return stacks


def allowed_radii(needed: NDArray[np.int64], centres: Centres) -> NDArray[np.int64]:
    """Smallest radii of the ladder that hold what is needed, or the box if that is smaller."""
    wanted = np.minimum(needed, np.maximum(centres.reach, 1))
    ladder = {int(r): stamp_radius(int(r)) for r in np.unique(wanted)}
    return np.array([ladder[int(r)] for r in wanted], np.int64)


def support_radius(morph: Floats) -> NDArray[np.int64]:
    """Largest offset of a positive pixel from the centre along either axis, shape (k,)."""
    radius = morph.shape[-1] // 2
    offset = np.abs(np.arange(-radius, radius + 1))
    lit = morph > 0
    rows = np.where(lit.any(2), offset, 0).max(1, initial=0)
    columns = np.where(lit.any(1), offset, 0).max(1, initial=0)
    return np.asarray(np.maximum(rows, columns), np.int64)


def radii_of(stacks: Sequence[Stack], n_component: int) -> NDArray[np.int64]:
    """Radius of every component's stamp, shape (n_component,)."""
    radii = np.zeros(n_component, np.int64)
    for stack in stacks:
        radii[stack.rows] = stack.own
    return radii


def _sizes(radii: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges (low, high] of radii that share a stack.

    Every ring of a stack costs a handful of calls, whatever the number of stamps, so few small
    stamps had better share the stack of larger ones.
    """
    values, counts = np.unique(radii, return_counts=True)
    sizes, low, held = [], 0, 0
    for i, (radius, count) in enumerate(zip(values.tolist(), counts.tolist(), strict=True)):
        held += count
        if i + 1 < len(values):
            following = int(values[i + 1])
            if held * (following**2 - radius**2) < _RING_COST * radius:
                continue
        sizes.append((low, radius))
        low, held = radius, 0
    return sizes


def limits_of(stacks: Sequence[Stack], n_component: int) -> NDArray[np.int64]:
    """First and end row and column of every component, frame coordinates, shape (k, 4)."""
    limits = np.zeros((n_component, 4), np.int64)
    for stack in stacks:
        for row, (_, (y, x), _) in zip(stack.rows.tolist(), stack.places, strict=True):
            limits[row] = y.start, y.stop, x.start, x.stop
    return limits


def limits_of_light(lit: NDArray[np.bool_], centres: Centres) -> NDArray[np.int64]:
    """First and end row and column of the lit pixels of stamps, with room to grow into.

    Parameters
    ----------
    lit : array, shape (k, n, n), bool
        Stamps without any count as lit in their centre.
    centres : Centres
        Their k components.

    Returns
    -------
    array, shape (k, 4), int64
        Frame coordinates, within the blend's box.
    """
    side = lit.shape[-1]
    limits = []
    for at, end, axis in ((centres.y, centres.ny, 2), (centres.x, centres.nx, 1)):
        any_lit: NDArray[np.bool_] = np.asarray(lit.any(axis))
        any_lit[~any_lit.any(1), side // 2] = True
        low = at - side // 2 - PADDING
        limits += [
            np.maximum(0, low + any_lit.argmax(1)),
            np.minimum(end, low + 2 * PADDING + side - any_lit[:, ::-1].argmax(1)),
        ]
    return np.stack(limits, 1)


def members_of(centres: Centres, n_blend: int) -> list[list[int]]:
    """Components of every blend, in order."""
    members: list[list[int]] = [[] for _ in range(n_blend)]
    for row, blend in enumerate(centres.blend.tolist()):
        members[blend].append(row)
    return members


def sources_in(centres: Centres, n_blend: int) -> NDArray[np.int64]:
    """Count the sources of every blend, shape (n_blend,)."""
    _, first = np.unique(centres.source, return_index=True)
    return np.bincount(centres.blend[first], minlength=n_blend)


def placed(stacks: Sequence[Stack], n_component: int) -> list[tuple[Floats, Window]]:
    """Morphology of every component inside its box, and the window in the frame."""
    out: list[tuple[Floats, Window]] = [(np.empty(0), (slice(0), slice(0)))] * n_component
    for stack in stacks:
        for row, morph, (_, frame, part) in zip(
            stack.rows.tolist(), stack.morph, stack.places, strict=True
        ):
            out[row] = morph[part], frame
    return out
