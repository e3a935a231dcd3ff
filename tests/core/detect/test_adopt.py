"""Catalogues of other programs as detections: ellipses, discs, segmentation images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from coblend.core.box import Box
from coblend.core.detect.adopt import (
    adopt_segmentation,
    adopt_sources,
    ellipse_spans,
    with_significance,
)
from coblend.core.detection import SourceList
from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.footprint import spans_to_labels


def sources(x, y, **columns):
    n = len(x)
    known = {k: np.asarray(v, float) for k, v in columns.items() if k != "label"}
    arrays = {
        name: known.get(name, np.full(n, np.nan))
        for name in ("flux", "flux_err", "snr", "a", "b", "theta")
    }
    label = np.asarray(columns.get("label", np.zeros(n)), np.int64)
    return SourceList(np.asarray(x, float), np.asarray(y, float), **arrays, label=label)


SKY = np.ones((100, 120), np.float32)
FIELD = Exposure(SKY, np.zeros(SKY.shape, np.int32), SKY, Box(10, 20, 100, 120), band="g")


def test_ellipses_equal_their_inequality():
    rng = np.random.default_rng(1)
    box = Box(-5, 3, 60, 70)
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    for _ in range(100):
        yc, xc = rng.uniform(-10, 60), rng.uniform(0, 75)
        a, b, theta = rng.uniform(1, 20), rng.uniform(1, 10), rng.uniform(0, np.pi)
        u = (x - xc) * np.cos(theta) + (y - yc) * np.sin(theta)
        v = -(x - xc) * np.sin(theta) + (y - yc) * np.cos(theta)
        expected = (u / a) ** 2 + (v / b) ** 2 <= 1
        spans = ellipse_spans(*(np.array([value]) for value in (yc, xc, a, b, theta)), box)
        assert np.array_equal(spans_to_labels(spans, box) > 0, expected)


def test_discs_of_one_radius_that_touch_make_one_parent():
    found, warnings = adopt_sources(
        sources([50, 58, 100], [50, 50, 80], snr=[9, 20, 7]), FIELD, radius=5
    )
    assert not warnings
    assert found.parents["npeak"].tolist() == [2, 1]
    assert found.peaks["ix"].tolist() == [58, 50, 100]  # by significance
    assert found.peaks["merge_peak_g"].all()
    assert (found.peaks["id"] > 0).all()


def test_a_large_radius_covers_a_whole_cut_out():
    found, _ = adopt_sources(sources([50, 90], [50, 80]), FIELD, radius=200)
    assert found.parents["area"].tolist() == [FIELD.box.area]


def test_radius_follows_significance():
    """2 sigma sqrt(ln(snr / 5)) + 2.4 sigma, at least 3."""
    one, _ = adopt_sources(sources([60], [60], snr=[500]), FIELD, sigma=2.0)
    radius = 4 * np.sqrt(np.log(100)) + 4.8
    assert one.parents["area"][0] == pytest.approx(np.pi * radius**2, rel=0.03)
    small, _ = adopt_sources(sources([60], [60], snr=[5]), FIELD, sigma=0.1)
    assert small.parents["area"].tolist() == [29]


def test_ellipses_of_the_catalogue_are_used():
    found, _ = adopt_sources(sources([70], [60], a=[4], b=[2], theta=[0]), FIELD)
    box = found.footprints.box(0)
    assert (box.nx, box.ny) == (25, 13)


def test_significance_is_measured_on_the_image(stars, exposure_of):
    image = stars(FIELD.box.shape, 2.0, [(40, 50, 500.0), (70, 30, 200.0)])
    exposure = exposure_of(image, 4.0, origin=(10, 20))
    given = with_significance(sources([70, 50, 9000], [50, 80, 0]), exposure, 2.0)
    expected = np.array([500, 200]) / (2 * 4 * np.sqrt(np.pi))
    np.testing.assert_allclose(given.snr[:2], expected, rtol=1e-3)
    np.testing.assert_allclose(given.flux[:2], [500, 200], rtol=2e-3)
    assert np.isnan(given.snr[2])
    known = sources([70], [50], snr=[3])
    assert with_significance(known, exposure, 2.0) is known


def test_sources_outside_are_counted_and_doubles_dropped():
    given = sources([50, 500, 50.2, np.nan], [50, 50, 49.9, 40], flux=[1, 2, 3, 4])
    found, warnings = adopt_sources(given, FIELD, radius=4)
    assert warnings == ["2 of 4 sources lie outside the image"]
    assert found.peaks["flux"].tolist() == [3]


@pytest.fixture
def segmentation():
    labels = np.zeros(FIELD.box.shape, int)
    labels[10:20, 10:20] = 1
    labels[15:25, 20:30] = 2  # touches 1
    labels[60:70, 60:75] = 5
    return labels


def test_touching_labels_are_one_parent_with_several_peaks(segmentation):
    given = sources([35, 45, 85], [25, 30, 75], label=[1, 2, 5], flux=[1, 2, 3])
    found, warnings = adopt_segmentation(given, FIELD, segmentation)
    assert not warnings
    assert found.parents["npeak"].tolist() == [2, 1]
    assert np.array_equal(found.footprints.labels(FIELD.box) > 0, segmentation > 0)
    apart, _ = adopt_segmentation(given, FIELD, segmentation, by_label=True)
    assert apart.parents["npeak"].tolist() == [1, 1, 1]
    painted = apart.footprints.labels(FIELD.box)
    assert np.array_equal(painted > 0, segmentation > 0)
    assert len(np.unique(painted)) == 4


def test_labels_are_looked_up_where_the_catalogue_has_none(segmentation):
    found, _ = adopt_segmentation(sources([35, 45, 85], [25, 30, 75]), FIELD, segmentation)
    assert found.parents["npeak"].tolist() == [2, 1]


def test_peaks_outside_their_label_move_to_its_nearest_pixel(segmentation):
    given = sources([35, 52, 85], [25, 30, 75], label=[1, 2, 5])
    found, _ = adopt_segmentation(given, FIELD, segmentation)
    moved = found.peaks[found.peaks["x"] == 52][0]
    assert (moved["iy"], moved["ix"]) == (30, 49)


def test_nearest_pixels_of_scattered_labels_equal_brute_force():
    """Labels in many pieces, most positions beside theirs: the first nearest pixel of each."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 40, FIELD.box.shape, np.int32)
    label = np.repeat(np.arange(1, 40), 5)
    x, y = rng.integers(20, 140, len(label)), rng.integers(10, 110, len(label))
    found, _ = adopt_segmentation(sources(x, y, label=label), FIELD, labels)
    nearest = set()
    for iy, ix, value in zip(y - 10, x - 20, label, strict=True):
        own = np.argwhere(labels == value)
        nearest.add(tuple(own[np.argmin(((own - (iy, ix)) ** 2).sum(1))] + (10, 20)))
    peaks = found.peaks
    assert set(zip(peaks["iy"].tolist(), peaks["ix"].tolist(), strict=True)) == nearest


