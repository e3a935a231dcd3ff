"""Monotonic projection: equal to the plain loop, idempotent, blind to the frame's edge."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.deblend.fitting.monotonic import (
    level_order,
    nearer_neighbours,
    pool_gradient,
    project,
    project_about_brightest,
)


def plain_projection(image: np.ndarray, cy: int, cx: int) -> np.ndarray:
    """The definition: pixels by increasing distance, each capped by its nearer neighbours.

    Those outside the image count as 0.
    """
    ny, nx = image.shape
    image = np.pad(image, ((0, 1), (0, 1)))  # index -1 is there, too
    pixels = [(y - cy, x - cx) for y in range(ny) for x in range(nx)]
    for y, x in sorted(pixels, key=lambda p: p[0] ** 2 + p[1] ** 2)[1:]:
        near = [
            (y + a, x + b)
            for a in (-1, 0, 1)
            for b in (-1, 0, 1)
            if (y + a) ** 2 + (x + b) ** 2 < y * y + x * x
        ]
        weights = []
        for v, u in near:
            angle = 0.0 if u == v == 0 else np.arctan2(v, u)
            weights.append(abs(np.cos(np.arctan2(y, x) - angle)))
        if len(near) == 1:
            weights = [1.0]
        cap = sum(w * image[v + cy, u + cx] for w, (v, u) in zip(weights, near, strict=True))
        cap /= sum(weights)
        image[y + cy, x + cx] = min(image[y + cy, x + cx], cap)
    return image[:ny, :nx]


def stamp_about(image: np.ndarray, cy: int, cx: int) -> tuple[np.ndarray, np.ndarray]:
    """The stamp about a pixel that holds the image, and which of its pixels lie outside."""
    ny, nx = image.shape
    radius = max(cy, cx, ny - 1 - cy, nx - 1 - cx)
    stamp = np.full((2 * radius + 1,) * 2, np.nan, image.dtype)
    outside = np.ones(stamp.shape, bool)
    part = slice(radius - cy, radius - cy + ny), slice(radius - cx, radius - cx + nx)
    stamp[part], outside[part] = image, False
    return stamp[None], outside[None]


# shapes and centres: in the middle, off it, in corners, on borders, of even and odd sides
PLACES = [((41, 41), (3, 35)), ((64, 40), (63, 0)), ((101, 101), (0, 50)), ((20, 33), (10, 16)),
          ((9, 1), (4, 0)), ((1, 9), (0, 0)), ((30, 31), (29, 30))]  # fmt: skip


@pytest.mark.parametrize(("shape", "centre"), PLACES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 2e-15), (np.float32, 1e-6)])
def test_dark_surroundings_cap_their_neighbours(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: tuple[int, int],
    dtype: type,
    tolerance: float,
) -> None:
    """As the definition has it, with pixels of either sign, about the brightest pixel nearby."""
    image = rng.normal(size=shape).astype(dtype)
    y0, x0 = np.maximum(np.array(centre) - 1, 0)
    core = image[y0 : centre[0] + 2, x0 : centre[1] + 2]
    dy, dx = np.unravel_index(core.argmax(), core.shape)
    expected = plain_projection(image.astype(float), int(y0 + dy), int(x0 + dx))
    stamp, outside = stamp_about(image, *centre)
    result = project_about_brightest(stamp, outside)
    assert result.dtype == dtype
    assert np.abs(result[~outside] - expected.ravel()).max() <= tolerance * np.abs(image).max()
    assert not result[outside].any()


@pytest.mark.peer
@pytest.mark.parametrize(("shape", "centre"), PLACES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 2e-15), (np.float32, 1e-6)])
def test_dark_surroundings_are_the_peers(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: tuple[int, int],
    dtype: type,
    tolerance: float,
) -> None:
    operators = pytest.importorskip("lsst.scarlet.lite.operators", reason="no scarlet lite")
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = np.exp(-np.hypot(y - centre[0] - 0.4, x - centre[1] + 0.7) / 5)
    monotonic = operators.Monotonicity((101, 101))
    for image in (rng.normal(size=shape), smooth + 0.05 * rng.normal(size=shape)):
        stamp, outside = stamp_about(image.astype(dtype), *centre)
        result = project_about_brightest(stamp, outside)[~outside].reshape(shape)
        expected = monotonic(image.astype(dtype), centre)
        assert np.abs(result - expected).max() <= tolerance * np.abs(image).max()


@pytest.mark.parametrize("radius", [1, 2, 7, 20, 50])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 2e-15), (np.float32, 1e-6)])
def test_equals_the_definition(
    rng: np.random.Generator, radius: int, dtype: type, tolerance: float
) -> None:
    side = 2 * radius + 1
    for image in (rng.normal(size=(side, side)), rng.uniform(size=(side, side)))[: 60 // radius]:
        expected = plain_projection(image, radius, radius)
        result = project(image[None].astype(dtype))[0]
        assert result.dtype == dtype
        assert np.abs(result - expected).max() <= tolerance * max(1, np.abs(expected).max())


@pytest.mark.peer
@pytest.mark.parametrize("radius", [7, 20, 50])
def test_equals_the_peer(rng: np.random.Generator, radius: int) -> None:
    operators = pytest.importorskip("lsst.scarlet.lite.operators", reason="no scarlet lite")
    image = rng.uniform(size=(2 * radius + 1,) * 2)
    image[radius, radius] = 2  # the peer looks for the brightest of the 3x3 central pixels
    expected = operators.Monotonicity((101, 101))(image.copy(), (radius, radius))
    assert np.abs(project(image[None])[0] - expected).max() < 1e-14


def test_idempotent_never_larger_centre_unchanged(rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        stamps = rng.normal(size=(3, 31, 31)).astype(dtype)
        once = project(stamps)
        assert np.array_equal(project(once), once)
        assert (once <= stamps).all()
        assert np.array_equal(once[:, 15, 15], stamps[:, 15, 15])


def test_a_stack_gives_the_bits_of_single_stamps(rng: np.random.Generator) -> None:
    stamps = rng.normal(size=(32, 21, 21)).astype(np.float32)
    together = project(stamps)
    alone = np.concatenate([project(stamps[i : i + 1]) for i in range(32)])
    assert np.array_equal(together, alone)
    outside = rng.uniform(size=stamps.shape) < 0.1
    outside[:, 10, 10] = False
    for operator in (project, project_about_brightest):
        together = operator(stamps, outside)
        alone = np.concatenate(
            [operator(stamps[i : i + 1], outside[i : i + 1]) for i in range(32)]
        )
        assert np.array_equal(together, alone)


@pytest.mark.parametrize("clipped", [(0, 0), (0, 9), (4, 20), (15, 15)])
def test_frame_edge_does_not_eat_a_monotonic_source(clipped: tuple[int, int]) -> None:
    y, x = np.mgrid[-20:21, -20:21]
    image = np.exp(-np.hypot(y, x) / 8)[None]
    outside = (y < -clipped[0]) | (x > clipped[1])
    result = project(np.where(outside, 0, image), outside[None])
    assert np.abs(result - np.where(outside, 0, image)).max() < 1e-13


def test_every_nearer_neighbour_has_a_lower_level() -> None:
    y, x = (a.ravel() for a in np.mgrid[-60:61, -60:61])
    offsets, weights = nearer_neighbours(y, x)

    def level(v: np.ndarray, u: np.ndarray) -> np.ndarray:
        return 2 * np.maximum(abs(v), abs(u)) + np.minimum(abs(v), abs(u)) - 1

    used = weights > 0
    assert (level(*offsets)[used] < np.broadcast_to(level(y, x), used.shape)[used]).all()
    assert np.unique(level(y, x)).size == 3 * 60 - 1 + 1  # and the centre's own
    others = used.any(0)
    assert np.allclose(weights.sum(0)[others], 1)
    assert others.sum() == y.size - 1


def test_pooled_gradient_is_the_gradient_through_the_caps(rng: np.random.Generator) -> None:
    """On a stamp where every pixel sits at its cap, raising the centre raises all of them."""
    weight = rng.uniform(1, 2, (1, 11, 11))
    flat = np.ones((1, 11, 11))
    pooled = pool_gradient(flat, -weight)

    def loss(centre: float) -> float:
        stamp = np.full((1, 11, 11), 2.0)
        stamp[0, 5, 5] = centre
        return float(-(weight * project(stamp)).sum())

    step = 1e-6
    slope = (loss(1 + step) - loss(1 - step)) / (2 * step)
    assert pooled[0, 5, 5] == pytest.approx(slope, rel=1e-6)


def test_pooled_gradient_leaves_free_pixels_alone(rng: np.random.Generator) -> None:
    y, x = np.mgrid[-10:11, -10:11]
    steep = np.exp(-np.hypot(y, x))[None]  # no pixel near its cap
    gradient = rng.normal(size=steep.shape)
    assert np.array_equal(pool_gradient(steep, gradient), gradient)
    # and a pull downwards is never passed on
    flat = np.ones_like(steep)
    assert np.array_equal(pool_gradient(flat, np.abs(gradient)), np.abs(gradient))


# bad input


def test_a_radius_of_zero_is_a_single_pixel() -> None:
    assert level_order(0).order.tolist() == [0]
    assert project(np.full((2, 1, 1), 3.0)).tolist() == [[[3.0]], [[3.0]]]
    dark = project_about_brightest(np.full((1, 3, 3), 3.0), np.arange(9).reshape(1, 3, 3) != 4)
    assert dark.sum() == dark[0, 1, 1] == 3
