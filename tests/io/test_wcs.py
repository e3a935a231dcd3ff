"""Sky positions and comparisons of grids, against astropy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.io.sky.wcs import (
    celestial,
    grid_offset,
    pixel_scale,
    pixel_to_pixel,
    pixel_to_sky,
    shift_cards,
    sky_to_pixel,
    wcs_cards,
)

BOX = Box(1000, 2000, 400, 500)


def header(projection: str, **extra: object) -> fits.Header:
    cards = fits.Header()
    for key, value in {
        "CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}", "CRPIX1": 250.5,
        "CRPIX2": 200.5, "CRVAL1": 34.5, "CRVAL2": -5.25, "CD1_1": -5.5e-5, "CD1_2": 1e-6,
        "CD2_1": 1.2e-6, "CD2_2": 5.5e-5, "CUNIT1": "deg", "CUNIT2": "deg", **extra,
    }.items():  # fmt: skip
        cards[key] = value
    return cards


def lines(cards: fits.Header) -> tuple[str, ...]:
    return wcs_cards([card.image for card in cards.cards])


CASES = {
    "TAN": header("TAN"),
    "TAN-SIP": header(
        "TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=2e-6, B_0_2=-3e-6, A_1_1=1e-6, AP_ORDER=1,
        BP_ORDER=1, AP_1_0=0.0, BP_0_1=0.0,
    ),
    "TPV": header("TPV", PV1_1=1.0, PV2_1=1.0, PV1_4=0.01, PV2_4=-0.02),
    "ZEA": header("ZEA"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_positions_are_those_of_astropy_and_come_back(name: str, rng: np.random.Generator) -> None:
    x, y = rng.uniform(2000, 2500, 50), rng.uniform(1000, 1400, 50)
    cards = lines(CASES[name])
    ra, dec = pixel_to_sky(cards, BOX, x, y)
    expected = WCS(CASES[name]).all_pix2world(x - 2000, y - 1000, 0)
    assert np.allclose([ra, dec], expected, rtol=0, atol=1e-12)
    back = sky_to_pixel(cards, BOX, ra, dec)
    assert np.allclose(back, [x, y], rtol=0, atol=1e-3)


def test_other_frames_become_icrs() -> None:
    cards = lines(header("TAN", RADESYS="FK4", EQUINOX=1950.0))
    ra, dec = pixel_to_sky(cards, BOX, [2249.5], [1199.5])
    expected = SkyCoord(34.5, -5.25, unit="deg", frame="fk4").icrs
    assert np.allclose([ra[0], dec[0]], [expected.ra.deg, expected.dec.deg], atol=1e-8)


FRAMES = {
    "ICRS": header("TAN", RADESYS="ICRS"),
    "FK5": header("TAN", RADESYS="FK5", EQUINOX=2000.0),
    "FK4": header("TAN", RADESYS="FK4", EQUINOX=1950.0),
    "galactic": header("TAN", CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_positions_come_back_in_any_frame(name: str, rng: np.random.Generator) -> None:
    """ICRS positions of pixels are placed on these pixels, whatever frame the WCS is in."""
    cards = lines(FRAMES[name])
    x, y = rng.uniform(2000, 2500, 20), rng.uniform(1000, 1400, 20)
    back = sky_to_pixel(cards, BOX, *pixel_to_sky(cards, BOX, x, y))
    assert np.allclose(back, [x, y], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("frame", "system"), [("galactic", "galactic"), ("fk4", "FK4")])
def test_a_grid_in_another_frame_is_met_where_it_is(frame: str, system: str) -> None:
    """The same point of the sky, as the reference point of two WCS in different frames."""
    place = SkyCoord(34.5, -5.25, unit="deg").transform_to(frame).spherical
    own = FRAMES[system].copy()
    own["CRVAL1"], own["CRVAL2"] = place.lon.deg, place.lat.deg
    found = pixel_to_pixel(
        lines(CASES["TAN"]), BOX, lines(own), Box(0, 0, 9, 9), np.array([2249.5]),
        np.array([1199.5]),
    )  # fmt: skip
    assert np.allclose(np.ravel(found), [249.5, 199.5], atol=1e-5)


def test_scale_is_the_root_of_the_determinant() -> None:
    assert pixel_scale(lines(CASES["TAN"])) == pytest.approx(
        3600 * np.sqrt(5.5e-5**2 + 1e-6 * 1.2e-6), rel=1e-9
    )


@pytest.mark.parametrize("name", CASES)
def test_a_cut_out_has_the_grid_of_the_whole(name: str) -> None:
    cards = lines(CASES[name])
    cut = shift_cards(cards, 30, 47)
    assert grid_offset(cards, BOX, cut, Box(1030, 2047, 100, 100)) < 1e-6
    assert grid_offset(cards, BOX, shift_cards(cards, 30, 46), Box(1030, 2047, 100, 100)) == (
        pytest.approx(1.0, abs=0.01)
    )


def test_exponents_may_be_written_with_d() -> None:
    """The standard allows 2.505D+02 for every number of a WCS, also where it is cut."""
    plain = lines(CASES["TAN"])
    values = {"CRPIX1": "2.505D+02", "CRPIX2": "2005.D-1", "CD1_1": "-5.5D-05", "CD2_2": "5.5D-5"}
    written = tuple(
        f"{card[:8]}= {values[card[:8].strip()]:>20} / D".ljust(80)
        if card[:8].strip() in values
        else card
        for card in plain
    )
    assert written != plain
    cards = wcs_cards(written)
    for y, x in ((0, 0), (30, 47)):
        found, expected = (
            pixel_to_sky(shift_cards(c, y, x), BOX, [2010.0], [1020.0]) for c in (cards, plain)
        )
        assert np.allclose(found, expected, rtol=0, atol=1e-12)


def test_without_a_wcs() -> None:
    ra, dec = pixel_to_sky((), BOX, [1.0, 2.0], [3.0, 4.0])
    assert np.isnan(ra).all()
    assert np.isnan(dec).all()
    assert celestial(()) is None
    assert pixel_scale(()) is None
    assert grid_offset((), BOX, (), BOX) == 0
    assert grid_offset((), BOX, lines(CASES["TAN"]), BOX) == np.inf
    linear = [f"CTYPE{i}  = 'LINEAR'".ljust(80) for i in (1, 2)]
    assert wcs_cards(linear) == ()
    with pytest.raises(FormatError, match="no celestial WCS"):
        sky_to_pixel((), BOX, [1.0], [2.0])


def test_a_distortion_that_cannot_be_inverted_gives_no_position() -> None:
    """Positions far outside a distorted image are NaN, not a crash."""
    wild = lines(header("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=2e-3, B_0_2=-3e-3))
    x, y = sky_to_pixel(wild, BOX, [34.5, 36.5], [-5.25, -3.25])
    assert np.isfinite([x[0], y[0]]).all()
    assert np.isnan([x[1], y[1]]).all()


def test_far_grids_and_broken_cards() -> None:
    far = lines(header("TAN", CRVAL1=214.5, CRVAL2=5.25))
    assert grid_offset(lines(CASES["TAN"]), BOX, far, BOX) == np.inf
    broken = tuple(
        c.replace("RA---TAN", "RA---XYZ").replace("DEC--TAN", "DEC--XYZ")
        for c in lines(CASES["TAN"])
    )
    with pytest.raises(FormatError, match="invalid WCS: Unrecognized projection code"):
        pixel_to_sky(broken, BOX, [1.0], [1.0])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 1e-5, "CD2_2": 1e-5}, "CDi_j"),
        ({"CD1_1": 1e-5, "CD1_2": 2e-5, "CD2_1": 2e-5, "CD2_2": 4e-5}, "CDi_j"),
        ({"PC1_1": 0.0, "CDELT1": 1e-5, "CDELT2": 1e-5}, "PCi_j and CDELTi"),
        ({"CDELT1": 0.0, "CDELT2": 1e-5}, "PCi_j and CDELTi"),
    ],
)
def test_a_singular_matrix_is_refused_with_its_file(changes: dict[str, float], names: str) -> None:
    """Found in the cards, where the file is known; a turned one of the same keys is none."""
    cards = [c for c in lines(CASES["TAN"]) if not c.startswith(("CD", "PC"))]
    bad = [*cards, *(f"{key:<8}= {value:>20.10E}".ljust(80) for key, value in changes.items())]
    with pytest.raises(FormatError, match=f"a.fits: invalid WCS: the matrix of {names} is sing"):
        wcs_cards(bad, "a.fits")
    turned = {"PC1_1": 0.0, "PC1_2": 1.0, "PC2_1": -1.0, "PC2_2": 0.0, "CDELT1": 1e-5}
    good = [*cards, *(f"{key:<8}= {value:>20.10E}".ljust(80) for key, value in turned.items())]
    assert len(wcs_cards(good, "a.fits")) == len(good)
