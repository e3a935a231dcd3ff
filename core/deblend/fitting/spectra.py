"""Spectra by weighted non-negative least squares at fixed morphologies, with covariances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats, Place, Stack, Window
from coblend.core.deblend.fitting.observation import Frames, Observation, fft_period

_LEAST_COVERAGE = 0.02
"""Bands that see less than this fraction of a component's light do not constrain it at all."""
ENOUGH_COVERAGE = 0.15
"""Bands that see less than this fraction of a source give it no flux worth reporting."""
_SAME = 1 - 1e-6
"""Cosine between two rendered morphologies above which they cannot be told apart."""
_RIDGE = 1e-9
_TINY = 1e-19
"""Spectra below this are 0."""
_LARGE = 50_000
"""Values of a blend's frame beyond which its bands are handled one by one."""
_SMALL = 1 << 16
"""Values of rendered components up to which products are made for all bands at once."""
_CHUNK = 1 << 18
"""Most pixels rendered at once."""


Rendered = tuple[int, Window, Floats]
"""A component, its window in the frame, and its images there in all bands."""


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """Normal equations of the spectra of one blend's components, one system per band.

    Parameters
    ----------
    rows : array, shape (k,), int64
        The components.
    gram : array, shape (n_band, k, k), float64
        ``sum(w a_i a_j)`` with a the rendered morphologies.
    rhs : array, shape (n_band, k), float64
        ``sum(w a_i d)``.
    coverage : array, shape (n_band, k), float64
        Fraction of the component's light on usable pixels.
    """

    rows: NDArray[np.int64]
    gram: NDArray[np.float64]
    rhs: NDArray[np.float64]
    coverage: NDArray[np.float64]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Whether the band constrains the component, shape (n_band, k)."""
        return self.coverage > _LEAST_COVERAGE


def render(observation: Observation, stacks: Sequence[Stack]) -> list[list[Rendered]]:
    """Convolve every morphology with the kernels of all bands.

    Returns
    -------
    list of list of (row, window, images)
        Per blend and component: its row, where in the frame, and its images there, shape
        (n_band, ...).
    """
    rendered: list[list[Rendered]] = [[] for _ in range(len(observation))]
    group = np.zeros(len(observation), np.int64)
    index = np.zeros(len(observation), np.int64)
    for g, frames in enumerate(observation.frames):
        group[frames.blends], index[frames.blends] = g, np.arange(len(frames))
    work: dict[tuple[int, int], list[tuple[int, Floats, Place]]] = {}
    for stack in stacks:
        for row, r, morph, place in zip(
            stack.rows.tolist(), stack.own.tolist(), stack.morph, stack.places, strict=True
        ):
            g = int(group[place[0]])
            # a stamp with its wings may be smaller than the frame
            local = 2 * (r + observation.frames[g].half) + 1 < min(observation.frames[g].shape)
            if local:
                edge = stack.radius - r
                blend, frame, (y, x) = place
                inner = (
                    slice(y.start - edge, y.stop - edge),
                    slice(x.start - edge, x.stop - edge),
                )
                stamp = morph[edge : edge + 2 * r + 1, edge : edge + 2 * r + 1]
                work.setdefault((g, r), []).append((row, stamp, (blend, frame, inner)))
            else:
                work.setdefault((g, 0), []).append((row, morph, place))
    for (g, radius), items in work.items():
        frames = observation.frames[g]
        shape = (2 * radius + 1,) * 2 if radius else frames.shape
        wings = 2 * frames.half if radius else 0
        ly, lx = fft_period((shape[0] + wings, shape[1] + wings), frames.half)
        most = max(1, _CHUNK // (observation.n_band * ly * lx))
        for first in range(0, len(items), most):
            part = items[first : first + most]
            rows = index[[place[0] for _, _, place in part]]
            images = (_render_stamps if radius else _render_frames)(frames, rows, part, shape)
            for (row, _, place), (window, image) in zip(part, images, strict=True):
                rendered[place[0]].append((row, window, image))
    return [sorted(own, key=lambda item: item[0]) for own in rendered]


def _render_frames(
    frames: Frames,
    rows: NDArray[np.int64],
    items: Sequence[tuple[int, Floats, Place]],
    shape: tuple[int, int],
) -> Iterator[tuple[Window, Floats]]:
    """Render components over their whole frames."""
    planes = np.zeros((len(items), *shape), frames.data.dtype)
    for plane, (_, morph, (_, window, own)) in zip(planes, items, strict=True):
        plane[window] = morph[own]
    kernel_ft = frames.kernel_ft if len(frames.kernel_ft) == 1 else frames.kernel_ft[rows]
    whole = (slice(0, shape[0]), slice(0, shape[1]))
    for image in frames.invert(frames.transform(planes)[:, None] * kernel_ft):
        yield whole, image


def _render_stamps(
    frames: Frames,
    rows: NDArray[np.int64],
    items: Sequence[tuple[int, Floats, Place]],
    shape: tuple[int, int],
) -> Iterator[tuple[Window, Floats]]:
    """Render components on their stamps plus the wings of the kernel."""
    half, side = frames.half, shape[0]
    full = (side + 2 * half,) * 2
    kernels = frames.kernels if len(frames.kernels) == 1 else frames.kernels[rows]
    blank = np.zeros((1, 1, *full), frames.data.dtype)
    local = Frames.of(rows, blank, blank, kernels)
    padded = np.zeros((len(items), *full), frames.data.dtype)
    padded[:, half : half + side, half : half + side] = [morph for _, morph, _ in items]
    images = local.invert(local.transform(padded)[:, None] * local.kernel_ft)
    for image, (_, _, (_, window, own)) in zip(images, items, strict=True):
        lows = [w.start - o.start - half for w, o in zip(window, own, strict=True)]
        cut = tuple(
            slice(max(0, low), min(n, low + full[0]))
            for low, n in zip(lows, frames.shape, strict=True)
        )
        inside = tuple(
            slice(c.start - low, c.stop - low) for c, low in zip(cut, lows, strict=True)
        )
        yield (cut[0], cut[1]), image[(slice(None), *inside)]


def normal_equations(observation: Observation, stacks: Sequence[Stack]) -> list[NormalEquations]:
    """Set up the normal equations of every blend of the observation.

    Large blends band by band, to save memory.
    """
    large = np.zeros(len(observation), bool)
    for frames in observation.frames:
        large[frames.blends] = frames.data[0].size > _LARGE and observation.n_band > 1
    if large.any() and not large.all():
        systems: dict[int, NormalEquations] = {}
        for some in (large, ~large):
            part = normal_equations(observation.select(some), _stacks_of(stacks, some))
            systems.update(zip(np.flatnonzero(some).tolist(), part, strict=True))
        return [systems[i] for i in range(len(large))]
    if large.any():
        bands = [normal_equations(observation.band(b), stacks) for b in range(observation.n_band)]
        return [
            NormalEquations(own[0].rows, *(
                np.concatenate([getattr(system, name) for system in own])
                for name in ("gram", "rhs", "coverage")
            ))
            for own in zip(*bands, strict=True)
        ]  # fmt: skip
    return [
        blend_equations(own, weight, data)
        for own, weight, data in zip(
            render(observation, stacks), observation.weight, observation.data, strict=True
        )
    ]


def _stacks_of(stacks: Sequence[Stack], keep: NDArray[np.bool_]) -> list[Stack]:
    """Stamps of some blends, which are numbered anew; components keep their rows."""
    number, parts = np.cumsum(keep) - 1, []
    for stack in stacks:
        blend = np.array([place[0] for place in stack.places], np.int64)
        index = np.flatnonzero(keep[blend])
        if len(index):
            parts.append(stack.take(index, stack.rows[index], number[blend[index]]))
    return parts


def blend_equations(rendered: Sequence[Rendered], weight: Floats, data: Floats) -> NormalEquations:
    """Set up the normal equations of one blend.

    Parameters
    ----------
    rendered : sequence of (row, window, images)
        See `render`.
    weight, data : array, shape (n_band, ny, nx), float32
    """
    rows = np.array([row for row, _, _ in rendered], np.int64)
    whole = bool(rendered) and all(image.shape == data.shape for _, _, image in rendered)
    build = _dense_products if whole else _overlap_products
    gram, rhs = build(rendered, weight, data)
    coverage = np.zeros(rhs.shape)
    usable = (weight > 0).astype(np.float32)
    for i, (_, window, image) in enumerate(rendered):
        light = np.maximum(image, 0)
        covered = _dot(light, usable[(slice(None), *window)])
        coverage[:, i] = covered / np.maximum(light.sum((1, 2)), 1e-30)
    return NormalEquations(rows, gram, rhs, coverage)


def _dense_products(
    rendered: Sequence[Rendered], weight: Floats, data: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gram matrices and right-hand sides of images that all cover the frame.

    All bands at once where they are small, else one by one, to save memory.
    """
    n_band, k, n_pixel = len(data), len(rendered), data[0].size
    gram, rhs = np.empty((n_band, k, k)), np.empty((n_band, k))
    step = n_band if k * data.size < _SMALL else 1
    for first in range(0, n_band, step):
        part = slice(first, first + step)
        images = np.stack([image[part] for _, _, image in rendered], 1).reshape(step, k, n_pixel)
        weighted = images * weight[part].reshape(step, 1, n_pixel)
        gram[part] = weighted @ images.transpose(0, 2, 1)
        rhs[part] = (weighted @ data[part].reshape(step, n_pixel, 1))[..., 0]
    return gram, rhs


