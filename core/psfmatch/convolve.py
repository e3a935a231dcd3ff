"""Convolution of whole images with kernels that vary: overlap-save in tiles and threads.

True convolution, ``out(y, x) = sum K_yx(v, u) in(y - v, x - u)``, the kernel taken at the output
pixel. Each tile needs one forward transform and one inverse transform per basis image.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from coblend.core.box import Box
from coblend.core.errors import ShapeMismatchError
from coblend.core.psf.fields import CellField, ChebyshevField, Field, Kernel

Pixels = NDArray[np.float32]

LABEL_BLOCK = 32
"""Side of the blocks whose corners tell whether a cell border crosses them."""


def convolve(
    image: NDArray[np.float32],
    kernel: Kernel,
    box: Box,
    *,
    outside: float | None = None,
    threads: int = 1,
) -> Pixels:
    """Convolve an image with a kernel that may vary.

    Double precision inside a tile: single precision would leave 1e-7 of the brightest pixel of
    the tile everywhere in it.

    Parameters
    ----------
    image : array, shape (ny, nx), float32
        Finite everywhere.
    kernel : Field
        In parent coordinates.
    box : Box
        Where the image is.
    outside : float, optional
        Value beyond the border; by default the image is reflected, so that a constant stays so.
    threads : int
        The result does not depend on it.

    Returns
    -------
    array, shape (ny, nx), float32

    Raises
    ------
    ShapeMismatchError
        When the image is smaller than the kernel.
    """
    half = kernel.side // 2
    if min(image.shape) <= half:
        raise ShapeMismatchError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels is too small for a kernel of "
            f"side {kernel.side}"
        )
    if outside is None:
        padded = np.pad(image, half, mode="reflect")
    else:
        padded = np.pad(image, half, constant_values=outside)
    out = np.empty(image.shape, dtype=np.float32)
    if isinstance(kernel, CellField):
        _paste_cells(padded, kernel, box, out, threads)
    else:
        _convolve_padded(padded, kernel, box, out, threads)
    return out


def _convolve_padded(padded: Pixels, kernel: Field, box: Box, out: Pixels, threads: int) -> None:
    """Fill ``out``, which covers ``box``, from an image that has a border of half a kernel."""
    side = kernel.side
    tile = 256 if side <= 63 else 512
    step = tile - side + 1
    basis, matrices = kernel.separable()
    spectra = fft.rfft2(basis, (tile, tile))
    if kernel.constant:
        spectra = np.tensordot(matrices[:, 0, 0], spectra, axes=1)[None]
    corners = list(product(range(0, out.shape[0], step), range(0, out.shape[1], step)))
    rows = kernel.rows(box.y0 + np.arange(out.shape[0]))
    columns = kernel.columns(box.x0 + np.arange(out.shape[1]))

    def run(corner: tuple[int, int]) -> None:
        y, x = corner
        block = padded[y : y + tile, x : x + tile]
        target = out[y : y + step, x : x + step]
        if not block.any():
            target[...] = 0
            return
        spectrum = fft.rfft2(block.astype(np.float64), (tile, tile))
        pieces = fft.irfft2(spectra * spectrum, (tile, tile), overwrite_x=True)
        ny, nx = target.shape
        pieces = pieces[:, side - 1 : side - 1 + ny, side - 1 : side - 1 + nx]
        if kernel.constant:
            target[...] = pieces[0]
        else:
            weights = rows[y : y + ny] @ matrices @ columns[x : x + nx].T
            target[...] = np.einsum("byx,byx->yx", weights, pieces)

    if threads == 1:
        for corner in corners:
            run(corner)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, corners))


def _paste_cells(padded: Pixels, kernel: CellField, box: Box, out: Pixels, threads: int) -> None:
    """Fill ``out`` cell by cell; pixels beyond a cell's border are used as they are."""
    half = kernel.side // 2
    for index, region, inside in cells_of(kernel, box):
        inner = region.slices(box)
        y, x = inner
        cut = padded[y.start : y.stop + 2 * half, x.start : x.stop + 2 * half]
        piece = np.empty(region.shape, dtype=np.float32)
        image = ChebyshevField.of_constant(kernel.images[index])
        _convolve_padded(cut, image, region, piece, threads)
        out[inner] = np.where(inside, piece, out[inner])


def cells_of(field: CellField, box: Box) -> list[tuple[int, Box, NDArray[np.bool_]]]:
    """Find the pixels of each cell that meets ``box``.

    Returns
    -------
    list of (index, Box, array of bool)
        Bounding box of the cell's pixels inside ``box``, and which of them are the cell's.
    """
    labels = label_cells(field, box)
    found = []
    for index, part in enumerate(ndimage.find_objects(labels + 1)):
        if part is not None:
            y, x = part
            region = Box.from_bounds(y.start, x.start, y.stop, x.stop)
            found.append((index, region.shift(box.y0, box.x0), labels[part] == index))
    return found


def label_cells(field: CellField, box: Box) -> NDArray[np.int32]:
    """Index of the nearest centre for every pixel of ``box``.

    Voronoi cells are convex: a block whose four corners share a cell lies in it. Only the other
    blocks are looked up pixel by pixel.
    """
    edges = [np.unique(np.append(np.arange(0, n, LABEL_BLOCK), n - 1)) for n in box.shape]
    corner = field.cell_of(
        *(g.ravel() for g in np.meshgrid(edges[0] + box.y0, edges[1] + box.x0, indexing="ij"))
    ).reshape(edges[0].size, edges[1].size)
    labels = np.empty(box.shape, dtype=np.int32)
    for j, i in product(range(max(edges[0].size - 1, 1)), range(max(edges[1].size - 1, 1))):
        y = slice(edges[0][j], edges[0][min(j + 1, edges[0].size - 1)] + 1)
        x = slice(edges[1][i], edges[1][min(i + 1, edges[1].size - 1)] + 1)
        around = corner[j : j + 2, i : i + 2]
        if (around == around.flat[0]).all():
            labels[y, x] = around.flat[0]
        else:
            grid = np.meshgrid(
                np.arange(y.start, y.stop) + box.y0, np.arange(x.start, x.stop) + box.x0,
                indexing="ij",
            )  # fmt: skip
            labels[y, x] = field.cell_of(*grid).reshape(grid[0].shape)
    return labels
