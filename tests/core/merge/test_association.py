"""The vectorised merge equals the sequential rule, footprint by footprint."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.merge.association import associate, associate_by_band
from coblend.core.merge.limits import Limits
from coblend.core.merge.overlap import SortedSpans, overlap_edges, union_footprints
from coblend.core.merge.tree import entry_tree

MIN_NEW = (-1, 0, 1, 2, 3.2, 5, 8)
MAX_SAME = (-1, 0, 1, 1.5, 2.5, 4, 9)


def limits_of(min_new, max_same, n_band=6):
    return Limits.uniform(n_band, *(d**2 if d >= 0 else -1.0 for d in (min_new, max_same)))


def run(lists, limits, touch=False):
    spans = SortedSpans.build(lists.spans, lists.span_owner)
    edges = overlap_edges(spans, lists.n_footprint, lists.footprint_band, touch)
    tree = entry_tree(*edges, lists.footprint_band)
    return spans, tree, associate(lists, tree, limits)


def check(lists, limits, literal, touch=False):
    spans, tree, state = run(lists, limits, touch)
    footprints, roots = union_footprints(spans, tree.root)
    entries = literal(lists, limits, touch)
    assert roots.tolist() == list(entries)  # parents, and their order
    for i, (root, entry) in enumerate(entries.items()):
        own = footprints.of(i).tolist()
        assert {(y, x) for y, a, b in own for x in range(a, b + 1)} == entry.pixels
        assert sum(b - a + 1 for _, a, b in own) == len(entry.pixels)
        members = np.flatnonzero(tree.root == root)
        assert set(lists.footprint_band[members].tolist()) == entry.bands
        alive = np.flatnonzero(state.alive & (tree.root[lists.peak_owner] == root))
        assert set(alive.tolist()) == {q for q, _ in entry.peaks}
        for q, bands in entry.peaks:
            assert set(np.flatnonzero(state.source[q] >= 0).tolist()) == bands


@pytest.mark.parametrize("seed", range(10))
def test_equals_sequential_rule_on_random_cases(seed, literal, make_lists):
    """Parent order, pixels, flags, surviving peaks and their flags, 120 cases per seed."""
    rng = np.random.default_rng(seed)
    for _ in range(120):
        lists = make_lists(rng, int(rng.integers(1, 7)), int(rng.integers(8, 36)))
        check(lists, limits_of(rng.choice(MIN_NEW), rng.choice(MAX_SAME)), literal)


def test_equals_sequential_rule_at_subpixel_positions(literal, make_lists):
    rng = np.random.default_rng(77)
    for _ in range(60):
        lists = make_lists(rng, 3, 24, subpixel=True)
        check(lists, limits_of(rng.choice(MIN_NEW), rng.choice(MAX_SAME)), literal)


def test_equals_sequential_rule_with_limits_of_each_band(literal, make_lists):
    rng = np.random.default_rng(78)
    for _ in range(120):
        lists = make_lists(rng, int(rng.integers(2, 5)), 28)
        limits = Limits(
            rng.choice(np.square(MIN_NEW[1:]), lists.n_band),
            rng.choice([-1.0, *np.square(MAX_SAME[1:])], lists.n_band),
        )
        check(lists, limits, literal)


@pytest.mark.slow
def test_equals_sequential_rule_on_larger_images(literal, make_lists):
    rng = np.random.default_rng(5)
    for _ in range(60):
        lists = make_lists(rng, int(rng.integers(2, 7)), 60)
        check(lists, limits_of(rng.choice(MIN_NEW), rng.choice(MAX_SAME)), literal)


def test_no_peak_vanishes_without_trace(make_lists):
    """With both rules on, every band seen at a dead peak is near or same at a live one."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        lists = make_lists(rng, 3, 30)
        _, tree, state = run(lists, limits_of(5, 1.5))
        root = tree.root[lists.peak_owner]
        for q in np.flatnonzero(~state.alive):
            friends = state.alive & (root == root[q])
            traces = (state.source[friends] >= 0) | state.near[friends]
            assert traces[:, lists.peak_band[q]].any()


def by_band_literal(lists, root, limits):
    alive = np.ones(len(lists.y), bool)
    bands = [{int(b)} for b in lists.peak_band]
    entry = root[lists.peak_owner]
    for b in range(1, lists.n_band):
        kept = np.flatnonzero(alive & (lists.peak_band < b))
        for q in np.flatnonzero(lists.peak_band == b):
            mine = kept[entry[kept] == entry[q]]
            if not len(mine):
                continue
            d2 = (lists.y[mine] - lists.y[q]) ** 2 + (lists.x[mine] - lists.x[q]) ** 2
            nearest = d2.min(initial=np.inf)
            min_new, max_same = limits.min_new[b], limits.max_same[b]
            if max_same > 0 and nearest < max_same:
                bands[mine[d2.argmin()]].add(b)
                alive[q] = False
            elif not (min_new >= 0 and nearest > min_new):
                alive[q] = False
    return alive, bands


def test_by_band_equals_its_own_brute_force(make_lists):
    rng = np.random.default_rng(11)
    for _ in range(150):
        lists = make_lists(rng, int(rng.integers(1, 5)), int(rng.integers(8, 30)), subpixel=True)
        limits = limits_of(rng.choice([-1, 0, 1, 2, 3.2, 5]), rng.choice([-1, 0, 1, 2.5, 4]))
        _, tree, _ = run(lists, limits)
        state = associate_by_band(lists, tree.root, limits)
        alive, bands = by_band_literal(lists, tree.root, limits)
        assert np.array_equal(state.alive, alive)
        for q in np.flatnonzero(alive):
            assert set(np.flatnonzero(state.source[q] >= 0).tolist()) == bands[q]


def test_chained_and_nested_bridges(make_lists, literal):
    """Bands of long thin footprints make bridges between bridges."""
    from coblend.core.merge.footprint_lists import FootprintLists

    rows = [
        [(0, 0, 1), (0, 6, 7), (0, 12, 13), (0, 18, 19)],
        [(0, 1, 6), (0, 13, 18)],
        [(0, 7, 12)],
    ]
    spans = np.array([s for band in rows for s in band], np.int32)
    band = np.repeat([0, 1, 2], [4, 2, 1])
    x = (spans[:, 1] + spans[:, 2]) // 2
    n = len(spans)
    lists = FootprintLists(3, n, spans, np.arange(n), band, np.zeros(n, np.int64), x, np.arange(n))
    for min_new in MIN_NEW:
        for max_same in MAX_SAME:
            check(lists, limits_of(min_new, max_same), literal)


def test_empty_lists():
    from coblend.core.merge.footprint_lists import FootprintLists

    none = np.zeros(0, np.int64)
    lists = FootprintLists(2, 0, np.empty((0, 3), np.int32), none, none, none, none, none)
    _, tree, state = run(lists, limits_of(5, 1.5))
    assert len(tree.root) == 0
    assert len(state.alive) == 0
