"""PSFs in files and on the command line: round trips, foreign layouts, defects."""

from __future__ import annotations

import logging

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError, InputMissingError, MissingHduError, ParameterError
from coblend.core.psf import AnalyticPsf, CellPsf, GridPsf, PolyPsf, PsfexPsf, StampPsf
from coblend.core.psf.fields import ChebyshevField
from coblend.io.fits.reader import open_fits
from coblend.io.fits.writer import create
from coblend.io.psf.psfs import parse_psf_spec, read_psf, write_psf


def moffat(fwhm: float = 4.0, side: int = 31, **shape: float) -> np.ndarray:
    return AnalyticPsf("MOFFAT", fwhm, size=side, integrated=False, **shape).stamp()


def models() -> list[object]:
    rng = np.random.default_rng(3)
    stamps = np.stack([moffat(3 + 0.1 * i) for i in range(20)])
    y, x = rng.uniform(0, 500, (2, 20))
    noise = rng.normal(size=(2, 31, 31)) * 1e-4
    return [
        StampPsf(stamps[0]),
        GridPsf(stamps.reshape(4, 5, 31, 31), np.arange(4) * 120.5, np.arange(5) * 99.0 - 3),
        GridPsf(stamps[:6].reshape(2, 3, 31, 31), [0, 400], [0, 200, 400], "linear"),
        CellPsf(stamps, y, x),
        CellPsf(stamps[:1], y[:1], x[:1], boxes=np.array([[0, 0, 500, 500]])),
        CellPsf(stamps, y, x, "linear"),
        PolyPsf(ChebyshevField(
            np.concatenate([stamps[:1], noise]), np.eye(3, 6),
            (-0.5, 499.5, -0.5, 499.5),
        )),
        AnalyticPsf("GAUSSIAN", 2.2),
        AnalyticPsf("DGAUSS", 5.5, wing_amplitude=0.2, size=41),
        AnalyticPsf("MOFFAT", 4.4, beta=2.7, e1=0.1, e2=-0.05, integrated=True),
        PsfexPsf(np.concatenate([stamps[:1], noise]), 1, (250.5, 250.5), (100.0, 90.0), 0.8),
        PsfexPsf(stamps[:1]),
    ]  # fmt: skip


@pytest.mark.parametrize("psf", models(), ids=lambda p: type(p).__name__)
def test_every_model_survives_a_file_exactly(tmp_path, psf, rng):
    path = str(tmp_path / "psf.fits")
    with create(path, "exposure/1") as out:
        write_psf(out, psf)
    with open_fits(path) as file:
        twin = read_psf(file, Box(0, 0, 500, 500))
    assert type(twin) is type(psf)
    assert twin.side == psf.side
    assert twin.constant == psf.constant
    y, x = rng.uniform(0, 500, (2, 9))
    np.testing.assert_array_equal(twin.at_many(y, x), psf.at_many(y, x))


def test_a_second_psf_lives_beside_the_first(tmp_path):
    path = str(tmp_path / "psf.fits")
    cells = models()[3]
    with create(path, "exposure/1") as out:
        write_psf(out, StampPsf(moffat()))
        write_psf(out, cells, "PSF_ACHIEVED")
    with open_fits(path) as file:
        assert isinstance(read_psf(file, None), StampPsf)
        twin = read_psf(file, None, "PSF_ACHIEVED")
    y, x = [3, 400], [4, 50]
    np.testing.assert_array_equal(twin.at_many(y, x), cells.at_many(y, x))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gaussian:fwhm=5.5", AnalyticPsf("GAUSSIAN", 5.5)),
        ("gaussian:fwhm=1.88,integrated=1,size=15",
         AnalyticPsf("GAUSSIAN", 1.88, integrated=True, size=15)),
        ("moffat:fwhm=4.2,beta=3.5,e1=0.1", AnalyticPsf("MOFFAT", 4.2, beta=3.5, e1=0.1)),
        ("double-gaussian:fwhm=7.7,wing_factor=3",
         AnalyticPsf("DGAUSS", 7.7, wing_factor=3.0)),
    ],
)  # fmt: skip
def test_text_specifications(text, expected):
    assert parse_psf_spec(text) == expected


def test_sigma_is_another_way_to_say_fwhm():
    assert parse_psf_spec("gaussian:sigma=2").sigma == pytest.approx(2)


