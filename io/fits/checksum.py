"""CHECKSUM and DATASUM of the FITS standard (appendix J), without the clock in the comment."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np

from coblend.io.fits.structure import CARD, HduInfo, open_bytes, scan

_CHUNK = 1 << 24
_ALL = 0xFFFFFFFF
PLACEHOLDERS = (
    f"{'CHECKSUM= ' + repr('0' * 16):<30} / HDU checksum".ljust(CARD),
    f"{'DATASUM = ' + repr('0' + ' ' * 9):<30} / data unit checksum".ljust(CARD),
)
"""Cards to write into a header before `seal` fills them in."""


def seal(path: str) -> None:
    """Fill in the placeholder CHECKSUM and DATASUM cards of every HDU of a closed file."""
    hdus = scan(path)
    with open(path, "r+b") as stream:
        for hdu in hdus:
            data = _sum(stream, hdu.data, hdu.end)
            _replace(stream, hdu, "DATASUM", f"'{data:<10d}'")
            _replace(stream, hdu, "CHECKSUM", repr("0" * 16))
            total = _fold(_sum(stream, hdu.start, hdu.data) + data)
            _replace(stream, hdu, "CHECKSUM", repr(_encode(_ALL - total)))
        stream.flush()
        os.fsync(stream.fileno())


def mismatches(path: str, hdus: list[HduInfo] | None = None) -> list[str]:
    """Names of the HDUs whose CHECKSUM or DATASUM disagrees with their bytes."""
    with open_bytes(path) as stream:
        return [
            hdu.name or f"HDU {index}"
            for index, hdu in enumerate(scan(path) if hdus is None else hdus)
            if not (header_intact(stream, hdu) and data_intact(stream, hdu))
        ]


def data_intact(stream: BinaryIO, hdu: HduInfo) -> bool:
    """Whether the data of one HDU of an open file agree with its DATASUM; True without one."""
    return hdu.value("DATASUM") in (None, str(_sum(stream, hdu.data, hdu.end)))


def header_intact(stream: BinaryIO, hdu: HduInfo) -> bool:
    """Whether the header of one HDU of an open file agrees with its CHECKSUM.

    CHECKSUM covers header and data; DATASUM stands for the data, which are not read. True where
    both cards are absent.
    """
    data, total = hdu.value("DATASUM"), hdu.value("CHECKSUM")
    if data is None and total is None:
        return True
    if total is None or data is None or not data.isdecimal():
        return False
    return _fold(_sum(stream, hdu.start, hdu.data) + int(data)) in (0, _ALL)


def _sum(stream: BinaryIO, start: int, end: int) -> int:
    """Ones' complement sum of big-endian 32-bit words."""
    stream.seek(start)
    total = 0
    while start < end:
        block = stream.read(min(_CHUNK, end - start))
        start += len(block)
        total = _fold(total + int(np.frombuffer(block, ">u4").sum(dtype=np.uint64)))
    return total


def _fold(total: int) -> int:
    while total > _ALL:
        total = (total & _ALL) + (total >> 32)
    return total


def _encode(value: int) -> str:
    """Encode 32 bits as 16 letters and digits whose words add up to ``value``."""
    letters = [0] * 16
    for i in range(4):
        byte = (value >> (24 - 8 * i)) & 0xFF
        quarter = [byte // 4 + ord("0")] * 4
        quarter[0] += byte % 4
        while any(not chr(c).isalnum() for c in quarter):
            for j in (0, 2):  # keep the sum, move away from punctuation
                if not (chr(quarter[j]).isalnum() and chr(quarter[j + 1]).isalnum()):
                    quarter[j] += 1
                    quarter[j + 1] -= 1
        for j in range(4):
            letters[4 * j + i] = quarter[j]
    return "".join(chr(c) for c in letters[-1:] + letters[:-1])  # the value starts in column 12


def _replace(stream: BinaryIO, hdu: HduInfo, key: str, text: str) -> None:
    for index, card in enumerate(hdu.cards):
        if card.startswith(f"{key:<8}="):
            stream.seek(hdu.start + index * CARD + 10)
            stream.write(text.encode("ascii"))
            return
