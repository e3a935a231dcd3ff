"""What exposures must have in common before a command may combine them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError, ShapeMismatchError, WcsMismatchError
from coblend.core.exposure import Exposure
from coblend.io.sky.wcs import grid_offset

_WCS_TOLERANCE = 0.01  # pixel
_FLOAT32_VARIANCE = (1e-36, 1e36)
"""Variances whose inverses and sums over some hundred exposures are 32-bit floats."""
_N_LOOKED_AT = 4096


def require_band(exposure: Exposure, path: str) -> None:
    """Refuse an exposure whose band is unknown."""
    if not exposure.band:
        raise FormatError(
            "the band is unknown: the header has neither BAND nor FILTER",
            path,
            hint=f"name it on the command line: BAND={path}",
        )


def require_psf(exposure: Exposure, path: str) -> None:
    """Refuse an exposure without a PSF."""
    if exposure.psf is None:
        raise FormatError(
            "no PSF",
            path,
            hint="give one with --psf x.psf where the command has that option, or add an HDU "
            "PSF (a stamp, a grid, or a PSFEx table), see docs/formats.md",
        )


def require_scale(variance: NDArray[np.floating], path: str, hdu: str) -> None:
    """Refuse an image in a unit so small or large that 32-bit floats do not hold its variance.

    Parameters
    ----------
    variance : array
        As in the file; some thousand pixels of it are looked at.

    Raises
    ------
    FormatError
        With the factor that brings the noise near 1.
    """
    some = variance.reshape(-1)[:: max(1, variance.size // _N_LOOKED_AT)]
    some = some[np.isfinite(some) & (some > 0)]
    typical = float(np.median(some)) if some.size else 1.0
    least, most = _FLOAT32_VARIANCE
    if not least <= typical <= most:
        power = -round(float(np.log10(typical)) / 2)
        raise FormatError(
            f"the variance is about {typical:.1e}, expected {least:g} to {most:g}",
            path,
            hdu,
            f"multiply the image by 1e{power}, the variance by 1e{2 * power}, and say so in BUNIT",
        )


def require_same_grid(a: Exposure, path_a: str, b: Exposure, path_b: str) -> None:
    """Refuse two exposures that do not cover the same pixels of the same grid.

    Raises
    ------
    ShapeMismatchError, WcsMismatchError
    """
    if a.box != b.box:
        raise ShapeMismatchError(
            f"covers {describe_box(b.box)}, but {path_a} {describe_box(a.box)}", path_b
        )
    require_same_wcs(a.wcs, a.box, path_a, b.wcs, b.box, path_b)


def require_same_wcs(
    wcs_a: Sequence[str], box_a: Box, path_a: str, wcs_b: Sequence[str], box_b: Box, path_b: str
) -> None:
    """Refuse two grids whose WCS differ by more than 0.01 pixel.

    Raises
    ------
    WcsMismatchError
    """
    offset = grid_offset(wcs_a, box_a, wcs_b, box_b)
    if offset > _WCS_TOLERANCE:
        amount = f"differs by {offset:.3g} pixels" if np.isfinite(offset) else "is missing in one"
        raise WcsMismatchError(
            f"its WCS and that of {path_a} disagree: {amount}, at most {_WCS_TOLERANCE} allowed",
            path_b,
        )


def describe_box(box: Box) -> str:
    """Size and first pixel of a box, for messages."""
    return f"{box.nx}x{box.ny} pixels from ({box.x0}, {box.y0})"
