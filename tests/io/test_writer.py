"""Writing is lossless, atomic and reproducible; each trap of the FITS libraries is avoided."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from coblend.core.catalog import Column
from coblend.core.errors import (
    CorruptFileError,
    DiskError,
    OutputError,
    OutputExistsError,
    ParameterError,
)
from coblend.io.fits.output import replacing
from coblend.io.fits.provenance import InputFile, Provenance
from coblend.io.fits.reader import open_fits
from coblend.io.fits.structure import scan
from coblend.io.fits.summary import verify
from coblend.io.fits.writer import create

AWKWARD = ["a[1].fits", "a(1).fits", "!a.fits", "a b.fits", "a+1.fits", "ü.fits"]


def write(path: Path | str, **images: Any) -> Path:
    with create(str(path), "exposure/1", overwrite=True) as out:
        for name, data in images.items():
            out.image(name, data)
    return Path(path)


def image_with_everything(rng: np.random.Generator) -> np.ndarray:
    image = rng.normal(size=(300, 270)).astype(np.float32)
    image[10, 20] = np.nan
    image[11, :50] = 0
    return image


def test_float_images_come_back_bit_by_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    """Traps 1, 3, 4: lossless, read alike by other libraries, one NaN stays one NaN."""
    image = image_with_everything(rng)
    path = write(tmp_path / "a.fits", IMAGE=image, CUBE=image.astype(float).reshape(3, 100, 270))
    with open_fits(str(path)) as file:
        ours = file.image("IMAGE")
        assert file.header("IMAGE")["ZCMPTYPE"] == "GZIP_2"
        assert "ZDITHER0" not in file.header("IMAGE")
        cube = file.image("CUBE")
    assert ours.dtype == np.float32
    assert ours.dtype.isnative
    assert np.array_equal(ours, image, equal_nan=True)
    assert np.array_equal(cube, image.astype(float).reshape(3, 100, 270), equal_nan=True)
    with fits.open(path) as hdus:
        assert np.array_equal(hdus["IMAGE"].data, image, equal_nan=True)


def test_rice_is_refused_for_floats(tmp_path: Path) -> None:
    """Trap 2: unquantised RICE on floats silently stores truncated integers."""
    with (
        pytest.raises(ParameterError, match="RICE_1 does not store float32"),
        create(str(tmp_path / "a.fits"), "x/1") as out,
    ):
        out.image("A", np.ones((9, 9), np.float32), compress="RICE_1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("codec", ["HCOMPRESS_1", "GZIP_1"])
def test_codecs_with_traps_are_not_offered(tmp_path: Path, codec: str) -> None:
    """Trap 9: HCOMPRESS changes the dither, GZIP_1 is larger than GZIP_2."""
    with (
        pytest.raises(ParameterError, match=codec),
        create(str(tmp_path / "a.fits"), "x/1") as out,
    ):
        out.image("A", np.ones((9, 9), np.int32), compress=codec)


@pytest.mark.parametrize("value", [-1, 1 << 24, (1 << 31) - 1])
def test_masks_beyond_plio_fall_back(tmp_path: Path, value: int) -> None:
    """Trap 6: PLIO_1 fails for negative values and bits above 23."""
    mask = np.zeros((300, 40), np.int32)
    path = write(tmp_path / "small.fits", MASK=mask + 7)
    with open_fits(str(path)) as file:
        assert file.header("MASK")["ZCMPTYPE"] == "PLIO_1"
    mask[5, 6] = value
    path = write(tmp_path / "large.fits", MASK=mask)
    with open_fits(str(path)) as file:
        assert np.array_equal(file.image("MASK"), mask)


def test_bools_wide_integers_and_four_axes(tmp_path: Path, rng: np.random.Generator) -> None:
    """Trap 6: neither bool nor int64 can be compressed; nor can CFITSIO compress four axes."""
    flags = rng.random((20, 30)) > 0.5
    wide = rng.integers(-(2**60), 2**60, (20, 30))
    stamps = rng.normal(size=(3, 4, 5, 6))
    path = write(tmp_path / "a.fits", FLAGS=flags, WIDE=wide, STAMPS=stamps)
    with open_fits(str(path)) as file:
        assert np.array_equal(file.image("FLAGS"), flags)
        assert np.array_equal(file.image("WIDE"), wide)
        assert np.array_equal(file.image("STAMPS"), stamps)


def test_tiles_are_in_numpy_order(tmp_path: Path) -> None:
    """Trap 7: the first tile length is that of the first numpy axis, ZTILE2."""
    with create(str(tmp_path / "a.fits"), "x/1") as out:
        out.image("A", np.zeros((40, 100), np.float32), tile=(8, 50))
    header = fitsio.read_header(tmp_path / "a.fits", ext="A")
    assert (header["ZTILE1"], header["ZTILE2"]) == (50, 8)


def test_the_primary_is_always_empty(tmp_path: Path) -> None:
    """Trap 8: fitsio would put the first uncompressed image into the primary."""
    with create(str(tmp_path / "a.fits"), "x/1") as out:
        out.image("A", np.zeros((4, 4), np.float32), compress="none")
    assert [(h.name, h.shape) for h in scan(str(tmp_path / "a.fits"))] == [("", ()), ("A", (4, 4))]


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("folder", ["", "d[1](x)+2"])
def test_file_names_that_cfitsio_would_parse(tmp_path: Path, name: str, folder: str) -> None:
    """Trap 10."""
    path = write(tmp_path / folder / name, IMAGE=np.eye(5, dtype=np.float32))
    with open_fits(str(path)) as file:
        assert np.array_equal(file.image("IMAGE"), np.eye(5))
    assert sorted(p.name for p in path.parent.iterdir()) == [name]


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    """Traps 11, 12: replacing renames; an open file keeps its content."""
    path = write(tmp_path / "a.fits", IMAGE=np.zeros((300, 300), np.float32))
    with open_fits(str(path)) as file:
        write(path, IMAGE=np.ones((300, 300), np.float32))
        assert file.image("IMAGE").max() == 0
    with open_fits(str(path)) as file:
        assert file.image("IMAGE").min() == 1


def test_streaming_does_not_depend_on_the_blocks(tmp_path: Path, rng: np.random.Generator) -> None:
    image = image_with_everything(rng)
    files = []
    for height in (1, 7, 64, 300):
        path = tmp_path / f"rows{height}.fits"
        blocks = (image[y : y + height] for y in range(0, len(image), height))
        with create(str(path), "exposure/1") as out:
            out.stream("IMAGE", blocks, image.shape, image.dtype)
        files.append(path.read_bytes())
        with open_fits(str(path)) as file:
            assert np.array_equal(file.image("IMAGE"), image, equal_nan=True)
    assert len(set(files)) == 1
    assert len(files[0]) < image.nbytes * 1.1


TABLE_COLUMNS = (
    Column("id", "i8", "Identifier", ucd="meta.id;meta.main"),
    Column("x", "f8", "Position", "pixel", "pos.cartesian.x"),
    Column("flag", "?", "Flag"),
    Column("band", "U16", "Band"),
)


def test_tables_round_trip_with_units_and_descriptions(tmp_path: Path) -> None:
    rows = np.zeros(3, [("id", "i8"), ("x", "f8"), ("flag", "?"), ("band", "U16")])
    rows["id"] = [2**62, -5, 1]
    rows["x"] = [np.nan, 1.5, -2]
    rows["flag"] = [True, False, True]
    rows["band"] = ["g", "", "HSC-R2"]
    path = tmp_path / "t.fits"
    with create(str(path), "det/1") as out:
        out.table("PEAKS", rows, columns=TABLE_COLUMNS, header={"N": 3})
        out.table("EMPTY", rows[:0], columns=TABLE_COLUMNS)
    with open_fits(str(path)) as file:
        for name in rows.dtype.names:
            assert np.array_equal(file.table("PEAKS")[name], rows[name], equal_nan=name == "x")
        assert list(file.table("PEAKS", columns=["ID"], rows=slice(1, 3))["id"]) == [-5, 1]
        assert len(file.table("EMPTY")) == 0
        assert file.table("EMPTY").dtype.names == rows.dtype.names
    table = Table.read(path, hdu="PEAKS")
    assert table["x"].unit == "pixel"
    header = fits.getheader(path, "PEAKS")
    assert (header["TCOMM1"], header["TUCD1"]) == ("Identifier", "meta.id;meta.main")


def test_text_that_is_not_ascii_is_escaped(tmp_path: Path) -> None:
    """As in PROVENANCE; the column is wide enough for the escapes."""
    rows = np.array(
        [("déjà.fits", 1), ("x.fits", 2), ("\udcff中", 3)], [("name", "U9"), ("n", "i4")]
    )
    with create(str(tmp_path / "t.fits"), "det/1") as out:
        out.table("INPUTS", rows)
    with open_fits(str(tmp_path / "t.fits")) as file:
        back = file.table("INPUTS")
    assert list(back["name"]) == [r"d\xe9j\xe0.fits", "x.fits", r"\udcff\u4e2d"]
    assert list(back["n"]) == [1, 2, 3]


def test_gzipped_outputs(tmp_path: Path, rng: np.random.Generator) -> None:
    """The plain file in gzip, without a name or a clock; read, verified, and damage noticed."""
    image = image_with_everything(rng)
    plain = write(tmp_path / "a.fits", IMAGE=image)
    packed = write(tmp_path / "a.fits.gz", IMAGE=image)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert packed.read_bytes() == write(tmp_path / "b.fits.gz", IMAGE=image).read_bytes()
    nameless = packed.rename(tmp_path / "packed.fits")
    with open_fits(str(nameless)) as file:
        file.require_schema("exposure")
        assert np.array_equal(file.image("IMAGE"), image, equal_nan=True)
    assert verify(str(nameless)) == []
    broken = bytearray(plain.read_bytes())
    broken[-3000] ^= 1
    nameless.write_bytes(gzip.compress(broken))
    assert verify(str(nameless)) == ["IMAGE"]
    nameless.write_bytes(packed_with_a_flipped_bit(plain.read_bytes()))
    with pytest.raises(CorruptFileError, match="damaged gzip file"):
        verify(str(nameless))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fits", "b.fits.gz", "packed.fits"]


def packed_with_a_flipped_bit(content: bytes) -> bytes:
    packed = bytearray(gzip.compress(content))
    packed[len(packed) // 2] ^= 1
    return bytes(packed)


def provenance(path: Path) -> Provenance:
    return Provenance(
        "detect",
        ("a.fits", "--threshold", "5"),
        (("threshold", "5.0", "default"), ("bad_planes", "NO_DATA,SAT", "command line")),
        (InputFile.of("image:g", str(path)),),
    )


def test_the_same_content_is_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    image = image_with_everything(rng)
    source = write(tmp_path / "source.fits", IMAGE=image)
    for name in ("a.fits", "b.fits"):
        with create(str(tmp_path / name), "x/1", provenance=provenance(source)) as out:
            out.image("IMAGE", image, header={"BUNIT": "nJy", "HIERARCH_LONG": 1})
        time.sleep(1.1 if name == "a.fits" else 0)  # a clock in any header would show
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_provenance_tables_say_what_made_a_file(tmp_path: Path) -> None:
    source = write(tmp_path / "source.fits", IMAGE=np.zeros((3, 3), np.float32))
    with create(str(tmp_path / "a.fits"), "x/1", provenance=provenance(source)) as out:
        out.image("IMAGE", np.zeros((3, 3), np.float32))
    with open_fits(str(tmp_path / "a.fits")) as file:
        assert file.header(0)["CMDLINE"] == "coblend detect a.fits --threshold 5"
        row = file.table("PROVENANCE")[0]
        assert (row["role"], row["name"], row["algorithm"]) == (
            "image:g", "source.fits", "datasum-cards",
        )  # fmt: skip
        assert [tuple(r) for r in file.table("CONFIG")] == [
            ("threshold", "5.0", "default"), ("bad_planes", "NO_DATA,SAT", "command line"),
        ]  # fmt: skip
    assert str(tmp_path).encode() not in (tmp_path / "a.fits").read_bytes()


def test_keywords_stand_where_verifiers_want_them(tmp_path: Path, wcs_cards) -> None:
    """WCSAXES before all others of any WCS; continued texts are announced."""
    header = {"CTYPE1A": "LINEAR", "LONG": "'" * 35}
    with create(str(tmp_path / "a.fits"), "x/1") as out:
        out.image("IMAGE", np.zeros((3, 3), np.float32), header=header, wcs=wcs_cards)
        out.table("TABLE", np.zeros(2, [("a", "i4")]), header=header, wcs=wcs_cards)
        out.table("SHORT", np.zeros(2, [("a", "i4")]), header={"LONG": "x" * 68})
    with open_fits(str(tmp_path / "a.fits")) as file:
        for name in ("IMAGE", "TABLE"):
            keys = [card[:8].rstrip() for card in file.cards(name)]
            assert keys.index("WCSAXES") < keys.index("CTYPE1A")
            assert keys.index("LONGSTRN") < keys.index("CONTINUE")
        assert not any(card.startswith("LONGSTRN") for card in file.cards("SHORT"))


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", IMAGE=np.zeros((3, 3), np.float32))
    before = path.read_bytes()
    with (
        pytest.raises(ZeroDivisionError),
        create(str(path), "x/1", overwrite=True) as out,
    ):
        out.image("IMAGE", np.full((3, 3), 1 / 0, np.float32))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.fits"]


SLOW_WRITER = """
import sys, time, numpy as np
from coblend.cli.main import _end
from coblend.io.fits.summary import verify
from coblend.io.fits.writer import create
import signal
signal.signal(signal.SIGTERM, _end)
with create(sys.argv[1], "x/1", overwrite=True) as out:
    out.image("IMAGE", np.ones((100, 100), np.float32))
    print("half", flush=True)
    for _ in range(6000):  # a signal just before a long sleep would wait for its end
        time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_writer_leaves_the_old_file(tmp_path: Path, number: int) -> None:
    path = write(tmp_path / "a.fits", IMAGE=np.zeros((3, 3), np.float32))
    before = path.read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        process.wait(30)
    assert path.read_bytes() == before
    visible = [n for n in os.listdir(tmp_path) if not n.startswith(".")]
    assert visible == ["a.fits"]
    if number == signal.SIGTERM:
        assert os.listdir(tmp_path) == ["a.fits"]


