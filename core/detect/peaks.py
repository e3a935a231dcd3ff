"""Peaks: regional maxima of the significance map.

A regional maximum is an 8-connected set of equal pixels without a strictly greater neighbour. It
counts once, however large: a saturated or clipped core gives one peak, not one per pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from coblend.core.components import edge_labels
from coblend.core.detect.pixels import strips
from coblend.core.footprint import expand_runs

_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def span_pixels(spans: NDArray[np.int32], nx: int) -> NDArray[np.int64]:
    """Flat indices of all pixels of spans (array coordinates), in the order of the spans."""
    wide = spans.astype(np.int64)
    return expand_runs(wide[:, 0] * nx + wide[:, 1], wide[:, 2] - wide[:, 1] + 1)


def regional_maxima(
    image: NDArray[np.float32], level: float, every: bool = False
) -> NDArray[np.int64]:
    """Regional maxima of ``image`` that reach ``level``.

    A plateau is represented by its member nearest to its centroid (ties: first in raster
    order). Pixels of the outermost rows and columns cannot be peaks.

    Parameters
    ----------
    image : array, shape (ny, nx)
    level : float
    every : bool
        Report every pixel of a plateau (afw: FootprintSet).

    Returns
    -------
    array, shape (n_peak,), int64
        Flat indices, ascending.
    """
    ny, nx = image.shape
    found = [np.empty(0, np.int64)]
    for rows in strips(max(ny - 2, 0), 64):  # several planes at once stay in the cache
        strip = image[rows.start : rows.stop + 2]
        centre = strip[1:-1, 1:-1]
        beside = np.maximum(strip[:, :-2], strip[:, 2:])
        triple = np.maximum(beside, strip[:, 1:-1])
        peak = centre >= beside[1:-1]
        peak &= centre >= triple[:-2]
        peak &= centre >= triple[2:]
        peak &= centre >= level
        y, x = np.divmod(np.flatnonzero(peak), max(nx - 2, 1))
        found.append((y + rows.start + 1) * nx + x + 1)
    candidate = np.concatenate(found)
    if every or not len(candidate):
        return candidate
    flat = image.ravel()
    tied = np.zeros(len(candidate), bool)
    for dy, dx in _DIRECTIONS:  # candidates are never on the border
        tied |= flat[candidate + dy * nx + dx] == flat[candidate]
    if not tied.any():
        return candidate
    centres = _plateau_centres(image, _plateaus(image, candidate[tied]))
    return np.asarray(np.union1d(candidate[~tied], centres))


def _plateaus(image: NDArray[np.float32], seeds: NDArray[np.int64]) -> NDArray[np.int64]:
    """All pixels connected to ``seeds`` (inner pixels) by equal values, ascending."""
    members = front = seeds
    while len(front):
        around = [(n, front[ok]) for n, ok in _neighbours(front, image.shape)]
        equal = [n[image.flat[n] == image.flat[centre]] for n, centre in around]
        front = np.setdiff1d(np.concatenate(equal), members)
        members = np.union1d(members, front)
    return np.asarray(members)


def _neighbours(
    pixels: NDArray[np.int64], shape: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """For each of the eight directions: the neighbours inside the image, and which have one."""
    ny, nx = shape
    y, x = np.divmod(pixels, nx)
    for dy, dx in _DIRECTIONS:
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        yield (pixels + dy * nx + dx)[inside], inside


def _plateau_centres(image: NDArray[np.float32], members: NDArray[np.int64]) -> NDArray[np.int64]:
    """One pixel for each plateau among ``members`` (ascending) that is a regional maximum."""
    ny, nx = image.shape
    y, x = np.divmod(members, nx)
    value = image[y, x]
    exceeded = np.zeros(len(members), bool)
    joined: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for neighbour, inside in _neighbours(members, image.shape):
        index = np.flatnonzero(inside)
        other = image.flat[neighbour]
        exceeded[index] |= other > value[index]
        place = np.minimum(np.searchsorted(members, neighbour), len(members) - 1)
        same = (members[place] == neighbour) & (other == value[index])
        joined.append((index[same], place[same]))
    a, b = (np.concatenate(ends) for ends in zip(*joined, strict=True))
    label, n = edge_labels(a, b, len(members))
    count = np.bincount(label, minlength=n)
    beaten = np.bincount(label, weights=exceeded, minlength=n) > 0
    mean_y = np.bincount(label, weights=y, minlength=n) / count
    mean_x = np.bincount(label, weights=x, minlength=n) / count
    border = (y == 0) | (y == ny - 1) | (x == 0) | (x == nx - 1)
    usable = ~beaten[label] & ~border
    label, y, x = label[usable], y[usable], x[usable]
    distance = (y - mean_y[label]) ** 2 + (x - mean_x[label]) ** 2
    order = np.lexsort((members[usable], np.round(distance, 9), label))
    _, first = np.unique(label[order], return_index=True)
    return np.asarray(members[usable][order][first])


def brightest_pixels(
    flat: NDArray[np.float32], pixels: NDArray[np.int64], label: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Brightest pixel of each label present (ties: first in raster order), and its label."""
    order = np.lexsort((pixels, -flat[pixels], label))
    present, first = np.unique(label[order], return_index=True)
    return pixels[order][first], present


def refine(
    image: NDArray[np.float32], peaks: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Sub-pixel offsets of peaks from the quadratic through their 3x3 pixels.

    Parameters
    ----------
    image : array, shape (ny, nx)
    peaks : array, shape (n,), int64
        Flat indices.

    Returns
    -------
    dy, dx : array, shape (n,), float64
        ``-H^-1 g``; 0 where the quadratic has no maximum within one pixel.
    failed : array, shape (n,), bool
        Where that is so, and on the image's border.
    """
    ny, nx = image.shape
    y, x = np.divmod(peaks, nx)
    failed = (y == 0) | (y == ny - 1) | (x == 0) | (x == nx - 1)
    y, x = np.where(failed, min(1, ny - 1), y), np.where(failed, min(1, nx - 1), x)

    def at(dy: int, dx: int) -> NDArray[np.float64]:
        return np.asarray(image[(y + dy) % ny, (x + dx) % nx], np.float64)

    centre = at(0, 0)
    gx, gy = 0.5 * (at(0, 1) - at(0, -1)), 0.5 * (at(1, 0) - at(-1, 0))
    hxx = at(0, 1) - 2 * centre + at(0, -1)
    hyy = at(1, 0) - 2 * centre + at(-1, 0)
    hxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    determinant = hxx * hyy - hxy**2
    failed |= ~((hxx < 0) & (determinant > 0))
    safe = np.where(failed, 1.0, determinant)
    dx, dy = -(hyy * gx - hxy * gy) / safe, -(hxx * gy - hxy * gx) / safe
    failed |= (np.abs(dx) > 1) | (np.abs(dy) > 1)
    return np.where(failed, 0.0, dy), np.where(failed, 0.0, dx), failed
