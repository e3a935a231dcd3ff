"""The ``coblend`` program: subcommands loaded on use, and the one place where errors end.

Importing this module imports neither numpy nor any FITS library, so ``coblend --help`` is quick.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

from coblend._version import __version__
from coblend.core.errors import CoblendError, DiskError, ResourceError
from coblend.io.cleanup import undo_all

COMMANDS = {
    "simulate": "Make a small multi-epoch, multi-band sky with known truth.",
    "warp": "Resample exposures onto a common pixel grid.",
    "assemble-coadd": "Combine warps into one deeper exposure.",
    "psf-match": "Convolve an exposure so that it has a given PSF.",
    "detect": "Find footprints and peaks in one exposure.",
    "merge-detections": "Merge detections of several bands into parents.",
    "deblend": "Fit every blend in all bands at once.",
    "reconstruct-footprints": "Share the image's flux among the deblended objects.",
    "clean": "Cut out every object without its neighbours.",
    "refit": "Fit some blends again, with sources added or dropped.",
    "run": "Do all steps for many bands and patches.",
    "show": "Draw pictures of images, detections, blends and PSFs.",
    "info": "Show what a file holds and what made it.",
    "verify": "Check files: structure, checksums, damaged blends.",
    "config": "Write or check a file of options.",
}
"""Subcommands in the order in which they are used, and what each does."""

_MODULES = {"config": "config_files", "run": "chain"}
"""Where a command is whose name a module of the program itself has."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_CLOSED_PIPE = 141
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the subcommands in order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module = _MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        loaded: click.Command = getattr(import_module(f"coblend.cli.{module}"), module)
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand, or say which name is near."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = get_close_matches(name, COMMANDS, 1, 0.5)
            ctx.fail(f"no command {name!r}" + (f": did you mean {close[0]}?" if close else ""))
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments of the program; ``--help`` prints here."""
        with _pipe_may_close():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _pipe_may_close():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each step reads and writes plain FITS files: see coblend COMMAND --help.",
)
@click.version_option(__version__, "-V", "--version", message="coblend %(version)s")
@click.option("-v", "--verbose", count=True, help="More messages (-vv: all).")
@click.option("-q", "--quiet", count=True, help="Errors only.")
@click.pass_context
def program(ctx: click.Context, verbose: int, quiet: int) -> None:
    """Coadd, PSF-match, detect, merge, deblend and reconstruct on plain FITS files."""
    ctx.meta["coblend.verbosity"] = verbose - quiet


def main(args: Sequence[str] | None = None, prog_name: str = "coblend") -> NoReturn:
    """Run the program and exit with the documented code."""
    for variable in _THREAD_VARIABLES:  # before numpy loads; workers inherit it
        os.environ.setdefault(variable, "1")
    if not os.environ.get("SOURCE_DATE_EPOCH", "0").isdigit():
        del os.environ["SOURCE_DATE_EPOCH"]  # numpy reads it, too, and expects a number
    _open_standard_streams()
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and shells in the background
            signal.signal(number, _end)
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    sys.exit(run(arguments, prog_name))


def run(arguments: Sequence[str], prog_name: str = "coblend") -> int:
    """Run the program; all errors end here.

    Returns
    -------
    int
        Exit code: 0 done, 1 a bug, 2 usage, 3 and 65 to 78 as `coblend.core.errors`, 129, 130
        and 143 signals, 141 closed pipe.
    """
    try:
        code = program.main(list(arguments), prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        page = context.command_path if context else prog_name
        text = error.format_message().rstrip(".")
        return _report(2, f"{text}\n  see {page} --help", arguments)
    except (click.Abort, KeyboardInterrupt):
        return _report(130, "interrupted", arguments)
    except CoblendError as error:
        return _report(error.exit_code, str(error), arguments)
    except MemoryError:
        hint = "lower --jobs or --max-memory"
        return _report(ResourceError.exit_code, f"out of memory\n  {hint}", arguments)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            where = error.filename or "standard output"
            return _report(DiskError.exit_code, f"{where}: disk full", arguments)
        return _report(1, _bug(error), arguments)


def _end(number: int, _: Any) -> NoReturn:
    """Undo what is half made, and end at once, whatever the program is doing."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    undo_all()
    with suppress(OSError):
        os.write(2, b"coblend: interrupted\n")
    os._exit(128 + number)


def _open_standard_streams() -> None:
    """Give a closed standard stream (daemons have them) to nobody, not to the next file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


@contextmanager
def _pipe_may_close() -> Iterator[None]:
    """Exit with 141 when nobody reads standard output; click would make 1 of it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise click.exceptions.Exit(_CLOSED_PIPE) from None


def _bug(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).splitlines()[0] if str(error) else ""
    return (
        f"internal error: {type(error).__name__}: {text}\n"
        f"  at {os.path.basename(last.filename)}:{last.lineno} in coblend {__version__}\n"
        "  this is a bug: please report it with the output of the same command and -vv"
    )


def _report(code: int, message: str, arguments: Sequence[str]) -> int:
    if "-vv" in arguments and sys.exc_info()[0] is not None:
        traceback.print_exc()
    click.echo(f"coblend: {message}", err=True)
    if "--json" in arguments:
        with suppress(OSError):  # standard output may be what failed
            click.echo(json.dumps({"status": "error", "exit": code, "message": message}))
    return code
