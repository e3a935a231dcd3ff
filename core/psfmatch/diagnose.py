"""Numbers that tell how good a match is, node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.catalog import Column, empty_table
from coblend.core.psf.fields import Array
from coblend.core.psf.moments import adaptive_moments
from coblend.core.psf.resample import resized
from coblend.core.psfmatch.transform import residual

GOOD, TOLERANCE_MISSED, DECONVOLUTION = 0, 1, 3

NODE_COLUMNS = (
    Column("id", "i8", "node", "", "meta.id;meta.main"),
    Column("x", "f8", "column, parent coordinates", "pixel", "pos.cartesian.x"),
    Column("y", "f8", "row, parent coordinates", "pixel", "pos.cartesian.y"),
    Column("status", "i2", "0 good, 1 tolerance missed, 3 deconvolution", "", "meta.code.qual"),
    Column("region", "i4", "region or cell", "", "meta.id"),
    Column("sigma_sci", "f8", "adaptive radius of the PSF", "pixel",
           "phys.size.radius;instr.det.psf"),
    Column("e1", "f8", "ellipticity of the PSF along x", "", "src.ellipticity;instr.det.psf"),
    Column("e2", "f8", "ellipticity of the PSF along the diagonal", "",
           "src.ellipticity;instr.det.psf"),
    Column("sigma_ref", "f8", "adaptive radius of the reference", "pixel",
           "phys.size.radius;instr.det.psf"),
    Column("max_residual", "f8", "largest residual over the peak of the reference", "",
           "stat.fit.residual;stat.max"),
    Column("sum_residual", "f8", "sum of the absolute residual", "",
           "stat.fit.residual;arith.sum"),
    Column("rms_residual", "f8", "root mean square residual over the peak of the reference", "",
           "stat.rms"),
    Column("kernel_sum", "f8", "sum of the kernel", "", "stat.value;arith.sum"),
    Column("noise_gain", "f8", "sum of the squared kernel, for unit sum", "", "arith.factor"),
    Column("max_gain", "f8", "largest gain at any frequency, for unit sum", "",
           "arith.factor;stat.max"),
    Column("negative_fraction", "f8", "negative part of the kernel over its absolute sum", "",
           "stat.value;arith.ratio"),
    Column("regularization", "f8", "strength of the ridge", "", "stat.fit.param"),
    Column("kernel_dx", "f8", "centroid of the kernel along x", "pixel",
           "pos.cartesian.x;arith.diff"),
    Column("kernel_dy", "f8", "centroid of the kernel along y", "pixel",
           "pos.cartesian.y;arith.diff"),
)  # fmt: skip


def node_table(
    y: Array,
    x: Array,
    kernels: Array,
    source: Array,
    target: Array,
    strength: float,
    tolerance: float,
) -> NDArray[Any]:
    """Judge the kernels at n positions.

    Parameters
    ----------
    y, x : array, shape (n,)
    kernels, source, target : array, shape (n, side, side)
        Kernels of unit sum; PSFs.
    strength : float
    tolerance : float
        Residual above which a node's status is 1.

    Returns
    -------
    structured array, shape (n,)
        Columns `NODE_COLUMNS`.
    """
    rows = empty_table(NODE_COLUMNS, len(kernels))
    rows["id"], rows["y"], rows["x"] = np.arange(len(rows)), y, x
    moments, wanted = adaptive_moments(source), adaptive_moments(target)
    rows["sigma_sci"], rows["e1"], rows["e2"] = moments.sigma, moments.e1, moments.e2
    rows["sigma_ref"] = wanted.sigma
    peak = target.max(axis=(1, 2))
    left = residual(kernels, source, target)
    size = np.abs(left)
    rows["max_residual"] = size.max(axis=(1, 2)) / peak
    rows["sum_residual"] = size.sum(axis=(1, 2))
    rows["rms_residual"] = np.sqrt(np.mean(left**2, axis=(1, 2))) / peak
    total = kernels.sum(axis=(1, 2))
    rows["kernel_sum"] = total
    rows["noise_gain"] = noise_gain(kernels)
    rows["max_gain"] = largest_gain(kernels)
    magnitude = np.abs(kernels).sum(axis=(1, 2))
    rows["negative_fraction"] = (magnitude - total) / 2 / magnitude
    rows["regularization"] = strength
    axis = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    rows["kernel_dy"] = (kernels.sum(axis=2) @ axis) / total
    rows["kernel_dx"] = (kernels.sum(axis=1) @ axis) / total
    rows["status"] = np.where(rows["max_residual"] > tolerance, TOLERANCE_MISSED, GOOD)
    return rows


def noise_gain(kernels: Array) -> Array:
    """Sum of the squared kernel, shape (n,)."""
    return np.asarray(np.sum(kernels**2, axis=(-2, -1)))


def largest_gain(kernels: Array) -> Array:
    """Largest gain of kernels at any frequency, shape (n,)."""
    period = fft.next_fast_len(2 * kernels.shape[-1], real=True)
    return np.asarray(np.abs(fft.rfft2(kernels, (period, period))).max(axis=(-2, -1)))


def beyond_kernel(kernel: Array, source: Array, target: Array) -> float:
    """Largest residual outside the square of the kernel, over the peak of the target."""
    left = residual(kernel, source, target)
    inside = kernel.shape[-1]
    if inside >= left.shape[-1]:
        return 0.0
    outside = np.abs(left - resized(resized(left, inside), left.shape[-1]))
    return float(outside.max() / target.max())


def truncated(stamp: Array) -> bool:
    """Whether a stamp stops before its PSF does.

    The border is above 1e-3 of the peak, or the outermost three rings hold 0.5 % of the flux.
    """
    side = stamp.shape[-1]
    ring = np.ones_like(stamp, dtype=bool)
    ring[1:-1, 1:-1] = False
    inner = resized(stamp, max(1, side - 6))
    return bool(
        np.abs(stamp[ring]).mean() > 1e-3 * stamp.max() or 1 - inner.sum() / stamp.sum() > 5e-3
    )
