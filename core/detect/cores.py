"""Cores: connected pixels above the threshold, before growth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.components import group_spans, label_spans
from coblend.core.detect.peaks import span_pixels
from coblend.core.detect.pixels import Pixels, strips
from coblend.core.footprint import FootprintSet, SpanIndex, mask_to_spans


@dataclass(frozen=True, slots=True, eq=False)
class Cores:
    """Components of the pixels above the threshold, array coordinates.

    Unusable pixels join the parts of a component (a bad column through a star leaves one star),
    but belong to none.

    Parameters
    ----------
    spans : array, shape (n_span, 3), int32
        Usable pixels, raster order.
    labels : array, shape (n_span,), int64
        Core of each span, numbered from 0 by first pixel.
    hull, hull_labels : array
        The same with the unusable pixels.
    n : int
        Number of cores.
    """

    spans: NDArray[np.int32]
    labels: NDArray[np.int64]
    hull: NDArray[np.int32]
    hull_labels: NDArray[np.int64]
    n: int

    def footprints(self) -> FootprintSet:
        """Usable pixels of each core."""
        return group_spans(self.spans, self.labels, self.n)


def find_cores(
    pixels: Pixels,
    snr: NDArray[np.float32],
    level: float,
    *,
    peak_level: float | None = None,
    min_pixels: int = 1,
    connectivity: int = 8,
    margin: int = 0,
) -> Cores:
    """Find the components of ``snr >= level``.

    Parameters
    ----------
    pixels : Pixels
    snr : array, shape (ny, nx), float32
    level : float
    peak_level : float, optional
        Components without a usable pixel that reaches it are dropped (hysteresis).
    min_pixels : int
        So are those with fewer usable pixels.
    connectivity : int
        4 or 8.
    margin : int
        Pixels along the border that are not searched.
    """
    hull, spans = _spans_above(pixels, snr, level, margin)
    hull_labels, n = label_spans(hull, connectivity)
    if spans is hull:
        labels = hull_labels
    else:
        labels = hull_labels[SpanIndex.build(hull).find(spans[:, 0], spans[:, 1])]
    area = np.bincount(labels, weights=spans[:, 2] - spans[:, 1] + 1, minlength=n)
    keep = area >= max(min_pixels, 1)
    if peak_level is not None and peak_level > level:
        keep &= _maxima(snr, spans, labels, n) >= peak_level
    if keep.all():
        return Cores(spans, labels, hull, hull_labels, n)
    number = np.cumsum(keep) - 1
    mine, hull_mine = keep[labels], keep[hull_labels]
    return Cores(
        spans[mine],
        number[labels[mine]],
        hull[hull_mine],
        number[hull_labels[hull_mine]],
        int(keep.sum()),
    )


def _spans_above(
    pixels: Pixels, snr: NDArray[np.float32], level: float, margin: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Spans of all pixels at or above ``level``, and of the usable ones (the same if all are)."""
    ny, nx = snr.shape
    every, usable = [np.empty((0, 3), np.int32)], [np.empty((0, 3), np.int32)]
    complete = True
    for rows in strips(ny):
        hit = snr[rows] >= level
        if margin:
            hit[:, :margin] = False
            hit[:, max(nx - margin, 0) :] = False
            hit[: max(margin - rows.start, 0)] = False
            hit[max(ny - margin - rows.start, 0) :] = False
        every.append(_spans_of(hit, rows.start))
        good = hit & pixels.usable(rows)
        same = np.array_equal(good, hit)
        usable.append(every[-1] if same else _spans_of(good, rows.start))
        complete &= same
    hull = np.concatenate(every)
    return hull, hull if complete else np.concatenate(usable)


def _spans_of(mask: NDArray[np.bool_], first_row: int) -> NDArray[np.int32]:
    spans = mask_to_spans(mask)
    spans[:, 0] += first_row
    return spans


def _maxima(
    snr: NDArray[np.float32], spans: NDArray[np.int32], labels: NDArray[np.int64], n: int
) -> NDArray[np.float32]:
    """Largest value of each component."""
    out = np.full(n, -np.inf, np.float32)
    value = snr.ravel()[span_pixels(spans, snr.shape[1])]
    np.maximum.at(out, np.repeat(labels, spans[:, 2] - spans[:, 1] + 1), value)
    return out
