"""From a params dataclass and a callback to a click command."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import Field
from typing import Any, get_type_hints

import click

from coblend.cli.config import (
    check_assignments,
    check_environment,
    config_files,
    dump,
    flag,
    resolve,
    text_of,
    without_folder,
)
from coblend.cli.report import emit, setup_logging
from coblend.cli.run import PLACE, Run, keep_apart, parse_size
from coblend.core.errors import ParameterError
from coblend.core.params.common import CommonParams
from coblend.core.params.field import options_of, span

_HIDDEN_ARGUMENTS = ("-o", "--output", "-j", "--jobs", "--log-file", "--max-memory")
_HIDDEN_FLAGS = ("--overwrite", "--no-overwrite", "--json", "--verbose", "--quiet")


_EXPOSURES = frozenset({"exposure", "exposures", "coadds"})
"""Arguments that name exposures on disk."""
_LONGEST_CHOICES = 30
"""Longer lists of choices stand in the help text, where they can be wrapped."""


class Command(click.Command):
    """A click command that knows its params class, examples and which options all share."""

    def __init__(
        self,
        *args: Any,
        params_class: type,
        examples: Sequence[str] = (),
        common: Sequence[click.Option] = (),
        partial: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.params += common
        self.params_class = params_class
        self.examples = tuple(examples)
        self.common = tuple(common)
        self.partial = partial

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; ``--dump-config`` needs neither inputs nor an output."""
        ctx.meta["coblend.args"] = list(args)
        required = [p for p in self.params if p.required]
        if "--dump-config" not in args:
            return super().parse_args(ctx, args)
        try:
            for parameter in required:
                parameter.required = False
            return super().parse_args(ctx, args)
        finally:
            for parameter in required:
                parameter.required = True

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the command's own options, then those that all commands have."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        common = [p for p in options if p in self.common or p.name == "help"]
        own = [p for p in options if p not in common]
        for title, group in (("Options", own), ("Common options", common)):
            rows = [row for p in group if (row := p.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the examples, to be pasted into a shell, and where the other options are."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(_wrapped(example, formatter.width))
        formatter.write_paragraph()
        more = any(option.name == "help_all" for option in self.common)
        partial = {3: "too many failed blends"} if self.partial else {}
        codes = {0: "done", 2: "usage", **partial, 65: "unusable input", 66: "missing input"}
        if more:
            codes |= {73: "output exists", 74: "disk", 75: "try again", 78: "configuration"}
        listed = ", ".join(f"{code} {text}" for code, text in codes.items())
        formatter.write_text(
            (f"All options: {ctx.command_path} --help-all. " if more else "")
            + f"Exit codes: {listed}."
        )


def command(
    name: str,
    params_class: type,
    *,
    examples: Sequence[str] = (),
    writes: bool = True,
    looks: bool = False,
    partial: bool = False,
    fills: Collection[str] = (),
) -> Callable[[Callable[..., None]], Command]:
    """Make a click command of ``callback(run, params, **arguments)``.

    Parameters
    ----------
    name : str
        Subcommand.
    params_class : type
        Params dataclass; its options are flags, of which the help page lists those marked
        ``shown``, and all are reached by ``--set``, TOML and the environment.
    examples : sequence of str
        Command lines for the help page.
    writes : bool
        Whether the command has ``-o/--output``.
    looks : bool
        Whether it only looks at files: it then has no options of runs that make something.
    partial : bool
        Whether it may finish although blends failed, with exit code 3.
    fills : collection of str
        What it puts in place of its name in braces in the output's name: ``band``, ``name``.
    """

    def decorate(callback: Callable[..., None]) -> Command:
        arguments = list(reversed(getattr(callback, "__click_params__", [])))
        own = _output_options(params_class, writes, fills)
        own += [_flag_option(s, get_type_hints(params_class)) for s in options_of(params_class)]
        if any(argument.name in _EXPOSURES for argument in arguments):
            own.append(_section_option())

        def invoke(**values: Any) -> None:
            _execute(name, params_class, callback, frozenset(fills), values)

        return Command(
            name,
            callback=invoke,
            params=[*arguments, *own],
            help=callback.__doc__,
            params_class=params_class,
            examples=examples,
            common=_report_options() if looks else [*_run_options(), *_report_options()],
            partial=partial,
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    return decorate


def _execute(
    name: str,
    cls: type,
    callback: Callable[..., None],
    fills: frozenset[str],
    values: dict[str, Any],
) -> None:
    context = click.get_current_context()
    verbosity = values.pop("verbose") - values.pop("quiet")
    verbosity += context.meta.get("coblend.verbosity", 0)
    setup_logging(verbosity, values.pop("log_file"))
    shared = {s.name: values.pop(s.name, None) for s in options_of(CommonParams)}
    own = {s.name: values.pop(s.name) for s in options_of(cls)}
    assignments = values.pop("set", ())
    tract = values.get("tract")  # the argument of run, itself a configuration file
    files = config_files([*values.pop("config", ()), *([tract] if tract else [])])
    preset = values.pop("preset", None)
    check_assignments((cls, CommonParams), assignments)
    check_environment(name, cls)
    common = resolve(CommonParams, name, given=shared, assignments=assignments, files=files)
    options = resolve(cls, name, given=own, assignments=assignments, files=files, preset=preset)
    parse_size(common.params.max_memory)
    if values.pop("dump_config", False):
        emit(dump({"common": common, name: options}))
        return
    output = values.pop("output", None) or ""
    run = Run(
        name,
        output,
        common,
        options,
        arguments=_remake(context.meta["coblend.args"], output),
        dry_run=values.pop("dry_run", False),
        quiet=verbosity < 0,
        json=values.pop("json"),
    )
    for path in [*files, *_lists(values)]:
        keep_apart(output, path)
    _cut_exposures(values)
    with _reserved(run, fills):
        callback(run, options.params, **values)
    run.finish()


def _lists(values: Mapping[str, Any]) -> Iterator[str]:
    """Files of arguments ``@FILE``."""
    for value in values.values():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and text.startswith("@"):
                yield text[1:]


def psf_option(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--psf [BAND=]SPEC``, any number of times, as argument ``psfs``."""
    return click.option("--psf", "psfs", multiple=True, metavar="[BAND=]SPEC", help=text)


def _section_option() -> click.Option:
    return click.Option(
        ["--section"], metavar="X1:X2,Y1:Y2",
        help="Part to read of every exposure: FITS pixels, from 1, both ends included.",
    )  # fmt: skip


def _cut_exposures(values: dict[str, Any]) -> None:
    """Append ``--section`` to the arguments that name exposures."""
    section = values.pop("section", None)
    if section is None:
        return
    from coblend.io.fits.specs import expand_lists, parse_section

    parse_section(section)
    for name in _EXPOSURES & values.keys():
        given = values[name]
        if isinstance(given, str):
            values[name] = f"{given}[{section}]"
        else:
            values[name] = tuple(f"{text}[{section}]" for text in expand_lists(given))


@contextmanager
def _reserved(run: Run, fills: frozenset[str]) -> Iterator[None]:
    """Refuse at once what could not be written at the end, and keep other writers away."""
    unknown = set(PLACE.findall(run.output)) - fills
    if unknown:
        raise ParameterError(
            f"output {run.output!r}: this command has no {min(unknown)} to put there"
        )
    if not run.output or PLACE.search(run.output):
        yield
        return
    from coblend.io.fits.lock import exclusive

    run.check_output(run.output)
    with exclusive(run.output) if not run.dry_run else nullcontext():
        yield


def _flag_option(spec: Field[Any], hints: Mapping[str, Any]) -> click.Option:
    """Flag of one option; absent means None, so that the source of a value stays known."""
    names, hidden = [f"--{flag(spec.name)}"], not spec.metadata["shown"]
    if spec.name == "jobs":
        names.insert(0, "-j")
    if hints[spec.name] is bool:
        names[-1] += f"/--no-{flag(spec.name)}"
        return click.Option(names, default=None, help=option_help(spec), hidden=hidden)
    metavar = _metavar(hints[spec.name])
    text = option_help(spec)
    choices = [c for c in spec.metadata["choices"] or () if c]
    if choices and metavar != "LIST":
        metavar = "|".join(choices)
        if len(metavar) > _LONGEST_CHOICES:
            metavar = "CHOICE"
            text = text.replace("  [", f" One of {', '.join(choices)}.  [", 1)
    return click.Option(names, default=None, metavar=metavar, help=text, hidden=hidden)


def option_help(spec: Field[Any]) -> str:
    """One line: what it does, unit, range, default."""
    meta = spec.metadata
    default = spec.default
    notes = [] if default in (None, "", ()) else [f"default {text_of(default)}"]
    if meta["unit"]:
        notes.append(meta["unit"])
    if meta["minimum"] is not None or meta["maximum"] is not None:
        notes.append(span(meta["minimum"], meta["maximum"]))
    text = meta["help"].rstrip(".") + "."
    return f"{text}  [{'; '.join(notes)}]" if notes else text


def _wrapped(example: str, width: int) -> str:
    """Break an example before options, with backslashes, so that it can be pasted."""
    lines = [" "]
    for part in re.split(r" (?=-)", example):
        if len(lines[-1]) + len(part) + 3 > width and lines[-1].strip():
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {part}"
    return "\n".join(lines) + "\n"


def _metavar(hint: Any) -> str:
    text = str(hint)
    if text.startswith("tuple"):
        return "LIST"
    return "INTEGER" if "int" in text else "NUMBER" if "float" in text else "TEXT"


def _output_options(cls: type, writes: bool, fills: Collection[str]) -> list[click.Option]:
    out: list[click.Option] = []
    if writes:
        places = " and ".join(f"{{{name}}}" for name in fills)
        text = f"Output file; {places} in it {'are' if len(fills) > 1 else 'is'} filled in."
        out.append(
            click.Option(["-o", "--output"], required=True, metavar="PATH",
                         help=text if fills else "Output file.")
        )  # fmt: skip
    presets = tuple(getattr(cls, "PRESETS", {}))
    if presets:
        out.append(click.Option(["--preset"], type=click.Choice(presets), help="Set of defaults."))
    return out


def _run_options() -> list[click.Option]:
    """Options of every command that makes something."""
    hints = get_type_hints(CommonParams)
    return [
        *(_flag_option(s, hints) for s in options_of(CommonParams)),
        click.Option(["--config"], multiple=True, metavar="FILE", help="TOML file with options."),
        click.Option(["--set"], multiple=True, metavar="KEY=VALUE", help="Any option by name."),
        click.Option(["--dump-config"], is_flag=True, help="Print all options and exit."),
        click.Option(["-n", "--dry-run"], is_flag=True, help="Check inputs, write nothing."),
        click.Option(
            ["--help-all"], is_flag=True, is_eager=True, expose_value=False,
            callback=_print_all_options, help="List every option and exit.",
        ),
    ]  # fmt: skip


def _report_options() -> list[click.Option]:
    """Options of every command: what it says, and where."""
    return [
        click.Option(["-v", "--verbose"], count=True, help="More messages (-vv: all)."),
        click.Option(["-q", "--quiet"], count=True, help="Errors only."),
        click.Option(["--log-file"], metavar="FILE", help="Append the log to a file."),
        click.Option(["--json"], is_flag=True, help="One JSON summary on stdout."),
    ]


def _print_all_options(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    lines = [ctx.command.get_help(ctx), "", "All options (flags, --set KEY=VALUE, or TOML):"]
    for cls in (getattr(ctx.command, "params_class", CommonParams), CommonParams):
        for spec in options_of(cls):
            alias = f" (alias {spec.metadata['alias']})" if spec.metadata["alias"] else ""
            choices = spec.metadata["choices"]
            allowed = f" One of {', '.join(choices)}." if choices else ""
            lines.append(f"  {spec.name:<26} {option_help(spec)}{allowed}{alias}")
    emit("\n".join(lines))
    ctx.exit()


def _remake(args: Sequence[str], output: str) -> tuple[str, ...]:
    """Arguments without those that do not change the content, and without folders.

    A template of several outputs' names is kept: without it they cannot be made.
    """
    out: list[str] = []
    skip = False
    for arg in args:
        if skip:
            skip = False
        elif arg in _HIDDEN_ARGUMENTS:
            skip = True
        elif not _only_how(arg):
            out.append(without_folder(arg))
    return (*out, "-o", without_folder(output)) if "{" in output else tuple(out)


def _only_how(arg: str) -> bool:
    """Whether a flag changes how a command runs, not what it makes."""
    if arg.startswith("--"):
        return arg.split("=")[0] in (*_HIDDEN_ARGUMENTS, *_HIDDEN_FLAGS)
    return arg.startswith(("-v", "-q", "-j", "-o"))