def test_old_leftovers_are_removed_and_young_ones_kept(tmp_path: Path) -> None:
    """Old, or of a process of this machine that is no more."""
    elsewhere = [tmp_path / f".coblend-1-{i:016d}.fits" for i in (1, 2)]
    ended = subprocess.Popen(["true"])
    ended.wait()
    with replacing(str(tmp_path / "b.fits")) as temporary:
        running = tmp_path / Path(temporary).name
        killed = tmp_path / running.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
        for leftover in (*elsewhere, running, killed):
            leftover.write_text("x")
        scratch = killed.with_name(killed.name.replace(".fits", "")[:-1] + "f")
        scratch.mkdir()
        (scratch / "models.fits").write_text("x")
        os.utime(elsewhere[0], (0, 0))
        write(tmp_path / "a.fits", IMAGE=np.zeros((3, 3), np.float32))
        assert [p.exists() for p in (*elsewhere, running, killed)] == [False, True, True, False]
        assert not scratch.exists()


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", IMAGE=np.zeros((3, 3), np.float32))
    with pytest.raises(OutputExistsError, match=r"a\.fits: exists"), create(str(path), "x/1"):
        pass
    with pytest.raises(OutputError, match="is a folder"), create(str(tmp_path), "x/1"):
        pass
    with (
        pytest.raises(OutputError, match="folder cannot be made"),
        create(str(path / "b.fits"), "x/1"),
    ):
        pass


def test_missing_folders_are_made(tmp_path: Path) -> None:
    assert write(tmp_path / "p" / "q" / "a.fits", IMAGE=np.zeros((3, 3), np.float32)).exists()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """/dev/full's error number through the same path as a full disk."""
    with pytest.raises(DiskError, match="disk full"), create(str(tmp_path / "a.fits"), "x/1"):
        raise OSError(28, "No space left on device")
    assert not os.listdir(tmp_path)
