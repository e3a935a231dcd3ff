"""What only large images show: false alarms, correlated noise, memory; the size of strips."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.detect.filtering import Template, snr_map
from coblend.core.detect.peaks import regional_maxima
from coblend.core.detect.pixels import Pixels, strips
from coblend.core.detect.search import detect
from coblend.core.params.detect import DetectParams

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "detect.py"


@pytest.fixture(scope="module")
def crowd():
    """The benchmark's field, 700 x 700 pixels."""
    spec = importlib.util.spec_from_file_location("benchmark_detect_full", BENCHMARK)
    module = sys.modules["benchmark_detect_full"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_field(700)


@pytest.mark.parametrize("rows", [16, 100, 10_000])
def test_strips_do_not_show(crowd, exposure_of, monkeypatch, rows):
    """Nor do threads; with everything on that works through strips."""
    exposure = exposure_of(crowd.image)
    params = DetectParams(
        psf_sigma=crowd.sigma, bg_mesh=64, wide_bg=256, local_bg=64, polarity="both",
        peak_scales=(1.0, 0.6), max_peaks=20,
    )  # fmt: skip
    usual = detect(exposure, params)
    monkeypatch.setattr(strips, "__defaults__", (rows,))
    other = detect(exposure, params, threads=2)
    for a, b in ((usual.detections, other.detections), (usual.negative, other.negative)):
        assert len(a.peaks)
        for name in ("parents", "peaks"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
        assert np.array_equal(a.footprints.spans, b.footprints.spans)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.5, 2.5, 3.5])
def test_rate_of_false_alarms(exposure_of, sigma):
    """Peaks above u in A px: A u exp(-u^2 / 2) / ((2 pi)^1.5 2 sigma^2), 0.7 to 1.15 of it.

    40 Mpx of white noise.
    """
    n = dict.fromkeys((3.5, 4.0), 0)
    for seed in range(10):
        noise = np.random.default_rng(seed).standard_normal((2000, 2000), np.float32)
        snr = snr_map(Pixels.of(exposure_of(noise)), Template.gaussian(sigma))
        for u in n:
            n[u] += len(regional_maxima(snr, u))
    for u, found in n.items():
        expected = 40e6 * u * np.exp(-(u**2) / 2) / ((2 * np.pi) ** 1.5 * 2 * sigma**2)
        assert 0.7 < found / expected < 1.15


@pytest.mark.slow
def test_white_noise_of_16_megapixels(exposure_of):
    noise = np.random.default_rng(1).standard_normal((4000, 4000), np.float32)
    found = detect(exposure_of(noise), DetectParams(psf_sigma=1.93))
    assert len(found.detections.peaks) <= 8


@pytest.mark.slow
def test_correlated_noise_of_16_megapixels(exposure_of):
    """The nominal threshold would give 30 000 false footprints, the reference's ratio 68 000."""
    kernel = np.array([1.0, 2.0, 1.0]) / 6
    noise = np.random.default_rng(2).standard_normal((4000, 4000), np.float32)
    for axis in (0, 1):
        noise = ndimage.correlate1d(noise, kernel, axis, mode="wrap")
    noise *= 6
    assert noise.std() == pytest.approx(1, abs=0.002)
    found = detect(exposure_of(noise), DetectParams(psf_sigma=1.93))
    assert found.detections.meta["NOISESC1"] == pytest.approx(2.5, abs=0.05)
    assert len(found.detections.parents) <= 5


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory(crowd, tmp_path):
    """At most 17 bytes per pixel (12 of them the exposure) and 150 MB, on 16 crowded Mpx."""
    tile = (6, 6)
    path = str(tmp_path / "field.npz")
    np.savez(path, image=np.tile(crowd.image, tile), variance=np.tile(crowd.variance, tile))
    command = [sys.executable, str(BENCHMARK), "--peak-memory", path, str(crowd.sigma)]
    used = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert used <= 17 * 36 * crowd.image.size + 150e6
