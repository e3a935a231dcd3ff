"""Files of released schemas stay readable: one of each is kept, with what it must give."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.catalog import Column
from coblend.core.errors import MissingHduError, SchemaError
from coblend.io.deblend.footprints import read_heavy
from coblend.io.deblend.model_file import ModelFile
from coblend.io.deblend.model_tables import as_columns, require_columns
from coblend.io.deblend.models import SCHEMA, read_models, verify_blends, write_models
from coblend.io.detect.detections import read_detections
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.checksum import mismatches
from coblend.io.fits.reader import open_fits
from coblend.io.fits.writer import create
from coblend.io.sky.wcs import pixel_to_sky

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


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str], str]:
    """Unpack a file, found whole."""

    def unpack(name: str) -> str:
        path = tmp_path / f"{name}.fits"
        path.write_bytes(gzip.decompress((GOLDEN / f"{name}.fits.gz").read_bytes()))
        assert mismatches(str(path)) == []
        return str(path)

    return unpack


def test_exposure_1(golden: Callable[[str], str]) -> None:
    exposure = read_exposure(golden("exposure_1"))
    assert (exposure.box, exposure.band, exposure.unit) == (Box(30, 40, 20, 24), "r", "nJy")
    assert exposure.image.sum(dtype=float) == pytest.approx(-21.807202788681025, rel=1e-12)
    assert exposure.mask[3, 4] == exposure.planes.value(["SAT", "NO_DATA"])
    assert exposure.mask[5, 6] == exposure.planes.value(["CR"])
    assert (exposure.variance[0, 0], exposure.variance[3, 4]) == (2.0, np.inf)
    assert exposure.meta["MAGZERO"] == 31.4
    assert exposure.psf is not None
    assert exposure.psf.at(0, 0).max() == pytest.approx(0.09320139384759007, rel=1e-6)
    ra, dec = pixel_to_sky(exposure.wcs, exposure.box, np.array([49.0]), np.array([39.0]))
    assert (ra[0], dec[0]) == pytest.approx((150.0, 2.0))


@pytest.mark.parametrize(
    ("name", "bands", "area", "n_peak", "x", "spans"),
    [
        ("det_1", ("r",), 3725, 16, 573.7419630830638, 8594),
        ("merged_1", ("g", "r"), 4060, 20, 605.2627459028391, 6853),
    ],
)
def test_detections_1(
    golden: Callable[[str], str], name: str, bands: tuple[str, ...], area: int, n_peak: int,
    x: float, spans: int,
) -> None:  # fmt: skip
    found = read_detections(golden(name))
    assert (found.bands, found.box) == (bands, Box(0, 0, 64, 64))
    assert (found.parents["area"].tolist(), len(found.peaks)) == ([area], n_peak)
    assert found.peaks["x"].sum() == pytest.approx(x, rel=1e-12)
    assert found.footprints.spans.sum() == spans


def test_footprints_1_and_heavy_1(golden: Callable[[str], str]) -> None:
    with open_fits(golden("footprints_1")) as file:
        file.require_schema("footprints")
        objects = file.table("OBJECTS")
    assert objects["flux_g"][[0, 3]] == pytest.approx([474870.55232324486, 72880.80395034041])
    assert objects["n_pix_r"][:5].tolist() == [3383, 3367, 3683, 1368, 2184]
    heavy = read_heavy(golden("heavy_1"))
    assert (heavy.band, heavy.unit, heavy.table["id"].tolist()) == ("r", "nJy", [1020, 1021, 1022])
    assert heavy.footprints.areas.tolist() == [568, 510, 391]
    assert heavy.footprints.spans.sum() == 45877
    assert heavy.light.sum(dtype=float) == pytest.approx(956.1718813453808, rel=1e-12)


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
