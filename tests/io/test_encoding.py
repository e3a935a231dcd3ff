"""Run lengths and error-carrying integers: round trips, bounds, damage."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
from scipy.signal import fftconvolve

from coblend.core.errors import CorruptFileError, FormatError
from coblend.core.footprint import FootprintSet, box_offsets, expand_runs
from coblend.io.deblend.encoding import (
    decode_runs,
    encode_runs,
    footprint_intervals,
    from_codes,
    intervals,
    intervals_to_footprints,
    row_checksums,
    to_codes,
)


def runs_of(mask: np.ndarray) -> list[int]:
    """Alternating run lengths by a plain loop, starting with off."""
    out, current, length = [], False, 0
    for value in mask.ravel().tolist():
        if value != current:
            out.append(length)
            current, length = value, 0
        length += 1
    return [*out, length]


def pixels_of(runs: np.ndarray, counts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    start, stop = decode_runs(runs, counts, offsets)
    return expand_runs(start, stop - start)


def test_runs_equal_a_plain_loop(rng: np.random.Generator) -> None:
    masks = [rng.random(rng.integers(1, 9, 2)) < p for p in rng.random(200)]
    masks += [np.ones((3, 4), bool), np.zeros((3, 4), bool), np.ones((1, 1), bool)]
    offsets = np.cumsum([0, *(m.size for m in masks)])
    pixels = np.flatnonzero(np.concatenate([m.ravel() for m in masks]))
    runs, counts = encode_runs(*intervals(pixels, offsets), offsets)
    assert runs.dtype == np.int16
    expected = [runs_of(m) for m in masks]
    assert counts.tolist() == [len(e) for e in expected]
    assert runs.tolist() == [r for e in expected for r in e]
    assert np.array_equal(pixels_of(runs, counts, offsets), pixels)


@pytest.mark.parametrize("on", [0, 1, 32767, 32768, 65534, 65535, 100_000])
@pytest.mark.parametrize("off", [0, 32767, 32768, 70_000])
def test_long_runs_are_split(on: int, off: int) -> None:
    mask = np.zeros((1, on + off + 5), bool)
    mask[0, off : off + on] = True
    offsets = np.array([0, mask.size])
    runs, counts = encode_runs(*intervals(np.flatnonzero(mask), offsets), offsets)
    assert runs.min() >= 0
    assert runs.sum(dtype=int) == mask.size
    start, _ = decode_runs(runs, counts, offsets)
    assert len(start) == (on > 0)
    assert np.array_equal(pixels_of(runs, counts, offsets), np.flatnonzero(mask))
    parity = np.arange(len(runs)) % 2 == 1  # the documented way to decode
    assert np.array_equal(np.repeat(parity, runs), mask.ravel())


def test_footprints_to_runs_and_back(rng: np.random.Generator) -> None:
    masks = [rng.random((9, 11)) < 0.6 for _ in range(20)] + [np.ones((300, 250), bool)]
    sets = FootprintSet.concatenate([FootprintSet.from_mask(m, 50, -20) for m in masks])
    boxes = sets.boxes().astype(np.int64)
    offsets = box_offsets(boxes)
    start, stop = footprint_intervals(sets, boxes, offsets)
    assert np.all(start < stop)
    assert np.all(stop[:-1] <= start[1:])
    runs, counts = encode_runs(start, stop, offsets)
    back = intervals_to_footprints(*decode_runs(runs, counts, offsets), boxes, offsets)
    assert np.array_equal(back.spans, sets.spans)
    assert np.array_equal(back.offsets, sets.offsets)


def test_errors_after_convolution_stay_within_the_bound(rng: np.random.Generator) -> None:
    """1000 kernels, half with negative lobes: error <= step / 2 * total variation along rows."""
    worst = 0.0
    for _ in range(1000):
        side = int(rng.choice([3, 5, 9, 15]))
        kernel = rng.normal(rng.uniform(0, 2), 1, (side, side))
        shape = tuple(rng.integers(1, 14, 2))
        mask = rng.random(shape) < rng.uniform(0.2, 1)
        mask.flat[0] = True
        values = np.where(mask, rng.lognormal(0, 2, shape) * rng.choice([-1, 1], shape), 0)
        step = float(rng.uniform(0.01, 2))
        n = np.array([mask.sum()])
        codes = to_codes(values[mask], n, np.array([step]))
        error = np.zeros(shape)
        error[mask] = codes * step - values[mask]
        variation = np.abs(np.diff(kernel, axis=1, prepend=0, append=0)).sum()
        bound = step / 2 * variation
        worst = max(worst, np.abs(fftconvolve(error, kernel)).max() / bound)
        assert abs(error.sum()) <= step / 2 * (1 + 1e-9)
        assert np.abs(error).max() <= step * (1 + 1e-9)
    assert 0.3 < worst <= 1.0


def test_faint_wings_keep_their_flux() -> None:
    """Plain rounding of an exponential profile in steps of 3 % of its peak loses 5.7 % of it."""
    y, x = np.mgrid[-40:41, -40:41]
    profile = np.exp(-np.hypot(y, x) / 4.0).ravel()
    n, step = np.array([profile.size]), np.array([0.03])
    kept = from_codes(to_codes(profile, n, step), n, step).sum(dtype=np.float64)
    plain = (np.rint(profile / 0.03) * 0.03).sum()
    assert abs(kept / profile.sum() - 1) < 1e-4
    assert plain / profile.sum() - 1 == pytest.approx(-0.057, abs=1e-3)


def test_groups_do_not_leak_into_each_other(rng: np.random.Generator) -> None:
    counts = np.array([5, 0, 17, 1, 40])
    steps = rng.uniform(0.1, 2, 5)
    values = rng.normal(size=63) * 10
    together = to_codes(values, counts, steps)
    ends = np.cumsum(counts)
    alone = [
        to_codes(values[e - c : e], np.array([c]), steps[i : i + 1])
        for i, (e, c) in enumerate(zip(ends, counts, strict=True))
    ]
    assert np.array_equal(together, np.concatenate(alone))


def test_checksums_cover_all_parts_in_order() -> None:
    table = np.array([(1, 2.5, "ab"), (3, -1.0, "")], [("id", "i8"), ("f", "f4"), ("t", "U4")])
    codes = np.arange(5, dtype=np.int32)
    each, one = np.arange(2), np.ones(2, int)
    found = row_checksums([(table, each, one), (codes, np.array([0, 3]), np.array([3, 2]))], 2)
    first = np.int64(1).tobytes() + np.float32(2.5).tobytes() + b"ab\0\0" + codes[:3].tobytes()
    assert found[0] == crc32(first)
    assert found[1] != found[0]


def test_runs_that_do_not_fill_the_box_are_damage() -> None:
    offsets = np.array([0, 10])
    with pytest.raises(CorruptFileError, match="do not add up"):
        decode_runs(np.array([3, 4], np.int16), np.array([2]), offsets)
    with pytest.raises(CorruptFileError, match="damaged"):
        decode_runs(np.array([-3, 13], np.int16), np.array([2]), offsets)
    with pytest.raises(CorruptFileError, match="damaged"):
        decode_runs(np.array([10], np.int16), np.array([2]), offsets)


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(FormatError, match="not finite, or its storage step is too small"):
        to_codes(np.array([1.0]), np.array([1]), np.array([1e-12]))
    with pytest.raises(FormatError, match="not finite"):
        to_codes(np.array([np.nan]), np.array([1]), np.array([1.0]))
