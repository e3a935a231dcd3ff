"""A signal at any line leaves the old file or the new one, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coblend.io.cleanup import undo_all, undone

AT_EVERY_LINE = """
import json, os, signal, sys, tempfile
from coblend.cli.main import _end
from coblend.io.fits.lock import exclusive
from coblend.io.fits.output import replacing
from coblend.io.fits.temporary import scratch_folder

OURS = ("cleanup.py", "lock.py", "output.py", "temporary.py", "contextlib.py", "<string>")
tempfile.tempdir = os.path.realpath("tmp")
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

def work():
    with exclusive("out/a[1].fits"), scratch_folder() as folder:
        open(os.path.join(folder, "x"), "w").close()
        with replacing("out/a[1].fits", overwrite=True) as path, open(path, "w") as stream:
            stream.write("new")

def ended_at(line):
    child = os.fork()
    if not child:
        def trace(frame, *_):
            nonlocal line
            line -= 1
            if not line:
                signal.raise_signal(signal.SIGTERM)
            if frame.f_code.co_filename.endswith(OURS):
                return trace
        signal.signal(signal.SIGTERM, _end)
        sys.settrace(trace)
        work()
        sys.settrace(None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

work()  # in this process: everything is imported
found = []
while not found or found[-1][0]:
    with open("out/a[1].fits", "w") as stream:
        stream.write("old")
    code = ended_at(len(found) + 1)
    with open("out/a[1].fits") as stream:
        content = stream.read()
    found.append([code, content, os.listdir("out") + os.listdir("tmp")])
print(json.dumps(found))
"""


def test_ended_at_every_line_and_call(tmp_path: Path) -> None:
    """A lock, a file, a folder and a link, through a folder whose name CFITSIO would parse."""
    for folder in ("[x]/out", "[x]/tmp"):
        (tmp_path / folder).mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", AT_EVERY_LINE], cwd=tmp_path / "[x]", capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [code for code, _, _ in found] == [143] * (len(found) - 1) + [0]
    assert len(found) > 200
    contents = [content for _, content, _ in found]
    n_old = contents.index("new")
    assert contents == ["old"] * n_old + ["new"] * (len(found) - n_old)
    assert 100 < n_old < len(found) - 1
    assert all(left == ["a[1].fits"] for _, _, left in found)


def test_the_newest_is_undone_first_and_a_failure_stops_nothing() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(2)
        raise FileNotFoundError

    def block() -> None:
        with undone(lambda: calls.append(1)), undone(fail), undone(lambda: calls.append(3)):
            undo_all()
            assert calls == [3, 2, 1]
            undo_all()
            assert calls == [3, 2, 1], "once"

    with pytest.raises(FileNotFoundError):
        block()
    assert calls == [3, 2, 1] * 2, "and at the end of each block"
