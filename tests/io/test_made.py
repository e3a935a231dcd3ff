"""Whether a file would be made the same again."""

from __future__ import annotations

import os
from pathlib import Path

import fitsio
import numpy as np
import pytest

from coblend.io.fits.made import read_made, was_input, why_stale
from coblend.io.fits.provenance import InputFile, Provenance
from coblend.io.fits.writer import create

OPTIONS = {"threshold": "5.0", "planes": "BAD,SAT", "note": ""}


@pytest.fixture
def made(in_folder: Path) -> Path:
    """A file made from two others, one second younger than they."""
    for name in ("a.fits", "b.fits"):
        with create(name, "x/1") as out:
            out.image("IMAGE", np.full((4, 4), ord(name[0]), np.float32))
        os.utime(name, (1000, 1000))
    inputs = tuple(InputFile.of("exposure", name) for name in ("a.fits", "b.fits"))
    options = tuple((key, value, "default") for key, value in OPTIONS.items())
    with create("made.fits", "y/1", provenance=Provenance("detect", (), options, inputs)):
        pass
    os.utime("made.fits", (1001, 1001))
    return in_folder / "made.fits"


def stale(command: str = "detect", inputs: tuple[str, ...] = ("a.fits", "b.fits"), **options: str):
    return why_stale("made.fits", command, {**OPTIONS, **options}, inputs)


def test_made_files_say_how(made: Path) -> None:
    found = read_made("made.fits")
    assert found is not None
    assert (found.command, dict(found.options)) == ("detect", OPTIONS)
    assert [i.name for i in found.inputs] == ["a.fits", "b.fits"]
    assert stale() is None


def test_inputs_are_known_again(made: Path) -> None:
    """By content, under any name; what a file does not say is taken for granted."""
    Path("same.fits").write_bytes(Path("a.fits").read_bytes())
    Path("text").write_text("a,b")
    with create("plain.fits", "y/1"), create("other.fits", "x/1") as out:
        out.image("IMAGE", np.zeros((4, 4), np.float32))
    assert was_input("same.fits", "made.fits", "exposure") is True
    assert was_input("other.fits", "made.fits", "exposure") is False
    assert was_input("text", "made.fits", "exposure") is None, "hashed in another way"
    assert was_input("other.fits", "made.fits", "mask") is True
    assert was_input("other.fits", "plain.fits", "exposure") is True


def test_every_reason(made: Path) -> None:
    assert stale(threshold="6.0") == "was made with threshold=5.0, not 6.0"
    assert stale(new="1") == "was made with new=unknown, not 1"
    assert stale("deblend") == "was not made by deblend"
    assert stale(inputs=("b.fits", "a.fits")) == "was made from other inputs"
    Path("c.fits").write_bytes(Path("a.fits").read_bytes())
    assert stale(inputs=("a.fits", "b.fits", "c.fits")) == "was made from other inputs"
    Path("d").mkdir()
    Path("a.fits").rename("d/a.fits")
    assert stale(inputs=("d/a.fits", "b.fits")) is None, "folders do not count"
    made.unlink()
    assert stale() == "is missing"


def test_inputs_count_by_content(made: Path) -> None:
    """A younger input with the same pixels is the same; other pixels or another size are not."""
    os.utime("a.fits")
    assert stale() is None
    with create("a.fits", "x/1", overwrite=True) as out:
        out.image("IMAGE", np.zeros((4, 4), np.float32))
    assert stale() == "is older than a.fits"
    os.utime("a.fits", (1000, 1000))
    assert stale() is None, "an older file of the same size is taken as it is"
    with open("b.fits", "ab") as stream:
        stream.write(bytes(2880))
    os.utime("b.fits", (1000, 1000))
    assert stale() == "is older than b.fits"


def test_files_that_options_name_count_where_they_were_read(made: Path) -> None:
    Path("unread.txt").write_text("x")

    def reason() -> str | None:
        return why_stale("made.fits", "detect", OPTIONS, ["a.fits"], ["b.fits", "unread.txt"])

    assert reason() is None
    with create("b.fits", "x/1", overwrite=True) as out:
        out.image("IMAGE", np.zeros((4, 4), np.float32))
    assert reason() == "is older than b.fits"


def test_files_of_others(in_folder: Path) -> None:
    Path("made.fits").write_text("no FITS")
    assert read_made("made.fits") is None
    with create("made.fits", "y/1", overwrite=True):
        pass
    assert stale() == "was not made by detect"


def test_cards_that_say_what_the_data_mean_count(made: Path) -> None:
    """A new zero point makes a file stale, though the data are the same; a new date does not."""
    for key, value, reason in (
        ("DATE", "2030-01-01", None), ("MAGZERO", 26.0, "is older than a.fits"),
    ):  # fmt: skip
        with fitsio.FITS("a.fits", "rw") as file:
            file[1].write_key(key, value)
            file[1].write_checksum()
        os.utime("a.fits", (2000, 2000))
        os.utime("made.fits", (1500, 1500))
        assert stale() == reason
    assert was_input("a.fits", "made.fits", "exposure") is True, "its pixels are the same"


def test_an_input_that_an_option_names_too(made: Path) -> None:
    """As psf-match of several exposures, one of which is the reference."""
    names = [("exposure", "a.fits"), ("reference", "a.fits"), ("plane", "b.fits")]
    inputs = tuple(InputFile.of(role, name) for role, name in names)
    options = tuple((key, value, "default") for key, value in OPTIONS.items())
    provenance = Provenance("detect", (), options, inputs)
    with create("made.fits", "y/1", overwrite=True, provenance=provenance):
        pass
    assert stale(inputs=("a.fits",)) is None
