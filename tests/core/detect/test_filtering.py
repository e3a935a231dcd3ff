"""The matched filter: closed forms, the definition by direct sums, masked pixels and borders."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.detect.filtering import Template, flux_error, gaussian_taps, snr_map
from coblend.core.detect.pixels import Pixels
from coblend.core.exposure import Exposure


def direct(image, variance, good, taps):
    """Definition in float64."""

    def along(plane, t):
        plane = ndimage.correlate1d(plane, t, 0, mode="constant")
        return ndimage.correlate1d(plane, t, 1, mode="constant")

    weight = np.where(good, 1 / variance, 0)
    num = along(weight * np.where(good, image, 0), taps)
    den = along(weight, taps**2)
    return num, den


def noisy(rng, shape):
    image = rng.normal(0, 3, shape)
    variance = rng.uniform(0.5, 20, shape)
    return image.astype(np.float32), variance.astype(np.float32)


@pytest.mark.parametrize("flux", [100.0, 1000.0])
def test_point_source_has_the_analytic_significance(stars, exposure_of, flux):
    """F / (2 sigma sqrt(pi)) for unit noise: 14.10474 and 141.0474."""
    image = stars((101, 101), 2.0, [(50, 50, flux)])
    pixels = Pixels.of(exposure_of(image))
    snr = snr_map(pixels, Template.gaussian(2.0))
    assert snr.argmax() == 50 * 101 + 50
    assert snr.max() == pytest.approx(flux / (4 * np.sqrt(np.pi)), rel=1e-6)


def test_template_is_the_reference_kernel():
    """Size (int(7 sigma + 0.5) // 2) * 2 + 1, sum 1."""
    for sigma, size in ((1.0, 7), (1.65, 13), (1.93, 15), (2.0, 15)):
        taps = gaussian_taps(sigma)
        assert len(taps) == size
        assert taps.sum() == pytest.approx(1)
    zero = np.zeros(1, int)
    power = Template.gaussian(3.0).power_at((9, 9), zero, zero)
    assert power == pytest.approx(1 / (36 * np.pi), rel=3e-3)


@pytest.mark.parametrize("shape", [(70, 90), (64, 32), (1, 50), (200, 7), (129, 33)])
def test_equals_the_definition_with_masked_pixels(exposure_of, shape):
    """Also on images smaller than a block and than the template."""
    rng = np.random.default_rng(1)
    image, variance = noisy(rng, shape)
    mask = (rng.random(shape) < 0.1).astype(np.int32)  # BAD
    mask[shape[0] // 2] = 1
    exposure = exposure_of(image, 1.0, mask)
    exposure = Exposure(image, mask, variance, exposure.box)
    taps = gaussian_taps(1.8)
    snr = snr_map(Pixels.of(exposure, ["BAD"]), Template(taps[None, None]))
    num, den = direct(image.astype(float), variance.astype(float), mask == 0, taps)
    expected = np.divide(num, np.sqrt(den), out=np.zeros(shape), where=den > 0)
    assert np.abs(snr - expected).max() < 2e-5
    y, x = np.nonzero(np.ones(shape))
    error = flux_error(Pixels.of(exposure, ["BAD"]), Template(taps[None, None]), y, x)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(error.reshape(shape), den**-0.5, rtol=1e-5)


def test_a_masked_column_loses_exactly_its_information(exposure_of):
    """snr = F sqrt(sum over good pixels of T**2 / var) at the star's own pixel."""
    taps = gaussian_taps(2.0)
    template = np.outer(taps, taps)
    half = len(taps) // 2
    image = np.pad(500.0 * template, 40 - half)
    mask = np.zeros(image.shape, np.int32)
    mask[:, 41] = 1
    exposure = exposure_of(np.where(mask, 1e6, image), 4.0, mask)
    snr = snr_map(Pixels.of(exposure, ["BAD"]), Template(taps[None, None]))
    template[:, half + 1] = 0
    assert snr[40, 40] == pytest.approx(500.0 * np.sqrt((template**2 / 4.0).sum()), rel=1e-5)


@pytest.mark.parametrize("matched", [True, False])
def test_every_cell_has_its_own_template(exposure_of, matched):
    """3 x 2 cells of an odd image: each pixel as if its template served all the image."""
    rng = np.random.default_rng(7)
    image, variance = noisy(rng, (205, 131))
    mask = (rng.random(image.shape) < 0.01).astype(np.int32)
    exposure = Exposure(image, mask, variance, exposure_of(image).box)
    pixels = Pixels.of(exposure, ["BAD"])
    widths = np.array([[1.0, 1.4], [1.8, 2.2], [1.3, 0.9]])
    template = Template.gaussian(widths, matched=matched)
    assert template.size == 15
    snr = snr_map(pixels, template, threads=2)
    y, x = np.indices(image.shape)
    cell = (y * 3 // 205, x * 2 // 131)
    error = flux_error(pixels, template, y.ravel(), x.ravel()).reshape(image.shape)
    edge = max(template.half, 8)
    for i, j in np.ndindex(3, 2):
        own = Template.gaussian(widths[i, j], matched=matched)
        mine = (cell[0] == i) & (cell[1] == j)
        if not matched:  # the common size decides what is known
            own = Template(template.taps[i : i + 1, j : j + 1], matched=False)
        alone = snr_map(pixels, own)
        np.testing.assert_allclose(snr[mine], alone[mine], atol=2e-5)
        own_error = flux_error(pixels, own, y[mine], x[mine])
        np.testing.assert_allclose(error[mine], own_error, rtol=1e-6)
    assert snr[edge:-edge, edge:-edge].any()


def test_plain_filter_agrees_on_constant_variance_inside_the_border(exposure_of):
    rng = np.random.default_rng(2)
    image = rng.normal(0, 2, (150, 140))
    pixels = Pixels.of(exposure_of(image, 4.0))
    taps = gaussian_taps(1.9)
    matched = snr_map(pixels, Template(taps[None, None]))
    plain = snr_map(pixels, Template(taps[None, None], matched=False))
    half = len(taps) // 2
    inner = (slice(half, -half), slice(half, -half))
    assert np.abs(matched[inner] - plain[inner]).max() < 1e-5
    assert not plain[:half].any()  # the outside is unknown to it
    assert not plain[:, -half:].any()


def test_plain_filter_is_killed_by_unusable_pixels(exposure_of):
    image = np.ones((60, 60))
    image[30, 30] = np.nan
    pixels = Pixels.of(exposure_of(image))
    taps = gaussian_taps(1.0)
    plain = snr_map(pixels, Template(taps[None, None], matched=False))
    half = len(taps) // 2
    dead = np.zeros((60, 60), bool)
    dead[30 - half : 31 + half, 30 - half : 31 + half] = True
    dead[:half] = dead[-half:] = dead[:, :half] = dead[:, -half:] = True
    assert np.array_equal(plain == 0, dead)


def test_threads_and_byte_order_change_nothing(exposure_of):
    rng = np.random.default_rng(3)
    image, _ = noisy(rng, (700, 60))
    exposure = exposure_of(image)
    template = Template.gaussian(1.7)
    results = [snr_map(Pixels.of(exposure), template, threads=n) for n in (1, 2, 4)]
    swapped = Exposure(
        image.astype(">f4"), exposure.mask, exposure.variance.astype(">f4"), exposure.box
    )
    results.append(snr_map(Pixels.of(swapped), template))
    assert all(np.array_equal(results[0], r) for r in results[1:])


def test_nothing_usable_is_nothing_known(exposure_of):
    exposure = exposure_of(np.full((40, 40), np.nan))
    for matched in (True, False):
        assert not snr_map(Pixels.of(exposure), Template.gaussian(1.5, matched=matched)).any()
