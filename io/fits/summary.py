"""What a file holds, what made it, and whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coblend.core.errors import FormatError
from coblend.io.fits.checksum import mismatches
from coblend.io.fits.provenance import quoted
from coblend.io.fits.reader import open_fits, text_of
from coblend.io.fits.structure import HduInfo, scan


@dataclass(frozen=True, slots=True)
class FileSummary:
    """Contents and origin of one file."""

    path: str
    schema: str
    size: int
    hdus: tuple[HduInfo, ...]
    made: Mapping[str, Any]
    inputs: tuple[tuple[str, str], ...]

    @property
    def remake(self) -> str:
        """Command line that makes the file again.

        Raises
        ------
        FormatError
            The file does not say.
        """
        line = str(self.made.get("CMDLINE", ""))
        if not line:
            raise FormatError("does not say what made it", self.path)
        return line if " -o " in line else f"{line} -o {quoted(os.path.basename(self.path))}"

    def origin(self) -> list[str]:
        """Say what kind of file it is, what made it, and from what: a line each, if known."""
        lines = [f"{self.path}: {self.schema or 'FITS'}, {self.size} bytes"]
        if "CREATOR" in self.made:
            date = f" on {self.made['DATE']}" if "DATE" in self.made else ""
            lines.append(f"made by {self.made['CREATOR']}{date}")
        if self.made.get("CMDLINE"):
            lines.append(f"with {self.remake}")
        if self.inputs:
            lines.append("from " + ", ".join(f"{name} ({role})" for role, name in self.inputs))
        return lines

    def numbers(self) -> dict[str, Any]:
        """Summary for JSON."""
        return {
            "file": self.path,
            "schema": self.schema,
            "bytes": self.size,
            "creator": self.made.get("CREATOR", ""),
            "date": self.made.get("DATE", ""),
            "command_line": self.made.get("CMDLINE", ""),
            "inputs": [{"role": role, "name": name} for role, name in self.inputs],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per HDU."""
        return [
            {
                "hdu": i,
                "name": h.name or ("(primary)" if not i else ""),
                "kind": h.kind if h.shape else "empty",
                "size": "x".join(str(n) for n in h.shape[::-1]),
                "bytes": h.end - h.start,
                "detail": _detail(h),
            }
            for i, h in enumerate(self.hdus)
        ]


def summarize(path: str) -> FileSummary:
    """Read what a file holds and what made it; works on any FITS file."""
    with open_fits(path) as file:
        header = file.header(0)
        keys = ("CREATOR", "DATE", "CBLCMD", "CMDLINE", "CBLDIG")
        inputs: tuple[tuple[str, str], ...] = ()
        if file.has("PROVENANCE"):
            table = file.table("PROVENANCE", columns=["role", "name"])
            inputs = tuple((text_of(r["role"]), text_of(r["name"])) for r in table)
        return FileSummary(
            path,
            str(header.get("SCHEMA", "")),
            os.path.getsize(path),
            tuple(file.hdus),
            {k: header[k] for k in keys if k in header},
            inputs,
        )


def verify(path: str) -> list[str]:
    """Check structure and checksums of a file.

    Returns
    -------
    list of str
        Names of damaged HDUs; a broken structure raises.

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
    """
    return mismatches(path, scan(path))


def _detail(hdu: HduInfo) -> str:
    if hdu.kind == "table":
        n = int(hdu.value("TFIELDS") or 0)
        names = [hdu.value(f"TTYPE{i}") or "" for i in range(1, n + 1)]
        return ", ".join(names[:6]) + (f", ... ({n} columns)" if n > 6 else "")
    parts = [hdu.value("ZCMPTYPE"), hdu.value("BUNIT"), hdu.value("BAND")]
    return " ".join(p for p in parts if p)
