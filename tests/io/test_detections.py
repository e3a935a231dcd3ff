"""Detection files: identity of what is written and read, and every contradiction refused."""

from __future__ import annotations

from dataclasses import replace

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.detect.search import detect
from coblend.core.errors import (
    CorruptFileError,
    FormatError,
    InputMissingError,
    MissingHduError,
    SchemaError,
)
from coblend.core.exposure import Exposure
from coblend.core.footprint import FootprintSet
from coblend.core.params.detect import DetectParams
from coblend.io.detect.detections import (
    read_detections,
    renamed,
    with_sky_positions,
    write_detections,
)
from coblend.io.detect.maps import read_background, write_background, write_noise
from coblend.io.fits.reader import open_fits
from coblend.io.fits.writer import create
from coblend.io.sky.wcs import sky_to_pixel, tangent_plane, wcs_cards


@pytest.fixture(scope="module")
def found():
    """A small crowded field far from the origin, in an odd band."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:120, :140]
    image = rng.normal(0, 1, (120, 140))
    for yc, xc, flux in rng.uniform((5, 5, 60), (115, 135, 900), (25, 3)):
        r2 = (y - yc) ** 2 + (x - xc) ** 2
        image += flux * np.exp(-r2 / 6.0) / (6 * np.pi)
    exposure = Exposure(
        image.astype(np.float32),
        np.zeros(image.shape, np.int32),
        np.ones(image.shape, np.float32),
        Box(40000, -200, 120, 140),
        band="F606W",
        unit="nJy",
        wcs=tangent_plane(150.1, 2.2, 0.2, 60, 70),
    )
    params = DetectParams(psf_sigma=1.73, field_id=77, max_peaks=3)
    return with_sky_positions(detect(exposure, params).detections)


def write(path, detections, schema="det/1"):
    with create(str(path), schema, overwrite=True) as out:
        write_detections(out, detections)
    return str(path)


def rewrite(path, hdu, table):
    """Replace one table, as another program would that knows nothing of checksums."""
    from astropy.io import fits

    with fits.open(path, mode="update") as file:
        new = fits.BinTableHDU(np.ascontiguousarray(table), name=hdu)
        file[hdu] = new


def same_table(a, b):
    assert a.dtype.names == b.dtype.names
    for name in a.dtype.names:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_everything_comes_back(found, tmp_path):
    back = read_detections(write(tmp_path / "det.fits", found))
    assert len(found.parents) > 5
    assert found.parents["flag_split"].any()
    for name in ("parents", "peaks"):
        same_table(getattr(back, name), getattr(found, name))
    for name in ("footprints", "cores"):
        for part in ("spans", "offsets"):
            assert np.array_equal(
                getattr(getattr(back, name), part), getattr(getattr(found, name), part)
            )
    assert (back.bands, back.box, back.unit) == (("F606W",), found.box, "nJy")
    assert back.wcs == found.wcs
    assert dict(back.meta) == pytest.approx(dict(found.meta), rel=1e-12)


def test_empty_catalogue_comes_back(found, tmp_path):
    empty = replace(
        found,
        parents=found.parents[:0],
        peaks=found.peaks[:0],
        footprints=FootprintSet.empty(),
        cores=None,
        culled=found.peaks[:0],
    )
    back = read_detections(write(tmp_path / "det.fits", empty, "merged/1"))
    assert len(back.parents) == len(back.peaks) == len(back.footprints) == 0
    assert back.cores is None
    assert len(back.culled) == 0


def test_sky_positions_equal_astropy(found):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 150.1, 2.2
    wcs.wcs.crpix = 71, 61
    wcs.wcs.cdelt = -0.2 / 3600, 0.2 / 3600
    for table in (found.parents, found.peaks):
        ra, dec = wcs.all_pix2world(table["x"] + 200, table["y"] - 40000, 0)
        np.testing.assert_allclose(table["ra"], ra, rtol=1e-12)
        np.testing.assert_allclose(table["dec"], dec, rtol=1e-12)


@pytest.mark.parametrize(
    ("projection", "distortion"),
    [
        ("TAN-SIP", {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 3e-5, "A_0_2": 1e-5, "B_1_1": -2e-5}),
        ("TPV", {"PV1_1": 1.001, "PV1_4": 40.0, "PV2_1": 0.999, "PV2_5": -30.0}),
        ("ZEA", {}),
    ],
)
def test_sky_positions_of_other_projections(found, projection, distortion):
    """Equal to astropy's on the whole header, not to the plain tangent plane; and back."""
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    ctype = (f"RA---{projection}", f"DEC--{projection}")
    scale = 60.0 if projection == "ZEA" else 0.2  # arcsec; small fields look alike
    header = Header(
        {
            "CTYPE1": ctype[0], "CTYPE2": ctype[1], "CUNIT1": "deg", "CUNIT2": "deg",
            "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 71.0, "CRPIX2": 61.0,
            "CD1_1": -scale / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale / 3600,
            "RADESYS": "ICRS", **distortion,
        }
    )  # fmt: skip
    cards = wcs_cards([card.image for card in header.cards])
    table = with_sky_positions(replace(found, wcs=cards)).peaks
    ra, dec = WCS(header).all_pix2world(table["x"] + 200, table["y"] - 40000, 0)
    np.testing.assert_allclose(table["ra"], ra, rtol=1e-12)
    np.testing.assert_allclose(table["dec"], dec, rtol=1e-12)
    plain = with_sky_positions(replace(found, wcs=tangent_plane(150.1, 2.2, scale, 60, 70))).peaks
    assert np.abs(plain["dec"] - dec).max() * 3600 / scale > 1e-3
    x, y = sky_to_pixel(cards, found.box, table["ra"], table["dec"])
    np.testing.assert_allclose(y, table["y"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(x, table["x"], rtol=0, atol=1e-3)


def test_identifiers_survive_every_reader(found, tmp_path):
    from astropy.io import fits
    from astropy.table import Table

    path = write(tmp_path / "det.fits", found)
    with fits.open(path, checksum=True) as file:
        file.verify("exception")
    assert fitsio.read(path, ext="PEAKS")["id"].tolist() == found.peaks["id"].tolist()
    table = Table.read(path, hdu="PEAKS")
    assert table["id"].dtype.kind == "i"
    assert table["id"].dtype.itemsize == 8
    assert table["id"].tolist() == found.peaks["id"].tolist()
    assert (table["id"] >> 39 == 77).all()


def test_every_column_is_described(found, tmp_path):
    """A comment and a UCD for each, a unit where it has one; in every table of the file."""
    path = str(tmp_path / "det.fits")
    mesh = np.zeros((2, 2))
    with create(path, "det/1") as out:
        write_detections(out, replace(found, culled=found.peaks[:1]))
        write_noise(out, mesh, 512, found.box)
        write_background(
            out, mesh[0], mesh[0], mesh, mesh, mesh.astype(int), found.box, "akima", "nJy"
        )
    units = {}
    with open_fits(path) as file:
        for hdu in ("PARENTS", "PEAKS", "SPANS", "CORES", "CULLED", "NOISE", "BACKGROUND"):
            header = file.header(hdu)
            for i in range(1, int(header["TFIELDS"]) + 1):
                name = header[f"TTYPE{i}"].strip()
                assert header[f"TCOMM{i}"].strip(), (hdu, name)
                assert header[f"TUCD{i}"].strip(), (hdu, name)
                units[name] = str(header.get(f"TUNIT{i}", "")).strip()
    assert {units[n] for n in ("x", "y", "ix", "iy", "box_x0", "box_ny", "x0", "yc")} == {"pixel"}
    assert {units[n] for n in ("ra", "dec")} == {"deg"}
    assert {units[n] for n in ("flux", "flux_err", "value", "err")} == {"nJy"}
    assert (units["area"], units["snr"], units["id"]) == ("pixel**2", "", "")


def test_renaming_a_band(found, tmp_path):
    moved = renamed(found, "g")
    assert moved.bands == ("g",)
    assert "merge_peak_g" in moved.peaks.dtype.names
    assert "merge_peak_F606W" not in moved.peaks.dtype.names
    assert (moved.peaks["band"] == "g").all()
    assert np.array_equal(moved.peaks["id"], found.peaks["id"])
    assert renamed(found, "F606W") is found
    assert read_detections(write(tmp_path / "d.fits", moved)).bands == ("g",)


def test_background_comes_back(found, tmp_path):
    rng = np.random.default_rng(3)
    y, x = np.array([31.5, 95.5, 118.0]), np.array([31.5, 101.5])
    values = rng.normal(10, 1, (3, 2))
    counts = np.arange(6).reshape(3, 2)
    path = str(tmp_path / "det.fits")
    with create(path, "det/1") as out:
        write_detections(out, found)
        write_background(out, y, x, values, values / 9, counts, found.box, "spline", "nJy")
    back = read_background(path)
    for name, expected in (("y", y), ("x", x), ("values", values), ("counts", counts)):
        assert np.array_equal(back[name], expected)
    assert (back["nx"], back["interpolation"]) == (found.box.nx, "spline")


def broken(found, name):
    """The catalogue with one contradiction."""
    parents, peaks = found.parents.copy(), found.peaks.copy()
    spans = found.footprints.spans.copy()
    if name == "outside":
        spans[3] += 10**6
    elif name == "reversed":
        spans[3, [1, 2]] = spans[3, 2] + 1, spans[3, 1] - 1
    elif name == "overlap":
        first, second = found.footprints.offsets[:2]
        spans[second] = spans[first]
    elif name == "unsorted":
        spans[[1, 2]] = spans[[2, 1]]
    elif name == "area":
        parents["area"][2] += 1
    elif name == "no peak":
        parents["npeak"][0] += parents["npeak"][1]
        parents["npeak"][1] = 0
        parents["peak0"] = np.cumsum(parents["npeak"]) - parents["npeak"]
    elif name == "peak outside":
        peaks["ix"][4] = found.box.x0
        peaks["iy"][4] = found.box.y0
    elif name == "peak id":
        peaks["id"][5] = peaks["id"][4]
    elif name == "parent id":
        parents["id"][1] = parents["id"][0]
    elif name == "other parent":
        peaks["parent"][0] = 1
    elif name == "position":
        peaks["x"][2], peaks["y"][3] = np.nan, 1e30
    elif name == "core":
        peaks["core"][1] = 10**6
    elif name == "offsets":
        parents["span0"][2] += 1
    footprints = FootprintSet(spans, found.footprints.offsets)
    return replace(found, parents=parents, peaks=peaks, footprints=footprints)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("outside", r"SPANS\]: 1 rows lie outside the image or are reversed \(0-based: 3\)"),
        ("reversed", "lie outside the image or are reversed"),
        ("overlap", "overlap another span"),
        ("unsorted", r"SPANS\]: 1 rows are not sorted by y, x in their parent \(0-based: 2\)"),
        ("area", r"PARENTS\]: 1 rows differ from SPANS in area \(0-based: 2\)"),
        ("no peak", r"1 rows have no peak \(0-based: 1\)"),
        ("peak outside", r"PEAKS\]: 1 rows lie outside the footprint .*: 4\)"),
        ("peak id", r"PEAKS\]: 1 rows repeat an identifier \(0-based: 5\)"),
        ("parent id", r"PARENTS\]: 1 rows repeat an identifier \(0-based: 1\)"),
        ("other parent", "name another parent"),
        ("position", r"PEAKS\]: 2 rows have a position outside the image \(0-based: 2, 3\)"),
        ("core", r"PEAKS\]: 1 rows name a core that is not in CORES \(0-based: 1\)"),
        ("offsets", "do not continue the previous row"),
    ],
)
def test_contradictions_are_refused_with_their_rows(found, tmp_path, name, match):
    path = write(tmp_path / "det.fits", broken(found, name))
    with pytest.raises(FormatError, match=match) as caught:
        read_detections(path)
    assert caught.value.path == path
    assert caught.value.exit_code == 65


