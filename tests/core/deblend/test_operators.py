"""Constraints on morphologies: masks equal a queue's, reflections are symmetric, limits hold."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from coblend.core.deblend.fitting.operators import constrain, monotonic_mask, reflect


def flood(image: np.ndarray, y: int, x: int, variance: float) -> np.ndarray:
    """Flood fill with a queue, pixel by pixel."""
    reached = np.zeros(image.shape, bool)
    reached[y, x] = True
    queue = deque([(y, x)])
    while queue:
        i, j = queue.popleft()
        for p, q in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            inside = 0 <= p < image.shape[0] and 0 <= q < image.shape[1]
            if inside and not reached[p, q] and 0 < image[p, q] <= image[i, j] + variance:
                reached[p, q] = True
                queue.append((p, q))
    return reached


def blob(rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """A noisy source in a frame of any shape."""
    ny, nx = rng.integers(1, 40, 2)
    y, x = int(rng.integers(ny)), int(rng.integers(nx))
    v, u = np.mgrid[:ny, :nx]
    image = np.exp(-np.hypot(v - y, u - x) / rng.uniform(2, 9))
    return image + rng.uniform(0, 0.1) * rng.normal(size=image.shape), y, x


@pytest.mark.parametrize("variance", [0.0, 0.03])
def test_monotonic_mask_equals_a_queue(rng: np.random.Generator, variance: float) -> None:
    sizes = []
    for _ in range(100):
        image, y, x = blob(rng)
        result = monotonic_mask(image, y, x, variance)
        assert np.array_equal(result, flood(image, y, x, variance))
        sizes.append(result.mean())
    assert 0.1 < np.mean(sizes) < 0.9


@pytest.mark.peer
@pytest.mark.parametrize("variance", [0.0, 0.03])
def test_monotonic_mask_is_the_peers(rng: np.random.Generator, variance: float) -> None:
    operators = pytest.importorskip("lsst.scarlet.lite.operators", reason="no scarlet lite")
    for _ in range(100):
        image, y, x = blob(rng)
        valid, model, bounds = operators.prox_monotonic_mask(
            image, (y, x), center_radius=0, variance=variance, max_iter=0
        )
        result = monotonic_mask(image, y, x, variance)
        assert np.array_equal(result, valid)
        rows, columns = (np.flatnonzero(result.any(axis)) for axis in (1, 0))
        assert tuple(bounds) == (rows[0], rows[-1], columns[0], columns[-1])
        assert np.array_equal(model, image * result)


@pytest.mark.parametrize("shape", [(9, 9), (8, 9), (12, 7), (6, 10), (1, 5)])
def test_reflections_are_symmetric_and_never_brighter(
    rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    image = rng.normal(size=shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            result = reflect(image, y, x)
            for v in range(shape[0]):
                for u in range(shape[1]):
                    p, q = 2 * y - v, 2 * x - u
                    if 0 <= p < shape[0] and 0 <= q < shape[1]:
                        assert result[v, u] == min(image[v, u], image[p, q]) == result[p, q]
                    else:
                        assert result[v, u] == 0
            assert result[y, x] == image[y, x]


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(9, 9), (8, 9), (12, 7), (6, 10)])
def test_reflections_are_the_peers(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    """Except about the middle, where it flips the frame as a whole."""
    operators = pytest.importorskip("lsst.scarlet.lite.operators", reason="no scarlet lite")
    image = rng.normal(size=shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            if (y, x) != (shape[0] // 2, shape[1] // 2):
                expected = operators.prox_uncentered_symmetry(image.copy(), (y, x), fill=0)
                assert np.array_equal(reflect(image, y, x), expected)


def test_constrained_stamps_have_maximum_one_and_no_faint_pixels(
    rng: np.random.Generator,
) -> None:
    stamps = rng.normal(size=(5, 15, 15)).astype(np.float32)
    result, scale = constrain(stamps, None, np.full(5, 0.1, np.float32))
    assert np.allclose(result.max((1, 2)), 1)
    assert (result >= 0).all()
    lit = result * scale[:, None, None]
    centre = np.zeros((15, 15), bool)
    centre[7, 7] = True  # kept alive, however faint
    assert ((lit == 0) | (lit >= 0.1 - 1e-6) | centre).all()


def test_a_negative_stamp_becomes_its_centre() -> None:
    result, scale = constrain(-np.ones((1, 7, 7), np.float32), None)
    assert result.sum() == 1
    assert result[0, 3, 3] == 1
    assert scale[0] == np.float32(1e-20)


def test_closed_edges_take_light_from_a_source_beside_them() -> None:
    """What one projection of the reference system takes: 4.6 % of a source on the edge."""
    y, x = np.mgrid[-50:51, -50:51]
    image = np.exp(-np.hypot(y, x) / 8)[None]
    outside = (y < 0)[None]
    image[outside] = 0
    kept = {
        closed: (constrain(image.copy(), outside, closed=closed)[0]).sum() / image.sum()
        for closed in (False, True)
    }
    assert kept[False] == pytest.approx(1, abs=1e-12)
    assert kept[True] == pytest.approx(1 - 0.046, abs=1e-3)


# bad input


def test_dark_and_tiny_images() -> None:
    assert monotonic_mask(np.full((3, 4), -1.0), 1, 2).sum() == 1
    assert monotonic_mask(np.ones((1, 1)), 0, 0).tolist() == [[True]]
    assert monotonic_mask(np.full((1, 2), np.nan), 0, 0).tolist() == [[True, False]]
    assert reflect(np.array([[3.0]]), 0, 0).tolist() == [[3]]
