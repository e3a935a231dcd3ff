"""What can go wrong, and the exit code of each cause.

Raise the class that names the cause, with the file, the HDU or column, what was found and what
was expected. Constructor and ``args`` agree, so every error survives pickling between worker
processes.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class CoblendError(Exception):
    """Root of all errors that a user can cause or meet.

    Parameters
    ----------
    message : str
        What was found and what was expected, in one line.
    path : str, optional
        The file concerned.
    hdu : str, optional
        The HDU, table column or row concerned.
    hint : str, optional
        What to do about it; printed on its own line.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        path: str | None = None,
        hdu: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, path, hdu, hint)
        self.message = message
        self.path = None if path is None else str(path)
        self.hdu = hdu
        self.hint = hint

    def __str__(self) -> str:
        where = self.path or ""
        if self.hdu:
            where += f"[{self.hdu}]"
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class ParameterError(CoblendError, ValueError):
    """An option or argument has a value that is not allowed."""

    exit_code = 2


class PartialFailure(CoblendError):  # noqa: N818 - the work finished, the output is valid
    """More blends failed than ``max_failed`` allows; the output is complete and valid."""

    exit_code = 3


class FormatError(CoblendError, ValueError):
    """The input exists but cannot be used."""

    exit_code = 65


class MissingHduError(FormatError):
    """A required HDU or column is absent."""


class ShapeMismatchError(FormatError):
    """Planes or exposures that must share a shape do not."""


class WcsMismatchError(FormatError):
    """Exposures that must share a pixel grid do not."""


class SchemaError(FormatError):
    """The file is of another kind, or of a newer schema than this program knows."""


class CorruptFileError(FormatError):
    """The file is truncated or damaged."""


class FitError(CoblendError):
    """A blend cannot be fitted; ``message`` is the reason that the column ``error`` holds."""

    exit_code = 65


class InputMissingError(CoblendError, FileNotFoundError):
    """The input does not exist or cannot be read."""

    exit_code = 66


class MissingExtraError(CoblendError, ImportError):
    """An optional package is not installed."""

    exit_code = 69


class OutputError(CoblendError):
    """The output cannot be created."""

    exit_code = 73


class OutputExistsError(OutputError, FileExistsError):
    """The output exists and may not be replaced."""


class DiskError(CoblendError, OSError):
    """Reading or writing failed midway."""

    exit_code = 74


class ResourceError(CoblendError):
    """Out of memory or time, or a lock is held: try again later."""

    exit_code = 75


class ConfigError(CoblendError, ValueError):
    """A configuration file is wrong."""

    exit_code = 78


@contextmanager
def concerning(path: str, hdu: str | None = None) -> Iterator[None]:
    """Name a file, and an HDU, in the errors of a block that name no file."""
    try:
        yield
    except CoblendError as error:
        if error.path is not None:
            raise
        raise type(error)(error.message, path, error.hdu or hdu, error.hint) from error
