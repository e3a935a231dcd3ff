"""Batched rendering is a plain linear convolution; kernels are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.footprint import box_offsets
from coblend.core.kernels import model_psf
from coblend.core.reconstruct.render import band_kernels, render
from coblend.core.reconstruct.stamps import Stamps


def test_equals_direct_convolution(rng: np.random.Generator) -> None:
    boxes = np.concatenate([rng.integers(0, 99, (25, 2)), rng.integers(1, 30, (25, 2))], axis=1)
    boxes[3, 2:] = 70, 1
    stamps = Stamps(boxes, rng.normal(size=box_offsets(boxes)[-1]))
    kernels = rng.normal(size=(2, 3, 9, 9))
    cell = rng.integers(0, 3, 25)
    for kind, out in enumerate(render(stamps, kernels, cell)):
        for i in range(len(stamps)):
            expected = convolve2d(stamps.stamp(i), kernels[kind, cell[i]])
            np.testing.assert_allclose(out.stamp(i), expected, atol=1e-12)
            y0, x0, ny, nx = boxes[i]
            assert tuple(out.boxes[i]) == (y0 - 4, x0 - 4, ny + 8, nx + 8)


def test_confined_to_a_box_equals_the_whole_there(rng: np.random.Generator) -> None:
    boxes = np.concatenate([rng.integers(0, 40, (60, 2)), rng.integers(1, 30, (60, 2))], axis=1)
    within = np.concatenate([rng.integers(0, 50, (60, 2)), rng.integers(1, 30, (60, 2))], axis=1)
    stamps = Stamps(boxes, rng.normal(size=box_offsets(boxes)[-1]))
    kernels = rng.normal(size=(2, 1, 31, 17))
    cell = np.zeros(60, int)
    n_pixel = 0
    for whole, part in zip(
        render(stamps, kernels, cell), render(stamps, kernels, cell, within), strict=True
    ):
        for i in range(60):
            large, small, window = (
                Box(*b.tolist()) for b in (whole.boxes[i], part.boxes[i], within[i])
            )
            common = large & window
            if common.area:
                assert small == common
                expected = whole.stamp(i)[common.slices(large)]
                np.testing.assert_allclose(part.stamp(i), expected, atol=1e-12)
                n_pixel += common.area
    assert n_pixel > 10_000


def test_a_stamp_alone_gives_the_same_bits_as_in_a_crowd(rng: np.random.Generator) -> None:
    boxes = np.array([[0, 0, 11, 13]] * 40)
    stamps = Stamps(boxes, rng.normal(size=40 * 143))
    kernels = rng.normal(size=(1, 1, 7, 7))
    (crowd,) = render(stamps, kernels, np.zeros(40, int))
    (alone,) = render(Stamps(boxes[:1], stamps.values[-143:]), kernels, np.zeros(1, int))
    assert np.array_equal(crowd.stamp(39), alone.stamp(0))


def test_positive_kernel_has_the_same_sum(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 2, psf=scenes.ringing_psf, n_cell=2)
    kernel, positive = band_kernels(models, 0, reg=0.0)
    assert kernel.min() < -1e-3
    assert positive.min() >= 0
    np.testing.assert_allclose(positive.sum((1, 2)), kernel.sum((1, 2)), rtol=1e-12)


def test_the_kernel_of_the_model_psf_itself_is_a_delta(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 2, psf=lambda fwhm: model_psf())
    kernel = band_kernels(models, 0, reg=0.0)[0, 0]
    delta = np.zeros((15, 15))
    delta[7, 7] = 1.0
    np.testing.assert_allclose(kernel, delta, atol=1e-6)


def test_gaussian_kernels_have_the_difference_of_the_variances(
    rng: np.random.Generator, scenes
) -> None:
    sigma, side = 2.2, 41
    models = scenes.make_models(rng, 2, psf=lambda fwhm: model_psf(sigma, side))
    kernel = band_kernels(models, 0)[0, 0]
    r = np.arange(side) - side // 2
    variance = sigma**2 - models.model_psf_sigma**2
    profile = np.exp(-(r**2) / (2 * variance))
    expected = np.outer(profile, profile)
    expected /= expected.sum()
    assert np.abs(kernel - expected).max() < 1e-3 * expected.max()


def test_a_kernel_without_positive_sum_is_refused(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 2)
    models.psfs[0, 1] = np.nan
    with pytest.raises(FormatError, match="finite"):
        band_kernels(models, 1)
