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
    plan = plan_slabs(box, n_input, limit * MIB, threads=threads)
    slabs = plan.slabs()
    assert sum(s.area for s in slabs) == box.area
    assert all(a.y1 == b.y0 for a, b in pairwise(slabs))
    assert plan.n_bytes <= limit * MIB


def test_compressed_inputs_are_read_by_tiles():
    box = Box(0, 0, 2000, 2000)
    assert plan_slabs(box, 20, 4096 * MIB, block=TILE).rows == TILE
    assert plan_slabs(box, 20, 4096 * MIB).rows < TILE


def test_height_does_not_change_the_memory():
    low, high = (plan_slabs(Box(0, 0, ny, 2048), 20, 1024 * MIB).n_bytes for ny in (2048, 200_000))
    assert low == high


# bad input


def test_too_little_memory_names_what_is_needed():
    box = Box(0, 0, 1000, 4096)
    with pytest.raises(ParameterError, match="need at least") as caught:
        plan_slabs(box, 200, 100 * MIB)
    needed = int(caught.value.hint.split("--max-memory ")[1].split("MiB")[0])
    assert plan_slabs(box, 200, needed * MIB).rows >= 1
