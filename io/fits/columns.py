"""Columns of tables that others have written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import FormatError


def columns_of(table: Any) -> dict[str, NDArray[Any]]:
    """Columns of an `astropy.table.Table` by name; gaps are NaN in numbers, "" in texts."""
    return {name: _filled(table[name]) for name in table.colnames}


def _filled(column: Any) -> NDArray[Any]:
    if not hasattr(column, "mask"):
        return np.asarray(column)
    number = column.dtype.kind in "biuf"
    return np.asarray(column.astype(float).filled(np.nan) if number else column.filled(""))


def numbers_of(values: NDArray[Any], name: str, path: str) -> NDArray[np.float64]:
    """Return a column as float64.

    Raises
    ------
    FormatError
        It holds texts.
    """
    try:
        return np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        text = next(str(value).strip() for value in values.flat if not _is_number(value))
        raise FormatError(f"column {name} holds {text!r}, expected numbers", path) from error


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True
