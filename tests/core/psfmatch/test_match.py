"""Matching models: constant, varying, cells; identity, deconvolution, sums, sizes, advice."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError, ParameterError
from coblend.core.params.match import MatchParams
from coblend.core.psf import AnalyticPsf, CellPsf, GridPsf, PolyPsf, StampPsf
from coblend.core.psf.fields import CellField, LatticeField
from coblend.core.psf.moments import FWHM_PER_SIGMA, adaptive_moments
from coblend.core.psfmatch.common_reference import common_reference, text_form
from coblend.core.psfmatch.convolve import convolve
from coblend.core.psfmatch.diagnose import DECONVOLUTION
from coblend.core.psfmatch.match import match_models
from coblend.core.psfmatch.transform import residual

BOX = Box(30, 40, 600, 600)


def gaussian(sigma: float, side: int = 43) -> AnalyticPsf:
    return AnalyticPsf("GAUSSIAN", sigma * FWHM_PER_SIGMA, integrated=False, size=side)


@pytest.fixture(scope="module")
def matched_field(field_f, wide_moffat):
    """Field F over 1024 x 1024 pixels at the default options."""
    psf = field_f(Box(0, 0, 1024, 1024))
    return psf, match_models(psf, wide_moffat, psf.box, MatchParams())


def test_constant_pair(pairs):
    source, target = (StampPsf(p) for p in pairs["i"])
    match = match_models(source, target, BOX, MatchParams())
    assert match.status == "FULL"
    assert match.kernel.side == 41
    assert len(match.nodes) == 1
    assert match.worst <= 1e-3
    assert match.warnings == ()
    kernel = match.kernel.at_many([100], [100])[0]
    left = residual(kernel, source.stamp, target.stamp)
    assert match.worst == pytest.approx(np.abs(left).max() / target.stamp.max())
    row = match.nodes[0]
    assert row["noise_gain"] == pytest.approx(np.sum(kernel**2))
    assert row["sigma_sci"] == pytest.approx(1.606, abs=1e-3)
    assert row["max_gain"] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(
        match.achieved.at(0, 0)[20:-20, 20:-20], target.stamp, atol=1.1e-3 * target.stamp.max()
    )


def test_stars_of_a_varying_psf_end_up_with_the_reference(matched_field, wide_moffat):
    """Acceptance: worst star 1.5e-3 of the peak, its sum 2.5e-3, flux within 5e-5."""
    psf, match = matched_field
    image = np.zeros(psf.box.shape, np.float32)
    places = np.linspace(60, 963, 9).astype(int)
    for y in places:
        for x in places:
            image[y - 21 : y + 22, x - 21 : x + 22] += psf.at(y, x)
    out = convolve(image, match.kernel, psf.box)
    target = wide_moffat.stamp()
    for y in places:
        for x in places:
            left = np.abs(out[y - 21 : y + 22, x - 21 : x + 22] - target)
            assert left.max() <= 1.5e-3 * target.max()
            assert left.sum() <= 2.5e-3
            flux = out[y - 45 : y + 46, x - 45 : x + 46].sum(dtype=float)
            assert flux == pytest.approx(1, abs=5e-5)


def test_varying_match_needs_few_images_and_reports_itself(matched_field):
    psf, match = matched_field
    assert match.status == "FULL"
    assert match.kernel.order >= 4
    assert len(match.kernel.basis) <= 13
    assert len(match.nodes) == 36
    y, x = np.random.default_rng(2).uniform(20, 1000, (2, 20))
    achieved = match.achieved
    assert isinstance(achieved, PolyPsf)
    from coblend.core.psfmatch.transform import convolved

    expected = convolved(psf.at_many(y, x), match.kernel.at_many(y, x))
    np.testing.assert_allclose(achieved.at_many(y, x), expected, atol=1e-3 * expected.max())


@pytest.mark.parametrize(
    ("method", "order"),
    [("delta", 0), ("delta", 1), ("delta", 3), ("delta", 8), ("al", 2), ("al-extended", 4)],
)
def test_the_sum_of_the_kernel_is_exact_everywhere(field_f, wide_moffat, method, order):
    psf = field_f(Box(0, 0, 300, 300))
    options = {"method": method, "spatial_order": order, "regularization": 1e-4, "nodes": 5}
    y, x = np.random.default_rng(0).uniform(0, 300, (2, 100))
    side = {"kernel_size": 15}
    one = match_models(psf, wide_moffat, psf.box, MatchParams(**options, **side)).kernel
    np.testing.assert_allclose(one.at_many(y, x).sum(axis=(1, 2)), 1, atol=1e-10)
    scaled = match_models(
        psf, wide_moffat, psf.box, MatchParams(**options, **side, kernel_sum=2.7)
    ).kernel
    np.testing.assert_allclose(scaled.at_many(y, x) / 2.7, one.at_many(y, x), atol=1e-12)


def test_equal_psfs_leave_the_image_alone(pairs):
    psf = StampPsf(pairs["i"][0])
    match = match_models(psf, psf, BOX, MatchParams(kernel_sum=0.5))
    assert match.status == "IDENTITY"
    np.testing.assert_array_equal(match.kernel.at_many([1], [1]), [[[0.5]]])
    assert match.nodes["noise_gain"] == 1


def test_a_fixed_order_that_is_too_low_is_announced(field_f, wide_moffat):
    psf = field_f(Box(0, 0, 300, 300))
    params = MatchParams(spatial_order=2, regularization=1e-4, kernel_size=31)
    match = match_models(psf, wide_moffat, psf.box, params)
    assert match.status == "PARTIAL"
    assert 1e-2 < match.worst < 4e-2
    assert "leave spatial_order unset or raise it" in match.warnings[0]


def test_cells_get_one_kernel_each_and_equal_cells_the_same(pairs):
    stamps = np.stack([pairs["r"][0], pairs["i"][0], pairs["r"][0], pairs["z"][0]])
    psf = CellPsf(stamps, [100, 100, 400, 9000], [100, 400, 400, 9000])
    match = match_models(psf, StampPsf(pairs["r"][1]), BOX, MatchParams(kernel_size=31))
    assert isinstance(match.kernel, CellField)
    assert len(match.nodes) == 3  # the fourth cell owns no pixel of the box
    first, second, third = match.kernel.images
    np.testing.assert_array_equal(first, third)
    assert np.abs(first - second).max() > 1e-3
    assert isinstance(match.achieved, CellPsf)
    assert match.nodes["max_residual"].max() == match.worst


def test_cells_of_a_region_map_are_all_matched(pairs):
    stamps = np.stack([pairs["r"][0], pairs["i"][0]])
    psf = CellPsf(stamps, [0, 0], [0, 1], regions=np.array([3, 8]))
    match = match_models(psf, StampPsf(pairs["r"][1]), BOX, MatchParams(kernel_size=31))
    assert list(match.nodes["region"]) == [3, 8]
    assert len(match.kernel.images) == 2


@pytest.mark.slow
def test_a_psf_that_no_polynomial_follows_gets_a_lattice(pairs):
    """A lattice PSF with a jump between two of its columns."""
    narrow, wide = AnalyticPsf("MOFFAT", 3.0, size=31).stamp(), AnalyticPsf("MOFFAT", 3.6, size=31)
    stamps = np.stack([narrow if i < 4 else wide.stamp() for _ in range(8) for i in range(8)])
    nodes = np.linspace(30, 629, 8)
    psf = GridPsf(stamps.reshape(8, 8, 31, 31), nodes, nodes + 10, "linear")
    params = MatchParams(kernel_size=21, regularization=1e-3)
    match = match_models(psf, AnalyticPsf("MOFFAT", 4.5, size=31), BOX, params)
    assert "not smooth" in match.warnings[0]
    assert isinstance(match.kernel, LatticeField)
    np.testing.assert_allclose(
        match.kernel.at_many([99, 500], [300, 70]).sum(axis=(1, 2)), 1, atol=1e-10
    )


def test_recentring_takes_out_the_offset_of_the_stamps(pairs):
    from coblend.core.psf.resample import shifted

    source = StampPsf(shifted(pairs["r"][0], 0.2, -0.3))
    kernels = [
        match_models(source, StampPsf(pairs["r"][1]), BOX, MatchParams(recenter_psf=r))
        for r in (False, True)
    ]
    offset = [np.hypot(m.nodes["kernel_dy"][0], m.nodes["kernel_dx"][0]) for m in kernels]
    assert offset[0] == pytest.approx(np.hypot(0.2, 0.3), abs=0.05)
    assert offset[1] < 0.1


# Deconvolution


def test_deconvolution_stops_at_the_limits_and_names_a_reference():
    match = match_models(gaussian(2.6), gaussian(2.0), BOX, MatchParams())
    assert match.status == "PARTIAL"
    assert match.nodes["noise_gain"][0] <= 1.0
    assert match.nodes["max_gain"][0] <= 3.0
    assert 0.05 < match.worst < 0.2
    assert match.nodes["status"][0] == DECONVOLUTION
    text = " ".join(match.warnings)
    assert "is sharper than the PSF" in text
    assert f"FWHM {2.6 * FWHM_PER_SIGMA:.2f} px or more" in text


def test_deconvolution_can_be_refused_or_allowed():
    with pytest.raises(ParameterError, match=r"(?s)deconvolution is refused.*or more avoids it"):
        match_models(gaussian(2.6), gaussian(2.0), BOX, MatchParams(deconvolution="error"))
    allowed = match_models(gaussian(2.6), gaussian(2.0), BOX, MatchParams(deconvolution="allow"))
    assert allowed.nodes["noise_gain"][0] > 5


# A reference for all


def test_common_reference_is_reached_by_all_bands(pairs):
    psfs = [StampPsf(pairs[b][0]) for b in "rizy"] + [StampPsf(pairs["r"][1])]
    reference = common_reference([(p, BOX) for p in psfs], 1e-3)
    widest = max(adaptive_moments(p.stamp).fwhm[0] for p in psfs)
    found = adaptive_moments(reference.stamp()).fwhm[0]
    assert widest <= found <= 1.15 * widest
    assert text_form(reference) == f"moffat:fwhm={reference.fwhm:g},beta={reference.beta:g}"
    for psf in psfs[-2:]:
        match = match_models(psf, reference, BOX, MatchParams())
        assert match.status == "FULL"
        assert match.nodes["max_gain"][0] < 2
        assert match.nodes["noise_gain"][0] < 0.5


def test_common_reference_of_a_round_moffat_is_close_to_itself():
    psf = AnalyticPsf("MOFFAT", 4.0, beta=3.0, integrated=False, size=43)
    reference = common_reference([(psf, BOX)], 1e-3)
    assert reference.beta == pytest.approx(3.0, abs=0.1)
    assert 4.0 <= reference.fwhm < 4.5


# Bad input


@pytest.mark.parametrize(
    ("options", "box", "message"),
    [
        ({"kernel_size": 31}, Box(0, 0, 25, 80), r"31 pixels is larger than the image of 80x25"),
        ({"kernel_size": 101}, BOX, r"(?s)101 pixels is more than twice .* 43 pixels.*85"),
    ],
)
def test_kernels_that_do_not_fit(options, box, message):
    with pytest.raises(ParameterError, match=message):
        match_models(gaussian(2.0), gaussian(2.6), box, MatchParams(**options))


@pytest.mark.parametrize("options", [{}, {"kernel_size": 3}, {"method": "al"}], ids=str)
def test_an_image_too_small_for_a_kernel(options):
    """That is said of the image, whatever kernel is asked for; 3 pixels suffice."""
    with pytest.raises(FormatError, match=r"1x320 pixels is too small .* 3 pixels"):
        match_models(gaussian(2.0), gaussian(2.6), Box(0, 0, 320, 1), MatchParams(**options))
    match = match_models(gaussian(2.0), gaussian(2.6), Box(0, 0, 320, 3), MatchParams())
    assert match.kernel.side == 3


def test_a_psf_that_is_unknown_somewhere(wide_moffat):
    images = np.stack([gaussian(2.0).stamp(43)] * 3)
    images[1] = np.nan
    cells = CellPsf(images, np.full(3, 60.0), np.array([60.0, 200.0, 300.0]))
    with pytest.raises(FormatError, match=r"unknown at x 200, y 60 \(1 of 3 places"):
        match_models(cells, wide_moffat, BOX, MatchParams())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 20}, r"(?s)20; a kernel has an odd side.*19 and 21"),
        ({"kernel_size": 1}, "odd side of 3 or more"),
        ({"al_sigmas": (1.0,)}, "differ in number"),
        ({"al_sigmas": (0.0, 1.0, 2.0)}, "al_sigmas"),
        ({"al_degrees": (9, 1, 1)}, "al_degrees"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"regularization": -1.0}, "regularization"),
        ({"max_missing": 1.5}, "0 to 1"),
        ({"method": "detla"}, "did you mean delta"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ParameterError, match=message):
        MatchParams(**options)
