"""Fits that fail are reported by name and harm no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from traceback import format_exc

import numpy as np

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.report import BlendResult
from coblend.core.errors import FitError
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams

INTERNAL = "Internal"
"""Failures that are bugs: followed by a colon and the class of the error."""
_LENGTH = 25

Fitter = Callable[[Batch, DeblendParams], list[BlendResult]]


@np.errstate(all="ignore")
def guarded(fitter: Fitter, batch: Batch, params: DeblendParams) -> list[BlendResult]:
    """Fit a batch, blend by blend when something goes wrong; unless failures are to be seen.

    Whatever a fit raises costs one blend, a bug of ours too: thousands of others are sound, and
    the night is long. Its traceback goes with the result. Numbers that overflow need no word of
    their own: a fit that they spoil is not finite or has diverged.
    """
    if not params.catch_failures:
        return fitter(batch, params)
    try:
        return [_finite(result) for result in fitter(batch, params)]
    except Exception as error:
        if len(batch) > 1:
            return [r for i in range(len(batch)) for r in guarded(fitter, batch.alone(i), params)]
        return [failure(int(batch.parents[0]), reason(error), format_exc())]


def _finite(result: BlendResult) -> BlendResult:
    """Report a fit whose fluxes are beyond single precision as failed."""
    flux = result.objects.get("model_flux", np.zeros(0)).astype(np.float32)
    if np.isinf(flux).any():
        return replace(failure(result.parent, "NonFinite"), peaks=result.peaks)
    return result


def failure(parent: int, name: str, trace: str = "") -> BlendResult:
    """Report a fit that failed."""
    return BlendResult(parent, error=name, flags=FLAGS["failed"], trace=trace)


def reason(error: Exception) -> str:
    """Name of a failure."""
    if isinstance(error, FitError):
        return error.message
    if isinstance(error, np.linalg.LinAlgError):
        return "LinAlg"
    if isinstance(error, MemoryError):
        return "MemoryLimit"
    return f"{INTERNAL}:{type(error).__name__}"[:_LENGTH]
