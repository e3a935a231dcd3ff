"""The chain for make: what reruns, what does not, and what a failure leaves.

A stand-in for the program records its calls, so that only make is tested here; the chain with
the real program is run in test_sample.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CHAIN = ROOT / "docs" / "recipes" / "chain.mk"
STAND_IN = """#!/bin/sh
# coblend COMMAND ... -o OUT: notes COMMAND and OUT, takes a moment, makes OUT
previous=
for argument in "$@"; do
    [ "$previous" = -o ] && out=$argument
    previous=$argument
done
echo "$1 $(basename "$out" .fits)" >> calls
if [ "$1" = "$BREAK" ]; then : > "$out"; sleep "${HANG:-0}"; exit 1; fi
sleep 0.02
: > "$out"
"""
STEPS = {
    "coadd": "assemble-coadd coadd_{band}",
    "matched": "psf-match matched_{band}",
    "det": "detect det_{band}",
}
JOINT = ["merge-detections merged", "deblend deblended", "reconstruct-footprints footprints"]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "warps").mkdir()
    for band in "gri":
        for epoch in range(3):
            (tmp_path / "warps" / f"w_{band}_{epoch}.fits").touch()
    stand_in = tmp_path / "coblend"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    return tmp_path


def command(*arguments: str) -> list[str]:
    settings = ["COBLEND=./coblend", "WARPS=warps/w_{band}_*.fits", "BANDS=i r g"]
    return ["make", "-s", "-f", str(CHAIN), *settings, *arguments]


def make(project: Path, *arguments: str, **environment: str) -> tuple[int, list[str], str]:
    """Exit code, recorded calls and messages of one run of make."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(
        command(*arguments), cwd=project, capture_output=True, text=True, timeout=60,
        env={**inherited, **environment},
    )  # fmt: skip
    calls = project / "calls"
    made = sorted(calls.read_text().splitlines()) if calls.exists() else []
    calls.unlink(missing_ok=True)
    return done.returncode, made, done.stdout + done.stderr


def depends_on(band: str) -> list[str]:
    return sorted([*(step.format(band=band) for step in STEPS.values()), *JOINT])


def later(path: Path) -> None:
    """Touch with a time that any file system tells from that of the files there are."""
    stamp = time.time() + 2
    os.utime(path, (stamp, stamp))


def test_everything_once_then_nothing(project: Path) -> None:
    code, made, _ = make(project, "-j2")
    assert code == 0
    assert made == sorted([s.format(band=b) for b in "gri" for s in STEPS.values()] + JOINT)
    assert make(project)[:2] == (0, [])
    assert make(project, "-n")[2].strip() in ("", "make: Nothing to be done for 'chain'.")


def test_touching_one_warp_reruns_what_depends_on_it(project: Path) -> None:
    make(project)
    later(project / "warps" / "w_r_1.fits")
    assert make(project)[:2] == (0, depends_on("r"))


def test_a_new_and_a_removed_warp_are_noticed(project: Path) -> None:
    """Even a warp older than the coadd, which a comparison of times alone would miss."""
    make(project)
    new = project / "warps" / "w_g_9.fits"
    new.touch()
    os.utime(new, (1, 1))
    assert make(project)[:2] == (0, depends_on("g"))
    (project / "warps" / "w_i_0.fits").unlink()
    assert make(project)[:2] == (0, depends_on("i"))
    assert make(project)[:2] == (0, [])


def test_a_removed_product_is_made_again(project: Path) -> None:
    make(project)
    (project / "out" / "deblended.fits").unlink()
    assert make(project)[:2] == (0, JOINT[1:])


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("COADD_OPTIONS=--unit nJy --set 'a=b, c'", "coadd"),
        ("REFERENCE=gaussian:fwhm=7", "matched"),
        ("DETECT_OPTIONS=--threshold 4", "det"),
        ("DETECT_ON=matched", "det"),
        ("BANDS=r i g", "merge"),
        ("DEBLEND_OPTIONS=--jobs 2 --set max_iter=500", "deblend"),
        ("RECONSTRUCT_OPTIONS=--kind model", "reconstruct"),
    ],
)
def test_a_changed_option_repeats_what_depends_on_it(
    project: Path, change: str, first: str
) -> None:
    """And only once."""
    every = [step.format(band=band) for step in STEPS.values() for band in "gri"]
    expected = {
        "coadd": [*every, *JOINT],
        "matched": [e for e in every if "match" in e],
        "det": [*(e for e in every if "det" in e), *JOINT],
        "merge": JOINT,
        "deblend": JOINT[1:],
        "reconstruct": JOINT[2:],
    }[first]
    make(project)
    assert make(project, change)[:2] == (0, sorted(expected))
    assert make(project, change)[:2] == (0, [])


def test_a_changed_file_of_options_repeats_everything(project: Path) -> None:
    make(project)
    (project / "coblend.toml").write_text("[common]\n")
    later(project / "coblend.toml")
    code, made, _ = make(project)
    assert (code, len(made)) == (0, 12)


def test_a_failing_step_leaves_no_target_and_make_resumes(project: Path) -> None:
    code, made, messages = make(project, BREAK="deblend")
    assert code == 2
    assert "deblend deblended" in made
    assert not (project / "out" / "deblended.fits").exists(), messages
    assert not (project / "out" / "footprints.fits").exists()
    code, made, _ = make(project)
    assert code == 0
    assert made[:1] == ["deblend deblended"]
    assert not any(call.startswith(("assemble", "detect", "merge")) for call in made)


def test_an_interrupted_step_leaves_no_target(project: Path) -> None:
    running = subprocess.Popen(
        command(), cwd=project, env={**os.environ, "BREAK": "merge-detections", "HANG": "30"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    target = project / "out" / "merged.fits"
    deadline = time.monotonic() + 30
    while not target.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert target.exists()
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(30) != 0
    assert not target.exists()


def test_detection_on_matched_coadds(project: Path) -> None:
    code, made, _ = make(project, "DETECT_ON=matched")
    assert code == 0
    log = make(project, "-n", "-B", "DETECT_ON=matched")[2]
    assert "detect out/matched_g.fits -o out/det_g.fits" in log
    assert len(made) == 12


def test_no_warps_of_a_band(project: Path) -> None:
    code, made, messages = make(project, "BANDS=g x")
    assert code == 2
    assert "no warps of band x: warps/w_x_*.fits" in messages
    assert not any("merged" in call for call in made)
