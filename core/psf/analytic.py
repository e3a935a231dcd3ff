"""Analytic PSFs: Gaussian, double Gaussian, Moffat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coblend.core.errors import ParameterError
from coblend.core.psf.moments import FWHM_PER_SIGMA

KINDS = ("GAUSSIAN", "DGAUSS", "MOFFAT")
FLUX_OUTSIDE = 1e-3
"""Flux outside a stamp of natural size."""
SIDE_RANGE = (15, 101)
"""Smallest and largest natural side, pixel."""
INTEGRATE_BELOW = 1.5
"""Profiles of smaller sigma are integrated over the pixels unless the caller says otherwise."""
N_GAUSS_LEGENDRE = 5


@dataclass(frozen=True, slots=True)
class AnalyticPsf:
    """A profile by formula, the same at every position.

    Parameters
    ----------
    kind : {"GAUSSIAN", "DGAUSS", "MOFFAT"}
        ``exp(-r^2 / 2s^2)``; that plus ``wing_amplitude * exp(-r^2 / 2 (wing_factor s)^2)``; or
        ``(1 + r^2 / a^2) ** -beta``.
    fwhm : float
        Full width at half maximum (of the core), pixel; geometric mean of the two axes.
    beta : float
        Moffat exponent, above 1.
    e1, e2 : float
        Ellipticity ``(a^2 - b^2) / (a^2 + b^2)`` times the cosine and sine of twice the position
        angle from +x.
    wing_factor, wing_amplitude : float
        Width of the wing over that of the core, and ratio of their central amplitudes.
    integrated : bool, optional
        Whether to integrate over the pixels; by default for a sigma below 1.5 px.
    size : int, optional
        Side of the stamp; by default what holds all but 1e-3 of the flux, 15 to 101.

    Raises
    ------
    ParameterError
        For a value out of range.
    """

    kind: str
    fwhm: float
    beta: float = 3.0
    e1: float = 0.0
    e2: float = 0.0
    wing_factor: float = 2.5
    wing_amplitude: float = 0.1
    integrated: bool | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ParameterError(f"PSF kind {self.kind}; known: {', '.join(KINDS)}")
        if not 0 < self.fwhm < np.inf:
            raise ParameterError(f"the FWHM of a PSF must be positive, not {self.fwhm}")
        if self.kind == "MOFFAT" and not 1 < self.beta < np.inf:
            raise ParameterError(f"the beta of a Moffat PSF must be above 1, not {self.beta}")
        if not np.hypot(self.e1, self.e2) < 1:
            raise ParameterError(f"ellipticity ({self.e1}, {self.e2}) is not below 1")
        if not (self.wing_factor > 0 and self.wing_amplitude >= 0):
            raise ParameterError(
                f"wing_factor {self.wing_factor} must be positive, "
                f"wing_amplitude {self.wing_amplitude} not negative"
            )
        if self.size is not None and (self.size < 3 or self.size % 2 == 0):
            raise ParameterError(f"the side of a PSF must be odd and at least 3, not {self.size}")

    @property
    def sigma(self) -> float:
        """Sigma of the Gaussian of the same FWHM, pixel."""
        return self.fwhm / FWHM_PER_SIGMA

    @property
    def side(self) -> int:
        """Side of the stamp in pixels."""
        return self.size if self.size is not None else self._natural_side()

    @property
    def constant(self) -> bool:
        """Always true."""
        return True

    def at(self, y: float, x: float) -> NDArray[np.float64]:
        """Stamp at ``(y, x)``."""
        return self.stamp()

    def at_many(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Stamps at n positions, shape (n, side, side), a read-only view of one stamp."""
        return np.broadcast_to(self.stamp(), (np.size(y), self.side, self.side))

    def stamp(self, side: int | None = None) -> NDArray[np.float64]:
        """Stamp of any odd side, unit sum within it.

        Returns
        -------
        array, shape (side, side), float64
        """
        side = side or self.side
        axis = np.arange(side, dtype=np.float64) - side // 2
        integrated = self.integrated
        if integrated is None:
            integrated = self.sigma < INTEGRATE_BELOW
        if not integrated:
            values = self._profile(axis[:, None], axis[None, :])
        elif self.kind == "GAUSSIAN" and not (self.e1 or self.e2):
            from scipy.special import erf

            edges = erf((np.arange(side + 1) - side / 2) / (np.sqrt(2) * self.sigma))
            values = np.outer(np.diff(edges), np.diff(edges))
        else:
            offset, weight = np.polynomial.legendre.leggauss(N_GAUSS_LEGENDRE)
            fine = (axis[:, None] + offset / 2).ravel()
            values = self._profile(fine[:, None], fine[None, :])
            values = values.reshape(side, N_GAUSS_LEGENDRE, side, N_GAUSS_LEGENDRE)
            values = np.einsum("yaxb,a,b->yx", values, weight, weight)
        return np.asarray(values / values.sum(), dtype=np.float64)

    def _profile(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Profile at offsets from the centre, central value 1 (1 + wing for a double Gaussian)."""
        form = (1 - self.e1) * x**2 - 2 * self.e2 * x * y + (1 + self.e1) * y**2
        form = form / np.sqrt(1 - self.e1**2 - self.e2**2)
        if self.kind == "MOFFAT":
            return np.asarray((1 + form / self._moffat_radius() ** 2) ** -self.beta)
        core = np.exp(-0.5 * form / self.sigma**2)
        if self.kind == "GAUSSIAN":
            return np.asarray(core)
        return np.asarray(core + self.wing_amplitude * core ** (self.wing_factor**-2))

    def _moffat_radius(self) -> float:
        return float(self.fwhm / (2 * np.sqrt(2 ** (1 / self.beta) - 1)))

    def _natural_side(self) -> int:
        """Side that holds the circle (along the major axis) with all but 1e-3 of the flux."""
        if self.kind == "MOFFAT":
            outside = FLUX_OUTSIDE ** (-1 / (self.beta - 1))
            radius = self._moffat_radius() * np.sqrt(outside - 1)
        else:
            sigma, flux = self.sigma, 1.0
            if self.kind == "DGAUSS" and self.wing_amplitude:
                wing = self.wing_amplitude * self.wing_factor**2
                sigma, flux = sigma * self.wing_factor, wing / (1 + wing)
            radius = sigma * np.sqrt(2 * np.log(max(flux / FLUX_OUTSIDE, np.e)))
        ellipticity = np.hypot(self.e1, self.e2)
        radius *= ((1 + ellipticity) / (1 - ellipticity)) ** 0.25
        side = 2 * np.ceil(min(radius, SIDE_RANGE[1])) + 1
        return int(np.clip(side, *SIDE_RANGE))
