"""Identifiers: unique, positive, decodable, independent of the cut-out."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.detect.identifiers import (
    FOREIGN,
    MERGED,
    PARENT,
    PEAK,
    band_code,
    check_band_codes,
    check_grid,
    decode,
    encode,
)
from coblend.core.errors import FormatError, ParameterError
from coblend.core.params.common import MAX_FIELD


def test_every_pixel_has_its_own_and_comes_back():
    box = Box(-7, 65530, 40, 30)
    y, x = (g.ravel() for g in np.mgrid[box.y0 : box.y1, box.x0 : box.x1])
    ids = encode(MAX_FIELD, FOREIGN, PEAK, y, x)
    assert ids.dtype == np.int64
    assert len(np.unique(ids)) == len(ids)
    assert (ids > 0).all()
    back = decode(ids, box)
    assert np.array_equal(back[0], y)
    assert np.array_equal(back[1], x)


def test_the_corner_pixel_is_positive_too():
    for code in (MERGED, FOREIGN, *(band_code(b) for b in "ugrizyJHK"), band_code("F606W")):
        assert encode(0, code, PARENT, 0, 0) > 0


def test_parts_of_the_key():
    key = int(encode(5, 3, PEAK, 10, 20))
    assert key >> 39 == 5
    assert key >> 33 & 63 == 3
    assert key >> 31 & 3 == PEAK
    assert (key >> 16 & 32767, key & 65535) == (10, 20)


def test_band_codes():
    assert [band_code(b) for b in "ugrizyJHK"] == list(range(1, 10))
    space = ["F435W", "F475W", "F606W", "F814W", "F850LP", "F105W", "F110W", "F125W", "F160W",
             "F090W", "F115W", "F150W", "F200W", "F277W", "F356W", "F444W", "F770W"]  # fmt: skip
    check_band_codes(["g", "r", "i", *space])
    check_band_codes(["VIS", "NIR_Y", "NIR_J", "NIR_H"])
    others = [band_code(f"F{n}W") for n in range(100, 900)]
    assert min(others) >= 10
    assert max(others) <= 61


def test_bad_input():
    names = [f"F{n}W" for n in range(100, 200)]
    same = next(n for n in names[1:] if band_code(n) == band_code(names[0]))
    with pytest.raises(ParameterError, match=f"{names[0]} and {same} have the same"):
        check_band_codes(["g", names[0], same])
    check_grid(Box(0, 0, 32768, 65536))
    with pytest.raises(FormatError, match="70000x10"):
        check_grid(Box(0, 0, 10, 70000))
