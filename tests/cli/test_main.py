"""The program as a whole: help, errors, signals, pipes, messages."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from coblend.cli.command import command
from coblend.cli.main import COMMANDS, program, run
from coblend.cli.run import Run, parse_size
from coblend.core.box import Box
from coblend.core.errors import CorruptFileError, ParameterError, ResourceError
from coblend.core.exposure import Exposure
from coblend.core.params.common import CommonParams
from coblend.core.params.field import Checked, options_of
from coblend.io.detect.detections import read_detections
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits

PROGRAM = [sys.executable, "-m", "coblend"]


def shell(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


def test_help_is_quick_and_imports_no_arrays() -> None:
    code = (
        "import sys\n"
        "from coblend.cli.main import run\n"
        "for a in (['--help'], *([c, '--help'] for c in sys.argv[1:])): assert run(a) == 0\n"
        "heavy = {'numpy', 'scipy', 'astropy', 'fitsio', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_lists_all_options(
    name: str, cli: Callable[..., Any]
) -> None:
    text = cli(name, "--help").out
    assert f"coblend {name}" in text.split("Examples:")[1]
    assert "Exit codes" in text
    if name in ("info", "verify", "config"):  # they make nothing
        assert "--seed" not in text
    else:
        assert "max_failed" in cli(name, "--help-all").out


@pytest.mark.parametrize("name", COMMANDS)
def test_options_that_help_does_not_list_are_flags_too(name: str) -> None:
    """Each once; of those of the params, the help page shows the ones most users touch."""
    found = program.get_command(click.Context(program), name)
    for each in getattr(found, "commands", {name: found}).values():
        flags = [o for p in each.get_params(click.Context(each)) for o in p.opts]
        assert len(flags) == len(set(flags))
        for spec in options_of(each.params_class):
            assert f"--{spec.name.replace('_', '-')}" in flags


def test_a_flag_that_help_does_not_list(cli: Callable[..., Any]) -> None:
    done = cli("detect", "a.fits", "-o", "b.fits", "--max-failed", "0.5", "--dump-config")
    assert "max-failed = 0.5  # command line" in done.out
    assert "--max-failed" not in cli("detect", "--help").out
    done = cli("detect", "a.fits", "-o", "b.fits", "--max-failed", "2")
    assert done.code == 2
    assert "max_failed" in done.err


def test_examples_can_be_pasted(cli: Callable[..., Any]) -> None:
    """Lines that are broken end with a backslash; joined again they are the example."""
    from coblend.cli.merge_detections import merge_detections

    text = cli("merge-detections", "--help").out.split("Examples:\n")[1].split("\n\n")[0]
    joined = [" ".join(line.split()) for line in text.replace("\\\n", "").splitlines()]
    assert joined == list(merge_detections.examples)
    assert "\\\n" in text


def test_entry_points_are_seen_in_a_notebook() -> None:
    import coblend

    assert {"read_exposure", "read_models", "__version__"} <= set(dir(coblend))
    assert all(callable(getattr(coblend, name)) for name in dir(coblend) if name[0] != "_")


def test_version_and_python_m() -> None:
    done = shell("--version")
    assert done.stdout.startswith("coblend 0.")
    assert "coblend [OPTIONS] COMMAND" in shell("--help").stdout


def test_unknown_commands_and_options(cli: Callable[..., Any]) -> None:
    outcome = cli("deblent")
    assert outcome.code == 2
    assert outcome.err.startswith("coblend: no command 'deblent': did you mean deblend?\n")
    assert cli("detect", "--max-memory", "lots", "x.fits", "-o", "y.fits").code == 2
    outcome = cli("info", "--nope", "a.fits")
    assert outcome.code == 2
    assert "--nope" in outcome.err


def test_missing_input(cli: Callable[..., Any], tmp_path: Path) -> None:
    outcome = cli("info", tmp_path / "none.fits")
    assert (outcome.code, outcome.out) == (66, "")
    assert outcome.err == f"coblend: {tmp_path / 'none.fits'}: no such file\n"


def test_json_is_one_object_for_success_and_failure(
    cli: Callable[..., Any], exposure: Exposure, write_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_file(exposure)
    summary = json.loads(cli("info", path, "--json").out)
    assert (summary["status"], summary["schema"]) == ("ok", "exposure/1")
    assert [row["name"] for row in summary["table"]] == [
        "(primary)", "IMAGE", "MASK", "VARIANCE", "PSF",
    ]  # fmt: skip
    for arguments, code in ((["info", tmp_path / "none.fits"], 66), (["info", "--bad"], 2)):
        outcome = cli(*arguments, "--json")
        assert json.loads(outcome.out)["exit"] == outcome.code == code


def test_info_shows_hdus_and_remakes(
    cli: Callable[..., Any], exposure: Exposure, write_file: Callable[..., Path]
) -> None:
    path = write_file(exposure)
    outcome = cli("info", path)
    assert "VARIANCE" in outcome.out
    assert "40x30" in outcome.out
    assert outcome.out.startswith(f"{path}: exposure/1, {path.stat().st_size} bytes\n")
    assert cli("info", path, "--command").code == 65, "this file was not made by a command"


def test_verify_finds_the_damaged_file(
    cli: Callable[..., Any], exposure: Exposure, write_file: Callable[..., Path]
) -> None:
    good = write_file(exposure, "good.fits")
    bad = write_file(exposure, "bad.fits")
    data = bytearray(bad.read_bytes())
    data[-3000] ^= 1
    bad.write_bytes(data)
    assert cli("verify", good).code == 0
    outcome = cli("verify", good, bad)
    assert outcome.code == 65
    assert "bad.fits: checksum mismatch in PSF" in outcome.err
    assert "damaged" in outcome.out
    cut, missing = bad.with_name("cut.fits"), bad.with_name("missing.fits")
    cut.write_bytes(data[:-2880])
    outcome = cli("verify", cut, missing, good, bad)
    assert outcome.code == 65
    assert "cut.fits: truncated" in outcome.err
    rows = [re.split("  +", line) for line in outcome.out.splitlines() if ".fits" in line]
    assert [row[1] for row in rows] == ["damaged", "damaged", "ok", "damaged"]
    assert cli("verify", missing, bad).code == 66


@dataclass(frozen=True, slots=True)
class FakeParams(Checked):
    """A command without options of its own."""


def fake_command(monkeypatch: pytest.MonkeyPatch, body: Callable[[Run], None]) -> None:
    """Replace ``coblend info`` by a command that writes and runs ``body``."""

    @command("info", FakeParams, examples=("coblend info",))
    @click.argument("names", nargs=-1)
    def fake(run: Run, params: FakeParams, names: tuple[str, ...]) -> None:
        """Do what the test says."""
        body(run)

    monkeypatch.setattr(type(program), "get_command", lambda *_: fake)


def raiser(error: BaseException) -> Callable[[Run], None]:
    def body(run: Run) -> None:
        with run.create("x/1") as out:
            out.image("IMAGE", np.zeros((4, 4), np.float32))
            raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CorruptFileError("bad", "a.fits", "MASK", "copy it"), 65, "a.fits[MASK]: bad\n  copy it"),
        (ResourceError("busy"), 75, "busy"),
        (MemoryError(), 75, "out of memory"),
        (OSError(28, "No space left on device"), 74, "disk full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("1/0"), 1, "internal error: ZeroDivisionError: 1/0"),
        (BrokenPipeError(), 141, ""),
    ],
    ids=lambda p: type(p).__name__ if isinstance(p, BaseException) else None,
)
def test_each_failure_has_its_code_and_leaves_nothing(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    error: BaseException, code: int, message: str,
) -> None:  # fmt: skip
    if isinstance(error, BrokenPipeError):
        monkeypatch.setattr(os, "dup2", lambda *_: None)
    fake_command(monkeypatch, raiser(error))
    outcome = cli("info", "-o", tmp_path / "a.fits")
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= 6
    assert not os.listdir(tmp_path)


def test_tracebacks_only_on_request(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_command(monkeypatch, raiser(ZeroDivisionError("1/0")))
    assert "Traceback" in cli("info", "-o", tmp_path / "a.fits", "-vv").err


def test_verbosity_before_or_after_the_command(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def body(run: Run) -> None:
        log = logging.getLogger("coblend")
        log.warning("careful")
        log.info("detail")

    fake_command(monkeypatch, body)
    name = ["info", "-n", "-o", tmp_path / "a.fits"]
    assert cli(*name).err == "coblend: warning: careful\n"
    assert cli("-q", *name).err == cli(*name, "-q").err == ""
    for outcome in (cli("-v", *name), cli(*name, "-v")):
        assert ["careful" in outcome.err, "detail" in outcome.err] == [True, True]


def test_partial_failure_keeps_the_output(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def body(run: Run) -> None:
        with run.create("x/1") as out:
            out.image("IMAGE", np.zeros((4, 4), np.float32))
        run.check_failures(3, 100)

    fake_command(monkeypatch, body)
    outcome = cli("info", "-o", tmp_path / "a.fits")
    assert outcome.code == 3
    assert "3 of 100 blends failed" in outcome.err
    assert (tmp_path / "a.fits").exists()
    assert cli("info", "-o", tmp_path / "b.fits", "--set", "max_failed=0.03").code == 0


def test_provenance_says_what_remakes_a_file(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, in_folder: Path
) -> None:
    def body(run: Run) -> None:
        run.add_input("image:g", "in.fits")
        with run.create("x/1") as out:
            out.image("IMAGE", np.zeros((4, 4), np.float32))

    Path("in.fits").write_text("x")
    same = ["info", "a b", "/abs/in.fits", "--seed", "5"]
    moved = ["info", "a b", "folder/in.fits", "--seed", "5"]
    with monkeypatch.context() as patch:
        fake_command(patch, body)
        assert cli(*same, "-j", "2", "-o", "a.fits").code == 0
        assert cli(*moved, "-j1", "-o", "b.fits", "-q").code == 0
    assert Path("a.fits").read_bytes() == Path("b.fits").read_bytes()
    outcome = cli("info", "a.fits", "--command")
    assert outcome.out == "coblend info 'a b' in.fits --seed 5 -o a.fits\n"
    told = cli("info", "a.fits").out.splitlines()
    assert told[2:4] == [
        "with coblend info 'a b' in.fits --seed 5 -o a.fits",
        "from in.fits (image:g)",
    ]
    assert cli("info", "--set", "x=1", "a.fits").code == 2


def test_outputs_are_refused_before_any_work(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, in_folder: Path
) -> None:
    called: list[Run] = []
    fake_command(monkeypatch, called.append)
    Path("a.fits").write_text("old")
    outcome = cli("info", "-o", "a.fits")
    assert outcome.code == 73
    assert "a.fits: exists\n  pass --overwrite" in outcome.err
    assert not called
    monkeypatch.setenv("COBLEND_OVERWRITE", "1")
    assert cli("info", "-o", "a.fits").code == 0
    assert cli("info").code == 2
    assert cli("info", "--dump-config").code == 0
    assert len(called) == 1


def test_workers_keep_the_order_and_pass_errors_on() -> None:
    sizes = [f"{n}kB" for n in range(40)]
    results = {}
    for jobs in (1, 2):
        resolved: Any = type("R", (), {"params": CommonParams(jobs=jobs)})
        worker = Run("x", "", resolved, resolved)
        results[jobs] = list(worker.map(parse_size, iter(sizes)))
        with pytest.raises(ParameterError, match="'lots' is not a size"):
            list(worker.map(parse_size, ["1kB", "lots", "2kB"]))
    assert results[1] == results[2] == [1000 * n for n in range(40)]


def test_sizes() -> None:
    assert [parse_size(s) for s in ("800MB", "4GiB", "2G", "123", "1.5 KiB")] == [
        800_000_000, 4 << 30, 2_000_000_000, 123, 1536,
    ]  # fmt: skip
    with pytest.raises(ParameterError, match="'lots' is not a size"):
        parse_size("lots")


def test_logs_hold_no_cursor_codes(tmp_path: Path, exposure: Exposure) -> None:
    environment = {"PATH": os.environ["PATH"], "FORCE_COLOR": "1", "LANG": "C"}
    done = subprocess.run(
        [*PROGRAM, "info", str(tmp_path / "none.fits"), "-v", "--log-file", "log.txt"],
        capture_output=True, env=environment, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 66
    for text in (done.stderr, (tmp_path / "log.txt").read_bytes()):
        assert b"\x1b" not in text
        assert b"\r" not in text


SLEEPER = """
import signal, time, click
from coblend.cli import main
from coblend.cli.command import command
from coblend.core.params.common import NoParams
import numpy as np
@command("info", NoParams)
def fake(run, params):
    "Write slowly."
    with run.create("x/1") as out:
        out.image("IMAGE", np.zeros((4, 4), np.float32))
        print("half", flush=True)
        for _ in range(6000):  # a signal just before a long sleep would wait for its end
            time.sleep(0.01)
