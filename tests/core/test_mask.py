"""Mask planes are combined by name."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.errors import FormatError, ParameterError
from coblend.core.mask import PLANES, STANDARD, MaskPlanes


def test_numbers_are_those_of_the_contract() -> None:
    assert [PLANES[n] for n in ("BAD", "NO_DATA", "REJECTED", "CLIPPED", "CROSSTALK")] == [
        0, 8, 11, 12, 18,
    ]  # fmt: skip


def test_remap_moves_every_bit_by_name(rng: np.random.Generator) -> None:
    own = MaskPlanes({"SAT": 0, "BAD": 1, "GHOST": 7, "NO_DATA": 8})
    target = own.union(STANDARD)
    mask = rng.integers(0, 1 << 10, (20, 30)).astype(np.int32)
    moved = own.remap(mask, target)
    for name, bit in own.bits.items():
        assert np.array_equal(moved >> target.bits[name] & 1, mask >> bit & 1), name
    assert target.bits["GHOST"] == 19
    assert not np.any(moved & ~np.int32(target.value(own.bits))), "unnamed bits are dropped"


def test_remap_without_change_is_free() -> None:
    mask = np.array([[1, 256]], np.int32)
    assert STANDARD.remap(mask, STANDARD) is mask


def test_misspelt_planes_are_refused_and_absent_ones_are_not() -> None:
    assert MaskPlanes({"BAD": 3}).value(["BAD", "SAT"]) == 8
    with pytest.raises(ParameterError, match="no mask plane SATT"):
        STANDARD.value(["SATT"])


def test_shared_bits_and_too_many_names_are_refused() -> None:
    with pytest.raises(FormatError, match="A and B are both bit 2"):
        MaskPlanes({"A": 2, "B": 2})
    with pytest.raises(FormatError, match="room for 4"):
        MaskPlanes({f"X{i}": i for i in range(5)}).union(STANDARD)
