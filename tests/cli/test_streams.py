"""Where the program stands in a shell: streams that are closed or full, names, pipes, signals."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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


def bash(line: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    line = line.replace("coblend", PROGRAM, 1)
    return subprocess.run(
        ["bash", "-c", line], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60
    )


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """A pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("words", ["--help", "detect --help-all", "detect --dump-config",
                                   "info r.fits"])  # fmt: skip
def test_a_pipe_that_nobody_reads(folder: Path, words: str, closed_pipe: int) -> None:
    done = bash(f"coblend {words}", closed_pipe)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("coblend info r.fits > /dev/full", 74),
        ("coblend info r.fits >&-", 0),
        ("coblend info r.fits <&- >&- 2>&-", 0),
    ],
)
def test_standard_output_that_is_full_or_closed(folder: Path, line: str, code: int) -> None:
    done = bash(line)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize("ending", ["2>&-", "--json", "--json > /dev/full"])
def test_what_was_made_counts_though_the_summary_is_lost(
    folder: Path, ending: str, closed_pipe: int
) -> None:
    done = bash(f"coblend detect r.fits --psf-sigma 1.5 -o det.fits {ending}", closed_pipe)
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


INTERRUPTED = """
import signal, sys
from coblend.cli.main import main

def hook(event, arguments):  # told of every folder that is made
    if event == "os.mkdir":
        signal.raise_signal(int(sys.argv[1]))

signal.signal(int(sys.argv[1]), signal.SIG_DFL)  # whoever runs the tests may ignore it
sys.addaudithook(hook)
main(["simulate", "a/b"])
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_signals_end_the_program_at_once(folder: Path, number: int, code: int) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(int(number))]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (code, b"coblend: interrupted\n")
    assert os.listdir() == ["r.fits"]


def test_a_signal_that_is_to_be_ignored_is(folder: Path) -> None:
    """As nohup asks for."""
    line = "trap '' HUP; coblend detect r.fits --psf-sigma 1.5 -o det.fits & kill -HUP $!; wait $!"
    assert bash(line).returncode == 0


@pytest.mark.parametrize("date", ["", "abc"])
def test_a_date_that_is_no_number_is_no_date(folder: Path, date: str) -> None:
    """numpy stumbles over it when it is imported."""
    done = bash(f"SOURCE_DATE_EPOCH={date} coblend detect r.fits -o det.fits")
    assert done.returncode == 0, done.stderr