def test_file_specifications(in_folder):
    fitsio.write("bare.fits", moffat(), clobber=True)
    fitsio.write("many.fits", moffat(3.0), extname="A", clobber=True)
    fitsio.write("many.fits", moffat(5.0), extname="B")
    np.testing.assert_array_equal(parse_psf_spec("bare.fits").at(0, 0), StampPsf(moffat()).stamp)
    for text in ("many.fits[B]", "stamp:many.fits[B]", "many.fits[1]"):
        np.testing.assert_array_equal(parse_psf_spec(text).at(0, 0), StampPsf(moffat(5.0)).stamp)


def test_finer_sampled_stamps_are_read_at_the_pixels(in_folder):
    axis = (np.arange(61) - 30) / 3
    fine = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 2**2)
    fitsio.write("fine.fits", fine, header={"OVERSAMP": 3}, extname="PSF", clobber=True)
    psf = parse_psf_spec("fine.fits")
    assert psf.side == 21
    whole = np.arange(21) - 10
    expected = np.exp(-0.5 * (whole[:, None] ** 2 + whole[None, :] ** 2) / 2**2)
    np.testing.assert_allclose(psf.at(0, 0), expected / expected.sum(), atol=1e-15)


def test_cubes_with_positions_in_keywords_are_lattices(in_folder):
    """The layout of photutils' GriddedPSFModel: DET_YX<i> = (y, x)."""
    stamps = np.stack([moffat(3 + 0.2 * i) for i in range(4)])
    places = [(0, 0), (100, 0), (0, 200), (100, 200)]
    head = {f"DET_YX{i}": str(p) for i, p in enumerate(places)}
    fitsio.write("cube.fits", stamps, header=head, extname="PSF", clobber=True)
    psf = parse_psf_spec("cube.fits")
    assert isinstance(psf, GridPsf)
    for place, stamp in zip(places, stamps, strict=True):
        np.testing.assert_allclose(psf.at(*place), stamp, atol=1e-12)


def test_a_slightly_off_centre_stamp_is_announced(in_folder, caplog):
    fitsio.write("off.fits", moffat() + np.roll(moffat(), 1, axis=1) * 0.3, extname="PSF",
                 clobber=True)  # fmt: skip
    with caplog.at_level(logging.WARNING, "coblend"):
        parse_psf_spec("off.fits")
    assert "off its centre by (0.2" in caplog.text


def test_psfex_axes_may_come_in_either_order(in_folder):
    """Variables (Y, X): planes run over y fastest; the model is the same."""
    rng = np.random.default_rng(0)
    planes = np.concatenate([moffat()[None], rng.normal(size=(5, 31, 31)) * 1e-4])
    planes = planes.astype("f4")
    _write_psfex("xy.psf", planes, ("XWIN_IMAGE", "YWIN_IMAGE"), (100.0, 200.0))
    swapped = planes[[0, 3, 5, 1, 4, 2]]
    _write_psfex("yx.psf", swapped, ("Y_IMAGE", "X_IMAGE"), (200.0, 100.0))
    a, b = parse_psf_spec("xy.psf"), parse_psf_spec("psfex:yx.psf")
    np.testing.assert_allclose(a.at(17, 44), b.at(17, 44), atol=1e-15)


def _write_psfex(path, planes, names, zeros, **changes):
    rows = np.zeros(1, dtype=[("PSF_MASK", "f4", planes.shape)])
    rows["PSF_MASK"][0] = planes
    head = {"POLNAXIS": 2, "POLNAME1": names[0], "POLNAME2": names[1], "POLZERO1": zeros[0],
            "POLZERO2": zeros[1], "POLSCAL1": 50.0, "POLSCAL2": 50.0, "POLNGRP": 1, "POLDEG1": 2,
            "PSF_SAMP": 1.0, **changes}  # fmt: skip
    fitsio.write(path, rows, header=head, extname="PSF_DATA", clobber=True)


