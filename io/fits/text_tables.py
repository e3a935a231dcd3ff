"""Tables in text files, as astropy reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def columns_of(table: Any) -> dict[str, NDArray[Any]]:
    """Columns of an `astropy.table.Table` by name; gaps are NaN in numbers, "" in texts."""
    return {name: _filled(table[name]) for name in table.colnames}


def _filled(column: Any) -> NDArray[Any]:
    if not hasattr(column, "mask"):
        return np.asarray(column)
    number = column.dtype.kind in "biuf"
    return np.asarray(column.astype(float).filled(np.nan) if number else column.filled(""))
