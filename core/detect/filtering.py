"""Noise-weighted matched filter.

For a unit-sum template T and weights ``w = 1 / variance`` (0 on unusable pixels and outside the
image),

    num = (w * image) (x) T,    den = w (x) T**2,
    flux = num / den,    flux_err = den**-0.5,    snr = num / sqrt(den).

``flux`` is the maximum-likelihood point-source flux at each pixel and ``snr`` its significance
(Turin 1960; sep ``filter_type="matched"`` has the same definition), so masked pixels and borders
need no special case. The plain form ``(image (x) T) / sqrt(variance (x) T**2)`` is the Rubin
pipelines' (meas_algorithms: SourceDetectionTask). Where the width of the PSF varies, the image is
cut into cells with a template each; every pixel of the result has one template, so there are no
seams.

Both axes of the separable Gaussian are products with banded matrices, block by block: the data
stay in the cache and the result takes half the time of adding shifted rows. float32 suffices: the
difference from float64 is 2e-7 of the largest value.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy.typing import NDArray

from coblend.core.detect.pixels import Pixels, strips

ROWS, COLUMNS = 64, 32
"""Size of one block of the matrix products."""


def gaussian_taps(sigma: float, n_sigma: float = 7.0) -> NDArray[np.float64]:
    """One axis of a unit-sum Gaussian template.

    Parameters
    ----------
    sigma : float
        Width, pixel.
    n_sigma : float
        Full width of the template in sigma.

    Returns
    -------
    array, shape (size,), float64
        ``size = (int(n_sigma * sigma + 0.5) // 2) * 2 + 1``, odd.
    """
    size = (int(n_sigma * sigma + 0.5) // 2) * 2 + 1
    offset = np.arange(size) - size // 2
    taps = np.exp(-0.5 * (offset / sigma) ** 2)
    return np.asarray(taps / taps.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A separable filter, of its own in each of n_y x n_x equal cells of the image.

    Parameters
    ----------
    taps : array, shape (n_y, n_x, size), float64
        One axis, sum 1.
    matched : bool
        Whether pixels are weighted by their inverse variance.
    """

    taps: NDArray[np.float64]
    matched: bool = True

    @classmethod
    def gaussian(
        cls, sigma: float | NDArray[np.float64], n_sigma: float = 7.0, matched: bool = True
    ) -> Template:
        """Gaussians of width ``sigma`` (pixel), one or of shape (n_y, n_x)."""
        widths = np.atleast_2d(np.asarray(sigma, np.float64))
        each = [gaussian_taps(float(width), n_sigma) for width in widths.ravel()]
        size = max(len(taps) for taps in each)
        padded = [np.pad(taps, (size - len(taps)) // 2) for taps in each]
        return cls(np.reshape(padded, (*widths.shape, size)), matched)

    @property
    def size(self) -> int:
        """Side of the template, pixel."""
        return int(self.taps.shape[-1])

    @property
    def half(self) -> int:
        """Half the size, without the central pixel."""
        return self.size // 2

    def edges(self, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bounds of the cells' rows and columns in an image of that shape."""
        y, x = (
            -(-np.arange(c + 1) * n // c) for c, n in zip(self.taps.shape, shape, strict=False)
        )
        return y, x

    def taps_at(
        self, shape: tuple[int, int], y: NDArray[np.int64], x: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Taps at n pixels of an image of that shape, shape (n, size)."""
        n_y, n_x, _ = self.taps.shape
        return np.asarray(self.taps[y * n_y // shape[0], x * n_x // shape[1]])

    def power_at(
        self, shape: tuple[int, int], y: NDArray[np.int64], x: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Sum of the squared template at n pixels: 1 / (4 pi sigma**2) for a wide Gaussian."""
        return np.asarray(np.sum(self.taps_at(shape, y, x) ** 2, axis=1) ** 2)


def snr_map(pixels: Pixels, template: Template, threads: int = 1) -> NDArray[np.float32]:
    """Significance of a point source at every pixel.

    Parameters
    ----------
    pixels : Pixels
    template : Template
    threads : int
        Threads that share the rows; the result does not depend on it.

    Returns
    -------
    array, shape (ny, nx), float32
        0 where nothing is known: no weight under the template (matched), or any unusable pixel
        or the outside under it (plain).
    """
    out = np.zeros(pixels.shape, np.float32)
    y_edges, x_edges = template.edges(pixels.shape)
    blocks = [
        (cell, slice(y, min(y + ROWS, int(stop))))
        for cell, (start, stop) in enumerate(pairwise(y_edges))
        for y in range(int(start), int(stop), ROWS)
    ]

    def work(part: NDArray[np.int64]) -> None:
        done = -1
        for i in part.tolist():
            cell, rows = blocks[i]
            if cell != done:
                taps = template.taps[cell]
                filters = [
                    _Filter(t, slice(int(a), int(b)), pixels.shape[1], template.matched)
                    for t, (a, b) in zip(taps, pairwise(x_edges), strict=True)
                ]
                done = cell
            good = _padded_usable(pixels, rows, template.half)
            weight = _padded_weight(pixels, template, rows, good)
            value = _padded_value(pixels, template, rows, good, weight)
            for each in filters:
                each.write(good, weight, value, out[rows, each.columns])

    parts = np.array_split(np.arange(len(blocks)), threads)
    if threads == 1:
        work(parts[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, parts))
    return out


def flux_error(
    pixels: Pixels, template: Template, y: NDArray[np.int64], x: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Error of the point-source flux at n pixels, ``den**-0.5``; inf where nothing is known.

    For the plain filter ``sqrt(variance (x) T**2) / sum(T**2)``. Recomputed at the few pixels
    where it is needed, because a map of it would cost 4 bytes per pixel.

    Parameters
    ----------
    y, x : array, shape (n,), int64
        Array indices, any order.
    """
    half, taps = template.half, template.taps_at(pixels.shape, y, x) ** 2
    order = np.argsort(y, kind="stable")
    ascending = y[order]
    den = np.zeros(len(y))
    for rows in strips(pixels.shape[0], ROWS):
        first, stop = np.searchsorted(ascending, [rows.start, rows.stop])
        here = order[first:stop]
        if not len(here):
            continue
        good = _padded_usable(pixels, rows, half)
        weight = _padded_weight(pixels, template, rows, good)
        weight = np.pad(weight, ((0, 0), (half, half)))
        window = sliding_window_view(weight, (template.size, template.size))
        stamps = window[y[here] - rows.start, x[here]]
        den[here] = np.einsum("nij,ni,nj->n", stamps, taps[here], taps[here], optimize=True)
    with np.errstate(divide="ignore"):
        if template.matched:
            return den**-0.5
        power = template.power_at(pixels.shape, y, x)
        return np.where(den > 0, np.sqrt(den) / power, np.inf)


def _padded_rows(rows: slice, half: int, ny: int) -> tuple[slice, slice]:
    """Rows of the image under ``ROWS`` rows and half a template; and where they go."""
    top = rows.start - half
    inside = slice(max(top, 0), min(rows.start + ROWS + half, ny))
    return inside, slice(inside.start - top, inside.stop - top)


def _padded_usable(pixels: Pixels, rows: slice, half: int) -> NDArray[np.bool_]:
    """Usable pixels of padded rows, False outside the image."""
    inside, target = _padded_rows(rows, half, pixels.shape[0])
    out = np.zeros((ROWS + 2 * half, pixels.shape[1]), bool)
    out[target] = pixels.usable(inside)
    return out


def _padded_weight(
    pixels: Pixels, template: Template, rows: slice, good: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Inverse variance (matched) or variance (plain) of padded rows, 0 where not ``good``."""
    inside, target = _padded_rows(rows, template.half, pixels.shape[0])
    out = np.zeros(good.shape, np.float32)
    if template.matched:
        with np.errstate(divide="ignore", invalid="ignore"):
            np.reciprocal(pixels.variance(inside), out=out[target])
        out[~good] = 0
    else:
        np.copyto(out[target], pixels.variance(inside), where=good[target])
    return out


def _padded_value(
    pixels: Pixels,
    template: Template,
    rows: slice,
    good: NDArray[np.bool_],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Weighted image (matched) or image (plain) of padded rows, 0 where not ``good``."""
    inside, target = _padded_rows(rows, template.half, pixels.shape[0])
    out = np.zeros(good.shape, np.float32)
    if template.matched:
        np.multiply(pixels.image(inside), weight[target], out=out[target], where=good[target])
    else:
        np.copyto(out[target], pixels.image(inside), where=good[target])
    return out


class _Filter:
    """The filter of one column of cells, for blocks of ``ROWS`` rows; owns its buffers."""

    def __init__(self, taps: NDArray[np.float64], columns: slice, nx: int, matched: bool) -> None:
        self.columns = columns
        self._numerator, self._power, self._count = (
            _Separable(t, columns, nx) for t in (taps, taps**2, np.ones_like(taps))
        )
        self._complete = 0.0 if matched else len(taps) ** 2 - 0.5

    def write(
        self,
        good: NDArray[np.bool_],
        weight: NDArray[np.float32],
        value: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None:
        """Write the significance of the block's rows to ``out``, 0 where it is unknown."""
        n = len(out)
        den = self._power(weight)[:n]
        unknown = ~(den > 0)
        if self._complete:
            unknown |= self._count(good.astype(np.float32))[:n] < self._complete
        with np.errstate(divide="ignore", invalid="ignore"):
            np.divide(self._numerator(value)[:n], np.sqrt(den), out=out)
        out[unknown] = 0


class _Separable:
    """Correlation of some columns of ``ROWS`` rows with a separable filter; owns its buffers."""

    def __init__(self, taps: NDArray[np.float64], columns: slice, nx: int) -> None:
        half, width = len(taps) // 2, columns.stop - columns.start
        n_block = -(-width // COLUMNS)
        self._width = width
        self._source = slice(max(columns.start - half, 0), min(columns.stop + half, nx))
        first = self._source.start - columns.start + half
        self._target = slice(first, first + self._source.stop - self._source.start)
        self._down = _banded(taps, ROWS)
        self._along = np.ascontiguousarray(_banded(taps, COLUMNS).T)
        self._rows = np.zeros((ROWS, n_block * COLUMNS + 2 * half), np.float32)
        self._out = np.empty((ROWS, n_block * COLUMNS), np.float32)
        item = self._out.itemsize
        self._windows = as_strided(
            self._rows,
            (n_block, ROWS, COLUMNS + 2 * half),
            (COLUMNS * item, self._rows.strides[0], item),
        )
        self._blocks = as_strided(
            self._out,
            (n_block, ROWS, COLUMNS),
            (COLUMNS * item, self._out.strides[0], item),
        )

    def __call__(self, padded: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter ``padded``, shape (ROWS + 2 half, nx); the result is a buffer, reused."""
        np.matmul(self._down, padded[:, self._source], out=self._rows[:, self._target])
        np.matmul(self._windows, self._along, out=self._blocks)
        return self._out[:, : self._width]


def _banded(taps: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """Matrix, shape (n, n + len(taps) - 1), whose row i holds ``taps`` from column i on."""
    matrix = np.zeros((n, n + len(taps) - 1), np.float32)
    for i in range(n):
        matrix[i, i : i + len(taps)] = taps
    return matrix
