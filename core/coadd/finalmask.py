"""The mask of the coadd: what the used, the rejected and the clipped samples leave behind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.moments import Plane
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import Strip


def final_mask(
    strip: Strip, used: list[NDArray[np.bool_]], n_used: NDArray[np.uint16], rules: StackRules
) -> NDArray[np.int32]:
    """Combine the masks of all samples of a strip.

    1. OR over the used samples.
    2. A plane with a threshold is set where rejected samples that have it carry more than that
       fraction of the weight.
    3. Without a used sample: ``NO_DATA`` alone.
    4. ``CLIPPED`` where a sample was clipped.
    5. ``REJECTED`` and ``SENSOR_EDGE`` from the bits of the rejected samples.
    6. ``INEXACT_PSF`` wherever one of the three is set.

    Parameters
    ----------
    strip : Strip
    used : list of array
        For each sample, which of its pixels count.
    n_used : array, shape (ny, nx)
    rules : StackRules

    Returns
    -------
    array, shape (ny, nx), int32

    Notes
    -----
    drp_tasks ``AssembleCoaddTask`` (``setRejectedMaskMapping``, ``maskPropagationThresholds``)
    and afw ``statisticsStack``. Unlike there, clipped samples pass no bits on, and only rejected
    samples set ``SENSOR_EDGE``.
    """
    bit = {name: np.int32(rules.planes.value([name])) for name in _NAMES}
    mask = _bits_of_used(strip, used)
    rejected = _bits_of_rejected(strip)
    if rejected is not None:
        for plane in _propagated(strip, rules):
            mask |= plane
    mask &= np.int32(~rules.ignored)
    empty = n_used == 0
    if empty.any():
        mask[empty] = bit["NO_DATA"]
    mask[n_used < strip.n_available] |= bit["CLIPPED"]
    if rejected is not None:
        rejected &= np.int32(~rules.ignored)
        own = bit["NO_DATA"] | bit["EDGE"] | bit["CLIPPED"]
        for origin, target in (
            (np.int32(rules.bad) & ~own, "REJECTED"),
            (bit["EDGE"], "SENSOR_EDGE"),
            (bit["CLIPPED"], "CLIPPED"),
        ):
            mask[(rejected & origin) != 0] |= bit[target]
    inexact = bit["SENSOR_EDGE"] | bit["CLIPPED"] | bit["REJECTED"]
    mask[(mask & inexact) != 0] |= bit["INEXACT_PSF"]
    return mask


_NAMES = ("NO_DATA", "EDGE", "CLIPPED", "REJECTED", "SENSOR_EDGE", "INEXACT_PSF")


def _bits_of_used(strip: Strip, used: list[NDArray[np.bool_]]) -> NDArray[np.int32]:
    mask = np.zeros(strip.shape, np.int32)
    for sample, use in zip(strip.samples, used, strict=True):
        if sample.mask.any():
            part = mask[sample.view]
            np.bitwise_or(part, sample.mask, out=part, where=use)
    return mask


def _bits_of_rejected(strip: Strip) -> NDArray[np.int32] | None:
    """OR of the masks of the samples that are not available; None without such a sample."""
    if all(sample.n_available == sample.available.size for sample in strip.samples):
        return None
    mask = np.zeros(strip.shape, np.int32)
    for sample in strip.samples:
        if sample.n_available < sample.available.size:
            part = mask[sample.view]
            np.bitwise_or(part, sample.mask, out=part, where=~sample.available)
    return mask


def _propagated(strip: Strip, rules: StackRules) -> list[NDArray[np.int32]]:
    """For each plane with a threshold, its bit where rejected samples outweigh it."""
    planes = []
    available: Plane | None = None
    for bit, threshold in rules.thresholds:
        weight = np.zeros(strip.shape)
        for sample in strip.samples:
            if sample.n_available < sample.available.size:
                hit = (sample.mask & np.int32(bit)) != 0
                hit &= ~sample.available
                weight[sample.view] += hit * sample.weight
        if weight.any():
            available = _weight_of_available(strip) if available is None else available
            share = np.divide(weight, available + weight, out=np.zeros_like(weight),
                              where=weight > 0)  # fmt: skip
            planes.append(np.where(share > threshold, np.int32(bit), np.int32(0)))
    return planes


def _weight_of_available(strip: Strip) -> Plane:
    weight = np.zeros(strip.shape)
    for sample in strip.samples:
        weight[sample.view] += sample.available * sample.weight
    return weight
