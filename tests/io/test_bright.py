"""Region files and tables on the pixel grid."""

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError, InputMissingError, MissingHduError
from coblend.core.region import paint
from coblend.io.sky.bright import read_regions
from coblend.io.sky.wcs import sky_to_pixel, tangent_plane

FIELD = Box(100, 200, 120, 150)
SCALE = 0.2
CARDS = tangent_plane(150.0, 60.0, SCALE, 60, 70)


def painted(tmp_path, text, cards=CARDS):
    path = tmp_path / "a.reg"
    path.write_text(text)
    return paint(read_regions(str(path), cards, FIELD), FIELD)


def distances(ra, dec):
    """Distance of every pixel from a sky position, arcseconds."""
    (x,), (y,) = sky_to_pixel(CARDS, FIELD, [ra], [dec])
    ys, xs = np.mgrid[FIELD.y0 : FIELD.y1, FIELD.x0 : FIELD.x1]
    return np.hypot(ys - y, xs - x) * SCALE


@pytest.mark.parametrize("radius", ['5.03"', "0.0838333'", "0.0013972d", "0.0013972"])
def test_circle_on_the_sky(tmp_path, radius):
    text = f"# DS9\nglobal color=green\nfk5\ncircle(150.002,60.001,{radius}) # ID: 3"
    np.testing.assert_array_equal(painted(tmp_path, text), distances(150.002, 60.001) <= 5.03)


def test_frames_and_statements_on_one_line(tmp_path):
    (x,), (y,) = sky_to_pixel(CARDS, FIELD, [150.001], [59.999])
    fx, fy = x - 200 + 1, y - 100 + 1
    sky = painted(tmp_path, 'icrs;circle(150.001,59.999,4")')
    image = painted(tmp_path, f"image;circle({fx},{fy},20)")
    assert sky.sum() > 1000
    assert (sky != image).sum() <= 12
    from astropy.coordinates import SkyCoord

    lon = SkyCoord(150.001, 59.999, unit="deg").galactic
    galactic = painted(tmp_path, f'galactic\ncircle({lon.l.deg},{lon.b.deg},4")')
    assert (sky != galactic).sum() <= 4


@pytest.mark.parametrize(
    "shape",
    [
        'circle(330,-60,5")',
        'ellipse(330,-60,5",3",20)',
        'box(330,-60,5",3",0)',
        "polygon(150,60,150.01,60,330,-60)",
    ],
)
def test_shapes_on_the_far_side_of_the_sky(tmp_path, shape):
    """They have no pixel on the map, and nothing is said of it."""
    assert not painted(tmp_path, f"fk5\n{shape}").any()


def test_physical_coordinates_are_those_of_the_parent_image(tmp_path):
    """DS9 takes them from LTV, which says where the array begins: (200, 100) here."""
    image = painted(tmp_path, "image\nellipse(50,60,20,9,30)")
    physical = painted(tmp_path, "physical\nellipse(250,160,20,9,30)")
    assert image.sum() > 400
    np.testing.assert_array_equal(image, physical)


def test_angles_run_from_west_to_north(tmp_path):
    """North is up and east left, so a sky angle equals the image angle."""
    (x,), (y,) = sky_to_pixel(CARDS, FIELD, [150.0], [60.0])
    fx, fy = x - 200 + 1, y - 100 + 1
    for kind in ("ellipse", "box"):
        sky = painted(tmp_path, f'fk5\n{kind}(150,60,8",3",30)')
        image = painted(tmp_path, f"image\n{kind}({fx},{fy},40,15,30)")
        assert (sky != image).sum() <= 20
        assert sky.sum() > 500
    ys, xs = np.nonzero(painted(tmp_path, 'fk5\nellipse(150,60,8",3",30)'))
    assert np.corrcoef(ys, xs)[0, 1] > 0.5


def test_polygon_box_without_angle_and_exclusion(tmp_path):
    found = painted(tmp_path, "image\nbox(50,50,20,10)\n-circle(50,50,3p)")
    assert found[49 - 4, 49 + 9]
    assert not found[49, 49]
    assert found.sum() == 21 * 11 - 29
    triangle = painted(tmp_path, "image\npolygon(10,10,30,10,10,30)")
    assert triangle[12, 12]
    assert not triangle[28, 28]


def test_table(tmp_path):
    rows = np.array(
        [(150.002, 60.001, 5.03 / 3600)], [("RA", "f8"), ("DEC", "f8"), ("RADIUS", "f8")]
    )
    fitsio.write(tmp_path / "a.fits", rows)
    found = paint(read_regions(str(tmp_path / "a.fits"), CARDS, FIELD), FIELD)
    np.testing.assert_array_equal(found, distances(150.002, 60.001) <= 5.03)


# bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fk5\nsquare(1,2,3)", "line 2: 'square.1,2,3.' is no region"),
        ("fk5\n\ncircle(150,60)", "line 3: circle with 2 numbers"),
        ("fk5\ncircle(150,60,abc)", "line 2:.*has a number that is none"),
        ('image\ncircle(5,6,3")', "line 2:.*has a number that is none"),
        ("fk5\ncircle(150,60,-1)", "line 2:.*has no area"),
        ("image\npolygon(1,2,3,4,5)", "line 2: polygon with 5 numbers"),
    ],
)
def test_bad_lines(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        painted(tmp_path, text)


def test_texts_for_numbers(tmp_path):
    rows = np.array([(1.0, "here", 1.0)], [("RA", "f8"), ("DEC", "S4"), ("RADIUS", "f8")])
    fitsio.write(tmp_path / "a.fits", rows)
    with pytest.raises(FormatError, match="column DEC holds 'here', expected numbers"):
        read_regions(str(tmp_path / "a.fits"), CARDS, FIELD)


def test_sky_regions_need_a_wcs(tmp_path):
    with pytest.raises(FormatError, match="no WCS"):
        painted(tmp_path, "fk5\ncircle(150,60,1)", cards=())


def test_bad_files(tmp_path):
    with pytest.raises(InputMissingError, match=r"gone\.reg"):
        read_regions(str(tmp_path / "gone.reg"), CARDS, FIELD)
    (tmp_path / "a.reg").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(FormatError, match="neither a region file nor a FITS table"):
        read_regions(str(tmp_path / "a.reg"), CARDS, FIELD)
    fitsio.write(tmp_path / "a.fits", np.array([(1.0, 2.0)], [("RA", "f8"), ("DEC", "f8")]))
    with pytest.raises(MissingHduError, match="no column radius"):
        read_regions(str(tmp_path / "a.fits"), CARDS, FIELD)
    rows = np.array([(1.0, 2.0, np.nan)], [("ra", "f8"), ("dec", "f8"), ("radius", "f8")])
    fitsio.write(tmp_path / "b.fits", rows)
    with pytest.raises(FormatError, match="row 1: radius nan"):
        read_regions(str(tmp_path / "b.fits"), CARDS, FIELD)
