"""The whole fit of a batch: observe, initialise, iterate, report."""

from __future__ import annotations

import numpy as np

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.components import Centres
from coblend.core.deblend.fit import fit
from coblend.core.deblend.initialize import initial_components
from coblend.core.deblend.observation import Frames, Observation
from coblend.core.deblend.report import BlendResult, report
from coblend.core.errors import CoblendError, FormatError
from coblend.core.kernels import difference_kernel, model_psf
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams

_REASONS = ("NoPsf", "NoData", "NonFinite")


def deblend_batch(batch: Batch, params: DeblendParams) -> list[BlendResult]:
    """Fit a batch; a blend that cannot be fitted is reported as failed and harms no other."""
    try:
        return _deblend(batch, params)
    except (CoblendError, np.linalg.LinAlgError, MemoryError) as error:
        if len(batch) > 1:
            alone = (deblend_batch(batch.alone(i), params) for i in range(len(batch)))
            return [result for results in alone for result in results]
        return [BlendResult(int(batch.parents[0]), error=_reason(error), flags=FLAGS["failed"])]


def _reason(error: Exception) -> str:
    """Name of a failure, one of a closed set."""
    if isinstance(error, np.linalg.LinAlgError):
        return "LinAlg"
    if isinstance(error, MemoryError):
        return "MemoryLimit"
    return str(error.args[0]) if error.args and error.args[0] in _REASONS else "NoPsf"


def _deblend(batch: Batch, params: DeblendParams) -> list[BlendResult]:
    """Fit a batch of blends."""
    if not all((cut.weight > 0).any((1, 2, 3)).all() for cut in batch.cuts):
        raise FormatError("NoData")
    observation = observe(batch, params)
    centres = Centres(
        batch.blend, np.arange(len(batch.y)), batch.y, batch.x,
        np.array([b.ny for b in batch.boxes])[batch.blend],
        np.array([b.nx for b in batch.boxes])[batch.blend],
    )  # fmt: skip
    own, stacks, point = initial_components(
        observation, batch.psfs[batch.cell], centres, threshold=params.background_thresh,
        min_snr=params.min_snr, psf_morph=model_psf(),
    )  # fmt: skip
    result = fit(observation, own, stacks, params)
    return report(batch, observation, result, point, params)


def observe(batch: Batch, params: DeblendParams) -> Observation:
    """Match the PSFs of a batch and set up what its blends are compared with.

    Raises
    ------
    FormatError
        A PSF cannot be matched.
    """
    try:
        kernels = difference_kernel(batch.psfs, model_psf(), params.kernel_reg)
    except FormatError as error:
        raise FormatError("NoPsf") from error
    kernels = kernels.astype(np.float32)
    return Observation(tuple(
        Frames.of(cut.blends, cut.data, cut.weight,
                  kernels if len(kernels) == 1 else kernels[batch.cell[cut.blends]])
        for cut in batch.cuts
    ))  # fmt: skip
