"""Columns of tables: name, type, unit, UCD and description, in one place per table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import check_suffixes, column_suffix


@dataclass(frozen=True, slots=True)
class Column:
    """One scalar column.

    Parameters
    ----------
    name : str
        Lower case, snake_case, band suffix last.
    dtype : str
        numpy type code: ``i8 i4 i2 f8 f4 ?`` or ``U<n>`` (ASCII).
    description : str
        One line; names the reference system's column where there is one.
    unit : str
        FITS unit, "" if dimensionless.
    ucd : str
        Unified content descriptor.
    """

    name: str
    dtype: str
    description: str
    unit: str = ""
    ucd: str = ""

    def for_band(self, band: str, unit: str | None = None) -> Column:
        """Return this column for one band: ``<name>_<band>``; a unit "flux" becomes ``unit``."""
        own = unit if unit is not None and self.unit == "flux" else self.unit
        return replace(
            self,
            name=f"{self.name}_{column_suffix(band)}",
            description=f"{self.description} ({band})",
            unit=own,
        )


def per_band(
    columns: Sequence[Column], bands: Iterable[str], unit: str | None = None
) -> tuple[Column, ...]:
    """All ``columns`` for all ``bands``, bands fastest.

    Raises
    ------
    ParameterError
        Two bands would share columns.
    """
    bands = tuple(bands)
    check_suffixes(bands)
    return tuple(c.for_band(b, unit) for c in columns for b in bands)


def table_dtype(columns: Sequence[Column]) -> np.dtype[Any]:
    """Structured dtype of a table."""
    return np.dtype([(c.name, c.dtype) for c in columns])


def empty_table(columns: Sequence[Column], n: int) -> NDArray[Any]:
    """Table of ``n`` rows: NaN in float columns, 0, False or "" elsewhere."""
    table = np.zeros(n, table_dtype(columns))
    for column in columns:
        if column.dtype.startswith("f"):
            table[column.name] = np.nan
    return table
