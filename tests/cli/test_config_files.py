"""Configuration files: written with all options, and checked line by line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coblend.cli.config import resolve
from coblend.cli.config_files import params_classes, problems, template
from coblend.core.params.field import options_of


def switched_on(text: str) -> str:
    """The same file with every option in force."""
    lines = text.splitlines()
    return "\n".join(
        line[1:] if line[:1] == "#" and line[1:2].islower() else line for line in lines
    )


def test_a_template_holds_every_option_with_its_default(in_folder: Path) -> None:
    """As it stands it changes nothing; with every line switched on it says the defaults."""
    text = template()
    assert all(not table for table in tomllib.loads(text).values())
    Path("all.toml").write_text(switched_on(text))
    assert problems("all.toml") == []
    sections = tomllib.loads(Path("all.toml").read_text())
    for name, cls in params_classes().items():
        specs = options_of(cls)
        assert len(sections.get(name, {})) == len(specs)
        if name != "common":
            found = resolve(cls, name, given={}, files=["all.toml"])
            assert all(getattr(found.params, s.name) == s.default for s in specs)
            assert set(found.sources.values()) <= {"all.toml"}
    assert max(map(len, text.splitlines())) < 100


def test_a_template_of_some_commands(cli: Callable[..., Any]) -> None:
    text = cli("config", "init", "detect", "show").out
    assert list(tomllib.loads(text)) == ["common", "detect", "show"]
    assert "#threshold = " in text


def test_right_files(in_folder: Path, cli: Callable[..., Any]) -> None:
    Path("a.toml").write_text("[deblend]\nmaxIter = 5\n[common]\njobs = 2\n")
    Path("b.toml").write_text("")
    outcome = cli("config", "check", "a.toml", "b.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.split() == ["file", "status", "a.toml", "ok", "b.toml", "ok"]


def test_every_wrong_line_is_named(in_folder: Path, cli: Callable[..., Any]) -> None:
    """The first few on the screen, all in the JSON summary."""
    Path("good.toml").write_text("[detect]\n")
    Path("bad.toml").write_text(
        "[deblend]\nmax-iter = 3\nmax-itr = 3  # a comment\n\n"
        "[detect]\n'thresholt' = 4\nthreshold = 'five'\n"
    )
    outcome = cli("config", "check", "good.toml", "bad.toml")
    assert outcome.code == 78
    assert outcome.err.splitlines() == [
        "coblend: bad.toml: line 3: [deblend] has no option 'max-itr'",
        "  did you mean max-iter?",
        "  bad.toml: line 6: [detect] has no option 'thresholt'",
        "  bad.toml: line 7: [detect] threshold: 'five' is not a number",
    ]
    assert outcome.out.split()[2:] == ["good.toml", "ok", "bad.toml", "wrong"]
    Path("bad.toml").write_text(
        "x = 1\n[detect]\nthreshhold = 4\n[dtect]\n[deblend]\nmax-iter = 'a'\n"
    )
    messages = [error.message for error in problems("bad.toml")]
    assert messages == [
        "x stands outside a section",
        "line 3: [detect] has no option 'threshhold'",
        "line 4: no command [dtect]",
        "line 6: [deblend] max-iter: 'a' is not a whole number",
    ]
    Path("bad.toml").write_text("[deblend]\n" + "".join(f"nope-{i} = 1\n" for i in range(9)))
    outcome = cli("config", "check", "bad.toml", "--json")
    assert len(outcome.err.splitlines()) <= 6
    assert "and 5 more" in outcome.err
    assert len(json.loads(outcome.out.splitlines()[0])["problems"]) == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "[deblend]\nmax-iter = 4\nmaxIter = 3\n",
            "bad.toml: line 3: [deblend] maxIter is given twice: max-iter is the same",
        ),
        ("[deblnd]\n", "bad.toml: line 1: no command [deblnd]\n  did you mean deblend?"),
        ("x = [\n", "bad.toml: not valid TOML"),
        ("jobs = 3\n", "bad.toml: jobs stands outside a section"),
    ],
)
def test_files_that_cannot_be_read(
    content: str, message: str, in_folder: Path, cli: Callable[..., Any]
) -> None:
    Path("bad.toml").write_text(content)
    outcome = cli("config", "check", "bad.toml")
    assert outcome.code == 78
    assert message in outcome.err


def test_wrong_arguments(in_folder: Path, cli: Callable[..., Any]) -> None:
    assert cli("config", "check", "none.toml").code == 78
    assert cli("config", "check").code == 2
    assert cli("config", "chekc").code == 2
    outcome = cli("config", "init", "deblnd")
    assert outcome.code == 2
    assert "no command 'deblnd'\n  did you mean deblend?" in outcome.err


def test_options_that_do_not_fit_together(in_folder: Path, cli: Callable[..., Any]) -> None:
    """Each line is right; an earlier file may give what the last one needs."""
    Path("tract.toml").write_text('[run]\nbands = ["i"]\nproducts = ["matched"]\n')
    outcome = cli("config", "check", "tract.toml")
    assert outcome.code == 78
    assert "tract.toml: [run] give either --reference or --apply-kernel" in outcome.err
    assert "in [psf-match]" in outcome.err
    Path("reference.toml").write_text('[psf-match]\nreference = "gaussian:fwhm=6"\n')
    assert cli("config", "check", "reference.toml", "tract.toml").code == 0
    Path("tract.toml").write_text('[run]\nbands = ["i"]\n[psf-match]\nkernel-size = 4\n')
    outcome = cli("config", "check", "tract.toml")
    assert outcome.code == 78
    assert "tract.toml: [psf-match] option kernel_size is 4" in outcome.err
