"""Merge of detections: time for many peaks in several bands, growth, against the literal rule.

    OPENBLAS_NUM_THREADS=1 python benchmarks/merge.py [--peaks 50000] [--size 4000]

Every band holds that many discs of radius 3 to 7 px at random places, half of them those of the
band before; discs of one band that touch are one footprint. CPU seconds of one thread, the
smallest of three runs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.components import group_spans, label_spans
from coblend.core.detect import identifiers
from coblend.core.detect.adopt import ellipse_spans
from coblend.core.detect.assemble import assemble, blank_peaks
from coblend.core.detection import Detections
from coblend.core.footprint import SpanIndex, union_spans
from coblend.core.merge.association import associate
from coblend.core.merge.footprint_lists import FootprintLists
from coblend.core.merge.limits import Limits
from coblend.core.merge.merging import merge_detections
from coblend.core.merge.overlap import SortedSpans, overlap_edges
from coblend.core.merge.tree import entry_tree
from coblend.core.params.merge import MergeParams

PARAMS = MergeParams(min_new_peak="5px", max_same_peak="1.5px")


def catalogue(band: str, y: np.ndarray, x: np.ndarray, size: int, seed: int) -> Detections:
    """Discs around ``(y, x)`` as the detections of one band."""
    rng = np.random.default_rng(seed)
    box = Box(0, 0, size, size)
    radius = rng.uniform(3, 7, len(y))
    spans = ellipse_spans(y, x, radius, radius, np.zeros(len(y)), box)
    union = union_spans(spans)
    labels, n = label_spans(union)
    pixel = np.unique(np.rint(y).astype(int) * size + np.rint(x).astype(int))
    iy, ix = np.divmod(pixel, size)
    peaks = blank_peaks((band,), len(pixel))
    peaks["iy"] = peaks["y"] = iy
    peaks["ix"] = peaks["x"] = ix
    peaks["snr"] = rng.uniform(5, 100, len(pixel))
    peaks["flux"] = peaks["value"] = peaks["snr"]
    peaks["band"] = band
    peaks[f"merge_peak_{column_suffix(band)}"] = True
    footprints = group_spans(union, labels, n)
    owner = labels[SpanIndex.build(union).find(iy, ix)]
    parents, peaks, _ = assemble(
        (band,), footprints, peaks, owner, order=peaks["snr"], field_id=0,
        code=identifiers.band_code(band),
    )  # fmt: skip
    return Detections((band,), parents, peaks, footprints, box, meta={"GROWRAD1": 3})


def sky(n_band: int, n_peak: int, size: int) -> list[Detections]:
    """Catalogues of several bands."""
    rng = np.random.default_rng(0)
    place = rng.uniform(1, size - 2, (n_peak, 2))
    out = []
    for b in range(n_band):
        out.append(catalogue("grizyu"[b], place[:, 0], place[:, 1], size, b))
        fresh = rng.uniform(1, size - 2, (n_peak, 2))
        place = np.where(
            rng.random((n_peak, 1)) < 0.5, place + rng.normal(0, 1, place.shape), fresh
        )
        place = np.clip(place, 1, size - 2)
    return out


def literal(lists: FootprintLists, limits: Limits, size: int) -> dict[int, list[int]]:
    """Apply the rule footprint by footprint, with an image of owners; peaks by entry."""
    image = np.full((size, size), -1, np.int64)
    entries: dict[int, list[int]] = {}
    pixels: dict[int, list[np.ndarray]] = {}
    y, x = lists.y.tolist(), lists.x.tolist()
    span_order = np.argsort(lists.span_owner, kind="stable")
    bounds = np.searchsorted(lists.span_owner[span_order], np.arange(lists.n_footprint + 1))
    first = np.searchsorted(lists.peak_owner, np.arange(lists.n_footprint + 1))

    def add(entry: list[int], new: list[int]) -> None:
        before = list(entry)
        for q in new:
            nearest = min(
                ((y[p] - y[q]) ** 2 + (x[p] - x[q]) ** 2 for p in before), default=np.inf
            )
            if nearest >= limits.max_same[0] and nearest > limits.min_new[0]:
                entry.append(q)

    for f in range(lists.n_footprint):
        spans = lists.spans[span_order[bounds[f] : bounds[f + 1]]]
        flat = np.concatenate([np.arange(a, b + 1) + r * size for r, a, b in spans.tolist()])
        touched = np.unique(image.ravel()[flat])
        hits = touched[touched >= 0].tolist()
        own = list(range(first[f], first[f + 1]))
        target = hits[0] if hits else f
        if not hits:
            entries[f], pixels[f] = own, []
        for k in hits[1:]:
            for part in pixels.pop(k):
                image.ravel()[part] = target
                pixels[target].append(part)
            add(entries[target], entries.pop(k))
        image.ravel()[flat] = target
        pixels[target].append(flat)
        if hits:
            add(entries[target], own)
    return entries


def timed(catalogues: list[Detections]) -> tuple[float, Detections]:
    """Smallest CPU time of three merges."""
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        merged = merge_detections(catalogues, PARAMS)
        best = min(best, time.process_time() - start)
    return best, merged


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peaks", type=int, default=50_000, help="peaks per band")
    parser.add_argument("--size", type=int, default=4000, help="side of the image")
    options = parser.parse_args()
    print(f"{'bands':>5}{'peaks':>9}{'spans':>9}{'parents':>9}{'merged':>8}{'CPU s':>7}")
    for n_band, share in ((3, 0.25), (3, 0.5), (3, 1.0), (3, 2.0), (6, 1.0)):
        size = round(options.size * min(share, 1) ** 0.5)
        catalogues = sky(n_band, int(options.peaks * share), size)
        seconds, merged = timed(catalogues)
        n_peak = sum(len(c.peaks) for c in catalogues)
        n_span = sum(len(c.footprints.spans) for c in catalogues)
        print(f"{n_band:5d}{n_peak:9d}{n_span:9d}{len(merged.parents):9d}"
              f"{len(merged.peaks):8d}{seconds:7.2f}")  # fmt: skip
    catalogues = sky(3, options.peaks, options.size)
    lists = FootprintLists.of(catalogues)
    limits = Limits.uniform(3, 25.0, 2.25)
    start = time.process_time()
    expected = literal(lists, limits, options.size)
    slow = time.process_time() - start
    start = time.process_time()
    spans = SortedSpans.build(lists.spans, lists.span_owner)
    tree = entry_tree(
        *overlap_edges(spans, lists.n_footprint, lists.footprint_band), lists.footprint_band
    )
    state = associate(lists, tree, limits)
    fast = time.process_time() - start
    same = (
        sorted(q for own in expected.values() for q in own) == np.flatnonzero(state.alive).tolist()
    )
    print(f"the literal rule: {slow:.1f} s, here {fast:.2f} s, same peaks: {same}")


if __name__ == "__main__":
    main()
