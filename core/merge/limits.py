"""The two distances that decide whether peaks are the same, new, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import ParameterError
from coblend.core.params.merge import MergeParams, distances_of


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """Squared distances (pixel**2), one per band: those of the band being added decide.

    Parameters
    ----------
    min_new : array, shape (n_band,), float64
        A new peak must be farther from every existing one; negative, for all bands: no peak is
        ever added.
    max_same : array, shape (n_band,), float64
        A peak closer than this only sets flags; negative: never.
    """

    min_new: NDArray[np.float64]
    max_same: NDArray[np.float64]

    @classmethod
    def uniform(cls, n_band: int, min_new: float, max_same: float) -> Limits:
        """Return the same limits for all bands."""
        return cls(np.full(n_band, min_new), np.full(n_band, max_same))

    @property
    def adds(self) -> bool:
        """Whether peaks are ever added."""
        return bool((self.min_new >= 0).all())

    @property
    def radius(self) -> float:
        """Distance within which peaks interact, pixel; negative: never."""
        largest = max(self.min_new.max(initial=-1), self.max_same.max(initial=-1))
        return float(np.sqrt(largest)) if largest >= 0 else -1.0


def peak_limits(params: MergeParams, bands: Sequence[str], pixel_scale: float | None) -> Limits:
    """Limits of each band.

    Parameters
    ----------
    params : MergeParams
    bands : sequence of str
    pixel_scale : float, optional
        Side of a pixel, arcsec; needed for limits in arcsec.

    Raises
    ------
    ParameterError
        Limits in arcsec without a pixel scale, a limit of a band that is not there, or one band
        alone that adds no peaks.
    """
    if len(bands) == 1 and pixel_scale is None:
        pixel_scale = 1.0  # no two peaks meet: any will do
    columns = []
    for name in ("min_new_peak", "max_same_peak"):
        given = distances_of(name, getattr(params, name))
        for band in given:
            if band and band not in bands:
                raise ParameterError(
                    f"{name} has a limit for band {band}; the inputs have {', '.join(bands)}"
                )
        squared = {band: squared_limit(name, *given[band], pixel_scale) for band in given}
        columns.append(np.array([squared.get(band, squared[""]) for band in bands]))
    limits = Limits(*columns)
    if not limits.adds and (limits.min_new >= 0).any():
        raise ParameterError(
            f"min_new_peak is {params.min_new_peak}: -1 is for all bands or for none"
        )
    return limits


def squared_limit(name: str, number: float, unit: str, pixel_scale: float | None) -> float:
    """Square of a limit in pixel**2; -1 for a negative one.

    Within 1e-4 of an integer it is that integer: squared distances of pixels are integers, and
    a pixel scale off by 1e-7 must not decide whether an offset of (3, 4) is 5.

    Raises
    ------
    ParameterError
        A limit in arcsec without a pixel scale.
    """
    if number < 0:
        return -1.0
    if unit == "arcsec" and number > 0:
        if pixel_scale is None:
            raise ParameterError(
                f"{name} is {number:g} arcsec, and the inputs have no WCS",
                hint="give it in pixels, e.g. 5px",
            )
        number /= pixel_scale
    square = number**2
    whole = round(square)
    return float(whole) if abs(square - whole) < 1e-4 else square
