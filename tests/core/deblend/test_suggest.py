"""Peaks in a residual: stars are found, known ones and noise are not."""

from __future__ import annotations

import numpy as np

from coblend.core.deblend.refitting.suggest import suggest_peaks

SHAPE = (60, 70)


def scene(fields, rng, stars):
    image = rng.normal(size=(2, *SHAPE))
    for y, x, flux in stars:
        image[:, y - 10 : y + 11, x - 10 : x + 11] += flux * fields.gaussian(0, 0)
    return image, np.stack([fields.gaussian(0, 0)] * 2)


def test_significance_is_that_of_the_matched_filter(fields, rng) -> None:
    """Flux over sqrt(4 pi) sigma per band, added in quadrature, to the noise of 1."""
    image, psfs = scene(fields, rng, [(20, 20, 120.0), (40, 50, 90.0)])
    pixels, snr = suggest_peaks(image, np.ones_like(image), psfs, np.zeros((0, 2)))
    assert np.abs(pixels - [[20, 20], [40, 50]]).max() <= 1
    expected = np.sqrt(2) * np.array([120, 90]) / (np.sqrt(4 * np.pi) * fields.SIGMA)
    assert np.abs(snr - expected).max() < 3.5


def test_noise_and_known_peaks_give_nothing(fields, rng) -> None:
    image, psfs = scene(fields, rng, [])
    assert len(suggest_peaks(image, np.ones_like(image), psfs, np.zeros((0, 2)))[0]) == 0
    image, psfs = scene(fields, rng, [(20, 20, 120.0)])
    assert len(suggest_peaks(image, np.ones_like(image), psfs, np.array([[21.4, 19.0]]))[0]) == 0


def test_pixels_without_weight_hold_no_peak(fields, rng) -> None:
    image, psfs = scene(fields, rng, [(20, 20, 1e4)])
    weight = np.ones_like(image)
    weight[:, :35, :35] = 0
    pixels, snr = suggest_peaks(image * weight, weight, psfs, np.zeros((0, 2)))
    assert len(pixels) == len(snr) == 0
    pixels, _ = suggest_peaks(image, np.zeros_like(image), psfs, np.zeros((0, 2)))
    assert len(pixels) == 0
