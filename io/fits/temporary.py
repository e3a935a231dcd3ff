"""Files and folders that are there for a while only; what killed processes left of them."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from glob import escape, glob

from coblend.io.cleanup import undone

log = logging.getLogger("coblend")

_NAME = re.compile(r"\.coblend-(?P<pid>\d+)-(?P<where>[0-9a-f]{8})[0-9a-f]{8}(\.fits)?(\.gz)?")
_STALE = 86400.0  # seconds
_SPECIAL = set("[](){}!*?,;+")


@contextmanager
def temporary(folder: str, suffix: str = "") -> Iterator[str]:
    """Yield a hidden path that is free, and remove what is there at the end.

    Parameters
    ----------
    folder : str
        Where; what killed processes left there is removed.
    suffix : str
        ``""``, ``.fits``, ``.gz`` or ``.fits.gz``.
    """
    _remove_stale(folder)
    name = f".coblend-{os.getpid()}-{_where()}{secrets.token_hex(4)}{suffix}"
    path = os.path.join(folder, name)
    with undone(partial(_remove, path)):
        yield path


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Yield an empty folder for intermediate files."""
    with temporary(tempfile.gettempdir()) as path:
        os.mkdir(path, 0o700)
        yield path


@contextmanager
def plain_path(path: str) -> Iterator[str]:
    """Yield a path to the same file or folder that CFITSIO does not parse.

    CFITSIO reads brackets, parentheses, a leading ``!`` and a trailing ``+n`` in file names as
    instructions; what has such a name is reached through a symbolic link.
    """
    absolute = os.path.abspath(path)
    if not _SPECIAL & set(absolute):
        yield absolute
        return
    suffix = ".gz" if absolute.endswith(".gz") else ""
    with temporary(tempfile.gettempdir(), suffix) as link:
        os.symlink(absolute, link)
        yield link


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _where() -> str:
    """Say in 8 digits where the process numbers of this process count: host and name space."""
    with suppress(OSError):
        return _digits(f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}")
    return _digits(socket.gethostname())


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _remove_stale(folder: str) -> None:
    """Remove what a killed process left in a folder: one of here, or more than a day ago."""
    for path in glob(os.path.join(escape(folder), ".coblend-*")):
        match = _NAME.fullmatch(os.path.basename(path))
        if match is None:
            continue
        with suppress(OSError):
            gone = match["where"] == _where() and not _is_running(int(match["pid"]))
            if gone or time.time() - os.lstat(path).st_mtime > _STALE:
                _remove(path)
                log.info("%s: removed, left by a killed process", path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
