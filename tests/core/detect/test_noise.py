"""Noise calibration: the right direction, the right size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.detect.growth import stencil
from coblend.core.detect.noise import measure_noise
from coblend.core.detect.pixels import Pixels
from coblend.core.detect.search import detect
from coblend.core.errors import FormatError
from coblend.core.params.detect import DetectParams


def correlated(rng, shape):
    """Unit variance per pixel, correlated by a 1-2-1 kernel on both axes."""
    kernel = np.array([1.0, 2.0, 1.0])
    noise = rng.normal(0, 1, shape)
    for axis in (0, 1):
        noise = ndimage.correlate1d(noise, kernel, axis, mode="wrap")
    return noise / np.sum(np.outer(kernel, kernel) ** 2) ** 0.5


def scales(exposure, **options):
    meta = detect(exposure, DetectParams(psf_sigma=1.93, **options)).detections.meta
    return meta["NOISESC1"], meta["VARSCAL1"]


def test_white_noise_needs_no_correction(exposure_of):
    rng = np.random.default_rng(1)
    noise, variance = scales(exposure_of(rng.normal(0, 2, (700, 700)), 4.0))
    assert noise == pytest.approx(1, abs=0.03)
    assert variance == pytest.approx(1, abs=0.02)


def test_correlated_noise_raises_the_threshold(exposure_of):
    """f = 2.50, and no false detection; taken at its word the variance gives thousands."""
    rng = np.random.default_rng(2)
    exposure = exposure_of(correlated(rng, (600, 600)))
    found = detect(exposure, DetectParams(psf_sigma=1.93))
    assert found.detections.meta["NOISESC1"] == pytest.approx(2.5, abs=0.05)
    assert len(found.detections.parents) <= 1
    naive = detect(exposure, DetectParams(psf_sigma=1.93, noise_scale="none"))
    assert len(naive.detections.parents) > 400
    reference = detect(exposure, DetectParams(psf_sigma=1.93, noise_scale="reference"))
    assert reference.threshold == pytest.approx(5 / 2.5, rel=0.03)
    assert len(reference.detections.parents) > len(naive.detections.parents)


def test_variance_too_small_by_two(stars, exposure_of):
    """Left to the noise scale: 1.414 (the reference's ratio: 0.707), same source list."""
    rng = np.random.default_rng(3)
    where = rng.uniform(10, 790, (150, 2))
    sky = stars((800, 800), 1.93, [(*p, 60 + 3 * i) for i, p in enumerate(where)])
    image = sky + rng.normal(0, 1, sky.shape)
    options = {"var_scale": "none", "psf_sigma": 1.93}
    right = detect(exposure_of(image), DetectParams(**options))
    half = detect(exposure_of(image, 0.5), DetectParams(**options))
    ratio = half.detections.meta["NOISESC1"] / right.detections.meta["NOISESC1"]
    assert ratio == pytest.approx(2**0.5, rel=0.03)
    assert len(half.detections.peaks) == pytest.approx(len(right.detections.peaks), rel=0.01)
    inverse = detect(exposure_of(image, 0.5), DetectParams(**options, noise_scale="reference"))
    assert inverse.detections.meta["NOISESC1"] == pytest.approx(0.707, rel=0.05)


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0])
def test_variance_scale_is_recovered(exposure_of, factor):
    rng = np.random.default_rng(4)
    noise, variance = scales(exposure_of(rng.normal(0, 1, (700, 700)), 1 / factor))
    assert variance == pytest.approx(factor, rel=0.02)
    assert noise == pytest.approx(1, abs=0.03)


def test_rescaled_variance_enters_significances_and_errors(stars, exposure_of):
    rng = np.random.default_rng(5)
    image = stars((400, 400), 2.0, [(200, 200, 1000.0)]) + rng.normal(0, 1, (400, 400))
    right, wrong = (
        detect(exposure_of(image, v), DetectParams(psf_sigma=2.0)).detections.peaks[0]
        for v in (1.0, 0.25)
    )
    assert wrong["snr"] == pytest.approx(right["snr"], rel=0.02)
    assert wrong["flux_err"] == pytest.approx(right["flux_err"], rel=0.02)
    assert wrong["flux"] == pytest.approx(right["flux"], rel=1e-5)


def test_noise_of_each_tile(stars, exposure_of):
    """Twice the noise in the right half: each 512 px tile says so, and the user is warned."""
    rng = np.random.default_rng(9)
    image = rng.normal(0, 1, (1024, 1200))
    image[:, 512:] *= 2
    image[:512, 1024:] = np.nan
    params = DetectParams(psf_sigma=1.9, var_scale="none")
    found = detect(exposure_of(image), params)
    np.testing.assert_allclose(found.noise.tiles[:, :2], [[1, 2], [1, 2]], rtol=0.06)
    assert np.isnan(found.noise.tiles[0, 2])
    assert any("the noise varies by" in w for w in found.warnings)
    assert not detect(exposure_of(rng.normal(0, 1, (1024, 1200))), params).warnings


