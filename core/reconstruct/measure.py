"""Numbers per object from shared light and from models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.reconstruct.frames import Frames
from coblend.core.reconstruct.share import Pieces
from coblend.core.reconstruct.stamps import Stamps, common_pixels, group_sum


def measure_light(
    table: NDArray[Any],
    frames: Frames,
    pieces: Pieces,
    flux: NDArray[np.float64],
    peak: NDArray[np.int64],
) -> None:
    """Fill in fluxes, errors and pixel statistics of objects that have pieces.

    Parameters
    ----------
    table : structured array, shape (n,)
        Columns of `coblend.core.reconstruct.columns.MEASURED`; changed in place.
    frames : Frames
    pieces : Pieces
        Shares.
    flux : array, shape (n_piece,), float64
        Light of each piece.
    peak : array, shape (n,), int64
        Flat index of each object's peak pixel in the frames; -1 outside.
    """
    n = len(table)
    owner, pixel = pieces.owner, pieces.pixel
    count = np.bincount(owner, minlength=n)
    has = count > 0

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(group_sum(owner, values, n)[has] / count[has])

    table["n_pix"] = count
    table["flux"][has] = group_sum(owner, flux, n)[has]
    variance = frames.variance[pixel]
    variance[~np.isfinite(variance)] = 0.0
    error2 = group_sum(owner, pieces.value**2 * variance, n)
    table["flux_err"][has] = np.sqrt(error2[has])
    at_peak = pixel == peak[owner]
    table["peak_flux"][owner[at_peak]] = flux[at_peak]
    table["coverage"][has] = 1.0 - mean(frames.no_data[pixel])
    table["bad_frac"][has] = mean(frames.bad[pixel])
    table["edge"] = np.bincount(owner, on_border(frames, pixel), minlength=n) > 0


def drop_unseen(table: NDArray[Any]) -> None:
    """Leave objects of which the band has no pixel with data without a flux: NaN, not 0."""
    unseen = table["coverage"] == 0
    for name in ("flux", "flux_err", "peak_flux"):
        table[name][unseen] = np.nan


def measure_chi2(
    table: NDArray[Any], frames: Frames, pieces: Pieces, model: NDArray[np.float64]
) -> None:
    """Fill in the mean of ``(image - model)^2 / variance`` over each footprint.

    Parameters
    ----------
    model : array, shape (n_pixel,), float64
        Sum of the rendered models over the frames.
    """
    known = np.isfinite(frames.variance)
    chi2 = np.subtract(frames.image, model, where=known, out=np.zeros(len(model)))
    np.square(chi2, out=chi2)
    np.divide(chi2, frames.variance, where=known, out=chi2)
    count = group_sum(pieces.owner, known[pieces.pixel], len(table))
    total = group_sum(pieces.owner, chi2[pieces.pixel], len(table))
    with np.errstate(over="ignore"):  # infinite where a pixel is absurd
        table["chi2"][count > 0] = (total / np.maximum(count, 1))[count > 0]


def measure_overlap(
    table: NDArray[Any],
    frames: Frames,
    stamps: Stamps,
    owner: NDArray[np.int64],
    parent: NDArray[np.int64],
) -> None:
    """Fill in how much of its neighbours each object has in its own pixels.

    With S the object's model and T the sum of all models of the parent, over the pixels where
    S > 0: ``max(T - S)``, ``sum(T - S)``, the latter over ``sum S``, and
    ``1 - sum S^2 / sum T S`` (meas_extensions_scarlet: setDeblenderMetrics; Bosch et al. 2018).

    Parameters
    ----------
    stamps : Stamps
        Models; ``owner`` and ``parent`` are their objects and frames.
    """
    inside, pixel, counts = common_pixels(
        stamps.boxes, stamps.offsets[:-1], frames.boxes[parent], frames.offsets[parent]
    )
    model = stamps.values[inside]
    total = group_sum(pixel, model, len(frames.inside))
    keep = model > 0
    row = np.repeat(np.arange(len(stamps)), counts)[keep]
    model, total = model[keep], total[pixel[keep]]
    n = len(stamps)
    neighbours = total - model
    largest = np.zeros(n)
    np.maximum.at(largest, row, neighbours)
    overlap = group_sum(row, neighbours, n)
    flux = stamps.sums()
    own, all_ = group_sum(row, model * model, n), group_sum(row, total * model, n)
    table["max_overlap"][owner] = largest
    table["flux_overlap"][owner] = overlap
    table["flux_overlap_frac"][owner] = np.divide(overlap, flux, np.zeros(n), where=flux > 0)
    table["blendedness"][owner] = 1.0 - np.divide(own, all_, np.full(n, np.nan), where=all_ != 0)


def on_border(frames: Frames, pixel: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether pixels of the frames lie in the outermost row or column of their frame."""
    border = np.zeros(len(frames.inside), bool)
    offsets = frames.offsets
    for (ny, nx), first, last in zip(
        frames.boxes[:, 2:].tolist(), offsets[:-1], offsets[1:], strict=True
    ):
        frame = border[first:last].reshape(ny, nx)
        frame[:1] = frame[-1:] = True
        frame[:, :1] = frame[:, -1:] = True
    return np.asarray(border[pixel])
