"""Exposures of a simulated sky: seeing, zero points, dithers, noise and defects.

The noise is that of the photons of sky and sources, and the VARIANCE plane is exactly the
variance it was drawn from: so the noise of any linear coadd equals its variance plane, in
sources as on the sky. Cosmic rays and the satellite trail are not in the mask, because to find
them is the work of the coadd; bad columns are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, table_dtype
from coblend.core.exposure import Exposure
from coblend.core.mask import STANDARD
from coblend.core.params.simulate import SimulateParams
from coblend.core.psf.stamp import StampPsf
from coblend.core.simulate.profiles import STAMP_SIDE, moffat_transfer, stamps
from coblend.core.simulate.sky import (
    NJY_ZERO_POINT,
    Sky,
    relative_wavelength,
)

PSF_SIDE = 41
"""Side of the PSF stamp in an exposure (pixel)."""
VARIANCE_BITS = 10
"""Mantissa bits kept in the variance, before the noise is drawn: lossless files stay small."""

EPOCH_COLUMNS = (
    Column("file", "U64", "File of the exposure", "", "meta.file"),
    Column("band", "U16", "Band", "", "instr.bandpass"),
    Column("epoch", "i4", "Number of the exposure in its band", "", "meta.number"),
    Column("x0", "i4", "First column covered, parent coordinates", "pixel"),
    Column("y0", "i4", "First row covered, parent coordinates", "pixel"),
    Column("nx", "i4", "Columns covered", "pixel"),
    Column("ny", "i4", "Rows covered", "pixel"),
    Column("psf_fwhm", "f8", "Seeing: FWHM of a Moffat profile", "pixel", "instr.obsty.seeing"),
    Column("psf_beta", "f8", "Exponent of the Moffat profile"),
    Column("psf_axis_ratio", "f8", "Minor over major axis of the PSF"),
    Column("psf_angle", "f8", "Major axis of the PSF from +x towards +y", "rad", "pos.posAng"),
    Column("zero_point", "f8", "AB magnitude of one image unit", "mag", "phot.mag;arith.zp"),
    Column("sky", "f8", "Sky level", "electron", "instr.skyLevel"),
    Column("trail", "?", "Crossed by a satellite"),
)


def random_epochs(params: SimulateParams, rng: np.random.Generator) -> NDArray[Any]:
    """Draw the conditions of all exposures.

    The first exposure of every band covers the whole patch, so that the coadds of all bands
    share one pixel grid; the others are cut by their offsets.

    Returns
    -------
    structured array
        `EPOCH_COLUMNS`, bands slowest.
    """
    table = np.zeros(len(params.bands) * params.epochs, table_dtype(EPOCH_COLUMNS))
    patch = Box(0, 0, params.size, params.size)
    for i, row in enumerate(table):
        band_index, epoch = divmod(i, params.epochs)
        band = params.bands[band_index]
        limit = params.dither if epoch else 0
        dy, dx = (int(d) for d in rng.integers(-limit, limit + 1, 2))
        box = patch & patch.shift(dy, dx)
        seeing = params.seeing * relative_wavelength(band, band_index) ** -0.2
        row["file"] = f"warp_{band}_{epoch}.fits"
        row["band"], row["epoch"] = band, epoch
        row["y0"], row["x0"], row["ny"], row["nx"] = box.y0, box.x0, box.ny, box.nx
        row["psf_fwhm"] = seeing * rng.lognormal(0, 0.06)
        row["psf_beta"] = rng.uniform(3.0, 3.8)
        row["psf_axis_ratio"], row["psf_angle"] = rng.uniform(0.92, 1), rng.uniform(0, np.pi)
        row["zero_point"] = params.zero_point + rng.normal(0, 0.08)
        row["sky"] = params.sky_level * rng.lognormal(0, 0.15)
    if params.trail:
        table["trail"][len(table) // 2] = True
    return table


def transfer_of(epoch: Any) -> NDArray[np.float64]:
    """Transform of the PSF of one row of EPOCHS."""
    return moffat_transfer(
        float(epoch["psf_fwhm"]),
        float(epoch["psf_beta"]),
        float(epoch["psf_axis_ratio"]),
        float(epoch["psf_angle"]),
    )


def expose(
    light: NDArray[np.float64],
    sky: Sky,
    epoch: Any,
    params: SimulateParams,
    rng: np.random.Generator,
    wcs: Sequence[str] = (),
) -> Exposure:
    """Observe the patch once.

    Parameters
    ----------
    light : array, shape of the patch, float64
        Noise-free image behind the PSF of this epoch (`sky.sky_images`, nJy).
    sky : Sky
    epoch : row of `EPOCH_COLUMNS`
    params : SimulateParams
    rng : numpy.random.Generator
    wcs : sequence of str
        WCS cards of the exposure.

    Returns
    -------
    Exposure
        In whole adu, sky subtracted, background-free.
    """
    box = Box(*(int(epoch[name]) for name in ("y0", "x0", "ny", "nx")))
    scale = 10 ** (0.4 * (float(epoch["zero_point"]) - NJY_ZERO_POINT))
    counts = light[box.slices(sky.box)] * scale
    variance = round_mantissa(
        (float(epoch["sky"]) / params.gain + counts) / params.gain, VARIANCE_BITS
    )
    noise = rng.standard_normal(box.shape) * np.sqrt(variance.astype(np.float64))
    # A detector counts in whole units: this adds 1/12 to a variance of hundreds.
    image = np.rint(counts + noise)
    mask = np.zeros(box.shape, np.int32)
    sigma = float(np.sqrt(float(epoch["sky"]))) / params.gain
    _hit_by_cosmic_rays(image, sigma, params.cosmic_rays, rng)
    if epoch["trail"]:
        _cross_by_satellite(image, sigma, rng)
    columns = rng.integers(0, box.nx, params.bad_columns)
    image[:, columns] = np.rint(20 * sigma)
    mask[:, columns] |= STANDARD.value(["BAD"])
    return Exposure(
        image=image.astype(np.float32),
        mask=mask,
        variance=variance,
        box=box,
        band=str(epoch["band"]),
        unit="adu",
        psf=StampPsf(psf_stamp(epoch)),
        wcs=tuple(wcs),
        meta={"MAGZERO": float(epoch["zero_point"]), "GAIN": params.gain},
    )


def psf_stamp(epoch: Any) -> NDArray[np.float64]:
    """PSF of one epoch at pixels, shape (PSF_SIDE, PSF_SIDE), float64, not normalised."""
    middle, half = STAMP_SIDE // 2, PSF_SIDE // 2
    cut = slice(middle - half, middle + half + 1)
    return stamps(transfer_of(epoch), 0.0, 0.0)[cut, cut]


def round_mantissa(values: NDArray[np.float64], bits: int) -> NDArray[np.float32]:
    """Round positive finite numbers to ``bits`` mantissa bits, as float32."""
    shift = np.uint32(23 - bits)
    words = values.astype(np.float32).view(np.uint32)
    half = np.uint32(1) << (shift - np.uint32(1))
    return (((words + half) >> shift) << shift).view(np.float32)


def _hit_by_cosmic_rays(
    image: NDArray[np.float64], sigma: float, n: int, rng: np.random.Generator
) -> None:
    """Add ``n`` straight tracks of 1 to 12 pixels, 10 to 100 sigma per pixel, in place."""
    ny, nx = image.shape
    for _ in range(n):
        y, x = rng.uniform(0, ny), rng.uniform(0, nx)
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(1, 12)
        along = np.arange(0, length, 0.5)
        pixels = np.floor([y + along * np.sin(angle), x + along * np.cos(angle)]).astype(np.int64)
        pixels = np.unique(pixels, axis=1)
        rows, columns = pixels[:, (pixels[0] >= 0) & (pixels[0] < ny)
                               & (pixels[1] >= 0) & (pixels[1] < nx)]  # fmt: skip
        image[rows, columns] += np.rint(sigma * rng.uniform(10, 100, len(rows)))


def _cross_by_satellite(
    image: NDArray[np.float64], sigma: float, rng: np.random.Generator
) -> None:
    """Add a straight trail 4 pixels wide (FWHM), 12 sigma high, through the middle, in place."""
    ny, nx = image.shape
    angle = rng.uniform(0.2, 0.5) * np.pi
    y, x = np.arange(ny)[:, None] - ny / 2, np.arange(nx) - nx / 2
    distance = y * np.cos(angle) - x * np.sin(angle)
    image += np.rint(12 * sigma * np.exp(-0.5 * (distance / 1.7) ** 2))
