"""The mask of the coadd: what the used, the rejected and the clipped samples leave behind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import Strip


def final_mask(
    strip: Strip, used: NDArray[np.bool_], n_used: NDArray[np.uint16], rules: StackRules
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
    used : array, shape (n_sample, ny, nx), bool
        Which samples count.
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
        for plane in _propagated(strip, rules, rejected):
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


def _bits_of_used(strip: Strip, used: NDArray[np.bool_]) -> NDArray[np.int32]:
    mask = np.zeros(strip.shape, np.int32)
    for k, sample in enumerate(strip.samples):
        if sample.mask is not None and sample.mask.any():
            part = mask[sample.view]
            np.bitwise_or(part, sample.mask, out=part, where=used[k][sample.view])
    return mask


def _bits_of_rejected(strip: Strip) -> NDArray[np.int32] | None:
    """OR of the masks of the samples that are not available; None without such a sample."""
    if all(sample.complete for sample in strip.samples):
        return None
    mask = np.zeros(strip.shape, np.int32)
    for k, sample in enumerate(strip.samples):
        if sample.mask is not None and not sample.complete:
            part = mask[sample.view]
            absent = ~strip.available[k][sample.view]
            np.bitwise_or(part, sample.mask, out=part, where=absent)
    return mask


def _propagated(
    strip: Strip, rules: StackRules, rejected: NDArray[np.int32]
) -> list[NDArray[np.int32]]:
    """For each plane with a threshold, its bit where rejected samples outweigh it."""
    planes = []
    for bit, threshold in rules.thresholds:
        y, x = np.nonzero(rejected & np.int32(bit))
        if not y.size:
            continue
        hit, available = np.zeros(y.size), np.zeros(y.size)
        for k, sample in enumerate(strip.samples):
            rows, columns = sample.view
            inside = (y >= rows.start) & (y < rows.stop) & (x >= columns.start)
            inside &= x < columns.stop
            pixel = y[inside] - rows.start, x[inside] - columns.start
            weight = sample.weight if isinstance(sample.weight, float) else sample.weight[pixel]
            usable = strip.available[k][y[inside], x[inside]]
            available[inside] += usable * weight
            if sample.mask is not None:
                flagged = (sample.mask[pixel] & np.int32(bit)) != 0
                hit[inside] += (flagged & ~usable) * weight
        plane = np.zeros(strip.shape, np.int32)
        over = hit > threshold * (available + hit)
        plane[y[over], x[over]] = bit
        planes.append(plane)
    return planes
