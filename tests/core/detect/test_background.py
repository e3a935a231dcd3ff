"""Mesh backgrounds: statistics of bins, the surface through them, masked second pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from coblend.core.detect.background import MeshOptions, clipped_statistic, measure_background
from coblend.core.detect.mesh import Mesh, fill_empty
from coblend.core.detect.pixels import Pixels
from coblend.core.detect.search import detect
from coblend.core.params.detect import DetectParams


def surface(mesh, shape):
    assert mesh.nx == shape[1]
    return mesh.rows(np.arange(shape[0]))


@pytest.mark.parametrize("statistic", ["clipmean", "median", "mode"])
def test_clipping_removes_outliers(statistic):
    rng = np.random.default_rng(1)
    sample = rng.normal(100, 2, 20000).astype(np.float32)
    sample[:400] += 500
    value, error = clipped_statistic(sample, MeshOptions(64, statistic))
    assert value == pytest.approx(100, abs=0.06)
    assert error == pytest.approx(2 / np.sqrt(19600), rel=0.05)


def test_clipped_mean_equals_direct_iteration():
    rng = np.random.default_rng(2)
    sample = np.concatenate([rng.normal(5, 1, 3000), rng.uniform(5, 40, 500)]).astype(np.float32)
    values = np.sort(sample.astype(float))
    median = values[len(values) // 2]
    low, high = values[len(values) // 4], values[3 * len(values) // 4]
    sigma = 0.741301109 * (high - low)
    for _ in range(3):
        kept = values[np.abs(values - median) <= 3 * sigma]
        mean, sigma, median = kept.mean(), kept.std(), kept[len(kept) // 2]
    value, _ = clipped_statistic(sample, MeshOptions(64))
    assert value == pytest.approx(mean, rel=1e-6)


def test_surface_equals_scipy_akima_along_columns_then_rows():
    rng = np.random.default_rng(3)
    y, x = np.arange(7) * 20.0 + 9.5, np.arange(6) * 20.0 + 9.5
    values = rng.normal(0, 1, (7, 6))
    mesh = Mesh(y, x, values, values, np.ones((7, 6), np.int64), 120)
    rows, columns = np.arange(140), np.arange(120)
    nodes = Akima1DInterpolator(y, values, axis=0)(np.clip(rows, y[0], y[-1]))
    expected = Akima1DInterpolator(x, nodes, axis=1)(np.clip(columns, x[0], x[-1]))
    np.testing.assert_allclose(mesh.rows(rows), expected, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("how", ["akima", "spline", "linear"])
def test_surface_passes_through_its_nodes_with_few_bins(n, how):
    """The order is lowered where there are too few bins."""
    rng = np.random.default_rng(4)
    centres = np.arange(n) * 10.0 + 5
    values = rng.normal(0, 1, (n, n))
    mesh = Mesh(centres, centres, values, values, np.ones((n, n), np.int64), 10 * n, how)
    at = centres.astype(int)
    np.testing.assert_allclose(mesh.rows(at)[:, at], values, atol=1e-6)


@pytest.mark.parametrize("bins", [64, 128])
def test_empty_sky_is_flat(exposure_of, bins):
    """Constant and plane plus noise: rms of the model's error at most 0.02 sigma."""
    rng = np.random.default_rng(5)
    shape = (512, 640)
    noise = rng.normal(0, 1, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for truth in (np.full(shape, 300.0), 300 + 0.01 * x - 0.02 * y):
        mesh = measure_background(Pixels.of(exposure_of(truth + noise)), MeshOptions(bins))
        inner = (slice(bins // 2, -bins // 2), slice(bins // 2, -bins // 2))
        error = surface(mesh, shape)[inner] - truth[inner]
        assert abs(error.mean()) < 0.01
        assert error.std() < 0.02


@pytest.mark.parametrize("n", [256, 257, 300, 330])
def test_last_bins_are_no_noisier_than_the_others(exposure_of, n):
    """However the side divides by the bin, the error at the far corner is that of a whole bin."""
    rng = np.random.default_rng(7)
    corners = [
        surface(measure_background(pixels, MeshOptions(64)), (n, n))[-1, -1]
        for pixels in (Pixels.of(exposure_of(rng.normal(0, 1, (n, n)))) for _ in range(8))
    ]
    assert np.std(corners) < 2 / 64


@pytest.mark.parametrize("bins", [64, 128])
def test_second_pass_outside_detections_removes_the_bias_of_sources(stars, exposure_of, bins):
    """A crowded sinusoidal sky: bias and rms at most 0.06 sigma; unmasked it is far worse."""
    rng = np.random.default_rng(6)
    shape = (640, 640)
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = 4 * np.sin(2 * np.pi * y / 2000) * np.cos(2 * np.pi * x / 2000)
    where = rng.uniform(0, 639, (1500, 2))
    flux = np.minimum(20 * rng.uniform(0, 1, 1500) ** -1.1, 3e4)
    sky = stars(shape, 1.7, [(a, b, f) for (a, b), f in zip(where, flux, strict=True)])
    exposure = exposure_of(truth + sky + rng.normal(0, 1, shape))
    found = detect(exposure, DetectParams(psf_sigma=1.7, bg_mesh=bins))
    inner = (slice(bins // 2, -bins // 2),) * 2
    error = (surface(found.background, shape) - truth)[inner]
    blind = (surface(measure_background(Pixels.of(exposure), MeshOptions(bins)), shape) - truth)[
        inner
    ]
    assert abs(error.mean()) < 0.06
    assert error.std() < 0.06
    assert abs(blind.mean()) > 2 * abs(error.mean())


def test_empty_bins_are_filled_from_their_neighbours():
    values = np.array([[1.0, 1.0, 1.0], [1.0, np.nan, 3.0], [1.0, 1.0, 1.0]])
    filled = fill_empty(values, np.arange(3.0), np.arange(3.0))
    assert filled[1, 1] == pytest.approx(1.5)  # the four at distance 1
    assert np.array_equal(filled[values == 1], values[values == 1])


def test_bins_of_masked_pixels_do_not_count(exposure_of):
    image = np.full((96, 96), 7.0)
    image[:32, :32] = 1e5
    mask = np.zeros(image.shape, np.int32)
    mask[:32, :32] = 1
    pixels = Pixels.of(exposure_of(image, 1.0, mask), ["BAD"])
    mesh = measure_background(pixels, MeshOptions(32))
    np.testing.assert_allclose(surface(mesh, image.shape), 7.0)
    assert mesh.counts[0, 0] == 0


def test_almost_empty_image_gives_one_value(exposure_of):
    image = np.full((100, 100), np.nan)
    image[5, 5] = image[50, 50] = 3.0
    mesh = measure_background(Pixels.of(exposure_of(image)), MeshOptions(50))
    np.testing.assert_allclose(surface(mesh, image.shape), 3.0)
