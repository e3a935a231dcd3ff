"""The whole fit of a batch: observe, initialise, iterate, report."""

from __future__ import annotations

import numpy as np

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.components import Centres
from coblend.core.deblend.fit import fit
from coblend.core.deblend.initialize import initial_components
from coblend.core.deblend.observation import Observation, fft_period, kernel_transform
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
        if len(batch.parents) > 1:
            alone = (deblend_batch(batch.one(i), params) for i in range(len(batch.parents)))
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
    if not (batch.weight > 0).any((1, 2, 3)).all():
        raise FormatError("NoData")
    observation = _observe(batch, params)
    centres = Centres(
        batch.blend, np.arange(len(batch.y)), batch.y, batch.x,
        np.array([b.ny for b in batch.boxes])[batch.blend],
        np.array([b.nx for b in batch.boxes])[batch.blend],
    )  # fmt: skip
    psfs = batch.psfs if len(batch.psfs) == 1 else batch.psfs[batch.cell]
    own, stacks, point = initial_components(
        observation, psfs, centres, threshold=params.background_thresh, min_snr=params.min_snr,
        psf_morph=model_psf(),
    )  # fmt: skip
    result = fit(observation, own, stacks, params)
    return report(batch, observation, result, point, params)


def _observe(batch: Batch, params: DeblendParams) -> Observation:
    """Observation of a batch."""
    try:
        kernels = difference_kernel(batch.psfs, model_psf(), params.kernel_reg).astype(np.float32)
    except FormatError as error:
        raise FormatError("NoPsf") from error
    shape = batch.data.shape[-2:]
    period = fft_period(shape, kernels.shape[-1] // 2)
    transfer = kernel_transform(kernels, period, shape)
    if len(kernels) > 1:
        kernels, transfer = kernels[batch.cell], transfer[batch.cell]
    return Observation(batch.data, batch.weight, kernels, transfer, period, batch.boxes)
