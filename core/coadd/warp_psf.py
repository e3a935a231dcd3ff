"""The PSF of a resampled exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.pixelmap import PixelMap, lattice
from coblend.core.coadd.resample import SIZES, taps
from coblend.core.errors import FormatError
from coblend.core.psf import GridPsf, Psf, StampPsf
from coblend.core.psf.resample import resized

_SAME = 1e-5  # of the peak


def warped_stamp(
    stamp: NDArray[np.float64],
    jacobian: NDArray[np.float64],
    kernel: str = "lanczos3",
    phase: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Resample a centred PSF stamp under a linear map.

    ``out(u) = sum_j L(A u + p - j) f(j - p)``, scaled to unit sum, with A the derivatives of
    input positions by output positions and p the place of the star within its pixel. A kernel
    changes a star differently at different places, for Lanczos-3 by some 0.5 % of its peak:
    unless the map is a mere shift, so that p is the same everywhere, the mean over four places
    is what stars have on the average.

    Parameters
    ----------
    stamp : array, shape (side, side)
    jacobian : array, shape (2, 2)
        Order y, x.
    kernel : str
    phase : array, shape (2,), optional
        p of a mere shift (pixel); default 0.

    Returns
    -------
    array, shape (n, n), float64
        n is odd and holds the whole stamp but for fractions of a pixel.

    Raises
    ------
    FormatError
        When the map is singular.

    Notes
    -----
    meas_algorithms ``WarpedPsf``, which draws the PSF at the position of one star.
    """
    if not abs(np.linalg.det(jacobian)) > 1e-6:
        raise FormatError(f"the WCS maps pixels onto a line: derivatives {jacobian.tolist()}")
    side = stamp.shape[0]
    corners = np.linalg.inv(jacobian) @ (np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]]) * side / 2)
    half = max(int(np.abs(corners).max()), 1)
    grid = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, -1)
    places = _QUARTERS
    if np.abs(jacobian - np.eye(2)).max() < _SHIFT:
        places = (np.zeros(2) if phase is None else phase,)
    out = np.zeros(grid.shape[1])
    for place in places:
        position = jacobian @ grid + (side // 2 + place)[:, None]
        out += _interpolated(_shifted(stamp, place), position, kernel)
    return np.asarray(out.reshape(2 * half + 1, -1) / out.sum())


_QUARTERS = tuple(np.array([y, x]) for y in (-0.25, 0.25) for x in (-0.25, 0.25))
_SHIFT = 1e-4  # largest derivative of what is taken for a mere shift


def _shifted(stamp: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move a stamp by a fraction of a pixel, exact for what is well sampled."""
    if not place.any():
        return stamp
    padded = np.pad(stamp, _PAD)
    frequency = np.fft.fftfreq(padded.shape[0])
    turn = [np.exp(-2j * np.pi * frequency * p) for p in place]
    moved = np.fft.ifft2(np.fft.fft2(padded) * np.outer(*turn)).real
    return np.asarray(moved[_PAD:-_PAD, _PAD:-_PAD])


_PAD = 4


def _interpolated(
    stamp: NDArray[np.float64], position: NDArray[np.float64], kernel: str
) -> NDArray[np.float64]:
    """Interpolate a stamp, 0 outside, at array positions ``(y, x)``, shape (2, n)."""
    size = SIZES[kernel]
    position = np.clip(position, -size, stamp.shape[0] + size - 1)
    floor = np.floor(position).astype(int)
    padded = np.pad(stamp, 2 * size)
    first = floor + 2 * size + 1 - size // 2
    weights_y, weights_x = (taps(position[a] - floor[a], kernel).astype(float) for a in (0, 1))
    out = np.zeros(position.shape[1])
    for i, weight_y in enumerate(weights_y):
        for j, weight_x in enumerate(weights_x):
            out += weight_y * weight_x * padded[first[0] + i, first[1] + j]
    return out


def warped_psf(
    psf: Psf, pixel_map: PixelMap, origin: tuple[int, int], step: int, kernel: str = "lanczos3"
) -> Psf:
    """PSF of an exposure after resampling, in the coordinates of the output.

    Parameters
    ----------
    psf : Psf
        Of the input, in its parent coordinates.
    pixel_map : PixelMap
    origin : tuple of int
        Parent coordinates ``(y0, x0)`` of the input's first pixel.
    step : int
        Largest distance between nodes (pixel).
    kernel : str

    Returns
    -------
    Psf
        A stamp where it varies by less than 1e-5 of its peak, else a lattice.
    """
    rows, columns = lattice(pixel_map.box, step)
    y, x = (p.ravel() for p in pixel_map.positions(rows, columns))
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise FormatError("the WCS has no sky positions in a part of the overlap")
    native = psf.at_many(y + origin[0], x + origin[1])
    jacobians = pixel_map.jacobian_at(rows, columns).reshape(2, 2, -1)
    nodes = np.stack(np.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)
    stamps = []
    for k, stamp in enumerate(native):
        jacobian, node = jacobians[:, :, k], nodes[:, k]
        star = np.array([y[k], x[k]]) + jacobian @ (np.rint(node) - node)
        stamps.append(warped_stamp(stamp, jacobian, kernel, star - np.rint(star)))
    side = max(stamp.shape[0] for stamp in stamps)
    cube = np.stack([resized(stamp, side) for stamp in stamps])
    if np.abs(cube - cube[0]).max() <= _SAME * cube.max():
        return StampPsf(cube[len(cube) // 2])
    return GridPsf(cube.reshape(len(rows), len(columns), side, side), rows, columns)
