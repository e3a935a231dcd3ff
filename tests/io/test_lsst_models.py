"""Model files of the Rubin pipelines: a real old one, and the zip layout made by hand."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import CorruptFileError, FormatError, InputMissingError
from coblend.core.model import CUBE
from coblend.io.deblend.lsst_models import is_lsst_models, read_lsst_models
from coblend.io.deblend.models import read_models, write_models
from coblend.io.fits.writer import create


def array(key: str, values: np.ndarray, dtype: str = "float32") -> dict[str, Any]:
    """An array as the metadata of the pipelines holds it."""
    flat: list[Any] = values.astype(dtype).ravel().tolist()
    return {key: flat, f"{key}_shape": list(values.shape), f"{key}_dtype": dtype}


@pytest.fixture
def scene(rng: np.random.Generator) -> dict[str, Any]:
    """Members of a zip: a parent of two blends with a null source and a cube; one isolated."""
    morph = rng.random((5, 7)).astype(np.float32)
    cube = rng.random((2, 4, 3)).astype(np.float32)
    factorized = {
        "origin": [102, 205], "shape": [5, 7], "peak": [104, 208], "spectrum": [3.0, 4.0],
        "morph": morph.ravel().tolist(), "component_type": "factorized", "version": "1.0.0",
    }  # fmt: skip
    free = {
        "origin": [110, 210], "shape": [2, 4, 3], "peak": [211, 112],
        "model": cube.ravel().tolist(), "component_type": "component", "version": "1.0.0",
    }  # fmt: skip
    spans = rng.random((20, 25)) < 0.7
    source = {"components": [factorized], "metadata": {"id": 11, "peak_id": 5}}
    first = {"blend_type": "blend", "origin": [100, 200], "shape": [20, 25],
             "sources": {"11": source, "12": {"components": []}}}  # fmt: skip
    second = {**first, "sources": {"13": {"components": [free, factorized]}}}
    psfs = np.stack([np.full((9, 9), 1 / 81), np.eye(9) / 9])
    x = np.arange(15) - 7
    profile = np.exp(-(x**2) / (2 * 0.8**2))
    return {
        "metadata": {
            "bands": ["g", "r"], "array_keys": ["model_psf", "psf"],
            **array("model_psf", np.outer(profile, profile)), **array("psf", psfs),
        },
        "version": "1.0.1",
        "7": {
            "blend_type": "hierarchical", "children": {"70": first, "71": second},
            "metadata": {"origin": [100, 200], "array_keys": ["spans"],
                         **array("spans", spans, "bool")},
        },
        "3": {
            "source_type": "isolated", "origin": [50, 60], "shape": [2, 3], "peak": [51.0, 61.0],
            "span_array": [0.0, 1.0, 0.0, 1.0, 1.0, 1.0],
        },
        "_morph": morph, "_cube": cube, "_spans": spans, "_psfs": psfs,
    }  # fmt: skip


def zipped(path: Path, scene: dict[str, Any]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in scene.items():
            if not name.startswith("_"):
                archive.writestr(name, json.dumps(value))
    return str(path)


def test_zip(tmp_path: Path, scene: dict[str, Any]) -> None:
    path = zipped(tmp_path / "models.scarlet", scene)
    assert is_lsst_models(path)
    models = read_lsst_models(path)
    assert models.bands == ("g", "r")
    assert models.parents["id"].tolist() == [3, 7]
    assert models.blends["id"].tolist() == [70, 71]
    assert models.objects["id"].tolist() == [3, 11, 12, 13]
    assert models.objects["flag_isolated"].tolist() == [True, False, False, False]
    assert models.objects["flag_null"].tolist() == [False, False, True, False]
    assert models.objects["peak_id"].tolist() == [0, 5, 0, 0]
    assert models.objects["parent"].tolist() == [3, 7, 7, 7]
    assert np.array_equal(models.footprints.mask(1, Box(100, 200, 20, 25)), scene["_spans"])
    assert models.footprints.of(0).tolist() == [[50, 61, 61], [51, 60, 62]]
    assert models.components["kind"].tolist() == [0, CUBE, 0]
    assert np.array_equal(models.morphology(0), scene["_morph"])
    cube = models.morph[slice(*models.morph_offsets[1:3])].reshape(2, 4, 3)
    assert np.array_equal(cube, scene["_cube"])
    assert (models.components["peak_y"][1], models.components["peak_x"][1]) == (112, 211)
    assert models.spectra().tolist() == [[3, 4], [1, 1], [3, 4]]
    flux = scene["_cube"][1].sum() + 4 * scene["_morph"].sum()
    assert models.objects["model_flux_r"][3] == pytest.approx(flux, rel=1e-6)
    assert models.psfs.shape == (1, 2, 9, 9)
    np.testing.assert_allclose(models.psfs[0], scene["_psfs"], rtol=1e-6)
    assert models.model_psf_sigma == pytest.approx(np.sqrt(0.64 - 1 / 12), abs=2e-3)
    assert models.kernel_reg == 0.0
    assert models.box.area == 0


def test_zip_to_our_file_and_back(tmp_path: Path, scene: dict[str, Any]) -> None:
    models = read_lsst_models(zipped(tmp_path / "models.scarlet", scene))
    path = str(tmp_path / "models.fits")
    with create(path, "deblended/1") as out:
        write_models(out, models)
    back = read_models(path)
    assert np.array_equal(back.morphology(0), scene["_morph"])
    assert np.array_equal(back.spectra(), models.spectra())
    assert back.meta == {"IMPORTED": "lsst"}


def test_a_real_document_of_release_29(shared_data: Path) -> None:
    path = str(shared_data / "lsst_models_v29.json")
    models = read_lsst_models(path)
    raw = json.loads(Path(path).read_text())
    assert models.bands == ("g", "i", "r", "y", "z")
    assert models.parents["id"].tolist() == sorted(int(k) for k in raw["blends"])
    for i, blend in enumerate(raw["blends"].values()):
        (key, source), = blend["sources"].items()  # fmt: skip
        part = source["factorized"][0]
        assert models.objects["id"][i] == int(key)
        assert models.objects["peak_id"][i] == source["peak_id"]
        assert [models.objects["iy"][i], models.objects["ix"][i]] == part["peak"]
        morph = np.array(part["morph"], np.float32).reshape(part["shape"])
        assert np.array_equal(models.morphology(i), morph)
        psfs = np.array(blend["psf"], np.float32).reshape(blend["psf_shape"])
        assert np.array_equal(models.psfs[models.blends["psf_cell"][i]], psfs)
        assert models.psf_cells[i].tolist() == blend["psf_center"][::-1]
        flux = np.array(part["spectrum"])[0] * morph.sum(dtype=float)
        assert models.objects["model_flux_g"][i] == pytest.approx(flux, rel=1e-5)
    assert models.model_psf_sigma == 0.8


def test_the_oldest_names_are_in_x_y_order(tmp_path: Path, scene: dict[str, Any]) -> None:
    component = {"xy0": [205, 102], "extent": [7, 5], "peak": [104, 208], "spectrum": [3.0, 4.0],
                 "morph": scene["_morph"].ravel().tolist()}  # fmt: skip
    blend = {
        "xy0": [200, 100], "extent": [25, 20], "bands": ["g", "r"], "psf_center": [210.0, 105.0],
        "psf": scene["_psfs"].ravel().tolist(), "psf_shape": [2, 9, 9],
        "sources": {"5": {"components": [], "factorized": [component], "peak_id": 1}},
    }  # fmt: skip
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"psf": [1.0], "psfShape": [1, 1], "blends": {"4": blend}}))
    models = read_lsst_models(str(path))
    assert models.components[["y0", "x0", "ny", "nx"]].tolist() == [(102, 205, 5, 7)]
    assert models.footprints.box(0) == Box(100, 200, 20, 25)
    assert models.psf_cells.tolist() == [[105.0, 210.0]]


def test_psfs_of_different_size_are_padded(tmp_path: Path, scene: dict[str, Any]) -> None:
    small = {**scene["7"]["children"]["70"]}
    small["metadata"] = {"array_keys": ["psf"], **array("psf", np.ones((2, 5, 7)) / 35)}
    scene["8"] = {**small, "sources": {"21": small["sources"]["11"]}}
    models = read_lsst_models(zipped(tmp_path / "models.scarlet", scene))
    assert models.psfs.shape == (2, 2, 9, 9)
    np.testing.assert_allclose(models.psfs[1, :, 2:7, 1:8], 1 / 35, rtol=1e-6)
    np.testing.assert_allclose(models.psfs.sum((2, 3)), 1.0, rtol=1e-6)


# Bad input


def test_defective_files(tmp_path: Path, scene: dict[str, Any]) -> None:
    path = tmp_path / "x"
    with pytest.raises(InputMissingError, match="no such file"):
        read_lsst_models(str(path))
    assert not is_lsst_models(str(path))
    path.write_text('{"blends": {')
    with pytest.raises(CorruptFileError, match="not a whole model file"):
        read_lsst_models(str(path))
    path.write_text('{"a": 1}')
    with pytest.raises(FormatError, match="not a model file of the Rubin pipelines: no 'blends'"):
        read_lsst_models(str(path))
    good = Path(zipped(path, scene)).read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(CorruptFileError):
        read_lsst_models(str(path))
    broken = bytearray(good)
    broken[len(good) // 3] ^= 4
    path.write_bytes(bytes(broken))
    with pytest.raises((CorruptFileError, FormatError)):
        read_lsst_models(str(path))


def test_contradictions(tmp_path: Path, scene: dict[str, Any]) -> None:
    scene["7"]["children"]["70"]["sources"]["11"]["components"][0]["spectrum"] = [1.0]
    with pytest.raises(FormatError, match="blend 70: a component has 1 bands, expected 2"):
        read_lsst_models(zipped(tmp_path / "a", scene))
    scene["7"]["children"]["70"]["bands"] = ["r", "g"]
    with pytest.raises(FormatError, match="blend 70 has bands r,g, others g,r"):
        read_lsst_models(zipped(tmp_path / "b", scene))
    del scene["7"]["children"]["70"]["bands"], scene["metadata"]["psf"]
    scene["metadata"]["array_keys"] = ["model_psf"]
    with pytest.raises(FormatError, match="blend 70 has no PSF"):
        read_lsst_models(zipped(tmp_path / "c", scene))
