"""Every command against every defective input.

A command must end with the exit code of the table, say in at most six lines what is wrong and
name the file, show no traceback, and leave the folder as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from coblend.cli.main import COMMANDS, run

BANDS = ("g", "r")

GOOD = {
    "assemble-coadd": ["warp_g_0.fits", "warp_g_1.fits", "--unit", "nJy"],
    "psf-match": ["coadd_g.fits", "--reference", "gaussian:fwhm=6"],
    "detect": ["coadd_g.fits"],
    "merge-detections": ["det_g.fits", "det_r.fits"],
    "deblend": ["merged.fits", "coadd_g.fits", "coadd_r.fits"],
    "reconstruct-footprints": ["deblended.fits", "coadd_g.fits", "coadd_r.fits"],
    "refit": ["deblended.fits", "coadd_g.fits", "coadd_r.fits", "--add-peaks", "40,40"],
    "clean": ["deblended.fits", "coadd_g.fits", "coadd_r.fits"],
    "warp": ["warp_g_1.fits", "--like", "coadd_g.fits"],
}
"""Arguments of a run that works, without ``-o``; the last input gets the defect."""

VICTIM = {
    "assemble-coadd": "warp_g_1.fits",
    "psf-match": "coadd_g.fits",
    "detect": "coadd_g.fits",
    "merge-detections": "det_r.fits",
    "deblend": "coadd_r.fits",
    "reconstruct-footprints": "coadd_r.fits",
    "refit": "coadd_r.fits",
    "clean": "coadd_r.fits",
    "warp": "warp_g_1.fits",
    "info": "coadd_r.fits",
    "verify": "coadd_r.fits",
}
"""The input that gets the defect."""


WITHOUT_INPUT = {"simulate": ["simulate", "sky"]}
"""Commands that read no file, and arguments of theirs."""

ELSEWHERE = {"show", "config", "run"}
"""Commands whose own tests try wrong inputs."""


# -- defects: each turns a good file into a bad one


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def cut_between_hdus(path: Path) -> None:
    """End the file where its last HDU starts: every remaining HDU is whole."""
    with fits.open(path) as hdus:
        end = hdus[-1]._header_offset
    path.write_bytes(path.read_bytes()[:end])


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 200)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write the file again, uncompressed, after ``change`` of its HDUs by name."""
    with fits.open(path) as hdus:
        primary = hdus[0].header.copy()
        for key in ("CHECKSUM", "DATASUM"):  # of the old header
            primary.remove(key, ignore_missing=True)
        kept: dict[str, Any] = {}
        for hdu in hdus[1:]:
            header = hdu.header.copy()
            for key in ("CHECKSUM", "DATASUM"):  # older astropy keeps those of other pixels
                header.remove(key, ignore_missing=True)
            if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
                kept[hdu.name] = fits.BinTableHDU(hdu.data.copy(), header)
            else:
                kept[hdu.name] = fits.ImageHDU(hdu.data.copy(), header)
    change(kept)
    primary["NEXTEND"] = len(kept)
    fits.HDUList([fits.PrimaryHDU(header=primary), *kept.values()]).writeto(path, overwrite=True)


def no_variance(path: Path) -> None:
    rewrite(path, lambda hdus: hdus.pop("VARIANCE"))


def no_psf(path: Path) -> None:
    rewrite(path, lambda hdus: [hdus.pop(n) for n in list(hdus) if n.startswith("PSF")])


def even_psf(path: Path) -> None:
    def change(hdus: dict[str, Any]) -> None:
        y = np.arange(20) - 9.5
        stamp = np.exp(-0.5 * (y[:, None] ** 2 + y**2) / 4).astype(np.float32)
        for name in [n for n in hdus if n.startswith("PSF")]:
            del hdus[name]
        hdus["PSF"] = fits.ImageHDU(stamp / stamp.sum(), name="PSF")

    rewrite(path, change)


def smaller_mask(path: Path) -> None:
    def change(hdus: dict[str, Any]) -> None:
        hdus["MASK"].data = hdus["MASK"].data[:-7, :-5].copy()

    rewrite(path, change)


def smaller_image(path: Path) -> None:
    """All planes lose rows: the file is sound, but does not fit the others."""

    def change(hdus: dict[str, Any]) -> None:
        for name in ("IMAGE", "MASK", "VARIANCE", "NIMAGE", "WEIGHT"):
            if name in hdus:
                hdus[name].data = hdus[name].data[:-7].copy()

    rewrite(path, change)


def other_wcs(path: Path) -> None:
    def change(hdus: dict[str, Any]) -> None:
        for hdu in hdus.values():
            if "CRVAL1" in hdu.header:
                hdu.header["CRVAL1"] += 0.01

    rewrite(path, change)


def all_nan(path: Path) -> None:
    rewrite(path, lambda hdus: hdus["IMAGE"].data.fill(np.nan))


def negative_variance(path: Path) -> None:
    rewrite(path, lambda hdus: hdus["VARIANCE"].data.fill(-1.0))


