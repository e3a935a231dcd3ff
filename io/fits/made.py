"""Whether a file is what a command would make again: its recorded options and inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coblend.core.errors import CoblendError
from coblend.io.fits.provenance import InputFile, content_hash, data_hash
from coblend.io.fits.reader import open_fits, text_of

_NOT_ARGUMENTS = ("psf", "reference", "kernel", "noise", "peaks", "plane")
"""Roles of inputs that options name, or that are found beside others."""


@dataclass(frozen=True, slots=True)
class Made:
    """How a file was made: subcommand, options as text, inputs in order."""

    command: str
    options: Mapping[str, str]
    inputs: tuple[InputFile, ...]


def read_made(path: str) -> Made | None:
    """Read how a file was made; None for a file that is damaged or not of this program."""
    try:
        with open_fits(path) as file:
            if not (file.has("CONFIG") and file.has("PROVENANCE")):
                return None
            command = str(file.header(0).get("CBLCMD", ""))
            config, inputs = file.table("CONFIG"), file.table("PROVENANCE")
    except CoblendError:
        return None
    return Made(
        command,
        {text_of(row["key"]): text_of(row["value"]) for row in config},
        tuple(
            InputFile(
                text_of(row["role"]), text_of(row["name"]), int(row["size"]), text_of(row["hash"]),
                text_of(row["algorithm"]),
            )
            for row in inputs
        ),
    )  # fmt: skip


def was_input(path: str, made: str, role: str) -> bool | None:
    """Whether a file was an input of another, by its data; True where that does not say.

    Returns
    -------
    bool or None
        None where it was hashed in another way than is possible now.
    """
    known = read_made(made)
    inputs = [i for i in known.inputs if i.role == role] if known else []
    if not inputs:
        return True
    found, kind = content_hash(path)
    if data_hash(found) in {data_hash(i.hash) for i in inputs if i.algorithm == kind}:
        return True
    return False if kind in {i.algorithm for i in inputs} else None


def why_stale(
    path: str,
    command: str,
    options: Mapping[str, str],
    inputs: Sequence[str],
    others: Sequence[str] = (),
) -> str | None:
    """Why a command would not make the same file again; None where it would.

    An input counts as changed if its size differs, or if it is newer than the file and its
    content differs.

    Parameters
    ----------
    path : str
        The file.
    command : str
        Subcommand.
    options : mapping of str to str
        All options as the CONFIG table writes them.
    inputs : sequence of str
        Paths in order; they must exist.
    others : sequence of str
        Further files that may have been read, such as those that options name.
    """
    if not os.path.exists(path):
        return "is missing"
    made = read_made(path)
    if made is None or made.command != command:
        return f"was not made by {command}"
    for key in sorted({*options, *made.options}):
        old, new = made.options.get(key, "unknown"), options.get(key, "unknown")
        if old != new:
            return f"was made with {key}={old}, not {new}"
    names = [os.path.basename(name) for name in inputs]
    recorded = [i for i in made.inputs if i.name in names and i.role not in _NOT_ARGUMENTS]
    if [i.name for i in recorded] != names:
        return "was made from other inputs"
    time = os.stat(path).st_mtime_ns
    by_name = {i.name: i for i in made.inputs}
    more = [(name, by_name.get(os.path.basename(name))) for name in others]
    for name, old_input in [*zip(inputs, recorded, strict=True), *more]:
        if old_input is not None and _changed(name, old_input, time):
            return f"is older than {name}"
    return None


def _changed(path: str, recorded: InputFile, time: int) -> bool:
    status = os.stat(path)
    if status.st_size != recorded.size:
        return True
    return status.st_mtime_ns > time and content_hash(path)[0] != recorded.hash
