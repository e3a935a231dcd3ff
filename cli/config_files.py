"""``coblend config``: a configuration file to begin with, and whether one is right."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from coblend.cli.command import command, option_help
from coblend.cli.config import config_files as files_of_all
from coblend.cli.config import file_value, flag, resolve, toml_of
from coblend.cli.main import COMMANDS, program
from coblend.cli.report import emit
from coblend.cli.run import Run
from coblend.cli.toml_files import check_section, nearest, parse_file
from coblend.core.errors import ConfigError, ParameterError
from coblend.core.params.common import CommonParams, NoParams
from coblend.core.params.field import options_of

_WIDTH = 97
_SHOWN = 4
"""Most problems on the screen; all are in --json."""


@command(
    "config",
    NoParams,
    writes=False,
    looks=True,
    examples=(
        "coblend config init > coblend.toml",
        "coblend config init deblend detect > coblend.toml",
        "coblend config check coblend.toml",
    ),
)
@click.argument("action", metavar="init|check", type=click.Choice(["init", "check"]))
@click.argument("names", metavar="[COMMAND...|FILE...]", nargs=-1)
def config_files(run: Run, params: NoParams, action: str, names: tuple[str, ...]) -> None:
    """Write or check a configuration file.

    init prints all options of the COMMANDs (default: of all commands) with what they do and
    their defaults, each switched off by a #. check reads FILEs and names every wrong line with
    the nearest valid name, and options that do not fit together, those of earlier FILEs
    included; exit code 78 if there is any.
    """
    if action == "init":
        emit(template(names))
        return
    if not names:
        raise ParameterError("config check: no FILE given")
    found = [(path, error) for path in names for error in problems(path)]
    if not found:
        found = [(path, e) for i, path in enumerate(names) for e in conflicts(names[: i + 1])]
    bad = {path for path, _ in found}
    rows = [{"file": path, "status": "wrong" if path in bad else "ok"} for path in names]
    run.report({"n_file": len(names), "problems": [str(error) for _, error in found]}, rows)
    if found:
        run.finish()
        raise _all_of([error for _, error in found])


def template(names: Sequence[str] = ()) -> str:
    """Write a configuration file with all options of some commands, or of all, switched off.

    Raises
    ------
    ParameterError
        A name is no command.
    """
    classes = params_classes()
    for name in names:
        if name not in classes:
            raise ParameterError(f"no command {name!r}", hint=nearest(name, list(classes)))
    lines = ["# Options of coblend and their defaults. Take the # off the lines that you change."]
    for section in ("common", *(names or COMMANDS)):
        specs = options_of(classes[section])
        if specs:
            lines += ["", f"[{section}]"]
        for spec in specs:
            text = option_help(spec)
            choices = spec.metadata["choices"]
            text += f" One of {', '.join(choices)}." if choices else ""
            value = '"none"' if spec.default is None else toml_of(spec.default)
            lines += textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"#{flag(spec.name)} = {value}")
    return "\n".join(lines)


def problems(path: str) -> list[ConfigError]:
    """Everything that is wrong with a configuration file."""
    classes = params_classes()
    found: list[ConfigError] = []
    with _collected(found):
        content = parse_file(path)
        for section, table in content.items():
            with _collected(found):
                check_section(path, section, table)
                for key in table:
                    with _collected(found):
                        file_value(path, classes[section], section, key, table)
    return found


def conflicts(files: Sequence[str]) -> list[ConfigError]:
    """Options of the last file that do not fit together, or to those of the files before it."""
    from coblend.cli.chain import check_options

    classes, content = params_classes(), parse_file(files[-1])
    everything = files_of_all(files)
    found: list[ConfigError] = []
    for section in sorted(content, key="run".__eq__):  # the chain last: it looks at the others
        try:
            options = resolve(classes[section], section, given={}, files=everything)
            if section == "run" and not found:
                check_options(options.params, everything)
        except ParameterError as error:
            found.append(ConfigError(f"[{section}] {error.message}", files[-1], hint=error.hint))
    return found


def params_classes() -> dict[str, type]:
    """Params class of every section: ``common`` and the commands."""
    context = click.Context(program)
    commands: dict[str, Any] = {name: program.get_command(context, name) for name in COMMANDS}
    return {"common": CommonParams, **{n: c.params_class for n, c in commands.items()}}


@contextmanager
def _collected(found: list[ConfigError]) -> Iterator[None]:
    """Keep an error instead of stopping at it."""
    try:
        yield
    except ConfigError as error:
        found.append(error)


def _all_of(found: Sequence[ConfigError]) -> ConfigError:
    """One error that names the first few."""
    first = found[0]
    if len(found) == 1:
        return first
    others = [f"{error.path}: {error.message}" for error in found[1:_SHOWN]]
    more = f"and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    hint = "\n  ".join(filter(None, [first.hint, *others, more]))
    return ConfigError(first.message, first.path, hint=hint)