def no_band(path: Path) -> None:
    def change(hdus: dict[str, Any]) -> None:
        for hdu in hdus.values():
            for key in ("BAND", "FILTER", "BAND1"):
                hdu.header.remove(key, ignore_missing=True)

    rewrite(path, change)
    with fits.open(path, mode="update") as hdus:
        for key in ("BAND", "FILTER", "BAND1"):
            hdus[0].header.remove(key, ignore_missing=True)


ALL = tuple(VICTIM)
IMAGES = tuple(c for c in GOOD if c != "merge-detections")
NEED_DATA = tuple(c for c in IMAGES if c not in ("assemble-coadd", "refit"))
"""The two leave out a warp, or a band of a blend, in which no pixel is usable."""
CUBES = ("deblend", "reconstruct-footprints", "refit", "clean")
TABLE: dict[Callable[[Path], None], dict[str, int]] = {
    missing: dict.fromkeys(ALL, 66),
    truncated: dict.fromkeys(ALL, 65),
    cut_between_hdus: dict.fromkeys(ALL, 65),
    html: dict.fromkeys(ALL, 65),
    empty: dict.fromkeys(ALL, 65),
    no_variance: dict.fromkeys(IMAGES, 65),
    smaller_mask: dict.fromkeys(IMAGES, 65),
    smaller_image: dict.fromkeys(CUBES, 65),
    other_wcs: dict.fromkeys(("assemble-coadd", "merge-detections", *CUBES), 65),
    all_nan: dict.fromkeys(NEED_DATA, 65),
    negative_variance: dict.fromkeys(NEED_DATA, 65),
    no_psf: dict.fromkeys(("psf-match", "detect", "deblend"), 65),
    even_psf: dict.fromkeys(("assemble-coadd", "psf-match", "detect", "deblend", "warp"), 65),
    no_band: dict.fromkeys(("merge-detections", *CUBES), 65),
}
"""Exit code of each command for each defect, where the defect concerns the command."""
CASES = [
    pytest.param(defect, command, code, id=f"{command}-{defect.__name__}")
    for defect, codes in TABLE.items()
    for command, code in codes.items()
]


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated patch and everything that the chain makes of it."""
    folder = tmp_path_factory.mktemp("defects") / "chain"
    options = ["--bands", ",".join(BANDS), "--size", "96", "--blends", "1", "--singles", "1"]

    def step(*arguments: str) -> None:
        assert run([*(str(a) for a in arguments), "-q"]) == 0

    step("simulate", str(folder), *options, "--epochs", "2")
    for band in BANDS:
        coadd = f"{folder}/coadd_{band}.fits"
        warps = [f"{folder}/warp_{band}_{i}.fits" for i in range(2)]
        step("assemble-coadd", *warps, "-o", coadd, "--unit", "nJy")
        step("detect", coadd, "-o", f"{folder}/det_{band}.fits")
    coadds = [f"{folder}/coadd_{band}.fits" for band in BANDS]
    dets = [f"{folder}/det_{band}.fits" for band in BANDS]
    step("merge-detections", *dets, "-o", f"{folder}/merged.fits")
    step("deblend", f"{folder}/merged.fits", *coadds, "-o", f"{folder}/deblended.fits")
    return folder


@pytest.fixture
def folder(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the chain's files, and the working directory."""
    copy = tmp_path / "work"
    shutil.copytree(chain, copy)
    monkeypatch.chdir(copy)
    return copy


def arguments_of(command: str, output: str = "out.fits") -> list[str]:
    if command in ("info", "verify"):
        return [command, VICTIM[command]]
    return [command, *GOOD[command], "-o", output]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below ``folder``, hidden ones too."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def test_every_command_is_tried() -> None:
    assert set(COMMANDS) == {*VICTIM, *WITHOUT_INPUT, *ELSEWHERE}


def check_refusal(outcome: Any, code: int, name: str) -> None:
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 6, outcome.err
    assert name in outcome.err
    assert outcome.out == "" or "status" in outcome.out  # verify lists what it has checked


@pytest.mark.parametrize("command", GOOD)
def test_good_input_is_accepted(command: str, folder: Path, cli: Callable[..., Any]) -> None:
    """Without a defect the same arguments work: what follows fails for its defect alone."""
    assert cli(*arguments_of(command)).code == 0
    assert (folder / "out.fits").exists()


@pytest.mark.parametrize("command", GOOD)
def test_rewritten_input_is_accepted(command: str, folder: Path, cli: Callable[..., Any]) -> None:
    """The rewriting that carries the defects is none itself."""
    rewrite(folder / VICTIM[command], lambda hdus: None)
    assert cli(*arguments_of(command)).code == 0


@pytest.mark.parametrize(("defect", "command", "code"), CASES)
def test_defective_input(
    defect: Callable[[Path], None], command: str, code: int, folder: Path, cli: Callable[..., Any]
) -> None:
    defect(folder / VICTIM[command])
    before = state(folder)
    outcome = cli(*arguments_of(command))
    check_refusal(outcome, code, VICTIM[command])
    assert state(folder) == before


