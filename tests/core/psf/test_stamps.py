"""Stamps, lattices and cells: what each position gets."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.psf import AnalyticPsf, CellPsf, GridPsf, PolyPsf, Psf, PsfexPsf, StampPsf
from coblend.core.psf.coadd import CoaddPsf, InputPsf
from coblend.core.psf.fields import ChebyshevField
from coblend.core.psf.stamp import normalized


def moffat(fwhm: float, side: int = 25) -> np.ndarray:
    return AnalyticPsf("MOFFAT", fwhm, size=side).stamp()


@pytest.fixture
def stamps() -> np.ndarray:
    return np.stack([moffat(3.0 + 0.1 * i) for i in range(30)])


def test_stamp_is_scaled_to_unit_sum_and_the_input_left_alone():
    given = moffat(4.0) * 7
    copy = given.copy()
    psf = StampPsf(given)
    assert psf.at(3, 4).sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_array_equal(given, copy)
    assert psf.constant
    assert psf.side == 25
    assert isinstance(psf, Psf)


def test_a_unit_stamp_stays_bit_for_bit():
    stamp = moffat(4.0)
    np.testing.assert_array_equal(normalized(normalized(stamp)), normalized(stamp))


def test_a_stamp_given_out_may_be_changed():
    psf = StampPsf(moffat(4.0))
    psf.at(0, 0)[:] = 0
    assert psf.at(0, 0).sum() == pytest.approx(1)


@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_lattice_returns_its_nodes_at_its_nodes(stamps, interpolation):
    psf = GridPsf(stamps.reshape(5, 6, 25, 25), np.arange(5) * 50.0, np.arange(6) * 40.0 + 7,
                  interpolation)  # fmt: skip
    y, x = np.meshgrid(psf.y, psf.x, indexing="ij")
    np.testing.assert_allclose(psf.at_many(y, x), stamps, atol=1e-14)
    assert not psf.constant


def test_linear_lattice_is_the_mean_of_its_four_neighbours(stamps):
    psf = GridPsf(stamps.reshape(5, 6, 25, 25), np.arange(5.0), np.arange(6.0), "linear")
    expected = (stamps[0] + stamps[1] + stamps[6] + stamps[7]) / 4
    np.testing.assert_allclose(psf.at(0.5, 0.5), expected, atol=1e-15)


def test_cubic_lattice_follows_a_cubic_exactly():
    """Pixels that are cubics of the position: not-a-knot splines reproduce them."""
    base, slope = moffat(3.0), moffat(5.0) - moffat(3.0)
    y, x = np.arange(6) * 10.0, np.arange(5) * 20.0

    def weight(y: float, x: float) -> np.ndarray:
        return np.asarray((y / 50) ** 3 - 0.3 * (x / 80) ** 2 + 0.1)

    grid = weight(y[:, None], x[None, :])[:, :, None, None] * slope + base
    psf = GridPsf(grid, y, x)
    expected = base + weight(23.7, 51.2) * slope
    np.testing.assert_allclose(psf.at(23.7, 51.2), expected / expected.sum(), atol=1e-12)


def test_outside_the_lattice_the_edge_holds(stamps):
    psf = GridPsf(stamps.reshape(5, 6, 25, 25), np.arange(5.0), np.arange(6.0))
    np.testing.assert_allclose(psf.at(-40, 99), stamps[5], atol=1e-14)


def test_an_unknown_node_is_unknown_around_it_and_hardly_felt_elsewhere():
    """NaN where it is the nearest node; a node away, the smooth field is as with it."""
    fwhm = 3 + 0.02 * np.arange(8)[:, None] + 0.01 * np.arange(8)
    grid = np.array([[moffat(w) for w in row] for row in fwhm])
    whole = GridPsf(grid, np.arange(8) * 50.0, np.arange(8) * 50.0)
    grid[3, 4] = np.nan
    holed = GridPsf(grid, whole.y, whole.x)
    near = [(150, 200), (126, 224), (174, 176)]
    assert np.isnan(holed.at_many(*np.transpose(near))).all()
    away = np.transpose([(124, 200), (150, 226), (100, 100), (300, 20)])
    np.testing.assert_allclose(holed.at_many(*away), whole.at_many(*away), atol=2e-5)
    with pytest.raises(FormatError, match="non-finite"):
        GridPsf(np.full_like(grid, np.nan), whole.y, whole.x)


def test_cells_give_the_stamp_of_the_nearest_centre(stamps, rng):
    y, x = rng.uniform(0, 100, (2, 30))
    psf = CellPsf(stamps, y, x)
    py, px = rng.uniform(0, 100, (2, 50))
    nearest = np.argmin((py[:, None] - y) ** 2 + (px[:, None] - x) ** 2, axis=1)
    np.testing.assert_array_equal(psf.at_many(py, px), stamps[nearest])
    np.testing.assert_array_equal(psf.field.cell_of(py, px), nearest)


def test_linear_cells_follow_a_plane_and_stay_defined_outside(rng):
    base, slope = moffat(3.0), moffat(5.0) - moffat(3.0)
    y, x = rng.uniform(0, 100, (2, 40))
    psf = CellPsf(base + ((y + 2 * x) / 300)[:, None, None] * slope, y, x, "linear")
    np.testing.assert_allclose(psf.at(50, 50), base + 0.5 * slope, atol=1e-12)
    assert np.isfinite(psf.at(-1e4, 1e4)).all()


def test_two_linear_cells_fall_back_to_the_nearest(stamps):
    psf = CellPsf(stamps[:2], [0, 10], [0, 10], "linear")
    np.testing.assert_array_equal(psf.at(1, 1), stamps[0])


def models(stamps: np.ndarray) -> list[Psf]:
    """One of every kind."""
    y, x = np.arange(5.0), np.arange(6.0)
    box = Box(0, 0, 9, 9)
    return [
        StampPsf(stamps[0]),
        AnalyticPsf("MOFFAT", 4.0),
        GridPsf(stamps.reshape(5, 6, 25, 25), y, x),
        CellPsf(stamps, np.arange(30.0), np.arange(30.0)),
        CellPsf(stamps[:4], [0.0, 0.0, 9.0, 9.0], [0.0, 9.0, 0.0, 9.0], "linear"),
        PolyPsf(ChebyshevField(stamps[:3], np.eye(3), (0.0, 9.0, 0.0, 9.0))),
        PsfexPsf(stamps[:3], 1, (0.0, 0.0), (90.0, 90.0)),
        CoaddPsf([InputPsf(StampPsf(s), 1.0, box) for s in stamps[:2]]),
    ]


def test_all_models_follow_the_protocol(stamps):
    """Odd float64 stamps of sum 1 at any number of positions, each that of its position."""
    y, x = np.array([2.2, 7.0, 2.2]), np.array([3.3, 1.0, 3.3])
    for psf in models(stamps):
        assert isinstance(psf, Psf)
        assert psf.side % 2 == 1
        many = psf.at_many(y, x)
        assert many.shape == (3, psf.side, psf.side)
        assert many.dtype == np.float64
        np.testing.assert_allclose(many.sum(axis=(1, 2)), 1, atol=1e-12)
        np.testing.assert_array_equal(many[0], many[2])
        np.testing.assert_allclose(psf.at(7.0, 1.0), many[1], atol=1e-15)
        assert psf.constant == (np.ptp(many, axis=0).max() == 0)
        assert psf.at_many([], []).shape == (0, psf.side, psf.side)


def test_models_travel_to_workers(stamps):
    for psf in models(stamps):
        twin = pickle.loads(pickle.dumps(psf))
        np.testing.assert_array_equal(twin.at(2.2, 3.3), psf.at(2.2, 3.3))


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        (np.ones((4, 4)), "even side, 4"),
        (np.ones((3, 5)), "square"),
        (np.full((3, 3), np.nan), "9 non-finite"),
        (-np.ones((3, 3)), "must be positive"),
        (np.zeros((3, 3)), "must be positive"),
        (np.ones(9), "square"),
        (np.ones((2, 3, 3)), "2-D"),
    ],
)
def test_bad_stamps(stamp, message):
    with pytest.raises(FormatError, match=message):
        StampPsf(stamp)


def test_bad_lattices_and_cells(stamps):
    cube = stamps.reshape(5, 6, 25, 25)
    with pytest.raises(FormatError, match="5 x 5 nodes"):
        GridPsf(cube, np.arange(5.0), np.arange(5.0))
    with pytest.raises(FormatError, match="x positions of the lattice have no equal steps"):
        GridPsf(cube, np.arange(5.0), np.array([0, 1, 2, 3, 4, 6.0]))
    with pytest.raises(FormatError, match="known: cubic, linear"):
        GridPsf(cube, np.arange(5.0), np.arange(6.0), "nearest")
    with pytest.raises(FormatError, match="29 centres"):
        CellPsf(stamps, np.arange(29), np.arange(29))
    with pytest.raises(FormatError, match="not finite"):
        CellPsf(stamps, np.full(30, np.nan), np.arange(30))
    with pytest.raises(FormatError, match="known: nearest, linear"):
        CellPsf(stamps, np.arange(30), np.arange(30), "cubic")
