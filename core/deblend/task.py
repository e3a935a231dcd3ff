"""The deblender's task: which parents are fitted, and the tables that come out.

Every peak of the input has a row in OBJECTS, whether its parent was fitted, passed through as
isolated, skipped or failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.batch import Batch, make_batches
from coblend.core.deblend.components import Floats
from coblend.core.deblend.observation import noise_rms
from coblend.core.detection import Detections
from coblend.core.errors import FormatError, ParameterError, ShapeMismatchError
from coblend.core.exposure import Cube
from coblend.core.model import (
    FLAGS,
)
from coblend.core.params.deblend import DeblendParams
from coblend.core.psf.base import Psf


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with every parent.

    Parameters
    ----------
    flags : array, shape (n,), int64
        Flags of parents that are not fitted, 0 for those that are.
    fitted : array, shape (m,), int64
        Rows of the parents to fit.
    psfs : array, shape (n_cell, n_band, k, k), float32
    psf_cells : array, shape (n_cell, 2), float64
        ``y, x`` where they were evaluated.
    cells : array, shape (m,), int64
        PSF of each fitted parent.
    sigma : array, shape (n_band,), float64
        Noise of the bands.
    weights : array, shape (n_band, ny, nx), float32
    """

    flags: NDArray[np.int64]
    fitted: NDArray[np.int64]
    psfs: Floats
    psf_cells: NDArray[np.float64]
    cells: NDArray[np.int64]
    sigma: NDArray[np.float64]
    weights: Floats


def plan(detections: Detections, cube: Cube, params: DeblendParams) -> Plan:
    """Decide which parents are fitted, and with which PSF.

    Raises
    ------
    ShapeMismatchError
        The detections and the exposures cover different pixels.
    FormatError
        A band has no PSF.
    """
    if detections.box != cube.box:
        raise ShapeMismatchError(
            f"the detections cover {detections.box}, the exposures {cube.box}",
            hint="deblend the exposures that were detected, or the same section of them",
        )
    for band, psf in zip(cube.bands, cube.psfs, strict=True):
        if psf is None:
            raise FormatError(f"band {band} has no PSF", hint="give one with --psf")
    flags = skip_flags(detections, cube, params)
    fitted = np.flatnonzero(flags == 0)
    boxes = detections.footprints.boxes()[fitted]
    middle = boxes[:, :2] + (boxes[:, 2:] - 1) / 2
    psfs, psf_cells, cells = evaluate_psfs(cube.psfs, middle, params.psf_grid)
    sigma, weights = noise_rms(cube, params.bad_mask, params.use_weights)
    return Plan(flags, fitted, psfs, psf_cells, cells, sigma, weights)


def skip_flags(detections: Detections, cube: Cube, params: DeblendParams) -> NDArray[np.int64]:
    """Flags of the parents that are not to be fitted; the first rule that applies wins.

    Notes
    -----
    The rules of ``ScarletDeblendTask``: pseudo sources, isolated ones, boxes too large or too
    elongated, masked fractions, too many peaks.
    """
    parents = detections.parents
    n_peak = parents["npeak"].astype(np.int64)
    boxes = detections.footprints.boxes().astype(np.int64)
    area, side = boxes[:, 2] * boxes[:, 3], boxes[:, 2:].max(1, initial=0)
    big = np.zeros(len(parents), bool)
    for value, limit in (
        (area, params.max_footprint_area),
        (side, params.max_footprint_size),
        (area * n_peak, params.max_area_times_peaks),
    ):
        if limit:
            big |= value > limit
    if params.min_footprint_axis_ratio:
        big |= axis_ratios(detections) < params.min_footprint_axis_ratio
    masked = _masked(detections, cube, params.mask_limits)
    many = n_peak > (params.max_number_of_peaks or np.inf)
    flags = np.zeros(len(parents), np.int64)
    for name, hit in (
        ("skipped_pseudo", parents["merge_footprint_sky"]),
        ("isolated", (n_peak == 1) & (not params.process_singles)),
        ("skipped_too_big", big),
        ("skipped_masked", masked),
        ("skipped_too_many_peaks", many),
    ):
        flags[(flags == 0) & hit] = FLAGS[name]
    return flags


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


def evaluate_psfs(
    psfs: Sequence[Psf], positions: NDArray[np.float64], grid: int
) -> tuple[Floats, NDArray[np.float64], NDArray[np.int64]]:
    """Evaluate PSFs once per cell of a grid.

    Parameters
    ----------
    psfs : sequence of Psf
        One per band.
    positions : array, shape (n, 2), float64
        ``y, x``, parent coordinates.
    grid : int
        Side of a cell (pixel).

    Returns
    -------
    stamps : array, shape (n_cell, n_band, k, k), float32
        k is the largest side; smaller stamps are padded with zeros.
    places : array, shape (n_cell, 2), float64
        Centres of the cells.
    cell : array, shape (n,), int64
        Cell of each position.
    """
    index = np.floor(positions / grid)
    if all(psf.constant for psf in psfs):
        index[:] = index[:1]
    cells, cell = np.unique(index, axis=0, return_inverse=True)
    places = (cells + 0.5) * grid
    side = max(psf.side for psf in psfs)
    stamps = np.zeros((len(places), len(psfs), side, side), np.float32)
    for b, psf in enumerate(psfs):
        edge = (side - psf.side) // 2
        part = slice(edge, edge + psf.side)
        if len(places):
            stamps[:, b, part, part] = psf.at_many(places[:, 0], places[:, 1])
    return stamps, places, cell.reshape(-1)


def batches(detections: Detections, cube: Cube, work: Plan) -> Iterator[Batch]:
    """Batches of the parents to fit; see `batch.make_batches`."""
    peaks = [
        np.stack([rows["iy"], rows["ix"]], 1).astype(np.int64)
        for rows in (detections.peaks_of(int(i)) for i in work.fitted)
    ]
    return make_batches(
        cube.images, work.weights, work.sigma, (cube.box.y0, cube.box.x0), detections.footprints,
        work.fitted, peaks, work.psfs, work.cells,
    )  # fmt: skip
