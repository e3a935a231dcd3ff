"""Mask planes: names, bit numbers and how to combine them.

Planes are always matched by name. The numbers are those of the Rubin pipelines' first planes
(afw ``MaskDict``) followed by the ones that this package reserves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import FormatError, ParameterError

PLANES: dict[str, int] = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
    "VIGNETTED": 9,
    "STREAK": 10,
    "REJECTED": 11,
    "CLIPPED": 12,
    "SENSOR_EDGE": 13,
    "INEXACT_PSF": 14,
    "BRIGHT_OBJECT": 15,
    "NOT_DEBLENDED": 16,
    "UNMASKEDNAN": 17,
    "CROSSTALK": 18,
}
"""Bit number of every plane that this package writes."""

FREE_BITS = range(19, 23)
"""Bits for planes that only an input knows; 23 and above are never written."""


@dataclass(frozen=True, slots=True)
class MaskPlanes:
    """Names of the planes of a mask and their bits.

    Parameters
    ----------
    bits : mapping of str to int
        Bit number by plane name; numbers 0 to 30, each once.

    Raises
    ------
    FormatError
        When two names share a bit, or a bit is out of range.
    """

    bits: Mapping[str, int] = field(default_factory=lambda: dict(PLANES))

    def __post_init__(self) -> None:
        owner: dict[int, str] = {}
        for name, bit in self.bits.items():
            if not 0 <= bit <= 30:
                raise FormatError(f"mask plane {name} is bit {bit}; bits 0 to 30 are possible")
            if bit in owner:
                raise FormatError(f"mask planes {owner[bit]} and {name} are both bit {bit}")
            owner[bit] = name

    def value(self, names: Iterable[str]) -> int:
        """Bit mask of ``names``; names that this mask lacks count for nothing.

        Raises
        ------
        ParameterError
            For a name that is neither here nor among the known `PLANES` (a misspelling).
        """
        total = 0
        for name in names:
            if name in self.bits:
                total |= 1 << self.bits[name]
            elif name not in PLANES:
                known = ", ".join(sorted({*self.bits, *PLANES}))
                raise ParameterError(f"no mask plane {name}", hint=f"known planes: {known}")
        return total

    def union(self, other: MaskPlanes) -> MaskPlanes:
        """Planes of both, on the standard bits; foreign names take the free bits in order.

        Raises
        ------
        FormatError
            When the free bits do not suffice.
        """
        bits = dict(PLANES)
        foreign = [n for n in {**self.bits, **other.bits} if n not in PLANES]
        if len(foreign) > len(FREE_BITS):
            raise FormatError(
                f"{len(foreign)} mask planes besides the standard ones, room for "
                f"{len(FREE_BITS)}: {', '.join(foreign)}"
            )
        bits.update(zip(foreign, FREE_BITS, strict=False))
        return MaskPlanes(bits)

    def remap(self, mask: NDArray[np.int32], target: MaskPlanes) -> NDArray[np.int32]:
        """Move the bits of ``mask`` (these planes) to where ``target`` has them.

        Parameters
        ----------
        mask : array, any shape, int32
        target : MaskPlanes
            Must know every plane that this mask has.

        Returns
        -------
        array, int32
            ``mask`` itself when no plane moves. Bits without a name are dropped.
        """
        named = self.value(self.bits)
        moved = {n: b for n, b in self.bits.items() if target.bits[n] != b}
        stay = named & ~self.value(moved)
        if not moved and not np.any(mask & ~np.int32(named)):
            return mask
        out = mask & np.int32(stay)
        for name, bit in moved.items():
            out |= ((mask >> np.int32(bit)) & np.int32(1)) << np.int32(target.bits[name])
        return out


STANDARD = MaskPlanes()
"""The planes of a file without foreign names."""
