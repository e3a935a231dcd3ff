"""Where values come from, and what is said of wrong ones."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from coblend.cli.config import (
    Resolved,
    check_assignments,
    check_environment,
    config_files,
    dump,
    resolve,
    without_folder,
)
from coblend.core.errors import ConfigError, ParameterError
from coblend.core.params.common import CommonParams
from coblend.core.params.detect import DetectParams
from coblend.core.params.field import Checked, option


@dataclass(frozen=True, slots=True)
class FakeParams(Checked):
    PRESETS: ClassVar[dict[str, dict[str, object]]] = {"loose": {"max_iter": 7, "mode": "b"}}

    max_iter: int = option(300, "Most iterations.", minimum=0, shown=True, alias="maxIter")
    rel_error: float = option(1e-3, "Relative error.", minimum=0, maximum=1)
    mode: str = option("a", "Mode.", choices=("a", "b"))
    planes: tuple[str, ...] = option(("BAD",), "Planes.")
    radii: tuple[float, ...] = option((1.0, 2.5), "Radii.", unit="pixel")
    limit: int | None = option(None, "Limit.")
    fast: bool = option(False, "Fast.")


def fake(**sources: object) -> Resolved:
    return resolve(FakeParams, "deblend", **{"given": {}, **sources})  # type: ignore[arg-type]


def test_every_source_overrides_the_one_before(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.toml").write_text("[deblend]\nmax-iter = 11\n")
    Path("b.toml").write_text("[deblend]\nmaxIter = 12\n[common]\njobs = 3\n")
    seen = [fake()]
    seen.append(fake(preset="loose"))
    seen.append(fake(preset="loose", files=["a.toml"]))
    seen.append(fake(preset="loose", files=["a.toml", "b.toml"]))
    monkeypatch.setenv("COBLEND_DEBLEND_MAX_ITER", "13")
    seen.append(fake(preset="loose", files=["a.toml", "b.toml"]))
    seen.append(fake(files=["a.toml"], assignments=["max_iter=14"]))
    seen.append(fake(files=["a.toml"], assignments=["max_iter=14"], given={"max_iter": "15"}))
    assert [s.params.max_iter for s in seen] == [300, 7, 11, 12, 13, 14, 15]
    assert [s.sources["max_iter"] for s in seen] == [
        "default", "preset loose", "a.toml", "b.toml", "environment", "command line",
        "command line",
    ]  # fmt: skip
    assert seen[3].params.mode == "b", "the preset still holds where nothing else does"
    common = resolve(CommonParams, "deblend", given={}, files=["b.toml"])
    assert common.params.jobs == 3


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("planes=SAT, CR", "planes", ("SAT", "CR")),
        ("planes=a[1:2,3:4], b[1:2,5:6]", "planes", ("a[1:2,3:4]", "b[1:2,5:6]")),
        ("radii=3,4.5", "radii", (3.0, 4.5)),
        ("limit=none", "limit", None),
        ("limit=5", "limit", 5),
        ("fast=yes", "fast", True),
        ("relative=1", None, None),
        ("rel-error=1e-4", "rel_error", 1e-4),
        ("maxIter=3", "max_iter", 3),
    ],
)
def test_set_converts_by_type(text: str, name: str | None, value: object) -> None:
    if name is None:
        with pytest.raises(ParameterError, match="no option 'relative'"):
            check_assignments((FakeParams, CommonParams), [text])
        return
    assert getattr(fake(assignments=[text]).params, name) == value


def test_a_dump_is_a_configuration_with_the_same_values(in_folder: Path) -> None:
    resolved = fake(assignments=["radii=3,4.5", "fast=true"], preset="loose")
    Path("dump.toml").write_text(dump({"deblend": resolved}))
    again = fake(files=["dump.toml"])
    assert again.params == resolved.params
    Path("again.toml").write_text(dump({"deblend": again}))
    assert dump({"deblend": fake(files=["again.toml"])}).replace("again", "dump") == dump(
        {"deblend": again}
    )
    assert "fast = true  # command line" in Path("dump.toml").read_text()
    tomllib.loads(Path("dump.toml").read_text())


def test_the_local_file_and_the_variable_are_found(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config_files(["x.toml"]) == ["x.toml"]
    Path("coblend.toml").write_text("")
    monkeypatch.setenv("COBLEND_CONFIG", "survey.toml")
    assert config_files(["x.toml"]) == ["coblend.toml", "survey.toml", "x.toml"]


def test_unknown_variables_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COBLEND_DEBLEND_MAXITER", "3")
    monkeypatch.setenv("COBLEND_DETECT_THRESHOLD", "3")
    monkeypatch.setenv("COBLEND_OVERWRITE", "1")
    with caplog.at_level("WARNING", "coblend"):
        check_environment("deblend", FakeParams)
    assert [r.args for r in caplog.records] == [("COBLEND_DEBLEND_MAXITER",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "[deblend]\nmax-itr = 3\n",
            r"a\.toml: line 2: \[deblend\] has no option 'max-itr'\n.*max-iter",
        ),
        (
            "[deblend]\nmax-iter = 4\nmaxIter = 3\n",
            r"a\.toml: line 3: \[deblend\] maxIter is given twice: max-iter is the same",
        ),
        ("[deblnd]\nmax-iter = 3\n", r"line 1: no command \[deblnd\]\n.*deblend"),
        ("[deblend\n", r"a\.toml: not valid TOML"),
        ("max-iter = 3\n", "max-iter stands outside a section"),
        ("[deblend]\nmax-iter = 'x'\n", r"\[deblend\] max-iter: 'x' is not a whole number"),
        ("[deblend]\nmax-iter = 3.5\n", "not a whole number"),
        ("[deblend]\nmax-iter = -1\n", "option max_iter is -1; allowed: 0 or more"),
        ("[deblend]\nmode = 'c'\n", "option mode is 'c'; allowed: a, b"),
        ("[deblend]\nfast = 3\n", "not true or false"),
    ],
)
def test_wrong_files(in_folder: Path, content: str, message: str) -> None:
    Path("a.toml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        fake(files=["a.toml"])


def test_missing_files_and_wrong_assignments() -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        fake(files=["none.toml"])
    with pytest.raises(ParameterError, match="is not KEY=VALUE"):
        fake(assignments=["max_iter"])
    with pytest.raises(ParameterError, match="--set rel_error: 'x' is not a number"):
        fake(assignments=["rel_error=x"])
    with pytest.raises(ParameterError, match="allowed: 0 to 1"):
        fake(assignments=["rel_error=nan"])
    with pytest.raises(ParameterError, match=r"allowed: 0 to 16777215$"):  # no digit rounded
        DetectParams(field_id=1 << 24)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("coadd.fits", "coadd.fits"),
        ("/data/p42/coadd.fits[IMAGE]", "coadd.fits[IMAGE]"),
        ("g=p42/coadd.fits", "g=coadd.fits"),
        ("--heavy=out/{band}.heavy.fits", "--heavy={band}.heavy.fits"),
        ("@lists/g.txt", "@g.txt"),
        ("g=@lists/g.txt", "g=@g.txt"),
        ("out/", "out"),
        ("gaussian:fwhm=6", "gaussian:fwhm=6"),
    ],
)
def test_without_folder(text: str, expected: str) -> None:
    assert without_folder(text) == expected
