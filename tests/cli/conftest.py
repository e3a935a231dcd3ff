"""Running the program inside the test's process, with stdout and stderr apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from coblend.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What one run of the program left."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that runs ``coblend ARGUMENTS`` and returns code and output."""

    def invoke(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return invoke
