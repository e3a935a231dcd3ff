"""A worker that dies takes only its own item with it, and none outlives the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coblend.cli import deblend
from coblend.cli.config import resolve
from coblend.cli.run import Run
from coblend.core.box import Box
from coblend.core.deblend.batch import Batch, CutOuts
from coblend.core.errors import ResourceError
from coblend.core.params.common import CommonParams
from coblend.core.params.deblend import DeblendParams

DIE = "__import__('os')._exit(9)"
ITEMS = [f"{i} + 1" for i in range(12)]


class Killer:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (9,)

    def __call__(self, _: object) -> None:
        raise AssertionError


@pytest.fixture
def run() -> Run:
    common = resolve(CommonParams, "deblend", given={"jobs": 2})
    return Run("deblend", "", common, resolve(DeblendParams, "deblend", given={}))


def test_only_the_culprit_is_lost(run: Run) -> None:
    """Everything else has its result, in order; ``eval`` is a function that can kill."""
    items = [*ITEMS[:3], DIE, *ITEMS[3:], DIE]
    results = list(run.map(eval, items, lambda item: -1))
    assert results == [1, 2, 3, -1, *range(4, 13), -1]


def test_without_a_stand_in_the_run_ends(run: Run) -> None:
    with pytest.raises(ResourceError, match="worker process died"):
        list(run.map(eval, [*ITEMS, DIE]))


def test_errors_of_the_function_still_pass(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run.map(eval, ["1", "1 / 0"], lambda item: 0))


def test_blends_of_a_lost_batch_fail_one_by_one(run: Run) -> None:
    """Of a batch that kills its worker, every blend is tried alone and fails by name."""
    zero = np.zeros(2, np.int64)
    image = np.zeros((2, 1, 4, 4), np.float32)
    cut = CutOuts(np.arange(2), image, image, np.ones((2, 4, 4), bool))
    batch = Batch(
        np.array([5, 7]), (Box(0, 0, 4, 4),) * 2, (cut,), np.ones((1, 1, 3, 3), np.float32),
        zero, np.arange(2), zero, zero, np.ones(1),
    )  # fmt: skip
    results = deblend._lost(run, Killer(), batch)
    assert [(r.parent, r.error) for r in results] == [(5, "WorkerLost"), (7, "WorkerLost")]


SLEEPERS = """
import signal
from coblend.cli import main, workers

def run(arguments, prog_name):
    list(workers.map_parallel(eval, ["__import__('tests_sleeper')"] * 9, 2))

main.run = run
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it
    main.main()
"""


@pytest.mark.parametrize(
    ("send", "number", "code"),
    [
        (os.kill, signal.SIGTERM, 143),
        (os.kill, signal.SIGINT, 130),
        (os.killpg, signal.SIGINT, 130),
        (os.kill, signal.SIGKILL, -9),
    ],
)
def test_workers_end_with_the_program(
    tmp_path: Path, send: Callable[[int, int], None], number: int, code: int
) -> None:
    """Also those at work, if it is killed too; Ctrl-C of the terminal is one message."""
    (tmp_path / "program.py").write_text(SLEEPERS)
    sleeper = "import time\nprint(1, flush=True)\ntime.sleep(300)\n"
    (tmp_path / "tests_sleeper.py").write_text(sleeper)
    with subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(2):
            process.stdout.readline()
        send(process.pid, number)
        assert process.wait(60) == code
        assert process.stdout.read() == ""  # which ends when the last worker has
        message = "" if number == signal.SIGKILL else "coblend: interrupted\n"
        assert process.stderr.read() == message
