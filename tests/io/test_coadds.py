"""Writing coadds plane by plane, and their tables."""

from dataclasses import replace

import fitsio
import numpy as np
import pytest

from coblend.core.mask import STANDARD
from coblend.io.coadd.coadds import (
    INPUT_COLUMNS,
    PlaneStore,
    inputs_table,
    polygons_table,
    write_planes,
)
from coblend.io.coadd.inputs import Listed
from coblend.io.coadd.warps import open_warp
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.writer import create


def opened(path):
    return open_warp(Listed(str(path)))


@pytest.mark.parametrize("on_disk", [True, False])
def test_plane_store_round_trip(tmp_path, rng, on_disk):
    planes = {"A": rng.normal(size=(600, 7)).astype("f4"), "B": rng.integers(0, 9, (600, 7))}
    dtypes = {"A": "f4", "B": "i2"}
    with PlaneStore(str(tmp_path) if on_disk else None, dtypes, (600, 7)) as store:
        for rows in (slice(0, 10), slice(10, 599), slice(599, 600)):
            store.append(**{name: plane[rows] for name, plane in planes.items()})
        assert not list(tmp_path.iterdir())
        for name, plane in planes.items():
            for _ in range(2):
                blocks = list(store.blocks(name))
                assert [len(b) for b in blocks] == [256, 256, 88]
                np.testing.assert_array_equal(np.concatenate(blocks), plane)


@pytest.mark.parametrize("compress", ["auto", "none"])
def test_planes_are_read_back_as_an_exposure(tmp_path, exposure, compress):
    box = exposure.box
    dtypes = {"IMAGE": "f4", "MASK": "i4", "VARIANCE": "f4", "NIMAGE": "i2"}
    n_image = np.arange(box.area).reshape(box.shape)
    path = str(tmp_path / "coadd.fits")
    with PlaneStore(str(tmp_path), dtypes, box.shape) as store, create(path, "exposure/1") as out:
        store.append(
            IMAGE=exposure.image, MASK=exposure.mask, VARIANCE=exposure.variance, NIMAGE=n_image
        )
        write_planes(
            out, store, box, STANDARD, header={"BUNIT": "nJy", "BAND": "r"}, wcs=exposure.wcs,
            compress=compress,
        )  # fmt: skip
    read = read_exposure(path)
    np.testing.assert_array_equal(read.image, exposure.image)
    np.testing.assert_array_equal(read.mask, exposure.mask)
    np.testing.assert_array_equal(read.variance, exposure.variance)
    assert (read.box, read.unit, read.band, read.wcs) == (box, "nJy", "r", exposure.wcs)
    np.testing.assert_array_equal(fitsio.read(path, ext="NIMAGE"), n_image)


def test_inputs_table(exposure, write_file):
    warp = opened(write_file(replace(exposure, meta={"EXPTIME": 30.0, "MJD-OBS": 6e4}))).info
    table = inputs_table([warp, warp])
    assert table.dtype.names == tuple(column.name for column in INPUT_COLUMNS)
    assert list(table["input"]) == [0, 1]
    assert table["exptime"][0] == 30
    assert table["mjd"][0] == 6e4
    assert table["warp"][0] == "exposure.fits"
    assert not table["used"].any()


def test_polygons_table():
    table = polygons_table([np.array([[1.0, 2, 3], [4, 5, 6]]), None, np.zeros((2, 4))])
    assert list(table["input"]) == [0, 0, 0, 2, 2, 2, 2]
    assert list(table["y"][:3]) == [1, 2, 3]
    assert not polygons_table([None]).size
