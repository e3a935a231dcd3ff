"""Tiled convolution with varying kernels: against direct sums, borders, cells, threads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from coblend.core.box import Box
from coblend.core.errors import ShapeMismatchError
from coblend.core.psf.fields import CellField, ChebyshevField, LatticeField, n_terms
from coblend.core.psfmatch.convolve import convolve, label_cells

BOX = Box(1000, 2000, 300, 530)


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.normal(size=BOX.shape).astype(np.float32)


@pytest.fixture
def varying(rng) -> ChebyshevField:
    domain = (BOX.x0 - 0.5, BOX.x1 - 0.5, BOX.y0 - 0.5, BOX.y1 - 0.5)
    return ChebyshevField(rng.normal(size=(4, 9, 9)), rng.normal(size=(4, n_terms(3))), domain)


def direct(image, kernel, box, y, x):
    """Value at one pixel by the sum of the definition."""
    half = kernel.side // 2
    stamp = kernel.at_many([y], [x])[0]
    j, i = y - box.y0, x - box.x0
    cut = image[j - half : j + half + 1, i - half : i + half + 1].astype(float)
    return np.sum(stamp[::-1, ::-1] * cut)


def test_constant_kernel_is_a_true_convolution(image, rng):
    kernel = rng.normal(size=(11, 11))
    out = convolve(image, ChebyshevField.of_constant(kernel), BOX)
    padded = np.pad(image.astype(float), 5, mode="reflect")
    expected = signal.fftconvolve(padded, kernel, mode="valid")
    np.testing.assert_allclose(out, expected, atol=2e-5)
    assert out.dtype == np.float32


def test_varying_kernel_is_taken_at_the_output_pixel(image, varying, rng):
    out = convolve(image, varying, BOX)
    for _ in range(50):
        y = int(rng.integers(BOX.y0 + 4, BOX.y1 - 4))
        x = int(rng.integers(BOX.x0 + 4, BOX.x1 - 4))
        expected = direct(image, varying, BOX, y, x)
        assert out[y - BOX.y0, x - BOX.x0] == pytest.approx(expected, abs=1e-4)


def test_more_basis_images_than_terms_make_no_difference(image, rng):
    domain = (BOX.x0 - 0.5, BOX.x1 - 0.5, BOX.y0 - 0.5, BOX.y1 - 0.5)
    many = ChebyshevField(rng.normal(size=(20, 7, 7)), rng.normal(size=(20, 3)), domain)
    out = convolve(image, many, BOX)
    expected = direct(image, many, BOX, BOX.y0 + 200, BOX.x0 + 444)
    assert out[200, 444] == pytest.approx(expected, abs=1e-4)


def test_lattice_kernel(image, rng):
    lattice = LatticeField(
        rng.normal(size=(5, 6, 7, 7)),
        np.linspace(BOX.y0, BOX.y1 - 1, 5), np.linspace(BOX.x0, BOX.x1 - 1, 6),
    )  # fmt: skip
    out = convolve(image, lattice, BOX)
    for y, x in ((100, 20), (155, 400), (290, 520)):
        expected = direct(image, lattice, BOX, BOX.y0 + y, BOX.x0 + x)
        assert out[y, x] == pytest.approx(expected, abs=1e-3)


def test_a_point_returns_the_kernel(varying):
    image = np.zeros(BOX.shape, np.float32)
    image[150, 260] = 1
    constant = ChebyshevField.of_constant(varying.basis[0])
    out = convolve(image, constant, BOX)
    np.testing.assert_allclose(out[146:155, 256:265], varying.basis[0], atol=1e-6)
    assert np.count_nonzero(np.abs(out) > 1e-6) <= 81


def test_a_kernel_off_centre_moves_the_sky_its_way():
    kernel = np.zeros((5, 5))
    kernel[2, 2], kernel[2, 3] = 0.7, 0.3
    axis = np.arange(64)
    image = np.exp(-0.5 * ((axis[:, None] - 30) ** 2 + (axis[None, :] - 30) ** 2) / 9)
    out = convolve(image.astype(np.float32), ChebyshevField.of_constant(kernel), Box(0, 0, 64, 64))
    assert (out.sum(axis=0) @ axis) / out.sum() == pytest.approx(30.3, abs=1e-4)
    assert (out.sum(axis=1) @ axis) / out.sum() == pytest.approx(30.0, abs=1e-4)


def test_a_constant_image_stays_constant_to_the_border(varying):
    sums = varying.basis.sum(axis=(1, 2))
    unit = varying.basis - (sums / 81)[:, None, None]
    unit[0] += 1 / 81
    field = ChebyshevField(unit, np.vstack([np.eye(1, 10), varying.coefficients[1:]]),
                           varying.domain)  # fmt: skip
    out = convolve(np.full(BOX.shape, 7.0, np.float32), field, BOX)
    np.testing.assert_allclose(out, 7.0, rtol=1e-6)


def test_threads_do_not_change_a_bit(image, varying):
    one = convolve(image, varying, BOX, threads=1)
    np.testing.assert_array_equal(one, convolve(image, varying, BOX, threads=3))


def test_a_value_outside(image):
    box_kernel = ChebyshevField.of_constant(np.full((3, 3), 1 / 9))
    out = convolve(np.zeros(BOX.shape, np.float32), box_kernel, BOX, outside=1.0)
    assert out[0, 0] == pytest.approx(5 / 9)
    assert out[0, 100] == pytest.approx(3 / 9)
    assert out[1:-1, 1:-1].max() == pytest.approx(0, abs=1e-7)


def test_cells_each_use_their_kernel_and_their_neighbours_pixels(image, rng):
    y, x = rng.uniform(0, 1, (2, 9)) * np.array([[300], [530]]) + np.array([[1000], [2000]])
    cells = CellField(rng.normal(size=(9, 7, 7)), y, x)
    out = convolve(image, cells, BOX)
    rows, columns = np.meshgrid(np.arange(3, 297, 13), np.arange(3, 527, 17), indexing="ij")
    for j, i in zip(rows.ravel(), columns.ravel(), strict=True):
        expected = direct(image, cells, BOX, BOX.y0 + j, BOX.x0 + i)
        assert out[j, i] == pytest.approx(expected, abs=1e-4)


def test_labels_are_the_nearest_centres(rng):
    y, x = rng.uniform(-20, 340, 25) + 1000, rng.uniform(-20, 550, 25) + 2000
    cells = CellField(np.ones((25, 3, 3)), y, x)
    j, i = np.indices(BOX.shape)
    nearest = np.argmin((j[..., None] + 1000 - y) ** 2 + (i[..., None] + 2000 - x) ** 2, axis=-1)
    np.testing.assert_array_equal(label_cells(cells, BOX), nearest)
    thin = Box(1000, 2000, 1, 530)
    np.testing.assert_array_equal(label_cells(cells, thin), nearest[:1])


def test_an_image_smaller_than_the_kernel_is_refused():
    kernel = ChebyshevField.of_constant(np.ones((21, 21)))
    with pytest.raises(ShapeMismatchError, match=r"50x10 pixels is too small.*side 21"):
        convolve(np.zeros((10, 50), np.float32), kernel, Box(0, 0, 10, 50))
