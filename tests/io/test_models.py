"""Files of deblended models: round trips, access to one blend, damage."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from coblend.core.box import Box
from coblend.core.errors import (
    CorruptFileError,
    FormatError,
    MissingHduError,
    ParameterError,
    SchemaError,
)
from coblend.core.model import ModelSet
from coblend.core.reconstruct.precision import storage_steps
from coblend.io.deblend.model_file import ModelFile
from coblend.io.deblend.model_tables import narrowed
from coblend.io.deblend.models import read_models, verify_blends, write_models
from coblend.io.deblend.nested import flatten
from coblend.io.deblend.positions import parents_at
from coblend.io.fits.structure import scan
from coblend.io.fits.summary import verify
from coblend.io.fits.writer import create

Write = Callable[..., Path]


@pytest.fixture
def models(rng: np.random.Generator, scenes, wcs_cards) -> ModelSet:
    made = scenes.make_models(rng, 16, kinds=True, n_cell=3)
    return replace(made, wcs=wcs_cards, meta={"MODELERR": 0.005, "NOTE": "by hand"})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(models: ModelSet, error: float = 0.0, name: str = "models.fits") -> Path:
        path = tmp_path / name
        with create(str(path), "deblended/1", overwrite=True) as out:
            write_models(out, models, storage_steps(models, error))
        return path

    return save


def same_table(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype.names == b.dtype.names
    for name in a.dtype.names:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def on_box(models: ModelSet, component: int, box: Box) -> np.ndarray:
    """Morphology over a larger box; of cubes all bands."""
    row = models.components[component]
    part = models.morph[slice(*models.morph_offsets[component : component + 2])]
    out = np.zeros((len(part) // max(row["ny"] * row["nx"], 1), *box.shape), np.float32)
    own = Box(*(int(row[n]) for n in ("y0", "x0", "ny", "nx")))
    if len(part):
        out[(slice(None), *own.slices(box))] = part.reshape(-1, *own.shape)
    return out


def box_of(models: ModelSet, component: int) -> Box:
    return Box(*(int(models.components[n][component]) for n in ("y0", "x0", "ny", "nx")))


def test_lossless_round_trip(models: ModelSet, write: Write) -> None:
    back = read_models(str(write(models)))
    for c in range(len(models.components)):
        box = box_of(models, c) | box_of(back, c)
        a, b = on_box(models, c, box), on_box(back, c, box)
        assert a.tobytes() == b.tobytes()
    for name in ("parents", "blends", "objects"):
        same_table(getattr(back, name), getattr(models, name))
    kept = ["object", "kind", "peak_y", "peak_x", "spectrum_g"]
    same_table(back.components[kept], models.components[kept])
    assert np.array_equal(back.footprints.spans, models.footprints.spans)
    assert np.array_equal(back.psf_cells, models.psf_cells)
    assert back.psfs.tobytes() == models.psfs.tobytes()
    for name in ("bands", "box", "kernel_reg", "model_psf_sigma", "unit", "wcs", "meta"):
        assert getattr(back, name) == getattr(models, name), name


def test_strange_values_survive_losslessly(models: ModelSet, write: Write) -> None:
    """Subnormal and negative values."""
    models.morph[:4] = [1e-42, -1e-30, 1.0, -0.5]
    back = read_models(str(write(models)))
    box = box_of(models, 0) | box_of(back, 0)
    assert on_box(models, 0, box).tobytes() == on_box(back, 0, box).tobytes()


def test_rounded_models_are_smaller_and_stable(models: ModelSet, write: Write) -> None:
    exact, rounded = write(models, 0.0, "a.fits"), write(models, 0.005, "b.fits")
    sizes = [scan(str(p))[5].end - scan(str(p))[5].data for p in (exact, rounded)]
    assert sizes[1] < 0.5 * sizes[0]
    back = read_models(str(rounded))
    np.testing.assert_allclose(back.psfs, models.psfs, atol=1.1e-7)  # codes of 2e-7
    steps = storage_steps(models, 0.005)
    for c in range(len(models.components)):
        box = box_of(models, c) | box_of(back, c)
        worst = np.abs(on_box(models, c, box) - on_box(back, c, box)).max(initial=0)
        assert worst <= steps[c] * 1.001


def test_psfs_that_repeat_or_are_not_used_are_stored_once(models: ModelSet, write: Write) -> None:
    many = np.concatenate([models.psfs[:1] * 2, models.psfs, models.psfs])
    places = np.concatenate([models.psf_cells[:1], models.psf_cells, models.psf_cells])
    blends = models.blends.copy()
    blends["psf_cell"] += np.where(np.arange(len(blends)) % 2, 1, 4).astype(np.int32)
    back = read_models(str(write(replace(models, blends=blends, psfs=many, psf_cells=places))))
    assert len(back.psfs) == 3
    for old, new in zip(blends["psf_cell"], back.blends["psf_cell"], strict=True):
        assert np.array_equal(back.psfs[new], many[old])
        assert np.array_equal(back.psf_cells[new], places[old])


def test_the_same_models_give_the_same_bytes(models: ModelSet, write: Write) -> None:
    a, b = write(models, 0.005, "a.fits"), write(models, 0.005, "b.fits")
    assert a.read_bytes() == b.read_bytes()


def test_one_blend_is_what_the_whole_file_says(models: ModelSet, write: Write) -> None:
    path = str(write(models, 0.005))
    whole = read_models(path)
    with ModelFile(path) as file:
        for row, blend in enumerate(whole.blends):
            for one in (file.blend(int(blend["id"])), file.blend_row(row)):
                assert one.blends["id"].tolist() == [blend["id"]]
                first, n = int(blend["object0"]), int(blend["n_object"])
                assert np.array_equal(one.objects["id"], whole.objects["id"][first : first + n])
                c0 = int(blend["component0"])
                for c in range(len(one.components)):
                    part = one.morph[slice(*one.morph_offsets[c : c + 2])]
                    offsets = whole.morph_offsets[c0 + c : c0 + c + 2]
                    assert np.array_equal(part, whole.morph[slice(*offsets)])
                    owner = one.objects["id"][one.components["object"][c]]
                    expected = whole.objects["id"][whole.components["object"][c0 + c]]
                    assert owner == expected
                parent = int(blend["parent"])
                assert one.parents["id"][0] == whole.parents["id"][parent]
                assert np.array_equal(one.footprints.spans, whole.footprints.of(parent))
                assert one.blends["parent"][0] == one.blends["object0"][0] == 0
                cell = whole.psfs[blend["psf_cell"]]
                assert np.array_equal(one.psfs[one.blends["psf_cell"][0]], cell)


def test_access_by_object_and_position(models: ModelSet, write: Write) -> None:
    with ModelFile(str(write(models))) as file:
        for row in models.objects:
            one = file.source(int(row["id"]))
            assert row["id"] in one.objects["id"]
            assert one.parents["id"][0] == row["parent"]
            y, x = int(row["iy"]), int(row["ix"])
            assert file.at(y, x).parents["id"][0] == row["parent"]
            parent = file.parent_of_object(int(row["id"]))
            assert models.parents["id"][parent] == row["parent"]
            if row["blend"]:
                assert file.parent_of(int(row["blend"])) == parent
                assert file.parent_of(int(row["id"])) == parent


def test_parents_of_many_positions_equal_those_of_one_by_one(models, write, monkeypatch) -> None:
    """Every pixel of all footprints in any order; PARENTS and each parent are read once."""
    owner = models.footprints.labels(models.box)
    y, x = np.random.default_rng(1).permutation(np.argwhere(owner)).T
    reads: list[object] = []
    with ModelFile(str(write(models))) as file:
        for name in ("table", "parents"):
            known = getattr(file, name)
            monkeypatch.setattr(file, name, lambda *a, f=known: reads.append(a) or f(*a))
        found = parents_at(file, y + models.box.y0 + 0.4, x + models.box.x0 - 0.4)
        assert np.array_equal(found, owner[y, x] - 1)
        assert len(reads) == len(set(reads)) <= 1 + len(models.parents)
        assert not len(parents_at(file, np.zeros(0), np.zeros(0)))


def test_chunks_join_to_the_whole(models: ModelSet, write: Write) -> None:
    path = str(write(models, 0.005))
    whole = read_models(path)
    with ModelFile(path) as file:
        chunks = list(file.iter_parents(5))
    assert [len(c.parents) for c in chunks] == [5, 5, 5, 1]
    assert np.array_equal(np.concatenate([c.morph for c in chunks]), whole.morph)
    spectra = np.concatenate([c.spectra() for c in chunks])
    assert np.array_equal(spectra, whole.spectra())


def test_an_open_file_travels_between_processes(models: ModelSet, write: Write) -> None:
    with ModelFile(str(write(models))) as file, pickle.loads(pickle.dumps(file)) as other:
        assert other.blend_row(0).blends["id"][0] == models.blends["id"][0]


@pytest.mark.parametrize("error", [0.0, 0.005])
def test_recipe_for_astropy(rng, scenes, write: Write, error: float) -> None:
    """The COMMENT cards of MORPH are run as they stand, with nothing of ours."""
    path = write(scenes.make_models(rng, 40), error)
    with fits.open(path) as h:
        cards = [str(card) for card in h["MORPH"].header["COMMENT"]]
        for name in ("PARENTS", "BLENDS", "OBJECTS", "COMPONENTS", "PSF_CELLS"):
            assert len(Table.read(path, hdu=name)) == len(h[name].data)
    code = "\n".join(card[2:] for card in cards if card.startswith("  "))
    whole = read_models(str(path))
    for i, blend in enumerate(whole.blends):
        known = {"fits": fits, "np": np, "name": path, "i": i}
        exec(code, known)
        known["h"].close()
        first = int(blend["component0"])
        assert len(known["morphs"]) == blend["n_component"]
        for c, morph in enumerate(known["morphs"], first):
            assert np.array_equal(morph, whole.morphology(c))


@pytest.mark.skipif(shutil.which("funpack") is None, reason="funpack is not installed")
def test_funpack_gives_the_same_codes(models: ModelSet, write: Write, tmp_path: Path) -> None:
    path = write(models, 0.005)
    plain = tmp_path / "plain.fits"
    subprocess.run(["funpack", "-O", str(plain), str(path)], check=True, capture_output=True)
    with fits.open(path) as packed, fits.open(plain) as unpacked:
        for name in ("MORPH", "RUNS", "PSF"):
            assert np.array_equal(packed[name].data, unpacked[name].data)


def test_a_file_without_pixels(tmp_path: Path, scenes) -> None:
    psfs = np.stack([[scenes.moffat(3.0, 15)] * 2])
    empty = flatten([], ("g", "r"), psfs, np.zeros((1, 2)), Box(0, 0, 9, 9), "nJy")
    path = str(tmp_path / "empty.fits")
    with create(path, "deblended/1") as out:
        write_models(out, empty)
    back = read_models(path)
    assert len(back.parents) == len(back.components) == len(back.morph) == 0
    assert verify_blends(path) == []


def test_integers_are_as_narrow_as_their_values(models: ModelSet, write: Write) -> None:
    """In the file; what is read has the types of the records."""
    with fitsio.FITS(str(write(models))) as file:
        stored = {n: file[n].read().dtype for n in ("PARENTS", "BLENDS", "OBJECTS", "COMPONENTS")}
    assert (stored["COMPONENTS"]["ny"], stored["COMPONENTS"]["object"]) == ("u1", "u1")
    assert (stored["BLENDS"]["x0"], stored["COMPONENTS"]["peak_y"]) == (">i2", ">i2")
    assert (stored["BLENDS"]["crc32"], stored["PARENTS"]["crc32"]) == (">u4", ">u4")
    assert (stored["PARENTS"]["id"], stored["BLENDS"]["id"]) == (">i8", ">i8")
    assert stored["OBJECTS"]["n_component"] == ">i4"
    with ModelFile(str(write(models))) as file:
        for name in ("parents", "blends", "objects", "components"):
            expected = getattr(models, name)
            table = file.table(name.upper())
            assert [table.dtype[n] for n in expected.dtype.names] == [
                expected.dtype[n] for n in expected.dtype.names
            ]
            if name != "components":  # boxes of those are trimmed
                same_table(table[list(expected.dtype.names)], expected)


@pytest.mark.parametrize(
    ("x0", "stored"), [(32758, "i2"), (32759, "i4"), (-32768, "i2"), (-32769, "i4")]
)
def test_positions_leave_room_for_their_boxes(x0: int, stored: str) -> None:
    """A reader adds the size of a box to its position in the type that is stored."""
    table = np.array([(x0, 9), (0, 3)], [("x0", "i4"), ("nx", "i4")])
    narrow = narrowed(table)
    assert (narrow.dtype["x0"], narrow.dtype["nx"]) == (stored, "u1")
    assert (narrow["x0"] + narrow["nx"]).tolist() == [x0 + 9, 3]


def test_further_columns_of_objects_are_kept(models: ModelSet, write: Write) -> None:
    more = np.zeros(len(models.objects), [*models.objects.dtype.descr, ("my_class", "i4")])
    for name in models.objects.dtype.names:
        more[name] = models.objects[name]
    more["my_class"] = np.arange(len(more))
    back = read_models(str(write(replace(models, objects=more))))
    assert np.array_equal(back.objects["my_class"], np.arange(len(more)))


def test_a_single_blend_reads_little_of_a_large_file(
    rng: np.random.Generator, scenes, write: Write
) -> None:
    """By row: three rows of tables and a few tiles; the rest of the file may be garbage."""
    path = write(scenes.make_models(rng, 100, pitch=48), 0.005)
    with ModelFile(str(path)) as file:
        expected = file.blend_row(60)
    hdus = {h.name: h for h in scan(str(path))}
    data = bytearray(path.read_bytes())
    for name in ("OBJECTS", "COMPONENTS", "BLENDS", "PARENTS"):
        hdu = hdus[name]
        data[hdu.data : hdu.data + (hdu.end - hdu.data) // 3] = bytes((hdu.end - hdu.data) // 3)
    path.write_bytes(bytes(data))
    with ModelFile(str(path)) as file:
        assert np.array_equal(file.blend_row(60).morph, expected.morph)


# Bad input


def content(models: ModelSet) -> bytes:
    """Everything that a model set says, for exact comparison."""
    return pickle.dumps([getattr(models, f) for f in ModelSet.__slots__])


def test_every_flipped_bit_is_noticed(models: ModelSet, write: Write, rng) -> None:
    """Anywhere in the file: checksums see it; what is read is the original or an error."""
    path = write(models, 0.005)
    good = path.read_bytes()
    before = content(read_models(str(path)))
    refused = 0
    for place in rng.integers(0, len(good), 500).tolist():
        broken = bytearray(good)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        with suppress(FormatError):  # the structure is broken
            assert verify(str(path)), place
        try:
            after = read_models(str(path))
        except FormatError:
            refused += 1
            continue
        assert content(after) == before, place
    assert refused > 350  # the others hit padding


def test_truncation_anywhere_is_an_error(models: ModelSet, write: Write, rng) -> None:
    path = write(models, 0.005)
    good = path.read_bytes()
    ends = [h.end for h in scan(str(path))][:-1]
    starts = [h.data for h in scan(str(path))]
    for length in [*ends, *starts, *rng.integers(0, len(good), 200).tolist()]:
        path.write_bytes(good[:length])
        with pytest.raises(CorruptFileError, match=r"truncated|empty file"):
            read_models(str(path))


def test_verify_names_the_damaged_blend(models: ModelSet, write: Write) -> None:
    path = write(models, 0.005)
    assert verify_blends(str(path)) == []
    with fitsio.FITS(str(path), "rw") as file:
        values = file["COMPONENTS"].read()
        row = int(models.blends["component0"][4])
        values["spectrum_g"][row] += 1
        file["COMPONENTS"].write(values)
    assert verify_blends(str(path)) == [f"blend {models.blends['id'][4]}"]
    with ModelFile(str(path)) as file:
        file.blend_row(3)
        with pytest.raises(CorruptFileError, match=f"blend {models.blends['id'][4]} is damaged"):
            file.blend_row(4)


def test_numbers_outside_the_file_are_damage(models: ModelSet, write: Write) -> None:
    path = write(models, 0.005)
    for column in ("pix0", "n_pix", "component0"):
        good = path.read_bytes()
        with fitsio.FITS(str(path), "rw") as file:
            values = file["BLENDS"].read()
            values[column][1] = np.iinfo(values[column].dtype).max
            file["BLENDS"].write(values)
        with ModelFile(str(path)) as file, pytest.raises(CorruptFileError):
            file.blend_row(1)
        path.write_bytes(good)


def test_unknown_ids(models: ModelSet, write: Write) -> None:
    with ModelFile(str(write(models))) as file:
        with pytest.raises(ParameterError, match="no blend has id 99; there are 12 blends"):
            file.blend(99)
        with pytest.raises(ParameterError, match="no object has id -1"):
            file.source(-1)
        with pytest.raises(ParameterError, match="no parent holds pixel x=0, y=0"):
            file.at(0, 0)


def test_models_that_are_not_finite_are_refused(models: ModelSet, write: Write) -> None:
    row = int(models.components["object"][3])
    models.morph[models.morph_offsets[3] + 5] = np.nan
    identifier, blend = models.objects["id"][row], models.objects["blend"][row]
    with pytest.raises(FormatError, match=f"object {identifier} in blend {blend} is not finite"):
        write(models, 0.005)


def test_rows_out_of_order_are_refused(models: ModelSet, write: Write) -> None:
    shuffled = replace(models, objects=models.objects[::-1])
    with pytest.raises(FormatError, match="not in order: objects by parent"):
        write(shuffled)
    models.objects["parent"][0] = 12345
    with pytest.raises(FormatError, match="names a parent that is not among PARENTS"):
        write(models)


def test_other_files(tmp_path: Path, models: ModelSet, write: Write) -> None:
    path = str(tmp_path / "other.fits")
    with create(path, "exposure/1") as out:
        out.image("IMAGE", np.zeros((3, 3), np.float32))
    with pytest.raises(SchemaError, match="schema exposure, expected schema deblended"):
        read_models(path)
    with create(path, "deblended/2", overwrite=True) as out:
        write_models(out, models)
    with pytest.raises(SchemaError, match="newer than this program"):
        read_models(path)
    with create(path, "deblended/1", overwrite=True) as out:
        out.table("PARENTS", models.parents)
    with pytest.raises(CorruptFileError, match="no usable keyword"):
        read_models(path)
    assert not os.path.exists(path + ".lock")


def test_an_unknown_kind_of_component(models: ModelSet, write: Write) -> None:
    path = write(models, 0.0)
    assert read_models(str(path)) is not None
    models.components["kind"][0] = 9
    with pytest.raises(FormatError, match="kind 9 is unknown"):
        read_models(str(write(models)))


def test_a_missing_column(models: ModelSet, tmp_path: Path, write: Write) -> None:
    fewer = [n for n in models.objects.dtype.names if n != "peak_id"]
    with pytest.raises(MissingHduError, match="no column peak_id"):
        write(replace(models, objects=models.objects[fewer]))
