"""Sky objects: empty discs at reproducible places, to measure the noise of whatever follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from coblend.core.box import Box
from coblend.core.detect.growth import dilate, stencil
from coblend.core.exposure import Exposure
from coblend.core.footprint import FootprintSet, SpanIndex, mask_to_spans


def sky_positions(
    occupied: NDArray[np.int32],
    box: Box,
    *,
    number: int,
    radius: int,
    trials: int,
    seed: int | Sequence[int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose places for sky objects.

    Candidates are Halton points (bases 2 and 3), shifted by two random numbers, the same on any
    platform and with any library version. One is taken if its disc touches no occupied pixel
    and no disc, grown by a disc, taken before (meas_algorithms: SkyObjectsTask).

    Parameters
    ----------
    occupied : array, shape (n_span, 3), int32
        Disjoint spans in raster order, parent coordinates.
    box : Box
    number, radius, trials : int
        Objects wanted, their radius (pixel), candidates per object.
    seed : int or sequence of int

    Returns
    -------
    y, x : array, shape (n,), int64
        Parent coordinates; at most ``number``.
    """
    if min(box.shape) <= 2 * (radius + 1) or not number:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    inner = box.grow(-(radius + 1))
    n = number * trials
    shift = np.random.Generator(np.random.PCG64(seed)).random(2)
    y = inner.y0 + ((_radical_inverse(n, 3) + shift[1]) % 1 * inner.ny).astype(np.int64)
    x = inner.x0 + ((_radical_inverse(n, 2) + shift[0]) % 1 * inner.nx).astype(np.int64)
    widths = stencil(radius)
    dy, dx = disc_offsets(widths)
    index = SpanIndex.build(occupied)
    free = np.ones(n, bool)
    for step_y, step_x in zip(dy.tolist(), dx.tolist(), strict=True):
        left = np.flatnonzero(free)
        free[left] = index.find(y[left] + step_y, x[left] + step_x) < 0
    y, x = y[free], x[free]
    taken = _apart(y, x, widths)[:number]
    return y[taken], x[taken]


def masked_spans(exposure: Exposure, planes: Iterable[str]) -> NDArray[np.int32]:
    """Spans of the pixels of an exposure that have any of ``planes``, parent coordinates."""
    bits = np.int32(exposure.planes.value(planes))
    corner = np.array([exposure.box.y0, exposure.box.x0, exposure.box.x0], np.int32)
    return mask_to_spans((exposure.mask & bits) != 0) + corner


def disc_offsets(half_widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets ``dy, dx`` of all pixels of a stencil."""
    radius = len(half_widths) - 1
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = np.abs(dx) <= half_widths[np.abs(dy)]
    return dy[inside], dx[inside]


def _apart(
    y: NDArray[np.int64], x: NDArray[np.int64], half_widths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Choose candidates in order, none within an earlier one."""
    radius = len(half_widths) - 1
    reach = 3 * radius
    disc = np.zeros((2 * reach + 1, 2 * reach + 1), bool)
    disc[reach, reach] = True
    for _ in range(3):  # disc + dilating disc + the other's disc
        disc = dilate(disc, half_widths)
    position = np.stack([y, x], axis=1)
    pairs = cKDTree(position).query_pairs(np.hypot(reach, reach), output_type="ndarray")
    offset = position[pairs[:, 1]] - position[pairs[:, 0]]
    inside = (np.abs(offset) <= reach).all(axis=1)
    pairs, offset = pairs[inside], offset[inside]
    clash = pairs[disc[offset[:, 0] + reach, offset[:, 1] + reach]]
    later, earlier = clash.max(axis=1), clash.min(axis=1)
    keep = np.ones(len(y), bool)
    order = np.lexsort((earlier, later))
    for b, a in zip(later[order].tolist(), earlier[order].tolist(), strict=True):
        if keep[a]:
            keep[b] = False
    return np.flatnonzero(keep)


def _radical_inverse(n: int, base: int) -> NDArray[np.float64]:
    """Van der Corput sequence: the digits of 1 to ``n`` mirrored at the point."""
    index = np.arange(1, n + 1)
    value, unit = np.zeros(n), 1.0
    while index.any():
        index, digit = np.divmod(index, base)
        unit /= base
        value += digit * unit
    return value


def sky_footprints(y: NDArray[np.int64], x: NDArray[np.int64], radius: int) -> FootprintSet:
    """Discs around ``(y, x)``."""
    rows = np.arange(-radius, radius + 1)
    reach = stencil(radius)[np.abs(rows)]
    ends = (y[:, None] + rows, x[:, None] - reach, x[:, None] + reach)
    spans = np.stack([end.ravel() for end in ends], axis=1).astype(np.int32)
    return FootprintSet(spans, np.arange(len(y) + 1) * len(rows))
