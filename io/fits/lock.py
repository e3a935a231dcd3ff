"""One writer at a time for each output."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from coblend.core.errors import OutputError, ResourceError

log = logging.getLogger("coblend")

# Their handlers raise, at any line; held back while the lock file is made and while it is removed.
_RAISING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


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
    descriptor = None
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)
        descriptor = _acquire(lock, path)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _RAISING)
        yield
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)
        finally:  # a signal that came just before raises at that call
            if descriptor is not None:
                _release(lock, descriptor)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _RAISING)


def _release(lock: str, descriptor: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(lock)  # before the lock is released: who waits for it finds a new file
    os.close(descriptor)


def _acquire(lock: str, path: str) -> int:
    while True:
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise OutputError(
                f"its folder cannot be written to: {error.strerror}", path
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ResourceError(
                "another process is writing it", path, hint="try again when it has finished"
            ) from error
        except OSError:
            log.warning("%s: this file system has no locks", path)
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(lock), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # the holder removed it between our open and our lock
