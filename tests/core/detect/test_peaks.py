"""Regional maxima against brute force; sub-pixel positions against exact quadratics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.detect.peaks import brightest_pixels, refine, regional_maxima


def brute_force(image, level):
    """Components of equal pixels without a greater neighbour, one pixel each."""
    peaks = []
    ny, nx = image.shape
    padded = np.pad(image.astype(float), 1, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    greatest = windows.max(axis=(2, 3))
    for value in np.unique(image[image >= level]):
        labels, n = ndimage.label(image == value, np.ones((3, 3)))
        for k in range(1, n + 1):
            own = np.argwhere(labels == k)
            if (greatest[labels == k] > value).any():
                continue
            centre = own.mean(axis=0)
            inner = [
                (round(float(((p - centre) ** 2).sum()), 9), *p)
                for p in own
                if 0 < p[0] < ny - 1 and 0 < p[1] < nx - 1
            ]
            if inner:
                _, y, x = min(inner)
                peaks.append(y * nx + x)
    return sorted(int(p) for p in peaks)


@pytest.mark.parametrize("top", [2, 4, 40])
def test_equals_brute_force_on_random_integer_images(top):
    """From images of wide plateaus to images of hardly any; 170 each."""
    rng = np.random.default_rng(top)
    for _ in range(170):
        image = rng.integers(0, top, rng.integers(1, 24, 2)).astype(np.float32)
        assert regional_maxima(image, 1.0).tolist() == brute_force(image, 1.0)


def test_plateaus_across_strips():
    image = np.zeros((600, 20), np.float32)
    image[250:262, 5:9] = 3.0
    image[505:515, 3] = 2.0
    assert regional_maxima(image, 1.0).tolist() == brute_force(image, 1.0)


def test_a_clipped_image_has_one_peak_per_plateau(stars):
    rng = np.random.default_rng(5)
    image = stars((200, 200), 2.0, [(*p, 900.0) for p in rng.uniform(5, 195, (60, 2))])
    for level in (3.0, 8.0, 20.0):
        clipped = np.minimum(image, level).astype(np.float32)
        _, n_plateau = ndimage.label(clipped == np.float32(level), np.ones((3, 3)))
        maxima = regional_maxima(clipped, 1.0)
        assert np.count_nonzero(clipped.ravel()[maxima] == np.float32(level)) <= n_plateau
        every = regional_maxima(clipped, 1.0, every=True)
        assert len(every) > 3 * len(maxima)  # the reference's rule
        assert np.isin(maxima, every).all()


def test_a_constant_image_has_one_peak():
    assert regional_maxima(np.full((9, 9), 7, np.float32), 5.0).tolist() == [40]


def test_refinement_is_exact_on_quadratics():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:9, :9]
    for _ in range(50):
        dy, dx = rng.uniform(-0.5, 0.5, 2)
        a, b = rng.uniform(0.5, 2, 2)
        c = rng.uniform(-0.5, 0.5)
        u, v = y - 4 - dy, x - 4 - dx
        image = 100 - a * u**2 - b * v**2 - c * u * v
        found = refine(image, np.array([40]))
        np.testing.assert_allclose([found[0][0], found[1][0]], [dy, dx], atol=1e-9)
        assert not found[2][0]


def test_refinement_refuses_saddles_and_borders():
    y, x = np.mgrid[:9, :9]
    saddle = (y - 4.0) ** 2 - (x - 4.0) ** 2
    dy, dx, failed = refine(saddle, np.array([40, 0, 80]))
    assert failed.all()
    assert not dy.any()
    assert not dx.any()


def test_brightest_pixel_of_each_label():
    flat = np.array([1.0, 5.0, 5.0, 2.0, 9.0], np.float32)
    pixel, label = brightest_pixels(flat, np.arange(5), np.array([3, 3, 3, 7, 7]))
    assert pixel.tolist() == [1, 4]
    assert label.tolist() == [3, 7]


def test_images_too_small_for_a_peak():
    for shape in ((1, 1), (2, 5), (5, 2), (1, 300)):
        assert len(regional_maxima(np.ones(shape, np.float32), 0.5)) == 0
