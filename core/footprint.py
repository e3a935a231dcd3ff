"""Sets of pixels as horizontal spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError


@dataclass(frozen=True, slots=True)
class FootprintSet:
    """n footprints, each a run of rows of one span table.

    Parameters
    ----------
    spans : array, shape (n_span, 3), int32
        ``y, x_first, x_last`` (inclusive), parent coordinates; inside a footprint sorted by y,
        then x, disjoint, not abutting.
    offsets : array, shape (n + 1,), int64
        Footprint i owns spans ``offsets[i]:offsets[i + 1]``.
    """

    spans: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.spans.ndim != 2 or self.spans.shape[1] != 3:
            raise FormatError(f"spans have shape {self.spans.shape}, expected (n, 3)")
        if len(self.offsets) < 1 or self.offsets[-1] != len(self.spans):
            raise FormatError(f"{len(self.spans)} spans, offsets end at {self.offsets[-1:]}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def empty(cls) -> FootprintSet:
        """No footprints."""
        return cls(np.empty((0, 3), np.int32), np.zeros(1, np.int64))

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], y0: int = 0, x0: int = 0) -> FootprintSet:
        """One footprint: the True pixels of ``mask``, whose first pixel is ``(y0, x0)``."""
        spans = mask_to_spans(mask)
        spans += np.array([y0, x0, x0], np.int32)
        return cls(spans, np.array([0, len(spans)], np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[FootprintSet]) -> FootprintSet:
        """All footprints of several sets, in order."""
        counts = [np.diff(part.offsets) for part in parts]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *counts]))])
        spans = [np.empty((0, 3), np.int32), *(part.spans for part in parts)]
        return cls(np.concatenate(spans), offsets.astype(np.int64))

    @property
    def owner(self) -> NDArray[np.int64]:
        """Footprint index of every span, shape (n_span,), int64."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    @property
    def areas(self) -> NDArray[np.int64]:
        """Pixels per footprint, shape (n,), int64."""
        total = np.zeros(len(self.spans) + 1, np.int64)
        np.cumsum(self.spans[:, 2].astype(np.int64) - self.spans[:, 1] + 1, out=total[1:])
        return np.diff(total[self.offsets])

    def of(self, index: int) -> NDArray[np.int32]:
        """Spans of one footprint, shape (k, 3)."""
        return self.spans[self.offsets[index] : self.offsets[index + 1]]

    def box(self, index: int) -> Box:
        """Bounding box of one footprint."""
        spans = self.of(index)
        if not len(spans):
            return Box(0, 0, 0, 0)
        return Box.from_bounds(
            int(spans[0, 0]),
            int(spans[:, 1].min()),
            int(spans[-1, 0]) + 1,
            int(spans[:, 2].max()) + 1,
        )

    def boxes(self) -> NDArray[np.int32]:
        """Bounding boxes ``y0, x0, ny, nx``, shape (n, 4), int32; zeros for empty footprints."""
        out = np.zeros((len(self), 4), np.int32)
        filled = np.flatnonzero(np.diff(self.offsets))
        if len(filled):
            first = self.offsets[filled]
            y0 = np.minimum.reduceat(self.spans[:, 0], first)
            y1 = np.maximum.reduceat(self.spans[:, 0], first)
            x0 = np.minimum.reduceat(self.spans[:, 1], first)
            x1 = np.maximum.reduceat(self.spans[:, 2], first)
            out[filled] = np.stack([y0, x0, y1 - y0 + 1, x1 - x0 + 1], axis=1)
        return out

    def mask(self, index: int, frame: Box | None = None) -> NDArray[np.bool_]:
        """Pixels of one footprint as a boolean array over ``frame`` (default: its box)."""
        frame = self.box(index) if frame is None else frame
        return spans_to_labels(self.of(index), frame) > 0

    def labels(self, frame: Box) -> NDArray[np.int32]:
        """Image over ``frame`` with footprint index + 1, 0 outside; later footprints win."""
        return spans_to_labels(self.spans, frame, self.owner + 1)

    def outlines(self, frame: Box) -> NDArray[np.float64]:
        """Borders between footprints, and between footprints and sky, inside ``frame``.

        Returns
        -------
        array, shape (n, 2, 2), float64
            ``x, y`` of both ends of every straight line along pixel edges, horizontal ones
            first, parent coordinates; all are half-integers, since pixel centres are integers.
        """
        labels = np.pad(self.labels(frame), 1)
        level = _edge_runs(labels[1:] != labels[:-1])
        upright = _edge_runs((labels[:, 1:] != labels[:, :-1]).T)
        lines = np.concatenate([level[..., ::-1], upright])
        return np.asarray(lines + np.array([frame.x0 - 0.5, frame.y0 - 0.5]))

    def select(self, rows: NDArray[np.int64]) -> FootprintSet:
        """Footprints ``rows``, in that order."""
        rows = np.asarray(rows, np.int64)
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return FootprintSet(self.spans[index], offsets)

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        """Spans of each footprint in turn."""
        return (self.of(i) for i in range(len(self)))


