"""Reading warps by sections and placing them."""

import io
from dataclasses import replace

import fitsio
import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from coblend.core.box import Box
from coblend.core.errors import (
    CorruptFileError,
    FormatError,
    MissingHduError,
    ParameterError,
    ShapeMismatchError,
    WcsMismatchError,
)
from coblend.core.mask import STANDARD, MaskPlanes
from coblend.io.coadd import rows
from coblend.io.coadd.grid import offset_to, read_grid
from coblend.io.coadd.inputs import Listed, read_lists
from coblend.io.coadd.warps import open_warp, require_same_band
from coblend.io.sky.wcs import celestial, shift_cards


def opened(path):
    return open_warp(Listed(str(path)))


@pytest.mark.parametrize("compress", ["auto", "none"])
def test_sections_equal_the_whole(exposure, write_file, compress):
    warp = opened(write_file(exposure, compress=compress))
    box = Box(203, 104, 7, 21)
    cut = box.slices(exposure.box)
    image, mask, variance = warp.read(box, STANDARD)
    good = np.isfinite(exposure.variance[cut])
    np.testing.assert_array_equal(image[good], exposure.image[cut][good])
    np.testing.assert_array_equal(variance[good], exposure.variance[cut][good])
    np.testing.assert_array_equal(mask, exposure.mask[cut])
    assert np.isnan(image[~good]).all()
    assert (image.dtype, mask.dtype, variance.dtype) == (np.float32, np.int32, np.float32)


class ShortReads(io.FileIO):
    """A file that gives less than is asked for, as Linux does beyond 2 GiB."""

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:1000])


def test_a_block_may_take_several_reads(exposure, write_file, monkeypatch):
    """A read that is short is no truncated file; one that ends early is."""
    path = write_file(exposure, compress="none")
    warp, expected = opened(path), opened(path).read(exposure.box, STANDARD)
    monkeypatch.setattr(rows, "open", lambda path, *_, **__: ShortReads(path), raising=False)
    for found, whole in zip(warp.read(exposure.box, STANDARD), expected, strict=True):
        np.testing.assert_array_equal(found, whole)
    path.write_bytes(path.read_bytes()[:8640])
    with pytest.raises(CorruptFileError, match=r"truncated: \d+ of 4800 bytes of rows 1 to 30"):
        warp.read(exposure.box, STANDARD)


def test_what_the_headers_tell(exposure, write_file):
    warp = opened(write_file(exposure)).info
    assert (warp.box, warp.unit, warp.band) == (exposure.box, "nJy", "r")
    assert warp.zero_point == 31.4
    assert warp.wcs == exposure.wcs
    assert warp.grid.framed
    np.testing.assert_array_equal(warp.psf.at(0, 0), exposure.psf.at(0, 0))


def test_zero_point_keywords(exposure, write_file):
    for key in ("MAGZPT", "PHOTZP"):
        path = write_file(replace(exposure, unit="adu", meta={key: 27.5}), f"{key}.fits")
        assert opened(path).info.zero_point == 27.5
    assert opened(write_file(replace(exposure, unit="adu", meta={}))).info.zero_point is None


def test_planes_are_moved_by_name(exposure, write_file):
    named = replace(exposure, planes=MaskPlanes({**STANDARD.bits, "GHOST": 19}))
    named.mask[0, 0] = 1 << 19
    warp = opened(write_file(named))
    target = MaskPlanes({**STANDARD.bits, "GHOST": 22})
    mask = warp.read(Box(200, 100, 1, 1), target)[1]
    assert mask[0, 0] == 1 << 22


def test_image_with_a_weight_map(tmp_path, rng):
    image = rng.normal(size=(8, 9)).astype(np.float32)
    weight = rng.uniform(1, 2, (8, 9)).astype(np.float32)
    weight[2, 3] = 0
    fitsio.write(tmp_path / "a.fits", image)
    fitsio.write(tmp_path / "a.weight.fits", weight)
    warp = opened(tmp_path / "a.fits")
    read, mask, variance = warp.read(Box(0, 0, 8, 9), STANDARD)
    np.testing.assert_array_equal(read, image)
    assert mask is None
    assert not np.isfinite(variance[2, 3])
    variance[2, 3] = 1
    weight[2, 3] = 1
    np.testing.assert_allclose(variance, 1 / weight, rtol=1e-6)


def test_blank_integers_are_nan(tmp_path):
    """BLANK of an integer image is no pixel of a warp; a mask with BLANK stays a mask."""
    plane = np.array([[5, -99, 7], [8, 9, 10]], np.int16)
    with fitsio.FITS(tmp_path / "a.fits", "rw") as out:
        for name in ("IMAGE", "MASK", "VARIANCE"):
            out.write(plane, extname=name, header={"BLANK": -99})
    image, mask, variance = opened(tmp_path / "a.fits").read(Box(0, 0, 2, 3), STANDARD)
    for read in (image, variance):
        np.testing.assert_array_equal(read, np.where(plane == -99, np.nan, plane))
    assert mask.dtype == np.int32
    assert (mask == 1).all()