@pytest.mark.parametrize("defect", [missing, truncated, html, empty])
@pytest.mark.parametrize(
    ("command", "catalogue"),
    [
        ("deblend", "merged.fits"),
        ("reconstruct-footprints", "deblended.fits"),
        ("refit", "deblended.fits"),
        ("clean", "deblended.fits"),
    ],
)
def test_defective_catalogue(
    defect: Callable[[Path], None],
    command: str,
    catalogue: str,
    folder: Path,
    cli: Callable[..., Any],
) -> None:
    defect(folder / catalogue)
    before = state(folder)
    check_refusal(cli(*arguments_of(command)), 66 if defect is missing else 65, catalogue)
    assert state(folder) == before


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("assemble-coadd", "merged.fits"),
        ("psf-match", "det_g.fits"),
        ("detect", "merged.fits"),
        ("merge-detections", "coadd_r.fits"),
        ("deblend", "deblended.fits"),
        ("reconstruct-footprints", "merged.fits"),
        ("refit", "merged.fits"),
        ("clean", "merged.fits"),
        ("warp", "merged.fits"),
    ],
)
def test_file_of_another_kind(
    command: str, wrong: str, folder: Path, cli: Callable[..., Any]
) -> None:
    """One of our own files in the wrong place (first argument) is named as what it is."""
    arguments = arguments_of(command)
    arguments[1] = wrong
    before = state(folder)
    check_refusal(cli(*arguments), 65, wrong)
    assert state(folder) == before


@pytest.mark.parametrize("command", ["assemble-coadd", "detect"])
def test_all_inputs_without_data(command: str, folder: Path, cli: Callable[..., Any]) -> None:
    for path in folder.glob("*_g*.fits"):
        if path.name.startswith(("warp", "coadd")):
            all_nan(path)
    before = state(folder)
    outcome = cli(*arguments_of(command))
    assert outcome.code == 65, outcome.err
    assert "Traceback" not in outcome.err
    assert state(folder) == before


# -- what is not an input


@pytest.mark.parametrize("command", [*VICTIM, *WITHOUT_INPUT])
def test_unknown_option(command: str, folder: Path, cli: Callable[..., Any]) -> None:
    arguments = WITHOUT_INPUT.get(command) or arguments_of(command)
    before = state(folder)
    for extra in (["--no-such-option"], ["--set", "no_such_option=1"]):
        outcome = cli(*arguments, *extra)
        assert outcome.code == 2
        named = ("no-such-option", "no_such_option", "--set")  # not all commands have --set
        assert any(text in outcome.err for text in named)
        assert "Traceback" not in outcome.err
        assert len(outcome.err.strip().splitlines()) <= 6
    assert state(folder) == before


@pytest.mark.parametrize("command", [*GOOD, "simulate"])
def test_existing_output(command: str, folder: Path, cli: Callable[..., Any]) -> None:
    """Refused with a hint; the old file stays as it was."""
    if command == "simulate":
        arguments, name = ["simulate", "."], "truth.fits"
    else:
        arguments, name = arguments_of(command), "out.fits"
        (folder / name).write_text("mine")
    before = state(folder)
    outcome = cli(*arguments)
    check_refusal(outcome, 73, name)
    assert "--overwrite" in outcome.err
    assert state(folder) == before


@pytest.mark.parametrize("command", [*GOOD, "simulate"])
def test_folder_that_cannot_be_written(
    command: str, folder: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without write permission (root would be let in, hence the stand-in)."""
    (folder / "locked").mkdir()
    import os

    permitted = os.access
    locked = str(folder / "locked")
    monkeypatch.setattr(
        os, "access", lambda p, mode: not str(p).startswith(locked) and permitted(p, mode)
    )
    arguments = arguments_of(command, "locked/out.fits") if command in GOOD else [command, locked]
    before = state(folder)
    check_refusal(cli(*arguments), 73, "locked")
    assert state(folder) == before


@pytest.mark.parametrize("command", [*GOOD, "simulate"])
def test_output_below_a_file(command: str, folder: Path, cli: Callable[..., Any]) -> None:
    (folder / "file").write_text("not a folder")
    arguments = arguments_of(command, "file/out.fits") if command in GOOD else [command, "file"]
    before = state(folder)
    check_refusal(cli(*arguments), 73, "file")
    assert state(folder) == before


@pytest.mark.parametrize(
    ("command", "spec"),
    [("deblend", "u=coadd_r.fits"), ("reconstruct-footprints", "u=coadd_r.fits")],
)
def test_band_that_the_others_do_not_know(
    command: str, spec: str, folder: Path, cli: Callable[..., Any]
) -> None:
    """A band without detections can still be deblended, but not reconstructed without models."""
    arguments = [spec if a == "coadd_r.fits" else a for a in arguments_of(command)]
    outcome = cli(*arguments)
    if command == "deblend":
        assert outcome.code == 0
    else:
        check_refusal(outcome, 65, "coadd_r.fits")
        assert "u" in outcome.err
        assert not (folder / "out.fits").exists()
