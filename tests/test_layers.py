"""The layers import only what they may, and the layout is what the packaging says."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from astropy.units import Unit

ROOT = Path(__file__).resolve().parent.parent
RECORDS = {
    "bands", "box", "catalog", "detection", "errors", "exposure", "footprint", "mask", "model",
    "params", "psf", "region",
}  # fmt: skip
NEVER_IN_CORE = {
    "click", "rich", "astropy", "fitsio", "logging", "os", "pathlib", "matplotlib", "sys",
}  # fmt: skip
MODULES = sorted(p for layer in ("core", "io", "cli") for p in (ROOT / layer).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of everything that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "coblend":
                yield from (f"coblend.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    for name in imports_of(path):
        top = name.split(".")[0]
        ours = name.split(".") if top == "coblend" else []
        if layer == "core":
            assert top not in NEVER_IN_CORE, f"core imports {name}"
            assert not ours or ours[1] == "core", f"core imports {name}"
        if layer == "io":
            assert top not in {"click", "rich", "matplotlib"}, f"io imports {name}"
            assert not ours or ours[1] != "cli", f"io imports {name}"
            if ours and ours[1] == "core":
                assert ours[2] in RECORDS, f"io imports the algorithm {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_short_and_bear_no_standard_name(path: Path) -> None:
    assert path.stem not in sys.stdlib_module_names or path.stem == "__init__"
    assert len(path.read_text().splitlines()) <= 400


def test_packages_listed_are_the_folders_with_init() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(config["tool"]["setuptools"]["packages"]) - {"coblend"}
    found = {
        "coblend." + ".".join(p.parent.relative_to(ROOT).parts)
        for layer in ("core", "io", "cli")
        for p in (ROOT / layer).rglob("__init__.py")
    }
    assert listed == found


def test_source_folder_holds_links_only() -> None:
    names = {p.name for p in (ROOT / "src" / "coblend").iterdir()} - {"__pycache__"}
    assert names == {
        "__init__.py", "__main__.py", "_version.py", "py.typed", "cli", "core", "io",
    }  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_columns_have_a_ucd_and_units_of_the_standard(path: Path) -> None:
    """As docs/formats.md promises; astropy then reads every unit without a warning."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Column"):
            continue
        given = dict(zip(("name", "dtype", "description", "unit", "ucd"), node.args, strict=False))
        given |= {str(keyword.arg): keyword.value for keyword in node.keywords}
        texts = {key: getattr(value, "value", "?") for key, value in given.items()}
        if texts["description"]:
            assert texts.get("ucd"), f"{path}:{node.lineno}: no UCD"
        if texts.get("unit", "?") not in ("", "?", "flux"):
            Unit(texts["unit"], format="fits")
