"""``coblend run``: the chain from warps to footprints, for many patches."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import click

from coblend.cli.command import command
from coblend.cli.config import config_files, flag, resolve
from coblend.cli.report import emit
from coblend.cli.run import Run, recorded_options
from coblend.core.errors import CoblendError, InputMissingError, ParameterError
from coblend.core.params.common import CommonParams
from coblend.core.params.run import RunParams

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_PARTIAL = 3
_SIGNALS = (130, 141)
_REFERENCE = 'for example reference = "moffat:fwhm=5.2,beta=3" in [psf-match]'


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the chain.

    Parameters
    ----------
    command : str
    inputs : tuple of str
        File arguments in order.
    output : str
    products : mapping of str to str
        Options that name further outputs; ``{band}`` stands for each band.
    """

    command: str
    inputs: tuple[str, ...]
    output: str
    products: Mapping[str, str] = field(default_factory=dict)

    def outputs(self, bands: Sequence[str]) -> list[str]:
        """Everything that the step makes."""
        names = [t.replace("{band}", band) for t in self.products.values() for band in bands]
        return [self.output, *names]


@command(
    "run",
    RunParams,
    writes=False,
    examples=(
        "coblend run tract.toml",
        "coblend run tract.toml --patches 40,41 -j 4",
        "coblend run tract.toml --dry-run",
    ),
)
@click.argument("tract", metavar="TRACT.toml")
def chain(run: Run, params: RunParams, tract: str) -> None:
    """Make everything from warps to footprints for all patches and bands of TRACT.toml.

    TRACT.toml is a configuration file: its section [run] says where the warps are and where the
    results go, the other sections hold the options of the commands (coblend config init writes
    them all). A step whose output exists and was made from the same inputs with the same
    options is skipped, so the same command goes on where it was interrupted. A failure ends the
    work on its patch only; the exit code is that of the first. --dry-run prints the commands
    that would be run.
    """
    patches = patches_of(params)
    steps = _Chain(run, params, tract)
    rows = [steps.patch(patch) for patch in patches]
    codes = [row["exit"] for row in rows if row["exit"]]
    if not run.dry_run:
        silent = run.quiet and not codes  # so that cron writes only when something is wrong
        run.report({"n_patch": len(rows), "n_failed": len(codes)}, () if silent else rows)
    if codes:
        code = min(codes, key=lambda code: code == _PARTIAL)
        run.finish(code)
        raise click.exceptions.Exit(code)


def patches_of(params: RunParams) -> list[str]:
    """Names of the patches, ranges expanded; one without a name if there are none.

    Raises
    ------
    ParameterError
        The options do not fit together.
    """
    if not params.bands:
        raise ParameterError("no bands", hint="give --bands i,r,g, or bands in [run]")
    if len(params.bands) > 1 and "{band}" not in params.warps:
        raise ParameterError(f"warps is {params.warps!r}; with several bands it needs {{band}}")
    patches: list[str] = []
    for name in params.patches:
        match = _RANGE.fullmatch(name)
        numbers = range(int(match[1]), int(match[2]) + 1) if match else ()
        patches += map(str, numbers) if match else [name]
    for key in ("warps", "folder"):
        template = getattr(params, key)
        if not patches and "{patch}" in template:
            raise ParameterError(f"no patches, but {key} is {template!r}")
        if len(patches) > 1 and "{patch}" not in template:
            raise ParameterError(f"{key} is {template!r}; with several patches it needs {{patch}}")
    return patches or [""]


def warps_of(params: RunParams, patch: str, band: str) -> tuple[str, ...]:
    """Warps of one band of one patch, sorted.

    Raises
    ------
    InputMissingError
        There are none.
    """
    pattern = params.warps
    for key, value in (("{patch}", patch), ("{band}", band)):
        pattern = pattern.replace(key, glob.escape(value))
    found = sorted(glob.glob(pattern))
    if not found:
        raise InputMissingError("no such files", pattern)
    return tuple(found)


def check_options(params: RunParams, files: Sequence[str]) -> None:
    """Refuse at the start what a later step would refuse: options that do not fit together.

    Parameters
    ----------
    params : RunParams
    files : sequence of str
        TOML files, later ones win.

    Raises
    ------
    ParameterError, ConfigError
    """
    from coblend.cli.config_files import params_classes

    classes = params_classes()
    for name in params.commands:
        options = resolve(classes[name], name, given={}, files=files).params
        if name == "psf-match":
            options.require_reference(_REFERENCE)


