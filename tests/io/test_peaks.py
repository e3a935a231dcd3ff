"""Peaks and identifiers given as text or as tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from coblend.core.box import Box
from coblend.core.errors import CoblendError, FormatError, InputMissingError, ParameterError
from coblend.io.deblend.peaks import read_identifiers, read_peaks
from coblend.io.sky.wcs import pixel_to_sky

BOX = Box(200, 100, 30, 40)


@pytest.mark.parametrize("text", ["110.5,205 120,210.25", "110.5,205;120,210.25;"])
def test_pairs(text: str, wcs_cards: tuple[str, ...]) -> None:
    peaks = read_peaks(text, BOX, wcs_cards)
    assert peaks["x"].tolist() == [110.5, 120]
    assert peaks["y"].tolist() == [205, 210.25]
    ra, dec = pixel_to_sky(wcs_cards, BOX, peaks["x"], peaks["y"])
    np.testing.assert_array_equal([peaks["ra"], peaks["dec"]], [ra, dec])


def test_tables_of_pixels_and_of_sky_positions_agree(
    in_folder: Path, wcs_cards: tuple[str, ...]
) -> None:
    """x and y are parent coordinates, whatever the origin of the grid."""
    x, y = np.array([110.5, 120.0]), np.array([205.0, 210.25])
    ra, dec = pixel_to_sky(wcs_cards, BOX, x, y)
    Table({"x": x, "y": y}).write("pixels.csv")
    Table({"ra": ra, "dec": dec}).write("sky.fits")
    for name in ("pixels.csv", "sky.fits"):
        peaks = read_peaks(name, BOX, wcs_cards)
        np.testing.assert_allclose(peaks["x"], x, atol=1e-6)
        np.testing.assert_allclose(peaks["y"], y, atol=1e-6)


def test_identifiers(in_folder: Path) -> None:
    Table({"id": [5, 2**40]}).write("ids.fits")
    assert read_identifiers("ids.fits").tolist() == [5, 2**40]
    assert read_identifiers("3, 4;5").tolist() == [3, 4, 5]
    assert len(read_identifiers("")) == len(read_peaks("", BOX)) == 0


@pytest.mark.parametrize("text", ["150,66,3", "150,66,3,4", "150"])
def test_what_is_no_pair_is_no_list_of_pairs(in_folder: Path, text: str) -> None:
    with pytest.raises(InputMissingError, match="neither x,y pairs nor a file"):
        read_peaks(text, BOX)


def test_bad_input(in_folder: Path) -> None:
    Table({"a": [1.0]}).write("none.fits")
    Table({"x": [1.0, np.nan], "y": [1.0, 2.0]}).write("nan.fits")
    Table({"ra": [150.0], "dec": [2.0]}).write("sky.fits")
    with pytest.raises(FormatError, match="column id"):
        read_identifiers("none.fits")
    with pytest.raises(CoblendError):
        read_peaks("none.fits", BOX)
    with pytest.raises(CoblendError):  # no WCS to place them with
        read_peaks("sky.fits", BOX)
    with pytest.raises(ParameterError, match="row 1"):
        read_peaks("nan.fits", BOX)
    with pytest.raises(InputMissingError):
        read_peaks("absent.fits", BOX)
