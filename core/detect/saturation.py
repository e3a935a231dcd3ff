"""Saturated stars: one peak for all connected saturated pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.components import label_spans
from coblend.core.detect.cores import Cores
from coblend.core.detect.growth import paint_rows, span_range
from coblend.core.detect.locate import Filtered, Peaks, peaks_at
from coblend.core.detect.peaks import span_pixels
from coblend.core.detect.pixels import Pixels, strips
from coblend.core.footprint import SpanIndex, mask_to_spans


def one_peak_per_saturation(peaks: Peaks, found: Filtered, cores: Cores) -> Peaks:
    """In place of several peaks on connected saturated pixels, one where these reach deepest.

    What saturated is a plateau with noise on it, and a bleed trail otherwise a string of peaks;
    the star is where the plateau is widest. Only pixels of cores count: a trail that other inputs
    of a coadd have filled joins nothing.

    Parameters
    ----------
    peaks : Peaks
    found : Filtered
        The mask of its pixels tells by its plane SAT what is saturated.
    cores : Cores
    """
    nx = found.snr.shape[1]
    spans = _saturated_spans(found.pixels, cores)
    labels, n = label_spans(spans)
    index = SpanIndex.build(spans)
    span = index.find(*np.divmod(peaks.pixel, nx))
    on = np.flatnonzero(span >= 0)
    region = labels[span[on]]
    several = np.bincount(region, minlength=n) > 1
    if not several.any():
        return peaks
    core = np.zeros(n, np.int64)
    core[region] = peaks.core[on]
    mine = several[labels]
    places = _centres(index, spans[mine], labels[mine], nx)
    joined = peaks_at(found, cores, places, core[several])
    stay = np.ones(len(peaks), bool)
    stay[on[several[region]]] = False
    return peaks.rows(stay).joined(joined)


def _centres(
    index: SpanIndex, spans: NDArray[np.int32], labels: NDArray[np.int64], nx: int
) -> NDArray[np.int64]:
    """Of each label's pixels the deepest, nearest to the mean of all that are as deep."""
    pixel = span_pixels(spans, nx)
    _, label = np.unique(labels, return_inverse=True)
    label = np.repeat(label, spans[:, 2] - spans[:, 1] + 1)
    y, x = np.divmod(pixel, nx)
    depth = _depth(index, y, x)
    deepest = np.zeros(label.max() + 1, np.int64)
    np.maximum.at(deepest, label, depth)
    chosen = depth == deepest[label]
    pixel, label, y, x = pixel[chosen], label[chosen], y[chosen], x[chosen]
    count = np.bincount(label)
    away = (y - (np.bincount(label, y) / count)[label]) ** 2
    away += (x - (np.bincount(label, x) / count)[label]) ** 2
    order = np.lexsort((pixel, away, label))
    _, first = np.unique(label[order], return_index=True)
    return np.asarray(pixel[order[first]])


def _depth(index: SpanIndex, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """How far one can go from each pixel in all of eight directions and stay inside the spans."""
    dy, dx = np.array([(-1, -1, -1, 0, 0, 1, 1, 1), (-1, 0, 1, -1, 1, -1, 0, 1)])
    depth = np.zeros(len(y), np.int64)
    inside = np.arange(len(y))
    while len(inside):
        step = depth[inside, None] + 1
        found = index.find(y[inside, None] + step * dy, x[inside, None] + step * dx)
        inside = inside[(found >= 0).all(axis=1)]
        depth[inside] += 1
    return depth


def _saturated_spans(pixels: Pixels, cores: Cores) -> NDArray[np.int32]:
    """Spans of the saturated pixels of cores, in raster order."""
    mask = pixels.exposure.mask
    bit = np.int32(pixels.exposure.planes.value(["SAT"]))
    ny, nx = pixels.shape
    hull_rows = cores.hull[:, 0].copy()
    found = [np.zeros((0, 3), np.int32)]
    for rows in strips(ny):
        saturated = (mask[rows] & bit) != 0
        if saturated.any():
            saturated &= paint_rows(cores.hull[span_range(hull_rows, rows)], rows, nx)
            spans = mask_to_spans(saturated)
            spans[:, 0] += rows.start
            found.append(spans)
    return np.concatenate(found)
