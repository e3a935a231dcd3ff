"""Convergence of every source: fluxes that still move by much of their errors keep a fit going.

The log-likelihood of a blend hardly notices its faint members; their fluxes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Centres, Floats, Stack


@dataclass(frozen=True, slots=True)
class FluxWatch:
    """Fluxes of all components after the last iteration.

    Parameters
    ----------
    tolerance : float
        Largest change in units of the error.
    floor : float
        Fraction of the flux that is added to its error in quadrature.
    weight : array, shape (k, n_band)
        One over the errors of the spectra.
    flux : array, shape (k, n_band)
        Updated in place.
    """

    tolerance: float
    floor: float
    weight: Floats
    flux: Floats

    def select(self, rows: NDArray[np.int64]) -> FluxWatch:
        """Keep components ``rows``."""
        return FluxWatch(self.tolerance, self.floor, self.weight[rows], self.flux[rows])

    def settled(
        self, stacks: Sequence[Stack], spectra: Floats, centres: Centres, n_blend: int
    ) -> NDArray[np.bool_]:
        """Blends no flux of which has changed by more than the tolerance, shape (n_blend,).

        Bands in which a source is fainter than its error do not count.
        """
        light = np.zeros((len(spectra), 1))
        for stack in stacks:
            light[stack.rows, 0] = stack.morph.sum((1, 2))
        flux = spectra * light
        _, first, source = np.unique(centres.source, return_index=True, return_inverse=True)
        variance = np.square(light / np.maximum(self.weight, 1e-30))
        change, total, noise = (np.zeros((len(first), spectra.shape[1])) for _ in range(3))
        for sums, values in ((change, flux - self.flux), (total, flux), (noise, variance)):
            np.add.at(sums, source, values)
        self.flux[:] = flux
        noise = np.sqrt(noise + np.square(self.floor * total))
        moving = ((np.abs(change) > self.tolerance * noise) & (total > noise)).any(1)
        out = np.ones(n_blend, bool)
        out[centres.blend[first[moving]]] = False
        return out
