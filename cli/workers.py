"""Worker processes that end with the program and take only their own item with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from traceback import format_exc
from typing import Any, Generic, TypeVar

from coblend.core.errors import ResourceError
from coblend.io.cleanup import undone

T = TypeVar("T")
R = TypeVar("R")


def map_parallel(
    function: Callable[[T], R],
    items: Iterable[T],
    jobs: int,
    lost: Callable[[T], R] | None = None,
) -> Iterator[R]:
    """Apply a picklable function to items in processes, results in the order of the items.

    Parameters
    ----------
    function : callable
    items : iterable
        At most four per process wait at any time.
    jobs : int
        Number of processes.
    lost : callable, optional
        What stands for the result of an item that kills its process twice, the second time while
        no other is at work; default: an error.

    Raises
    ------
    ResourceError
        A process died (out of memory, killed).
    """
    resource_tracker.ensure_running()  # its start would let the first worker hear Ctrl-C
    workers = _Workers(function)
    waiting: deque[tuple[T, Future[R]]] = deque()

    def take() -> R:
        item, future = waiting.popleft()
        with suppress(_LostError):
            return future.result()
        wait([other for _, other in waiting])
        try:
            return workers.apply(item)
        except _LostError as error:
            if lost is None:
                hint = "out of memory? use fewer --jobs"
                raise ResourceError("a worker process died", hint=hint) from error
        return lost(item)

    with ThreadPoolExecutor(jobs) as threads, undone(workers.end):
        try:
            for item in items:
                waiting.append((item, threads.submit(workers.apply, item)))
                if len(waiting) >= 4 * jobs:
                    yield take()
            while waiting:
                yield take()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


class _LostError(Exception):
    """The process that worked on an item is no more."""


class _Workers(Generic[T, R]):
    """Processes, started when no idle one is left."""

    def __init__(self, function: Callable[[T], R]) -> None:
        self._function = function
        self._all: list[_Worker] = []
        self._idle: deque[_Worker] = deque()
        self._ended = False

    def apply(self, item: T) -> R:
        """Apply the function in some process; threads call this at the same time."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker()
            self._all.append(worker)
            if self._ended:
                raise _LostError from None
            worker.start(self._function)
        good, value = worker.call(item)
        self._idle.append(worker)
        if not good:
            raise value
        result: R = value
        return result

    def end(self) -> None:
        """End all processes, also those at work, and start no more."""
        self._ended = True
        for worker in self._all:
            worker.end()


class _Worker:
    """One process, and this end of the pipe to it.

    It leaves Ctrl-C to the program, and ends when the program is no more.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs,), daemon=True)

    def start(self, function: Callable[[Any], Any]) -> None:
        """Start the process and tell it what to do."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._theirs.close()
        self.call(function)

    def call(self, item: Any) -> tuple[bool, Any]:
        """Whether all is well, and the result of an item or the exception that it raised."""
        try:
            self._pipe.send(item)
            answer: tuple[bool, Any] = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise _LostError from error
        return answer

    def end(self) -> None:
        """End the process."""
        if self._process.pid is not None:
            self._process.kill()


def _serve(pipe: Connection) -> None:
    """Answer items until the pipe is closed, or the program is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):
        function = pipe.recv()
        pipe.send((True, None))
        while True:
            item = pipe.recv()
            try:
                answer = (True, function(item))
            except Exception as error:
                error.add_note(format_exc())  # shown by -vv
                answer = (False, error)
            pipe.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
