"""Exposures of a simulated sky: seeing, zero points, dithers, noise and defects.

The noise is that of the photons of sky and sources, and the VARIANCE plane is exactly the
variance it was drawn from: so the noise of any linear coadd equals its variance plane, in
sources as on the sky.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, table_dtype
from coblend.core.exposure import Exposure, round_mantissa
from coblend.core.mask import STANDARD
from coblend.core.model import box_of
from coblend.core.params.coadd import NANOJANSKY
from coblend.core.params.simulate import SimulateParams
from coblend.core.psf.stamp import StampPsf
from coblend.core.simulate.profiles import STAMP_SIDE, moffat_transfer, stamps
from coblend.core.simulate.sky import (
    Sky,
    relative_wavelength,
)

PSF_SIDE = 41
"""Side of the PSF stamp in an exposure (pixel)."""
TRAIL_HEIGHT, TRAIL_WIDTH = 12.0, 1.7
"""Brightness of the satellite trail over the sky noise, and its sigma (pixel)."""

EPOCH_COLUMNS = (
    Column("file", "U64", "File of the exposure", "", "meta.file"),
    Column("band", "U16", "Band", "", "instr.bandpass"),
    Column("epoch", "i4", "Number of the exposure in its band", "", "meta.number"),
    Column("x0", "i4", "First column covered, parent coordinates", "pixel",
           "pos.cartesian.x;instr.det"),
    Column("y0", "i4", "First row covered, parent coordinates", "pixel",
           "pos.cartesian.y;instr.det"),
    Column("nx", "i4", "Columns covered", "pixel", "meta.number;instr.pixel"),
    Column("ny", "i4", "Rows covered", "pixel", "meta.number;instr.pixel"),
    Column("psf_fwhm", "f8", "Seeing: FWHM of a Moffat profile", "pixel", "instr.obsty.seeing"),
    Column("psf_beta", "f8", "Exponent of the Moffat profile", "", "stat.fit.param;instr.det.psf"),
    Column("psf_axis_ratio", "f8", "Minor over major axis of the PSF", "",
           "phys.size.axisRatio;instr.det.psf"),
    Column("psf_angle", "f8", "Major axis of the PSF from +x towards +y", "rad", "pos.posAng"),
    Column("zero_point", "f8", "AB magnitude of one image unit", "mag", "phot.mag;arith.zp"),
    Column("sky", "f8", "Sky level: electrons, one per photon", "photon", "instr.skyLevel"),
    Column("trail", "?", "Crossed by a satellite", "", "meta.code"),
)  # fmt: skip


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
    box = box_of(epoch)
    scale = 10 ** (0.4 * (float(epoch["zero_point"]) - NANOJANSKY))
    counts = light[box.slices(sky.box)] * scale
    photons = (float(epoch["sky"]) / params.gain + counts) / params.gain
    variance = round_mantissa(photons.astype(np.float32))  # before the noise is drawn from it
    noise = rng.standard_normal(box.shape) * np.sqrt(variance.astype(np.float64))
    # A detector counts in whole units: this adds 1/12 to a variance of hundreds.
    image = np.rint(counts + noise)
    sigma = float(np.sqrt(float(epoch["sky"]))) / params.gain
    mask = _damage(image, sigma, params, trail=bool(epoch["trail"]), rng=rng)
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


def _damage(
    image: NDArray[np.float64],
    sigma: float,
    params: SimulateParams,
    *,
    trail: bool,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Add bad columns, cosmic rays and a trail in place; return the mask."""
    mask = np.zeros(image.shape, np.int32)
    rays = _cosmic_rays(image.shape, params.cosmic_rays, rng)
    image[rays] += np.rint(sigma * rng.uniform(10, 100, np.count_nonzero(rays)))
    if trail:
        distance = _distance_from_line(image.shape, rng.uniform(0.2, 0.5) * np.pi)
        image += np.rint(TRAIL_HEIGHT * sigma * np.exp(-0.5 * (distance / TRAIL_WIDTH) ** 2))
        if params.mask_artifacts:
            mask[np.abs(distance) < 4 * TRAIL_WIDTH] |= STANDARD.value(["STREAK"])
    if params.mask_artifacts:
        mask[rays] |= STANDARD.value(["CR"])
    columns = rng.integers(0, image.shape[1], params.bad_columns)
    image[:, columns] = np.rint(20 * sigma)
    mask[:, columns] |= STANDARD.value(["BAD"])
    return mask


def _cosmic_rays(shape: tuple[int, int], n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Pixels hit by ``n`` straight tracks of 1 to 12 pixels."""
    hit = np.zeros(shape, bool)
    for _ in range(n):
        start = rng.uniform(0, shape)
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(1, 12)
        along = np.arange(0, length, 0.5)[:, None] * [np.sin(angle), np.cos(angle)]
        track = np.floor(start + along).astype(np.int64)
        y, x = track[np.all((track >= 0) & (track < shape), axis=1)].T
        hit[y, x] = True
    return hit


def _distance_from_line(shape: tuple[int, int], angle: float) -> NDArray[np.float64]:
    """Distance of every pixel from the line through the middle at ``angle`` from +x (pixel)."""
    y = np.arange(shape[0], dtype=np.float64)[:, None] - shape[0] / 2
    x = np.arange(shape[1], dtype=np.float64) - shape[1] / 2
    return np.asarray(y * np.cos(angle) - x * np.sin(angle), np.float64)
