"""How good a fit is and how much its sources overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats, Window

Patch = tuple[Window, Floats]
"""A window in a frame and the image there, shape (n_band, ...)."""

_FAINT = 0.1
"""Rendered models below this do not count as covering a pixel (units of the noise)."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap of each source with the others, on unconvolved models; shape (k, n_band) each.

    Parameters
    ----------
    flux : array
        Sum of the source's model.
    max_overlap : array
        Largest light of others in one pixel of the source's model.
    flux_overlap : array
        Their light summed over its pixels.
    flux_overlap_frac : array
        The same over its own flux; 0 for a source without flux.
    blendedness : array
        ``1 - S.S / (S.T)`` with S its model and T that of all; NaN in a band without light.
    """

    flux: NDArray[np.float64]
    max_overlap: NDArray[np.float64]
    flux_overlap: NDArray[np.float64]
    flux_overlap_frac: NDArray[np.float64]
    blendedness: NDArray[np.float64]


def overlap(models: Sequence[Patch]) -> Overlap:
    """Overlap of sources with each other.

    Parameters
    ----------
    models : sequence of (window, image)
        Unconvolved models of all sources of a parent, non-negative: window in the frame, and the
        image there, shape (n_band, ...).

    Notes
    -----
    The quantities of ``setDeblenderMetrics`` of the Rubin pipelines; the pixels of a source are
    those where its model is positive in any band.
    """
    n_band = len(models[0][1])
    total = add_up(models, (n_band, *_reach(models)))
    out = np.zeros((5, len(models), n_band))
    for i, (window, model) in enumerate(models):
        lit = (model > 0).any(0)
        own = model[:, lit].astype(np.float64)
        everything = total[(slice(None), *window)][:, lit].astype(np.float64)
        others = np.maximum(everything - own, 0)
        flux = own.sum(1)
        shared = np.einsum("bp,bp->b", everything, own)
        out[0, i] = flux
        out[1, i] = others.max(1, initial=0)
        out[2, i] = others.sum(1)
        out[3, i] = np.divide(out[2, i], flux, out=np.zeros(n_band), where=flux > 0)
        purity = np.divide(np.einsum("bp,bp->b", own, own), shared,
                           out=np.full(n_band, np.nan), where=shared > 0)  # fmt: skip
        out[4, i] = 1 - purity
    return Overlap(*out)


def add_up(patches: Iterable[Patch], shape: tuple[int, ...]) -> Floats:
    """Sum patches over their common frame.

    Parameters
    ----------
    patches : iterable of (window, image)
    shape : (n_band, ny, nx)

    Returns
    -------
    array, shape ``shape``, float32
    """
    total = np.zeros(shape, np.float32)
    for window, image in patches:
        total[(slice(None), *window)] += image
    return total


def _reach(patches: Sequence[Patch]) -> tuple[int, int]:
    """Rows and columns up to the last pixel of any patch."""
    return max(w[0].stop for w, _ in patches), max(w[1].stop for w, _ in patches)


def merge(patches: Sequence[Patch]) -> Patch:
    """Sum patches over the smallest window that holds them all."""
    if len(patches) == 1:
        return patches[0]
    low = [min(w[axis].start for w, _ in patches) for axis in (0, 1)]
    moved = [
        ((slice(w[0].start - low[0], w[0].stop - low[0]),
          slice(w[1].start - low[1], w[1].stop - low[1])), image)
        for w, image in patches
    ]  # fmt: skip
    total = add_up(moved, (len(patches[0][1]), *_reach(moved)))
    window = slice(low[0], low[0] + total.shape[1]), slice(low[1], low[1] + total.shape[2])
    return window, total


def reduced_chi2(chi2: Floats, usable: NDArray[np.bool_], rendered: Floats) -> float:
    """Mean of ``w (d - R)^2`` over the usable pixels that a model covers; expected 1.

    Parameters
    ----------
    chi2 : array, shape (n_band, ny, nx)
        ``w (d - R)^2`` of the whole blend.
    usable : array, shape (n_band, ny, nx), bool
    rendered : array, shape (n_band, ny, nx)
        The rendered model, in units of the noise.

    Returns
    -------
    float
        NaN when no usable pixel is covered.
    """
    covered = (rendered > _FAINT).any(0)
    n = np.count_nonzero(usable & covered)
    return float(chi2.sum(dtype=np.float64, where=covered) / n) if n else float("nan")
