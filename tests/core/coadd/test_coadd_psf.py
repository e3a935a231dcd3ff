"""PSF of a coadd."""

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.psf import tabulated
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.stack import stack
from coblend.core.errors import FormatError
from coblend.core.psf import CellPsf, GridPsf, StampPsf
from coblend.core.psf.coadd import CoaddPsf, InputMap, InputPsf
from coblend.core.region import inside_polygon


def gaussian(fwhm, side=31, dy=0.0, dx=0.0):
    y, x = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / 2 / (fwhm / 2.3548) ** 2)
    return stamp / stamp.sum()


def source(fwhm, weight, box, side=31, offset=(0, 0)):
    return InputPsf(StampPsf(gaussian(fwhm, side)), weight, box, offset)


FIELD = Box(0, 0, 100, 120)


def test_weighted_mean_of_different_sizes():
    psf = CoaddPsf([source(3, 1.0, FIELD), source(5, 3.0, FIELD, side=21)])
    small = np.pad(gaussian(5, 21), 5)
    np.testing.assert_allclose(psf.at(10, 10), (gaussian(3) + 3 * small) / 4, atol=1e-15)
    assert psf.at(3, 4).sum() == pytest.approx(1, abs=1e-12)
    assert psf.constant


def test_only_inputs_that_cover_the_position_count():
    left, right = Box(0, 0, 100, 60), Box(0, 50, 100, 70)
    psf = CoaddPsf([source(3, 1.0, left), source(5, 1.0, right)])
    stamps = psf.at_many([5, 5, 5], [10, 55, 110])
    expected = [gaussian(3), (gaussian(3) + gaussian(5)) / 2, gaussian(5)]
    np.testing.assert_allclose(stamps, expected, atol=1e-15)


def test_varying_inputs_are_evaluated_in_their_own_coordinates():
    x = np.array([0.0, 40.0, 80.0, 120.0])
    stamps = np.stack([gaussian(3 + v / 40) for v in x])[None]
    grid = GridPsf(stamps, np.array([0.0]), x)
    moved = CoaddPsf([InputPsf(grid, 1.0, FIELD, (0, 40))])
    np.testing.assert_allclose(moved.at(7, 80), grid.at(7, 40), atol=1e-15)


def test_tabulated_kinds():
    constant = CoaddPsf([source(3, 1.0, FIELD), source(4, 1.0, FIELD.grow(3))])
    assert isinstance(tabulated(constant, FIELD, 32), StampPsf)
    x = np.array([0.0, 40.0, 80.0, 120.0])
    grid = GridPsf(np.stack([gaussian(3 + v / 40) for v in x])[None], np.array([0.0]), x)
    varying = CoaddPsf([InputPsf(grid, 1.0, FIELD), source(4, 1.0, FIELD)])
    lattice = tabulated(varying, FIELD, 32)
    assert isinstance(lattice, GridPsf)
    y, x = np.array([3.0, 50, 99]), np.array([7.0, 61, 118])
    np.testing.assert_allclose(lattice.at_many(y, x), varying.at_many(y, x), atol=2e-4)
    partial = CoaddPsf([source(3, 1.0, Box(0, 0, 100, 64)), source(5, 1.0, Box(0, 64, 100, 56))])
    cells = tabulated(partial, FIELD, 60)
    assert isinstance(cells, CellPsf)
    np.testing.assert_allclose(cells.at(10, 10), gaussian(3), atol=1e-15)
    np.testing.assert_allclose(cells.at(90, 119), gaussian(5), atol=1e-15)


def test_cells_without_an_input_are_left_out():
    corner = CoaddPsf([source(3, 1.0, Box(0, 0, 40, 40)), source(4, 1.0, Box(0, 0, 30, 30))])
    cells = tabulated(corner, FIELD, 20)
    assert len(cells.stamps) == 4


def test_cells_whose_centre_no_input_covers():
    """A cell has the PSF of the inputs that touch it, by box or outline; others are left out."""
    strip = CoaddPsf([source(3, 1.0, Box(0, 0, 100, 7)), source(5, 1.0, Box(0, 0, 40, 7))])
    cells = tabulated(strip, FIELD, 50)
    assert cells.boxes.tolist() == [[0, 0, 50, 40], [50, 0, 100, 40]]
    np.testing.assert_allclose(cells.at(60, 3), gaussian(3), atol=1e-15)
    corner = np.array([[0.0, 0.0, 20.0], [0.0, 20.0, 0.0]])
    outline = InputPsf(StampPsf(gaussian(3)), 1.0, FIELD, polygon=corner)
    (cell,) = tabulated(CoaddPsf([outline]), FIELD, 50).boxes.tolist()
    assert cell == [0, 0, 50, 40]


def test_polygons_restrict_the_box():
    triangle = np.array([[0.0, 0.0, 90.0], [0.0, 100.0, 0.0]])
    whole = InputPsf(StampPsf(gaussian(3)), 1.0, FIELD)
    part = InputPsf(StampPsf(gaussian(5)), 1.0, FIELD, polygon=triangle)
    psf = CoaddPsf([whole, part])
    inside, outside = psf.at_many([10, 80], [10, 80])
    np.testing.assert_allclose(inside, (gaussian(3) + gaussian(5)) / 2, atol=1e-15)
    np.testing.assert_allclose(outside, gaussian(3), atol=1e-15)
    assert isinstance(tabulated(psf, FIELD, 50), CellPsf)


