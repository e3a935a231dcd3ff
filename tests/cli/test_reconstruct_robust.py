"""`reconstruct-footprints` on damaged files, killed midway, and in two processes at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.core.reconstruct.precision import storage_steps
from coblend.io.deblend.models import write_models
from coblend.io.exposure.exposures import write_exposure
from coblend.io.fits.checksum import mismatches
from coblend.io.fits.writer import create

CALL = ("reconstruct-footprints", "deblended.fits", "g.fits", "-o", "out.fits", "--overwrite")


@pytest.fixture
def folder(in_folder: Path, rng: np.random.Generator, scenes) -> Path:
    """An empty folder with deblended.fits and g.fits, which is the working folder."""
    models = scenes.make_models(rng, 6, ("g", "r"))
    with create("deblended.fits", "deblended/1") as out:
        write_models(out, models, storage_steps(models, 0.005))
    with create("g.fits", "exposure/1") as out:
        write_exposure(out, scenes.make_exposure(models, "g", rng))
    return in_folder


def run_script(text: str, *arguments: object) -> Any:
    """What a program of its own prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FORK = """
import json, os, random, signal, sys, time
from pathlib import Path
from coblend.cli.main import run

sys.stdout = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

def start(*call):
    child = os.fork()
    if not child:
        os._exit(run([*call, "-q"]))
    return child

def code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

KILLED = """
call, outputs, n = sys.argv[2:], ("out.fits", "heavy.fits"), int(sys.argv[1])
versions = []
for stray in ("none", "nearest"):  # in this process: children find everything imported
    begin = time.monotonic()
    assert run([*call, "--stray", stray, "-q"]) == 0
    seconds = time.monotonic() - begin
    versions.append([Path(p).read_bytes() for p in outputs])
random.seed(1)
counts = {"old": 0, "new": 0, "killed": 0, "other": 0}
for _ in range(n):
    for path, data in zip(outputs, versions[0]):
        Path(path).write_bytes(data)
    child = start(*call, "--stray", "nearest")
    time.sleep(random.uniform(0, 1.5 * seconds))
    os.kill(child, signal.SIGKILL)
    counts["killed"] += code(child) == -signal.SIGKILL
    for path, old, new in zip(outputs, *versions):
        found = Path(path).read_bytes()
        counts["old" if found == old else "new" if found == new else "other"] += 1
visible = sorted(p for p in os.listdir() if not p.startswith("."))
print(json.dumps({**counts, "visible": visible, "after": code(start(*call))}))
"""

TWO = """
first = start(*sys.argv[1:])
while not os.path.exists(".coblend-out.fits.lock"):
    time.sleep(0.001)
os.kill(first, signal.SIGSTOP)
second = code(start(*sys.argv[1:]))
os.kill(first, signal.SIGCONT)
print(json.dumps([code(first), second]))
"""


@pytest.mark.slow
def test_killed_at_any_moment(folder: Path) -> None:
    """SIGKILL 50 times: each output is the whole old file or the whole new one."""
    found = run_script(FORK + KILLED, 50, *CALL, "--heavy", "heavy.fits")
    assert found["other"] == 0
    assert found["killed"] > 10
    assert min(found["old"], found["new"]) > 10
    assert found["visible"] == ["deblended.fits", "g.fits", "heavy.fits", "out.fits"]
    assert found["after"] == 0


def test_two_processes_with_one_output(folder: Path) -> None:
    assert run_script(FORK + TWO, *CALL) == [0, 75]
    assert mismatches("out.fits") == []
    assert [p for p in os.listdir() if p.startswith(".")] == []


@pytest.mark.parametrize("name", ["a[1].fits", "a(1).fits", "!a.fits", "a b.fits", "a+1.fits"])
def test_file_names_that_libraries_would_parse(
    folder: Path, cli: Callable[..., Any], name: str
) -> None:
    shutil.move("deblended.fits", f"d{name}")
    shutil.move("g.fits", f"g{name}")
    done = cli("reconstruct-footprints", f"d{name}", f"g=g{name}", "-o", f"o{name}",
               "--heavy", f"h{name}", "--residual", f"r{name}")  # fmt: skip
    assert done.code == 0, done.err
    assert cli("verify", *(f"{c}{name}" for c in "dgohr")).code == 0
    assert sorted(os.listdir()) == sorted(f"{c}{name}" for c in "dgohr")


# Bad input


@pytest.mark.parametrize("victim", ["deblended.fits", "g.fits"])
def test_flipped_bits_and_truncation(
    folder: Path, cli: Callable[..., Any], rng: np.random.Generator, victim: str
) -> None:
    """The command says so and writes nothing, or the change was in padding and nothing differs."""
    assert cli(*CALL).code == 0
    expected = data_of("out.fits")
    os.unlink("out.fits")
    good = Path(victim).read_bytes()
    refused = 0
    for i, place in enumerate(rng.integers(1, len(good), 60).tolist()):
        broken = bytearray(good)
        broken[place] ^= 1 << int(rng.integers(8))
        Path(victim).write_bytes(bytes(broken) if i % 2 else good[:place])
        done = cli(*CALL)
        if done.code == 0:
            assert data_of("out.fits") == expected, place
            os.unlink("out.fits")
            assert i % 2
            continue
        refused += 1
        assert done.code == 65, (place, done.err)
        assert victim in done.err
        assert sorted(os.listdir()) == ["deblended.fits", "g.fits"]
    assert refused > 40


def data_of(path: str) -> list[bytes]:
    """Tables of a catalogue."""
    from coblend.io.fits.reader import open_fits

    with open_fits(path) as file:
        return [file.table(name).tobytes() for name in ("OBJECTS", "PARENTS")]
