"""What headers say of units and zero points."""

from __future__ import annotations

import pytest

from coblend.io.exposure.calibration import is_surface_brightness, on_pixels, raised


@pytest.mark.parametrize(
    "unit",
    ["MJy/sr", "MJy / sr", "Jy sr-1", "mJy/arcsec2", "erg/(s cm2 arcsec**2)", "Jy arcsec^-2"],
)
def test_units_of_surface_brightness(unit: str) -> None:
    assert is_surface_brightness(unit)


@pytest.mark.parametrize("unit", ["", "nJy", "adu/s", "erg/s/cm2/Angstrom", "DN/pixel", "Jy/beam"])
def test_units_of_flux(unit: str) -> None:
    assert not is_surface_brightness(unit)


def test_pixels_of_another_area() -> None:
    """Without ``PIXAR_SR`` the area is that of the WCS; what is unknown stays unknown."""
    assert on_pixels({"MAGZERO": 20.0, "A": 1}, 0.1, 0.2) == {"MAGZERO": 21.505149978, "A": 1}
    assert on_pixels({"PIXAR_A2": 9.0}, 0.5, 0.2) == {"PIXAR_A2": 0.25}
    area = on_pixels({"PIXAR_SR": 1.0, "MAGZERO": 0.0}, 1.0, 5.0)
    assert area["PIXAR_SR"] == pytest.approx(2.3504430539e-11)
    assert area["MAGZERO"] == pytest.approx(26.572126, abs=1e-6)


@pytest.mark.parametrize(
    ("unit", "square"),
    [
        ("", ""),
        ("nJy", "nJy**2"),
        ("nJy**-1", "nJy**-2"),
        ("MJy/sr", "MJy**2/sr**2"),
        ("mJy arcsec-2", "mJy**2 arcsec**-4"),
        ("10**6 Jy", "(10**6 Jy)**2"),
    ],
)
def test_unit_of_the_variance(unit: str, square: str) -> None:
    """Every factor of the image's unit is squared."""
    assert raised(unit, 2) == square
