"""Outputs that appear under their names only when they are complete."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from coblend.core.errors import (
    CoblendError,
    DiskError,
    OutputError,
    OutputExistsError,
    ParameterError,
)
from coblend.io.fits.temporary import plain_path, temporary

_FULL = 1 << 16  # byte
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: str, *, overwrite: bool = False) -> Iterator[str]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The temporary path holds no character that CFITSIO interprets. It is removed on any exception,
    and when the program is ended by a signal.

    Raises
    ------
    OutputExistsError, OutputError
        Before the block is entered.
    """
    check_output(path, overwrite=overwrite)
    folder = os.path.dirname(os.path.abspath(path))
    with temporary(folder, ".fits") as hidden, plain_path(folder) as plain:
        try:
            yield os.path.join(plain, os.path.basename(hidden))
        except OSError as error:
            if error.errno in _NO_SPACE and not isinstance(error, CoblendError):
                raise disk_error(error, path, "") from error
            raise
        try:
            with open(hidden, "r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(hidden, path)
            _sync_folder(folder)
        except OSError as error:
            raise disk_error(error, path, "") from error


def gzip_file(path: str) -> None:
    """Put a gzipped file in the place of a plain one; the same bytes for the same content."""
    with temporary(os.path.dirname(path), ".gz") as packed:
        with (
            open(path, "rb") as plain,
            open(packed, "wb") as raw,
            gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as out,
        ):
            shutil.copyfileobj(plain, out)
        os.replace(packed, path)


def check_output(path: str, *, overwrite: bool = False) -> None:
    """Check that ``path`` can be created, making its folder.

    Raises
    ------
    OutputExistsError, OutputError
    ParameterError
        The name is empty, or ``-``.
    """
    if path in ("", "-"):
        raise ParameterError(
            f"output {path!r} is no file name", hint="output goes to files, never to a pipe"
        )
    if os.path.isdir(path) or path.endswith(os.sep):
        raise OutputError("is a folder, expected a file name", path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError("is a device or a pipe, expected a file name", path)
    if os.path.lexists(path) and not overwrite:
        raise OutputExistsError("exists", path, hint="pass --overwrite to replace it")
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OutputError(f"its folder cannot be made: {error.strerror}", path) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError("its folder cannot be written to: permission denied", path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse to sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: Exception, path: str, name: str) -> DiskError:
    """Say plainly why writing to ``path`` failed; ``name`` is the HDU, "" for none."""
    full = getattr(error, "errno", None) in _NO_SPACE or "space left" in str(error)
    with suppress(OSError):  # CFITSIO says anything but that when the disk is full
        full = full or shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free < _FULL
    reason = "disk full" if full else str(error).strip().splitlines()[-1:] or ["unknown"]
    text = reason if isinstance(reason, str) else reason[0]
    return DiskError(f"writing failed: {text}; no part of it was kept", path, name or None)
