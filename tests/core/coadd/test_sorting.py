"""Sorting networks against numpy's sort; quantiles against numpy's."""

from itertools import product

import numpy as np
import pytest

from coblend.core.coadd.sorting import ABSENT, network, pruned, quantiles, ranks, sort_samples


@pytest.mark.parametrize("n", [*range(1, 13), 15])
def test_network_sorts_every_sequence_of_zeros_and_ones(n):
    # by the 0-1 principle it then sorts everything
    cube = np.array(list(product((0, 1), repeat=n)), np.float32).T[:, None, :]
    rows = sort_samples(cube)
    np.testing.assert_array_equal(rows, np.sort(cube, axis=0))


def test_network_of_20_has_97_comparators():
    assert len(network(20)[0]) == 97


@pytest.mark.parametrize("n", [1, 2, 3, 20, 21, 64, 65, 100])
def test_sort_equals_numpy(rng, n):
    cube = rng.normal(size=(n, 3, 17)).astype(np.float32)
    before = cube.copy()
    np.testing.assert_array_equal(sort_samples(cube), np.sort(cube, axis=0))
    np.testing.assert_array_equal(cube, before)


@pytest.mark.parametrize("n", [2, 5, 20, 33])
def test_pruned_network_gives_the_median(rng, n):
    cube = rng.normal(size=(n, 2, 30)).astype(np.float32)
    wanted = tuple(ranks(n, (0.5,)))
    assert len(pruned(n, wanted)) <= len(network(n)[0])
    assert n < 20 or len(pruned(n, wanted)) < 0.9 * len(network(n)[0])
    (median,) = quantiles(cube, np.full((2, 30), n, np.uint16), (0.5,))
    np.testing.assert_allclose(median, np.median(cube.astype(float), axis=0), rtol=1e-12)


def test_quantiles_of_incomplete_pixels(rng):
    n = 9
    cube = rng.normal(size=(n, 20, 20)).astype(np.float32)
    missing = rng.random(cube.shape) < 0.4
    missing[:, 0, 0] = True
    count = (n - missing.sum(axis=0)).astype(np.uint16)
    found = quantiles(np.where(missing, ABSENT, cube), count, (0.25, 0.5, 0.75))
    assert all(np.isnan(q[0, 0]) for q in found)
    samples = np.where(missing, np.nan, cube.astype(float))
    samples[:, 0, 0] = 0
    expected = np.nanquantile(samples, (0.25, 0.5, 0.75), axis=0)
    for q, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.where(count == 0, 0, q), e, rtol=1e-12)


def test_quantiles_without_any_sample():
    nothing = np.full((1, 2, 2), ABSENT, np.float32)
    (median,) = quantiles(nothing, np.zeros((2, 2), np.uint16), (0.5,))
    assert np.isnan(median).all()
