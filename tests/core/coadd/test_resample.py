"""Resampling: brute force, flux of stars, noise and its correlation, masks, PSF."""

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.pixelmap import PixelMap, lattice
from coblend.core.coadd.resample import SIZES, noise_correlation, resample, taps
from coblend.core.coadd.warp import covered
from coblend.core.coadd.warp_psf import warped_psf, warped_stamp
from coblend.core.errors import FormatError
from coblend.core.psf import GridPsf, StampPsf

WIDE, NO_DATA = 16 | 2, 256
ANGLE, SCALE = np.radians(30), 1.05
TURN = SCALE * np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])


def linear_map(box, matrix, origin, step=10):
    """Input position = matrix (output position) + origin."""
    rows, columns = lattice(box, step)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    y, x = np.tensordot(matrix, grid, 1) + np.reshape(origin, (2, 1, 1))
    return PixelMap(box, rows, columns, y, x)


def run(image, pixel_map, *, variance=None, mask=None, kernel="lanczos3"):
    variance = np.ones(image.shape, np.float32) if variance is None else variance
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    return resample(
        image.astype(np.float32), mask, variance, pixel_map, kernel=kernel,
        wide=mask & np.int32(WIDE), no_data=NO_DATA,
    )  # fmt: skip


def test_taps_equal_the_formula(rng):
    fraction = np.concatenate([[0.0, 0.5], rng.random(1000)])
    t = fraction - np.arange(-2, 4)[:, None]
    exact = np.sinc(t) * np.sinc(t / 3)
    exact /= exact.sum(axis=0)
    found = taps(fraction, "lanczos3")
    assert np.abs(found - exact).max() < 2e-6
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(taps(fraction, "bilinear"), [1 - fraction, fraction], atol=1e-6)