def test_mask_without_names_means_bad(tmp_path):
    plane = np.ones((4, 4), np.float32)
    mask = np.diag([0, 1, 8, 0]).astype(np.int32)
    with fitsio.FITS(tmp_path / "a.fits", "rw") as out:
        for name, data in (("IMAGE", plane), ("MASK", mask), ("VARIANCE", plane)):
            out.write(data, extname=name)
    read = opened(tmp_path / "a.fits").read(Box(0, 0, 4, 4), STANDARD)[1]
    np.testing.assert_array_equal(read, (mask != 0) * 1)


def unframed(path, image, cards):
    """Write an image, a weight map and a WCS, without a frame of parent coordinates."""
    header = fitsio.FITSHDR([*cards])
    fitsio.write(path, image, header=header)
    fitsio.write(path.with_suffix(".weight.fits"), np.ones_like(image))
    return path


def test_offsets_from_reference_points(tmp_path, wcs_cards):
    image = np.zeros((10, 12), np.float32)
    first = opened(unframed(tmp_path / "a.fits", image, wcs_cards)).info.grid
    moved = shift_cards(wcs_cards, 3, -2)
    second = opened(unframed(tmp_path / "b.fits", image, moved)).info.grid
    assert offset_to(first, first) == (0, 0)
    assert offset_to(second, first) == (3, -2)
    exponent = replace(first, wcs=tuple(c.replace("    20.5", "2.05D+01") for c in wcs_cards))
    assert offset_to(second, exponent) == (3, -2)
    fraction = tuple(c.replace("20.5", "20.8") for c in wcs_cards)
    third = opened(unframed(tmp_path / "c.fits", image, fraction)).info.grid
    with pytest.raises(WcsMismatchError, match=r"c.fits.*a.fits.*dx=-0.3000, dy=0.0000") as error:
        offset_to(third, first)
    assert "coblend warp" in error.value.hint


def test_the_grid_of_a_file_is_that_of_its_hdu(tmp_path, wcs_cards):
    """The HDU and version that are named give the grid; without a name, the first image."""
    with fitsio.FITS(tmp_path / "a.fits", "rw") as out:
        for version, moved in ((1, 0), (2, 7)):
            header = fitsio.FITSHDR([*shift_cards(wcs_cards, moved, moved)])
            out.write(np.zeros((10, 12 + moved)), extname="SCI", extver=version, header=header)
        out.write(np.zeros((5, 5)), extname="FLAT")
    for name, nx, x in (("", 12, 20.5), ("[SCI,2]", 19, 13.5), ("[1]", 19, 13.5)):
        grid = read_grid(f"{tmp_path}/a.fits{name}")
        assert (grid.box.nx, celestial(grid.wcs).wcs.crpix[0]) == (nx, x)
    with pytest.raises(WcsMismatchError, match=r"a.fits\[FLAT\]: no image with a celestial WCS$"):
        read_grid(f"{tmp_path}/a.fits[FLAT]")
    with pytest.raises(MissingHduError, match=r"no HDU NOT; it has 0 SCI"):
        read_grid(f"{tmp_path}/a.fits[NOT]")


def test_framed_files_need_no_offset(exposure, write_file):
    first = opened(write_file(exposure, "a.fits")).info.grid
    moved = replace(exposure, box=exposure.box.shift(5, 6))
    assert offset_to(opened(write_file(moved, "b.fits")).info.grid, first) == (0, 0)


def test_a_section_is_a_smaller_warp(exposure, write_file):
    path = write_file(exposure)
    y0, x0 = exposure.box.y0, exposure.box.x0
    part = opened(f"{path}[3:20,2:9]")
    assert part.info.box == Box(y0 + 1, x0 + 2, 8, 18)
    whole, cut = opened(path), part.info.box
    for a, b in zip(part.read(cut, STANDARD), whole.read(cut, STANDARD), strict=True):
        np.testing.assert_array_equal(a, b)
    assert offset_to(part.info.grid, whole.info.grid) == (0, 0)
    with pytest.raises(ParameterError, match=r"section 1:9999,1:2 of .*which has"):
        opened(f"{path}[1:9999,1:2]")


