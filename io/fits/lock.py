"""One writer at a time for each output."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from coblend.core.errors import OutputError, ResourceError
from coblend.io.cleanup import undone

log = logging.getLogger("coblend")


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Hold an output for this process, through a hidden lock file beside it.

    The lock is advisory (``flock``) and ends with the process, however that ends. File systems
    without locks are warned of; there the atomic rename alone keeps the file whole.

    Raises
    ------
    ResourceError
        Another process is writing the same output.
    OutputError
        The folder cannot be written to.
    """
    folder, name = os.path.split(os.path.abspath(path))
    lock = os.path.join(folder, f".coblend-{name}.lock")
    descriptors: list[int] = []  # of the lock file, as soon as it is open
    with undone(partial(_release, lock, descriptors)):
        _acquire(lock, path, descriptors)
        yield


def _acquire(lock: str, path: str, descriptors: list[int]) -> None:
    while True:
        try:
            descriptors[:] = [os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)]
        except OSError as error:
            raise OutputError(
                f"its folder cannot be written to: {error.strerror}", path
            ) from error
        try:
            if not _lock(descriptors[0]):
                log.warning("%s: this file system has no locks", path)
                return
        except BlockingIOError as error:
            raise ResourceError(
                "another process is writing it", path, hint="try again when it has finished"
            ) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(lock), os.fstat(descriptors[0])):
                return
        os.close(descriptors.pop())  # the holder removed it between our open and our lock


def _release(lock: str, descriptors: list[int]) -> None:
    """Remove the lock file, at any moment of `exclusive`, unless another process holds it."""
    with suppress(OSError):
        if not descriptors:
            descriptors.append(os.open(lock, os.O_RDWR))
        _lock(descriptors[0])
        if os.path.samestat(os.stat(lock), os.fstat(descriptors[0])):
            os.unlink(lock)  # before the lock is released: who waits for it finds a new file
    while descriptors:
        os.close(descriptors.pop())


def _lock(descriptor: int) -> bool:
    """Lock an open file; False where files cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