@pytest.mark.parametrize(("enough", "most"), [(500_000, 840_000), (1000, 24_000), (200, 13_000)])
def test_every_tile_is_sampled_however_large_the_image(exposure_of, monkeypatch, enough, most):
    """Also where only one strip in 9 or 20 is wanted and a tile has 8; and no more in all."""
    monkeypatch.setattr("coblend.core.detect.noise.ENOUGH_PIXELS", enough)
    rng = np.random.default_rng(15)
    pixels = Pixels.of(exposure_of(rng.normal(0, 1, (1160, 720))))
    snr = rng.normal(0, 1, (1160, 720)).astype(np.float32)
    found = measure_noise(pixels, snr, 3.0, 1.0, stencil(2))
    np.testing.assert_allclose(found.tiles, np.ones((3, 2)), atol=0.25)
    assert found.n_pixel < most


def test_too_few_empty_pixels_are_no_calibration(exposure_of):
    rng = np.random.default_rng(6)
    found = detect(exposure_of(rng.normal(0, 3, (30, 30))), DetectParams(psf_sigma=1.0))
    assert found.detections.meta["NOISESC1"] == 1
    assert any("VARIANCE is taken as it is" in w for w in found.warnings)


def test_an_unbelievable_variance_is_refused(exposure_of):
    rng = np.random.default_rng(7)
    exposure = exposure_of(rng.normal(0, 1, (400, 400)), 1 / 11)
    with pytest.raises(FormatError, match=r"scatters 1[01].* at most 10 is believed"):
        detect(exposure, DetectParams(psf_sigma=1.5))
    assert detect(exposure, DetectParams(psf_sigma=1.5, var_scale="none")).threshold > 15


def test_rounded_pixels_are_refused_with_the_cause(exposure_of):
    rng = np.random.default_rng(11)
    coarse = np.rint(rng.normal(0, 0.2, (400, 400)))
    with pytest.raises(FormatError, match="more than 0 is believed") as caught:
        detect(exposure_of(coarse), DetectParams(psf_sigma=1.5))
    assert "rounded to a few values" in caught.value.hint


def test_a_background_left_in_is_suspected(exposure_of):
    """A gradient passes for noise: the messages say what to do, and it helps."""
    rng = np.random.default_rng(12)
    noise, ramp = rng.normal(0, 1, (500, 500)), np.arange(500) / 500
    exposure = exposure_of(noise + 6 * ramp)
    params = {"psf_sigma": 1.7, "max_area": 1.0}
    found = detect(exposure, DetectParams(**params))
    assert any("give --bg-mesh 128" in w for w in found.warnings)
    assert not detect(exposure, DetectParams(**params, bg_mesh=64)).warnings
    with pytest.raises(FormatError, match="at most 10 is believed") as caught:
        detect(exposure_of(noise + 15 * ramp), DetectParams(**params))
    assert "--bg-mesh 128" in caught.value.hint


@pytest.mark.parametrize("pedestal", [-50, 0.5, 60])
def test_a_pedestal_is_noticed(exposure_of, pedestal):
    """Below zero nothing is found, above everything: both say what may be wrong."""
    rng = np.random.default_rng(14)
    exposure = exposure_of(rng.normal(pedestal, 1, (300, 300)))
    found = detect(exposure, DetectParams(psf_sigma=1.7))
    assert any("give --bg-mesh 128" in w for w in found.warnings)
    assert not detect(exposure, DetectParams(psf_sigma=1.7, bg_mesh=64)).warnings


@pytest.mark.parametrize("unit", [1e-14, 1e14])
def test_units_do_not_matter(stars, exposure_of, unit):
    """Variances of 1e-28 and 1e28 fit into float32; so do the weights."""
    rng = np.random.default_rng(13)
    image = stars((300, 300), 1.8, [(60, 70, 900.0), (150, 200, 3e5)]) + rng.normal(
        0, 1, (300, 300)
    )
    for options in ({}, {"filter": "conv"}, {"bg_mesh": 64, "polarity": "both"}):
        params = DetectParams(psf_sigma=1.8, **options)
        one = detect(exposure_of(image), params).detections.peaks
        other = detect(exposure_of(image * unit, unit**2), params).detections.peaks
        assert np.array_equal(one["id"], other["id"])
        np.testing.assert_allclose(one["snr"], other["snr"], rtol=1e-4)
        np.testing.assert_allclose(one["flux"] * unit, other["flux"], rtol=1e-4)


def test_noise_scale_is_clipped(exposure_of):
    rng = np.random.default_rng(8)
    exposure = exposure_of(rng.normal(0, 1, (400, 400)), 1 / 9.0)
    params = DetectParams(psf_sigma=1.5, var_scale="none", noise_scale_limits=(0.5, 2.0))
    found = detect(exposure, params)
    assert found.threshold == 10
    assert any("outside 0.5 to 2" in w for w in found.warnings)
