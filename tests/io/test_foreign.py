"""Catalogues of other programs, every kind of table by hand.

Those that the real programs write: tests/cli/test_foreign_programs.py.
"""

from __future__ import annotations

import fitsio
import numpy as np
import pytest
from astropy.table import Table

from coblend.core.box import Box
from coblend.core.errors import FormatError, InputMissingError, MissingHduError
from coblend.io.detect.foreign import read_segmentation, read_sources
from coblend.io.fits.specs import FileSpec, parse_spec
from coblend.io.sky.wcs import tangent_plane

BOX = Box(100, 1000, 200, 300)

ASCII_HEAD = """\
#   1 NUMBER                 Running object number
#   2 FLUX_APER              Flux vector within fixed circular aperture(s)   [count]
#   5 X_IMAGE                Object position along x                         [pixel]
#   6 Y_IMAGE                Object position along y                         [pixel]
#   7 FLUX_AUTO              Flux within a Kron-like elliptical aperture     [count]
#   8 FLUXERR_AUTO           RMS error for AUTO flux                         [count]
#   9 THETA_IMAGE            Position angle (CCW/x)                          [deg]
         1  1.0 2.0 3.0   11.5   21.25   900.0   9.0  45.0
         2  1.5 2.5 3.5   31.0   41.00   100.0  20.0  90.0
"""


def write_fits(path, table, name=""):
    fitsio.write(str(path), table, extname=name, clobber=True)
    return FileSpec(str(path))


def table_of(**columns):
    arrays = {k: np.asarray(v) for k, v in columns.items()}
    out = np.zeros(len(next(iter(arrays.values()))), [(k, v.dtype) for k, v in arrays.items()])
    for k, v in arrays.items():
        out[k] = v
    return out


def test_plain_table_counts_from_zero(tmp_path):
    spec = write_fits(tmp_path / "t.fits", table_of(x=[3.0, 4.5], y=[7.0, 8.0]))
    found = read_sources(spec, BOX)
    assert found.x.tolist() == [1003, 1004.5]
    assert found.y.tolist() == [107, 108]
    assert found.program == "table"
    assert np.isnan(found.snr).all()
    assert read_sources(spec, BOX, origin=1).x.tolist() == [1002, 1003.5]


def test_vector_columns_of_ascii_head_are_counted_by_number(tmp_path):
    path = tmp_path / "sex.cat"
    path.write_text(ASCII_HEAD)
    found = read_sources(FileSpec(str(path)), BOX)
    assert found.program == "sextractor"
    assert found.x.tolist() == [1010.5, 1030]  # SExtractor counts from 1
    assert found.y.tolist() == [120.25, 140]
    assert found.snr.tolist() == [100, 5]
    assert found.label.tolist() == [1, 2]
    np.testing.assert_allclose(found.theta, np.deg2rad([45, 90]))


def test_sky_positions(tmp_path):
    from coblend.io.sky.wcs import pixel_to_sky

    cards = tangent_plane(150.1, 2.2, 0.2, 100, 150)
    x, y = np.array([1005.0, 1250.5]), np.array([110.0, 290.25])
    ra, dec = pixel_to_sky(cards, BOX, x, y)
    spec = write_fits(tmp_path / "sky.fits", table_of(RA=ra, DEC=dec, FLUX=[1.0, 2.0]))
    found = read_sources(spec, BOX, cards)
    np.testing.assert_allclose(found.x, x, atol=1e-6)
    np.testing.assert_allclose(found.y, y, atol=1e-6)
    assert found.flux.tolist() == [1, 2]


def test_columns_by_name(tmp_path):
    spec = write_fits(tmp_path / "t.fits", table_of(col=[3.0], row=[4.0], significance=[9.0]))
    found = read_sources(spec, BOX, columns={"x": "COL", "y": "row", "snr": "significance"})
    assert (found.x[0], found.y[0], found.snr[0]) == (1003, 104, 9)


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "t.tab", "t.ecsv"])
def test_text_tables(tmp_path, name):
    path = tmp_path / name
    if name == "t.ecsv":
        Table({"x": [3.0], "y": [4.0], "snr": [8.0]}).write(path)
    else:
        texts = {"t.csv": "x,y,snr\n3,4,8\n", "t.tab": "x\ty\tsnr\n3\t4\t8\n"}
        path.write_text(texts.get(name, "# x y snr\n3 4 8\n"))
    found = read_sources(FileSpec(str(path)), BOX)
    assert (found.x[0], found.y[0], found.snr[0]) == (1003, 104, 8)