@dataclass(frozen=True, slots=True, eq=False)
class SpanIndex:
    """Disjoint spans in raster order, searchable by pixel.

    Every pixel has the flat key ``(y - y0) * stride + (x - x0) + 1`` with two guard columns, so
    that keys of pixels in neighbouring rows differ by ``stride`` and nothing wraps from one row
    into the next.

    Parameters
    ----------
    spans : array, shape (n, 3), int32
        ``y, x_first, x_last`` (inclusive).
    starts, ends : array, shape (n,), int64
        Flat keys of the first and last pixels.
    stride : int
        Key difference of vertical neighbours.
    y0, x0 : int
        First row and column that the keys count from.
    """

    spans: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    stride: int
    y0: int
    x0: int

    @classmethod
    def build(cls, spans: NDArray[np.int32]) -> SpanIndex:
        """Index ``spans``, which must be in raster order and disjoint."""
        if not len(spans):
            empty = np.zeros(0, np.int64)
            return cls(spans, empty, empty, 2, 0, 0)
        y0, x0 = int(spans[0, 0]), int(spans[:, 1].min())
        stride = int(spans[:, 2].max()) - x0 + 3
        line = spans[:, 0].astype(np.int64)
        line -= y0
        line *= stride
        line += 1 - x0
        return cls(spans, line + spans[:, 1], line + spans[:, 2], stride, y0, x0)

    def find(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.int64]:
        """Index of the span that holds each pixel, -1 where none does."""
        y, x = np.asarray(y, np.int64), np.asarray(x, np.int64)
        if not len(self.starts):
            return np.full(y.shape, -1, np.int64)
        column = x - self.x0 + 1
        key = (y - self.y0) * self.stride + column
        span = np.searchsorted(self.starts, key, "right") - 1
        inside = (span >= 0) & (column > 0) & (column < self.stride - 1)
        inside &= key <= self.ends[span]
        return np.where(inside, span, -1)

    def touching(self, connectivity: int = 8) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of spans in neighbouring rows that touch.

        Returns
        -------
        counts : array, shape (n,), int64
            Number of spans of the next row that touch each span.
        below : array, shape (sum(counts),), int64
            Their indices, in the order of the spans.
        """
        reach = self.stride + (1 if connectivity == 8 else 0)
        near = self.stride - (1 if connectivity == 8 else 0)
        first = np.searchsorted(self.ends, self.starts + near)
        stop = np.searchsorted(self.starts, self.ends + reach, "right")
        counts = np.maximum(stop - first, 0)
        return counts, expand_runs(first, counts)


def _edge_runs(edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Both ends ``(row, column)`` of the runs of True in each row, shape (n, 2, 2).

    Columns count from the second: the first is padding.
    """
    step = np.diff(edges.astype(np.int8), axis=1)
    row, first = np.nonzero(step == 1)
    last = np.nonzero(step == -1)[1]
    return np.stack([np.stack([row, first], 1), np.stack([row, last], 1)], 1).astype(np.float64)


def raster_order(spans: NDArray[np.int32]) -> NDArray[np.int64]:
    """Index that sorts spans by row, then first column."""
    if not len(spans):
        return np.zeros(0, np.int64)
    width = int(spans[:, 1].max()) - int(spans[:, 1].min()) + 1
    return stable_order(spans[:, 0].astype(np.int64) * width + spans[:, 1])


