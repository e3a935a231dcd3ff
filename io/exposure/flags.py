"""What the numbers in a mask mean, in our files and in those of surveys and telescopes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import CoblendError, FormatError, ParameterError
from coblend.core.exposure import HeaderValue
from coblend.core.mask import STANDARD, MaskPlanes
from coblend.io.exposure.frame import header_number

Flags = tuple[tuple[str, int], ...]

ANY: Flags = (("BAD", -1),)
"""Whatever is not zero is bad."""
DES: Flags = (
    ("BAD", 1 | 8), ("SAT", 2 | 64 | 128), ("INTRP", 4), ("CR", 16), ("BRIGHT_OBJECT", 32),
    ("CROSSTALK", 256), ("EDGE", 512), ("STREAK", 1024), ("SUSPECT", 2048),
)  # fmt: skip
"""DESDM BADPIX (Morganson et al. 2018); bleed trails hold saturated light."""
HST: Flags = (("SAT", 256 | 2048), ("CR", 4096 | 8192), ("BAD", ~(256 | 2048 | 4096 | 8192)))
"""DQ of ACS and WFC3 (data handbooks)."""
JWST: Flags = (("BAD", 1), ("SAT", 2), ("CR", 4))
"""DQ of the jwst pipeline: DO_NOT_USE, SATURATED, JUMP_DET; the others explain the first."""
PS1: Flags = (
    ("BAD", 0x0001 | 0x0002 | 0x0004 | 0x0010 | 0x0040 | 0x2000), ("NO_DATA", 0x0008),
    ("SAT", 0x0020), ("SUSPECT", 0x0080 | 0x0400 | 0x4000), ("CR", 0x0100),
    ("STREAK", 0x0800), ("BRIGHT_OBJECT", 0x0200 | 0x1000),
)  # fmt: skip
"""Pan-STARRS 1 pixel flags (Waters et al. 2020)."""
DECAM: Flags = (
    ("BAD", 1), ("SAT", 2 | 64), ("INTRP", 4), ("CR", 16), ("SUSPECT", 128),
)  # fmt: skip
"""DECam community pipeline before version 3.5: bits."""
DECAM_CODES: Flags = (
    ("BAD", 1), ("NO_DATA", 2), ("SAT", 3), ("SAT", 4), ("CR", 5), ("SUSPECT", 6),
    ("SUSPECT", 7), ("STREAK", 8),
)  # fmt: skip
"""The same since then: numbers, one per pixel."""
NO_WEIGHT: Flags = (("NO_DATA", 0),)
"""Of a weight map that stands in for a mask, as numbers."""


def legacy(band: str) -> Flags:
    """MASKBITS of the Legacy Surveys: SATUR and ALLMASK of one band."""
    bits = {"g": (2, 5), "r": (3, 6), "z": (4, 7), "i": (14, 15)}
    if band not in bits:
        return (("BAD", 0),)
    saturated, masked = bits[band]
    return (("SAT", 1 << saturated), ("BAD", 1 << masked))


def parse_flags(text: str) -> Flags:
    """Read ``SAT:2/CR:16``: planes, and the sum of the bits that mean them.

    Raises
    ------
    ParameterError
    """
    found = []
    for part in text.split("/"):
        name, _, value = part.partition(":")
        if name not in STANDARD.bits or not value.isdigit():
            raise ParameterError(
                f"flags={text} is not PLANE:NUMBER/PLANE:NUMBER",
                hint=f"numbers are sums of bits (1, 2, 4...), planes: {', '.join(STANDARD.bits)}",
            )
        found.append((name, int(value)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class MaskCode:
    """How the words of a mask become planes.

    Parameters
    ----------
    planes : MaskPlanes
        Planes that may be set.
    flags : tuple of (str, int)
        Plane and the bits that mean it; empty: the bits are those of ``planes``.
    numbers : bool
        Whether ``flags`` are the words themselves instead of bits in them.
    told : bool
        Whether ``flags`` are the user's, who may have forgotten some; those of surveys leave out
        what does not matter.
    """

    planes: MaskPlanes = STANDARD
    flags: Flags = ()
    numbers: bool = False
    told: bool = False

    @classmethod
    def of(
        cls, header: Mapping[str, HeaderValue], path: str, flags: Flags, *, numbers: bool = False
    ) -> MaskCode:
        """Names in the header (``MP_`` cards) win over ``flags``; without either, any bit is bad.

        Raises
        ------
        FormatError
            Two names share a bit, or a bit is no number.
        """
        named = {k[3:]: int(header_number(header, k, path)) for k in header if k.startswith("MP_")}
        if not named:
            return cls(STANDARD, flags or ANY, numbers)
        try:
            planes = MaskPlanes(named)
            planes.union(STANDARD)  # refuses more foreign planes than there is room for
        except CoblendError as error:
            raise FormatError(error.message, path, "MASK") from error
        return cls(planes)

    def unnamed(self, words: NDArray[Any]) -> list[int]:
        """Bits that are set but have no name."""
        if self.flags and not self.told:
            return []
        known = [value for _, value in self.flags] or [self.planes.value(self.planes.bits)]
        found = int(np.bitwise_or.reduce(words, axis=None)) & ~reduce(or_, known)
        return [bit for bit in range(31) if found >> bit & 1]

    def decode(self, words: NDArray[Any], target: MaskPlanes = STANDARD) -> NDArray[np.int32]:
        """Mask with the bits of ``target``; may share memory with ``words``."""
        if not self.flags:
            mask = words.astype(np.int32, copy=False)
            own = self.planes
            fixed = own.value(n for n, bit in own.bits.items() if target.bits[n] == bit)
            found = int(np.bitwise_or.reduce(mask, axis=None))
            return mask if found & ~fixed == 0 else own.remap(mask, target)
        mask = np.zeros(words.shape, np.int32)
        words = words if self.numbers else words.astype(np.int64)
        for name, value in self.flags:
            hit = words == value if self.numbers else (words & value) != 0
            mask |= hit * np.int32(1 << target.bits[name])
        return mask


BITS = MaskCode()
"""The bits of our own files."""
