"""Light profiles by their Fourier transforms, and exact images of them.

Every profile here has a transform in closed form, so an image of a source behind the seeing, at
any sub-pixel position and integrated over the pixels, is one inverse FFT of a product: nothing is
sampled before it is band-limited. Galaxies are Spergel (2010) profiles, of which nu = 0.5 is the
exponential disk and nu = -0.6 close to a de Vaucouleurs bulge; PSFs are Moffat profiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft2
from scipy.special import gamma, kv

DISK_NU, BULGE_NU = 0.5, -0.6
HALF_LIGHT = {DISK_NU: 1.678346990016661, BULGE_NU: 0.547713929750904}
"""Half-light radius of a Spergel profile in units of its scale radius."""

STAMP_SIDE = 128
"""Side of a rendered source (pixel); seeing of 4 px leaves 1e-5 of a Moffat outside."""
OVERSAMPLING = 2
"""The transforms are used up to twice the Nyquist frequency of the pixels, beyond which they
are below 1e-6 of their maximum for the seeing this module accepts."""


def frequencies() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angular frequencies (radian / pixel) of a stamp's transform, shapes (m, 1), (m // 2 + 1,).

    ``m`` is ``STAMP_SIDE * OVERSAMPLING``; the axes are y and x.
    """
    m = STAMP_SIDE * OVERSAMPLING
    step = 1 / OVERSAMPLING
    ky = 2 * np.pi * np.fft.fftfreq(m, step)[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(m, step)
    return ky.astype(np.float64), kx.astype(np.float64)


def moffat_transfer(
    fwhm: float, beta: float, axis_ratio: float = 1.0, angle: float = 0.0
) -> NDArray[np.float64]:
    """Transform of an elliptical Moffat profile integrated over pixels.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum, geometric mean of the axes (pixel).
    beta : float
        Exponent of ``(1 + r^2 / a^2) ** -beta``, above 1.
    axis_ratio : float
        Minor over major axis.
    angle : float
        Of the major axis from +x towards +y (radian).

    Returns
    -------
    array, shape of `frequencies`, float64
        1 at frequency 0.
    """
    ky, kx = frequencies()
    scale = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    z = np.maximum(scale * _sheared(ky, kx, axis_ratio, angle), 1e-8)
    profile = 2 * (z / 2) ** (beta - 1) * kv(beta - 1, z) / gamma(beta - 1)
    pixel = np.sinc(ky / (2 * np.pi)) * np.sinc(kx / (2 * np.pi))
    return np.asarray(profile * pixel, np.float64)


def spergel_transform(
    nu: float, radius: float, axis_ratio: float, angle: float
) -> NDArray[np.float64]:
    """Transform of an elliptical Spergel profile of unit flux.

    Parameters
    ----------
    nu : {DISK_NU, BULGE_NU}
        Shape of the profile.
    radius : float
        Half-light radius, geometric mean of the axes (pixel); 0 for a point.
    axis_ratio, angle : float
        As in `moffat_transfer`.

    Returns
    -------
    array, shape of `frequencies`, float64
    """
    k = _sheared(*frequencies(), axis_ratio, angle) * (radius / HALF_LIGHT[nu])
    return np.asarray((1 + k**2) ** -(1 + nu), np.float64)


def stamps(
    transforms: NDArray[np.float64], offset_y: float, offset_x: float
) -> NDArray[np.float64]:
    """Images of transforms, with their centres off the central pixel by a fraction of a pixel.

    Parameters
    ----------
    transforms : array, shape (..., m, m // 2 + 1), float64
        Profile times `moffat_transfer`.
    offset_y, offset_x : float
        Position relative to the pixel ``STAMP_SIDE // 2`` of either axis.

    Returns
    -------
    array, shape (..., STAMP_SIDE, STAMP_SIDE), float64
        Sum 1 for a transform that is 1 at frequency 0 (but for light beyond the edges, which
        wraps around).
    """
    ky, kx = frequencies()
    middle = STAMP_SIDE // 2
    phase = np.exp(-1j * ky * (middle + offset_y)) * np.exp(-1j * kx * (middle + offset_x))
    m = STAMP_SIDE * OVERSAMPLING
    fine = irfft2(transforms * phase, s=(m, m), workers=1)
    image = fine[..., ::OVERSAMPLING, ::OVERSAMPLING] * OVERSAMPLING**2
    return np.asarray(image, np.float64)


def _sheared(ky: ArrayLike, kx: ArrayLike, axis_ratio: float, angle: float) -> NDArray[np.float64]:
    """Length of the frequency in the frame where the ellipse is a circle of equal area."""
    ky, kx = np.asarray(ky), np.asarray(kx)
    major = kx * np.cos(angle) + ky * np.sin(angle)
    minor = ky * np.cos(angle) - kx * np.sin(angle)
    return np.asarray(np.sqrt(major**2 / axis_ratio + minor**2 * axis_ratio), np.float64)
