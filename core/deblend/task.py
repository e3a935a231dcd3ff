"""The deblender's task: which parents are fitted, and the tables that come out.

Every peak of the input has a row in OBJECTS, whether its parent was fitted, passed through as
isolated, skipped or failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.batch import Batch, make_batches
from coblend.core.deblend.crowded import StarField
from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.observation import noise_rms
from coblend.core.deblend.memory import fit_memory, frame_memory
from coblend.core.deblend.point import nearest_pixel
from coblend.core.deblend.report import BlendResult
from coblend.core.detection import Detections
from coblend.core.errors import FormatError, ParameterError, ShapeMismatchError
from coblend.core.exposure import Cube
from coblend.core.kernels import model_psf
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams
from coblend.core.psf.base import Psf
from coblend.core.psf.resample import resized


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
    no_psf : array, shape (n_cell, n_band), bool
        Bands whose PSF is unknown there; a stand-in takes its place in ``psfs``.
    cells : array, shape (n,), int64
        PSF of each parent.
    members : Members
    refused : tuple of BlendResult
        Parents that cannot be fitted because no band has a PSF there.
    sigma : array, shape (n_band,), float64
        Noise of the bands.
    weights : array, shape (n_band, ny, nx), float32
    memory : array, shape (n,), float64
        What the joint fit of each parent is estimated to take (MB).
    """

    flags: NDArray[np.int64]
    fitted: NDArray[np.int64]
    psfs: Floats
    psf_cells: NDArray[np.float64]
    no_psf: NDArray[np.bool_]
    cells: NDArray[np.int64]
    members: Members
    refused: tuple[BlendResult, ...]
    sigma: NDArray[np.float64]
    weights: Floats
    memory: NDArray[np.float64]


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
    members = Members.of(detections, params.pseudo_columns)
    flags = skip_flags(detections, members, cube, params)
    boxes = detections.footprints.boxes()
    middle = boxes[:, :2] + (boxes[:, 2:] - 1) / 2
    if not len(middle):  # the tables hold at least one PSF
        middle = np.array([[cube.box.y0 + cube.box.ny / 2, cube.box.x0 + cube.box.nx / 2]])
    instead = model_psf(params.model_psf_sigma)
    psfs, psf_cells, no_psf, cells = evaluate_psfs(cube.psfs, middle, params.psf_grid, instead)
    cells = cells[: len(boxes)]
    blind = np.asarray(no_psf.all(1))[cells] & (flags == 0)
    refused = tuple(
        BlendResult(int(row), error="NoPsf", flags=FLAGS["failed"])
        for row in np.flatnonzero(blind)
    )
    sigma, weights = noise_rms(
        cube, params.bad_mask, params.use_weights, params.noise_stat, params.stats_mask
    )
    ny, nx = boxes[:, 2:].T
    memory = fit_memory(members.n_real, ny, nx, len(cube.bands), psfs.shape[-1])
    return Plan(
        flags, np.flatnonzero((flags == 0) & ~blind), psfs, psf_cells, no_psf, cells, members,
        refused, sigma, weights, memory,
    )  # fmt: skip


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


def evaluate_psfs(
    psfs: Sequence[Psf | None],
    positions: NDArray[np.float64],
    grid: int,
    instead: NDArray[np.float64],
) -> tuple[Floats, NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Evaluate PSFs once per cell of a grid.

    Parameters
    ----------
    psfs : sequence of Psf
        One per band.
    positions : array, shape (n, 2), float64
        ``y, x``, parent coordinates.
    grid : int
        Side of a cell (pixel).
    instead : array, shape (m, m)
        Stands in where a band has no PSF.

    Returns
    -------
    stamps : array, shape (n_cell, n_band, k, k), float32
        k is the largest side; smaller stamps are padded with zeros.
    places : array, shape (n_cell, 2), float64
        Centres of the cells.
    missing : array, shape (n_cell, n_band), bool
        Bands without a PSF.
    cell : array, shape (n,), int64
        Cell of each position.
    """
    known = [psf for psf in psfs if psf is not None]
    index = np.floor(positions / grid)
    if all(psf.constant for psf in known):
        index[:] = index[:1]
    cells, cell = np.unique(index, axis=0, return_inverse=True)
    places = (cells + 0.5) * grid
    side = max([psf.side for psf in known], default=len(instead))
    stamps = np.zeros((len(places), len(psfs), side, side), np.float32)
    for b, psf in enumerate(psfs):
        if psf is not None and len(places):
            edge = (side - psf.side) // 2
            part = slice(edge, edge + psf.side)
            stamps[:, b, part, part] = _stamps_at(psf, places)
    missing = ~np.isfinite(stamps).all((2, 3)) | ~(stamps.sum((2, 3)) > 0)
    stamps[missing] = resized(instead, side)
    return stamps, places, missing, cell.reshape(-1)


def _stamps_at(psf: Psf, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stamps at the given places; NaN where the model has none."""
    try:
        return psf.at_many(places[:, 0], places[:, 1])
    except FormatError:
        if len(places) == 1:
            return np.full((1, psf.side, psf.side), np.nan)
    return np.concatenate([_stamps_at(psf, place[None]) for place in places])


def batches(
    detections: Detections, cube: Cube, work: Plan, params: DeblendParams
) -> Iterator[Batch | StarField]:
    """Shares of the work, cut out of the images; see `batch.make_batches`."""
    crowded = is_crowded(work.members.n_real[work.fitted], params)
    for row in work.fitted[crowded]:
        rows = detections.peaks[work.members.of_parent(int(row))]
        pixel = np.stack([rows["iy"], rows["ix"]], 1).astype(np.int64)
        offset = nearest_pixel(np.stack([rows["y"], rows["x"]], 1), pixel)
        for batch in joint_batches(detections, cube, work, row[None]):
            yield StarField(batch, offset)
    whole = params.start == "reference" and params.algorithm == "scarlet"
    yield from joint_batches(detections, cube, work, work.fitted[~crowded], surroundings=whole)


def joint_batches(
    detections: Detections,
    cube: Cube,
    work: Plan,
    fitted: NDArray[np.int64],
    *,
    surroundings: bool = False,
) -> Iterator[Batch]:
    """Batches of some parents, rows of the detections; bands without a PSF have no weight."""
    places = np.stack([detections.peaks["iy"], detections.peaks["ix"]], 1).astype(np.int64)
    peaks = [places[work.members.of_parent(int(i))] for i in fitted]
    for batch in make_batches(
        cube.images, work.weights, work.sigma, (cube.box.y0, cube.box.x0), detections.footprints,
        fitted, peaks, work.psfs, work.cells[fitted], surroundings,
    ):  # fmt: skip
        missing = work.no_psf[work.cells[batch.parents]]
        if not missing.any():
            yield batch
            continue
        cuts = []
        for cut in batch.cuts:
            usable = ~missing[cut.blends][:, :, None, None]
            cuts.append(replace(cut, data=cut.data * usable, weight=cut.weight * usable))
        yield replace(batch, cuts=tuple(cuts))
