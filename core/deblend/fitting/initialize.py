"""Where a fit starts: morphologies from a deconvolved detection image, made symmetric.

The better the start, the fewer iterations: the detection image is sharpened to the resolution of
the model first, and symmetry does not touch the core, because a source reflected about the wrong
point of its pixel leaves a dipole there that takes dozens of iterations to repair. No
deconvolution makes a star; bright sources therefore get a component that starts as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import (
    PADDING,
    Centres,
    Floats,
    Stack,
    allowed_radii,
    stack_stamps,
    support_radius,
)
from coblend.core.deblend.fitting.monotonic import project
from coblend.core.deblend.fitting.observation import Frames, Observation
from coblend.core.deblend.point import model_stamps

N_SHARPEN = 10
"""Steps of the deconvolution: more of them sharpen the noise."""
_LEAST_COVERAGE = 0.05
"""Pixels that bands of less than this fraction of the light have seen are dark."""
_DARK = 1e-3
"""Light (units of the noise, or of all light of a band) that keeps what is dark from staying 0."""
_TINY = 1e-6
"""Smallest divisor."""
_POINT_LEVEL = 1e-5
"""Pixels of a point source (of maximum 1) below this are dark."""
_FARTHEST = 0.7
"""Largest distance of a source from its pixel along an axis."""
_FIRST_RADIUS = 50
"""Largest radius of a morphology at the start; it may grow later (pixel)."""
_LARGEST_RATIO = np.float32(8)
"""Largest growth of a pixel in one step of the deconvolution, where the kernel hardly reaches."""
_CHUNK = 1 << 17
"""Most pixels of stamps made at once."""


def detection_images(frames: Frames, n_iter: int = N_SHARPEN) -> Floats:
    """Sum of the bands deconvolved to the resolution of the model, shape (n, ny, nx), float32.

    Multiplicative steps ``x <- x D'(w y) / D'(w D(w x))`` towards the non-negative least-squares
    solution: the image space reconstruction algorithm (Daube-Witherspoon & Muehllehner 1986, IEEE
    Trans. Med. Imaging 5, 61). y is the sum of the bands in units of their noise over their
    coverage, D the mean kernel weighted by each band's flux, w where any band has seen anything.
    """
    data, usable = frames.data, (frames.weight > 0).astype(np.float32)
    flux = np.maximum(data.sum((-2, -1)), _DARK * np.abs(data).sum((-2, -1)) + _TINY)
    share = (flux / flux.sum(1, keepdims=True)).astype(np.float32)
    coverage = np.einsum("nb,nbyx->nyx", share, usable)
    image = np.maximum(data.sum(1), 0) / np.maximum(coverage, _LEAST_COVERAGE)
    weight = (coverage > _LEAST_COVERAGE).astype(np.float32)
    kernel_ft = np.einsum("nb,nbyx->nyx", share, np.broadcast_to(
        frames.kernel_ft, (len(data), *frames.kernel_ft.shape[1:])))  # fmt: skip
    adjoint = np.conj(kernel_ft)
    image *= weight
    target = np.maximum(frames.invert(frames.transform(image) * adjoint), 0)
    x = image + np.float32(_DARK)  # what is 0 would stay so
    for _ in range(n_iter):
        model = frames.invert(frames.transform(x * weight) * kernel_ft) * weight
        ratio = target / np.maximum(frames.invert(frames.transform(model) * adjoint), _TINY)
        x *= np.minimum(ratio, _LARGEST_RATIO)
    return np.asarray(x * weight, np.float32)


def signal_to_noise(
    data: Sequence[Floats], weight: Sequence[Floats], psfs: Floats, centres: Centres
) -> Floats:
    """Signal-to-noise ratio of a PSF-weighted sum over all bands at each centre, shape (k,).

    Parameters
    ----------
    data, weight : sequence of array, shape (n_band, ny, nx)
        Of each blend.
    psfs : array, shape (n, n_band, p, p)
        Observed PSFs of each blend.
    centres : Centres
    """
    half = psfs.shape[-1] // 2
    ratio = np.zeros(len(centres))
    for i in range(len(centres)):
        blend, y, x = int(centres.blend[i]), int(centres.y[i]), int(centres.x[i])
        ny, nx = int(centres.ny[i]), int(centres.nx[i])
        fy, fx = (
            slice(max(0, y - half), min(ny, y + half + 1)),
            slice(max(0, x - half), min(nx, x + half + 1)),
        )
        psf = psfs[blend][
            :, fy.start - y + half : fy.stop - y + half, fx.start - x + half : fx.stop - x + half
        ]
        w = weight[blend][:, fy, fx]
        variance = np.divide(1, w, out=np.zeros_like(w), where=w > 0)
        noise = float(np.vdot(psf * psf, variance))
        if noise > 0:
            ratio[i] = float(np.vdot(psf * (w > 0), data[blend][:, fy, fx])) / noise**0.5
    return ratio


def recentre(centres: Centres, images: Sequence[Floats]) -> Centres:
    """Move centres that lie beside a local maximum onto it.

    Peaks on the flank of a neighbour have no maximum of their own and stay where they are.
    """
    y, x = centres.y.copy(), centres.x.copy()
    for i, blend in enumerate(centres.blend):
        image = images[blend][: centres.ny[i], : centres.nx[i]]
        first = brightest_near(image, int(y[i]), int(x[i]))
        if brightest_near(image, *first) == first:
            y[i], x[i] = first
    return replace(centres, y=y, x=x)


def brightest_near(image: Floats, y: int, x: int) -> tuple[int, int]:
    """Brightest of the 3x3 pixels about one; the first in raster order wins a tie."""
    y0, x0 = max(0, y - 1), max(0, x - 1)
    core = image[y0 : y + 2, x0 : x + 2]
    dy, dx = divmod(int(core.argmax()), core.shape[1])
    return y0 + dy, x0 + dx


def symmetrize(stamps: Floats) -> Floats:
    """Smaller of each pixel and its reflection about the centre, but for the central 3x3 pixels.

    These tell where within its pixel the true centre lies, and hold little light of neighbours.
    """
    out = np.minimum(stamps, stamps[:, ::-1, ::-1])
    r = stamps.shape[-1] // 2
    core = np.s_[:, r - 1 : r + 2, r - 1 : r + 2]
    out[core] = stamps[core]
    return out


def initial_components(
    observation: Observation,
    psfs: Floats,
    centres: Centres,
    *,
    threshold: float,
    min_snr: float,
    psf_sigma: float,
) -> tuple[Centres, list[Stack], NDArray[np.bool_]]:
    """Components of every peak, with morphologies of maximum 1.

    Parameters
    ----------
    observation : Observation
    psfs : array, shape (n, n_band, p, p)
        Observed PSFs of each blend.
    centres : Centres
        The peaks.
    threshold : float
        Fainter pixels are dark (noise of the bands' sum before it is deconvolved).
    min_snr : float
        Signal-to-noise ratio per component: twice this gives two, the whole and a point source.
    psf_sigma : float
        Width of the model PSF (pixel).

    Returns
    -------
    centres : Centres
        Of the components: a source of high signal-to-noise ratio has two.
    stacks : list of Stack
    point : array, shape (k,), bool
        Components that start as the model PSF.
    """
    images = observation.by_blend([detection_images(frames) for frames in observation.frames])
    centres = recentre(centres, images)
    dy, dx = subpixel_offsets([data.sum(0) for data in observation.data], centres).T
    stars = point_sources(dy, dx, psf_sigma)
    noise = np.float32(threshold * np.sqrt(observation.n_band))
    stacks, point = _wholes(images, centres, stars, noise)
    ratio = signal_to_noise(observation.data, observation.weight, psfs, centres)
    rows = np.repeat(np.arange(len(centres)), 1 + ((ratio >= 2 * min_snr) & ~point))
    own = centres.select(rows)
    return own, _with_stars(stacks, stars, rows, own), point[rows]


def _wholes(
    images: Sequence[Floats], centres: Centres, stars: Floats, noise: np.float32
) -> tuple[list[Stack], NDArray[np.bool_]]:
    """Morphologies of whole sources, and which of them have no light and start as stars."""
    radii = allowed_radii(np.full(len(centres), _FIRST_RADIUS), centres)
    stacks = stack_stamps(radii, centres, [])
    point = np.zeros(len(centres), bool)
    for stack in stacks:
        cuts = stack.cut(images)
        most = max(1, _CHUNK // cuts[0].size)
        for first in range(0, len(cuts), most):
            part = slice(first, first + most)
            rows = stack.rows[part]
            outside = None if stack.outside is None else stack.outside[part]
            morph = project(symmetrize(cuts[part]), outside)
            morph[morph <= noise] = 0
            top = morph.max((1, 2))
            empty = top <= 0
            morph /= np.where(empty, 1, top)[:, None, None]
            morph[empty] = embed(stars[rows[empty]], morph.shape[-1])
            point[rows[empty]] = True
            stack.planes[0, part] = morph
    return _with_room(stacks, centres), point


def _with_stars(
    stacks: Sequence[Stack], stars: Floats, rows: NDArray[np.int64], own: Centres
) -> list[Stack]:
    """Stamps of components ``own`` of sources ``rows``: of two in a row the second is a star."""
    is_star = np.concatenate([[False], rows[1:] == rows[:-1]])
    parts = []
    for stack in stacks:
        members = np.flatnonzero(np.isin(rows, stack.rows))
        sources, star = rows[members], is_star[members]
        at = np.searchsorted(stack.rows, sources)
        part = stack.take(at, members, own.blend[members])
        part.morph[star] = embed(stars[sources[star]], part.morph.shape[-1])
        parts.append(part)
    return _with_room(parts, own)


def _with_room(stacks: Sequence[Stack], centres: Centres) -> list[Stack]:
    """Stamps with room about their lit pixels."""
    needed = np.zeros(len(centres), np.int64)
    for stack in stacks:
        needed[stack.rows] = support_radius(stack.morph) + PADDING
    return stack_stamps(allowed_radii(needed, centres), centres, stacks)


def subpixel_offsets(images: Sequence[Floats], centres: Centres) -> NDArray[np.float64]:
    """How far sources are from the middle of their pixel, along y and x, shape (k, 2).

    From the vertex of the parabola through the logarithms of three pixels: exact for a Gaussian.
    0 where that has none: beside an edge or a pixel without light, and on the flank of a
    neighbour.

    Parameters
    ----------
    images : sequence of array, shape (ny, nx)
        Of each blend.
    centres : Centres
    """
    light = np.zeros((len(centres), 2, 3))
    for own, blend, y, x in zip(
        light, centres.blend.tolist(), centres.y.tolist(), centres.x.tolist(), strict=True
    ):
        image = images[blend]
        if 0 < y < image.shape[0] - 1:
            own[0] = image[y - 1 : y + 2, x]
        if 0 < x < image.shape[1] - 1:
            own[1] = image[y, x - 1 : x + 2]
    before, here, after = np.moveaxis(np.log(np.maximum(light, 1e-30)), 2, 0)
    bend = 2 * here - before - after
    peaked = (light > 0).all(2) & (bend > 0)
    offset = np.divide(after - before, 2 * bend, out=np.zeros_like(bend), where=peaked)
    return np.asarray(np.clip(offset, -_FARTHEST, _FARTHEST), np.float64)


def point_sources(dy: Floats, dx: Floats, sigma: float) -> Floats:
    """Morphologies of point sources off their pixels, of maximum 1, shape (k, side, side)."""
    stamps = model_stamps(dy, dx, sigma)
    stamps /= stamps.max((1, 2), keepdims=True)
    stamps[stamps < _POINT_LEVEL] = 0
    return stamps.astype(np.float32)


def embed(stamps: Floats, side: int) -> Floats:
    """Cut or pad square stamps about their centres, shape (k, side, side)."""
    out = np.zeros((len(stamps), side, side), stamps.dtype)
    own = stamps.shape[-1] // 2
    r = min(side // 2, own)
    here, there = slice(side // 2 - r, side // 2 + r + 1), slice(own - r, own + r + 1)
    out[:, here, here] = stamps[:, there, there]
    return out
