"""What exposures must have in common before a command may combine them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coblend.core.box import Box
from coblend.core.errors import FormatError, ShapeMismatchError, WcsMismatchError
from coblend.core.exposure import Exposure
from coblend.io.sky.wcs import grid_offset

_WCS_TOLERANCE = 0.01  # pixel


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
            hint="add an HDU PSF (a stamp, a grid, or a PSFEx table), see docs/formats.md",
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
