"""``coblend run``: does what the commands do, only what is needed, and can be interrupted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coblend.cli import main
from coblend.cli.chain import patches_of
from coblend.cli.main import run
from coblend.core.errors import ParameterError
from coblend.core.params.run import RunParams
from coblend.io.deblend.models import read_models

TRACT = """
[run]
bands = ["r", "g"]
warps = "warps/{patch}/{band}/*.fits"
folder = "out/{patch}"
patches = [40]

[assemble-coadd]
unit = "nJy"

[detect]
threshold = 20

[merge-detections]
sky-objects = 0
"""
STEPS = ["assemble-coadd", "detect", "assemble-coadd", "detect", "merge-detections", "deblend",
         "reconstruct-footprints"]  # fmt: skip


@pytest.fixture(scope="session")
def warps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bands and two epochs of one small patch."""
    folder = tmp_path_factory.mktemp("run")
    size = ["--size", "96", "--blends", "1", "--singles", "1", "--epochs", "2"]
    assert run(["simulate", str(folder), "--bands", "g,r", *size, "-q"]) == 0
    for band in "gr":
        target = folder / "warps" / "40" / band
        target.mkdir(parents=True)
        for path in folder.glob(f"warp_{band}_*.fits"):
            path.rename(target / path.name)
    return folder / "warps"


