"""Flat stamps agree with plain loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.footprint import box_offsets
from coblend.core.kernels import model_psf
from coblend.core.model import CUBE, POINT
from coblend.core.reconstruct.stamps import (
    Stamps,
    common_pixels,
    component_stamps,
    object_stamps,
)


def test_common_pixels_equal_a_plain_loop(rng: np.random.Generator) -> None:
    n = 30
    boxes = np.concatenate([rng.integers(-8, 8, (n, 2)), rng.integers(0, 9, (n, 2))], axis=1)
    frames = np.concatenate([rng.integers(-8, 8, (n, 2)), rng.integers(0, 9, (n, 2))], axis=1)
    offsets, starts = box_offsets(boxes)[:-1], box_offsets(frames)[:-1]
    inside, there, counts = common_pixels(boxes, offsets, frames, starts)

    expected = []
    for i in range(n):
        y0, x0, ny, nx = boxes[i]
        fy, fx, my, mx = frames[i]
        for y in range(y0, y0 + ny):
            for x in range(x0, x0 + nx):
                if fy <= y < fy + my and fx <= x < fx + mx:
                    expected.append(
                        (offsets[i] + (y - y0) * nx + x - x0, starts[i] + (y - fy) * mx + x - fx)
                    )
    assert list(zip(inside, there, strict=True)) == expected
    assert counts.sum() == len(expected)


def test_objects_are_the_sum_of_their_components(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 8, kinds=True)
    stamps = object_stamps(models, 1)
    parts = component_stamps(models, 1)
    rows = np.flatnonzero(models.objects["n_component"])
    assert len(stamps) == len(rows)
    for i, row in enumerate(models.objects[rows]):
        y0, x0, ny, nx = stamps.boxes[i]
        expected = np.zeros((ny, nx))
        for c in range(row["component0"], row["component0"] + row["n_component"]):
            cy, cx, my, mx = parts.boxes[c]
            expected[cy - y0 : cy - y0 + my, cx - x0 : cx - x0 + mx] += parts.stamp(c)
        np.testing.assert_allclose(stamps.stamp(i), expected, rtol=1e-15)


def test_kinds_of_component(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 8, kinds=True)
    kinds = models.components["kind"]
    parts = component_stamps(models, 2)
    cube = int(np.flatnonzero(kinds == CUBE)[0])
    start, stop = models.morph_offsets[cube : cube + 2]
    expected = models.morph[start:stop].reshape(3, -1)[2] * models.spectra()[cube, 2]
    np.testing.assert_allclose(parts.stamp(cube).ravel(), expected, rtol=1e-6)
    point = int(np.flatnonzero(kinds == POINT)[0])
    np.testing.assert_allclose(parts.stamp(point), 40.0 * model_psf(), rtol=1e-6)
    row = models.components[point]
    assert tuple(parts.boxes[point]) == (row["peak_y"] - 7, row["peak_x"] - 7, 15, 15)


def test_sums(rng: np.random.Generator) -> None:
    boxes = np.array([[0, 0, 2, 3], [5, 5, 0, 4], [1, 1, 1, 1]])
    stamps = Stamps(boxes, rng.normal(size=7))
    assert stamps.sums() == pytest.approx([stamps.values[:6].sum(), 0.0, stamps.values[6]])


def test_models_without_components(rng: np.random.Generator, scenes) -> None:
    models = scenes.make_models(rng, 1)
    assert len(object_stamps(models, 0)) == 0
    assert len(component_stamps(models, 0)) == 0
