"""Spectra by weighted non-negative least squares at fixed morphologies, with covariances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats, Stack, Window
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.render import Rendered, render

_LEAST_COVERAGE = 0.02
"""Bands that see less than this fraction of a component's light do not constrain it at all."""
ENOUGH_COVERAGE = 0.15
"""Bands that see less than this fraction of a source give it no flux worth reporting."""
_SAME = 1 - 1e-6
"""Cosine between two rendered morphologies above which they cannot be told apart."""
_RIDGE = 1e-9
_PATIENCE = 3
"""Exchanges of all wrong unknowns at once that need not lower their number (Kim & Park 2011)."""
_TINY = 1e-19
"""Spectra below this are 0."""
_LARGE = 50_000
"""Values of a blend's frame beyond which its bands are handled one by one."""
_CHUNK = 1 << 18
"""Most values of rendered components to multiply at once."""


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
    """Set up the normal equations of one blend, tile by tile.

    Parameters
    ----------
    rendered : sequence of (row, window, images)
        See `render`.
    weight, data : array, shape (n_band, ny, nx), float32

    Notes
    -----
    Temporary arrays hold at most about twice `_CHUNK` values, whatever the size of the blend.
    """
    rows = np.array([row for row, _, _ in rendered], np.int64)
    n_band, k = len(data), len(rows)
    gram = np.zeros((n_band, k, k))
    rhs, covered, light = np.zeros((3, n_band, k))
    bounds = np.array([(y.start, y.stop, x.start, x.stop) for _, (y, x), _ in rendered], np.int64)
    bounds = bounds.reshape(k, 4)
    for tile, inside in _tiles(bounds, data.shape[1:], _CHUNK // n_band):
        images = _in_tile(rendered, bounds, inside, tile)
        cut = (slice(None), *tile)
        w = weight[cut].reshape(n_band, -1, 1)
        weighted = images * w.transpose(0, 2, 1)
        gram[:, inside[:, None], inside] += weighted @ images.transpose(0, 2, 1)
        rhs[:, inside] += (weighted @ data[cut].reshape(n_band, -1, 1))[..., 0]
        del weighted  # as large as the images
        np.maximum(images, 0, out=images)
        light[:, inside] += images.sum(-1)
        covered[:, inside] += (images @ (w > 0).astype(w.dtype))[..., 0]
    return NormalEquations(rows, gram, rhs, covered / np.maximum(light, 1e-30))


def _tiles(
    bounds: NDArray[np.int64], shape: tuple[int, ...], most: int
) -> Iterator[tuple[Window, NDArray[np.int64]]]:
    """Cut a frame until each tile has few pixels for its number of windows.

    Parameters
    ----------
    bounds : array, shape (k, 4), int64
        First and end row, first and end column of the windows.
    shape : (ny, nx)
    most : int
        Number of windows times pixels.

    Yields
    ------
    tile : pair of slices
    inside : array, int64
        Windows with pixels in it; tiles without any are left out.
    """
    tiles = [(0, shape[0], 0, shape[1], np.arange(len(bounds)))]
    while tiles:
        y, ye, x, xe, some = tiles.pop()
        low_y, end_y, low_x, end_x = bounds[some].T
        some = some[(low_y < ye) & (end_y > y) & (low_x < xe) & (end_x > x)]
        if not len(some):
            continue
        height, width = ye - y, xe - x
        if len(some) * height * width <= most or max(height, width) == 1:
            yield (slice(y, ye), slice(x, xe)), some
        elif height >= width:
            middle = y + height // 2
            tiles += [(middle, ye, x, xe, some), (y, middle, x, xe, some)]
        else:
            middle = x + width // 2
            tiles += [(y, ye, middle, xe, some), (y, ye, x, middle, some)]


def _in_tile(
    rendered: Sequence[Rendered],
    bounds: NDArray[np.int64],
    inside: NDArray[np.int64],
    tile: Window,
) -> Floats:
    """Images of some components in a tile, shape (n_band, k, n_pixel)."""
    (y, ye), (x, xe) = ((cut.start, cut.stop) for cut in tile)
    first = rendered[int(inside[0])][2]
    out = np.zeros((len(first), len(inside), ye - y, xe - x), first.dtype)
    for i, member in enumerate(inside.tolist()):
        low_y, end_y, low_x, end_x = bounds[member].tolist()
        top, left, bottom, right = max(low_y, y), max(low_x, x), min(end_y, ye), min(end_x, xe)
        image = rendered[member][2][:, top - low_y : bottom - low_y, left - low_x : right - low_x]
        out[:, i, top - y : bottom - y, left - x : right - x] = image
    return out.reshape(len(first), len(inside), -1)


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
    spare = np.full(len(rhs), _PATIENCE)
    x = np.zeros_like(rhs)
    for _ in range(5 * k + 10):  # far more than it ever takes; then the last x has to do
        x = _solve_active(gram, rhs, active)
        dual = rhs - np.einsum("sij,sj->si", gram, x)
        wrong = (active & (x < -tolerance)) | (free & ~active & (dual > tolerance))
        count = wrong.sum(1)
        if not count.any():
            break
        better = count < fewest
        fewest = np.where(better, count, fewest)
        spare = np.where(better, _PATIENCE, spare - 1)
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