@pytest.mark.parametrize("delimiter", [" ", ",", "\t"])
def test_columns_without_names_are_x_and_y(tmp_path, delimiter):
    """Such as numpy's savetxt writes; counted from 0, or as said."""
    path = tmp_path / "t.txt"
    np.savetxt(path, [[3, 4, 8], [5.5, 6, 9]], delimiter=delimiter)
    found = read_sources(FileSpec(str(path)), BOX)
    assert found.x.tolist() == [1003, 1005.5]
    assert found.y.tolist() == [104, 106]
    assert read_sources(FileSpec(str(path)), BOX, origin=1).x.tolist() == [1002, 1004.5]
    given = read_sources(FileSpec(str(path)), BOX, columns={"flux": "col3"})
    assert given.flux.tolist() == [8, 9]
    moved = read_sources(FileSpec(str(path)), BOX, columns={"x": "col2", "y": "col3"})
    assert moved.x.tolist() == [1004, 1006]
    path.write_text("\ufeff\n\n" + path.read_text())
    assert len(read_sources(FileSpec(str(path)), BOX).x) == 2, "byte order mark, empty lines"
    np.savetxt(path, [3.0, 5.5])
    with pytest.raises(MissingHduError, match="neither x, y nor ra, dec"):
        read_sources(FileSpec(str(path)), BOX)


@pytest.mark.parametrize("kind", ["csv", "ecsv"])
def test_cells_that_are_empty(tmp_path, kind):
    """In columns of whole numbers, of numbers and of texts: unknown, not an error."""
    path = tmp_path / "t.csv"
    path.write_text("x,y,label,flux,name\n1,2,3,10.5,a\n4,5,,,\n")
    if kind == "ecsv":
        path = tmp_path / "t.ecsv"
        Table.read(tmp_path / "t.csv").write(path)
    found = read_sources(FileSpec(str(path)), BOX)
    assert found.label.tolist() == [3, 0]
    assert found.flux[0] == 10.5
    assert np.isnan(found.flux[1])


def test_structured_arrays(tmp_path):
    path = tmp_path / "t.npy"
    np.save(path, table_of(xcpeak=[3], ycpeak=[4], npix=[5], flux=[2.0]))
    found = read_sources(FileSpec(str(path)), BOX)
    assert found.program == "sep"
    assert (found.x[0], found.y[0], found.label[0]) == (1003, 104, 1)


def test_segmentation_images(tmp_path):
    labels = np.zeros((20, 30), np.int16)
    labels[3:5, 4:9] = 7
    for i, image in enumerate((labels, labels.astype(np.float32), labels.astype(">i8"))):
        path = str(tmp_path / f"s{i}.fits")
        fitsio.write(path, image)
        read = read_segmentation(FileSpec(path))
        assert read.dtype == np.int32
        assert np.array_equal(read, labels)
    section = read_segmentation(parse_spec(f"{path}[5:30,4:20]"))
    assert np.array_equal(section, labels[3:, 4:])


def test_our_peaks_of_a_real_blend(shared_data):
    spec = FileSpec(str(shared_data / "hsc_cosmos_35" / "peaks.fits"))
    found = read_sources(spec, Box(0, 0, 58, 48))
    assert len(found) == 7
    assert (found.x[0], found.y[0]) == (14, 33)


def test_bad_input(tmp_path):
    spec = write_fits(tmp_path / "t.fits", table_of(a=[3.0], q=[4.0]))
    with pytest.raises(MissingHduError, match="neither x, y nor ra, dec among the columns a, q"):
        read_sources(spec, BOX)
    with pytest.raises(MissingHduError, match="no column COL; it has a, q"):
        read_sources(spec, BOX, columns={"x": "COL"})
    with pytest.raises(FormatError, match="no quantity X"):
        read_sources(spec, BOX, columns={"X": "a"})
    spec = write_fits(tmp_path / "s.fits", table_of(ra=[3.0], dec=[4.0]))
    with pytest.raises(FormatError, match="no WCS"):
        read_sources(spec, BOX)
    with pytest.raises(InputMissingError):
        read_sources(FileSpec(str(tmp_path / "none.cat")), BOX)
    fitsio.write(str(tmp_path / "i.fits"), np.zeros((3, 3), np.float32))
    with pytest.raises(MissingHduError, match="no table"):
        read_sources(FileSpec(str(tmp_path / "i.fits")), BOX)
    with pytest.raises(MissingHduError, match="no image"):
        read_segmentation(spec)
    half = np.zeros((4, 4), np.float32)
    half[1, 1] = 0.5
    fitsio.write(str(tmp_path / "h.fits"), half)
    with pytest.raises(FormatError, match="holds fractions"):
        read_segmentation(FileSpec(str(tmp_path / "h.fits")))
    (tmp_path / "page.cat").write_text("<html>\n<body>not found</body></html>\n")
    with pytest.raises(FormatError):
        read_sources(FileSpec(str(tmp_path / "page.cat")), BOX)
    (tmp_path / "text.csv").write_text("x,y\n1,2\nleft,5\n")
    with pytest.raises(FormatError, match="column x holds 'left', expected numbers"):
        read_sources(FileSpec(str(tmp_path / "text.csv")), BOX)
    (tmp_path / "noise.cat").write_bytes(bytes(range(128, 256)) * 10)
    with pytest.raises(FormatError, match="neither FITS, nor text"):
        read_sources(FileSpec(str(tmp_path / "noise.cat")), BOX)
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(FormatError, match="not a structured array"):
        read_sources(FileSpec(str(tmp_path / "plain.npy")), BOX)