@pytest.fixture(scope="session")
def finished(warps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything has been made."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(warps, folder / "warps")
    (folder / "tract.toml").write_text(TRACT)
    done = subprocess.run(
        [sys.executable, "-m", "coblend", "run", "tract.toml", "-q"],
        cwd=folder, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, times of files included, as the working directory."""
    copy = tmp_path / "work"
    shutil.copytree(finished, copy)
    monkeypatch.chdir(copy)
    return copy


def planned(cli: Callable[..., Any], *arguments: str) -> list[list[str]]:
    """Words of the commands that a dry run prints."""
    outcome = cli("run", "tract.toml", "--dry-run", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    return [shlex.split(line, comments=True)[1:] for line in outcome.out.splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_printed_commands_make_the_same_files(folder: Path, cli: Callable[..., Any]) -> None:
    """Byte for byte: both ways can be mixed freely."""
    made = contents(Path("out/40"))
    assert len(made) == 11
    shutil.rmtree("out")
    commands = planned(cli)
    assert [words[0] for words in commands] == STEPS
    for words in commands:
        assert cli(*words, "-q").code == 0
    assert contents(Path("out/40")) == made
    assert planned(cli) == []


def test_nothing_is_made_twice(folder: Path, cli: Callable[..., Any]) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path("out/40").iterdir()}
    outcome = cli("run", "tract.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.split()[5:] == ["40", "0", "7", "0"]
    assert {p: p.stat().st_mtime_ns for p in Path("out/40").iterdir()} == before
    outcome = cli("run", "tract.toml", "-q")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", ""), "cron has nothing to mail"
    summary = json.loads(cli("run", "tract.toml", "--json").out)
    assert (summary["n_patch"], summary["n_failed"]) == (1, 0)
    assert summary["table"][0]["current"] == 7


def test_only_what_depends_on_a_change_is_made_again(
    folder: Path, cli: Callable[..., Any]
) -> None:
    """An option, a warp more or less, a file gone; not a warp that is only younger."""

    def commands(*arguments: str) -> list[str]:
        return [words[0] for words in planned(cli, *arguments)]

    os.utime("warps/40/g/warp_g_0.fits")
    assert commands() == []
    Path("tract.toml").write_text(TRACT.replace("threshold = 20", "threshold = 21"))
    assert commands() == ["detect", "detect", *STEPS[4:]]
    Path("tract.toml").write_text(TRACT + "[deblend]\nmax-iter = 50\n")
    assert commands() == STEPS[5:]
    Path("tract.toml").write_text(TRACT.replace('["r", "g"]', '["g", "r"]'))
    assert commands() == STEPS[4:], "the order of the bands is that of trust"
    Path("tract.toml").write_text(TRACT)
    assert commands("--set", "products=residual") == ["reconstruct-footprints"]
    Path("psf.toml").write_text('[psf-match]\nreference = "gaussian:fwhm=7"\n')
    matched = commands("--detect-on", "matched", "--config", "psf.toml")
    assert matched[:2] == ["psf-match", "detect"]
    assert commands("--seed", "3") == STEPS
    Path("out/40/heavy_g.fits").unlink()
    assert commands() == ["reconstruct-footprints"]
    shutil.copy("warps/40/g/warp_g_0.fits", "warps/40/g/warp_g_2.fits")
    assert commands() == ["assemble-coadd", "detect", *STEPS[4:]]


def test_a_rebuilt_file_that_is_the_same_ends_the_rebuilding(
    folder: Path, cli: Callable[..., Any]
) -> None:
    """A coadd made again with equal pixels leaves all that follows as it is."""
    Path("out/40/coadd_g.fits").unlink()
    assert len(planned(cli)) == 5
    outcome = cli("run", "tract.toml")
    assert outcome.code == 0
    assert outcome.out.split()[5:] == ["40", "1", "6", "0"]


STOPPED = """
import os, signal
from coblend.cli.main import main

def replace(*names, real=os.replace):
    real(*names)
    signal.raise_signal(signal.SIGTERM)

os.replace = replace
main(["run", "tract.toml", "-q"])
"""


def test_an_interrupted_run_goes_on(
    warps: Path, finished: Path, tmp_path: Path, cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Terminated after its first output: no half file, and the rest is made by the next run."""
    shutil.copytree(warps, tmp_path / "warps")
    (tmp_path / "tract.toml").write_text(TRACT)
    out = tmp_path / "out" / "40"
    done = subprocess.run([sys.executable, "-c", STOPPED], cwd=tmp_path, timeout=300)
    assert done.returncode == 143
    assert os.listdir(out) == ["coadd_r.fits"]
    monkeypatch.chdir(tmp_path)
    outcome = cli("run", "tract.toml")
    assert outcome.code == 0
    assert outcome.out.split()[5:8] == ["40", "6", "1"], "what was there is kept"
    assert contents(out) == contents(finished / "out" / "40")


def test_a_failure_ends_the_work_on_its_patch_only(folder: Path, cli: Callable[..., Any]) -> None:
    """A damaged warp in one patch, none in another, and the third is complete."""
    shutil.copytree("warps/40", "warps/39")
    Path("warps/39/g/warp_g_1.fits").write_text("damaged")
    outcome = cli("run", "tract.toml", "--patches", "38..40", "-q")
    assert outcome.code == 66, "that of the first"
    assert "warps/38/r/*.fits: no such files" in outcome.err
    assert "warp_g_1.fits" in outcome.err
    assert "Traceback" not in outcome.err
    rows = [line.split() for line in outcome.out.splitlines()]
    assert rows[1:] == [
        ["38", "0", "0", "inputs", "66"],
        ["39", "2", "0", "assemble-coadd", "65"],
        ["40", "0", "7", "0"],
    ]


@pytest.mark.parametrize(("code", "n_made"), [(3, 3), (130, 0)])
def test_partial_failures_go_on_and_interrupts_do_not(
    code: int, n_made: int, folder: Path, cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With 3 the output of a step is valid; 130 is Ctrl-C."""
    real = main.run
    calls: list[str] = []

    def instead(words: list[str]) -> int:
        calls.append(words[0])
        return real(words) or code

    monkeypatch.setattr(main, "run", instead)
    Path("out/40/merged.fits").unlink()
    (folder / "out/40/deblended.fits").unlink()
    (folder / "out/40/footprints.fits").unlink()
    outcome = cli("run", "tract.toml", "-q")
    assert outcome.code == code
    assert calls == (STEPS[4:] if n_made else STEPS[4:5])
    assert (n_made == 0) or outcome.out.split()[5:] == ["40", str(n_made), "4", str(code)]


def test_files_of_others_are_not_replaced(folder: Path, cli: Callable[..., Any]) -> None:
    shutil.copy("warps/40/g/warp_g_0.fits", "out/40/merged.fits")
    outcome = cli("run", "tract.toml", "-q")
    assert outcome.code == 73
    assert "out/40/merged.fits: exists" in outcome.err
    assert cli("run", "tract.toml", "-q", "--overwrite").code == 0


def test_patches() -> None:
    """Ranges are expanded; no patch is needed where no name holds one."""
    one = {"bands": ("g",), "warps": "w_{band}.fits", "folder": "out"}
    assert patches_of(RunParams(**one)) == [""]
    many = {"bands": ("g",), "patches": ("8..11", "x", "3,4")}
    assert patches_of(RunParams(**many)) == ["8", "9", "10", "11", "x", "3,4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no bands"),
        ({"bands": ("g", "r"), "warps": "*.fits"}, "with several bands it needs {band}"),
        ({"bands": ("g",)}, "no patches, but warps is 'warps/{patch}"),
        ({"bands": ("g",), "warps": "*.fits"}, "no patches, but folder is '{patch}'"),
        ({"bands": ("g",), "patches": ("1", "2"), "folder": "out"}, "folder is 'out'; with sev"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        patches_of(RunParams(**options))


def test_wrong_files(in_folder: Path, cli: Callable[..., Any]) -> None:
    assert cli("run", "none.toml").code == 78
    Path("tract.toml").write_text(TRACT.replace("bands", "band"))
    outcome = cli("run", "tract.toml")
    assert outcome.code == 78
    assert "line 3: [run] has no option 'band'\n  did you mean bands?" in outcome.err
    Path("tract.toml").write_text(TRACT + "[deblend]\nmax-itr = 3\n")
    assert cli("run", "tract.toml").code == 78
    Path("tract.toml").write_text(TRACT)
    for option in ("--detect-on", "matched"), ("--products", "matched,heavy"):
        outcome = cli("run", "tract.toml", *option, "--dry-run")
        assert (outcome.code, outcome.out) == (2, "")
        assert 'reference = "moffat:fwhm=5.2,beta=3" in [psf-match]' in outcome.err
    assert not Path("out").exists()


SIDE_PRODUCTS = """
psf-match coadd_g.fits --reference gaussian:fwhm=7 --save-kernel k.fits --save-nodes t.fits
detect coadd_g.fits --polarity both --bg-mesh 32 --out-image i.fits --out-snr s.fits \
    --out-segmentation l.fits
merge-detections det_g.fits det_r.fits --out-segmentation m.fits
deblend merged.fits coadd_g.fits coadd_r.fits --algorithm sdss --set heavy=d_{band}.fits \
    --set not_deblended=n.fits
refit deblended.fits coadd_g.fits coadd_r.fits --blend {blend}
reconstruct-footprints deblended.fits coadd_g.fits coadd_r.fits --model-image r_{band}.fits \
    --set spans=true --heavy h_{band}.fits
reconstruct-footprints deblended.fits coadd_g.fits coadd_r.fits --blend {blend} --cutout c.fits
clean deblended.fits coadd_g.fits coadd_r.fits
warp coadd_g.fits --like coadd_r.fits --set compress=lossy
assemble-coadd {warps} --statistic median --set input_map=true --unit nJy
simulate sky --blends 1 --singles 1
"""


@pytest.mark.peer
def test_fitsverify_finds_nothing_in_any_file(folder: Path, cli: Callable[..., Any]) -> None:
    """HEASARC's verifier, on what all commands write with all side products."""
    program = shutil.which("fitsverify")
    if program is None:
        pytest.skip("fitsverify is not installed")
    os.chdir("out/40")
    blend = read_models("deblended.fits").blends["id"][0]
    lines = SIDE_PRODUCTS.replace("\\\n", "").replace("{blend}", str(blend))
    lines = lines.replace(
        "{warps}", "../../warps/40/g/warp_g_0.fits ../../warps/40/g/warp_g_1.fits"
    )
    for number, line in enumerate(lines.strip().splitlines()):
        output = [] if line.startswith("simulate") else ["-o", f"side_{number}.fits"]
        outcome = cli(*line.split(), *output, "-q")
        assert outcome.code == 0, outcome.err
    files = sorted(folder.rglob("*.fits"))
    assert len(files) > 30
    done = subprocess.run([program, "-q", *map(str, files)], capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if "verification OK" not in line] == []


def test_json_of_a_failure_says_so(folder: Path, cli: Callable[..., Any]) -> None:
    """Status and code are those of the exit, though other patches are done."""
    outcome = cli("run", "tract.toml", "--patches", "40,41", "--json")
    summary = json.loads(outcome.out)
    assert outcome.code == 66
    assert (summary["status"], summary["exit"], summary["n_failed"]) == ("error", 66, 1)
