"""Crowded fields: hundreds of overlapping stars in one parent, fitted with PSFs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from coblend.core.deblend.collect import collect
from coblend.core.deblend.crowded import flux_errors, sparse_nnls
from coblend.core.deblend.point import model_stamps, shifted_stamps
from coblend.core.deblend.task import batches, make_plan
from coblend.core.deblend.work import deblend_work
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.deblend import DeblendParams

CROWDED = DeblendParams(crowded="psf", max_number_of_peaks=50)


def cluster(rng: np.random.Generator, n: int, size: int, closest: float):
    """Stars of power-law fluxes, denser in the middle, none closer than ``closest``."""
    radius, angle = np.abs(rng.normal(0, size / 5, n)), rng.uniform(0, 2 * np.pi, n)
    place = size / 2 + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    place = np.clip(place, 15, size - 15)
    keep = np.ones(n, bool)
    for a, b in sorted(cKDTree(place).query_pairs(closest)):
        keep[b] &= not keep[a]
    flux = np.minimum(100 * rng.uniform(0, 1, n) ** (-1 / 1.2), 1e5)
    return [
        (float(y), float(x), float(f)) for (y, x), f in zip(place[keep], flux[keep], strict=True)
    ]


def run(cube, detections, params=CROWDED) -> ModelSet:
    plan = make_plan(detections, cube, params)
    shares = batches(detections, cube, plan, params)
    results = [r for share in shares for r in deblend_work(share, params)]
    return collect(detections, cube, plan, results, params)


def test_fluxes_are_unbiased(fields, rng) -> None:
    """Positions wrong by 0.1 px: above S/N 20 the median is right, the errors tell the scatter."""
    stars = cluster(rng, 420, 220, 2.5)
    cube, detections = fields.make_scene([stars], (220, 220))
    peaks = detections.peaks
    peaks["x"] += rng.normal(0, 0.1, len(peaks))
    peaks["y"] += rng.normal(0, 0.1, len(peaks))
    models = run(cube, detections)
    assert len(models.objects) == len(stars) > 250
    assert models.objects["flag_psf_only"].all()
    assert abs(models.parents["chi2"][0] - 1) < 0.05
    truth = np.array(stars)[:, 2]
    for b, band in enumerate(cube.bands):
        flux = models.objects[f"model_flux_{band}"]
        error = models.objects[f"model_flux_err_{band}"]
        good = truth * fields.COLOUR[b] / error > 20
        assert np.count_nonzero(good) > 50
        pull = ((flux - truth * fields.COLOUR[b]) / error)[good]
        ratio = (flux / (truth * fields.COLOUR[b]))[good]
        assert abs(np.median(ratio) - 1) < 0.01
        assert abs(np.median(pull)) < 0.4
        assert 1.4826 * np.median(np.abs(pull)) < 1.6


def test_stars_between_pixels_are_found(fields) -> None:
    """Peaks at pixel centres only: the fit moves the stars to their places."""
    stars = [
        (20.0 + 12 * i + 0.4, 20.0 + 12 * j - 0.4, 5000.0) for i in range(8) for j in range(8)
    ]
    cube, detections = fields.make_scene([stars], (130, 130))
    detections.peaks["x"], detections.peaks["y"] = detections.peaks["ix"], detections.peaks["iy"]
    models = run(cube, detections)
    np.testing.assert_allclose(models.objects["model_flux_r"], 5000, rtol=0.02)
    morph = models.morphology(0).astype(float)
    grid = np.indices(morph.shape).reshape(2, -1)
    centre = grid @ morph.ravel() / morph.sum() + [models.components["y0"][0],
                                                   models.components["x0"][0]]  # fmt: skip
    np.testing.assert_allclose(centre, [220.4, 119.6], atol=0.03)


def test_without_the_option_the_parent_is_skipped(fields, rng) -> None:
    stars = cluster(rng, 120, 130, 3)
    cube, detections = fields.make_scene([stars], (130, 130))
    models = run(cube, detections, DeblendParams(max_number_of_peaks=50))
    expected = FLAGS["skipped_too_many_peaks"] | FLAGS["skipped"]
    assert models.parents["flags"][0] == expected
    assert len(models.objects) == len(stars)


def test_sparse_nnls_agrees_with_lawson_and_hanson(rng) -> None:
    for _ in range(20):
        a = rng.normal(size=(40, 15)) + 0.5
        d = rng.normal(size=40)
        x = sparse_nnls(sparse.csc_array(a.T @ a), a.T @ d)
        np.testing.assert_allclose(x, nnls(a, d)[0], atol=1e-6)


def test_unseen_unknowns_stay_zero_without_error_value() -> None:
    gram = sparse.csc_array(np.diag([4.0, 0.0, 1.0]))
    flux = sparse_nnls(gram, np.array([8.0, 0.0, -1.0]))
    np.testing.assert_allclose(flux, [2, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(flux_errors(gram, flux), [0.5, np.nan, 1.0], rtol=1e-6)


def test_flux_errors_are_those_of_the_dense_inverse(rng) -> None:
    a = rng.normal(size=(40, 6))
    gram = a.T @ a
    expected = np.sqrt(np.diag(np.linalg.inv(gram)))
    np.testing.assert_allclose(
        flux_errors(sparse.csc_array(gram), np.ones(6)), expected, rtol=1e-6
    )


@pytest.mark.parametrize("shift", [(0.3, -0.4), (0.0, 0.5)])
def test_shifted_stamps_are_the_function_there(fields, shift) -> None:
    stamp = fields.gaussian(0, 0, 31)
    moved = shifted_stamps(stamp[None], *np.array(shift)[:, None])[0]
    np.testing.assert_allclose(moved, fields.gaussian(*shift, 31), atol=3e-6)


def test_model_stamps_have_their_centroid_where_asked() -> None:
    stamp = model_stamps(np.array([0.4]), np.array([-0.3]))[0]
    r = np.arange(15) - 7
    np.testing.assert_allclose([stamp.sum(1) @ r, stamp.sum(0) @ r], [0.4, -0.3], atol=1e-6)


def test_parent_without_data_fails_by_name(fields, rng) -> None:
    stars = cluster(rng, 120, 130, 3)
    cube, detections = fields.make_scene([stars], (130, 130))
    cube.images[:] = np.nan
    assert run(cube, detections).parents["error"][0] == "NoData"
