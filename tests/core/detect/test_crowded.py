"""Completeness and purity on the benchmark's crowded field, and against sep where installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from coblend.core.detect.search import detect
from coblend.core.params.detect import DetectParams


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "detect.py"
    spec = importlib.util.spec_from_file_location("benchmark_detect", path)
    module = sys.modules["benchmark_detect"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def crowded(bench):
    return bench.make_field(700)


def quality(bench, field, positions):
    """Completeness for significance >= 5, purity against significance >= 2."""
    bright = field.truth[field.significance >= 5]
    real = field.truth[field.significance >= 2]
    return (
        bench.matches(bright, positions) / len(bright),
        bench.matches(positions, real) / len(positions),
    )


def search(bench, field, *scales):
    params = DetectParams(psf_sigma=field.sigma, peak_scales=scales)
    peaks = detect(bench.exposure_of(field), params).detections.peaks
    return np.stack([peaks["iy"], peaks["ix"]], axis=1).astype(float)


def test_completeness_and_purity(bench, crowded):
    """Chance level of both: 0.1. One filter, then two."""
    complete, pure = quality(bench, crowded, search(bench, crowded, 1.0))
    assert complete > 0.57
    assert pure > 0.985
    more, less_pure = quality(bench, crowded, search(bench, crowded, 1.0, 0.6))
    assert more > complete + 0.05
    assert less_pure > 0.965


@pytest.mark.peer
def test_more_complete_than_sep_at_equal_purity(bench, crowded, tmp_path):
    pytest.importorskip("sep")
    complete, pure = quality(bench, crowded, search(bench, crowded, 1.0))
    runs = bench.programs(crowded, tmp_path)
    for name in ("sep conv", "sep conv, deblend 0.005", "sep matched"):
        theirs, their_purity = quality(bench, crowded, runs[name]())
        assert complete > theirs + 0.1, name
        assert pure > their_purity - 0.005, name
