"""The single-band deblender: templates, the test for stars and the shares of light."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.deblend.sdss.psftest import fit_psf, paint_psf
from coblend.core.deblend.sdss.share import share_band, share_batch
from coblend.core.deblend.sdss.stray import degenerate, stray_light, weighted
from coblend.core.deblend.sdss.templates import (
    apportion,
    monotonic,
    patched_template,
    ramped_template,
    smoothed,
    symmetric_template,
)
from coblend.core.params.deblend import DeblendParams

SHAPE = (41, 41)
ALL = np.ones(SHAPE, bool)


def galaxy(y: float, x: float, scale: float = 3.0) -> np.ndarray:
    """An exponential disk of central brightness 100."""
    rows, columns = np.indices(SHAPE)
    return 100 * np.exp(-np.hypot(rows - y, columns - x) / scale)


def test_symmetric_source_is_its_own_template() -> None:
    image = galaxy(20, 20) - 0.5
    np.testing.assert_array_equal(symmetric_template(image, ALL, 20, 20), np.maximum(image, 0))


def test_template_excludes_neighbours_and_pixels_without_partner() -> None:
    """A neighbour has no partner on the other side; nor has what is far from the peak."""
    image = galaxy(20, 12) + galaxy(20, 30, 1.5)
    template = symmetric_template(image, ALL, 20, 12)
    assert (template[:, 25:] == 0).all()
    np.testing.assert_allclose(template[20, 8:17], galaxy(20, 12)[20, 8:17], rtol=0.02)
    reflected = template[:, :25][::-1, ::-1]
    np.testing.assert_array_equal(template[:, :25], reflected)


def test_stars_of_low_signal_to_noise_are_recognised(fields, rng) -> None:
    """More than 90 % at S/N 20, at random places within the pixel."""
    psf, found = fields.gaussian(0, 0), 0
    flux = 20 * np.sqrt(4 * np.pi) * fields.SIGMA
    for _ in range(60):
        y, x = 20 + rng.uniform(-0.5, 0.5, 2)
        data = flux * paint_psf(psf, y, x, SHAPE) + rng.normal(size=SHAPE)
        found += fit_psf(data, np.ones(SHAPE), psf, np.array([[20, 20]]), 0).is_star
    assert found > 54


def test_shift_has_the_right_sign(fields, rng) -> None:
    """A star at (+0.3, -0.2) px is found there to 0.05 px; the old formula goes the other way."""
    psf = fields.gaussian(0, 0)
    data = 3000 * paint_psf(psf, 19.8, 20.3, SHAPE) + rng.normal(size=SHAPE)
    star = fit_psf(data, np.ones(SHAPE), psf, np.array([[20, 20]]), 0)
    assert star.is_star
    assert abs(star.y - 19.8) < 0.05
    assert abs(star.x - 20.3) < 0.05
    assert abs(star.flux / 3000 - 1) < 0.03


def test_galaxy_is_no_star(fields, rng) -> None:
    data = galaxy(20, 20, 4) + rng.normal(size=SHAPE)
    psf = fields.gaussian(0, 0)
    assert not fit_psf(data, np.ones(SHAPE), psf, np.array([[20, 20]]), 0).is_star


def test_light_is_conserved_and_goes_to_its_owner(fields, rng) -> None:
    """Two galaxies 16 px apart, fluxes 1:1 by construction; the shares add up to the image."""
    image = galaxy(20, 12) + galaxy(20, 28) + 0.3 * rng.normal(size=SHAPE)
    psf = fields.gaussian(0, 0)
    shared = share_band(
        image, np.full(SHAPE, 11.0), ALL, psf, np.array([[20, 12], [20, 28]]), DeblendParams()
    )
    assert not shared.is_star.any()
    light = shared.light
    lit = (light != 0).any(0)
    np.testing.assert_allclose(light.sum(0)[lit], image[lit], rtol=1e-6, atol=1e-9)
    for i, truth in enumerate((galaxy(20, 12), galaxy(20, 28))):
        assert abs(light[i].sum() / truth.sum() - 1) < 0.08


def test_errors_are_those_of_the_shares(scenery) -> None:
    """One star: the noise of its pixels. Two: each has its share of it, the faint one little."""
    params = DeblendParams(algorithm="sdss")
    lone = scenery([(25, 25)], np.full((1, 3), 4000.0)).batch
    (one,) = share_batch(lone, params)
    pixels = (one.light[0] != 0).sum((1, 2))
    np.testing.assert_allclose(one.objects["model_flux_err"][0], np.sqrt(pixels), rtol=1e-6)
    pair = scenery([(25, 21), (25, 29)], np.array([[40000.0] * 3, [2000.0] * 3])).batch
    (two,) = share_batch(pair, params)
    error = two.objects["model_flux_err"]
    pixels = (two.light != 0).any(0).sum((1, 2))
    assert (np.square(error).sum(0) < pixels).all()
    alone = (two.light[1] != 0).sum((1, 2))
    assert (error[1] < 0.9 * np.sqrt(alone)).all()


def test_ramp_restores_a_source_cut_by_the_border(fields) -> None:
    """The footprint ends 4 px from the peak: reflection alone loses the far side."""
    image = galaxy(20, 20)
    footprint = np.indices(SHAPE)[1] >= 16
    plain = symmetric_template(image, footprint, 20, 20)
    ramped = ramped_template(image, footprint, plain, fields.gaussian(0, 0), 7, 20, 20)
    assert ramped.sum() > 1.05 * plain.sum()
    assert (ramped <= np.maximum(image, 0) + 1e-12).all()
    assert (ramped[~footprint] == 0).all()


def test_median_and_monotonic_keep_a_smooth_monotonic_template() -> None:
    image = galaxy(20, 20, 8)
    np.testing.assert_allclose(monotonic(image, 20, 20), image, rtol=1e-12)
    spike = image.copy()
    spike[20, 30] += 500
    assert monotonic(smoothed(spike), 20, 20)[20, 30] <= image[20, 29]
    small = np.ones((3, 3))
    assert smoothed(small) is small


def test_shares_of_empty_templates_are_zero() -> None:
    templates = np.zeros((2, 4, 4))
    templates[0, 1, 1], templates[1, 2, 2] = -1, 3
    light = apportion(np.full((4, 4), 7.0), templates)
    assert light[0].sum() == 0
    assert light[1].sum() == 7


def test_patch_completes_what_has_no_partner() -> None:
    """Beyond the reflection of the box the template is the image, inside it stays."""
    image = galaxy(20, 8)
    template = symmetric_template(image, ALL, 20, 8)
    patched = patched_template(image, ALL, template, 20, 8)
    np.testing.assert_array_equal(patched[:, :17], template[:, :17])
    np.testing.assert_array_equal(patched[:, 17:], image[:, 17:])


STRAY = np.zeros((1, 9))
STRAY[0, 4] = 60.0
NEAR, FAR = np.zeros((2, 1, 9))
NEAR[0, :4], FAR[0, 7:] = 5, 1  # the stray pixel is 1 from one template and 3 from the other
ENDS = np.array([[0, 0], [0, 8]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("trim", [0, 0]),
        ("r-to-peak", [30, 30]),
        ("r-to-footprint", [50, 10]),
        ("nearest-footprint", [60, 0]),
    ],
)
def test_stray_light_goes_by_distance(rule: str, expected: list[float]) -> None:
    none = np.zeros(2, bool)
    params = DeblendParams(stray_flux=rule)
    light = stray_light(STRAY, np.stack([NEAR, FAR]), none, ENDS, params)
    assert light[:, 0, 4].tolist() == pytest.approx(expected)
    assert light.sum() == pytest.approx(sum(expected))


@pytest.mark.parametrize(
    ("stars", "rule", "expected"),
    [
        ([True, False], "necessary", [0, 60]),
        ([True, True], "necessary", [30, 30]),
        ([True, False], "always", [30, 30]),
        ([True, True], "never", [0, 0]),
    ],
)
def test_stars_get_stray_light_when_told(stars, rule: str, expected: list[float]) -> None:
    params = DeblendParams(stray_flux="r-to-peak", stray_to_stars=rule)
    light = stray_light(STRAY, np.stack([NEAR, FAR]), np.array(stars), ENDS, params)
    assert light[:, 0, 4].tolist() == pytest.approx(expected)


def test_small_shares_of_stray_light_are_dropped() -> None:
    params = DeblendParams(stray_flux="r-to-footprint", stray_least=0.2)
    light = stray_light(STRAY, np.stack([NEAR, FAR]), np.zeros(2, bool), ENDS, params)
    assert light[:, 0, 4].tolist() == pytest.approx([60, 0])


def test_weights_make_templates_add_up_to_the_image(rng) -> None:
    templates = np.abs(rng.normal(size=(3, 8, 8)))
    image = np.einsum("n,nyx->yx", [2.0, 0.5, 0.0], templates)
    np.testing.assert_allclose(weighted(image, templates).sum(0), image, rtol=1e-9)


def test_one_of_two_templates_alike_is_dropped() -> None:
    """A star loses against a galaxy, the fainter against the brighter, distant ones stay."""
    same, other = galaxy(20, 10), galaxy(20, 34)
    templates = np.stack([0.5 * same, same, other])
    assert degenerate(templates, np.zeros(3, bool), 0.5).tolist() == [True, False, False]
    stars = np.array([False, True, False])
    assert degenerate(templates, stars, 0.5).tolist() == [False, True, False]
    assert not degenerate(templates, stars, 1.0).any()


def test_options_of_the_chain(fields) -> None:
    """Dropped templates leave their light to the others; stray light completes the image."""
    image = galaxy(20, 12) + galaxy(20, 14) + galaxy(20, 30)
    peaks = np.array([[20, 12], [20, 14], [20, 30]])
    params = DeblendParams(
        remove_degenerate=True, weight_templates=True, stray_flux="r-to-footprint",
        edge_handling="noclip",
    )  # fmt: skip
    shared = share_band(image, np.ones(SHAPE), ALL, fields.gaussian(0, 0), peaks, params)
    assert shared.dropped.tolist().count(True) == 1
    np.testing.assert_allclose(shared.light.sum(0), image, rtol=1e-9)


@pytest.mark.parametrize("weight", [0.0, np.nan])
def test_peak_without_usable_pixels_is_no_star(fields, weight) -> None:
    psf = fields.gaussian(0, 0)
    star = fit_psf(np.ones(SHAPE), np.full(SHAPE, weight), psf, np.array([[20, 20]]), 0)
    assert not star.is_star