def union_spans(spans: NDArray[np.int32]) -> NDArray[np.int32]:
    """Canonical spans, in raster order, of the pixels in any of ``spans``."""
    spans = spans[raster_order(spans)]
    if not len(spans):
        return spans
    line = spans[:, 0].astype(np.int64) * (int(np.ptp(spans[:, 1:])) + 3)
    reach = np.maximum.accumulate(line + spans[:, 2])
    new = np.ones(len(spans), bool)
    new[1:] = line[1:] + spans[1:, 1] > reach[:-1] + 1
    first = np.flatnonzero(new)
    out = spans[first]
    out[:, 2] = np.maximum.reduceat(spans[:, 2], first)
    return out


def stable_order(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index that sorts integers, equal ones in their order.

    Key and index share one integer where they fit: sorting values is several times faster than
    sorting indices.
    """
    n = len(keys)
    if not n:
        return np.zeros(0, np.int64)
    low, bits = int(keys.min()), n.bit_length()
    if (int(keys.max()) - low).bit_length() + bits > 62:
        return np.argsort(keys, kind="stable")
    packed = ((keys - low) << bits) | np.arange(n)
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def mask_to_spans(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Find the runs of True pixels of a 2-D mask.

    Returns
    -------
    array, shape (n_span, 3), int32
        ``y, x_first, x_last`` in raster order, array coordinates.
    """
    height, width = mask.shape
    flat = np.zeros((height, width + 1), bool)  # the guard column ends a run at the row's end
    flat[:, :-1] = mask
    line = flat.ravel()
    edges = np.flatnonzero(line[1:] != line[:-1]) + 1
    if line.size and line[0]:
        edges = np.concatenate([[0], edges])
    start, stop = edges[::2], edges[1::2]
    y, x = np.divmod(start, width + 1)
    return np.stack([y, x, x + (stop - start) - 1], axis=1).astype(np.int32)


def labels_to_spans(
    labels: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int32], NDArray[np.integer[Any]]]:
    """Find the runs of equal non-zero pixels of a 2-D label image.

    Returns
    -------
    spans : array, shape (n_span, 3), int32
        ``y, x_first, x_last`` in raster order, array coordinates.
    values : array, shape (n_span,)
        Their labels.
    """
    height, width = labels.shape
    flat = np.zeros((height, width + 1), labels.dtype)
    flat[:, :-1] = labels
    line = flat.ravel()
    start = np.flatnonzero(line[1:] != line[:-1]) + 1
    if line.size and line[0]:
        start = np.concatenate([[0], start])
    stop = np.append(start[1:], line.size)
    values = line[start]
    inside = values != 0
    y, x = np.divmod(start[inside], width + 1)
    spans = np.stack([y, x, x + (stop - start)[inside] - 1], axis=1)
    return spans.astype(np.int32), values[inside]


def spans_to_labels(
    spans: NDArray[np.int32], frame: Box, values: NDArray[np.int64] | int = 1
) -> NDArray[np.int32]:
    """Paint spans into an image over ``frame``; parts outside are dropped.

    Parameters
    ----------
    spans : array, shape (n_span, 3), int32
        Parent coordinates.
    frame : Box
    values : array, shape (n_span,), or int
        What to paint.

    Returns
    -------
    array, shape ``frame.shape``, int32
    """
    out = np.zeros(frame.area, np.int32)
    y = spans[:, 0].astype(np.int64) - frame.y0
    first = np.maximum(spans[:, 1].astype(np.int64) - frame.x0, 0)
    last = np.minimum(spans[:, 2].astype(np.int64) - frame.x0, frame.nx - 1)
    length = np.where((y >= 0) & (y < frame.ny), np.maximum(last - first + 1, 0), 0)
    out[expand_runs(y * frame.nx + first, length)] = (
        np.repeat(values, length) if isinstance(values, np.ndarray) else values
    )
    return out.reshape(frame.shape)


def expand_runs(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate ``arange(start_i, start_i + length_i)`` for all i, shape (sum(length),)."""
    end = np.cumsum(length)
    total = int(end[-1]) if len(end) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(start - end + length, length)


def box_offsets(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the pixels of each box start when all are laid end to end, shape (n + 1,), int64.

    Parameters
    ----------
    boxes : array, shape (n, 4), int64
        ``y0, x0, ny, nx``.
    """
    out = np.zeros(len(boxes) + 1, np.int64)
    np.cumsum(boxes[:, 2] * boxes[:, 3], out=out[1:])
    return out