@pytest.mark.parametrize("kernel", SIZES)
def test_equals_brute_force(rng, kernel):
    image, variance = rng.normal(size=(30, 34)), rng.uniform(1, 2, (30, 34)).astype(np.float32)
    mask = (1 << rng.integers(0, 9, (30, 34))) * (rng.random((30, 34)) < 0.1)
    mask = mask.astype(np.int32)
    box = Box(3, -4, 25, 31)
    matrix, origin = np.array([[0.9, 0.2], [-0.25, 1.02]]), np.array([2.3137, 6.1071])
    out = run(image, linear_map(box, matrix, origin), variance=variance, mask=mask, kernel=kernel)
    size, area = SIZES[kernel], abs(np.linalg.det(matrix))
    offsets = np.arange(1 - size // 2, size // 2 + 1)
    n_good = 0
    for iy, ix in np.ndindex(box.shape):
        y, x = matrix @ (iy + box.y0, ix + box.x0) + origin
        fy, fx = int(np.floor(y)), int(np.floor(x))
        rows, columns = fy + offsets, fx + offsets
        if min(rows[0], columns[0]) < 0 or rows[-1] >= 30 or columns[-1] >= 34:
            assert np.isnan(out.image[iy, ix])
            assert out.mask[iy, ix] & NO_DATA
            continue
        n_good += 1
        wy, wx = taps(np.array([y - fy]), kernel)[:, 0], taps(np.array([x - fx]), kernel)[:, 0]
        weight = np.outer(wy, wx).astype(float)
        cut = np.ix_(rows, columns)
        assert out.image[iy, ix] == pytest.approx(area * np.sum(weight * image[cut]), abs=2e-6)
        expected = area**2 * np.sum(weight**2 * variance[cut])
        assert out.variance[iy, ix] == pytest.approx(expected, rel=1e-5)
        near = np.bitwise_or.reduce(mask[fy : fy + 2, fx : fx + 2], axis=None) & ~WIDE
        far = np.bitwise_or.reduce(mask[cut], axis=None) & WIDE
        assert out.mask[iy, ix] == near | far
    assert n_good > 100


def test_whole_pixel_shift_is_a_copy(rng):
    image = rng.normal(size=(20, 25)).astype(np.float32)
    mask = rng.integers(0, 16, (20, 25)).astype(np.int32)
    box = Box(0, 0, 20, 25)
    out = run(image, linear_map(box, np.eye(2), (2, -1)), mask=mask)
    good = np.isfinite(out.image)
    assert good.sum() == 15 * 20
    ys, xs = np.nonzero(good)
    np.testing.assert_allclose(out.image[good], image[ys + 2, xs - 1], rtol=1e-6)
    np.testing.assert_array_equal(out.mask[good], mask[ys + 2, xs - 1])
    assert out.noise_power == pytest.approx(1, abs=1e-6)


def test_missing_pixels_spread_by_the_kernel():
    image = np.ones((30, 30), np.float32)
    image[15, 15] = np.nan
    out = run(image, linear_map(Box(5, 5, 20, 20), np.eye(2), (0.5, 0.5)))
    lost = np.isnan(out.image)
    assert lost.sum() == 36
    assert lost[15 - 5 - 3 : 15 - 5 + 3, 15 - 5 - 3 : 15 - 5 + 3].all()
    np.testing.assert_array_equal((out.mask & NO_DATA) != 0, lost)
    np.testing.assert_allclose(out.image[~lost], 1, rtol=1e-6)


@pytest.mark.parametrize(("fwhm", "tolerance"), [(2, 1e-3), (3, 4e-4), (4, 2e-4), (6, 5e-5)])
def test_flux_of_stars(rng, fwhm, tolerance):
    sigma, side = fwhm / 2.3548, 61
    centre = np.array([side // 2, side // 2])
    y, x = np.mgrid[:side, :side]
    worst = 0.0
    for _ in range(40):
        cy, cx = centre + rng.uniform(-0.5, 0.5, 2)
        image = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2 / sigma**2) / (2 * np.pi * sigma**2)
        box = Box(-18, -18, 37, 37)
        out = run(image, linear_map(box, TURN, centre + rng.uniform(-0.5, 0.5, 2)))
        worst = max(worst, abs(np.nansum(out.image) / image.sum() - 1))
    assert worst < tolerance


def test_noise_agrees_with_the_variance_and_its_correlation(rng):
    image = rng.normal(size=(1500, 1500))
    middle = np.array([750.0, 750.3]) - TURN @ (500, 500)
    pixel_map = linear_map(Box(0, 0, 1000, 1000), TURN, middle)
    out = run(image, pixel_map)
    inside = np.isfinite(out.image)
    assert inside.all()
    area = SCALE**2
    assert out.noise_power == pytest.approx(0.798, abs=0.005)
    ratio = (out.image[inside] / np.sqrt(out.variance[inside])).var()
    assert ratio == pytest.approx(1, abs=0.005)
    assert out.image[inside].var() / area**2 == pytest.approx(0.798, abs=0.005)
    block = out.image[100:300, 100:300] / area
    assert np.isfinite(block).all()
    found = noise_correlation(pixel_map, "lanczos3")
    assert found[2, 2] == 1
    for dy in range(3):
        for dx in range(3):
            a, b = block[: 200 - dy, : 200 - dx], block[dy:, dx:]
            measured = np.mean(a * b) / np.mean(block**2)
            assert found[2 + dy, 2 + dx] == pytest.approx(measured, abs=0.02)
    np.testing.assert_allclose(found, found[::-1, ::-1], atol=0.01)


def test_positions_between_nodes_of_a_curved_map():
    box = Box(10, 20, 300, 200)
    rows, columns = lattice(box, 10)
    y, x = np.meshgrid(rows, columns, indexing="ij")

    def curve(y, x):
        return y + 1e-6 * x**2 + 3, 0.98 * x - 2e-6 * y * x

    pixel_map = PixelMap(box, rows, columns, *curve(y, x))
    found_y, found_x, area = pixel_map.at(Box(57, 33, 90, 80))
    y, x = np.mgrid[57 : 57 + 90, 33 : 33 + 80]
    exact = curve(y, x)
    np.testing.assert_allclose(found_y, exact[0], atol=2e-5)
    np.testing.assert_allclose(found_x, exact[1], atol=2e-5)
    np.testing.assert_allclose(area, 0.98 - 2e-6 * y + 2e-6 * x * 2e-6 * x, atol=1e-7)


def gaussian(sigma, side, matrix=None):
    """Gaussian of the given sigma in input pixels, seen through ``matrix``."""
    grid = np.mgrid[:side, :side].astype(float) - side // 2
    position = grid if matrix is None else np.tensordot(matrix, grid, 1)
    stamp = np.exp(-np.sum(position**2, axis=0) / 2 / sigma**2)
    return stamp / stamp.sum()


def test_warped_stamp():
    stamp = warped_stamp(gaussian(2.0, 31), TURN)
    assert stamp.shape[0] % 2
    expected = gaussian(2.0, stamp.shape[0], TURN)
    np.testing.assert_allclose(stamp, expected, atol=4e-3 * expected.max())
    np.testing.assert_allclose(
        warped_stamp(gaussian(2.0, 31), np.eye(2)), gaussian(2.0, 31), atol=1e-9
    )


@pytest.mark.parametrize("fwhm", [3.0, 4.5])
def test_warped_stamp_is_the_mean_of_warped_stars(rng, fwhm):
    """Stars anywhere in an input pixel, each at the centre of an output pixel."""
    sigma, side, half = fwhm / 2.3548, 61, 9
    y, x = np.mgrid[:side, :side]
    total = np.zeros((2 * half + 1, 2 * half + 1))
    for _ in range(200):
        centre = side // 2 + rng.uniform(-0.5, 0.5, 2)
        star = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 2 / sigma**2)
        box = Box(-half, -half, 2 * half + 1, 2 * half + 1)
        total += run(star, linear_map(box, TURN, centre)).image
    stamp = warped_stamp(gaussian(sigma, 31), TURN)
    middle = stamp.shape[0] // 2
    stamp = stamp[middle - half : middle + half + 1, middle - half : middle + half + 1]
    error = np.abs(total / total.sum() - stamp / stamp.sum()).max() / stamp.max()
    assert error < 1e-3


def test_a_mere_shift_keeps_its_place_in_the_pixel():
    """The stamp is that of every star, which is not the mean over places."""
    y, x = np.mgrid[:31, :31] - 15
    star = np.exp(-((y - 0.5) ** 2 + x**2) / 2 / 1.3**2)
    box = Box(-9, -9, 19, 19)
    image = run(star, linear_map(box, np.eye(2), (15.5, 15.0))).image.astype(float)
    stamp = warped_stamp(gaussian(1.3, 31), np.eye(2), phase=np.array([0.5, 0.0]))[6:25, 6:25]
    np.testing.assert_allclose(image / image.sum(), stamp, atol=1e-3 * stamp.max())


def test_warped_psf_is_a_stamp_or_a_lattice():
    box = Box(0, 0, 400, 300)
    same = warped_psf(StampPsf(gaussian(2.0, 25)), linear_map(box, TURN, (5, 5)), (0, 0), 128)
    assert isinstance(same, StampPsf)
    nodes = np.array([-200.0, 100, 400, 700])
    stamps = np.stack([gaussian(2 + 0.1 * k, 25) for k in range(4)])[:, None]
    varying = GridPsf(stamps, nodes, np.array([0.0]))
    lattice_psf = warped_psf(varying, linear_map(box, np.eye(2), (0, 0)), (30, 0), 128)
    assert isinstance(lattice_psf, GridPsf)
    assert np.diff(lattice_psf.y).max() <= 128
    np.testing.assert_allclose(lattice_psf.at(100, 50), varying.at(130, 50), atol=1e-5)


def test_part_that_an_outline_covers():
    points = np.array([[3.2, 9.9, np.nan], [-5.0, 50.2, 7]])
    assert covered(points, Box(0, 0, 8, 40)) == Box(3, 0, 5, 40)
    assert covered(np.full((2, 3), np.nan), Box(0, 0, 8, 40)).area == 0


# bad input


def test_singular_map():
    with pytest.raises(FormatError, match="onto a line"):
        warped_stamp(gaussian(2.0, 15), np.array([[1.0, 1.0], [1.0, 1.0]]))


def test_map_without_positions():
    pixel_map = linear_map(Box(0, 0, 50, 50), np.eye(2), (np.nan, 0))
    with pytest.raises(FormatError, match="no sky positions"):
        warped_psf(StampPsf(gaussian(2.0, 15)), pixel_map, (0, 0), 64)