# Bad input


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        (np.ones((30, 30)), "even side, 30"),
        (np.full((31, 31), np.nan), "961 non-finite"),
        (-moffat(), "must be positive"),
        (np.zeros((31, 31)), "must be positive"),
        (np.roll(moffat(), 3, axis=1), r"off its centre by \(3.00, 0.00\) px in \(x, y\)"),
        (np.ones((2, 31, 31)) * moffat(), "PSF_CELLS"),
    ],
)
def test_bad_stamps_name_file_and_hdu(in_folder, stamp, message):
    fitsio.write("bad.fits", stamp, extname="PSF", clobber=True)
    with (
        open_fits("bad.fits") as file,
        pytest.raises(FormatError, match=rf"(?s)bad.fits\[PSF\]: .*{message}"),
    ):
        read_psf(file, None)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"PSFKIND": "ZERNIKE"}, "PSFKIND is 'ZERNIKE'"),
        ({"PSFKIND": "MOFFAT"}, "PSFFWHM is absent"),
        ({"PSFKIND": "MOFFAT", "PSFFWHM": -1.0}, "must be positive"),
        ({"PSFKIND": "MOFFAT", "PSFFWHM": 4.0, "PSFBETA": "x"}, "PSFBETA is 'x', expected a num"),
        ({"OVERSAMP": 0}, "OVERSAMP is 0"),
        ({"OVERSAMP": "two"}, "OVERSAMP is 'two', expected a number"),
    ],
)
def test_bad_keywords(in_folder, header, message):
    fitsio.write("bad.fits", moffat(), header=header, extname="PSF", clobber=True)
    with pytest.raises(FormatError, match=rf"bad.fits\[PSF\]: .*{message}"):
        parse_psf_spec("bad.fits[PSF]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"POLNAME2": "MAG_AUTO"}, "X_IMAGE, MAG_AUTO"),
        ({"POLDEG1": 3}, "needs 10 planes"),
        ({"POLZERO1": "here"}, "POLZERO1 is 'here'"),
        ({"PSF_SAMP": 0.0}, "PSF_SAMP is 0"),
        ({"POLNGRP": 2}, "2 group"),
    ],
)
def test_bad_psfex_files(in_folder, changes, message):
    planes = np.repeat(moffat()[None], 6, axis=0)
    _write_psfex("bad.psf", planes, ("X_IMAGE", "Y_IMAGE"), (1.0, 1.0), **changes)
    with pytest.raises(FormatError, match=rf"bad.psf\[PSF_DATA\]: .*{message}"):
        parse_psf_spec("bad.psf")


def test_several_models_in_one_file_must_be_chosen_from(in_folder):
    planes = np.repeat(moffat()[None], 6, axis=0)
    _write_psfex("ccds.psf", planes, ("X_IMAGE", "Y_IMAGE"), (1.0, 1.0))
    with fitsio.FITS("ccds.psf", "rw") as file:
        table = file[1].read()
        file.write(table, header=file[1].read_header(), extname="PSF_DATA")
    with pytest.raises(FormatError, match=r"(?s)2 HDUs PSF_DATA.*ccds.psf\[1\]"):
        parse_psf_spec("ccds.psf")
    assert parse_psf_spec("ccds.psf[2]").side == 31


def test_a_psf_of_other_pixels_is_refused(tmp_path):
    path = str(tmp_path / "psf.fits")
    with create(path, "exposure/1") as out:
        write_psf(out, models()[1])
    with (
        open_fits(path) as file,
        pytest.raises(FormatError, match=r"the image \[5000:5100, 0:100\]: they do not meet"),
    ):
        read_psf(file, Box(0, 5000, 100, 100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian:fwhm=wide", "not a number"),
        ("gaussian:beta=3", "no 'beta'"),
        ("moffat:", "needs a width"),
        ("moffat:fwhm=3,beta=0.5", "above 1"),
        ("gauss:fwhm=3", "no kind of PSF 'gauss'"),
        ("airy:", "no kind of PSF 'airy'"),
    ],
)
def test_bad_text_specifications(text, message):
    with pytest.raises(ParameterError, match=message):
        parse_psf_spec(text)


def test_files_without_a_psf(in_folder):
    with pytest.raises(InputMissingError):
        parse_psf_spec("nothing.fits")
    fitsio.write("two.fits", moffat(), clobber=True)
    fitsio.write("two.fits", moffat())
    with pytest.raises(MissingHduError, match=r"(?s)no PSF; it has.*gaussian:fwhm"):
        parse_psf_spec("two.fits")