main.LazyGroup.get_command = lambda *_: fake
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it
main.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_clean_up(tmp_path: Path, number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, "info", "-o", str(tmp_path / "a.fits")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == code
    assert not os.listdir(tmp_path)


def test_run_returns_codes_without_exiting() -> None:
    assert run(["--version"]) == 0


def test_sections_are_those_of_the_file_arguments(
    cli: Callable[..., Any], exposure: Exposure, write_file: Callable[..., Path], tmp_path: Path
) -> None:
    """``--section`` reads the same pixels as brackets behind the file."""
    path = write_file(exposure)
    option, brackets = tmp_path / "option.fits", tmp_path / "brackets.fits"
    few = ["--set", "threshold=2.5", "-q"]
    assert cli("detect", path, "--section", "11:40,6:30", "-o", option, *few).code == 0
    assert cli("detect", f"{path}[11:40,6:30]", "-o", brackets, *few).code == 0
    assert read_detections(str(option)).box == Box(205, 110, 25, 30)
    with open_fits(str(option)) as a, open_fits(str(brackets)) as b:
        for name in ("PARENTS", "PEAKS", "SPANS"):
            assert a.table(name).tobytes() == b.table(name).tobytes()
    outcome = cli("detect", path, "--section", "5:4,1:1", "-o", tmp_path / "c.fits")
    assert outcome.code == 2
    assert "section '5:4,1:1' is empty" in outcome.err
    assert cli("detect", path, "--section", "1:99,1:9", "-o", tmp_path / "c.fits").code == 65


def test_sections_apply_to_every_file_of_a_list(
    cli: Callable[..., Any], exposure: Exposure, write_file: Callable[..., Path], tmp_path: Path
) -> None:
    """``--section`` with ``@LIST`` reads that part of the files in the list."""
    names = tmp_path / "names.txt"
    names.write_text(f"{write_file(exposure)}\n")
    out = tmp_path / "out.fits"
    options = ["--psf", "gaussian:fwhm=3,size=15", "--reference", "gaussian:fwhm=4,size=15", "-q"]
    assert cli("psf-match", f"@{names}", "--section", "3:40,2:30", "-o", out, *options).code == 0
    assert read_exposure(str(out)).box == Box(201, 102, 29, 38)
    options[1] = f"q={options[1]}"
    outcome = cli("psf-match", f"@{names}", "-o", out, "--overwrite", *options)
    assert (outcome.code, "--psf: no exposure of band q" in outcome.err) == (2, True)
