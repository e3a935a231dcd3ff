"""The whole fit of a batch: observe, initialise, iterate, report."""

from __future__ import annotations

import numpy as np

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.fitting.components import Centres
from coblend.core.deblend.fitting.fit import fit
from coblend.core.deblend.fitting.initialize import initial_components
from coblend.core.deblend.fitting.observation import Frames, Observation
from coblend.core.deblend.fitting.reference import reference_components
from coblend.core.deblend.report import BlendResult, report
from coblend.core.deblend.wings import find_wings, with_wings, without
from coblend.core.errors import FitError, FormatError
from coblend.core.kernels import difference_kernel, model_psf
from coblend.core.params.deblend import DeblendParams


def deblend_batch(batch: Batch, params: DeblendParams) -> list[BlendResult]:
    """Fit a batch of blends.

    Raises
    ------
    FitError
        ``NoData`` (a blend without a usable pixel), ``NoPsf`` (a PSF
        that cannot be matched), ``NonFinite`` or ``Diverged`` (the fit ran away).
    """
    observation = observe(batch, params)
    if not all((weight > 0).any() for weight in observation.weight):
        raise FitError("NoData")
    centres = Centres(
        batch.blend, np.arange(len(batch.y)), batch.y, batch.x,
        np.array([b.ny for b in batch.boxes])[batch.blend],
        np.array([b.nx for b in batch.boxes])[batch.blend],
    )  # fmt: skip
    wings = find_wings(observation, centres, params)
    lit = observation if wings is None else without(observation, wings)
    psfs, unit = batch.psfs[batch.cell], None
    if params.start == "reference":
        unit, psf = batch.sigma, model_psf(params.model_psf_sigma)
        weights = observation.by_blend([cut.weight for cut in batch.cuts])
        start = reference_components(lit, weights, psfs, centres, unit, psf, params)
    else:
        start = initial_components(
            lit, psfs, centres, threshold=params.initial_background_thresh,
            min_snr=params.min_snr, psf_sigma=params.model_psf_sigma,
        )  # fmt: skip
    own, stacks, point = start
    result = fit(lit, own, stacks, params, unit)
    if wings is not None:
        result, point = with_wings(result, point, wings)
    return report(batch, observation, result, point, params)


def observe(batch: Batch, params: DeblendParams) -> Observation:
    """Match the PSFs of a batch and set up what its blends are compared with.

    Raises
    ------
    FitError
        ``NoPsf``: a PSF cannot be matched.
    """
    try:
        kernels = difference_kernel(
            batch.psfs, model_psf(params.model_psf_sigma), params.kernel_reg
        )
    except FormatError as error:
        raise FitError("NoPsf") from error
    frames = []
    for cut in batch.cuts:
        data, weight = cut.data, cut.weight
        if params.start == "reference":
            # its first steps have full length however small the gradient: round-off of float32
            # would decide them; and its start looks at pixels outside the footprint
            data = data.astype(np.float64)
            weight = np.where(cut.footprint[:, None], weight, 0).astype(np.float64)
        own = kernels if len(kernels) == 1 else kernels[batch.cell[cut.blends]]
        frames.append(Frames.of(cut.blends, data, weight, own.astype(data.dtype)))
    return Observation(tuple(frames))
