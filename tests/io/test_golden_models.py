"""Files of released schemas stay readable: one of each is kept, with what it must give."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from coblend.core.catalog import Column
from coblend.core.errors import MissingHduError, SchemaError
from coblend.io.deblend.model_file import ModelFile
from coblend.io.deblend.model_tables import as_columns, require_columns
from coblend.io.deblend.models import SCHEMA, read_models, verify_blends, write_models
from coblend.io.fits.checksum import mismatches
from coblend.io.fits.reader import open_fits
from coblend.io.fits.writer import create

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture
def deblended_1(tmp_path: Path) -> str:
    """A file of schema deblended/1, written on 21 November 2026."""
    path = tmp_path / "deblended_1.fits"
    path.write_bytes(gzip.decompress((GOLDEN / "deblended_1.fits.gz").read_bytes()))
    return str(path)


def test_deblended_1(deblended_1: str) -> None:
    models = read_models(deblended_1)
    assert models.bands == ("g", "r")
    assert models.unit == "nJy"
    assert models.objects["id"].tolist() == [1000, 1010, 1011, 1020, 1021, 1022, 1030, 1031, 1032,
                                             1033]  # fmt: skip
    assert models.components["kind"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0]
    assert models.footprints.areas.tolist() == [1405, 1481, 997, 2001]
    assert models.morph.sum(dtype=float) == pytest.approx(126.31576016265899, rel=1e-12)
    assert models.spectra().sum(dtype=float) == pytest.approx(253.2674582004547, rel=1e-12)
    assert models.psfs.shape == (2, 2, 11, 11)
    assert models.psfs.sum(dtype=float) == pytest.approx(4.0000018157297745, rel=1e-12)
    assert models.objects["model_flux_r"][3] == np.float32(784.93017578125)
    assert verify_blends(deblended_1) == mismatches(deblended_1) == []
    with ModelFile(deblended_1) as file:
        assert file.source(1032).components["kind"].tolist() == [1, 2, 0, 0]


def test_the_first_layout_is_brought_up_to_date(deblended_1: str, tmp_path: Path) -> None:
    """It had other keywords, wider columns and fewer of them; written again it has today's."""
    old = read_models(deblended_1)
    path = str(tmp_path / "now.fits")
    with create(path, SCHEMA) as out:
        write_models(out, old, np.ones(len(old.components)))
    stored = {}
    for name in (deblended_1, path):
        with open_fits(name) as file:
            stored[name] = file.header("PARENTS"), file.table("PARENTS"), file.table("BLENDS")
    (was, parents, blends), (now, new_parents, new_blends) = stored.values()
    assert was["BUNIT"] == now["FLUXUNIT"] == "nJy"
    assert was["NAXISI1"] == now["GRIDNX"] == old.box.nx
    assert not {"FLUXUNIT", "GRIDNX"} & was.keys()
    assert not {"BUNIT", "NAXISI1"} & now.keys()
    assert (blends.dtype["crc32"], new_blends.dtype["crc32"]) == ("i8", "u4")
    assert blends.dtype["y0"].itemsize > new_blends.dtype["y0"].itemsize
    more = {"n_component", "memory", "log_likelihood", "flag_as_psf"}
    assert more & set(parents.dtype.names) == set()
    assert more <= set(new_parents.dtype.names)
    assert np.all(np.isnan(old.parents["memory"]))
    assert not old.parents["n_component"].any()
    assert not old.parents["flag_as_psf"].any()
    assert verify_blends(path) == mismatches(path) == []
    back = read_models(path)
    for name in ("parents", "blends", "objects"):
        assert getattr(back, name).tobytes() == getattr(old, name).tobytes()
    assert (back.bands, back.unit, back.box) == (old.bands, old.unit, old.box)
    assert np.array_equal(back.footprints.spans, old.footprints.spans)
    assert np.array_equal(back.psfs, old.psfs)


def test_schemas_of_other_versions(tmp_path: Path) -> None:
    """A number after the point changes nothing for a reader; a larger one before it does."""
    for version in ("1", "1.7", "1.0.3"):
        path = str(tmp_path / f"{version}.fits")
        with create(path, f"deblended/{version}") as out:
            out.image("MORE", np.zeros((2, 2), np.float32))
        with open_fits(path) as file:
            file.require_schema("deblended")
    newer = str(tmp_path / "newer.fits")
    with create(newer, "deblended/2.1") as out:
        out.image("MORE", np.zeros((2, 2), np.float32))
    with pytest.raises(SchemaError) as caught:
        ModelFile(newer)
    assert str(caught.value) == (
        f"{newer}: schema deblended/2 is newer than this program knows (deblended/1)\n"
        "  upgrade coblend"
    )


def test_columns_that_older_files_lack() -> None:
    """Numbers and flags are unknown, 0 or False; what places things must be there."""
    old = np.array([(7, 1.5, 9)], [("id", "i8"), ("chi2", "f4"), ("own", "i2")])
    columns = (Column("id", "i8", ""), Column("chi2", "f4", ""), Column("new", "f8", ""),
               Column("n_new", "i4", ""), Column("flag_new", "?", ""))  # fmt: skip
    read = as_columns(old, columns, keep=True)
    assert read.dtype.names == ("id", "chi2", "new", "n_new", "flag_new", "own")
    assert read["chi2"][0] == 1.5
    assert np.isnan(read["new"][0])
    assert read["n_new"][0] == 0
    assert not read["flag_new"][0]
    assert read["own"][0] == 9
    assert as_columns(old, columns).dtype.names == ("id", "chi2", "new", "n_new", "flag_new")
    with pytest.raises(MissingHduError, match=r"a.fits\[BLENDS\]: no column parent"):
        require_columns(old, "BLENDS", "a.fits")
