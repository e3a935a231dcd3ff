"""Heavy footprint files: round trips, rounding, access to one object, damage."""

from __future__ import annotations

import os
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from coblend.core.catalog import table_dtype
from coblend.core.errors import DiskError, FormatError, ParameterError, SchemaError
from coblend.core.footprint import FootprintSet
from coblend.io.deblend.footprints import (
    HEAVY_SCHEMA,
    HeavyFootprints,
    HeavySpool,
    heavy_columns,
    read_heavy,
    write_heavy,
)
from coblend.io.fits.writer import create


@pytest.fixture
def heavy(rng: np.random.Generator) -> HeavyFootprints:
    masks = [rng.random((12, 15)) < 0.7 for _ in range(40)]
    sets = FootprintSet.concatenate(
        [FootprintSet.from_mask(m, 40 + i, 70 - 2 * i) for i, m in enumerate(masks)]
    )
    table = np.zeros(40, table_dtype(heavy_columns()))
    table["id"], table["parent"] = np.arange(40) + (1 << 60), np.arange(40) // 3
    light = rng.normal(5, 20, int(sets.areas.sum())).astype(np.float32)
    return HeavyFootprints(table, sets, light, "r", "nJy")


def write(path: Path, heavy: HeavyFootprints, step: float, **options: object) -> Path:
    with create(str(path), HEAVY_SCHEMA, overwrite=True) as out:
        write_heavy(out, heavy, step, **options)  # type: ignore[arg-type]
    return path


def test_lossless_round_trip(heavy: HeavyFootprints, tmp_path: Path) -> None:
    back = read_heavy(str(write(tmp_path / "h.fits", heavy, 0.0)))
    assert back.light.tobytes() == heavy.light.tobytes()
    assert np.array_equal(back.footprints.spans, heavy.footprints.spans)
    assert np.array_equal(back.table["id"], heavy.table["id"])
    assert (back.band, back.unit) == ("r", "nJy")


def test_rounding_keeps_every_flux(heavy: HeavyFootprints, tmp_path: Path) -> None:
    back = read_heavy(str(write(tmp_path / "h.fits", heavy, 0.02)))
    assert np.abs(back.light - heavy.light).max() <= 0.0201
    ends = np.concatenate([[0], np.cumsum(heavy.footprints.areas)])
    for a, b in pairwise(ends):
        flux = heavy.light[a:b].sum(dtype=np.float64)
        assert back.light[a:b].sum(dtype=np.float64) == pytest.approx(flux, abs=0.0101)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named(
    heavy: HeavyFootprints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels wait in a nameless file: what is named is its folder."""
    with open("/dev/full", "wb", 0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        spool = HeavySpool(0.0, str(tmp_path))
        with pytest.raises(DiskError, match="disk full") as caught:
            spool.add(heavy)
    assert str(tmp_path) in str(caught.value)


def test_one_object_alone(heavy: HeavyFootprints, tmp_path: Path) -> None:
    for step in (0.0, 0.02):
        path = str(write(tmp_path / "h.fits", heavy, step))
        whole = read_heavy(path)
        for identifier in heavy.table["id"][::7].tolist():
            one = read_heavy(path, identifier)
            spans, light = whole.of(identifier)
            assert np.array_equal(one.footprints.spans, spans)
            assert np.array_equal(one.light, light)


def test_any_reader_gets_physical_values(heavy: HeavyFootprints, tmp_path: Path) -> None:
    path = write(tmp_path / "h.fits", heavy, 0.02, spans=True)
    with fits.open(path) as h:
        rows = h["FOOTPRINTS"].data
        assert np.abs(h["FLUX"].data - heavy.light).max() <= 0.0201
        assert rows["n_pix"].sum() == len(heavy.light)
        assert h["FLUX"].header["BUNIT"] == "nJy"
        spans = h["SPANS"].data
        assert np.array_equal(np.stack([spans[n] for n in ("y", "x0", "x1")], axis=1),
                              heavy.footprints.spans)  # fmt: skip


def test_nothing_to_write(tmp_path: Path) -> None:
    empty = HeavyFootprints(
        np.zeros(0, table_dtype(heavy_columns())), FootprintSet.empty(), np.zeros(0)
    )
    back = read_heavy(str(write(tmp_path / "h.fits", empty, 0.02)))
    assert len(back.table) == len(back.light) == len(back.footprints) == 0


# Bad input


def test_flipped_bits(heavy: HeavyFootprints, tmp_path: Path, rng: np.random.Generator) -> None:
    """Anywhere in the file: what is read is the original or an error."""
    path = write(tmp_path / "h.fits", heavy, 0.02)
    good = path.read_bytes()
    before = read_heavy(str(path))
    noticed = 0
    for place in rng.integers(0, len(good), 200).tolist():
        broken = bytearray(good)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            after = read_heavy(str(path))
        except FormatError:
            noticed += 1
            continue
        assert after.light.tobytes() == before.light.tobytes(), place
        assert after.table.tobytes() == before.table.tobytes(), place
        assert (after.band, after.unit) == (before.band, before.unit), place
    assert noticed > 100


def test_values_that_are_not_finite(heavy: HeavyFootprints, tmp_path: Path) -> None:
    heavy.light[3] = np.nan
    with pytest.raises(FormatError, match="1 pixels are not finite"):
        write(tmp_path / "h.fits", heavy, 0.02)
    assert list(tmp_path.iterdir()) == []


def test_unknown_object_and_file(heavy: HeavyFootprints, tmp_path: Path) -> None:
    path = str(write(tmp_path / "h.fits", heavy, 0.0))
    with pytest.raises(ParameterError, match="no footprint has id 5"):
        read_heavy(path, 5)
    with pytest.raises(ParameterError, match="no footprint has id 5"):
        read_heavy(path).of(5)
    other = str(tmp_path / "other.fits")
    with create(other, "exposure/1") as out:
        out.image("IMAGE", np.zeros((3, 3), np.float32))
    with pytest.raises(SchemaError, match="expected schema heavy"):
        read_heavy(other)
