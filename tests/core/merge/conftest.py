"""A literal implementation of the sequential merge rule, and random cases for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from coblend.core.footprint import mask_to_spans
from coblend.core.merge.footprint_lists import FootprintLists


@dataclass
class Entry:
    pixels: set
    bands: set
    peaks: list = field(default_factory=list)  # [peak, {bands}]


def sequential_merge(lists, limits, touch=False):
    """Footprint by footprint with an entry list, as the reference does it (section 2.2)."""
    pixels = [set() for _ in range(lists.n_footprint)]
    for (y, x0, x1), owner in zip(lists.spans.tolist(), lists.span_owner.tolist(), strict=True):
        pixels[owner].update((y, x) for x in range(x0, x1 + 1))
    entries = {}

    def add(entry, newcomers, band):
        min_new, max_same = limits.min_new[band], limits.max_same[band]
        if min_new < 0 and max_same < 0:
            return
        before = list(entry.peaks)
        for q, flags in newcomers:
            best, best_d2 = None, np.inf
            for peak in before:
                p = peak[0]
                d2 = (lists.y[p] - lists.y[q]) ** 2 + (lists.x[p] - lists.x[q]) ** 2
                if d2 < best_d2:
                    best, best_d2 = peak, d2
            if max_same > 0 and best_d2 < max_same:
                best[1].update(flags)
            elif min_new >= 0 and best_d2 > min_new:
                entry.peaks.append([q, set(flags)])

    for f in range(lists.n_footprint):
        band = int(lists.footprint_band[f])
        own = [[int(p), {band}] for p in np.flatnonzero(lists.peak_owner == f)]
        reach = pixels[f]
        if touch:
            reach = {(y + a, x + b) for y, x in reach for a in (-1, 0, 1) for b in (-1, 0, 1)}
        hits = [k for k, e in entries.items() if not reach.isdisjoint(e.pixels)]
        if not hits:
            entries[f] = Entry(set(pixels[f]), {band}, own)
            continue
        target = entries[hits[0]]
        target.pixels |= pixels[f]
        for k in hits[1:]:
            other = entries.pop(k)
            target.pixels |= other.pixels
            target.bands |= other.bands
            add(target, other.peaks, band)
        target.bands.add(band)
        add(target, own, band)
    return entries


def random_lists(rng, n_band, size, subpixel=False):
    """Blobs without contact inside a band, each with one to four peaks."""
    spans, owner, band_of, ys, xs, peak_owner = [], [], [], [], [], []
    n = 0
    for band in range(n_band):
        taken = np.zeros((size + 2, size + 2), bool)
        for _ in range(rng.integers(0, 2 + size * size // 60)):
            h, w = rng.integers(1, 7, 2)
            y0, x0 = rng.integers(0, size - h + 1), rng.integers(0, size - w + 1)
            if taken[y0 : y0 + h + 2, x0 : x0 + w + 2].any():
                continue
            mask = np.zeros((size, size), bool)
            mask[y0 : y0 + h, x0 : x0 + w] = True
            if h > 2 and w > 2:  # a notch, so that boxes and pixels differ
                mask[y0, x0] = mask[y0 + h - 1, x0 + w - 1] = False
            taken[1:-1, 1:-1] |= mask
            new = mask_to_spans(mask)
            spans.append(new)
            owner += [n] * len(new)
            inside = np.argwhere(mask)
            chosen = rng.permutation(len(inside))[: rng.integers(1, 5)]
            ys += inside[chosen, 0].tolist()
            xs += inside[chosen, 1].tolist()
            peak_owner += [n] * len(chosen)
            band_of.append(band)
            n += 1
    kind = np.float64 if subpixel else np.int64
    shift = rng.uniform(-0.5, 0.5, (2, len(ys))) if subpixel else np.zeros((2, len(ys)), np.int64)
    return FootprintLists(
        n_band,
        n,
        np.concatenate([np.empty((0, 3), np.int32), *spans]),
        np.array(owner, np.int64),
        np.array(band_of, np.int64),
        np.array(ys, kind) + shift[0],
        np.array(xs, kind) + shift[1],
        np.array(peak_owner, np.int64),
    )


@pytest.fixture
def literal():
    return sequential_merge


@pytest.fixture
def make_lists():
    return random_lists


def detections_of(image, level, band, *, sigma_noise=1.0, cores=True):
    """Catalogue of the pixels at or above ``level``: no filter, no growth."""
    from coblend.core.box import Box
    from coblend.core.components import group_spans, label_spans
    from coblend.core.detect import identifiers
    from coblend.core.detect.assemble import assemble, blank_peaks
    from coblend.core.detect.peaks import regional_maxima
    from coblend.core.detection import Detections
    from coblend.core.footprint import SpanIndex

    image = np.asarray(image, np.float32)
    spans = mask_to_spans(image >= level)
    labels, n = label_spans(spans)
    pixel = regional_maxima(image, level)
    y, x = np.divmod(pixel, image.shape[1])
    owner = labels[SpanIndex.build(spans).find(y, x)]
    peaks = blank_peaks((band,), len(pixel))
    peaks["iy"] = peaks["y"] = y
    peaks["ix"] = peaks["x"] = x
    peaks["value"] = peaks["flux"] = image[y, x]
    peaks["snr"] = image[y, x] / sigma_noise
    peaks["band"], peaks["core"] = band, owner
    footprints = group_spans(spans, labels, n)
    rows, peaks, _ = assemble(
        (band,), footprints, peaks, owner, order=peaks["snr"], field_id=0,
        code=identifiers.band_code(band),
    )  # fmt: skip
    return Detections(
        (band,), rows, peaks, footprints, Box(0, 0, *image.shape),
        cores=footprints if cores else None, meta={"GROWRAD1": 0, "FIELDID": 0},
    )  # fmt: skip


@pytest.fixture
def detections_from():
    return detections_of
