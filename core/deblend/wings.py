"""Wings of bright stars: round profiles, measured on rings, that no stamp has to hold in the fit.

A star a thousand times brighter than the noise lights pixels hundreds of pixels away. A free
morphology of that size costs memory and time, and other sources' light. Beyond ``wing_radius``
the light of a star is a function of the distance, which rings measure well; inside, the wing
continues as a plateau, and the free morphology on top of it ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import (
    Centres,
    Floats,
    Stack,
    allowed_radii,
    stack_stamps,
)
from coblend.core.deblend.fitting.fit import Fit
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.warm import join
from coblend.core.params.deblend import DeblendParams

_GROWTH = 1.1
"""Outer over inner radius of a ring."""
_SECTORS = 8
_ROUND = 0.5
"""Smallest ratio of a fainter side of the first ring to its median."""
_FAINTEST = 1.0
"""Wings start where the first ring is brighter than this (noise of one pixel, bands summed)."""
_FALL = 1.5
"""Least ratio of the light at half the distance to that of the first ring."""
_STEEP, _STEEP_SATURATED = 2000, 15
"""Least ratio of the brightest usable pixel in the core to the first ring: galaxies are flatter.

The second where the core's centre is not usable.
"""
_CORE = 10
"""Radius of the core (pixel)."""
_NEAR = 10
"""Pixels as near to a peak do not count (pixel)."""
_COVERED = 0.15
"""Rings of which less is seen say nothing."""


@dataclass(frozen=True, slots=True)
class Wings:
    """Wings of k sources.

    Parameters
    ----------
    centres : Centres
    stacks : list of Stack
        Their morphologies, of maximum 1.
    spectra : array, shape (k, n_band), float32
        In units of the noise.
    """

    centres: Centres
    stacks: list[Stack]
    spectra: Floats


@dataclass(frozen=True, slots=True)
class _Wing:
    """Profile of one wing: ``height`` at ``radius``, falling to 0 at the last one."""

    peak: int
    radius: NDArray[np.float64]
    height: NDArray[np.float64]
    spectrum: Floats

    def at(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value at distances; constant inside the first ring."""
        return np.interp(distance, self.radius, self.height)


def find_wings(observation: Observation, peaks: Centres, params: DeblendParams) -> Wings | None:
    """Measure the wings of the stars that have some; None if there are none.

    Parameters
    ----------
    observation : Observation
    peaks : Centres
        All sources.
    params : DeblendParams
    """
    inner = params.wing_radius
    if not inner or max(max(f.shape) for f in observation.frames) <= 2 * inner:
        return None
    found: list[_Wing] = []
    for i, (data, weight) in enumerate(zip(observation.data, observation.weight, strict=True)):
        rows = np.flatnonzero(peaks.blend == i)
        if len(rows) and max(data.shape[1:]) > 2 * inner:
            found += _of_blend(data, weight, peaks, rows, inner)
    if not found:
        return None
    centres = peaks.select(np.array([wing.peak for wing in found]))
    reach = np.array([int(wing.radius[-1]) for wing in found])
    stacks = stack_stamps(allowed_radii(reach, centres), centres, [])
    for stack in stacks:
        offset = np.arange(-stack.radius, stack.radius + 1)
        distance = np.hypot(offset[:, None], offset)
        for k, row in enumerate(stack.rows):
            stack.planes[0, k] = found[int(row)].at(distance)
        if stack.outside is not None:
            stack.planes[0, stack.outside] = 0
    return Wings(centres, stacks, np.stack([wing.spectrum for wing in found]))


def without(observation: Observation, wings: Wings) -> Observation:
    """Subtract wings from the data; they are so smooth that no kernel changes them."""
    data = [np.array(image) for image in observation.data]
    for stack in wings.stacks:
        for row, morph, (blend, frame, part) in zip(
            stack.rows, stack.morph, stack.places, strict=True
        ):
            data[blend][(slice(None), *frame)] -= wings.spectra[row][:, None, None] * morph[part]
    return Observation(tuple(
        replace(frames, data=np.stack([data[b] for b in frames.blends]) * (frames.weight > 0))
        for frames in observation.frames
    ))  # fmt: skip


def with_wings(
    fitted: Fit, point: NDArray[np.bool_], wings: Wings
) -> tuple[Fit, NDArray[np.bool_]]:
    """Add wings to the components of a fit, and to the list of those that started as points."""
    centres, stacks, order = join(fitted.centres, fitted.stacks, wings.centres, wings.stacks)
    spectra = np.concatenate([fitted.spectra, wings.spectra])[order]
    point = np.concatenate([point, np.zeros(len(wings.centres), bool)])[order]
    return replace(fitted, centres=centres, stacks=stacks, spectra=spectra), point


