"""Shares add up to one; stray light goes where the rule says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.reconstruct.frames import Frames
from coblend.core.reconstruct.share import (
    Pieces,
    join,
    positive_shares,
    reference_shares,
    settle_excess,
    stray_pieces,
    template_pieces,
    whole_pieces,
)
from coblend.core.reconstruct.stamps import Stamps


def make_frames(*boxes: tuple[int, int, int, int]) -> Frames:
    table = np.array(boxes)
    n = int((table[:, 2] * table[:, 3]).sum())
    full, none = np.ones(n, bool), np.zeros(n, bool)
    return Frames(table, full, np.ones(n, np.float32), np.ones(n, np.float32), none, none)


def random_pieces(rng: np.random.Generator, n_owner: int, n_pixel: int) -> Pieces:
    owner, pixel = np.nonzero(rng.random((n_owner, n_pixel)) < 0.6)
    return Pieces(owner, pixel, rng.lognormal(0, 2, len(owner)), np.arange(len(owner)))


def test_positive_shares_add_up_to_one(rng: np.random.Generator) -> None:
    pieces = random_pieces(rng, 5, 200)
    pieces.value[rng.random(len(pieces.value)) < 0.1] = 0.0
    shares = positive_shares(pieces, 200)
    total = np.bincount(shares.pixel, shares.value, minlength=200)
    np.testing.assert_allclose(total[total > 0], 1.0, rtol=1e-14)
    assert shares.value.min() > 0


def test_other_templates_keep_their_share(rng: np.random.Generator) -> None:
    pieces = random_pieces(rng, 3, 50)
    other = rng.random(50)
    shares = positive_shares(pieces, 50, other)
    own = np.bincount(pieces.pixel, pieces.value, minlength=50)
    total = np.bincount(shares.pixel, shares.value, minlength=50)
    np.testing.assert_allclose(total, own / (own + other), rtol=1e-13)


@pytest.mark.parametrize("with_other", [False, True])
def test_small_shares_go_to_the_others(rng: np.random.Generator, with_other: bool) -> None:
    pieces = random_pieces(rng, 4, 100)
    other = np.full(100, 0.5) if with_other else None
    shares = positive_shares(pieces, 100, other, min_ratio=0.1)
    plain = positive_shares(pieces, 100, other)
    assert len(shares.value) == np.count_nonzero(plain.value >= 0.1) < len(plain.value)
    total = np.bincount(shares.pixel, shares.value, minlength=100)
    if not with_other:
        np.testing.assert_allclose(total[total > 0], 1.0, rtol=1e-14)
    assert total.max() <= 1 + 1e-14


def test_reference_shares_are_clipped_ratios_of_absolute_values() -> None:
    pieces = Pieces(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]),
                    np.array([3.0, -1.0, 2.0, -2.0]), np.arange(4))  # fmt: skip
    shares = reference_shares(pieces, 2)
    assert shares.value.tolist() == [1.0, 0.5]  # 3/2 is clipped; pixel 1 has |2 - 2| = 0
    assert shares.pixel.tolist() == [0, 0]


def test_equal_templates_share_equally_and_zero_gets_nothing() -> None:
    frames = make_frames((0, 0, 5, 5))
    values = np.concatenate([np.full(25, 2.0), np.full(25, 2.0), np.zeros(25)])
    stamps = Stamps(np.array([[0, 0, 5, 5]] * 3), values)
    pieces = template_pieces(frames, stamps, np.arange(3), np.zeros(3, int))
    shares = positive_shares(pieces, 25)
    assert np.all(shares.value == 0.5)
    assert set(shares.owner) == {0, 1}


def test_round_off_of_the_transform_counts_as_zero() -> None:
    frames = make_frames((0, 0, 1, 3))
    stamps = Stamps(np.array([[0, 0, 1, 3]] * 2), np.array([1.0, 1e-12, 0.0, 1e-3, 2e-10, -1e-11]))
    pieces = template_pieces(frames, stamps, np.array([4, 7]), np.zeros(2, int))
    assert list(zip(pieces.owner, pieces.pixel, strict=True)) == [(4, 0), (7, 0), (7, 1)]


def test_templates_are_confined_to_the_footprint() -> None:
    frames = make_frames((0, 0, 2, 2))
    frames.inside[:] = [True, False, True, False]
    stamps = Stamps(np.array([[-1, -1, 3, 3]]), np.ones(9))
    inside = template_pieces(frames, stamps, np.zeros(1, int), np.zeros(1, int))
    assert inside.pixel.tolist() == [0, 2]
    free = template_pieces(frames, stamps, np.zeros(1, int), np.zeros(1, int), confined=False)
    assert free.pixel.tolist() == [0, 1, 2, 3]


def test_whole_footprints() -> None:
    frames = make_frames((0, 0, 2, 2), (9, 9, 1, 3))
    frames.inside[5] = False
    pieces = whole_pieces(frames, np.array([8]), np.array([1]))
    assert pieces.pixel.tolist() == [4, 6]
    assert pieces.owner.tolist() == [8, 8]
    assert np.all(pieces.value == 1.0)


def test_join_sorts_by_owner_then_pixel(rng: np.random.Generator) -> None:
    a, b = random_pieces(rng, 3, 20), random_pieces(rng, 3, 20)
    whole = join([a, b])
    order = list(zip(whole.owner, whole.pixel, strict=True))
    assert order == sorted(order)
    assert len(order) == len(a.owner) + len(b.owner)


@pytest.mark.parametrize("neighbours", [False, True])
def test_a_bleed_trail_belongs_to_its_star(neighbours: bool) -> None:
    """A row of saturated pixels from a star (object 0) across a faint one: 1 beyond 5 sigma.

    The star's template ends at pixel 6, the other one is about pixel 7.
    """
    bad = np.repeat([False, True, False], 10)
    frames = replace(make_frames((0, 0, 3, 10)), bad=bad)
    templates = np.zeros((2, 3, 10))
    templates[0, :, :6], templates[1, :, 6:9] = [100, 80, 40, 20, 10, 5], [1, 6, 1]
    templates[1, :, 5] = 1
    owner, place = np.nonzero(templates.reshape(2, 30))
    pieces = Pieces(owner.astype(np.int32), place, templates.reshape(2, 30)[owner, place],
                    np.arange(len(owner)))  # fmt: skip
    other = np.full(30, 2.0) if neighbours else None
    image = frames.image.reshape(3, 10)
    image[:] = templates.sum(0) + (2 if neighbours else 0)
    image[1] = [90, 500, 500, 500, 500, 500, 500, 500, 12, 500]
    image[2, 3] = 0  # a hole that both have a share of
    shares = positive_shares(pieces, 30, other)
    settled = settle_excess(shares, pieces, frames, other)
    light = np.zeros((2, 30))
    light[settled.owner, settled.pixel] = settled.value * frames.image[settled.pixel]
    before = np.zeros((2, 30))
    before[shares.owner, shares.pixel] = shares.value * frames.image[shares.pixel]
    light, before = light.reshape(2, 3, 10), before.reshape(2, 3, 10)
    np.testing.assert_array_equal(light[:, ::2], before[:, ::2])  # rows that are not bad
    np.testing.assert_array_equal(light[:, 1, 0], before[:, 1, 0])  # darker than the model
    np.testing.assert_allclose(light[1, 1, 5:8], [1, 1, 6], rtol=1e-6)
    theirs = 2 if neighbours else 0
    np.testing.assert_allclose(light[0, 1, 1:8], 500 - light[1, 1, 1:8] - theirs, rtol=1e-6)
    assert light[0, 1, 8] > 0  # 12 is 5 sigma above the models and connected
    reached = light.sum(0) > 0
    reached[1, 0] = False  # shared with the neighbours as before
    np.testing.assert_allclose(light.sum(0)[reached], image[reached] - theirs, rtol=1e-6)
    assert settle_excess(shares, pieces, make_frames((0, 0, 3, 10))) is shares


def test_stray_light_goes_to_the_nearest_peak() -> None:
    frames = make_frames((10, 20, 4, 6), (50, 50, 1, 1))
    stray = np.arange(24)
    owner, parent = np.array([5, 6]), np.zeros(2, int)
    peaks = np.array([[11, 21], [12, 24]])
    pieces = join(stray_pieces("nearest", stray, frames, owner, parent, peaks))
    y, x = np.divmod(stray, 6)
    distance = [(y + 10 - py) ** 2 + (x + 20 - px) ** 2 for py, px in peaks]
    expected = np.where(distance[0] <= distance[1], 5, 6)  # ties: the first
    assert np.array_equal(pieces.owner[np.argsort(pieces.pixel)], expected)


def test_the_first_of_equally_near_peaks_wins(rng: np.random.Generator) -> None:
    frames = make_frames((0, 0, 30, 40))
    peaks = rng.integers(0, 30, (50, 2))
    who = np.arange(50)
    pieces = join(stray_pieces("nearest", np.arange(1200), frames, who, 0 * who, peaks))
    y, x = np.divmod(np.arange(1200), 40)
    distance = (y[:, None] - peaks[:, 0]) ** 2 + (x[:, None] - peaks[:, 1]) ** 2
    assert np.array_equal(pieces.owner[np.argsort(pieces.pixel)], distance.argmin(axis=1))


def test_stray_light_by_distance_adds_up_to_one() -> None:
    frames = make_frames((0, 0, 3, 40))
    owner, parent, peaks = np.arange(2), np.zeros(2, int), np.array([[1, 0], [1, 39]])
    stray = np.arange(120)
    pieces = join(stray_pieces("r-to-peak", stray, frames, owner, parent, peaks))
    total = np.bincount(pieces.pixel, pieces.value)
    np.testing.assert_allclose(total, 1.0, rtol=1e-14)
    at_peak = (pieces.pixel == 40) & (pieces.owner == 1)
    assert not at_peak.any()  # 1/1522 of the weight at the peak is below the clip
    middle = pieces.value[(pieces.pixel == 60)]
    np.testing.assert_allclose(middle, [(1 + 19**2) / (2 + 19**2 + 20**2)][::-1] * 2, atol=0.06)


def test_stray_light_without_takers_stays() -> None:
    frames = make_frames((0, 0, 2, 2))
    none = np.zeros(0, int)
    none_there = np.zeros((0, 2), int)
    assert stray_pieces("nearest", np.arange(4), frames, none, none, none_there) == []
