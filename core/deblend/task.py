"""The deblender's task: what is to be fitted, with which PSF, cut out of the images in batches.

What comes of it is put together by `collect`; which parents are left out is decided in `rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfinv

from coblend.core.deblend.batch import Batch, Sky, make_batches
from coblend.core.deblend.crowded import StarField
from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.observation import noise_rms
from coblend.core.deblend.memory import fit_memory
from coblend.core.deblend.point import nearest_pixel
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.rules import Members, is_crowded, skip_flags
from coblend.core.detection import Detections
from coblend.core.errors import FormatError, ShapeMismatchError
from coblend.core.exposure import Cube
from coblend.core.kernels import model_psf
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams
from coblend.core.psf.base import Psf
from coblend.core.psf.resample import resized

BYTES_PER_PIXEL = 12
"""Memory of image, variance and mask of one band; blends come on top (`max_blend_memory`)."""
_CHUNK = 256
"""Places where PSFs are evaluated at a time."""


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


@np.errstate(over="ignore")  # weights where a variance is 1e-30
def make_plan(detections: Detections, cube: Cube, params: DeblendParams) -> Plan:
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


def psf_sigmas(plan: Plan) -> NDArray[np.float64]:
    """Width of the sharpest PSF of every band (pixel).

    That of a Gaussian, integrated over pixels as the model PSF is, with the same central pixel.
    """
    middle = plan.psfs.shape[-1] // 2
    peaks = np.where(plan.no_psf, 0.0, plan.psfs[:, :, middle, middle]).max(0)
    return np.asarray(0.5 / (np.sqrt(2) * erfinv(np.sqrt(np.clip(peaks, 1e-6, 1 - 1e-6)))))


def model_width(plan: Plan, params: DeblendParams) -> float:
    """Width of the PSF of the models (pixel): as asked for, or what the sharpest band allows.

    Steps of 0.1 from 0.5 on; a model less sharp than a band leaves residuals in every core.
    The reference system keeps what it is told.
    """
    sharpest = float(psf_sigmas(plan).min())
    if params.start == "reference" or sharpest >= params.model_psf_sigma:
        return params.model_psf_sigma
    return max(0.5, int(9 * sharpest) / 10)


def evaluate_psfs(
    psfs: Sequence[Psf | None],
    positions: NDArray[np.float64],
    grid: int,
    instead: NDArray[np.float64],
) -> tuple[Floats, NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Evaluate PSFs once per cell of a grid.

    And at positions that lack another band's than the middle of their cell, which may lie in a
    hole of the PSF that they do not, or beyond the image, or the other way round.

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
        Where they were evaluated.
    missing : array, shape (n_cell, n_band), bool
        Bands without a PSF.
    cell : array, shape (n,), int64
        Cell of each position.
    """
    index = np.floor(positions / grid)
    constant = all(psf.constant for psf in psfs if psf is not None)
    if constant:
        index[:] = index[:1]
    cells, cell = np.unique(index, axis=0, return_inverse=True)
    places = (cells + 0.5) * grid
    cell = cell.reshape(-1)
    stamps, missing = _all_stamps_at(psfs, places, instead)
    if constant:
        return stamps, places, missing, cell
    lacking = [
        _all_stamps_at(psfs, positions[first : first + _CHUNK], instead)[1]
        for first in range(0, len(positions), _CHUNK)
    ]
    rows = np.flatnonzero((np.concatenate([missing[:0], *lacking]) != missing[cell]).any(1))
    own, own_missing = _all_stamps_at(psfs, positions[rows], instead)
    cell[rows] = len(places) + np.arange(len(rows))
    return (
        np.concatenate([stamps, own]), np.concatenate([places, positions[rows]]),
        np.concatenate([missing, own_missing]), cell,
    )  # fmt: skip


def _all_stamps_at(
    psfs: Sequence[Psf | None], places: NDArray[np.float64], instead: NDArray[np.float64]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Stamps of all bands, shape (n, n_band, k, k), and where a stand-in takes their place."""
    side = max([psf.side for psf in psfs if psf is not None], default=len(instead))
    stamps = np.zeros((len(places), len(psfs), side, side), np.float32)
    for b, psf in enumerate(psfs):
        if psf is not None and len(places):
            edge = (side - psf.side) // 2
            part = slice(edge, edge + psf.side)
            stamps[:, b, part, part] = _stamps_at(psf, places)
    missing = ~np.isfinite(stamps).all((2, 3)) | ~(stamps.sum((2, 3)) > 0)
    stamps[missing] = resized(instead, side)
    return stamps, missing


def _stamps_at(psf: Psf, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stamps at the given places; NaN where the model has none."""
    try:
        return psf.at_many(places[:, 0], places[:, 1])
    except FormatError:
        if len(places) == 1:
            return np.full((1, psf.side, psf.side), np.nan)
    return np.concatenate([_stamps_at(psf, place[None]) for place in places])


def batches(
    detections: Detections, cube: Cube, plan: Plan, params: DeblendParams
) -> Iterator[Batch | StarField]:
    """Shares of the work, cut out of the images; see `batch.make_batches`."""
    crowded = is_crowded(plan.members.n_real[plan.fitted], params)
    for row in plan.fitted[crowded]:
        rows = detections.peaks[plan.members.of_parent(int(row))]
        pixel = np.stack([rows["iy"], rows["ix"]], 1).astype(np.int64)
        offset = nearest_pixel(np.stack([rows["y"], rows["x"]], 1), pixel)
        for batch in joint_batches(detections, cube, plan, row[None]):
            yield StarField(batch, offset)
    whole = params.start == "reference" and params.algorithm == "scarlet"
    yield from joint_batches(detections, cube, plan, plan.fitted[~crowded], surroundings=whole)


def joint_batches(
    detections: Detections,
    cube: Cube,
    plan: Plan,
    fitted: NDArray[np.int64],
    *,
    surroundings: bool = False,
) -> Iterator[Batch]:
    """Batches of some parents, rows of the detections; bands without a PSF have no weight."""
    places = np.stack([detections.peaks["iy"], detections.peaks["ix"]], 1).astype(np.int64)
    peaks = [places[plan.members.of_parent(int(i))] for i in fitted]
    sky = Sky(
        cube.images, plan.weights, plan.sigma, (cube.box.y0, cube.box.x0), detections.footprints,
        plan.psfs,
    )  # fmt: skip
    for batch in make_batches(sky, fitted, peaks, plan.cells[fitted], surroundings):
        missing = plan.no_psf[plan.cells[batch.parents]]
        if not missing.any():
            yield batch
            continue
        cuts = []
        for cut in batch.cuts:
            usable = ~missing[cut.blends][:, :, None, None]
            cuts.append(replace(cut, data=cut.data * usable, weight=cut.weight * usable))
        yield replace(batch, cuts=tuple(cuts))
