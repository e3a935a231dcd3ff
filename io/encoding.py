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


def encode_runs(
    pixels: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Run lengths ``off, on, off, ...`` of the pixels of each box, starting with off.

    Parameters
    ----------
    pixels : array, shape (n_pixel,), int64
        Flat indices, ascending.
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
    first_of_box = np.searchsorted(pixels, offsets[:-1])
    breaks = np.ones(len(pixels), bool)
    breaks[1:] = np.diff(pixels) != 1
    breaks[first_of_box[first_of_box < len(pixels)]] = True
    first = np.flatnonzero(breaks)
    last = np.append(first[1:], len(pixels))[: len(first)] - 1
    start, stop = pixels[first], pixels[last] + 1
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


def decode_runs(
    runs: NDArray[np.integer], counts: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Pixels of every box from its run lengths; the inverse of `encode_runs`.

    Parameters
    ----------
    runs : array, shape (sum(counts),), int
    counts : array, shape (n,), int64
    offsets : array, shape (n + 1,), int64

    Returns
    -------
    array, shape (n_pixel,), int64
        Flat indices, ascending.

    Raises
    ------
    CorruptFileError
        When the runs of a box do not add up to its area.
    """
    length = runs.astype(np.int64)
    if len(length) != counts.sum() or np.any(length < 0) or np.any(counts < 1):
        raise CorruptFileError("the run lengths are damaged")
    if not len(counts):
        return np.zeros(0, np.int64)
    first = np.cumsum(counts) - counts
    total = np.add.reduceat(length, first)
    if not np.array_equal(total, np.diff(offsets)):
        raise CorruptFileError("the run lengths do not add up to the area of their box")
    start = np.cumsum(length) - length
    parity = np.arange(len(length)) - np.repeat(first, counts)
    on = parity % 2 == 1
    return expand_runs(start[on] + offsets[0], length[on])


def footprint_pixels(
    footprints: FootprintSet, boxes: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Flat indices of the pixels of footprint i in box i, for all i."""
    y, first, last = footprints.spans.astype(np.int64).T
    box = boxes[footprints.owner]
    start = offsets[footprints.owner] + (y - box[:, 0]) * box[:, 3] + first - box[:, 1]
    return expand_runs(start, last - first + 1)


def pixels_to_footprints(
    pixels: NDArray[np.int64], boxes: NDArray[np.int64], offsets: NDArray[np.int64]
) -> FootprintSet:
    """Footprints from flat indices; the inverse of `footprint_pixels`."""
    owner = np.searchsorted(offsets, pixels, side="right") - 1
    y, x = np.divmod(pixels - offsets[owner], boxes[owner, 3])
    return FootprintSet.from_pixels(owner, y + boxes[owner, 0], x + boxes[owner, 1], len(boxes))


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
