"""A seeded field at the density of a deep ground-based survey, with detections and truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from coblend.core.box import Box
from coblend.core.catalog import empty_table
from coblend.core.detect.identifiers import MERGED, PARENT, PEAK, encode
from coblend.core.detection import Detections, parent_columns, peak_columns
from coblend.core.exposure import Cube
from coblend.core.footprint import FootprintSet
from coblend.core.psf.stamp import StampPsf
from coblend.core.simulate.profiles import (
    BULGE_NU,
    DISK_NU,
    STAMP_SIDE,
    moffat_transfer,
    spergel_transform,
    stamps,
)

BANDS = ("g", "r", "i", "z", "y")
SEEING = (4.6, 4.2, 3.7, 3.9, 4.1)  # FWHM in pixels of 0.168 arcsec
PSF_SIDE = 41
NOISE = np.array([1.0, 1.3, 1.8, 2.6, 5.0])
THRESHOLD, GROW = 5.0, 3
GROUPED = {"size": 720, "density": 5.8e-4, "faintest": 80.0, "radius": 1.5, "n_host": 10,
           "spread": 14.0, "grow": 6}  # fmt: skip
"""300 sources in 720 x 720 pixels, a third of them in ten groups: 240 peaks in 118 parents."""


@dataclass(frozen=True)
class Field:
    """What a deblender is given, and the truth.

    Parameters
    ----------
    cube : Cube
    detections : Detections
    truth : structured array
        ``x, y, star`` and the total flux of each source, ``flux`` (n_band).
    images : array, shape (n_source, n_band, 2 r + 1, 2 r + 1), float32
        Noise-free light of every source about its nearest pixel.
    """

    cube: Cube
    detections: Detections
    truth: np.ndarray
    images: np.ndarray


def make_field(
    size: int = 1000,
    density: float = 1.6e-3,
    seed: int = 20,
    *,
    faintest: float = 40.0,
    radius: float = 1.2,
    n_host: int = 0,
    spread: float = 6.0,
    grow: int = GROW,
) -> Field:
    """Draw a sky, observe it with noise, detect on the sum of the bands in noise units.

    Parameters
    ----------
    size : int
        Side (pixel).
    density : float
        Sources per pixel.
    seed : int
    faintest : float
        Smallest i-band flux, in units of the i-band pixel noise.
    radius : float
        Typical radius of the faintest (pixel).
    n_host : int
        Sources about which the others gather; 0: all.
    spread : float
        Distance from a host (pixel).
    grow : int
        Pixels by which footprints are grown.
    """
    rng = np.random.default_rng(seed)
    n = int(density * size * size)
    truth = np.zeros(n, [("x", "f8"), ("y", "f8"), ("star", "?"), ("flux", "f8", len(BANDS))])
    truth["x"], truth["y"] = rng.uniform(0, size - 1, (2, n))
    # a third of the sources come in groups
    member = rng.uniform(size=n) < 0.33
    host = rng.integers(0, n_host or n, n)
    for axis in ("x", "y"):
        near = truth[axis][host] + rng.normal(0, spread, n)
        truth[axis] = np.where(member, np.clip(near, 0, size - 1), truth[axis])
    truth["star"] = rng.uniform(size=n) < 0.2
    # i-band flux in units of the i-band pixel noise, counts falling as flux^-0.85
    flux = faintest * rng.uniform(0, 1, n) ** (-1 / 0.85)
    flux = np.minimum(flux, 2e5)
    colour = rng.normal(0.25, 0.35, n)
    slope = np.linspace(-2, 1, len(BANDS))
    truth["flux"] = NOISE[2] * flux[:, None] * 10 ** (0.4 * colour[:, None] * slope)
    sizes = radius * (flux / faintest) ** 0.14 * rng.lognormal(0, 0.3, n)
    images = _render(truth, np.where(truth["star"], 0, sizes), rng)
    sky = np.zeros((len(BANDS), size, size), np.float32)
    for row, image in zip(truth, images, strict=True):
        _add(sky, image, int(np.rint(row["y"])), int(np.rint(row["x"])))
    sky += (NOISE[:, None, None] * rng.normal(size=sky.shape)).astype(np.float32)
    variance = np.broadcast_to((NOISE**2)[:, None, None], sky.shape).astype(np.float32)
    box = Box(0, 0, size, size)
    cube = Cube(sky, variance, np.zeros(sky.shape, np.int32), BANDS,
                tuple(StampPsf(_psf(fwhm)) for fwhm in SEEING), box)  # fmt: skip
    return Field(cube, detect(cube, grow), truth, images)


def detect(cube: Cube, grow: int = GROW) -> Detections:
    """Regions above 5 sigma in the smoothed sum of the bands, grown; their local maxima."""
    noise = np.sqrt(np.median(cube.variances, axis=(1, 2)))
    smooth = ndimage.gaussian_filter((cube.images / noise[:, None, None]).sum(0), 1.7)
    smooth /= 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    top = (smooth == ndimage.maximum_filter(smooth, 3)) & (smooth > THRESHOLD)
    labels, n = ndimage.label(ndimage.binary_dilation(smooth > THRESHOLD, iterations=grow))
    y, x = np.nonzero(top)
    parent = labels[y, x]
    order = np.lexsort((-smooth[y, x], parent))
    y, x, parent = y[order], x[order], parent[order]
    parents = empty_table(parent_columns(cube.bands), n)
    peaks = empty_table(peak_columns(cube.bands), len(y))
    count = np.bincount(parent, minlength=n + 1)[1:]
    parents["npeak"], parents["peak0"] = count, np.cumsum(count) - count
    parents["id"] = encode(1, MERGED, PARENT, y[parents["peak0"]], x[parents["peak0"]])
    peaks["id"], peaks["parent"] = encode(1, MERGED, PEAK, y, x), parents["id"][parent - 1]
    peaks["x"] = peaks["ix"] = x
    peaks["y"] = peaks["iy"] = y
    sets = [
        FootprintSet.from_mask(labels[part] == i, part[0].start, part[1].start)
        for i, part in enumerate(ndimage.find_objects(labels), 1)
    ]
    spans = np.concatenate([s.spans for s in sets])
    offsets = np.concatenate([[0], np.cumsum([len(s.spans) for s in sets])])
    parents["area"] = FootprintSet(spans, offsets).areas
    return Detections(cube.bands, parents, peaks, FootprintSet(spans, offsets), cube.box)


def _psf(fwhm: float) -> np.ndarray:
    """Moffat PSF, beta 3, as a survey's PSF model would give it."""
    stamp = stamps(moffat_transfer(fwhm, 3.0), 0.0, 0.0)
    middle, half = stamp.shape[-1] // 2, PSF_SIDE // 2
    cut = stamp[middle - half : middle + half + 1, middle - half : middle + half + 1]
    return cut / cut.sum()