def test_growth_of_a_segmentation(segmentation):
    given = sources([35, 45, 85], [25, 30, 75], label=[1, 2, 5])
    found, _ = adopt_segmentation(given, FIELD, segmentation, grow=3)
    y, x = np.mgrid[-3:4, -3:4]
    expected = ndimage.binary_dilation(segmentation > 0, y**2 + x**2 <= 9)
    assert np.array_equal(found.footprints.labels(FIELD.box) > 0, expected)


def test_a_few_misfits_are_counted():
    labels = np.zeros((100, 120), int)
    y, x = (g.ravel() for g in np.mgrid[2:98:5, 2:118:5])
    labels[y, x] = np.arange(1, len(y) + 1)
    given = sources(x[1:] + 20, y[1:] + 10, label=np.arange(2, len(y) + 1))
    found, warnings = adopt_segmentation(given, FIELD, labels)
    assert len(found.parents) == len(y) - 1
    assert warnings == [
        f"0 of {len(y) - 1} rows have no label in the segmentation image, 1 of {len(y)} labels "
        "no row"
    ]


def test_wrong_origin_is_caught_on_a_small_off_centre_source():
    """One pixel off, a source of one pixel misses its label."""
    labels = np.zeros((100, 120), int)
    labels[30, 70] = labels[50, 20] = 1
    labels[50, 20] = 2
    right = sources([90, 40], [40, 60])
    assert len(adopt_segmentation(right, FIELD, labels)[0].peaks) == 2
    with pytest.raises(FormatError, match="2 of 2 rows have no label"):
        adopt_segmentation(replace(right, x=right.x + 1, y=right.y + 1), FIELD, labels)


def test_bad_input(segmentation):
    given = sources([35, 45, 85], [25, 30, 75], label=[1, 2, 5])
    with pytest.raises(FormatError, match="120x99 pixels, the exposure 120x100"):
        adopt_segmentation(given, FIELD, segmentation[:-1])
    with pytest.raises(FormatError, match="labels down to -1"):
        adopt_segmentation(given, FIELD, segmentation - 1)
    with pytest.raises(FormatError, match="all labels are 0"):
        adopt_segmentation(given, FIELD, segmentation * 0)
    with pytest.raises(FormatError, match="1 of 3 labels no row"):
        adopt_segmentation(sources([35, 45], [25, 30], label=[1, 2]), FIELD, segmentation)
    with pytest.raises(FormatError, match="none of 1 sources lies in the image"):
        adopt_sources(sources([5], [5]), FIELD, radius=3)
