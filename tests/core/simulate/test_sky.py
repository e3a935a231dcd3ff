"""Skies: what they hold, that images add up, that the seed decides."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.errors import ParameterError
from coblend.core.params.simulate import SimulateParams
from coblend.core.simulate.profiles import moffat_transfer
from coblend.core.simulate.sky import random_sky, sky_images, source_images

PARAMS = SimulateParams()


@pytest.fixture(scope="module")
def sky():
    return random_sky(PARAMS, np.random.default_rng(3))


def test_blends_of_two_to_eight_and_singles(sky):
    size = np.bincount(sky.sources["blend"])
    assert size[0] == PARAMS.singles
    assert set(size[1:]) == {2, 3, 4, 5, 6, 7, 8}
    assert len(size) - 1 == PARAMS.blends


def test_members_are_close_and_groups_apart(sky):
    """In a group the nearest neighbour is 1 to 1.8 separations away; groups 4 seeings or more."""
    position = np.stack([sky.sources["y"], sky.sources["x"]], axis=1)
    distance = np.hypot(*(position[:, None] - position[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    group = np.where(sky.sources["blend"] > 0, sky.sources["blend"], -sky.sources["id"])
    same = group[:, None] == group[None]
    nearest = np.where(same, distance, np.inf).min(axis=1)[sky.sources["blend"] > 0]
    separation = PARAMS.separation * PARAMS.seeing
    assert nearest.min() >= separation
    assert nearest.max() <= 1.8 * separation
    assert distance[~same].min() > 4 * PARAMS.seeing


def test_fluxes_shapes_and_colours_vary(sky):
    s = sky.sources
    galaxy = s["kind"] == "galaxy"
    assert 0.5 < galaxy.mean() < 0.9
    assert np.all(s["disk_radius"][~galaxy] == 0)
    assert np.all(s["bulge_flux_i"][~galaxy] == 0)
    assert np.all(s["bulge_flux_r"][galaxy] < s["flux_r"][galaxy])
    assert np.ptp(s["disk_axis_ratio"][galaxy]) > 0.4
    assert np.std(s["flux_g"] / s["flux_i"]) > 0.1
    low, high = (10 ** (0.4 * (31.4 - m)) for m in (PARAMS.faintest, PARAMS.brightest))
    assert low <= s["flux_i"].min() < 1.5 * low
    assert 0.1 * high < s["flux_i"].max() <= high


def test_image_is_the_sum_of_its_sources_and_holds_their_flux(sky):
    transfers = np.stack([moffat_transfer(4.0, 3.5), moffat_transfer(3.0, 3.0)])
    total = sky_images(sky, "r", transfers)
    by_hand = np.zeros_like(total)
    for box, images in source_images(sky, "r", transfers):
        common = box & sky.box
        by_hand[(slice(None), *common.slices(sky.box))] += images[
            (slice(None), *common.slices(box))
        ]
    np.testing.assert_allclose(total, by_hand, atol=1e-9 * total.max())
    np.testing.assert_allclose(total.sum(axis=(1, 2)), sky.sources["flux_r"].sum(), rtol=2e-3)


def test_a_star_lands_on_its_position(sky):
    """The centroid of a bright star's stamp is its true position (0-based pixel centres)."""
    star = int(np.argmax(np.where(sky.sources["kind"] == "star", sky.sources["flux_i"], 0)))
    for i, (box, images) in enumerate(source_images(sky, "i", moffat_transfer(3.5, 4.0)[None])):
        if i == star:
            y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
            total = images[0].sum()
            assert (images[0] * x).sum() / total == pytest.approx(sky.sources["x"][i], abs=1e-3)
            assert (images[0] * y).sum() / total == pytest.approx(sky.sources["y"][i], abs=1e-3)


def test_the_seed_decides(sky):
    again = random_sky(PARAMS, np.random.default_rng(3))
    other = random_sky(PARAMS, np.random.default_rng(4))
    assert sky.sources.tobytes() == again.sources.tobytes()
    assert not np.array_equal(sky.sources["x"], other.sources["x"])


def test_empty_sky():
    params = SimulateParams(blends=0, singles=0)
    sky = random_sky(params, np.random.default_rng(0))
    assert len(sky.sources) == 0
    assert not sky_images(sky, "g", moffat_transfer(4.0, 3.0)[None]).any()


def test_no_room():
    with pytest.raises(ParameterError, match="no room for 400 groups"):
        random_sky(SimulateParams(size=100, blends=300, singles=100), np.random.default_rng(0))


def test_magnitudes_reversed():
    with pytest.raises(ParameterError, match=r"faintest is 18 mag, brightest 20 mag"):
        SimulateParams(faintest=18.0, brightest=20.0)


@pytest.mark.parametrize(
    ("bands", "message"),
    [((), "bands is empty"), (("g", "g"), "band g is given twice"), (("a b",), "band 'a b'")],
)
def test_bands(bands, message):
    with pytest.raises(ParameterError, match=message):
        SimulateParams(bands=bands)
