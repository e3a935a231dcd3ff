"""Exposures: usable pixels, pixels without data, and bands stacked on one grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coblend.core import exposure as module
from coblend.core.box import Box
from coblend.core.errors import ParameterError, ShapeMismatchError
from coblend.core.exposure import Cube, Exposure, fill_no_data, round_mantissa
from coblend.core.mask import PLANES, MaskPlanes
from coblend.core.psf import AnalyticPsf

BOX = Box(10, 20, 2, 3)


def plain(**changes: object) -> Exposure:
    """An exposure of 3 x 2 good pixels."""
    return replace(
        Exposure(
            np.ones((2, 3), np.float32), np.zeros((2, 3), np.int32),
            np.full((2, 3), 4, np.float32), BOX, band="r", unit="nJy",
        ),
        **changes,
    )  # fmt: skip


def bits(*names: str) -> int:
    return sum(1 << PLANES[name] for name in names)


def test_good_pixels_have_finite_values_positive_variance_and_no_bad_plane() -> None:
    image = np.array([[1, np.nan, 1], [1, 1, 1]], np.float32)
    variance = np.array([[4, 4, np.inf], [0, -1, 4]], np.float32)
    assert np.array_equal(
        plain(image=image, variance=variance).good(), [[True, False, False], [False, False, True]]
    )
    mask = np.array([[bits("BAD"), bits("CR"), 0], [bits("NO_DATA"), 0, 0]], np.int32)
    some = plain(mask=mask)
    assert np.array_equal(some.good(), [[True, True, True], [False, True, True]])
    assert np.array_equal(some.good(["BAD", "CR"]), [[False, False, True], [True, True, True]])


def test_interpolated_pixels_are_good_where_any_value_will_do() -> None:
    mask = np.array([[bits("BAD"), bits("BAD", "INTRP"), bits("INTRP")], [0, 0, 0]], np.int32)
    some = plain(mask=mask)
    assert np.array_equal(some.good(["BAD"]), [[False, False, True], [True, True, True]])
    filled = some.good(["BAD"], filled=True)
    assert np.array_equal(filled, [[False, True, True], [True, True, True]])


@pytest.mark.parametrize("block", [1, 100])
def test_unusable_pixels_are_marked_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, block: int
) -> None:
    """Image 0, variance +inf, NO_DATA; only pixels that had no NO_DATA before are counted."""
    monkeypatch.setattr(module, "_BLOCK", block)
    image = rng.choice([1.0, np.nan, -np.inf], (7, 5), p=[0.8, 0.1, 0.1]).astype(np.float32)
    variance = rng.choice([2.0, 0.0, -1.0, np.nan, np.inf], (7, 5)).astype(np.float32)
    mask = rng.choice([0, bits("NO_DATA"), bits("SAT")], (7, 5)).astype(np.int32)
    unusable = ~(np.isfinite(image) & np.isfinite(variance) & (variance > 0))
    fresh = unusable & (mask & bits("NO_DATA") == 0)
    expected = mask | np.where(unusable, bits("NO_DATA"), 0)
    assert fill_no_data(image, mask, variance) == np.count_nonzero(fresh)
    assert np.array_equal(mask, expected)
    assert np.array_equal(image, np.where(unusable, 0, 1))
    assert np.array_equal(variance, np.where(unusable, np.inf, 2))
    assert fill_no_data(image, mask, variance) == 0


def test_a_cube_matches_planes_by_name_and_gives_back_its_exposures() -> None:
    """CR is another bit in the second band, and GHOST is known to it alone."""
    own = MaskPlanes({"CR": 0, "GHOST": 5})
    psf = AnalyticPsf("GAUSSIAN", 3.0)
    second = plain(
        image=np.full((2, 3), 2, np.float32), mask=np.full((2, 3), 0b100001, np.int32), planes=own,
        band="i", unit="adu", psf=psf,
    )  # fmt: skip
    cube = Cube.from_exposures([plain(mask=np.full((2, 3), bits("SAT"), np.int32)), second])
    assert cube.bands == ("r", "i")
    assert cube.psfs == (None, psf)
    first, back = cube.exposure(0), cube.exposure(1)
    assert np.all(first.mask == first.planes.value(["SAT"]))
    assert np.all(back.mask == back.planes.value(["CR", "GHOST"]))
    assert (back.band, back.unit, back.psf, back.box) == ("i", "adu", psf, BOX)
    assert np.array_equal(back.image, second.image)


def test_mantissas(rng: np.random.Generator) -> None:
    """Powers of two, zeros, negative and non-finite values stay; others to half a step."""
    kept = np.array([1, 2, 0.5, 2.0**-100, 0, -1.234567, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(round_mantissa(kept), kept)
    values = np.exp(rng.uniform(-60, 60, 10_000)).astype(np.float32)
    rounded = round_mantissa(values)
    assert np.abs(rounded / values - 1).max() <= 2.0**-11
    assert len(np.unique(rounded.view(np.uint32) & 0x1FFF)) == 1


def test_planes_and_boxes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeMismatchError, match="MASK has 2x2 pixels, IMAGE 3x2"):
        plain(mask=np.zeros((2, 2), np.int32))
    with pytest.raises(ShapeMismatchError, match="IMAGE has 3x2 pixels, its box 3x3"):
        plain(box=Box(0, 0, 3, 3))
    with pytest.raises(ShapeMismatchError, match=r"band i covers .*, band r"):
        Cube.from_exposures([plain(), plain(band="i", box=Box(0, 0, 2, 3))])
    with pytest.raises(ParameterError, match="no exposures given"):
        Cube.from_exposures([])


def test_what_a_notebook_shows() -> None:
    """One line without arrays."""
    text = repr(plain())
    assert text.startswith("Exposure(band=")
    assert "array" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("bands", "text"),
    [
        (("i", "I"), "bands i and I would share columns"),
        (("r-1", "r+1"), "bands r-1 and r\\+1 would share columns"),
        (("g", "err_g"), "bands g and err_g would share columns"),
        (("overlap_frac_g", "g"), "bands g and overlap_frac_g would share columns"),
        (("g", "Sky"), "cannot be named Sky"),
    ],
)
def test_bands_whose_columns_would_have_one_name(bands: tuple[str, ...], text: str) -> None:
    """FITS columns i and I are one."""
    with pytest.raises(ParameterError, match=text):
        Cube.from_exposures([plain(band=band) for band in bands])
    Cube.from_exposures([plain(band=band) for band in ("g", "r", "F606W", "sky_1")])
