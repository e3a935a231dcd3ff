"""Saturated stars: one peak for all connected saturated pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.detect.components import label_spans
from coblend.core.detect.cores import Cores
from coblend.core.detect.growth import paint_rows, span_range
from coblend.core.detect.locate import Peaks
from coblend.core.detect.pixels import Pixels, strips
from coblend.core.footprint import SpanIndex, mask_to_spans


def one_peak_per_saturation(peaks: Peaks, pixels: Pixels, cores: Cores) -> Peaks:
    """Of the peaks on connected saturated pixels, keep the one deepest inside: the star's.

    What saturated is a plateau with noise on it, and a bleed trail otherwise a string of peaks.
    Only pixels of cores count: a trail that other inputs of a coadd have filled joins nothing.

    Parameters
    ----------
    peaks : Peaks
    pixels : Pixels
        Their mask tells by its plane SAT what is saturated.
    cores : Cores
    """
    spans = _saturated_spans(pixels, cores)
    labels, _ = label_spans(spans)
    index = SpanIndex.build(spans)
    span = index.find(*np.divmod(peaks.pixel, pixels.shape[1]))
    on = np.flatnonzero(span >= 0)
    if len(on) < 2:
        return peaks
    depth = _depth(index, *np.divmod(peaks.pixel[on], pixels.shape[1]))
    which = labels[span[on]]
    order = np.lexsort((-peaks.snr[on], -depth, which))
    _, first = np.unique(which[order], return_index=True)
    keep = span < 0
    keep[on[order[first]]] = True
    return peaks.rows(keep)


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
