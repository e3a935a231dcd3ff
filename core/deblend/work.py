"""One worker's share of the blends."""

from __future__ import annotations

from functools import partial

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.blend import deblend_batch
from coblend.core.deblend.crowded import StarField, fit_stars
from coblend.core.deblend.guard import guarded
from coblend.core.deblend.report import BlendResult
from coblend.core.deblend.sdss.share import share_batch
from coblend.core.deblend.split import fit_parts, oversized
from coblend.core.params.deblend import DeblendParams


def deblend_work(work: Batch | StarField, params: DeblendParams) -> list[BlendResult]:
    """Fit a share of the work; every blend of it has a result, whatever happens."""
    if isinstance(work, StarField):
        return guarded(partial(_fit_stars, work), work.batch, params)
    if params.algorithm == "sdss":
        return guarded(share_batch, work, params)
    large = oversized(work, params)
    if not any(large):
        return guarded(deblend_batch, work, params)
    fitters = [fit_parts if too_large else deblend_batch for too_large in large]
    return [
        result
        for i, fitter in enumerate(fitters)
        for result in guarded(fitter, work.alone(i), params)
    ]


def _fit_stars(field: StarField, _: Batch, params: DeblendParams) -> list[BlendResult]:
    return [fit_stars(field, params)]
