"""What made a file: program, command, effective options, inputs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend._version import __version__
from coblend.core.catalog import Column
from coblend.core.errors import InputMissingError
from coblend.core.exposure import HeaderValue
from coblend.io.fits.structure import scan


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input: its role, base name, size and content hash."""

    role: str
    name: str
    size: int
    hash: str
    algorithm: str

    @classmethod
    def of(cls, role: str, path: str) -> InputFile:
        """Describe a file.

        A FITS file whose HDUs all carry DATASUM is identified by those sums, any other by the
        SHA-256 of its bytes. Folders and times are left out: they would make equal results
        differ.
        """
        digest, algorithm = content_hash(path)
        name = os.path.basename(path).encode("ascii", "backslashreplace").decode()
        return cls(role, name, os.path.getsize(path), digest, algorithm)


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an output was made.

    Parameters
    ----------
    command : str
        Subcommand.
    arguments : tuple of str
        Arguments that remake the file, without output, workers and verbosity.
    options : tuple of (key, value, source)
        Every effective option; the source is ``default``, ``preset``, a file name,
        ``environment`` or ``command line``.
    inputs : tuple of InputFile
    """

    command: str
    arguments: tuple[str, ...] = ()
    options: tuple[tuple[str, str, str], ...] = ()
    inputs: tuple[InputFile, ...] = field(default_factory=tuple)

    def header(self) -> Mapping[str, HeaderValue]:
        """Primary header values."""
        return {
            "CREATOR": f"coblend {__version__}",
            "CBLCMD": self.command,
            "CMDLINE": " ".join(["coblend", self.command, *map(quoted, self.arguments)]),
            "CBLDIG": self.digest(),
        }

    def digest(self) -> str:
        """Short hash of options and inputs: equal for files made alike."""
        text = repr((self.command, [o[:2] for o in self.options], self.inputs))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def tables(self) -> list[tuple[str, NDArray[Any], Sequence[Column]]]:
        """Return the tables PROVENANCE and CONFIG: name, rows and columns."""
        inputs = [(i.role, i.name, i.size, i.hash, i.algorithm) for i in self.inputs]
        return [
            ("PROVENANCE", *_text_table(_INPUT_COLUMNS, inputs)),
            ("CONFIG", *_text_table(_CONFIG_COLUMNS, list(self.options))),
        ]


_INPUT_COLUMNS = (
    Column("role", "U", "Role of the input, with its band", "", "meta.code"),
    Column("name", "U", "Base name of the file", "", "meta.file"),
    Column("size", "i8", "Size of the file", "byte", "meta.file;phys.size"),
    Column("hash", "U", "Hash of its content", "", "meta.checksum"),
    Column(
        "algorithm",
        "U",
        "sha256: of the bytes, datasum-cards: of DATASUMs and of header cards",
        "",
        "meta.code",
    ),
)
_CONFIG_COLUMNS = (
    Column("key", "U", "Option", "", "meta.id"),
    Column("value", "U", "Effective value", "", "meta.note"),
    Column("source", "U", "Where it comes from", "", "meta.note"),
)


_PASSING = frozenset(
    {"DATE", "CHECKSUM", "DATASUM", "CREATOR", "CBLCMD", "CMDLINE", "CBLDIG", "COMMENT", "HISTORY",
     "CONTINUE", ""}
)  # fmt: skip
"""Cards that say when and by what a file was made, not what it holds."""


def _short_hash(values: Sequence[str | None]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def content_hash(path: str) -> tuple[str, str]:
    """Hash of a file's content and the algorithm, ``datasum-cards`` or ``sha256``.

    The former, for FITS files with DATASUM in every HDU, needs no more than their headers. It is
    two hashes joined by a dash: of the data, and of the cards that say what the data mean.

    Raises
    ------
    InputMissingError
    """
    try:
        with open(path, "rb") as stream:
            if stream.read(9) == b"SIMPLE  =":
                hdus = scan(path)
                sums = [hdu.value("DATASUM") for hdu in hdus]
                if all(sums):
                    cards = [c for h in hdus for c in h.cards if c[:8].strip() not in _PASSING]
                    return f"{_short_hash(sums)}-{_short_hash(cards)}", "datasum-cards"
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest()[:32], "sha256"
    except FileNotFoundError as error:
        raise InputMissingError("no such file", path) from error


def data_hash(digest: str) -> str:
    """Part of a hash of `content_hash` that is of the data alone; all of one of the bytes."""
    return digest.partition("-")[0]


def creation_date() -> str:
    """UTC now, or the moment that SOURCE_DATE_EPOCH names (reproducible-builds.org)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = int(epoch) if epoch.isdigit() else time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def quoted(text: str) -> str:
    """Argument as a shell reads it, in ASCII: what FITS headers can hold."""
    if not text.isascii():
        escaped = "".join(
            c if c.isascii() and c not in "\\'" else "".join(f"\\x{b:02x}" for b in c.encode())
            for c in text
        )
        return f"$'{escaped}'"
    safe = text and all(c.isalnum() or c in "_-./,:=@+%{}" for c in text)
    return text if safe else "'" + text.replace("'", "'\\''") + "'"


def _text_table(
    columns: Sequence[Column], rows: list[tuple[Any, ...]]
) -> tuple[NDArray[Any], Sequence[Column]]:
    """Build a table whose text columns are as wide as their longest entry."""
    widths = [
        max([1, *(len(str(row[i])) for row in rows)]) if c.dtype == "U" else 0
        for i, c in enumerate(columns)
    ]
    dtype = [(c.name, f"U{w}" if w else c.dtype) for c, w in zip(columns, widths, strict=True)]
    return np.array(rows, np.dtype(dtype)), columns
