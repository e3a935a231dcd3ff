"""Differences between an epoch and the template of all epochs, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from coblend.core.box import Box
from coblend.core.coadd.clip import IQR_TO_SIGMA
from coblend.core.coadd.samples import WarpPart
from coblend.core.coadd.sparse import Indices, Runs
from coblend.core.mask import MaskPlanes
from coblend.core.params.coadd import CoaddParams

_LAG = 16  # pixels; further apart than noise is correlated
_GROSS = 0.3
"""Part of a source by which PSF-matched epochs of it do not differ, but by artifacts."""


@dataclass(frozen=True, slots=True)
class Template:
    """Clipped mean of the PSF-matched epochs.

    Parameters
    ----------
    image, variance, weight : array, shape (ny, nx), float32
        NaN (weight 0) where no epoch has data.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    weight: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Look:
    """What a comparison of a part of an epoch shows; flat indices count in the whole frame.

    Parameters
    ----------
    positive, negative : array, int64
        Pixels above the threshold, ascending.
    seen, flagged, gross : Runs
        Where the epoch has data, is known to be faulty, and differs significantly and by more
        than three tenths of what is there.
    """

    positive: Indices
    negative: Indices
    seen: Runs
    flagged: Runs
    gross: Runs


def look(
    part: WarpPart,
    noise: float,
    template: Template,
    in_template: NDArray[np.bool_],
    frame: Box,
    planes: MaskPlanes,
    params: CoaddParams,
) -> tuple[Look, NDArray[np.bool_], NDArray[np.bool_]]:
    """Compare a part of an epoch with the template there.

    Parameters
    ----------
    part : WarpPart
    noise : float
        Ratio of its real noise to its variance plane.
    template : Template
        In the box of the part.
    in_template : array, shape (ny, nx), bool
        Where the epoch is part of the template.
    frame : Box
    planes : MaskPlanes
    params : CoaddParams

    Returns
    -------
    look : Look
    usable, edge : array, shape (ny, nx), bool
        Where the difference counts, and where the epoch is near the end of a sensor.
    """
    image, variance = scaled(part, planes, noise)
    with np.errstate(invalid="ignore"):
        excess, total = residual(image, variance, template, part.weight, in_template)
        significance = np.asarray(excess / np.sqrt(total), np.float32)
    mask = np.zeros(image.shape, np.int32) if part.mask is None else part.mask
    first = (part.box.y0 - frame.y0) * frame.nx
    left = part.box.x0 - frame.x0

    def flat(where: NDArray[np.bool_]) -> Indices:
        y, x = np.divmod(np.flatnonzero(where), part.box.nx)
        return first + y * frame.nx + left + x

    def runs(where: NDArray[np.bool_]) -> Runs:
        if part.box.nx < frame.nx:
            where = np.pad(where, ((0, 0), (left, frame.nx - left - part.box.nx)))
        return Runs.of(where, first)

    def has(*names: str) -> NDArray[np.bool_]:
        return np.asarray((mask & np.int32(planes.value(names))) != 0)

    with np.errstate(invalid="ignore"):
        positive = significance >= params.artifact_threshold
        negative = significance <= -params.artifact_threshold
        gross = np.abs(excess) > _GROSS * np.abs(template.image)
        found = Look(
            positive=flat(positive),
            negative=flat(negative),
            seen=runs(~np.isnan(image)),
            flagged=runs(has("NO_DATA", "BAD", "SUSPECT")),
            gross=runs(gross & (positive | negative)),
        )
    return found, np.isfinite(significance) & ~has("NO_DATA", "BAD", "SAT"), has("EDGE")


