"""An exposure through a kernel: missing pixels, variance, mask planes, scale, regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.box import Box
from coblend.core.errors import ShapeMismatchError
from coblend.core.exposure import Exposure
from coblend.core.mask import PLANES
from coblend.core.params.match import MatchParams
from coblend.core.psf import AnalyticPsf
from coblend.core.psf.fields import CellField, ChebyshevField
from coblend.core.psfmatch.apply import apply_kernel
from coblend.core.psfmatch.missing import fill_missing
from coblend.core.psfmatch.regions import apply_by_region
from coblend.core.psfmatch.spread import grow_mask, significant_radius

NO_DATA, EDGE, INTRP = (1 << PLANES[n] for n in ("NO_DATA", "EDGE", "INTRP"))
SIDE = 15
KERNEL = ChebyshevField.of_constant(AnalyticPsf("GAUSSIAN", 4.0, size=SIDE).stamp())


def exposure(image: np.ndarray, variance: float = 1.0) -> Exposure:
    """An exposure whose NaN pixels have no data."""
    missing = ~np.isfinite(image)
    return Exposure(
        image=np.where(missing, 0, image).astype(np.float32),
        mask=np.where(missing, NO_DATA, 0).astype(np.int32),
        variance=np.where(missing, np.inf, variance).astype(np.float32),
        box=Box(50, 70, *image.shape),
    )


@pytest.fixture
def noise(rng) -> np.ndarray:
    return rng.normal(size=(90, 100))


def test_one_missing_pixel_spoils_only_itself(noise):
    """Beyond the kernel nothing changes; inside, the fill stands for the pixel; none is lost."""
    params = MatchParams(max_missing=0.2)
    whole = apply_kernel(exposure(noise), KERNEL, params)
    noise[40, 50] = np.nan
    holed = apply_kernel(exposure(noise), KERNEL, params)
    lost = ~np.isfinite(holed.exposure.variance)
    border = ~np.isfinite(whole.exposure.variance)
    assert lost[40, 50]
    assert np.count_nonzero(lost & ~border) == 1
    far = np.ones((90, 100), bool)
    far[40 - 7 : 48, 50 - 7 : 58] = False
    np.testing.assert_allclose(
        holed.exposure.image[far & ~border], whole.exposure.image[far & ~border], atol=2e-6
    )
    assert holed.exposure.mask[40, 50] & NO_DATA
    assert holed.exposure.mask[40, 51] & INTRP
    assert not holed.exposure.mask[40, 51] & NO_DATA


def test_a_bad_column_spoils_nothing_beside_it(noise):
    """Its garbage is not convolved; where the pixels were interpolated, their values are."""
    bad, intrp = 1 << PLANES["BAD"], INTRP
    mask = np.zeros(noise.shape, np.int32)
    mask[:, 50] = bad
    clean = apply_kernel(exposure(noise), KERNEL, MatchParams()).exposure
    marked = replace(exposure(noise), mask=mask | np.where(mask, intrp, 0).astype(np.int32))
    interpolated = apply_kernel(marked, KERNEL, MatchParams()).exposure
    np.testing.assert_array_equal(interpolated.image, clean.image)
    spoiled = noise.copy()
    spoiled[:, 50] = 9e4
    out = apply_kernel(replace(exposure(spoiled), mask=mask), KERNEL, MatchParams()).exposure
    good = np.isfinite(out.variance)
    assert not good[:, 50].any()
    assert good.mean() > 0.7
    assert np.abs(out.image[good]).max() < 5


def test_a_constant_image_with_holes_stays_constant(rng):
    image = np.full((128, 128), 5.0)
    image[rng.random(image.shape) < 0.01] = np.nan
    image[60:80, 30:90] = np.nan
    out = apply_kernel(exposure(image), KERNEL, MatchParams()).exposure
    good = np.isfinite(out.variance)
    assert 0.7 < good.mean() < 0.99
    np.testing.assert_allclose(out.image[good], 5.0, rtol=1e-6)
    np.testing.assert_array_equal(out.good(), good)
    assert not good[62:78, 32:88].any()


def test_strict_mode_loses_every_pixel_a_kernel_can_reach(noise):
    noise[40, 50] = np.nan
    out = apply_kernel(exposure(noise), KERNEL, MatchParams(fill="nan")).exposure
    expected = np.ones((90, 100), bool)
    expected[7:-7, 7:-7] = False
    expected[33:48, 43:58] = True
    np.testing.assert_array_equal(~np.isfinite(out.variance), expected)


def test_max_missing_bounds_the_weight_that_may_be_lost(noise):
    noise[40:43, 50:53] = np.nan
    bad = np.isnan(noise)
    kernel = KERNEL.basis[0]
    around = np.pad(bad, 7, constant_values=True).astype(float)
    share = ndimage.convolve(around, kernel)[7:-7, 7:-7]
    for limit in (0.0, 0.05, 0.3, 1.0):
        out = apply_kernel(exposure(noise), KERNEL, MatchParams(max_missing=limit)).exposure
        lost = ~np.isfinite(out.variance)
        sure = np.abs(share - limit) > 1e-6
        np.testing.assert_array_equal(lost[sure], (bad | (share > limit))[sure])


def test_edge_is_flagged_where_the_border_takes_weight():
    out = apply_kernel(exposure(np.zeros((60, 60))), KERNEL, MatchParams()).exposure
    edge = (out.mask & EDGE) > 0
    assert edge[0].all()
    assert edge[3, 30]
    assert not edge[6:-6, 6:-6].any()
    assert not np.isfinite(out.variance[0]).any()
    assert np.isfinite(out.variance[3, 30])


def test_variance_is_convolved_with_the_kernel_squared(noise):
    source = replace(exposure(noise), variance=(1 + noise**2).astype(np.float32))
    out = apply_kernel(source, KERNEL, MatchParams(max_missing=1.0)).exposure
    expected = ndimage.convolve(1 + noise**2, KERNEL.basis[0] ** 2, mode="mirror")
    np.testing.assert_allclose(out.variance, expected, rtol=1e-5)


def test_variance_never_falls_below_that_of_the_quietest_pixels(noise, rng):
    """Beside a pixel of enormous variance the kernel squared of a varying kernel is not exact."""
    axis = np.arange(SIDE) - SIDE // 2
    radius2 = axis[:, None] ** 2 + axis[None, :] ** 2
    basis = np.stack([np.exp(-0.5 * radius2 / s**2) for s in (1.5, 2.0, 1.2)])
    basis /= basis.sum(axis=(1, 2))[:, None, None]
    basis[1:] -= basis[0]
    weights = np.array([[1, 0, 0, 0, 0, 0], [0, 0.5, 0.3, 0.2, 0, 0], [0, 0, 0.4, 0.1, 0, 0.2]])
    field = ChebyshevField(basis, weights, (69.5, 169.5, 49.5, 139.5))
    source = exposure(noise)
    source.variance[45, 50] = 1e12
    out = apply_kernel(source, field, MatchParams()).exposure
    good = np.isfinite(out.variance)
    gain = np.sum(field.at_many([50, 139, 94], [70, 169, 119]) ** 2, axis=(1, 2))
    assert out.variance[good].min() >= 0.5 * gain.min()
    assert out.variance[45, 50] == pytest.approx(1e12 * field.at_many([95], [120])[0, 7, 7] ** 2,
                                                 rel=1e-3)  # fmt: skip


def test_the_sum_of_the_kernel_scales_image_and_variance(noise):
    double = ChebyshevField.of_constant(2 * KERNEL.basis[0])
    one = apply_kernel(exposure(noise), KERNEL, MatchParams()).exposure
    two = apply_kernel(exposure(noise), double, MatchParams()).exposure
    np.testing.assert_allclose(two.image, 2 * one.image, atol=1e-6)
    good = np.isfinite(one.variance)
    np.testing.assert_allclose(two.variance[good], 4 * one.variance[good], rtol=1e-6)
    np.testing.assert_array_equal(two.mask, one.mask)


def test_a_kernel_of_one_pixel_changes_nothing(noise):
    noise[5, 5] = np.nan
    source = exposure(noise, 2.0)
    out = apply_kernel(source, ChebyshevField.of_constant(np.ones((1, 1))), MatchParams())
    np.testing.assert_array_equal(out.exposure.image, source.image)
    np.testing.assert_array_equal(out.exposure.variance, source.variance)
    np.testing.assert_array_equal(out.exposure.mask, source.mask)


def test_inputs_stay_as_they_were(noise):
    noise[5, 5] = np.nan
    source = exposure(noise)
    copies = [plane.copy() for plane in (source.image, source.mask, source.variance)]
    apply_kernel(source, KERNEL, MatchParams())
    for plane, copy in zip((source.image, source.mask, source.variance), copies, strict=True):
        np.testing.assert_array_equal(plane, copy)


@pytest.mark.parametrize("spread", ["significant", "full", "none"])
def test_mask_planes_grow_as_asked(noise, spread):
    source = exposure(noise)
    source.mask[30, 40] = 1 << PLANES["CR"]
    source.mask[30, 70] = 1 << PLANES["DETECTED"]
    params = MatchParams(mask_spread=spread)
    out = apply_kernel(source, KERNEL, params)
    radius = {"none": 0, "full": 7}.get(spread, out.radius)
    assert 0 <= radius <= 7
    expected = np.zeros((90, 100), bool)
    expected[30 - radius : 31 + radius, 40 - radius : 41 + radius] = True
    np.testing.assert_array_equal((out.exposure.mask >> PLANES["CR"] & 1) > 0, expected)
    assert np.count_nonzero(out.exposure.mask >> PLANES["DETECTED"] & 1) == 1


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 8, 20])
def test_growth_equals_a_maximum_filter_of_every_plane(rng, radius):
    mask = (1 << rng.integers(0, 20, (60, 70))).astype(np.int32)
    mask[rng.random(mask.shape) > 0.01] = 0
    grown = grow_mask(mask, radius)
    for bit in range(20):
        expected = ndimage.maximum_filter(mask >> bit & 1, 2 * radius + 1, mode="constant")
        np.testing.assert_array_equal(grown >> bit & 1, expected)


def test_significant_radius_is_where_the_kernel_falls_below_the_threshold():
    kernels = np.zeros((2, 11, 11))
    kernels[:, 5, 5] = 1
    kernels[1, 5, 8] = -0.02
    kernels[0, 0, 0] = 0.009
    assert significant_radius(kernels, 0.01) == 3
    assert significant_radius(kernels, 0.005) == 5


def test_fill_is_a_weighted_mean_and_reaches_as_far_as_asked():
    image = np.full((60, 60), 3.0, np.float32)
    bad = np.zeros((60, 60), bool)
    bad[10:50, 10:50] = True
    image[bad] = -1e30
    filled, twice = fill_missing((image, 2 * image), bad, 1.5, 10)
    np.testing.assert_allclose(filled[13:47, 10:20], 3.0, rtol=1e-6)
    np.testing.assert_allclose(twice, 2 * filled, rtol=1e-6)
    assert np.abs(filled).max() < 3.1
    assert image.min() < -1e29


def test_jumps_between_cells_are_flagged_inexact(noise):
    narrow = AnalyticPsf("GAUSSIAN", 3.0, size=SIDE).stamp()
    cells = CellField(np.stack([KERNEL.basis[0], narrow, narrow]), [95, 95, 95],
                      [90, 130, 160])  # fmt: skip
    out = apply_kernel(exposure(noise), cells, MatchParams())
    inexact = (out.exposure.mask >> PLANES["INEXACT_PSF"] & 1) > 0
    assert inexact[:, 40 - out.radius : 40 + out.radius].all()
    assert not inexact[:, 75:].any()  # the last two cells have the same kernel


def test_regions_do_not_see_each_other(noise):
    """Two halves with their own kernels: each result is as if the other had no data."""
    regions = np.zeros((90, 100), np.int32)
    regions[:, 50:] = 7
    narrow = ChebyshevField.of_constant(AnalyticPsf("GAUSSIAN", 3.0, size=SIDE).stamp())
    source = exposure(noise)
    out = apply_by_region(source, {0: KERNEL, 7: narrow}, regions, MatchParams()).exposure
    left = noise.copy()
    left[:, 50:] = np.nan
    alone = apply_kernel(exposure(left), KERNEL, MatchParams()).exposure
    np.testing.assert_allclose(out.image[:, :50], alone.image[:, :50], atol=1e-6)
    np.testing.assert_array_equal(np.isfinite(out.variance)[:, :50],
                                  np.isfinite(alone.variance)[:, :50])  # fmt: skip
    other = apply_by_region(source, {0: KERNEL}, regions, MatchParams())
    assert not np.isfinite(other.exposure.variance[:, 50:]).any()
    assert (other.exposure.mask[:, 50:] & NO_DATA).all()


def test_a_region_map_of_another_shape_is_refused(noise):
    with pytest.raises(ShapeMismatchError, match="10x10 pixels, the image 100x90"):
        apply_by_region(exposure(noise), {}, np.zeros((10, 10), np.int32), MatchParams())
