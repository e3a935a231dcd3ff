"""Slabs and their memory."""

from itertools import pairwise

import pytest

from coblend.core.box import Box
from coblend.core.coadd.plan import TILE, plan_slabs
from coblend.core.errors import ParameterError

MIB = 1 << 20


@pytest.mark.parametrize(
    ("n_input", "shape", "limit", "threads"),
    [(1, (10, 10), 300, 1), (20, (2048, 2048), 1024, 2), (200, (9000, 4096), 1024, 4)],
)
def test_slabs_tile_the_coadd_below_the_limit(n_input, shape, limit, threads):
    box = Box(-5, 3, *shape)
    plan = plan_slabs(box, [box] * n_input, limit * MIB, threads=threads)
    slabs = plan.slabs()
    assert sum(s.area for s in slabs) == box.area
    assert all(a.y1 == b.y0 for a, b in pairwise(slabs))
    assert plan.n_bytes <= limit * MIB


def test_compressed_inputs_are_read_by_tiles():
    box = Box(0, 0, 2000, 2000)
    assert plan_slabs(box, [box] * 20, 4096 * MIB, block=TILE).rows == TILE
    assert plan_slabs(box, [box] * 20, 4096 * MIB).rows < TILE


def test_height_does_not_change_the_memory():
    boxes = [Box(0, 0, ny, 2048) for ny in (2048, 200_000)]
    low, high = (plan_slabs(box, [box] * 20, 1024 * MIB).n_bytes for box in boxes)
    assert low == high


@pytest.mark.parametrize("shift", [0, 30])
def test_a_mosaic_needs_the_memory_of_the_inputs_that_meet_a_row(shift):
    """40 x 40 fields beside and above each other, not 1600 on one another."""
    boxes = [Box(y, x, 500 + shift, 500) for y in range(0, 20_000, 500)
             for x in range(0, 20_000, 500)]  # fmt: skip
    box = Box(0, 0, 20_000 + shift, 20_000)
    plan = plan_slabs(box, boxes, 4096 * MIB, threads=2, block=TILE)
    assert plan.rows == TILE
    # samples of one layer, or of two where rows of fields overlap; 80 fields meet a strip
    n_bytes = TILE * 20_000 * (2 * 12 * (2 if shift else 1) + 18)
    n_bytes += 2 * max(4 * 20_000 * (80 * 14 + 160), 26 * 20_000 * (14 + 160))
    assert plan.n_bytes == 130_000_000 + 1600 * 100_000 + n_bytes


def test_inputs_beside_the_coadd_need_no_samples():
    box = Box(0, 0, 1000, 1000)
    one, two = (
        plan_slabs(box, boxes, 1024 * MIB).n_bytes for boxes in ([box], [box, Box(0, 0, 0, 0)])
    )
    assert two - one == 100_000


# bad input


def test_too_little_memory_names_what_is_needed():
    box = Box(0, 0, 1000, 4096)
    with pytest.raises(ParameterError, match="need at least") as caught:
        plan_slabs(box, [box] * 200, 100 * MIB)
    needed = int(caught.value.hint.split("--max-memory ")[1].split("MiB")[0])
    assert plan_slabs(box, [box] * 200, needed * MIB).rows >= 1
