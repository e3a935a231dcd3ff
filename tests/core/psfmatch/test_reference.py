"""The reference system's own fit, faults included: row A1 of the design's table, its sizes."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import ParameterError
from coblend.core.params.match import MatchParams
from coblend.core.psf.resample import resized
from coblend.core.psfmatch.reference import fit_reference, grown_cells, stamp_side
from coblend.core.psfmatch.transform import residual

BOX = Box(0, 0, 500, 500)


def reference(**changes) -> MatchParams:
    return MatchParams(**(MatchParams.PRESETS["reference"] | changes))


@pytest.mark.parametrize(
    ("pair", "maximum", "total", "noise"),
    [
        ("gaussian", 2.2e-6, 3.6e-6, 0.0291),
        ("moffat", 1.4e-2, 2.1e-2, 0.0549),
        ("elliptical gaussian", 3.8e-4, 1.2e-3, 0.1400),
        ("elliptical moffat", 4.0e-3, 7.2e-3, 0.1425),
        ("r", 1.3e-2, 2.1e-2, 0.0481),
        ("i", 5.2e-3, 1.4e-2, 0.0751),
        ("z", 7.1e-3, 1.4e-2, 0.0548),
        ("y", 8.7e-3, 2.5e-2, 0.1608),
    ],
)
def test_row_a1(pairs, pair, maximum, total, noise):
    source, target = pairs[pair]

    def both(y, x):
        return (np.broadcast_to(p, (len(y), *p.shape)) for p in (source, target))

    field = fit_reference(both, BOX, reference(), constant=True)
    kernel = field.at_many([0.0], [0.0])[0]
    left = np.abs(resized(residual(kernel, source, target), 43))
    assert left.max() / target.max() == pytest.approx(maximum, rel=0.1)
    assert left.sum() == pytest.approx(total, rel=0.1)
    assert np.sum(kernel**2) == pytest.approx(noise, rel=0.02)


def test_one_node_or_many_give_a_constant_psf_the_same_kernel(pairs):
    source, target = pairs["i"]

    def both(y, x):
        return (np.broadcast_to(p, (len(y), *p.shape)) for p in (source, target))

    one = fit_reference(both, BOX, reference(), constant=True)
    many = fit_reference(both, BOX, reference(), constant=False)
    assert many.order == 2
    expected = one.at_many([0.0], [0.0])[0]
    found = many.at_many([100.0, 400.0], [50.0, 300.0])
    np.testing.assert_allclose(found, [expected] * 2, atol=2e-3 * expected.max())


def test_varying_psf_leaves_two_percent(field_f, wide_moffat):
    """Order 2 is not enough for field F: 1.1e-2 in the middle of the field, 2.5e-2 at worst."""
    psf = field_f(Box(0, 0, 512, 512))

    def both(y, x):
        inside = np.clip(y, 0, 511), np.clip(x, 0, 511)
        return psf.at_many(*inside), wide_moffat.at_many(y, x)

    field = fit_reference(both, psf.box, reference(cell_size=64), constant=False)
    y, x = np.random.default_rng(1).uniform(40, 470, (2, 40))
    source, target = both(y, x)
    left = np.abs(residual(field.at_many(y, x), source, target)).max(axis=(1, 2)) / target[0].max()
    assert 5e-3 < np.median(left) < 2e-2
    assert 1e-2 < left.max() < 4e-2
    np.testing.assert_allclose(field.at_many(y, x).sum(axis=(1, 2)), 1, atol=1e-10)


def test_cells_cover_the_grown_box():
    """A 4000 x 4000 image gives 33 x 33 nodes."""
    y, x = grown_cells(Box(10, 20, 4000, 4000), 128)
    assert len(y) == 33 * 33
    assert y.mean() == pytest.approx(10 + 1999.5)
    assert x.mean() == pytest.approx(20 + 1999.5)
    assert y.min() > 10 - 128


@pytest.mark.parametrize(
    ("own", "changes", "expected"),
    [
        (11, {"kernel_size": 9}, 13),
        (11, {"kernel_size": 21}, 31),
        (43, {"kernel_size": 21}, 43),
        (11, {"kernel_size": 9, "auto_pad_psf": False}, 11),
        (11, {"kernel_size": 9, "auto_pad_psf": False, "pad_psf_by": 2}, 13),
        (11, {"kernel_size": 9, "auto_pad_psf": False, "pad_psf_by": 4}, 15),
    ],
)
def test_padding_of_the_stamps(own, changes, expected):
    assert stamp_side(own, reference(**changes)) == expected


def test_kernels_that_do_not_fit_are_refused_with_three_remedies():
    with pytest.raises(ParameterError, match=r"(?s)11 pixels does not.*kernel_size 9.*auto_pad_psf"
                       ".*pad_psf_by"):  # fmt: skip
        stamp_side(11, reference(kernel_size=11, auto_pad_psf=False))
    for odd in (1, 3, 5):
        with pytest.raises(ParameterError, match="must be even"):
            reference(pad_psf_by=odd)
    with pytest.raises(ParameterError, match="needs method al"):
        reference(method="delta")
