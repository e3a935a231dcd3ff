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
    return bench.make_field(1000)


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
    """One filter, then two; by chance both would be 0.07."""
    complete, pure = quality(bench, crowded, search(bench, crowded, 1.0))
    assert complete >= 0.72
    assert pure >= 0.98
    more, less_pure = quality(bench, crowded, search(bench, crowded, 1.0, 0.6))
    assert more >= 0.775
    assert less_pure >= 0.965


@pytest.mark.peer
def test_more_complete_than_sep_at_equal_purity(bench, crowded, tmp_path):
    """Also with its deblending at 0.005; two filters against its finest deblending."""
    pytest.importorskip("sep")
    runs = bench.programs(crowded, tmp_path)
    for scales, name, gain in (
        ((1.0,), "sep conv", 0.15),
        ((1.0,), "sep matched", 0.15),
        ((1.0,), "sep conv, deblend 0.005", 0.05),
        ((1.0, 0.6), "sep conv, deblend 0.0001", 0.05),
    ):
        complete, pure = quality(bench, crowded, search(bench, crowded, *scales))
        theirs, their_purity = quality(bench, crowded, runs[name]())
        assert complete > theirs + gain, name
        assert pure > their_purity - 0.005, name


@pytest.mark.peer
def test_as_many_peaks_as_local_maxima(bench, crowded):
    """photutils finds the maxima of the same map (not on the outermost pixels)."""
    detection = pytest.importorskip("photutils.detection")
    params = DetectParams(psf_sigma=crowded.sigma)
    found = detect(bench.exposure_of(crowded), params, keep_map=True)
    maxima = detection.find_peaks(found.significance, found.threshold, box_size=3, border_width=1)
    assert len(found.detections.peaks) >= 0.99 * len(maxima) > 2000
