"""Compare-warp: limits by hand, and a simulated field with known artifacts."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from coblend.core.box import Box
from coblend.core.coadd.artifacts import (
    Candidates,
    bright,
    find_candidates,
    judge,
    max_epochs,
    reach,
)
from coblend.core.coadd.differences import Template, difference, look, noise_factor
from coblend.core.coadd.sparse import Runs, components, drop_small, grow
from coblend.core.mask import PLANES, STANDARD
from coblend.core.params.coadd import CoaddParams

PARAMS = CoaddParams()
SIGMA = 7.7 / 2.3548


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (33, 2), (34, 3), (67, 4), (100, 5), (200, 8)],
)
def test_limit_of_epochs(n, expected):
    assert max_epochs(np.array([float(n)]), PARAMS)[0] == expected


def test_limit_never_falls():
    limits = max_epochs(np.arange(1.0, 201), PARAMS)
    assert (np.diff(limits) >= 0).all()
    assert (limits <= 0.4 * np.arange(1, 201)).all()


def test_components_equal_scipy(rng):
    image = rng.random((60, 70)) < 0.3
    pixels = np.flatnonzero(image)
    labels, n = components(pixels, 70)
    expected, n_expected = label(image, np.ones((3, 3)))
    assert n == n_expected
    pairs = np.unique(np.stack([labels, expected.ravel()[pixels]]), axis=1)
    assert pairs.shape[1] == n
    area = np.bincount(expected.ravel())
    kept = image & (area[expected] >= 4)
    np.testing.assert_array_equal(drop_small(pixels, 70, 4), np.flatnonzero(kept))


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_grow_equals_brute_force(rng, radius):
    image = rng.random((30, 20)) < 0.01
    y, x = np.nonzero(image)
    ys, xs = np.mgrid[:30, :20]
    near = ((ys[..., None] - y) ** 2 + (xs[..., None] - x) ** 2 <= radius**2).any(axis=-1)
    np.testing.assert_array_equal(
        grow(np.flatnonzero(image), radius, (30, 20)), np.flatnonzero(near)
    )


@pytest.mark.parametrize("fill", [0.0, 0.1, 0.9, 1.0])
def test_runs_are_the_plane(rng, fill):
    plane = rng.random((9, 11)) < fill
    parts = [Runs.of(plane[:4]), Runs.of(plane[4:], 44)]
    runs = Runs.joined(parts)
    np.testing.assert_array_equal(runs.contains(np.arange(99)), plane.ravel())
    for y0, y1 in ((0, 9), (0, 4), (3, 7), (8, 9)):
        np.testing.assert_array_equal(runs.plane(11 * y0, (y1 - y0, 11)), plane[y0:y1])
    assert not Runs.joined([]).plane(3, (2, 2)).any()


def test_bright_regions_by_parts_equal_the_whole(rng):
    image = np.zeros((200, 90), np.float32)
    image[rng.integers(0, 200, 12), rng.integers(0, 90, 12)] = 1e5
    variance = np.full(image.shape, 2, np.float32)
    whole = bright(image, variance, SIGMA, PARAMS)
    margin = reach(SIGMA)
    for first in range(0, 200, 60):
        last, low = min(first + 60, 200), max(first - margin, 0)
        part = slice(low, last + margin)
        found = bright(image[part], variance[part], SIGMA, PARAMS)[first - low : last - low]
        np.testing.assert_array_equal(found, whole[first:last])


def test_what_a_part_of_an_epoch_shows(make_warp):
    """Flat indices and runs count in the frame, whatever part of it an epoch covers."""
    frame, box = Box(10, 20, 8, 12), (12, 25)
    image = np.zeros((3, 6), np.float32)
    image[1, 2], image[2, 5], image[0, 0] = 100, -100, np.nan
    mask = np.zeros((3, 6), np.int32)
    mask[1, 1], mask[1, 3] = 1 << PLANES["BAD"], 1 << PLANES["EDGE"]
    part = make_warp(0, image, mask=mask, shape=(3, 6), origin=box)
    nothing, ones = np.zeros((3, 6), np.float32), np.ones((3, 6), np.float32)
    nothing[1, 2] = 80  # differs significantly, but by a quarter only
    seen, usable, edge = look(
        part, 1.0, Template(nothing, ones, ones), ones == 0, frame, STANDARD, PARAMS
    )
    assert list(seen.positive) == [3 * 12 + 7]
    assert list(seen.negative) == [4 * 12 + 10]
    expected = np.zeros(frame.shape, bool)
    expected[2:5, 5:11] = np.isfinite(image)
    np.testing.assert_array_equal(seen.seen.plane(0, frame.shape), expected)
    assert list(np.flatnonzero(seen.flagged.plane(0, frame.shape))) == [3 * 12 + 6]
    assert list(np.flatnonzero(seen.gross.plane(0, frame.shape))) == [4 * 12 + 10]
    assert edge.sum() == 1
    assert usable.sum() == 18 - 2


def test_noise_factor_finds_the_noise(rng):
    image = gaussian_filter(rng.normal(size=(300, 300)), 1.5)
    image = (image / image.std() * 3).astype(np.float32)
    image[100:105, 100:140] += 500
    image[:, 200:210] = np.nan
    variance = np.full(image.shape, 4.0, np.float32)
    gradient = np.linspace(0, 50, 300, dtype=np.float32)[:, None]
    assert noise_factor([(image + gradient, variance)]) == pytest.approx(9 / 4, rel=0.05)
    assert noise_factor([(image * 100, variance)]) == 1.0
    assert noise_factor([(image[:3, :17], variance[:3, :17])]) == 1.0
    assert noise_factor([]) == 1.0


def test_difference_leaves_the_epoch_out(rng):
    """The significance equals that against the mean of the other epochs."""
    epochs = rng.normal(0, 2, (5, 8, 9))
    w = np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    mean = np.average(epochs, axis=0, weights=w)
    others = np.average(np.delete(epochs, 1, axis=0), axis=0, weights=np.delete(w, 1))
    total = np.full((8, 9), w.sum(), np.float32)
    template = Template(mean.astype(np.float32), 1 / total, total)
    variance = np.full((8, 9), 1 / w[1], np.float32)
    found = difference(epochs[1].astype(np.float32), variance, template, w[1])
    sigma = np.sqrt(1 / w[1] + 1 / (w.sum() - w[1]))
    np.testing.assert_allclose(found, (epochs[1] - others) / sigma, atol=1e-5)
    alone = Template(template.image, template.variance, np.full((8, 9), w[1], np.float32))
    assert np.isnan(difference(template.image, variance, alone, w[1])).all()


def test_candidates_known_to_be_faulty_are_dropped():
    significance = np.zeros((50, 50), np.float32)
    significance[10:12, 10:12] = 20
    significance[30:32, 30:32] = -20
    significance[40, 40:43] = 20
    positive, negative = (np.flatnonzero(s * significance > 7.5) for s in (1, -1))

    def found(flagged):
        return find_candidates((positive, negative), 4, Runs.of(flagged), (50, 50), SIGMA)

    flagged = np.zeros((50, 50), bool)
    assert len(found(flagged)) == 2
    flagged[:20] = True
    left = found(flagged)
    assert len(left) == 1
    assert set(left.pixels // 50) == {29, 30, 31, 32}


def test_judgement():
    shape = (20, 20)
    n_image, n_different = np.full(shape, 10, np.uint16), np.ones(shape, np.uint16)
    n_different[10:] = 7
    regions = np.zeros(shape, np.int32)
    regions[5:8, 5:8] = 3
    pixels = [[0, 1, 20], [300, 301], [105, 106, 126], [107, 108], [199, 219, 239], [145, 146]]
    candidates = Candidates(np.concatenate(pixels), np.cumsum([0, *map(len, pixels)]))
    gross = np.zeros(shape, bool)
    gross[7, 5] = True
    maps = n_image, n_different, regions, gross
    planes = (plane.ravel()[candidates.pixels] for plane in maps)
    clipped, table = judge(candidates, *planes, 20, PARAMS)
    decisions = ["CLIPPED", "PERSISTENT", "PROTECTED", "CLIPPED", "PERSISTENT", "CLIPPED"]
    assert list(table["decision"]) == decisions
    np.testing.assert_array_equal(clipped, sorted([0, 1, 20, 107, 108, 145, 146]))
    assert tuple(table[0][["y0", "x0", "y1", "x1"]]) == (0, 0, 2, 2)
    assert list(table["area"]) == [3, 2, 3, 2, 3, 2]
