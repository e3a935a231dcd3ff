"""TOML files: sections, lines, and names near to wrong ones."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from coblend.core.errors import ConfigError


def load_file(path: str) -> dict[str, dict[str, Any]]:
    """Sections of a TOML file.

    Raises
    ------
    ConfigError
        It cannot be read, is not TOML, or has a section that is no command.
    """
    content = parse_file(path)
    for section, table in content.items():
        check_section(path, section, table)
    return content


def parse_file(path: str) -> dict[str, Any]:
    """Content of a TOML file.

    Raises
    ------
    ConfigError
        It cannot be read, or is not TOML.
    """
    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", path) from error


def check_section(path: str, section: str, table: Any) -> None:
    """Refuse what is no section, and a section that is no command.

    Raises
    ------
    ConfigError
        With the line and the nearest valid name.
    """
    from coblend.cli.main import COMMANDS

    if not isinstance(table, dict):
        raise ConfigError(f"{section} stands outside a section", path)
    if section not in ("common", *COMMANDS):
        hint = nearest(section, ["common", *COMMANDS])
        line = line_of(path, section)
        raise ConfigError(f"line {line}: no command [{section}]", path, hint=hint)


def line_of(path: str, section: str, key: str = "") -> int:
    """Line of a section's header, or of a key in it; 0 where the file says it in another way."""
    current = ""
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if text.startswith("["):
                current = text.strip("[] ")
                if current == section and not key:
                    return number
            elif current == section and text.partition("=")[0].strip(" \"'") == key:
                return number
    return 0


def nearest(key: str, known: Sequence[str]) -> str:
    """Say which known name a wrong one is nearest to."""
    close = get_close_matches(key.replace("-", "_"), known, 1, 0.5)
    close = close or get_close_matches(key, known, 1, 0.5)
    if close:
        return f"did you mean {close[0].replace('_', '-')}?"
    return "coblend COMMAND --help-all lists all options"