def test_bad_input(found, tmp_path):
    with pytest.raises(InputMissingError):
        read_detections(str(tmp_path / "none.fits"))
    with pytest.raises(SchemaError, match="schema models, expected detections"):
        read_detections(write(tmp_path / "m.fits", found, "models/1"))
    with pytest.raises(SchemaError, match="newer than this program"):
        read_detections(write(tmp_path / "m.fits", found, "det/2"))
    names = [n for n in found.peaks.dtype.names if n != "snr"]
    with pytest.raises(MissingHduError, match="no column snr"):
        read_detections(write(tmp_path / "m.fits", replace(found, peaks=found.peaks[names])))
    for hdu, column in (("SPANS", "x0"), ("CORES", "core")):
        path = write(tmp_path / "m.fits", found)
        with open_fits(path) as file:
            rows = file.table(hdu)
        names = [n for n in rows.dtype.names if n != column]
        rewrite(path, hdu, rows[names])
        with pytest.raises(MissingHduError, match=f"{hdu}.*no column {column}"):
            read_detections(path)
    path = write(tmp_path / "m.fits", found)
    with open_fits(path) as file:
        cores = file.table("CORES").copy()
    cores["core"][-1] = 2**31 - 1
    rewrite(path, "CORES", cores)
    with pytest.raises(CorruptFileError, match="does not number its cores"):
        read_detections(path)
    with pytest.raises(MissingHduError, match="BACKGROUND"):
        read_background(write(tmp_path / "m.fits", found))
    short = FootprintSet(
        found.footprints.spans[:-1], np.array([0, len(found.footprints.spans) - 1])
    )
    with pytest.raises(CorruptFileError, match="PARENTS asks for"):
        read_detections(write(tmp_path / "m.fits", replace(found, footprints=short)))
