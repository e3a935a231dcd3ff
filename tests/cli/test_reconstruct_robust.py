"""`reconstruct-footprints` on damaged files, killed midway, and where another process writes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coblend.core.errors import FormatError
from coblend.core.reconstruct.precision import storage_steps
from coblend.io.deblend.footprints import read_heavy
from coblend.io.deblend.models import SCHEMA, read_models, write_models
from coblend.io.exposure.exposures import write_exposure
from coblend.io.fits.checksum import mismatches
from coblend.io.fits.lock import exclusive
from coblend.io.fits.reader import open_fits
from coblend.io.fits.structure import scan
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


KILLED = """
import json, os, signal, sys
from pathlib import Path
from coblend.cli.main import run

sys.stdout = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
call, outputs, n = [*sys.argv[2:], "-q"], ("out.fits", "heavy.fits"), int(sys.argv[1])

def counted(at, *options):  # calls of functions, C's too; killed at one of them
    n_call, renamed = 0, []
    def profile(frame, event, function):
        nonlocal n_call
        n_call += 1
        if function is os.replace:
            renamed.append(n_call)
        if n_call == at:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(profile)
    code = run([*call, *options])
    sys.setprofile(None)
    assert code == 0
    return n_call, renamed[::2]

versions = []
for stray in ("none", "nearest"):  # in this process: children find everything imported
    n_call, renamed = counted(0, "--stray", stray)
    versions.append([Path(p).read_bytes() for p in outputs])
counts = {"old": 0, "new": 0, "killed": 0, "other": 0}
moments = [1 + n_call * i // n for i in range(n)]
moments += [at + after for at in renamed for after in range(-4, 6)]
for at in moments:
    for path, data in zip(outputs, versions[0]):
        Path(path).write_bytes(data)
    child = os.fork()
    if not child:
        counted(at, "--stray", "nearest")
        os._exit(0)
    counts["killed"] += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    for path, old, new in zip(outputs, *versions):
        found = Path(path).read_bytes()
        counts["old" if found == old else "new" if found == new else "other"] += 1
visible = sorted(p for p in os.listdir() if not p.startswith("."))
code = run(call)
print(json.dumps({**counts, "visible": visible, "after": code, "left": len(os.listdir())}))
"""


@pytest.mark.slow
def test_killed_at_any_moment(folder: Path) -> None:
    """SIGKILL 50 times, 20 of them near the two renames: each output is wholly old or new."""
    found = run_script(KILLED, 30, *CALL, "--heavy", "heavy.fits")
    assert found["other"] == 0
    assert found["killed"] == 50
    assert min(found["old"], found["new"]) > 10, found
    assert found["visible"] == ["deblended.fits", "g.fits", "heavy.fits", "out.fits"]
    assert (found["after"], found["left"]) == (0, 4)


def test_an_output_that_another_process_writes(folder: Path, cli: Callable[..., Any]) -> None:
    with exclusive("out.fits"):
        assert cli(*CALL).code == 75
    assert cli(*CALL).code == 0
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


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", ["deblended", "footprints", "heavy"])
def test_every_product_knows_that_it_is_damaged(
    folder: Path, cli: Callable[..., Any], rng: np.random.Generator, kind: str, suffix: str
) -> None:
    """Cut at any byte, at the ends of HDUs too, or with a bit flipped, gzipped or not.

    What is read is an error or what it was, and `verify` says so; a gzip header has a few bytes
    that mean nothing.
    """
    readers = {"deblended": read_models, "heavy": read_heavy, "footprints": data_of}
    shutil.move("deblended.fits", "source.fits")
    call = ("reconstruct-footprints", "source.fits", "g.fits", "-o", f"footprints.fits{suffix}")
    assert cli(*call, "--heavy", f"heavy.fits{suffix}").code == 0
    if kind == "deblended":
        with create(f"{kind}.fits{suffix}", SCHEMA) as out:
            write_models(out, read_models("source.fits"), None)
    path = Path(f"{kind}.fits{suffix}")
    good, before = path.read_bytes(), pickle.dumps(readers[kind](str(path)))
    ends = [] if suffix else [hdu.end for hdu in scan(str(path))[:-1]]
    for length in [*ends, 1, *rng.integers(2, len(good), 20).tolist()]:
        path.write_bytes(good[:length])
        with pytest.raises(FormatError):
            readers[kind](str(path))
    harmless = 0
    for place in rng.integers(0, len(good), 40).tolist():
        broken = bytearray(good)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        with suppress(FormatError):
            assert pickle.dumps(readers[kind](str(path))) == before, place
        whole = cli("verify", path).code == 0
        harmless += whole
        assert not whole or (suffix and place < 10), place
    assert harmless < 5


def data_of(path: str) -> list[bytes]:
    """Tables of a catalogue."""
    with open_fits(path) as file:
        return [file.table(name).tobytes() for name in ("OBJECTS", "PARENTS")]
