"""Where the program stands in a shell: streams that are closed or full, names, pipes, signals."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coblend.core.exposure import Exposure

PROGRAM = f"{shlex.quote(sys.executable)} -m coblend"
pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@pytest.fixture
def folder(
    tmp_path: Path, exposure: Exposure, write_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:  # fmt: skip
    """Working folder with an exposure ``r.fits``."""
    path = write_file(exposure)
    path.rename(tmp_path / "r.fits")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bash(line: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("coblend", PROGRAM, 1)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("coblend --help | true", 141),
        ("coblend detect --help-all | true", 141),
        ("coblend detect --dump-config | true", 141),
        ("coblend info r.fits | true", 141),
        ("coblend info r.fits > /dev/full", 74),
        ("coblend info r.fits >&-", 0),
        ("coblend info r.fits <&- >&- 2>&-", 0),
    ],
)
def test_standard_output_that_nobody_reads(folder: Path, line: str, code: int) -> None:
    done = bash(line)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize("ending", ["2>&-", "--json | true", "--json > /dev/full"])
def test_what_was_made_counts_though_the_summary_is_lost(folder: Path, ending: str) -> None:
    done = bash(f"coblend detect r.fits --psf-sigma 1.5 -o det.fits {ending}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert bash("coblend verify det.fits").returncode == 0


def test_names_that_are_not_ascii_or_have_blanks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line that ``info`` shows can be pasted into bash and makes the file again."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    os.makedirs("a b")
    os.rename("r.fits", "a b/rö=x.fits")
    options = "--psf-sigma 1.5 --overwrite"
    assert bash(f"coblend detect r='a b/rö=x.fits' -o 'ü d.fits' {options}").returncode == 0
    made = Path("ü d.fits").read_bytes()
    line = bash("coblend info 'ü d.fits' --command").stdout
    assert line.isascii()
    os.rename("a b/rö=x.fits", "rö=x.fits")  # folders are left out
    os.unlink("ü d.fits")
    assert bash(line.strip()).returncode == 0
    assert Path("ü d.fits").read_bytes() == made


@pytest.mark.parametrize(("name", "code"), [("''", 2), ("-", 2), ("new/", 73), ("pipe", 73)])
def test_outputs_that_are_no_files(folder: Path, name: str, code: int) -> None:
    os.mkfifo("pipe")
    done = bash(f"coblend detect r.fits --psf-sigma 1.5 --overwrite -o {name}")
    assert done.returncode == code
    assert sorted(os.listdir()) == ["pipe", "r.fits"]


@pytest.mark.parametrize("option", ["--regions", "--out-segmentation", "--out-image", "-o"])
def test_no_output_replaces_an_input(folder: Path, option: str) -> None:
    before = Path("r.fits").read_bytes()
    others = "" if option == "-o" else "-o det.fits"
    done = bash(f"coblend detect r.fits --overwrite {others} {option} ./r.fits")
    assert done.returncode == 73
    assert "is also an input" in done.stderr
    assert Path("r.fits").read_bytes() == before
    assert os.listdir() == ["r.fits"]


def test_an_input_that_is_a_pipe(folder: Path) -> None:
    done = bash("coblend info <(cat r.fits)")
    assert done.returncode == 65
    assert "is a pipe or a device" in done.stderr


def test_a_log_file_that_is_an_image(folder: Path) -> None:
    before = Path("r.fits").read_bytes()
    assert bash("coblend info r.fits --log-file r.fits").returncode == 73
    assert Path("r.fits").read_bytes() == before


def test_a_log_file_that_cannot_be_written(folder: Path) -> None:
    done = bash("coblend info r.fits --log-file nowhere/log")
    assert (done.returncode, done.stdout) == (73, "")
    assert (
        done.stderr == "coblend: nowhere/log: cannot be appended to: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_signals_leave_nothing(folder: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "coblend", "simulate", "out", "--size", "3000"],
        stderr=subprocess.PIPE,
    )
    while not os.path.exists("out"):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in errors
    assert os.listdir("out") == []
