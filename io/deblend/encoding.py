"""How pixels are stored: run lengths of supports, and integers whose rounding adds up to nothing.

Everything here works on many boxes laid end to end: a pixel is the flat index
``offset of its box + row * width + column``.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import CorruptFileError, FormatError
from coblend.core.footprint import FootprintSet, expand_runs

_LONGEST = 32767
MAX_CODE = (1 << 31) - 1
"""Codes are stored as int32."""


def intervals(
    pixels: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find runs of consecutive pixels that do not cross from one box to the next.

    Parameters
    ----------
    pixels : array, shape (n_pixel,), int64
        Flat indices, ascending.
    offsets : array, shape (n + 1,), int64
        Where each box starts.

    Returns
    -------
    start, stop : array, shape (m,), int64
        First pixel of each run and the one after its last.
    """
    return _merged(pixels, pixels + 1, offsets)


def encode_runs(
    start: NDArray[np.int64], stop: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Run lengths ``off, on, off, ...`` of each box, starting with off.

    Parameters
    ----------
    start, stop : array, shape (m,), int64
        Runs of pixels that are on, ascending, inside one box each; they may touch.
    offsets : array, shape (n + 1,), int64
        Where each box starts.

    Returns
    -------
    runs : array, shape (n_run,), int16
        Per box they add up to its area. A run above 32767 is stored as ``32767, 0, rest``.
    counts : array, shape (n,), int64
        Runs of each box.
    """
    n = len(offsets) - 1
    start, stop = _merged(start, stop, offsets)
    box = np.searchsorted(offsets, start, side="right") - 1
    count = np.bincount(box, minlength=n)
    # Edges of every box: its start, then start and stop of each run, then its end.
    place = 2 * np.arange(len(start)) + 2 * box + 1
    edges = np.empty(2 * len(start) + 2 * n, np.int64)
    edges[place], edges[place + 1] = start, stop
    begin = 2 * (np.cumsum(count) - count + np.arange(n))
    edges[begin], edges[begin + 2 * count + 1] = offsets[:-1], offsets[1:]
    runs = np.diff(edges)
    keep = np.ones(len(edges), bool)
    keep[begin + 2 * count + 1] = False  # from the end of a box to the start of the next
    trailing = begin + 2 * count
    keep[trailing] = (runs[trailing] > 0) | (count == 0)
    owner = np.repeat(np.arange(n), 2 * count + 2)
    return _split_long(runs[keep[:-1]], owner[keep], n)


def decode_runs(
    runs: NDArray[np.integer], counts: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the runs of pixels that are on, ``start`` and ``stop``; inverts `encode_runs`.

    Parameters
    ----------
    runs : array, shape (sum(counts),), int
    counts : array, shape (n,), int64
    offsets : array, shape (n + 1,), int64

    Raises
    ------
    CorruptFileError
        When the runs of a box do not add up to its area.
    """
    length = runs.astype(np.int64)
    if len(length) != counts.sum() or np.any(length < 0) or np.any(counts < 1):
        raise CorruptFileError("the run lengths are damaged")
    first = np.cumsum(counts) - counts
    total = np.add.reduceat(length, first) if len(first) else first
    if not np.array_equal(total, np.diff(offsets)):
        raise CorruptFileError("the run lengths do not add up to the area of their box")
    stop = np.cumsum(length) + offsets[0]
    on = (np.arange(len(length)) - np.repeat(first, counts)) % 2 == 1
    on &= length > 0
    return _merged((stop - length)[on], stop[on], offsets)


def footprint_intervals(
    footprints: FootprintSet, boxes: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Spans of footprint i as runs of pixels in box i, for all i."""
    y, first, last = footprints.spans.astype(np.int64).T
    owner = footprints.owner
    box = boxes[owner]
    start = offsets[owner] + (y - box[:, 0]) * box[:, 3] + first - box[:, 1]
    return start, start + last - first + 1


def intervals_to_footprints(
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    boxes: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> FootprintSet:
    """Footprints of runs of pixels, cut at the ends of rows; inverts `footprint_intervals`."""
    owner = np.searchsorted(offsets, start, side="right") - 1
    width = boxes[owner, 3]
    top, left = np.divmod(start - offsets[owner], width)
    bottom, right = np.divmod(stop - 1 - offsets[owner], width)
    n_row = bottom - top + 1
    y = expand_runs(top, n_row)
    piece = np.repeat(np.arange(len(start)), n_row)
    first = np.where(y == top[piece], left[piece], 0)
    last = np.where(y == bottom[piece], right[piece], width[piece] - 1)
    box = boxes[owner[piece]]
    spans = np.stack([y + box[:, 0], first + box[:, 1], last + box[:, 1]], axis=1)
    ends = np.searchsorted(owner[piece], np.arange(len(boxes) + 1))
    return FootprintSet(spans.astype(np.int32), ends.astype(np.int64))


def _merged(
    start: NDArray[np.int64], stop: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join runs that touch, except across boxes."""
    if not len(start):
        return start, stop
    apart = start[1:] != stop[:-1]
    apart |= offsets[np.searchsorted(offsets, start[1:])] == start[1:]
    first = np.flatnonzero(np.concatenate([[True], apart]))
    last = np.append(first[1:], len(start)) - 1
    return start[first], stop[last]


def _split_long(
    runs: NDArray[np.int64], owner: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    pieces = np.maximum(-(-runs // _LONGEST), 1)
    last = np.cumsum(2 * pieces - 1) - 1
    out = np.zeros(int(last[-1]) + 1 if len(last) else 0, np.int16)
    full = expand_runs(last - 2 * (pieces - 1), 2 * pieces - 2)[::2]
    out[full] = _LONGEST
    out[last] = runs - (pieces - 1) * _LONGEST
    return out, np.bincount(owner, 2 * pieces - 1, minlength=n).astype(np.int64)


def to_codes(
    values: NDArray[np.float64], counts: NDArray[np.int64], steps: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Round values to multiples of a step, carrying the rounding error to the next value.

    Sums over any run of values are then exact to half a step, however many there are: no flux
    is lost in faint wings, and after convolution the error is that of two neighbouring kernel
    pixels' difference instead of their size.

    Parameters
    ----------
    values : array, shape (n_value,), float64
    counts : array, shape (n,), int64
        Values of each group, in order.
    steps : array, shape (n,), float64
        Step of each group.

    Returns
    -------
    array, shape (n_value,), int32

    Raises
    ------
    FormatError
        When a code does not fit.
    """
    scaled = values / np.repeat(steps, counts)
    last = np.cumsum(counts)
    total = np.empty_like(scaled)
    for first, end in zip((last - counts).tolist(), last.tolist(), strict=True):
        np.cumsum(scaled[first:end], out=total[first:end])
    rounded = np.rint(total)
    codes = np.diff(rounded, prepend=0.0)
    starts = (last - counts)[counts > 0]
    codes[starts] = rounded[starts]
    if len(codes) and not np.max(np.abs(codes)) <= MAX_CODE:
        raise FormatError("a morphology is not finite, or its storage step is too small")
    return codes.astype(np.int32)


def from_codes(
    codes: NDArray[np.int32], counts: NDArray[np.int64], steps: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Values of codes; the inverse of `to_codes` up to its rounding."""
    return (codes * np.repeat(steps, counts)).astype(np.float32)


def row_checksums(
    parts: list[tuple[NDArray[np.generic], NDArray[np.int64], NDArray[np.int64]]], n: int
) -> NDArray[np.int64]:
    """CRC-32 of what belongs to each of ``n`` rows.

    Parameters
    ----------
    parts : list of (array, first, counts)
        Row i owns ``array[first[i]:first[i] + counts[i]]`` of every part, in order. Bytes are
        little-endian; structured rows are packed field by field.

    Returns
    -------
    array, shape (n,), int64
        Unsigned values.
    """
    views = [(memoryview(_bytes(a)), a.dtype.itemsize) for a, _, _ in parts]
    sizes = [len(v) // max(len(a), 1) for (v, _), (a, _, _) in zip(views, parts, strict=True)]
    ranges = [
        (view, size, first.tolist(), count.tolist())
        for (view, _), size, (_, first, count) in zip(views, sizes, parts, strict=True)
    ]
    out = np.zeros(n, np.int64)
    for i in range(n):
        value = 0
        for view, size, first, count in ranges:
            value = crc32(view[first[i] * size : (first[i] + count[i]) * size], value)
        out[i] = value
    return out


def _bytes(array: NDArray[np.generic]) -> bytes:
    dtype: np.dtype[Any] = array.dtype
    if dtype.names:
        fields = [(name, _stored(dtype[name])) for name in dtype.names]
        return array.astype(np.dtype(fields)).tobytes()
    return array.astype(dtype.newbyteorder("<"), copy=False).tobytes()


def _stored(dtype: np.dtype[np.generic]) -> str:
    return f"S{dtype.itemsize // 4}" if dtype.kind == "U" else dtype.newbyteorder("<").str
