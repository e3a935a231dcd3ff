"""Culling: faint peaks of crowded families that one band alone has seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kept_peaks(
    family: NDArray[np.int64],
    order: NDArray[np.float64],
    n_band: NDArray[np.integer],
    *,
    bands_sufficient: int = 2,
    rank_sufficient: int = 20,
    rank_considered: int = 30,
    rank_normalized: float = 0.7,
) -> NDArray[np.bool_]:
    """Choose the peaks to keep.

    With r the rank of a peak in its family of n, 0 the first, it stays if ``r <
    rank_sufficient``, or enough bands have it, or ``r < rank_considered`` and ``r / n <
    rank_normalized`` (pipe_tasks: CullPeaksConfig).

    Parameters
    ----------
    family : array, shape (n,), int64
        Peaks that are ranked together.
    order : array, shape (n,), float64
        What ranks them, largest first.
    n_band : array, shape (n,)
        Bands that have each peak.
    """
    rows = np.lexsort((np.arange(len(family)), -order, family))
    new = np.ones(len(rows), bool)
    new[1:] = family[rows][1:] != family[rows][:-1]
    first = np.flatnonzero(new)
    size = np.diff(np.append(first, len(rows)))
    rank, number = np.empty((2, len(rows)), np.int64)
    rank[rows] = np.arange(len(rows)) - np.repeat(first, size)
    number[rows] = np.repeat(size, size)
    keep = (rank < rank_sufficient) | (n_band >= bands_sufficient)
    keep |= (rank < rank_considered) & (rank < rank_normalized * number)
    return keep