def test_point_in_polygon_against_the_winding_number(rng):
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(3, 9, 9)
    polygon = np.stack([radius * np.sin(angle), radius * np.cos(angle)])
    y, x = rng.uniform(-10, 10, (2, 500))
    turn = np.arctan2(polygon[0][:, None] - y, polygon[1][:, None] - x)
    step = np.diff(np.vstack([turn, turn[:1]]), axis=0)
    winding = np.abs(((step + np.pi) % (2 * np.pi) - np.pi).sum(axis=0)) > np.pi
    np.testing.assert_array_equal(inside_polygon(polygon, y, x), winding)


def test_input_map_leaves_clipped_inputs_out():
    planes = np.full((1, *FIELD.shape), 0b11, np.int32)
    planes[0, 20, 30] = 0b10
    psf = CoaddPsf([source(3, 1.0, FIELD), source(5, 1.0, FIELD)], InputMap(FIELD, planes))
    np.testing.assert_allclose(psf.at(20.3, 29.6), gaussian(5), atol=1e-15)
    np.testing.assert_allclose(psf.at(20, 31), (gaussian(3) + gaussian(5)) / 2, atol=1e-15)


def test_many_inputs_in_the_map(rng):
    n = 40
    used = rng.random((n, 5, 6)) < 0.5
    planes = np.zeros((2, 5, 6), np.int32)
    for i in range(n):
        planes[i // 31] |= used[i].astype(np.int32) << (i % 31)
    y, x = (g.ravel().astype(float) for g in np.mgrid[:5, :6])
    found = InputMap(Box(0, 0, 5, 6), planes).used(n, y, x)
    np.testing.assert_array_equal(found, used.reshape(n, -1))


def test_stars_of_a_coadd_have_its_psf(rng, make_warp):
    """Noise-free stars in inputs of unequal seeing, weight and cover, a tenth of them lost."""
    field, n, half = Box(0, 0, 800, 820), 12, 15
    ys, xs = (g.ravel() for g in np.mgrid[20:790:32, 20:810:32])
    warps, sources = [], []
    for i in range(n):
        fwhm, weight = rng.uniform(3, 6), float(rng.uniform(0.3, 1))
        y0, x0 = (0, 0) if i < 2 else (int(v) for v in rng.integers(0, 400, 2))
        box = Box(y0, x0, 800 - y0 - int(rng.integers(0, 160)) * (i > 1), 820 - x0)
        image = np.zeros(field.shape)
        for y, x in zip(ys, xs, strict=True):
            cut = image[y - half : y + half + 1, x - half : x + half + 1]
            cut += 1000 * gaussian(fwhm)[: cut.shape[0], : cut.shape[1]]
        mask = np.zeros(field.shape, np.int32)
        for y, x in zip(ys, xs, strict=True):
            if i > 1 and rng.random() < 0.1:
                mask[y - half : y + half + 1, x - half : x + half + 1] = 2
        own = box.slices(field)
        warps.append(
            make_warp(i, image[own], mask=mask[own], weight=weight, shape=box.shape,
                      origin=(y0, x0))
        )  # fmt: skip
        sources.append(source(fwhm, weight, box))
    done = stack(warps, field, StackRules(statistic="mean", bad=2), input_map=True)
    exact = CoaddPsf(sources, InputMap(field, done.input_map)).at_many(ys, xs)
    plain = CoaddPsf(sources).at_many(ys, xs)
    worst = {"exact": 0.0, "plain": 0.0}
    n_compared = 0
    for k, (y, x) in enumerate(zip(ys, xs, strict=True)):
        rows, columns = slice(y - half, y + half + 1), slice(x - half, x + half + 1)
        inside = field.contains(Box(y - half, x - half, 31, 31))
        if not inside or len({w.tobytes() for w in done.input_map[0][rows, columns].ravel()}) > 1:
            continue
        n_compared += 1
        star = done.image[rows, columns] / 1000
        for name, psf in (("exact", exact[k]), ("plain", plain[k])):
            worst[name] = max(worst[name], float(np.abs(star - psf).max() / star.max()))
    assert n_compared >= 200
    assert worst["exact"] < 1e-3
    assert worst["plain"] > 5e-3


def test_ten_thousand_positions_take_one_stamp_of_each_input(rng, monkeypatch):
    """That is what makes them cheap; the time is in benchmarks/coadd.py."""
    field = Box(0, 0, 4000, 4000)
    boxes = [Box(int(y), int(x), 3000, 3000) for y, x in rng.integers(-900, 1900, (19, 2))]
    psf = CoaddPsf([source(3 + 0.1 * i, 1.0, box) for i, box in enumerate([field, *boxes])])
    y, x = rng.uniform(0, 3999, (2, 10_000))
    drawn, draw = [], StampPsf.at
    monkeypatch.setattr(StampPsf, "at", lambda *a: drawn.append(a) or draw(*a))
    stamps = psf.at_many(y, x)
    assert len(drawn) == 20
    np.testing.assert_allclose(stamps.sum(axis=(1, 2)), 1, atol=1e-12)
    for k in (0, 77, 4711):
        np.testing.assert_allclose(stamps[k], psf.at(y[k], x[k]), atol=1e-15)


# bad input


def test_position_outside_all_inputs():
    psf = CoaddPsf([source(3, 1.0, Box(0, 0, 10, 10))])
    with pytest.raises(FormatError, match="no input of the coadd covers x=50, y=5"):
        psf.at(5, 50)