def steps_of(params: RunParams, patch: str) -> Iterator[Step]:
    """Commands that make everything of one patch, in order."""
    folder = params.folder.replace("{patch}", patch)

    def name(stem: str, band: str = "") -> str:
        return os.path.join(folder, f"{stem}_{band}.fits" if band else f"{stem}.fits")

    for band in params.bands:
        coadd = name("coadd", band)
        yield Step("assemble-coadd", warps_of(params, patch, band), coadd)
        if params.has_matched:
            yield Step("psf-match", (coadd,), name("matched", band))
        yield Step("detect", (name(params.detect_on, band),), name("det", band))
    coadds = tuple(name("coadd", band) for band in params.bands)
    detections = tuple(name("det", band) for band in params.bands)
    yield Step("merge-detections", detections, name("merged"))
    yield Step("deblend", (name("merged"), *coadds), name("deblended"))
    products = {k: name(k, "{band}") for k in params.products if k != "matched"}
    yield Step(
        "reconstruct-footprints", (name("deblended"), *coadds), name("footprints"), products
    )


class _Chain:
    """Does the steps of one patch after the other.

    Parameters
    ----------
    run : Run
    params : RunParams
    tract : str
        Configuration file of everything.
    """

    def __init__(self, run: Run, params: RunParams, tract: str) -> None:
        from coblend.cli.config_files import params_classes, problems

        given = click.get_current_context().params
        files = [*given["config"], tract]
        wrong = problems(tract)
        if wrong:
            raise wrong[0]
        self.run, self.params = run, params
        self.classes = params_classes()
        self.files = config_files(files)
        check_options(params, self.files)
        self.assignments = [
            f"{key}={value}" for key, value, source in run.common.rows()
            if source == "command line" and key != "overwrite"
        ]  # fmt: skip
        self.flags = [word for file in files for word in ("--config", file)]
        self.flags += [word for text in self.assignments for word in ("--set", text)]
        self.flags += ["-v"] * given["verbose"] + ["-q"] * given["quiet"]
        if given["log_file"]:
            self.flags += ["--log-file", given["log_file"]]

    def patch(self, patch: str) -> dict[str, Any]:
        """Do what is to be done for a patch; returns its row of the summary."""
        row: dict[str, Any] = {"patch": patch, "made": 0, "current": 0, "failed": "", "exit": 0}
        made: set[str] = set()
        try:
            for step in steps_of(self.params, patch):
                reason = self.why(step, made)
                if reason is None:
                    row["current"] += 1
                    continue
                code = self.do(step, reason)
                row["exit"] = row["exit"] or code
                if code not in (0, _PARTIAL):
                    return {**row, "failed": step.command, "exit": code}
                made.update(step.outputs(self.params.bands))
                row["made"] += 1
        except CoblendError as error:
            click.echo(f"coblend: {error}", err=True)
            return {**row, "failed": "inputs", "exit": error.exit_code}
        return row

    def why(self, step: Step, made: set[str]) -> str | None:
        """Why a step has to be done; None if all that it makes is there and up to date."""
        from coblend.io.fits.made import why_stale
        from coblend.io.fits.specs import parse_spec
        from coblend.io.psf.given import psf_files

        if self.run.dry_run and (again := made.intersection(step.inputs)):
            return f"{min(again)} is made again"
        cls = self.classes[step.command]
        options = resolve(cls, step.command, given=step.products, files=self.files)
        common = resolve(
            CommonParams, step.command, given={}, assignments=self.assignments, files=self.files
        )
        recorded = {key: value for key, value, _ in recorded_options(options, common)}
        values = [value for _, value, _ in options.rows() if value]
        named = [*(parse_spec(value).path for value in values), *psf_files(values)]
        named = [path for path in named if os.path.isfile(path)]
        for path in step.outputs(self.params.bands):
            reason = why_stale(path, step.command, recorded, step.inputs, named)
            if reason is not None:
                return f"{path} {reason}"
        return None

    def do(self, step: Step, reason: str) -> int:
        """Run the command of a step, or print it; returns its exit code."""
        from coblend.cli import main
        from coblend.io.fits.made import read_made

        words = [step.command, *step.inputs, "-o", step.output]
        for key, value in step.products.items():
            words += [f"--{flag(key)}", value]
        words += self.flags
        old = [path for path in step.outputs(self.params.bands) if os.path.exists(path)]
        ours = all((made := read_made(path)) and made.command == step.command for path in old)
        if old and (ours or self.run.overwrite):  # what others made is not replaced
            words.append("--overwrite")
        if self.run.dry_run:
            emit(f"{shlex.join(['coblend', *words])}  # {reason}")
            return 0
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            code = main.run(words)
        if code in _SIGNALS:
            raise click.exceptions.Exit(code)
        return code
