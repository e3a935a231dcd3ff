"""Options that every command has."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.params.field import Checked, option

MAX_FIELD = (1 << 24) - 1
"""Largest field that identifiers hold."""


@dataclass(frozen=True, slots=True)
class CommonParams(Checked):
    """How a command runs; nothing here changes a result."""

    overwrite: bool = option(False, "Replace existing outputs.", shown=True)
    jobs: int = option(1, "Worker processes; 0: all cores allowed.", minimum=0, shown=True)
    max_memory: str = option("4GiB", "Memory to stay below, e.g. 800MB or 4GiB.", shown=True)
    max_failed: float = option(
        0.01, "Fraction of blends that may fail before exit code 3.", minimum=0, maximum=1
    )
    seed: int = option(0, "Seed of everything random.", minimum=0, shown=True)


@dataclass(frozen=True, slots=True)
class NoParams(Checked):
    """Options of a command that has none of its own."""
