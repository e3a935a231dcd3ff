"""How coarsely a morphology may be stored: rounding stays far below the noise of every band."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.model import ModelSet
from coblend.core.reconstruct.render import band_kernels

_FINEST, _COARSEST = 2.0**-24, 2.0**-4
_MARGIN = 0.8
"""Part of the allowed error that is used. Light is shared in proportion to models, which amplifies
their errors in faint wings: this keeps shared pixels within 0.01 of the noise at 0.005."""


def storage_steps(models: ModelSet, model_error: float) -> NDArray[np.float64] | None:
    """Choose the rounding step of every morphology.

    The encoder carries each rounding error to the next pixel of the row, so the error of a
    convolved pixel is at most half a step times the spectrum times the kernel's total variation
    along rows. The step keeps that below ``model_error`` of the pixel noise in every band,
    divided among the components of an object.

    Parameters
    ----------
    models : ModelSet
        ``sigma_<band>`` of BLENDS is the pixel noise.
    model_error : float
        Largest error of a convolved pixel of an object, in units of the noise; 0: lossless.

    Returns
    -------
    array, shape (n_component,), float64, or None when lossless
        Between 2^-24 and 2^-4 of the largest value of each morphology.
    """
    if model_error == 0:
        return None
    rows = models.components
    blend = np.searchsorted(models.blends["component0"], np.arange(len(rows)), "right") - 1
    spectra = np.abs(models.spectra().astype(np.float64))
    noise = np.full(len(rows), np.inf)
    for b, band in enumerate(models.bands):
        kernel = band_kernels(models, b)[0]
        variation = np.abs(np.diff(kernel, axis=2, prepend=0.0, append=0.0)).sum((1, 2))
        sigma = models.blends[f"sigma_{column_suffix(band)}"].astype(np.float64)[blend]
        response = spectra[:, b] * variation[models.blends["psf_cell"][blend]]
        limits = np.isfinite(sigma) & (sigma > 0) & (response > 0)
        noise[limits] = np.minimum(noise[limits], (sigma[limits] / response[limits]))
    n_component = np.bincount(rows["object"], minlength=len(models.objects))[rows["object"]]
    step = 2.0 * _MARGIN * model_error / n_component * noise
    largest = _largest(models)
    step = np.clip(step, largest * _FINEST, largest * _COARSEST)
    return np.where(largest > 0, step, 1.0)


def _largest(models: ModelSet) -> NDArray[np.float64]:
    """Largest absolute value of every morphology, shape (n_component,), float64."""
    out = np.zeros(len(models.components))
    filled = np.diff(models.morph_offsets) > 0
    if np.any(filled):
        start = models.morph_offsets[:-1][filled]
        out[filled] = np.maximum.reduceat(np.abs(models.morph), start)
    return out
