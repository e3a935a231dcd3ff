"""Broken files are recognised before any FITS library sees them."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from coblend.core.errors import CorruptFileError, FormatError, InputMissingError
from coblend.core.exposure import Exposure
from coblend.io.fits.checksum import mismatches
from coblend.io.fits.structure import scan


@pytest.fixture
def whole(exposure: Exposure, write_file: Callable[..., Path]) -> Path:
    return write_file(exposure, "whole.fits")


def test_hdus_are_those_that_astropy_sees(whole: Path) -> None:
    hdus = scan(str(whole))
    with fits.open(whole) as reference:
        assert [h.name for h in hdus[1:]] == [h.name for h in reference[1:]]
        for ours, theirs in zip(hdus[1:4], reference[1:4], strict=True):
            assert ours.shape == theirs.data.shape
        assert [h.end for h in hdus[:-1]] == [h.start for h in hdus[1:]]


def test_truncation_at_every_block_is_an_error(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    cut = tmp_path / "cut.fits"
    boundaries = {h.end for h in scan(str(whole))} - {len(data)}
    assert len(boundaries) >= 4
    lengths = sorted({*range(0, len(data), 2880), *boundaries, 1, 79, 80, len(data) - 1})
    for length in lengths:
        cut.write_bytes(data[:length])
        with pytest.raises(CorruptFileError, match=r"cut\.fits: (truncated|empty file)"):
            scan(str(cut))


def test_a_flipped_bit_is_found_by_the_checksums(
    whole: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    data = bytearray(whole.read_bytes())
    assert mismatches(str(whole)) == []
    hdus = scan(str(whole))
    path = tmp_path / "flipped.fits"
    for hdu in hdus[1:]:
        position = int(rng.integers(hdu.data, hdu.end))
        data[position] ^= 4
        path.write_bytes(data)
        assert mismatches(str(path)) == [hdu.name]
        data[position] ^= 4


def test_checksums_are_those_of_astropy(whole: Path) -> None:
    with fits.open(whole, checksum=True) as reference:  # warns, hence fails, on a mismatch
        reference.verify("exception")
        for hdu in reference[1:4]:
            assert hdu.data is not None


def test_gzipped_files_are_read_and_checked(whole: Path, tmp_path: Path) -> None:
    packed = tmp_path / "whole.fits.gz"
    packed.write_bytes(gzip.compress(whole.read_bytes()))
    assert [h.name for h in scan(str(packed))] == [h.name for h in scan(str(whole))]
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(CorruptFileError, match="gzip"):
        scan(str(packed))


def test_what_is_not_fits(tmp_path: Path) -> None:
    page = tmp_path / "page.fits"
    page.write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(FormatError, match="HTML"):
        scan(str(page))
    page.write_text("1 2 3\n4 5 6\n")
    with pytest.raises(FormatError, match="starts with '1 2 3'"):
        scan(str(page))
    with pytest.raises(InputMissingError, match="no such file"):
        scan(str(tmp_path / "none.fits"))
    with pytest.raises(InputMissingError, match=r"directory"):
        scan(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_files(whole: Path) -> None:
    whole.chmod(0)
    with pytest.raises(InputMissingError, match="permission denied"):
        scan(str(whole))
