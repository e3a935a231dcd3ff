"""File arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError, InputMissingError, ParameterError
from coblend.io.fits.specs import FileSpec, expand_lists, parse_band_spec, parse_spec, stem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.fits", FileSpec("a.fits")),
        ("a.fits[sci]", FileSpec("a.fits", "SCI")),
        ("a.fits[SCI,2]", FileSpec("a.fits", "SCI", 2)),
        ("a.fits[3]", FileSpec("a.fits", 3)),
        ("a.fits#PSF", FileSpec("a.fits", "PSF")),
        ("a.fits[1][11:20,1:5]", FileSpec("a.fits", 1, 0, Box(0, 10, 5, 10))),
        ("d[1]/a.fits[11:20,1:5]", FileSpec("d[1]/a.fits", None, 0, Box(0, 10, 5, 10))),
    ],
)
def test_forms(text: str, expected: FileSpec) -> None:
    assert parse_spec(text) == expected


def test_a_file_of_exactly_that_name_wins(in_folder: Path) -> None:
    for name in ("a[1].fits", "g=a.fits", "b.fits#1"):
        (in_folder / name).touch()
        assert parse_band_spec(name) == (None, FileSpec(name))


def test_bands() -> None:
    assert parse_band_spec("HSC-R2=x/a.fits[1]") == ("HSC-R2", FileSpec("x/a.fits", 1))
    assert parse_band_spec("x/a=b.fits") == (None, FileSpec("x/a=b.fits"))


@pytest.mark.parametrize("ending", [".fits", ".fit.gz", ".fts", ".fits.fz", ""])
def test_stem(ending: str) -> None:
    assert stem(f"x/a.fitted_b{ending}") == "a.fitted_b"


def test_lists(in_folder: Path) -> None:
    Path("list.txt").write_text("a.fits\n\n# comment\n b c.fits  # seeing 1\n")
    assert expand_lists(["x.fits", "@list.txt"]) == ["x.fits", "a.fits", "b c.fits"]


def test_bad_arguments() -> None:
    with pytest.raises(ParameterError, match="empty"):
        parse_spec("a.fits[5:4,1:1]")
    with pytest.raises(ParameterError, match="is not x1:x2,y1:y2"):
        parse_spec("a.fits[1:2]")
    with pytest.raises(ParameterError, match="neither an HDU nor a section"):
        parse_spec("a.fits[]")
    with pytest.raises(InputMissingError, match=r"nowhere\.txt: cannot read the list: No such"):
        expand_lists(["@nowhere.txt"])


@pytest.mark.parametrize("content", [b"a.fits\n\xff", b"SIMPLE  = T\0"])
def test_a_list_that_is_no_text(in_folder: Path, content: bytes) -> None:
    """It is there, but its content is bad."""
    Path("binary.fits").write_bytes(content)
    with pytest.raises(FormatError, match=r"binary\.fits: not a list of files"):
        expand_lists(["@binary.fits"])
