"""Fits that fail are reported by name and harm no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.report import BlendResult
from coblend.core.errors import CoblendError
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams

REASONS = (
    "NoPsf", "NoData", "NonFinite", "Diverged", "LinAlg", "MemoryLimit", "WorkerLost", "Internal",
)  # fmt: skip
"""Names of failures; ``Internal`` is followed by a colon and the class of the error."""
_LENGTH = 25

Fitter = Callable[[Batch, DeblendParams], list[BlendResult]]


def guarded(fitter: Fitter, batch: Batch, params: DeblendParams) -> list[BlendResult]:
    """Fit a batch, blend by blend when something goes wrong; unless failures are to be seen."""
    if not params.catch_failures:
        return fitter(batch, params)
    try:
        return fitter(batch, params)
    except (
        ArithmeticError, AttributeError, CoblendError, LookupError, MemoryError, RuntimeError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        if len(batch) > 1:
            return [r for i in range(len(batch)) for r in guarded(fitter, batch.alone(i), params)]
        return [failure(int(batch.parents[0]), reason(error))]


def failure(parent: int, name: str) -> BlendResult:
    """Report a fit that failed."""
    return BlendResult(parent, error=name, flags=FLAGS["failed"])


def reason(error: Exception) -> str:
    """Name of a failure, one of `REASONS`."""
    if isinstance(error, np.linalg.LinAlgError):
        return "LinAlg"
    if isinstance(error, MemoryError):
        return "MemoryLimit"
    if isinstance(error, CoblendError) and error.message in REASONS:
        return error.message
    return f"Internal:{type(error).__name__}"[:_LENGTH]
