"""How much of a coadd is made at a time, so that memory stays below a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from coblend.core.box import Box
from coblend.core.coadd.stack import map_planes, strip_rows
from coblend.core.errors import ParameterError

TILE = 256
"""Rows of a compression tile."""

PROGRAM_BYTES = 130_000_000
"""Memory of the interpreter and its libraries."""

_CACHE_BYTES = 1 << 24  # a slab that has just been read should still be in the cache
_SAMPLE_BYTES = 12  # image, mask and variance of a pixel of an input
_OUTPUT_BYTES = 18  # image, mask, variance, weight and number of inputs of a pixel of the coadd
_SCALED_BYTES = 14  # a sample in a strip: values, variance, mask and what is available
_STRIP_BYTES = 160  # what a thread needs for a pixel of its strip besides the samples
_FILE_BYTES = 100_000  # header and PSF of an input


@dataclass(frozen=True, slots=True)
class SlabPlan:
    """Slabs of whole rows and the memory of one.

    Parameters
    ----------
    box : Box
        The coadd.
    rows : int
        Rows of a slab.
    n_bytes : int
        Expected peak memory of the process.
    """

    box: Box
    rows: int
    n_bytes: int

    def slabs(self) -> list[Box]:
        """Boxes of the slabs, bottom to top."""
        return self.box.strips(self.rows)


def plan_slabs(
    box: Box,
    inputs: Sequence[Box],
    max_memory: int,
    *,
    threads: int = 1,
    input_map: bool = False,
    block: int = 1,
) -> SlabPlan:
    """Choose the height of the slabs.

    With several threads the next slab is read while one is combined, so the inputs are in memory
    twice. Of an input the rows of the slab are held, as wide as it is; in a strip every input
    takes the width of the coadd.

    Parameters
    ----------
    box : Box
    inputs : sequence of Box
        Pixels of the coadd that each input covers.
    max_memory : int
        Byte.
    threads : int
    input_map : bool
    block : int
        Rows that cost no more to read than one: 1 for plain files, `TILE` for those compressed
        in tiles, the height of the coadd for those compressed as a whole.

    Raises
    ------
    ParameterError
        When not even a strip fits; the message gives the smallest workable value.
    """
    n_input = len(inputs)
    depth = _most_at_once(inputs, [1] * n_input, strip_rows(0, 0))  # of the tallest strip
    width = _most_at_once(inputs, [each.nx for each in inputs], 1)
    strip = strip_rows(depth, box.nx)
    fixed = PROGRAM_BYTES + _FILE_BYTES * n_input
    fixed += threads * max(_strip_bytes(n, box.nx) for n in range(depth + 1))
    buffers = 1 if threads == 1 else 2
    per_row = buffers * _SAMPLE_BYTES * width + _OUTPUT_BYTES * box.nx
    per_row += 4 * box.nx * map_planes(n_input) if input_map else 0
    rows = (max_memory - fixed) // per_row
    least = min(strip, box.ny)
    if rows < least:
        needed = fixed + least * per_row
        raise ParameterError(
            f"max_memory is {max_memory / 2**20:.0f} MiB; {n_input} inputs of {box.nx} columns "
            f"need at least {needed / 2**20:.0f} MiB",
            hint=f"pass --max-memory {-(-needed // 2**20)}MiB, or use fewer --jobs",
        )
    if block == 1:
        block = max(_CACHE_BYTES // per_row // strip, 1) * strip
    rows = min(rows, box.ny, block)
    return SlabPlan(box, int(rows), int(fixed + rows * per_row))


def _most_at_once(inputs: Sequence[Box], weights: Sequence[int], n_row: int) -> int:
    """Largest sum of the weights of the inputs that meet any ``n_row`` rows one after another."""
    edges = [
        (each.y0 - n_row + 1, w) for each, w in zip(inputs, weights, strict=True) if each.area
    ]
    edges += [(each.y1, -w) for each, w in zip(inputs, weights, strict=True) if each.area]
    return max(accumulate(w for _, w in sorted(edges)), default=0)


def _strip_bytes(n_input: int, width: int) -> int:
    """Memory that a thread needs for a strip; those of few inputs are taller."""
    return strip_rows(n_input, width) * width * (n_input * _SCALED_BYTES + _STRIP_BYTES)
