"""Growth of footprints by a disc or a diamond.

A dilation is the union of shifted copies. The mask is widened step by step along rows; whenever
its half-width equals that of the stencil at a height dy, it is OR-ed into the result dy rows up
and down: about 3 r passes over one byte per pixel.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.pixels import strips
from coblend.core.errors import ParameterError
from coblend.core.footprint import expand_runs, labels_to_spans, mask_to_spans

MAX_RADIUS = 64


def growth_radius(sigma: float, n_sigma: float) -> int:
    """Radius ``int(n_sigma * sigma + 0.5)`` in pixels.

    Raises
    ------
    ParameterError
        Above 64 pixels.
    """
    radius = int(n_sigma * sigma + 0.5)
    if radius > MAX_RADIUS:
        raise ParameterError(
            f"growth by {n_sigma:g} x {sigma:.2f} px is {radius} px, at most {MAX_RADIUS}",
            hint="give the radius in pixels with --set grow=N",
        )
    return radius


def stencil(radius: int, shape: str = "disc") -> NDArray[np.int64]:
    """Half-widths of the stencil at heights 0 to ``radius``.

    ``floor(sqrt(radius**2 - dy**2))`` for a disc, ``radius - dy`` for a diamond.
    """
    if shape == "diamond":
        return radius - np.arange(radius + 1)
    return np.array([isqrt(radius**2 - dy**2) for dy in range(radius + 1)])


def dilate(mask: NDArray[np.bool_], half_widths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Dilate a mask; the image's border clips the result."""
    wide, out = mask.copy(), np.zeros_like(mask)
    reach = 0
    for dy in range(len(half_widths) - 1, -1, -1):
        while reach < half_widths[dy]:
            reach += 1
            wide[:, reach:] |= mask[:, :-reach]
            wide[:, :-reach] |= mask[:, reach:]
        if dy == 0:
            out |= wide
        elif dy < len(mask):
            out[dy:] |= wide[:-dy]
            out[:-dy] |= wide[dy:]
    return out


def grow_spans(
    spans: NDArray[np.int32], shape: tuple[int, int], half_widths: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Dilate a set of pixels.

    Parameters
    ----------
    spans : array, shape (n, 3), int32
        Raster order, disjoint, array coordinates.
    shape : tuple of int
        Rows and columns of the image that clips the result.
    half_widths : array
        From `stencil`.

    Returns
    -------
    array, shape (m, 3), int32
        Raster order, disjoint, not abutting.
    """
    halo = len(half_widths) - 1
    parts = [np.empty((0, 3), np.int32)]
    for rows in strips(shape[0]):
        around = slice(max(rows.start - halo, 0), min(rows.stop + halo, shape[0]))
        first, stop = np.searchsorted(spans[:, 0], [around.start, around.stop])
        if first == stop:
            continue
        mask = paint_rows(spans[first:stop], around, shape[1])
        grown = dilate(mask, half_widths)[rows.start - around.start :][: rows.stop - rows.start]
        part = mask_to_spans(grown)
        part[:, 0] += rows.start
        parts.append(part)
    return np.concatenate(parts)


def paint_rows(spans: NDArray[np.int32], rows: slice, nx: int) -> NDArray[np.bool_]:
    """Mask of the rows ``rows`` (array coordinates) with the pixels of disjoint spans True."""
    # Steps of +1 and -1 and a running sum cost one byte per pixel; painting by pixel index
    # costs sixteen per covered pixel.
    steps = np.zeros((rows.stop - rows.start) * (nx + 1), np.int8)
    line = (spans[:, 0].astype(np.int64) - rows.start) * (nx + 1)
    steps[line + spans[:, 1]] += 1
    steps[line + spans[:, 2] + 1] -= 1
    np.cumsum(steps, dtype=np.int8, out=steps)
    return steps.view(np.bool_).reshape(-1, nx + 1)[:, :-1]


def share_growth(
    cores: NDArray[np.int32],
    owner: NDArray[np.int64],
    grown: NDArray[np.int32],
    shape: tuple[int, int],
    half_widths: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give every grown pixel to the nearest core (Voronoi), so that cores never merge.

    Ties go to the core found first in the order of the offsets ``(d**2, dy, dx)``.

    Parameters
    ----------
    cores : array, shape (n, 3), int32
        Spans of the cores, raster order, array coordinates.
    owner : array, shape (n,), int64
        Core of each span.
    grown : array, shape (m, 3), int32
        Spans of the grown footprints, raster order, each within the stencil of some core.
    shape : tuple of int
    half_widths : array
        From `stencil`.

    Returns
    -------
    spans : array, shape (k, 3), int32
        ``grown``, cut where the owner changes, raster order.
    owner : array, shape (k,), int64
    """
    halo = len(half_widths) - 1
    offsets = [(dy, dx) for dy in range(-halo, halo + 1)
               for dx in range(-half_widths[abs(dy)], half_widths[abs(dy)] + 1)]  # fmt: skip
    offsets.sort(key=lambda d: (d[0] ** 2 + d[1] ** 2, d))
    parts, values = [np.empty((0, 3), np.int32)], [np.empty(0, np.int64)]
    for rows in strips(shape[0], 64):  # several index arrays per pixel: small strips
        first, stop = np.searchsorted(grown[:, 0], [rows.start, rows.stop])
        if first == stop:
            continue
        labels = _nearest_core(cores, owner, grown[first:stop], rows, shape[1], halo, offsets)
        part, value = labels_to_spans(labels)
        part[:, 0] += rows.start
        parts.append(part)
        values.append(value.astype(np.int64) - 1)
    return np.concatenate(parts), np.concatenate(values)


def _nearest_core(
    cores: NDArray[np.int32],
    owner: NDArray[np.int64],
    grown: NDArray[np.int32],
    rows: slice,
    nx: int,
    halo: int,
    offsets: list[tuple[int, int]],
) -> NDArray[np.int32]:
    """Label image (core + 1) of some rows, 0 outside ``grown``."""
    stride = nx + 2 * halo  # columns around the image, so that offsets never wrap
    labels = np.zeros((rows.stop - rows.start + 2 * halo) * stride, np.int32)
    first, stop = np.searchsorted(cores[:, 0], [rows.start - halo, rows.stop + halo])
    labels[_flat(cores[first:stop], rows.start - halo, stride, halo)] = np.repeat(
        owner[first:stop] + 1, cores[first:stop, 2] - cores[first:stop, 1] + 1
    )
    inside = _flat(grown, rows.start - halo, stride, halo)
    own = labels[inside]
    nearest = np.zeros_like(labels)
    nearest[inside] = own
    pixel = inside[own == 0]
    for dy, dx in offsets:
        if not len(pixel):
            break
        found = labels[pixel + (dy * stride + dx)]
        hit = found > 0
        nearest[pixel[hit]] = found[hit]
        pixel = pixel[~hit]
    return nearest.reshape(-1, stride)[halo : halo + rows.stop - rows.start, halo : halo + nx]


def _flat(spans: NDArray[np.int32], y0: int, stride: int, margin: int) -> NDArray[np.int64]:
    """Flat indices of all pixels of spans in a buffer that starts at row ``y0``."""
    wide = spans.astype(np.int64)
    start = (wide[:, 0] - y0) * stride + wide[:, 1] + margin
    return expand_runs(start, wide[:, 2] - wide[:, 1] + 1)
