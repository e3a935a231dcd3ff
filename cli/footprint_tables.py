"""Tables that ``reconstruct-footprints`` fills in band by band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.catalog import Column, empty_table


def with_columns(table: NDArray[Any], columns: Sequence[Column]) -> NDArray[Any]:
    """Table with further columns; those that it has keep place and values until measured."""
    more = empty_table(columns, len(table))
    names = table.dtype.names or ()
    types = {n: table.dtype[n] for n in names} | {n: more.dtype[n] for n in more.dtype.names or ()}
    out = np.zeros(len(table), list(types.items()))
    for name in types:
        out[name] = table[name] if name in names else more[name]
    return out


def fill(table: NDArray[Any], values: NDArray[Any], band: str) -> None:
    """Put what was measured in one band into the table; what was not stays as it is."""
    for name in values.dtype.names or ():
        np.copyto(table[f"{name}_{column_suffix(band)}"], values[name],
                  where=values[name] == values[name])  # fmt: skip


def summary(
    objects: NDArray[Any], parents: NDArray[Any], bands: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per band for the screen."""
    rows = []
    for band in bands:
        of = {n: objects[f"{n}_{column_suffix(band)}"] for n in ("flux", "zero_flux", "chi2")}
        rows.append({
            "band": band,
            "n_flux": int(np.count_nonzero(np.isfinite(of["flux"]))),
            "n_zero": int(np.count_nonzero(of["zero_flux"])),
            "flux": float(np.nansum(of["flux"])),
            "stray_flux": float(parents[f"stray_flux_{column_suffix(band)}"].sum()),
            "chi2": float(np.nanmedian(of["chi2"])) if np.isfinite(of["chi2"]).any() else None,
        })  # fmt: skip
    return rows
