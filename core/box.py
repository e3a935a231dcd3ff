"""Rectangles of pixels in parent coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coblend.core.errors import ParameterError


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """The pixels ``y0 <= y < y0 + ny``, ``x0 <= x < x0 + nx`` (pixel, parent coordinates).

    An empty box has ``ny == 0`` or ``nx == 0``.

    Raises
    ------
    ParameterError
        For a negative side.
    """

    y0: int
    x0: int
    ny: int
    nx: int

    def __post_init__(self) -> None:
        if self.ny < 0 or self.nx < 0:
            raise ParameterError(f"a box cannot have {self.ny} x {self.nx} pixels")

    @classmethod
    def from_bounds(cls, y0: int, x0: int, y1: int, x1: int) -> Box:
        """Box with exclusive upper bounds ``y1``, ``x1``; empty where they cross."""
        return cls(y0, x0, max(0, y1 - y0), max(0, x1 - x0))

    @property
    def y1(self) -> int:
        """First row above the box."""
        return self.y0 + self.ny

    @property
    def x1(self) -> int:
        """First column right of the box."""
        return self.x0 + self.nx

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        return self.ny, self.nx

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.ny * self.nx

    def __and__(self, other: Box) -> Box:
        """Intersection."""
        return Box.from_bounds(
            max(self.y0, other.y0),
            max(self.x0, other.x0),
            min(self.y1, other.y1),
            min(self.x1, other.x1),
        )

    def __or__(self, other: Box) -> Box:
        """Smallest box that holds both; an empty one counts for nothing."""
        if not self.area:
            return other
        if not other.area:
            return self
        return Box.from_bounds(
            min(self.y0, other.y0),
            min(self.x0, other.x0),
            max(self.y1, other.y1),
            max(self.x1, other.x1),
        )

    @staticmethod
    def union(boxes: Iterable[Box]) -> Box:
        """Smallest box that holds all of ``boxes``."""
        total = Box(0, 0, 0, 0)
        for box in boxes:
            total = total | box
        return total

    def grow(self, radius: int) -> Box:
        """Box with ``radius`` more pixels on every side."""
        return Box.from_bounds(
            self.y0 - radius, self.x0 - radius, self.y1 + radius, self.x1 + radius
        )

    def shift(self, dy: int, dx: int) -> Box:
        """Box moved by ``(dy, dx)``."""
        return Box(self.y0 + dy, self.x0 + dx, self.ny, self.nx)

    def contains(self, other: Box) -> bool:
        """Whether every pixel of ``other`` is inside."""
        return self & other == other

    def strips(self, n_row: int) -> list[Box]:
        """Cut the box into boxes of at most ``n_row`` whole rows, in order."""
        return [
            Box.from_bounds(y, self.x0, min(y + n_row, self.y1), self.x1)
            for y in range(self.y0, self.y1, n_row)
        ]

    def slices(self, frame: Box | None = None) -> tuple[slice, slice]:
        """Index of this box in an array that covers ``frame``; the box must lie inside it.

        Without a frame the box is in array coordinates.
        """
        y0, x0 = (0, 0) if frame is None else (frame.y0, frame.x0)
        return slice(self.y0 - y0, self.y1 - y0), slice(self.x0 - x0, self.x1 - x0)

    def __str__(self) -> str:
        return f"[{self.x0}:{self.x1}, {self.y0}:{self.y1}]"
