"""The chain on the sample data, run once for all tests, and the comparison with the truth."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def compare() -> ModuleType:
    """``sample_data/compare.py`` as a module."""
    path = ROOT / "sample_data" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare_with_truth", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_chain() -> Callable[..., None]:
    """Return a function that runs ``make chain`` on the sample data with this interpreter."""

    def run(folder: Path, *settings: str) -> None:
        if " " in f"{folder}{ROOT}":
            pytest.skip("make does not work in folders whose names have blanks")
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "COBLEND"))
        }
        done = subprocess.run(
            ["make", "-C", str(ROOT), "chain", f"COBLEND={sys.executable} -m coblend",
             "OPTIONS=-q", f"OUT={folder}", *settings],
            capture_output=True, text=True, timeout=600,
            env={**environment, "SOURCE_DATE_EPOCH": "0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def demo(make_chain: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the chain makes of the sample data."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    make_chain(folder)
    return folder