def _of_blend(
    data: Floats, weight: Floats, peaks: Centres, rows: NDArray[np.int64], inner: int
) -> list[_Wing]:
    """Wings of one blend, the brightest first; each is measured without those before."""
    left, seen = data.astype(np.float64), (weight > 0)
    found: list[_Wing] = []
    lonely = _far_from(peaks, rows, data.shape[1:])
    rows = np.array([row for row in rows if _room(peaks, row, data.shape[1:]) > inner], np.int64)
    while len(rows):
        rings = np.array([_first_ring(left, seen, peaks, int(row), inner) for row in rows])
        best = int(rows[np.argmax(rings)])
        rows = rows[(rings > 0) & (rows != best)]
        wing = _measure(left, seen & lonely, peaks, best, inner) if rings.max() > 0 else None
        if wing is not None:
            distance = _distance(peaks, wing.peak, data.shape[1:])
            left -= wing.spectrum[:, None, None] * wing.at(distance)
            found.append(wing)
    return found


def _far_from(peaks: Centres, rows: NDArray[np.int64], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Pixels that are not next to any peak, shape (ny, nx)."""
    out = np.ones(tuple(shape), bool)
    offset = np.arange(-_NEAR, _NEAR + 1)
    y, x = np.nonzero(np.hypot(offset[:, None], offset) <= _NEAR)
    ys = peaks.y[rows][:, None] + offset[y]
    xs = peaks.x[rows][:, None] + offset[x]
    inside = (ys >= 0) & (ys < shape[0]) & (xs >= 0) & (xs < shape[1])
    out[ys[inside], xs[inside]] = False
    return out


def _room(peaks: Centres, row: int, shape: Sequence[int]) -> int:
    y, x = int(peaks.y[row]), int(peaks.x[row])
    return max(y, x, shape[0] - 1 - y, shape[1] - 1 - x)


def _distance(peaks: Centres, row: int, shape: Sequence[int]) -> NDArray[np.float64]:
    y, x = np.arange(shape[0]) - peaks.y[row], np.arange(shape[1]) - peaks.x[row]
    return np.asarray(np.hypot(y[:, None], x), np.float64)


def _first_ring(
    data: NDArray[np.float64], seen: NDArray[np.bool_], peaks: Centres, row: int, inner: int
) -> float:
    """Brightness of the fainter sides of the ring at ``inner``.

    0 if faint, unseen or uneven, if the light does not come from within but from brighter
    neighbours at that distance, or if the source is flat as a galaxy.
    """
    outer = int(inner * _GROWTH)
    y, x = int(peaks.y[row]), int(peaks.x[row])
    low = max(0, y - outer), max(0, x - outer)
    cut = (slice(None), slice(low[0], y + outer + 1), slice(low[1], x + outer + 1))
    ny, nx = data[cut].shape[1:]
    dy, dx = np.arange(ny)[:, None] + low[0] - y, np.arange(nx) + low[1] - x
    distance = np.hypot(dy, dx)
    ring = (distance >= inner) & (distance < outer) & seen[cut].any(0)
    if np.count_nonzero(ring) < _COVERED * np.pi * (outer**2 - inner**2):
        return 0.0
    total = data[cut].sum(0)
    light = total[ring]
    sector = (np.arctan2(dy, dx)[ring] / (2 * np.pi / _SECTORS)).astype(np.int64) % _SECTORS
    sides = np.sort([np.median(light[sector == s]) for s in np.unique(sector)])
    fainter = float(sides[min(1, len(sides) - 1)])
    even = fainter > _ROUND * float(np.median(sides))
    within = (distance >= inner / 2) & (distance < outer / 2) & seen[cut].any(0)
    falls = not within.any() or float(np.median(total[within])) > _FALL * fainter
    core = total[(distance < _CORE) & seen[cut].any(0)]
    steep = _STEEP if seen[:, y, x].any() else _STEEP_SATURATED
    falls &= float(core.max(initial=0)) > steep * fainter
    return fainter if even and falls and fainter > _FAINTEST * np.sqrt(len(data)) else 0.0


def _measure(
    data: NDArray[np.float64], seen: NDArray[np.bool_], peaks: Centres, row: int, inner: int
) -> _Wing | None:
    """Profile of the bands' sum on rings as far as it is seen, and the share of every band."""
    distance = _distance(peaks, row, data.shape[1:])
    usable = seen.all(0) if seen.all(0).any() else seen.any(0)
    total = data.sum(0)
    edge = float(inner)
    radius: list[float] = []
    height: list[float] = []
    while True:
        ring = (distance >= edge) & (distance < edge * _GROWTH) & usable
        area = np.pi * edge**2 * (_GROWTH**2 - 1)
        value = float(np.median(total[ring])) if ring.sum() > _COVERED * area else 0.0
        # the median of n pixels is known to 1.25 sigma / sqrt(n)
        if value < 5 * np.sqrt(len(data) / max(ring.sum(), 1)):
            break
        radius.append(edge * (1 + _GROWTH) / 2)
        height.append(min(value, height[-1]) if height else value)
        edge *= _GROWTH
    if len(radius) < 2:
        return None
    first = (distance >= inner) & (distance < inner * _GROWTH**2)
    share = np.array([np.median(d[first & s]) if (first & s).any() else 0.0
                      for d, s in zip(data, seen, strict=True)])  # fmt: skip
    share = np.maximum(share, 0)
    scale = height[0] * share / max(share.sum(), 1e-30)
    profile = np.append(height, 0.0) / height[0]
    return _Wing(row, np.append(radius, edge * (1 + _GROWTH) / 2), profile, scale.astype("f4"))
