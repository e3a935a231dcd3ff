"""Gaussians times polynomials: the basis, the constrained fit, the rows of the design's table."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.psf.resample import resized
from coblend.core.psfmatch.al import (
    EXTENDED_DEGREES,
    EXTENDED_RIDGE,
    EXTENDED_SIGMAS,
    al_basis,
    solve_al,
)
from coblend.core.psfmatch.transform import convolved, residual

DEFAULT = ((0.7, 1.5, 3.0), (4, 2, 2))


@pytest.mark.parametrize(
    ("side", "sigmas", "degrees", "count"),
    [
        (21, (0.7, 1.5, 3.0), (4, 2, 2), 27),
        (31, (0.7, 1.5, 3.0), (6, 4, 2), 49),
        (35, (0.4, 0.8, 1.6), (4, 2, 2), 27),
        (41, EXTENDED_SIGMAS, EXTENDED_DEGREES, 55),
    ],
)
def test_only_the_first_image_carries_flux(side, sigmas, degrees, count):
    """Also where the reference system's rule, dividing by the sum, fails (second and third)."""
    basis = al_basis(side, sigmas, degrees)
    assert basis.shape == (count, side, side)
    assert basis[0].sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(basis[1:].sum(axis=(1, 2))).max() < 1e-12
    assert np.abs((basis[1:] ** 2).sum(axis=(1, 2)) - 1).max() < 1e-12


def test_basis_spans_the_gaussians_times_monomials():
    basis = al_basis(21, *DEFAULT).reshape(27, -1)
    axis = (np.arange(21) - 10) / 10
    gaussian = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) * 100 / 1.5**2)
    for power_y, power_x in ((0, 0), (1, 1), (2, 0)):
        image = (gaussian * axis[:, None] ** power_y * axis[None, :] ** power_x).ravel()
        left = np.linalg.lstsq(basis.T, image, rcond=None)[1]
        assert left.sum() < 1e-20


def test_a_kernel_inside_the_span_is_found(rng):
    basis = al_basis(21, *DEFAULT)
    weights = rng.normal(size=26) * 0.02
    truth = basis[0] + np.tensordot(weights, basis[1:], 1)
    axis = np.arange(31) - 15
    source = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 1.2**2)
    source /= source.sum()
    kernel = solve_al(source, convolved(source, truth), basis)
    np.testing.assert_allclose(kernel, truth, atol=1e-6)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("pair", "maximum", "total", "noise"),
    [("gaussian", 1.1e-6, 3.1e-6, 0.0291), ("moffat", 2.0e-3, 1.6e-2, 0.0760),
     ("r", 2.8e-3, 1.8e-2, 0.0487), ("y", 2.7e-3, 2.1e-2, 0.1851)],
)  # fmt: skip
def test_full_domain_fit_is_row_a3(pairs, pair, maximum, total, noise):
    kernel = solve_al(*pairs[pair], al_basis(21, *DEFAULT))
    check_row(kernel, pairs[pair], maximum, total, noise)


@pytest.mark.parametrize(
    ("pair", "maximum", "total", "noise"),
    [("moffat", 6.2e-5, 1.2e-3, 0.0476), ("i", 9.5e-4, 8.1e-3, 0.0734)],
)
def test_extended_fit_is_row_a4(pairs, pair, maximum, total, noise):
    basis = al_basis(41, EXTENDED_SIGMAS, EXTENDED_DEGREES)
    kernel = solve_al(*pairs[pair], basis, EXTENDED_RIDGE)
    check_row(kernel, pairs[pair], maximum, total, noise)


def check_row(kernel, pair, maximum, total, noise):
    left = np.abs(resized(residual(kernel, *pair), 43))
    assert left.max() / pair[1].max() == pytest.approx(maximum, rel=0.05)
    assert left.sum() == pytest.approx(total, rel=0.05)
    assert np.sum(kernel**2) == pytest.approx(noise, rel=0.01)


def test_widths_and_degrees_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        al_basis(21, (1.0, 2.0), (4,))
