"""Reading warps by sections and placing them."""

from dataclasses import replace

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError, ShapeMismatchError, WcsMismatchError
from coblend.core.mask import STANDARD, MaskPlanes
from coblend.io.coadd.warps import offset_to, open_warp, require_same_band
from coblend.io.sky.wcs import shift_cards


def opened(path):
    return open_warp(str(path))


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


def test_what_the_headers_tell(exposure, write_file):
    warp = opened(write_file(exposure)).info
    assert (warp.box, warp.unit, warp.band) == (exposure.box, "nJy", "r")
    assert warp.zero_point == 31.4
    assert warp.wcs == exposure.wcs
    assert warp.framed
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
    first = opened(unframed(tmp_path / "a.fits", image, wcs_cards)).info
    moved = shift_cards(wcs_cards, 3, -2)
    second = opened(unframed(tmp_path / "b.fits", image, moved)).info
    assert offset_to(first, first) == (0, 0)
    assert offset_to(second, first) == (3, -2)
    fraction = tuple(c.replace("20.5", "20.8") for c in wcs_cards)
    third = opened(unframed(tmp_path / "c.fits", image, fraction)).info
    with pytest.raises(WcsMismatchError, match=r"c.fits.*a.fits.*dx=-0.3000, dy=0.0000") as error:
        offset_to(third, first)
    assert "coblend warp" in error.value.hint


def test_framed_files_need_no_offset(exposure, write_file):
    first = opened(write_file(exposure, "a.fits")).info
    moved = replace(exposure, box=exposure.box.shift(5, 6))
    assert offset_to(opened(write_file(moved, "b.fits")).info, first) == (0, 0)


# bad input


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
