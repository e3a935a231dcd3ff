"""Tables of models: boxes of rows, flags, spectra and morphologies of components."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from coblend.core.box import Box
from coblend.core.catalog import empty_table
from coblend.core.footprint import box_offsets
from coblend.core.model import (
    FLAG_COLUMNS,
    FLAGS,
    blend_columns,
    box_of,
    boxes_of,
    object_columns,
    parent_columns,
    set_flag,
)


def test_boxes_of_rows_and_where_their_pixels_start() -> None:
    table = empty_table(blend_columns(("g",)), 3)
    for name, values in (("y0", [1, -2, 0]), ("x0", [5, 6, 7]), ("ny", [2, 0, 4]),
                         ("nx", [3, 9, 1])):  # fmt: skip
        table[name] = values
    assert [box_of(row) for row in table] == [Box(1, 5, 2, 3), Box(-2, 6, 0, 9), Box(0, 7, 4, 1)]
    boxes = boxes_of(table)
    assert boxes.tolist() == [[1, 5, 2, 3], [-2, 6, 0, 9], [0, 7, 4, 1]]
    assert box_offsets(boxes).tolist() == [0, 6, 6, 10]
    assert box_offsets(boxes[:0]).tolist() == [0]
    large = np.array([[0, 0, 60_000, 60_000]] * 2)
    assert box_offsets(large)[-1] == 7_200_000_000, "more than 32 bits"


def test_a_flag_is_a_bit_and_a_column() -> None:
    """BLENDS has the bits alone; every flag has a column in the other tables, each its bit."""
    assert sorted(FLAGS.values()) == [1 << i for i in range(len(FLAGS))]
    assert [c.name for c in FLAG_COLUMNS] == [f"flag_{name}" for name in FLAGS]
    for columns in (parent_columns(), object_columns(("g",)), blend_columns(("g",))):
        table = empty_table(columns, 4)
        set_flag(table, np.array([1, 3]), "edge")
        set_flag(table, 3, "null")
        assert table["flags"].tolist() == [0, 512, 0, 512 | 256]
        if "flag_edge" in (table.dtype.names or ()):
            assert table["flag_edge"].tolist() == [False, True, False, True]
            assert table["flag_null"].tolist() == [False, False, False, True]


def test_spectra_and_morphologies_are_those_of_the_tables(
    scenes: ModuleType, rng: np.random.Generator
) -> None:
    models = scenes.make_models(rng)
    spectra = models.spectra()
    assert spectra.shape == (len(models.components), len(models.bands))
    for i, row in enumerate(models.components):
        assert spectra[i].tolist() == [row[f"spectrum_{band}"] for band in models.bands]
        morph = models.morphology(i)
        assert morph.shape == (row["ny"], row["nx"])
        first = models.morph_offsets[i]
        assert morph.ravel().tolist() == models.morph[first : first + morph.size].tolist()
