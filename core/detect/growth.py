"""Growth of footprints by a disc or a diamond.

A dilation is the union of shifted copies. The mask is widened step by step along rows; whenever
its half-width equals that of the stencil at a height dy, it is OR-ed into the result dy rows up
and down: about 3 r passes over one byte per pixel.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

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
    span_rows = spans[:, 0].copy()
    for rows in strips(shape[0]):
        around = slice(max(rows.start - halo, 0), min(rows.stop + halo, shape[0]))
        near = span_range(span_rows, around)
        if near.start == near.stop:
            continue
        mask = paint_rows(spans[near], around, shape[1])
        grown = dilate(mask, half_widths)[rows.start - around.start :][: rows.stop - rows.start]
        part = mask_to_spans(grown)
        part[:, 0] += rows.start
        parts.append(part)
    return np.concatenate(parts)


def span_range(span_rows: NDArray[np.int32], rows: slice, halo: int = 0) -> slice:
    """Which spans, of rows ``span_rows`` (ascending, contiguous), lie in ``rows`` and a halo."""
    ends = np.array([rows.start - halo, rows.stop + halo], np.int32)  # no cast of all span_rows
    first, stop = np.searchsorted(span_rows, ends)
    return slice(int(first), int(stop))


def paint_rows(spans: NDArray[np.int32], rows: slice, nx: int) -> NDArray[np.bool_]:
    """Mask of the rows ``rows`` (array coordinates) with the pixels of spans True.

    The spans are in raster order and disjoint: the mask is their run-length code, expanded.
    """
    line = (spans[:, 0].astype(np.int64) - rows.start) * nx
    ends = np.stack([line + spans[:, 1], line + spans[:, 2] + 1], axis=1).ravel()
    lengths = np.diff(ends, prepend=0, append=(rows.stop - rows.start) * nx)
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(-1, nx)


def share_growth(
    cores: NDArray[np.int32],
    owner: NDArray[np.int64],
    grown: NDArray[np.int32],
    shape: tuple[int, int],
    radius: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give every grown pixel to the nearest core (Voronoi), so that cores never merge.

    Ties go to the smallest dy, then dx, of the offset to the core's pixel.

    Parameters
    ----------
    cores : array, shape (n, 3), int32
        Spans of the cores, raster order, array coordinates.
    owner : array, shape (n,), int64
        Core of each span.
    grown : array, shape (m, 3), int32
        Spans of the grown footprints, raster order.
    shape : tuple of int
    radius : int
        Pixels farther than this from every core are left out.

    Returns
    -------
    spans : array, shape (k, 3), int32
        ``grown``, cut where the owner changes, raster order.
    owner : array, shape (k,), int64
    """
    parts, values = [np.empty((0, 3), np.int32)], [np.empty(0, np.int64)]
    grown_rows, core_rows = grown[:, 0].copy(), cores[:, 0].copy()
    for rows in strips(shape[0], 64):  # several planes per pixel: small strips
        here = span_range(grown_rows, rows)
        if here.start == here.stop:
            continue
        near = span_range(core_rows, rows, radius)
        labels = _nearest_core(cores[near], owner[near], grown[here], rows, shape[1], radius)
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
) -> NDArray[np.int32]:
    """Label image (core + 1) of some rows, 0 outside ``grown``.

    The nearest core pixel of every row is found once for all pixels of the row; each pixel then
    compares the rows within its reach.
    """
    height = rows.stop - rows.start
    labels = np.zeros((height + 2 * halo, nx), np.int32)
    labels.reshape(-1)[_flat(cores, rows.start - halo, nx)] = np.repeat(
        owner + 1, cores[:, 2] - cores[:, 1] + 1
    )
    sideways = _nearest_in_row(labels > 0, halo)
    # One integer holds the squared distance and, below it, the row: the smallest wins, then the
    # first row.
    step = 2 * halo + 1
    kind: Any = np.int16 if halo < 19 else np.int32
    key = (sideways >> 1).astype(kind) ** 2 * step
    best = key[:height] + kind(halo**2 * step)
    for shift in range(1, step):
        dy = shift - halo
        np.minimum(best, key[shift : shift + height] + kind(dy * dy * step + shift), out=best)
    pixel = _flat(grown, rows.start, nx)
    chosen = best.ravel()[pixel]
    source = pixel + (chosen % step).astype(np.int64) * nx
    aside = sideways.ravel()[source].astype(np.int64)
    source += np.where(aside & 1, aside >> 1, -(aside >> 1))
    near = chosen // step <= halo**2
    out = np.zeros(height * nx, np.int32)
    out[pixel[near]] = labels.ravel()[source[near]]
    return out.reshape(height, nx)


def _nearest_in_row(inside: NDArray[np.bool_], reach: int) -> NDArray[np.uint8]:
    """Twice the distance to the nearest True pixel of the same row, plus 1 if that is right.

    Ties go to the left; beyond ``reach`` it is ``2 * reach + 2``.
    """
    far = inside.view(np.uint8) - np.uint8(1)  # 0 inside, 255 outside
    out = np.minimum(far, np.uint8(2 * reach + 2))
    for step in range(1, reach + 1):
        left, right = np.uint8(2 * step), np.uint8(2 * step + 1)
        np.minimum(out[:, step:], far[:, :-step] | left, out=out[:, step:])
        np.minimum(out[:, :-step], far[:, step:] | right, out=out[:, :-step])
    return np.asarray(out)


def _flat(spans: NDArray[np.int32], y0: int, nx: int) -> NDArray[np.int64]:
    """Flat indices of all pixels of spans in an image that starts at row ``y0``."""
    wide = spans.astype(np.int64)
    return expand_runs((wide[:, 0] - y0) * nx + wide[:, 1], wide[:, 2] - wide[:, 1] + 1)
