"""Convolution by transforms equals direct summation, and its adjoint is its adjoint."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d

from coblend.core.box import Box
from coblend.core.deblend.fitting.observation import Frames, Observation, fft_period, noise_rms
from coblend.core.exposure import Cube
from coblend.core.kernels import difference_kernel, model_psf

SHAPES = [(20, 20), (21, 34), (7, 50), (60, 48)]


def frames(rng: np.random.Generator, shape: tuple[int, int], side: int, n: int = 2) -> Frames:
    data = rng.normal(size=(n, 2, *shape)).astype(np.float32)
    psfs = np.stack([moffat(side, width, rng) for width in (1.6, 2.4)])
    kernels = difference_kernel(psfs, model_psf())[None].astype(np.float32)
    return Frames.of(np.arange(n), data, np.ones_like(data), kernels)


def moffat(side: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Lopsided PSF: a kernel that is flipped by mistake does not go unnoticed."""
    y, x = np.mgrid[:side, :side] - side // 2
    image = (1 + (y**2 + 0.8 * x**2 + 0.3 * x * y) / width**2) ** -3.0
    image += 0.1 * np.exp(-((y - 1) ** 2 + (x - 2) ** 2) / 3) + 1e-4 * rng.uniform(
        size=image.shape
    )
    return image / image.sum()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [9, 15, 25, 41])
def test_convolution_equals_direct_summation(
    rng: np.random.Generator, shape: tuple[int, int], side: int
) -> None:
    own = frames(rng, shape, side)
    result = own.convolve(own.data)
    half = side // 2
    for i in range(2):
        for b in range(2):
            full = convolve2d(own.data[i, b].astype(float), own.kernels[0, b].astype(float))
            direct = full[half : half + shape[0], half : half + shape[1]]
            assert np.abs(result[i, b] - direct).max() < 1e-6 * np.abs(direct).max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [9, 15, 25, 41])
def test_adjoint(rng: np.random.Generator, shape: tuple[int, int], side: int) -> None:
    own = frames(rng, shape, side)
    x, y = rng.normal(size=(2, 2, 2, *shape)).astype(np.float32)
    left = np.vdot(own.convolve(x).astype(float), y)
    right = np.vdot(x, own.correlate(y).astype(float))
    assert abs(left - right) < 1e-5 * np.linalg.norm(x) * np.linalg.norm(y)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_point_is_rendered_as_the_psf_about_its_pixel(
    rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    """Pixel centres are integers, on frames of odd and even sides alike."""
    own = frames(rng, shape, 15, 1)
    for y, x in ((0, 0), (shape[0] // 2, shape[1] // 2), (shape[0] - 1, shape[1] - 2)):
        point = np.zeros((1, 2, *shape), np.float32)
        point[..., y, x] = 1
        result, kernels = own.convolve(point)[0], own.kernels[0]
        for dy, dx in ((0, 0), (1, -2), (-3, 2)):
            if 0 <= y + dy < shape[0] and 0 <= x + dx < shape[1]:
                expected = kernels[:, 7 + dy, 7 + dx]
                assert np.allclose(result[:, y + dy, x + dx], expected, rtol=0, atol=1e-6)


def test_periods_hold_the_frame_and_the_reach_of_the_kernel() -> None:
    assert fft_period((100, 100), 20) == (120, 120)
    assert fft_period((10, 10), 20)[0] >= 10 + 9


def test_selected_and_split_frames_are_the_same_blends(rng: np.random.Generator) -> None:
    one, two = frames(rng, (20, 20), 9, 3), frames(rng, (30, 20), 9, 2)
    second = Frames.of(np.array([3, 4]), two.data, two.weight, two.kernels)
    whole = Observation((one, second))
    keep = np.array([True, False, True, False, True])
    part = whole.select(keep)
    assert len(part) == 3
    for i, blend in enumerate(np.flatnonzero(keep)):
        assert np.array_equal(part.data[i], whole.data[blend])
    divided = whole.split(keep)
    assert len(divided.frames) == 4
    for i in range(5):
        assert np.array_equal(divided.data[i], whole.data[i])


def cube(variance: np.ndarray, image: np.ndarray | None = None) -> Cube:
    image = np.ones_like(variance) if image is None else image
    return Cube(image.astype(np.float32), variance.astype(np.float32),
                np.zeros(variance.shape, np.int32), ("g", "r"), (None, None),
                Box(0, 0, *variance.shape[1:]))  # fmt: skip


def test_noise_and_weights(rng: np.random.Generator) -> None:
    variance = np.broadcast_to(np.array([4.0, 9.0])[:, None, None], (2, 8, 8)).copy()
    variance[0, 0, :3] = (np.inf, np.nan, -1)
    sigma, weight = noise_rms(cube(variance), ())
    assert np.allclose(sigma, [2, 3])
    assert weight[0, 0, :3].tolist() == [0, 0, 0]
    assert np.allclose(weight[1], 1)
    variance[1, 4:] = 36.0
    assert noise_rms(cube(variance), (), statistic="mean")[0][1] == pytest.approx(4.5)
    assert noise_rms(cube(variance), ())[0][1] == pytest.approx(np.sqrt(22.5))
    assert set(np.unique(noise_rms(cube(variance), (), use_weights=False)[1])) == {0, 1}


# bad input


def test_a_band_without_any_usable_pixel() -> None:
    variance = np.ones((2, 4, 4))
    variance[1] = np.nan
    sigma, weight = noise_rms(cube(variance), ())
    assert sigma.tolist() == [1, 1]
    assert weight[1].max() == 0
