"""Whole images of rendered models and of what they leave."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.exposure import Exposure, row_blocks
from coblend.core.footprint import FootprintSet, expand_runs
from coblend.core.reconstruct.frames import Frames
from coblend.core.reconstruct.stamps import Stamps, common_pixels

_BLOCK = 1 << 14
"""Spans that are looked at together."""
_SAMPLE = 1 << 19
"""Pixels that a median is taken of, at most about twice as many."""
_MOST_STEPS = 1e9


@dataclass(frozen=True, slots=True)
class ResidualStatistics:
    """Residuals over noise inside footprints: median, scaled MAD, mean square."""

    median: float
    mad: float
    chi2: float


def add_stamps(image: NDArray[np.floating], box: Box, stamps: Stamps) -> None:
    """Add stamps to an image over ``box``, in place; parts outside are lost."""
    offsets = stamps.offsets
    for i, (y0, x0, ny, nx) in enumerate(stamps.boxes.tolist()):
        own = Box(y0, x0, ny, nx)
        common = own & box
        if common.area:
            stamp = stamps.values[offsets[i] : offsets[i + 1]].reshape(ny, nx)
            image[common.slices(box)] += stamp[common.slices(own)]


def light_images(
    footprints: FootprintSet, light: NDArray[np.floating], box: Box
) -> NDArray[np.float32]:
    """Light of every footprint over ``box``, 0 elsewhere, shape (n, ny, nx), float32."""
    out = np.zeros((len(footprints), *box.shape), np.float32)
    ends = np.concatenate([[0], np.cumsum(footprints.areas)])
    for i in range(len(footprints)):
        own = footprints.box(i)
        image = np.zeros(own.shape, np.float32)
        image[footprints.mask(i)] = light[ends[i] : ends[i + 1]]
        common = own & box
        out[i][common.slices(box)] = image[common.slices(own)]
    return out


def cutout(
    image: NDArray[np.float32] | None,
    model: NDArray[np.float32] | None,
    box: Box,
    part: Box,
    footprints: FootprintSet,
    light: NDArray[np.floating],
) -> dict[str, NDArray[np.float32]]:
    """IMAGE, MODEL, RESIDUAL over ``part``, and SRC: the light of every footprint.

    Parameters
    ----------
    image, model : array, shape of ``box``, float32, optional
        0 where absent, and outside ``box``.
    box, part : Box
    footprints : FootprintSet
    light : array
        Of their pixels.
    """
    planes = []
    for plane in (image, model):
        cut = np.zeros(part.shape, np.float32)
        if plane is not None:
            common = part & box
            cut[common.slices(part)] = plane[common.slices(box)]
        planes.append(cut)
    return {
        "IMAGE": planes[0],
        "MODEL": planes[1],
        "RESIDUAL": planes[0] - planes[1],
        "SRC": light_images(footprints, light, part),
    }


def cut_image(image: NDArray[np.floating], box: Box, frames: Frames) -> NDArray[np.float64]:
    """Pixels of an image over ``box`` in the frames, 0 outside it, shape (n_pixel,), float64."""
    out = np.zeros(len(frames.inside))
    grid = np.broadcast_to([[box.y0, box.x0, box.ny, box.nx]], frames.boxes.shape)
    zero = np.zeros(len(grid), np.int64)
    here, there, _ = common_pixels(frames.boxes, frames.offsets[:-1], grid, zero)
    out[here] = image.ravel()[there]
    return out


def residual_exposure(
    exposure: Exposure, model: NDArray[np.floating], out: NDArray[np.float32] | None = None
) -> Exposure:
    """Subtract ``model`` from an exposure; 0 where there is no data.

    Parameters
    ----------
    exposure : Exposure
    model : array, shape (ny, nx)
    out : array, shape (ny, nx), float32, optional
        Where the image goes, e.g. ``model`` itself.
    """
    left = np.subtract(exposure.image, model, dtype=np.float32, out=out)
    for rows in row_blocks(left.shape):
        left[rows][~exposure.good(rows=rows)] = 0.0
    return replace(exposure, image=left)


def model_exposure(exposure: Exposure, model: NDArray[np.floating]) -> Exposure:
    """Put ``model`` in place of the image of an exposure."""
    return replace(exposure, image=model.astype(np.float32, copy=False))


def residual_statistics(residual: Exposure, footprints: FootprintSet) -> ResidualStatistics:
    """Statistics of a residual inside footprints, in units of the noise; NaN without pixels.

    Of large footprints every n-th span is looked at for the medians.
    """
    spans = footprints.spans
    total = count = 0.0
    for part in np.array_split(spans, 1 + len(spans) // _BLOCK):
        ratio = _ratios(residual, part)
        total += float(np.einsum("i,i->", ratio, ratio, dtype=np.float64))
        count += len(ratio)
    if not count:
        return ResidualStatistics(np.nan, np.nan, np.nan)
    ratio = _ratios(residual, spans[:: 1 + int(count) // _SAMPLE])
    middle = float(np.median(ratio))
    ratio -= np.float32(middle)
    return ResidualStatistics(middle, 1.4826 * float(np.median(np.abs(ratio))), total / count)


def _ratios(exposure: Exposure, spans: NDArray[np.int32]) -> NDArray[np.float32]:
    """Image over noise in the pixels with data of some spans."""
    box = exposure.box
    y, first, last = (spans.astype(np.int64) - [box.y0, box.x0, box.x0]).T
    first, last = np.maximum(first, 0), np.minimum(last, box.nx - 1)
    length = np.where((y >= 0) & (y < box.ny), np.maximum(last - first + 1, 0), 0)
    pixel = expand_runs(y * box.nx + first, length)
    image, variance = exposure.image.ravel()[pixel], exposure.variance.ravel()[pixel]
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    return np.asarray(image[good] / np.sqrt(variance[good]), np.float32)


def median_noise(exposure: Exposure) -> float:
    """Median pixel noise of an exposure (its unit); NaN without data.

    Of large exposures every n-th pixel is looked at.
    """
    variance = exposure.variance.ravel()[:: 1 + exposure.variance.size // _SAMPLE]
    variance = variance[np.isfinite(variance) & (variance > 0)]
    return float(np.sqrt(np.median(variance))) if len(variance) else float("nan")


def rounding_step(flux_error: float, noise: float, largest: float = 0.0) -> float:
    """Step of stored pixels: ``flux_error`` of the noise, to three digits; 0: do not round.

    Three digits, so that the number survives as text in a header; and 0 where the largest pixel
    would be more steps than 32 bits count.
    """
    step = flux_error * noise
    return float(f"{step:.3g}") if step > 0 and largest < _MOST_STEPS * step < np.inf else 0.0
