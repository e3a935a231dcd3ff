"""One run of a command: outputs, inputs, workers and the summary at the end."""

from __future__ import annotations

import logging
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from coblend.cli.config import Resolved, without_folder
from coblend.cli.report import print_json, print_table, progress
from coblend.core.errors import OutputError, ParameterError, PartialFailure, ResourceError
from coblend.core.params.common import CommonParams

if TYPE_CHECKING:
    from coblend.core.exposure import HeaderValue
    from coblend.io.fits.provenance import InputFile
    from coblend.io.fits.specs import FileSpec
    from coblend.io.fits.writer import FitsWriter

log = logging.getLogger("coblend")
T = TypeVar("T")
R = TypeVar("R")

PLACE = re.compile(r"\{(band|name|tract|patch)\}")
"""What names of outputs may leave open."""
_SIZE = re.compile(r"^\s*([0-9.]+)\s*([kMGT]?)(i?)B?\s*$", re.IGNORECASE)


@dataclass
class Run:
    """What a command's callback gets besides its params.

    Parameters
    ----------
    command : str
    output : str
        Path of ``-o``, "" for commands that write nothing.
    common : Resolved
        `CommonParams` with their sources.
    options : Resolved
        The command's params with their sources, for the CONFIG table.
    arguments : tuple of str
        Arguments that remake the output.
    dry_run, quiet, json : bool
    """

    command: str
    output: str
    common: Resolved
    options: Resolved
    arguments: tuple[str, ...] = ()
    dry_run: bool = False
    quiet: bool = False
    json: bool = False
    started: float = field(default_factory=time.monotonic)
    _inputs: list[tuple[str, str]] = field(default_factory=list)
    _described: dict[str, InputFile] = field(default_factory=dict)
    _outputs: list[str] = field(default_factory=list)
    _planned: list[str] = field(default_factory=list)
    _summary: dict[str, Any] = field(default_factory=dict)
    _table: Sequence[Mapping[str, Any]] = ()

    @property
    def _common(self) -> CommonParams:
        params: CommonParams = self.common.params
        return params

    @property
    def overwrite(self) -> bool:
        """Whether existing outputs may be replaced."""
        return self._common.overwrite

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return self._common.seed

    @property
    def jobs(self) -> int:
        """Worker processes, at least 1."""
        if self._common.jobs:
            return self._common.jobs
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1

    @property
    def max_memory(self) -> int:
        """Memory to stay below (byte)."""
        return parse_size(self._common.max_memory)

    def require_memory(self, n_bytes: int, path: str) -> None:
        """Refuse before anything is read what would need more than ``--max-memory``.

        Raises
        ------
        ResourceError
        """
        if n_bytes > self.max_memory:
            raise ResourceError(
                f"needs about {n_bytes / 1e6:.0f} MB, --max-memory is {self._common.max_memory}",
                path,
                hint="raise --max-memory, or work on parts: FILE[X1:X2,Y1:Y2]",
            )

    def add_input(self, role: str, path: str) -> None:
        """Record an input for the PROVENANCE table.

        Raises
        ------
        OutputError
            It is also an output.
        """
        for output in self._planned:
            keep_apart(output, path)
        self._inputs.append((role, path))

    def add_exposure(self, role: str, spec: FileSpec) -> list[str]:
        """Record the files of an exposure as inputs; returns their names."""
        from coblend.io.exposure.exposures import files_of

        names = files_of(spec)
        for name in names:
            self.add_input(role if name == spec.path else "plane", name)
        return names

    def add_psfs(self, texts: Sequence[str]) -> None:
        """Record the files that ``[BAND=]SPEC`` name as inputs."""
        from coblend.io.psf.given import psf_files

        for path in psf_files(texts):
            self.add_input("psf", path)

    def check_output(self, path: str) -> None:
        """Refuse at once an output that could not be written at the end.

        Raises
        ------
        OutputExistsError, OutputError
            It exists, is an input, or its folder cannot be written to.
        ParameterError
            It is another output, too.
        """
        from coblend.io.fits.output import check_output

        if left := PLACE.search(path):
            raise ParameterError(f"output {path!r}: no {left[1]} is filled in there")
        if os.path.realpath(path) in map(os.path.realpath, self._planned):
            raise ParameterError(f"{path} would be written twice")
        check_output(path, overwrite=self.overwrite or self.dry_run)
        for _, name in self._inputs:
            keep_apart(path, name)
        self._planned.append(path)

    def plan(self, template: str, bands: Sequence[str]) -> None:
        """Check further outputs, one per band.

        Raises
        ------
        ParameterError, OutputExistsError, OutputError
            One of them could not be written at the end (`check_output`).
        """
        if len(bands) > 1 and "{band}" not in template:
            raise ParameterError(
                f"{template!r} names one file for {len(bands)} bands",
                hint="write {band} where the band's name belongs",
            )
        for band in bands:
            self.check_output(filled_name(template, band=band))

    def fill_output(self, **values: str) -> None:
        """Put ``values`` in place of their names in braces in the output's name; check it."""
        filled = filled_name(self.output, **values)
        if filled != self.output:  # else it has been checked before the command began
            self.check_output(filled)
        self.output = filled

    @contextmanager
    def create(
        self,
        schema: str,
        *,
        header: Mapping[str, HeaderValue] | None = None,
        path: str | None = None,
        without: Collection[str] = (),
    ) -> Iterator[FitsWriter]:
        """Create the output (or the side product ``path``) with provenance.

        Parameters
        ----------
        schema : str
        header : mapping, optional
            Further primary keywords.
        path : str, optional
        without : collection of str
            Inputs that this output does not depend on.
        """
        from coblend.io.fits.provenance import InputFile, Provenance
        from coblend.io.fits.writer import create

        for role, name in self._inputs:
            if name not in self._described:
                self._described[name] = InputFile.of(role, name)
        provenance = Provenance(
            self.command,
            self.arguments,
            tuple(recorded_options(self.options, self.common)),
            tuple(
                replace(self._described[name], role=role)
                for role, name in self._inputs
                if name not in without
            ),
        )
        target = self.output if path is None else path
        if target in self._outputs:
            raise ParameterError(f"{target} would be written twice")
        for _, name in self._inputs:
            keep_apart(target, name)
        with create(
            target, schema, overwrite=self.overwrite, header=header, provenance=provenance
        ) as out:
            yield out
        self._outputs.append(target)

    @contextmanager
    def create_other(self) -> Iterator[str]:
        """Create an output that is not FITS: yields the temporary path to write to."""
        from coblend.io.fits.output import replacing

        with replacing(self.output, overwrite=self.overwrite) as temporary:
            yield temporary
        self._outputs.append(self.output)

    def progress(self, text: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show progress on a terminal; yields ``advance(n)``."""
        return progress(text, total, quiet=self.quiet)

    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        lost: Callable[[T], R] | None = None,
    ) -> Iterator[R]:
        """Apply a picklable function to items, results in the order of the items.

        At most four items per worker wait at any time, so ``items`` may be a generator of
        cut-outs. With one worker everything runs in this process.

        Parameters
        ----------
        function : callable
        items : iterable
        lost : callable, optional
            What stands for the result of an item that kills its worker twice, the second time
            alone; default: the run ends.

        Raises
        ------
        ResourceError
            A worker died (out of memory, killed).
        """
        if self.jobs == 1:
            yield from map(function, items)
            return
        from coblend.cli.workers import map_parallel

        yield from map_parallel(function, items, self.jobs, lost)

    def report(
        self, summary: Mapping[str, Any], table: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Keep the numbers (and rows) to show when the command has finished."""
        self._summary.update(summary)
        self._table = table or self._table

    def check_failures(self, n_failed: int, n_total: int) -> None:
        """Raise when more blends failed than allowed; call it after the output is complete.

        Raises
        ------
        PartialFailure
        """
        if n_total and n_failed / n_total > self._common.max_failed:
            raise PartialFailure(
                f"{n_failed} of {n_total} blends failed, more than "
                f"max_failed = {self._common.max_failed:g} allows; the output is complete",
                self.output or None,
            )

    def finish(self, code: int = 0) -> None:
        """Show the result: JSON or a table on stdout, one line on stderr.

        ``code`` is what the command will exit with.

        What was made is there and whole: that nobody reads about it is then no error.
        """
        try:
            self._show(code)
        except OSError as error:
            if not self._outputs:
                raise
            if not isinstance(error, BrokenPipeError):
                log.warning("the summary could not be written: %s", error.strerror)

    def _show(self, code: int) -> None:
        if self.json:
            status = {"status": "error", "exit": code} if code else {"status": "ok"}
            print_json(status | self.summary())
            return
        if not (self.quiet and self.output):  # what only shows something is never silent
            print_table(self._table)
        if self._summary and not self.quiet and (self._outputs or self.dry_run):
            shown = {k: v for k, v in self._summary.items() if k != "output" and _short(v)}
            numbers = ", ".join(f"{k} {v}" for k, v in shown.items())
            several = len(self._outputs) > 4
            files = f"{len(self._outputs)} files" if several else ", ".join(self._outputs)
            target = "dry run" if self.dry_run else files
            sys.stderr.write(f"coblend {self.command}: {target}: {numbers}\n")

    def summary(self) -> dict[str, Any]:
        """Everything that ``--json`` prints."""
        from coblend._version import __version__

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        table = {"table": [dict(row) for row in self._table]} if self._table else {}
        return {
            "command": self.command,
            "version": __version__,
            "output": self._outputs[0] if len(self._outputs) == 1 else self._outputs,
            "dry_run": self.dry_run,
            **self._summary,
            **table,
            "seconds": round(time.monotonic() - self.started, 3),
            "peak_rss_mib": peak // unit,
        }


def recorded_options(options: Resolved, common: Resolved) -> list[tuple[str, str, str]]:
    """Key, value and source of all options that can change a result, as files record them."""
    seed = [row for row in common.rows() if row[0] == "seed"]
    return [*((k, without_folder(v), source) for k, v, source in options.rows()), *seed]


def parse_size(text: str) -> int:
    """Read a size such as ``800MB``, ``4GiB`` or ``2G`` (byte).

    Raises
    ------
    ParameterError
    """
    match = _SIZE.match(text)
    if match is None:
        raise ParameterError(f"max_memory: {text!r} is not a size such as 800MB or 4GiB")
    number, prefix, binary = match.groups()
    power = " kmgt".index(prefix.lower()) if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def filled_name(template: str, **values: str) -> str:
    """Put ``values`` in place of their names in braces.

    Raises
    ------
    ParameterError
        One of them has no value.
    """
    for name, value in values.items():
        place = f"{{{name}}}"
        if place in template and not value:
            raise ParameterError(
                f"output {template!r}: the {name} is not known",
                hint="pass it as BAND=FILE" if name == "band" else "",
            )
        template = template.replace(place, value)
    return template


def keep_apart(output: str, path: str) -> None:
    """Refuse an output that is an input, too.

    Raises
    ------
    OutputError
    """
    exist = output and os.path.exists(output) and os.path.exists(path)
    if exist and os.path.samefile(output, path):
        raise OutputError("is also an input; choose another output", output)


def _short(value: Any) -> bool:
    return isinstance(value, int | float | str) and len(str(value)) < 40