def scaled(
    part: WarpPart, planes: MaskPlanes, noise: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scaled image and variance (times ``noise``) of a part, NaN where it has no data."""
    image = np.multiply(part.image, part.scale, dtype=np.float32)
    variance = np.multiply(part.variance, np.square(part.scale), dtype=np.float32)
    variance *= np.float32(noise)
    absent = ~(variance > 0)
    absent |= ~np.isfinite(image)
    if part.mask is not None:
        absent |= (part.mask & np.int32(planes.value(["NO_DATA"]))) != 0
    image[absent] = np.nan
    variance[absent] = np.nan
    return image, variance


def noise_factor(parts: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float:
    """Ratio of the real noise to the variance plane, from pixels 16 columns apart.

    Differences need no background; the quartiles of ``(a - b)**2 / (v_a + v_b)`` ignore sources.

    Parameters
    ----------
    parts : sequence of (image, variance)
        Arrays of shape (ny, nx), float32, NaN where not usable.

    Returns
    -------
    float
        1 when there are fewer than 100 pairs, or for a factor above 10, which no noise explains.
    """
    left, right = slice(None, -_LAG), slice(_LAG, None)
    ratios = [np.zeros(0, np.float32)]
    for image, variance in parts:
        with np.errstate(invalid="ignore"):
            ratio = image[:, left] - image[:, right]
            ratio /= np.sqrt(variance[:, left] + variance[:, right])
        ratios.append(ratio[np.isfinite(ratio)])
    ratio = np.concatenate(ratios)
    if ratio.size < 100:
        return 1.0
    lower, upper = np.quantile(ratio, (0.25, 0.75))
    factor = float((IQR_TO_SIGMA * (upper - lower)) ** 2)
    return factor if 0 < factor <= 10 else 1.0


def difference(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    template: Template,
    weight: float,
    in_template: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Significance of an epoch minus the template of the other epochs, shape (ny, nx), float32.

    In standard deviations; NaN where either is missing. Parameters: those of `residual`.
    """
    with np.errstate(invalid="ignore"):
        excess, total = residual(image, variance, template, weight, in_template)
        return np.asarray(excess / np.sqrt(total), np.float32)


def smoothed_difference(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    template: Template,
    weight: float,
    sigma: float,
) -> NDArray[np.float32]:
    """Significance of the difference smoothed by the PSF, shape (ny, nx), float32.

    Noise is correlated in warps, so the scale is that of the quartiles of the result, if they
    are wider than those of white noise.

    Parameters
    ----------
    image, variance, template, weight
        As in `residual`.
    sigma : float
        Standard deviation of the PSF (pixel).
    """
    excess, total = residual(image, variance, template, weight)
    known = np.isfinite(excess) & np.isfinite(total)
    excess, total = smooth(np.where(known, excess, 0), np.where(known, total, 0), sigma)
    out = np.full(image.shape, np.nan, np.float32)
    np.divide(excess, np.sqrt(total, where=known, out=out), out=out, where=known)
    if known.any():
        lower, upper = np.quantile(out[known], (0.25, 0.75))
        out /= max(IQR_TO_SIGMA * (upper - lower), 1)
    return out


def smooth(
    image: NDArray[np.float32], variance: NDArray[np.float32], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smooth an image by a Gaussian, and the variance by its square; 0 beyond the border."""
    half = int(3.5 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = correlate1d(image, kernel, axis, mode="constant")
        variance = correlate1d(variance, kernel**2, axis, mode="constant")
    return image, variance


def residual(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    template: Template,
    weight: float,
    in_template: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Epoch minus the template of the other epochs, and its variance.

    With T the template of all epochs and W its weight, the epoch's own share w / W is taken out:
    ``(I - T) / (1 - w/W)``, variance ``v + v_T W / (W - w)``.

    Parameters
    ----------
    image, variance : array, shape (ny, nx), float32
        Epoch on the frame of the template, NaN outside.
    template : Template
    weight : float
        Weight of the epoch in the template.
    in_template : array, shape (ny, nx), bool, optional
        Where the epoch is part of the template; default: everywhere.

    Returns
    -------
    excess, total : array, shape (ny, nx), float32
        NaN where either is missing.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = (1 - weight / template.weight).astype(np.float32)
        if in_template is not None:
            rest[~in_template] = 1
        rest[rest < 1e-6] = np.nan
        return (image - template.image) / rest, variance + template.variance / rest
