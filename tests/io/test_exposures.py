"""One loader for our files, LSST-like files and images with a weight map."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from coblend.core.box import Box
from coblend.core.errors import (
    FormatError,
    MissingHduError,
    ParameterError,
    ShapeMismatchError,
    WcsMismatchError,
)
from coblend.core.exposure import Exposure
from coblend.core.mask import MaskPlanes
from coblend.io.exposure.exposures import read_cube, read_exposure
from coblend.io.fits.reader import open_fits
from coblend.io.psf.psfs import parse_psf_spec
from coblend.io.sky.wcs import celestial

Writer = Callable[..., Path]


def same_pixels(a: Exposure, b: Exposure) -> None:
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.mask, b.mask)
    assert np.array_equal(a.variance, b.variance)


def lsst_like(path: Path, exposure: Exposure, names: bool = True) -> Path:
    """The same pixels as an LSST-written file: big-endian, WCS in IMAGE, MP_ cards, WCS A."""
    header = fits.Header.fromstring("".join(exposure.wcs))
    header["BUNIT"] = exposure.unit
    header["LTV1"], header["LTV2"] = -exposure.box.x0, -exposure.box.y0
    header["CRVAL1A"], header["CRVAL2A"] = exposure.box.x0, exposure.box.y0
    header["FILTER"] = exposure.band
    empty = ~np.isfinite(exposure.variance)
    planes = [
        np.where(empty, np.nan, exposure.image).astype(">f4"),
        exposure.mask.astype(">i4"),
        np.where(empty, np.nan, exposure.variance).astype(">f4"),
    ]
    hdus = [fits.PrimaryHDU()]
    for name, plane in zip(("IMAGE", "MASK", "VARIANCE"), planes, strict=True):
        hdus.append(fits.ImageHDU(plane, header, name=name if names else None))
    for plane_name, bit in exposure.planes.bits.items():
        key = f"MP_{plane_name}"
        hdus[2].header["HIERARCH " + key if len(key) > 8 else key] = bit
    fits.HDUList(hdus).writeto(path)
    return path


def test_our_files_round_trip(exposure: Exposure, write_file: Writer) -> None:
    back = read_exposure(str(write_file(exposure)))
    same_pixels(back, exposure)
    assert back.box == exposure.box
    assert back.planes.bits == exposure.planes.bits
    assert (back.band, back.unit) == ("r", "nJy")
    assert back.wcs == exposure.wcs, "WCS cards are carried verbatim"
    assert back.meta == exposure.meta
    assert back.psf is not None
    assert exposure.psf is not None
    assert np.allclose(back.psf.at(210, 120), exposure.psf.at(210, 120), atol=1e-7)


@pytest.mark.parametrize("compress", ["auto", "none"])
def test_large_exposures_are_written_in_blocks(
    exposure: Exposure, write_file: Writer, monkeypatch: pytest.MonkeyPatch, compress: str
) -> None:
    monkeypatch.setattr("coblend.io.exposure.exposures._LARGE", 100)
    monkeypatch.setattr("coblend.io.exposure.exposures._BLOCK", 40 * 7)
    back = read_exposure(str(write_file(exposure, compress=compress)))
    same_pixels(back, exposure)
    assert back.meta == exposure.meta
    assert back.wcs == exposure.wcs


def test_rewriting_a_file_gives_the_same_bytes(exposure: Exposure, write_file: Writer) -> None:
    first = write_file(exposure, "a.fits")
    second = write_file(read_exposure(str(first)), "b.fits")
    assert first.read_bytes() == second.read_bytes()


def test_no_data_is_nan_on_disk_and_infinite_variance_in_memory(
    exposure: Exposure, write_file: Writer
) -> None:
    """Trap 5: an infinity on disk would silently become NaN."""
    with fits.open(write_file(exposure)) as hdus:
        assert np.isnan(hdus["VARIANCE"].data[7, 8])
        assert np.isnan(hdus["IMAGE"].data[7, 8])
        assert np.isfinite(hdus["VARIANCE"].data).sum() == 30 * 40 - 1
    back = read_exposure(str(write_file(exposure)))
    assert back.variance[7, 8] == np.inf
    assert back.image[7, 8] == 0
    assert back.mask[7, 8] & 1 << 8


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_unusable_variance_is_no_data(
    exposure: Exposure, write_file: Writer, tmp_path: Path, value: float
) -> None:
    variance = exposure.variance.copy()
    path = lsst_like(tmp_path / "lsst.fits", exposure)
    with fits.open(path, mode="update") as hdus:
        hdus["VARIANCE"].data[2, 3] = value
    back = read_exposure(str(path))
    assert back.variance[2, 3] == np.inf
    assert back.mask[2, 3] & 1 << 8
    assert np.isfinite(variance[2, 3])


@pytest.mark.parametrize("names", [True, False])
def test_lsst_files_by_name_and_by_position(
    exposure: Exposure, tmp_path: Path, names: bool
) -> None:
    back = read_exposure(str(lsst_like(tmp_path / "lsst.fits", exposure, names)))
    same_pixels(back, exposure)
    assert back.box == exposure.box
    assert back.band == "r"
    assert back.image.dtype.isnative


@pytest.mark.parametrize("kind", ["weight", "var", "rms"])
@pytest.mark.parametrize("ending", [".fits", ".fits.fz"])
def test_an_image_with_a_map_beside_it(
    exposure: Exposure, tmp_path: Path, kind: str, ending: str
) -> None:
    image = np.where(np.isfinite(exposure.variance), exposure.image, 5.0)
    variance = exposure.variance.astype(float)
    noise = {"weight": 1 / variance, "var": variance, "rms": np.sqrt(variance)}[kind]
    hdu = fits.PrimaryHDU(image, fits.Header({"FILTER": "r"}))
    hdu.writeto(tmp_path / "sky.fits")
    if ending == ".fits":
        fits.PrimaryHDU(noise).writeto(tmp_path / f"sky.{kind}{ending}")
    else:
        packed = fits.CompImageHDU(noise, compression_type="GZIP_2", quantize_level=0.0)
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / f"sky.{kind}{ending}")
    back = read_exposure(str(tmp_path / "sky.fits"))
    good = np.isfinite(exposure.variance)
    assert np.allclose(back.variance[good], exposure.variance[good], rtol=1e-6)
    assert back.variance[7, 8] == np.inf
    assert back.mask[7, 8] == 1 << 8
    assert np.array_equal(back.image[good], exposure.image[good])


def test_des_files_and_chosen_hdus(exposure: Exposure, tmp_path: Path) -> None:
    weight = 1 / exposure.variance
    mask = np.zeros((30, 40), np.int32)
    mask[3, 4], mask[4, 4] = 2, 16  # saturated, cosmic ray in DES numbers
    hdus = [fits.PrimaryHDU()]
    for name, data in (("SCI", exposure.image), ("MSK", mask), ("WGT", weight)):
        hdus.append(fits.ImageHDU(data, name=name))
    fits.HDUList(hdus).writeto(tmp_path / "des.fits")
    for spec in ("des.fits", "des.fits[SCI]", "des.fits#1"):
        back = read_exposure(str(tmp_path / spec), band="g")
        assert back.planes.value(["SAT"]) == back.mask[3, 4]
        assert back.planes.value(["CR"]) == back.mask[4, 4]
        assert np.allclose(back.variance[0], exposure.variance[0], rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_a_unit_whose_variance_32_bit_floats_do_not_hold(tmp_path: Path, factor: float) -> None:
    """Squares of such an image would vanish or overflow, and nothing would be detected."""
    image = np.full((6, 7), 3.0)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image * factor, name="IMAGE"),
            fits.ImageHDU((image * factor) ** 2, name="VARIANCE")]  # fmt: skip
    fits.HDUList(hdus).writeto(tmp_path / "unit.fits")
    with pytest.raises(FormatError, match="the variance is about 9") as caught:
        read_exposure(str(tmp_path / "unit.fits"))
    power = -round(np.log10(3 * factor))
    assert f"multiply the image by 1e{power}," in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("hdu", "key", "value"),
    [
        ("IMAGE", "LTV1", "abc"), ("IMAGE", "LTV1", 1e300), ("IMAGE", "CRVAL1A", ""),
        ("IMAGE", "RADESYS", "abc"), ("IMAGE", "CUNIT1", "abc"), ("IMAGE", "CRPIX2", "abc"),
        ("IMAGE", "A_ORDER", "abc"), ("MASK", "MP_SAT", "x"),
    ],
)  # fmt: skip
def test_keywords_of_the_wrong_kind(
    exposure: Exposure, write_file: Writer, hdu: str, key: str, value: str | float
) -> None:
    path = write_file(exposure)
    with fits.open(path, mode="update") as hdus:
        hdus[hdu].header[key] = value
        for card in ("CHECKSUM", "DATASUM"):
            hdus[hdu].header.remove(card, ignore_missing=True)
    with pytest.raises(FormatError, match=key) as caught:
        read_exposure(str(path))
    assert caught.value.path == str(path)


def test_a_section_is_a_cut_of_the_whole(exposure: Exposure, write_file: Writer) -> None:
    path = write_file(exposure)
    whole = read_exposure(str(path))
    part = read_exposure(f"{path}[11:30,6:20]")
    box = Box(205, 110, 15, 20)
    assert part.box == box
    cut = box.slices(whole.box)
    assert np.array_equal(part.image, whole.image[cut])
    assert np.array_equal(part.mask, whole.mask[cut])
    a, b = celestial(whole.wcs), celestial(part.wcs)
    assert np.allclose(a.all_pix2world(13, 9, 0), b.all_pix2world(3, 4, 0), atol=1e-12)


def blanked(path: Path, *, packed: bool = False, **cards: float) -> Path:
    """Write image, mask and variance of 16-bit integers, each with a BLANK of -99 at (2, 3)."""
    values = np.arange(80, dtype=np.int16).reshape(8, 10) + 1
    values[2, 3] = -99
    kind = fits.CompImageHDU if packed else fits.ImageHDU
    hdus = [fits.PrimaryHDU()]
    for name in ("IMAGE", "MASK", "VARIANCE"):
        hdu = kind(values, name=name)
        hdu.header["BLANK"] = -99
        hdu.header.update(cards if name != "MASK" else {})
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("scale", "zero"), [(1.0, 0.0), (0.5, 0.0), (1.0, 10.0), (0.1, 7.5), (1.0, 32768.0)]
)
def test_blank_integers_are_no_data(
    tmp_path: Path, packed: bool, scale: float, zero: float
) -> None:
    """BLANK is a number before BSCALE and BZERO; masks are words, which it leaves alone."""
    path = blanked(tmp_path / "a.fits", packed=packed, BSCALE=scale, BZERO=zero)
    exposure = read_exposure(str(path))
    stored = np.arange(80.0).reshape(8, 10) + 1
    expected = (stored * scale + zero).astype(np.float32)
    no_data = exposure.planes.value(["NO_DATA"])
    assert np.argwhere(exposure.mask & no_data).tolist() == [[2, 3]]
    assert np.isinf(exposure.variance[2, 3])
    expected[2, 3] = 0
    assert np.array_equal(exposure.image, expected)
    part = read_exposure(f"{path}[3:6,2:4]")
    assert np.array_equal(part.image, expected[1:4, 2:6])
    with open_fits(str(path)) as file:
        assert file.image("MASK", words=True).dtype == np.int16


@pytest.mark.parametrize(("text", "n"), [(b"'x' ", 0), (b"-99.", 1)])
def test_a_blank_that_is_no_number_is_none(tmp_path: Path, text: bytes, n: int) -> None:
    """As CFITSIO and astropy have it; a whole number may be written as a fraction."""
    path = blanked(tmp_path / "a.fits")
    there = np.isnan(read_exposure(str(path)).image).sum()
    path.write_bytes(path.read_bytes().replace(b"-99 ", text, 1))
    assert np.isnan(read_exposure(str(path)).image).sum() == n * there > -1


def test_unnamed_mask_bits_are_dropped_with_a_warning(
    exposure: Exposure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planes = MaskPlanes({"SAT": 0, "BAD": 1})
    mask = np.zeros((30, 40), np.int32)
    mask[0, 0], mask[0, 1], mask[0, 2] = 1, 2, 1 << 5
    changed = replace(exposure, mask=mask, planes=planes)
    with caplog.at_level(logging.WARNING, "coblend"):
        back = read_exposure(str(lsst_like(tmp_path / "a.fits", changed)))
    assert [back.mask[0, i] for i in range(3)] == [2, 1, 0]
    assert "mask bits 5 (value 32) have no name" in caplog.text


def test_cubes_match_planes_by_name(exposure: Exposure, write_file: Writer) -> None:
    other = replace(
        exposure, band="g", planes=MaskPlanes({"NO_DATA": 8, "GHOST": 2}),
        mask=np.where(exposure.mask & 256, 256, 4).astype(np.int32),
    )  # fmt: skip
    a, b = write_file(exposure, "r.fits"), write_file(other, "g.fits")
    cube = read_cube([str(a), f"u={b}"])
    assert cube.bands == ("r", "u")
    assert cube.planes.value(["GHOST"]) == cube.masks[1, 0, 0]


# bad input


def test_missing_planes_are_named(exposure: Exposure, tmp_path: Path) -> None:
    path = lsst_like(tmp_path / "a.fits", exposure)
    with fits.open(path) as hdus:
        del hdus["VARIANCE"]
        hdus.writeto(tmp_path / "b.fits")
        fits.HDUList([hdus[0]]).writeto(tmp_path / "c.fits")
    with pytest.raises(MissingHduError, match=r"b\.fits: no VARIANCE plane; it has .*MASK"):
        read_exposure(str(tmp_path / "b.fits"))
    with pytest.raises(MissingHduError, match=r"c\.fits: no image"):
        read_exposure(str(tmp_path / "c.fits"))
    with pytest.raises(MissingHduError, match="no HDU NOPE"):
        read_exposure(f"{path}[NOPE]")


def test_shapes_that_differ(exposure: Exposure, tmp_path: Path) -> None:
    path = lsst_like(tmp_path / "a.fits", exposure)
    with fits.open(path) as hdus:
        hdus["MASK"].data = hdus["MASK"].data.T.copy()
        hdus.writeto(tmp_path / "b.fits")
    with pytest.raises(ShapeMismatchError, match=r"b\.fits: MASK has 30x40 pixels, IMAGE 40x30"):
        read_exposure(str(tmp_path / "b.fits"))
    fits.PrimaryHDU(np.zeros((3, 4, 5))).writeto(tmp_path / "cube.fits")
    fits.PrimaryHDU(np.ones((4, 5))).writeto(tmp_path / "cube.weight.fits")
    with pytest.raises(FormatError, match="IMAGE has 5x4x3 pixels, expected two axes"):
        read_exposure(str(tmp_path / "cube.fits"))


def test_an_exposure_without_a_usable_pixel(exposure: Exposure, tmp_path: Path) -> None:
    empty = replace(exposure, image=np.full_like(exposure.image, np.nan))
    path = lsst_like(tmp_path / "a.fits", empty)
    with pytest.raises(FormatError, match="no usable pixel: all 1200"):
        read_exposure(str(path))
    assert not np.isfinite(read_exposure(str(path), allow_empty=True).variance).any()


def test_origins_that_disagree(exposure: Exposure, tmp_path: Path) -> None:
    path = lsst_like(tmp_path / "a.fits", exposure)
    fits.setval(path, "LTV1", value=-90, ext=1)
    with pytest.raises(FormatError, match="CRVAL1A puts the first pixel at 100, LTV1 at 90"):
        read_exposure(str(path))


def test_grids_that_differ(exposure: Exposure, write_file: Writer) -> None:
    moved = tuple(c.replace("20.5", "20.6") if c.startswith("CRPIX1") else c for c in exposure.wcs)
    a = str(write_file(exposure, "a.fits"))
    b = str(write_file(replace(exposure, wcs=moved), "b.fits"))
    with pytest.raises(WcsMismatchError, match=r"b\.fits: its WCS .*a\.fits disagree: .*0\.1 "):
        read_cube([a, f"g={b}"])
    c = str(write_file(replace(exposure, wcs=()), "c.fits"))
    with pytest.raises(WcsMismatchError, match="missing in one"):
        read_cube([a, f"g={c}"])
    d = str(write_file(replace(exposure, box=Box(0, 0, 30, 40)), "d.fits"))
    with pytest.raises(ShapeMismatchError, match=r"d\.fits: covers 40x30 pixels from \(0, 0\)"):
        read_cube([a, f"g={d}"])


def test_bands_and_psfs_that_are_missing(exposure: Exposure, write_file: Writer) -> None:
    path = str(write_file(replace(exposure, band="", psf=None)))
    with pytest.raises(FormatError, match="neither BAND nor FILTER"):
        read_cube([path])
    with pytest.raises(FormatError, match="no PSF"):
        read_cube([f"g={path}"])
    assert read_cube([f"g={path}"], need_psf=False).psfs == (None,)
    with pytest.raises(FormatError, match="band g was already given by"):
        read_cube([f"g={path}", f"g={path}"], need_psf=False)
    psf = parse_psf_spec("gaussian:fwhm=3")
    assert read_cube([f"g={path}"], psfs={"g": psf}).psfs == (psf,)
    with pytest.raises(ParameterError, match="no exposure of band q"):
        read_cube([f"g={path}"], psfs={"": psf, "q": psf})
    bad = write_file(replace(exposure, band="two words"), "bad.fits")
    with pytest.raises(FormatError, match="'two words'; a band has 1 to 16"):
        read_exposure(str(bad))