def _render(truth: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise-free stamps of all sources in all bands."""
    transfers = [moffat_transfer(fwhm, 3.0) for fwhm in SEEING]
    half = STAMP_SIDE // 2 - 1
    out = np.zeros((len(truth), len(BANDS), 2 * half + 1, 2 * half + 1), np.float32)
    for i, row in enumerate(truth):
        dy, dx = (row[c] - np.rint(row[c]) for c in ("y", "x"))
        ratio, angle = rng.uniform(0.4, 1), rng.uniform(0, np.pi)
        bulge = 0.3 * rng.uniform()
        if row["star"]:
            profile = 1.0
        else:
            profile = (1 - bulge) * spergel_transform(DISK_NU, radius[i], ratio, angle)
            profile = profile + bulge * spergel_transform(BULGE_NU, 0.4 * radius[i], 1.0, 0.0)
        for b, transfer in enumerate(transfers):
            image = stamps(profile * transfer, dy, dx)
            m = image.shape[-1] // 2
            out[i, b] = row["flux"][b] * image[m - half : m + half + 1, m - half : m + half + 1]
    return out


def _add(sky: np.ndarray, image: np.ndarray, y: int, x: int) -> None:
    half = image.shape[-1] // 2
    ny, nx = sky.shape[1:]
    y0, y1, x0, x1 = (
        max(0, y - half),
        min(ny, y + half + 1),
        max(0, x - half),
        min(nx, x + half + 1),
    )
    part = image[:, y0 - y + half : y1 - y + half, x0 - x + half : x1 - x + half]
    sky[:, y0:y1, x0:x1] += part