@pytest.mark.parametrize("kind", ["ecsv", "fits"])
def test_tables_of_inputs(tmp_path, kind):
    path = str(tmp_path / f"inputs.{kind}")
    table = Table({"FILE": ["a.fits", "b.fits"], "Weight": [1.0, 2.5], "ZP": [27, 28],
                   "PSF": ["gaussian:fwhm=3", ""]})  # fmt: skip
    table.write(path)
    first, second, third = read_lists([f"@{path}", "c.fits"])
    assert first == Listed("a.fits", weight=1, zero_point=27, psf="gaussian:fwhm=3")
    assert second == Listed("b.fits", weight=2.5, zero_point=28)
    assert third == Listed("c.fits")


def test_a_plain_list(tmp_path):
    (tmp_path / "list.txt").write_text("a.fits # first\n\nb.fits\n")
    assert read_lists([f"@{tmp_path}/list.txt"]) == [Listed("a.fits"), Listed("b.fits")]


def test_what_a_table_says_overrules_the_header(exposure, write_file):
    path = str(write_file(replace(exposure, unit="adu", meta={"MAGZERO": 20.0})))
    listed = Listed(path, weight=3.0, scale=2.0, zero_point=27.5, psf="gaussian:fwhm=4,size=11")
    info = open_warp(listed).info
    assert (info.weight, info.scale, info.zero_point, info.psf.side) == (3, 2, 27.5, 11)


# bad input


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a.fits"]}, "no column file; it has name"),
        ({"file": ["a.fits"], "weight": [-1.0]}, "row 1: weight is -1 for a.fits"),
        ({"file": ["a.fits", "b.fits"], "scale": [1.0, 0.0]}, "row 2: scale is 0 for b.fits"),
        ({"file": ["a.fits"], "zp": [np.nan]}, "row 1: zero_point is nan for a.fits"),
        (
            {"file": ["a.fits", "b.fits"], "weight": MaskedColumn([3, 4], mask=[False, True])},
            "row 2: weight is nan for b.fits",
        ),
        ({"file": ["a.fits"], "scale": ["two"]}, "column scale holds 'two', expected numbers"),
    ],
)
def test_tables_that_say_nonsense(tmp_path, columns, message):
    Table(columns).write(tmp_path / "t.ecsv")
    with pytest.raises(FormatError, match=message):
        read_lists([f"@{tmp_path}/t.ecsv"])


def test_a_broken_table(tmp_path):
    (tmp_path / "t.ecsv").write_text("# %ECSV 1.0\n# ---\n# datatype:\nfile\na b c\n")
    with pytest.raises(FormatError, match="no ECSV table"):
        read_lists([f"@{tmp_path}/t.ecsv"])
    fitsio.write(tmp_path / "t.fits", np.zeros((3, 3)))
    with pytest.raises(MissingHduError, match="no table of inputs"):
        read_lists([f"@{tmp_path}/t.fits"])


def test_planes_of_different_size(tmp_path):
    fitsio.write(tmp_path / "a.fits", np.zeros((8, 9), np.float32))
    fitsio.write(tmp_path / "a.weight.fits", np.ones((8, 8), np.float32))
    with pytest.raises(ShapeMismatchError, match=r"VARIANCE has 8x8 pixels, IMAGE 9x8"):
        opened(tmp_path / "a.fits")


def test_cube_instead_of_an_image(tmp_path):
    for name in ("a.fits", "a.weight.fits"):
        fitsio.write(tmp_path / name, np.ones((2, 8, 9), np.float32))
    with pytest.raises(FormatError, match="9x8x2 pixels, expected two axes"):
        opened(tmp_path / "a.fits")


def test_different_bands(exposure, write_file):
    first = opened(write_file(exposure, "a.fits")).info
    second = opened(write_file(replace(exposure, band="i"), "b.fits")).info
    require_same_band([first, replace(second, band="")])
    with pytest.raises(FormatError, match=r"b.fits: band i, but .*a.fits has r"):
        require_same_band([first, second])


def test_a_filter_that_no_band_can_be_called(exposure, write_file):
    """What no command would take for a band does not become that of a coadd."""
    name = "r DECam SDSS c0002 6415.0 1480.0"
    path = write_file(replace(exposure, band="", meta={"FILTER": name}))
    with pytest.raises(FormatError, match=f"FILTER is '{name}'; a band has 1 to 16 letters"):
        opened(path)
    assert opened(f"r={path}").info.band == "r"


@pytest.mark.parametrize(("suffix", "factor"), [("weight", 1e40), ("rms", 1e-20)])
def test_a_unit_too_small_for_32_bits(tmp_path, suffix, factor):
    fitsio.write(tmp_path / "a.fits", np.full((9, 9), 1e-20))
    fitsio.write(tmp_path / f"a.{suffix}.fits", np.full((9, 9), factor))
    warp = opened(tmp_path / "a.fits")
    with pytest.raises(FormatError, match=r"the variance is about 1.0e-40") as error:
        warp.read(Box(0, 0, 9, 9), STANDARD)
    assert "multiply the image by 1e20" in error.value.hint
