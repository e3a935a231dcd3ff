"""Fields of images: the separable form that tiles use equals the evaluation at a position."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from coblend.core.errors import FormatError
from coblend.core.psf.fields import (
    CellField,
    ChebyshevField,
    LatticeField,
    exponents,
    n_terms,
    order_of,
    principal_images,
)

DOMAIN = (99.5, 299.5, -0.5, 79.5)


def field(rng: np.random.Generator, n_basis: int, order: int) -> ChebyshevField:
    return ChebyshevField(
        rng.normal(size=(n_basis, 5, 5)), rng.normal(size=(n_basis, n_terms(order))), DOMAIN
    )


def test_terms_are_ordered_by_degree_then_by_the_power_of_y():
    px, py = exponents(2)
    assert list(zip(px, py, strict=True)) == [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    assert [order_of(n_terms(o)) for o in range(12)] == list(range(12))


@pytest.mark.parametrize(("n_basis", "order"), [(3, 2), (27, 2), (1, 0), (4, 5)])
def test_evaluation_is_the_documented_formula(rng, n_basis, order):
    """Also where one image per term replaces more basis images than terms."""
    made = field(rng, n_basis, order)
    y, x = 31.7, 222.2
    xi, eta = (2 * x - 399) / 200, (2 * y - 79) / 80
    expected = np.zeros((5, 5))
    for b in range(n_basis):
        for t, (i, j) in enumerate(zip(*exponents(order), strict=True)):
            term = chebyshev.chebval(xi, [0] * i + [1]) * chebyshev.chebval(eta, [0] * j + [1])
            expected += made.coefficients[b, t] * term * made.basis[b]
    np.testing.assert_allclose(made.at_many([y], [x])[0], expected, atol=1e-12)
    basis, matrices = made.separable()
    assert len(basis) == min(n_basis, n_terms(order))
    weights = np.einsum("ni,bij,nj->b", made.rows([y]), matrices, made.columns([x]))
    np.testing.assert_allclose(np.tensordot(weights, basis, 1), expected, atol=1e-12)


def test_separable_form_of_a_lattice_keeps_its_accuracy(rng):
    y, x = np.arange(7) * 10.0, np.arange(5) * 25.0
    smooth = np.cos(y[:, None] / 40) + np.sin(x[None, :] / 60)
    images = smooth[:, :, None, None] * rng.normal(size=(5, 5)) + rng.normal(size=(5, 5))
    lattice = LatticeField(images, y, x)
    basis, matrices = lattice.separable()
    assert len(basis) == 2  # the mean and one image that varies
    weights = np.einsum("ni,bij,nj->nb", lattice.rows([33.3]), matrices, lattice.columns([71.0]))
    np.testing.assert_allclose(
        np.tensordot(weights, basis, 1), lattice.at_many([33.3], [71.0]), atol=1e-12
    )


def test_principal_images_leave_no_more_than_asked(rng):
    images = rng.normal(size=(20, 5, 5)) * 0.5 ** np.arange(20)[:, None, None]
    for tolerance in (0.3, 0.03, 1e-3):
        basis, weights = principal_images(images, tolerance, 20)
        left = images - np.tensordot(weights, basis, 1)
        assert np.linalg.norm(left) <= tolerance * np.linalg.norm(images)
        fewer = images - np.tensordot(weights[:, :-1], basis[:-1], 1)
        assert np.linalg.norm(fewer) > tolerance * np.linalg.norm(images)
    assert len(principal_images(images, 0.0, 3)[0]) == 4


def test_a_constant_field_is_constant():
    image = np.arange(9.0).reshape(3, 3)
    constant = ChebyshevField.of_constant(image)
    assert constant.constant
    np.testing.assert_array_equal(constant.at_many([5, -7e3], [1e5, 2])[1], image)


def test_bad_fields(rng):
    good = field(rng, 3, 2)
    with pytest.raises(FormatError, match="odd equal sides"):
        ChebyshevField(np.ones((1, 4, 4)), np.ones((1, 1)), DOMAIN)
    with pytest.raises(FormatError, match="not all finite"):
        ChebyshevField(np.full((1, 3, 3), np.inf), np.ones((1, 1)), DOMAIN)
    with pytest.raises(FormatError, match="not all finite"):
        ChebyshevField(np.ones((1, 3, 3)), np.full((1, 1), np.nan), DOMAIN)
    with pytest.raises(FormatError, match="3 basis images"):
        ChebyshevField(good.basis, good.coefficients[:2], DOMAIN)
    with pytest.raises(FormatError, match="5 terms"):
        ChebyshevField(good.basis, good.coefficients[:, :5], DOMAIN)
    with pytest.raises(FormatError, match="is empty"):
        ChebyshevField(good.basis, good.coefficients, (5.0, 5.0, 0.0, 1.0))
    with pytest.raises(FormatError, match="2 centres"):
        CellField(good.basis, np.zeros(2), np.zeros(2))