def _overlap_products(
    rendered: Sequence[Rendered], weight: Floats, data: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gram matrices and right-hand sides of images on windows of their own."""
    n_band, k = len(data), len(rendered)
    gram, rhs = np.zeros((n_band, k, k)), np.zeros((n_band, k))
    weighted = []
    for i, (_, window, image) in enumerate(rendered):
        cut = (slice(None), *window)
        weighted.append(weight[cut] * image)
        rhs[:, i] = _dot(weighted[i], data[cut])
    bounds = np.array([[(w.start, w.stop) for w in window] for _, window, _ in rendered])
    bounds = bounds.reshape(k, 2, 2)
    low, end = bounds[..., 0], bounds[..., 1]
    first, last = np.maximum(low[:, None], low), np.minimum(end[:, None], end)
    one, two = np.nonzero(np.tril((first < last).all(2)))
    first, last = first[one, two], last[one, two]
    cuts = np.concatenate(
        [first - low[one], last - low[one], first - low[two], last - low[two]], 1
    )
    for i, j, (y, x, ye, xe, v, u, ve, ue) in zip(
        one.tolist(), two.tolist(), cuts.tolist(), strict=True
    ):
        gram[:, i, j] = _dot(weighted[i][:, y:ye, x:xe], rendered[j][2][:, v:ve, u:ue])
    gram[:, two, one] = gram[:, one, two]
    return gram, rhs


def _dot(a: Floats, b: Floats) -> Floats:
    """Sum of products over pixels, per band."""
    total: Floats = np.einsum("byx,byx->b", a, b)
    return total


def solve(systems: Sequence[NormalEquations], n_component: int) -> NDArray[np.float64]:
    """Non-negative spectra of all components, shape (n_component, n_band).

    Systems of equal size are solved together. Components whose rendered morphologies cannot be
    told apart share their flux equally.
    """
    n_band = systems[0].gram.shape[0] if systems else 0
    spectra = np.zeros((n_component, n_band))
    sizes = np.array([len(s.rows) for s in systems])
    for k in np.unique(sizes[sizes > 0]):
        same = [s for s in systems if len(s.rows) == k]
        twins = [same_light(s.gram) for s in same]
        free = np.stack([s.seen & (t == np.arange(k)) for s, t in zip(same, twins, strict=True)])
        solution = nnls(np.stack([s.gram for s in same]), np.stack([s.rhs for s in same]), free)
        for system, twin, values in zip(same, twins, solution, strict=True):
            share = 1 / np.bincount(twin, minlength=int(k))[twin]
            spectra[system.rows] = (values[:, twin] * share).T
    return spectra


def same_light(gram: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the first component with the same rendered morphology as each, shape (k,)."""
    total = gram.sum(0)
    scale = np.sqrt(np.maximum(np.diag(total), 1e-300))
    same = total > _SAME * scale[:, None] * scale
    np.fill_diagonal(same, True)
    first: NDArray[np.int64] = np.argmax(same, axis=1)
    return first[first]


def covariance(system: NormalEquations, spectra: Floats) -> NDArray[np.float64]:
    """Covariance of the positive spectra at fixed morphologies, shape (n_band, k, k).

    Components that are 0 or share their light with a twin have no variance of their own.
    """
    k = len(system.rows)
    active = system.seen & (spectra.T > _TINY) & (same_light(system.gram) == np.arange(k))
    both = active[:, :, None] & active[:, None, :]
    diagonal = np.einsum("bkk->bk", system.gram)
    scale = np.where(active, 1 / np.sqrt(np.where(active, diagonal, 1)), 1)
    unit = system.gram * scale[:, :, None] * scale[:, None, :] + _RIDGE * np.eye(k)
    inverse = np.linalg.inv(np.where(both, unit, np.eye(k)))
    return np.where(both, inverse * scale[:, :, None] * scale[:, None, :], 0)


def nnls(
    gram: NDArray[np.float64], rhs: NDArray[np.float64], free: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Minimise ``x G x / 2 - y x`` over ``x >= 0`` by block principal pivoting.

    Parameters
    ----------
    gram : array, shape (..., k, k), float64
        Positive semi-definite.
    rhs : array, shape (..., k), float64
    free : array, shape (..., k), bool
        Unknowns that may differ from 0.

    Returns
    -------
    array, shape (..., k), float64

    Notes
    -----
    Kim & Park (2011, SIAM J. Sci. Comput. 33, 3261), all systems at once.
    """
    shape, k = rhs.shape, rhs.shape[-1]
    gram, rhs, free = gram.reshape(-1, k, k), rhs.reshape(-1, k), free.reshape(-1, k)
    diagonal = np.einsum("sii->si", gram)
    free = free & (diagonal > 1e-12 * diagonal.max(1, initial=0)[:, None])
    scale = np.where(free, 1 / np.sqrt(np.where(free, diagonal, 1)), 0)
    gram = gram * scale[:, :, None] * scale[:, None, :] + _RIDGE * np.eye(k)
    rhs = rhs * scale
    tolerance = 1e-9 * (np.abs(rhs).max(1, initial=0)[:, None] + 1e-300)
    active = free & (rhs > 0)
    fewest = np.full(len(rhs), k + 1)
    spare = np.full(len(rhs), 3)
    x = np.zeros_like(rhs)
    for _ in range(5 * k + 10):
        x = _solve_active(gram, rhs, active)
        dual = rhs - np.einsum("sij,sj->si", gram, x)
        wrong = (active & (x < -tolerance)) | (free & ~active & (dual > tolerance))
        count = wrong.sum(1)
        if not count.any():
            break
        better = count < fewest
        fewest = np.where(better, count, fewest)
        spare = np.where(better, 3, spare - 1)
        # when exchanging all wrong unknowns stops helping, exchange the last one only
        last = k - 1 - np.argmax(wrong[:, ::-1], axis=1)
        single = wrong & (np.arange(k) == last[:, None])
        active ^= np.where((spare >= 0)[:, None], wrong, single)
    return np.asarray((np.maximum(x, 0) * scale).reshape(shape), np.float64)


def _solve_active(
    gram: NDArray[np.float64], rhs: NDArray[np.float64], active: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Solve for the active unknowns, the others being 0."""
    both = active[:, :, None] & active[:, None, :]
    matrix = np.where(both, gram, np.eye(gram.shape[-1]))
    return np.linalg.solve(matrix, np.where(active, rhs, 0)[..., None])[..., 0]
