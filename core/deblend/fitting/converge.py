"""When a fit has converged: the loss of a blend falls no more, nor do its fluxes move.

The log-likelihood of a blend hardly notices its faint members; their fluxes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Centres, Floats, Stack

_USUAL = 2
"""Sources of a blend that the tolerance is meant for."""
_LATE = 12
"""Iterations after which each has to win in proportion more: what long fits still win is noise."""
_NEGLIGIBLE = 0.1
"""Changes of the log-likelihood that mean nothing, however small the blend."""


@dataclass(slots=True)
class Progress:
    """Losses of n blends, and since when they have not got lower by enough.

    Parameters
    ----------
    n_source : array, shape (n,), int64
        Sources of each blend: where there are many, the loss says little about each.
    loss, lowest : array, shape (n,), float64
        The last loss and the one that progress was made to.
    calm : array, shape (n,), int64
        Iterations since then.
    """

    n_source: NDArray[np.int64]
    loss: NDArray[np.float64]
    lowest: NDArray[np.float64]
    calm: NDArray[np.int64]

    @classmethod
    def begin(cls, n_source: NDArray[np.int64]) -> Progress:
        """Before the first iteration."""
        unknown = np.full(len(n_source), np.inf)
        return cls(n_source, unknown, unknown, np.zeros(len(n_source), np.int64))

    def select(self, blends: NDArray[np.int64]) -> Progress:
        """Keep what is known of ``blends``."""
        return Progress(*(getattr(self, name)[blends] for name in self.__slots__))

    def after(self, loss: NDArray[np.float64], relative_error: float, it: int) -> None:
        """Count the iterations since the loss has last got lower by enough for their number.

        ``it`` is the iteration, from 0.
        """
        enough = relative_error * np.abs(loss) * np.sqrt(_USUAL / self.n_source)
        enough *= max(1.0, it / _LATE)
        least = np.maximum(enough, _NEGLIGIBLE) * (self.calm + 1)
        progress = ~(self.lowest - loss < least)
        self.calm = np.where(progress, 0, self.calm + 1)
        self.lowest = np.where(progress, loss, self.lowest)
        self.loss = loss

    def after_any(self, loss: NDArray[np.float64], relative_error: float) -> None:
        """Count the iterations since the loss has last changed by enough, up or down.

        As ``Blend.fit`` of scarlet lite does.
        """
        still = np.abs(loss - self.loss) < relative_error * np.abs(loss)
        self.calm, self.loss = np.where(still, self.calm + 1, 0), loss


@dataclass(slots=True)
class FluxWatch:
    """Fluxes of all components after the last iteration.

    Parameters
    ----------
    tolerance : float
        Largest change in units of the error.
    floor : float
        Fraction of the flux that is added to its error in quadrature.
    weight : array, shape (k, n_band)
        One over the errors that the spectra had alone, at the first morphologies.
    flux : array, shape (k, n_band)
        At the last call of `after`.
    """

    tolerance: float
    floor: float
    weight: Floats
    flux: Floats

    def select(self, rows: NDArray[np.int64]) -> FluxWatch:
        """Keep components ``rows``."""
        return FluxWatch(self.tolerance, self.floor, self.weight[rows], self.flux[rows])

    def after(
        self, stacks: Sequence[Stack], spectra: Floats, centres: Centres, n_blend: int
    ) -> NDArray[np.bool_]:
        """Find the blends no flux of which has changed by more than the tolerance.

        To be called once per iteration; shape (n_blend,), bool. Bands in which a source is
        fainter than its error do not count.
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
        self.flux = flux
        noise = np.sqrt(noise + np.square(self.floor * total))
        moving = ((np.abs(change) > self.tolerance * noise) & (total > noise)).any(1)
        out = np.ones(n_blend, bool)
        out[centres.blend[first[moving]]] = False
        return out
