"""Damaged tiles are found before CFITSIO decompresses them."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pytest

from coblend.core.errors import CorruptFileError
from coblend.io.fits.reader import open_fits
from coblend.io.fits.structure import scan
from coblend.io.fits.writer import create


@pytest.mark.parametrize(
    ("codec", "dtype"), [("GZIP_2", "f4"), ("GZIP_2", "i2"), ("RICE_1", "i4"), ("PLIO_1", "i4")]
)
def test_flipped_bits_of_our_own_images(
    tmp_path: Path, rng: np.random.Generator, codec: str, dtype: str
) -> None:
    """Whole: always an error. A section: never another number from gzipped tiles."""
    image = rng.integers(0, 90, (60, 70)).astype(dtype)
    path = tmp_path / "a.fits"
    with create(str(path), "exposure/1") as out:
        out.image("IMAGE", image, compress=codec, tile=(16, 32))
    good = path.read_bytes()
    hdu = scan(str(path))[1]
    part = (slice(20, 50), slice(5, 40))
    for _ in range(60):
        broken = bytearray(good)
        broken[int(rng.integers(hdu.data, hdu.end))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        with open_fits(str(path)) as file:
            with pytest.raises(CorruptFileError, match="DATASUM does not match"):
                file.image("IMAGE")
            if codec == "GZIP_2":
                try:
                    found = file.image("IMAGE", part)
                except CorruptFileError:
                    continue
                assert np.array_equal(found, image[part])


def test_damaged_tiles_of_other_files(tmp_path: Path, rng: np.random.Generator) -> None:
    """A gzipped tile in which one byte differs must not keep CFITSIO busy for ever."""
    path = tmp_path / "a.fits"
    image = rng.normal(size=(40, 50)).astype(np.float32)
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(image, compress="GZIP_1", tile_dims=(10, 50), qlevel=0)
    good = path.read_bytes()
    hdu = scan(str(path))[1]
    for place in range(hdu.data + 40, hdu.end - 2880, 97):
        broken = bytearray(good)
        broken[place] ^= 0x10
        path.write_bytes(bytes(broken))
        with open_fits(str(path)) as file:
            try:
                found = file.image(1)
            except CorruptFileError as error:
                note = str(error)
            else:
                note = "tile is damaged" if np.array_equal(found, image) else "wrong numbers"
        assert "is damaged" in note


def test_only_the_tiles_of_the_section_are_checked(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "a.fits"
    image = rng.normal(size=(64, 64)).astype(np.float32)
    with create(str(path), "exposure/1") as out:
        out.image("IMAGE", image, tile=(16, 16))
    hdu = scan(str(path))[1]
    data = bytearray(path.read_bytes())
    data[hdu.data + 16 * 8 + 300] ^= 1  # in the heap, in the first tile
    path.write_bytes(bytes(data))
    with open_fits(str(path)) as file:
        far = (slice(32, 64), slice(16, 48))
        assert np.array_equal(file.image("IMAGE", far), image[far])
        with pytest.raises(CorruptFileError, match="tile 0 is damaged"):
            file.image("IMAGE", (slice(0, 2), slice(0, 2)))


def test_descriptors_that_point_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    with create(str(path), "exposure/1") as out:
        out.image("IMAGE", np.arange(4000, dtype=np.int32), compress="RICE_1", tile=(1000,))
    hdu = scan(str(path))[1]
    data = bytearray(path.read_bytes())
    data[hdu.data + 8] |= 0x40  # the length of the second tile
    path.write_bytes(bytes(data))
    with (
        open_fits(str(path)) as file,
        pytest.raises(CorruptFileError, match="tile 1 is damaged"),
    ):
        file.image("IMAGE", (slice(900, 1100),))
