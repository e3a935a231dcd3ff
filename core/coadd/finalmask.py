"""The mask of the coadd: what the used, the rejected and the clipped samples leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import Strip


@dataclass(frozen=True, slots=True)
class Flags:
    """What the samples of every pixel say, shape (ny, nx).

    Parameters
    ----------
    used : array, int32
        OR of the masks of the used samples.
    rejected : array, int32, or None
        OR of the masks of the samples that are not available; None without such a sample.
    over : sequence of array, int32
        For each plane with a threshold, its bit where rejected samples outweigh it.
    empty, clipped : array, bool
        Where no sample was used, and where one was clipped.
    """

    used: NDArray[np.int32]
    rejected: NDArray[np.int32] | None
    over: Sequence[NDArray[np.int32]]
    empty: NDArray[np.bool_]
    clipped: NDArray[np.bool_]


def flags_of(
    strip: Strip, used: NDArray[np.bool_], n_used: NDArray[np.uint16], rules: StackRules
) -> Flags:
    """Collect the flags of a strip.

    Parameters
    ----------
    strip : Strip
    used : array, shape (n_sample, ny, nx), bool
        Which samples count.
    n_used : array, shape (ny, nx)
    rules : StackRules
    """
    rejected = _bits_of_rejected(strip)
    return Flags(
        used=_bits_of_used(strip, used),
        rejected=rejected,
        over=[] if rejected is None else _propagated(strip, rules, rejected),
        empty=n_used == 0,
        clipped=n_used < strip.n_available,
    )


def final_mask(flags: Flags, rules: StackRules) -> NDArray[np.int32]:
    """Mask of the coadd, shape (ny, nx).

    1. OR over the used samples.
    2. A plane with a threshold is set where rejected samples that have it carry more than that
       fraction of the weight.
    3. Without a used sample: ``NO_DATA`` alone.
    4. ``CLIPPED`` where a sample was clipped.
    5. ``REJECTED`` and ``SENSOR_EDGE`` from the bits of the rejected samples.
    6. ``INEXACT_PSF`` wherever one of the three is set.

    Notes
    -----
    drp_tasks ``AssembleCoaddTask`` (``setRejectedMaskMapping``, ``maskPropagationThresholds``)
    and afw ``statisticsStack``. Unlike there, clipped samples pass no bits on, and only rejected
    samples set ``SENSOR_EDGE``.
    """
    bit = {name: np.int32(rules.planes.value([name])) for name in _NAMES}
    mask = flags.used.copy()
    for plane in flags.over:
        mask |= plane
    mask &= np.int32(~rules.ignored)
    if flags.empty.any():
        mask[flags.empty] = bit["NO_DATA"]
    mask[flags.clipped] |= bit["CLIPPED"]
    if flags.rejected is not None:
        rejected = flags.rejected & np.int32(~rules.ignored)
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
    if all(sample.complete or sample.mask is None for sample in strip.samples):
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
