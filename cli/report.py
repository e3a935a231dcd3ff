"""What the user sees: log lines and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from coblend.core.errors import OutputError
from coblend.io.cleanup import undone

log = logging.getLogger("coblend")

_SHOW_CURSOR = b"\x1b[?25h"
_LOG_EVERY = 60.0  # seconds between progress lines where there is no terminal


class _Formatter(logging.Formatter):
    """``coblend: warning: text`` at the default level, with the time when verbose."""

    def __init__(self, timed: bool) -> None:
        super().__init__("%(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        level = record.levelname
        if self._timed:
            return f"{self.formatTime(record, self.datefmt)} {level:<7} {text}"
        return f"coblend: {level.lower()}: {text}" if level != "INFO" else f"coblend: {text}"


class _Once(logging.Filter):
    """Of warnings that say the same of many files, marked ``extra={"once": True}``, the first."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[object] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "once", False):
            return True
        _, *what = record.args or ("",)  # the first is the file
        key = record.msg, *what
        new = key not in self._said
        self._said.add(key)
        return new


def setup_logging(verbosity: int, log_file: str | None) -> None:
    """Send log lines to stderr, and to a file if asked.

    Parameters
    ----------
    verbosity : int
        Number of ``-v`` minus number of ``-q``: below 0 errors only, 0 warnings, 1 information,
        2 everything.
    log_file : str, optional
        File to append to; gets everything from INFO on.

    Raises
    ------
    OutputError
        The log file cannot be written to.
    """
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    stream = logging.StreamHandler(sys.stderr)
    stream.setLevel(level.get(max(verbosity, -1), logging.DEBUG))
    stream.setFormatter(_Formatter(timed=verbosity >= 1))
    if verbosity < 1:
        stream.addFilter(_Once())
    log.addHandler(stream)
    if log_file:
        _refuse_fits(log_file)
        try:
            file = logging.FileHandler(log_file, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot be appended to: {error.strerror}", log_file) from error
        file.setLevel(logging.DEBUG if verbosity >= 2 else logging.INFO)
        file.setFormatter(_Formatter(timed=True))
        log.addHandler(file)
    log.setLevel(logging.DEBUG)
    log.propagate = False


def _refuse_fits(path: str) -> None:
    """Refuse to append to what is no log: an image named by mistake."""
    with suppress(OSError), open(path, "rb") as stream:
        if stream.read(9) == b"SIMPLE  =":
            raise OutputError("is a FITS file, expected a log file", path)


def on_terminal() -> bool:
    """Whether stderr is a terminal that understands cursor movement."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(text: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show progress; yields ``advance(n)``.

    A bar on a terminal; elsewhere one log line (INFO) a minute and nothing on the screen.
    """
    if on_terminal() and not quiet and total > 1:
        from rich.console import Console
        from rich.progress import Progress

        shown = undone(lambda: os.write(2, _SHOW_CURSOR))
        with shown, Progress(console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(text, total=total)

            def step(n: int = 1) -> None:
                bar.advance(task, n)

            yield step
        return
    done = 0
    last = time.monotonic()

    def advance(n: int = 1) -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last > _LOG_EVERY:
            last = time.monotonic()
            log.info("%s: %d of %d", text, done, total)

    yield advance


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Print rows as a table on stdout: drawn on a terminal, plain aligned text in a pipe."""
    if not rows:
        return
    columns = list(rows[0])
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns, title=title or None)
        for line in cells:
            table.add_row(*line)
        Console().print(table)
        return
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    for line in [columns, *cells]:
        padded = (text.ljust(w) for text, w in zip(line, widths, strict=True))
        emit("  ".join(padded).rstrip())


def print_json(summary: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    emit(json.dumps(summary, default=_jsonable))


def emit(text: str) -> None:
    """Write one line to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _jsonable(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
