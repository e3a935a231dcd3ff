"""How much of a coadd is made at a time, so that memory stays below a limit."""

from __future__ import annotations

from dataclasses import dataclass

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
    n_input: int,
    max_memory: int,
    *,
    threads: int = 1,
    input_map: bool = False,
    block: int = 1,
) -> SlabPlan:
    """Choose the height of the slabs.

    With several threads the next slab is read while one is combined, so the inputs are in memory
    twice.

    Parameters
    ----------
    box : Box
    n_input : int
        Inputs that cover a pixel at most.
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
    strip = strip_rows(n_input, box.nx)
    scaled = n_input * (4 + 4 + 1 + 1 + 4)
    fixed = PROGRAM_BYTES + _FILE_BYTES * n_input
    fixed += threads * strip * box.nx * (scaled + _STRIP_BYTES)
    buffers = 1 if threads == 1 else 2
    per_row = box.nx * (buffers * _SAMPLE_BYTES * n_input + _OUTPUT_BYTES)
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
