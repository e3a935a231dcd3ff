"""Which parents are fitted: their real peaks, and the rules by which some are skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.memory import frame_memory
from coblend.core.detection import Detections
from coblend.core.errors import ParameterError
from coblend.core.exposure import Cube
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams


@dataclass(frozen=True, slots=True)
class Members:
    """Which peaks each parent has; sky and other pseudo peaks are never fitted.

    Parameters
    ----------
    rows : array, shape (n_peak,), int64
        Rows of PEAKS by parent, pseudo peaks behind the real ones.
    first : array, shape (n + 1,), int64
        Parent i owns ``rows[first[i]:first[i + 1]]``.
    n_real : array, shape (n,), int64
        Real peaks of each parent; all of them in a parent that is a pseudo source itself.
    pseudo : array, shape (n,), bool
        Parents without a real peak.
    """

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    n_real: NDArray[np.int64]
    pseudo: NDArray[np.bool_]

    @classmethod
    def of(cls, detections: Detections, pseudo_columns: Sequence[str]) -> Members:
        """Sort the peaks of all parents; any of the columns marks pseudo peaks or parents."""
        counts = detections.parents["npeak"].astype(np.int64)
        owner = np.repeat(np.arange(len(counts)), counts)
        sky = _any_of(detections.peaks, pseudo_columns)
        n_real = np.bincount(owner, ~sky, len(counts)).astype(np.int64)
        pseudo = _any_of(detections.parents, pseudo_columns) | (n_real == 0)
        return cls(
            np.lexsort((sky, owner)), np.concatenate([[0], np.cumsum(counts)]),
            np.where(pseudo, counts, n_real), pseudo,
        )  # fmt: skip

    def of_parent(self, parent: int) -> NDArray[np.int64]:
        """Rows of PEAKS of the real peaks of one parent."""
        first = int(self.first[parent])
        return self.rows[first : first + int(self.n_real[parent])]


def _any_of(table: NDArray[np.void], names: Sequence[str]) -> NDArray[np.bool_]:
    """Rows where any of the columns is set; columns that are not there are not set."""
    there = [table[name].astype(bool) for name in names if name in (table.dtype.names or ())]
    return np.logical_or.reduce(there) if there else np.zeros(len(table), bool)


def skip_flags(
    detections: Detections, members: Members, cube: Cube, params: DeblendParams
) -> NDArray[np.int64]:
    """Decide which parents are not to be fitted; the first rule that applies wins.

    Notes
    -----
    The rules of ``ScarletDeblendTask``: pseudo sources, isolated ones, boxes too large or too
    elongated, masked fractions, too many peaks.
    """
    n_peak = members.n_real
    many = (n_peak > (params.max_number_of_peaks or np.inf)) & ~is_crowded(n_peak, params)
    flags = np.zeros(len(n_peak), np.int64)
    for name, hit in (
        ("skipped_pseudo", members.pseudo),
        ("isolated", (n_peak == 1) & (not params.process_singles)),
        ("skipped_too_big", _too_big(detections, n_peak, cube, params)),
        ("skipped_masked", _masked(detections, cube, params.mask_limits)),
        ("skipped_too_many_peaks", many),
    ):
        rule = FLAGS[name] | FLAGS["skipped"] * (name != "isolated")
        flags[(flags == 0) & hit] = rule
    if params.use_limits:
        inside = (n_peak >= min(params.limit_peaks)) & (n_peak <= max(params.limit_peaks))
        inside[np.flatnonzero(inside & (flags == 0))[params.limit_parents :]] = False
        flags[(flags == 0) & ~inside] = FLAGS["skipped"]
    return flags


def _too_big(
    detections: Detections, n_peak: NDArray[np.int64], cube: Cube, params: DeblendParams
) -> NDArray[np.bool_]:
    """Parents beyond a limit of size, shape or memory; 0 is no limit."""
    ny, nx = detections.footprints.boxes()[:, 2:].T.astype(np.int64)
    crowded = is_crowded(n_peak, params)
    side = max((psf.side for psf in cube.psfs if psf is not None), default=1)
    memory = np.where(crowded, 0, frame_memory(ny, nx, len(cube.bands), side))
    big = np.zeros(len(n_peak), bool)
    for value, limit in (
        (ny * nx, params.max_footprint_area),
        (np.maximum(ny, nx), params.max_footprint_size),
        (ny * nx * np.where(crowded, 0, n_peak), params.max_area_times_peaks),
        (memory, params.max_blend_memory),
    ):
        if limit:
            big |= value > limit
    if params.min_footprint_axis_ratio:
        big |= axis_ratios(detections) < params.min_footprint_axis_ratio
    return big


def is_crowded(n_peak: NDArray[np.int64], params: DeblendParams) -> NDArray[np.bool_]:
    """Parents that are fitted as point sources because they have too many peaks."""
    limit = params.max_number_of_peaks or np.inf
    return np.asarray((params.crowded == "psf") & (n_peak > limit), bool)


def axis_ratios(detections: Detections) -> NDArray[np.float64]:
    """Minor over major axis of every footprint's second-moment ellipse, shape (n,)."""
    spans = detections.footprints.spans.astype(np.float64)
    owner, n = detections.footprints.owner, len(detections.footprints)
    y, a, b = spans.T
    count = b - a + 1
    x = (a + b) / 2
    total = np.maximum(np.bincount(owner, count, n), 1)
    mean_y, mean_x = (
        np.bincount(owner, count * y, n) / total,
        np.bincount(owner, count * x, n) / total,
    )
    dy, dx = y - mean_y[owner], x - mean_x[owner]
    yy = np.bincount(owner, count * dy**2, n) / total + 1 / 12
    xx = np.bincount(owner, count * (dx**2 + (count**2 - 1) / 12), n) / total + 1 / 12
    xy = np.bincount(owner, count * dy * dx, n) / total
    half, root = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    return np.sqrt(np.maximum(half - root, 0) / (half + root))


def _masked(detections: Detections, cube: Cube, limits: Sequence[str]) -> NDArray[np.bool_]:
    """Parents with more pixels of a mask plane, in any band, than its limit allows."""
    footprints = detections.footprints
    hit = np.zeros(len(footprints), bool)
    for text in limits:
        name, _, value = text.partition("=")
        try:
            limit = float(value)
        except ValueError:
            raise ParameterError(
                f"mask_limits has {text!r}", hint="write PLANE=FRACTION, for example SAT=0.1"
            ) from None
        bits = np.int32(cube.planes.value([name]))
        flagged = np.zeros((cube.box.ny, cube.box.nx + 1))
        np.cumsum(((cube.masks & bits) != 0).any(0), axis=1, out=flagged[:, 1:])
        y = footprints.spans[:, 0] - cube.box.y0
        x = footprints.spans[:, 1:] - cube.box.x0
        count = flagged[y, x[:, 1] + 1] - flagged[y, x[:, 0]]
        total = np.bincount(footprints.owner, count, len(footprints))
        hit |= total > limit * footprints.areas
    return hit
