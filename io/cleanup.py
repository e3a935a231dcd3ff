"""What is undone when the program ends, however it ends."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_UNDO: dict[object, Callable[[], object]] = {}


@contextmanager
def undone(action: Callable[[], object]) -> Iterator[None]:
    """Call ``action`` when the block ends, or when the program is told to end inside it.

    Parameters
    ----------
    action : callable
        Undoes what the block makes. It may be called at any moment of the block, also before
        anything is made, and twice.
    """
    key = object()
    _UNDO[key] = action
    try:
        yield
    finally:
        action()
        _UNDO.pop(key, None)


def undo_all() -> None:
    """Undo what the open blocks have made, the newest first.

    Handlers of signals call this and end the process: an exception that they raised could come
    in the midst of a clean-up, or where Python ignores it.
    """
    while _UNDO:
        _, action = _UNDO.popitem()
        with suppress(OSError):
            action()


atexit.register(undo_all)  # for a notebook, where an interrupt may have come inside ``finally``
