"""Three bands of 50 000 peaks: the same as the literal rule, footprint by footprint."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from coblend.core.merge.footprint_lists import FootprintLists
from coblend.core.merge.limits import Limits
from coblend.core.merge.merging import merge_detections


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "merge.py"
    spec = importlib.util.spec_from_file_location("benchmark_merge", path)
    module = sys.modules["benchmark_merge"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_equals_the_literal_rule_at_full_size(bench):
    """Number of parents and every surviving peak; the merge as users call it."""
    catalogues = bench.sky(3, 50_000, 4000)
    lists = FootprintLists.of(catalogues)
    entries = bench.literal(lists, Limits.uniform(3, 25.0, 2.25), 4000)
    merged = merge_detections(catalogues, bench.PARAMS)
    real = ~merged.peaks["merge_peak_sky"]
    assert np.count_nonzero(~merged.parents["merge_footprint_sky"]) == len(entries)
    survivors = np.sort([q for own in entries.values() for q in own])
    kept = np.concatenate([merged.peaks[real], merged.culled])
    expected = np.stack([lists.y[survivors], lists.x[survivors]])
    found = np.stack([kept["iy"], kept["ix"]])
    assert np.array_equal(
        expected[:, np.lexsort(expected[::-1])], found[:, np.lexsort(found[::-1])]
    )
