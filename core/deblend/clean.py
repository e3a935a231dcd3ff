"""Images of single objects without their neighbours, for programs that measure elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.model import ModelSet
from coblend.core.params.clean import CleanParams
from coblend.core.reconstruct.band import render_objects
from coblend.core.reconstruct.images import add_stamps
from coblend.core.reconstruct.stamps import Stamps, modelled_objects

_FAINT = 0.1
"""Pixels where an object is fainter than this are not its own (units of the noise)."""
_ROUND_OFF = 1e-6


@dataclass(frozen=True, slots=True)
class CleanStamps:
    """Stamps of n objects in one band; image 0 and variance +inf beyond the exposure.

    Parameters
    ----------
    image, variance : array, shape (n, side, side), float32
    mask : array, shape (n, side, side), int32
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]


def clean_stamps(
    models: ModelSet,
    exposure: Exposure,
    rows: NDArray[np.int64],
    params: CleanParams,
    seed: int = 0,
) -> CleanStamps:
    """Cut objects out of an exposure and remove everything else.

    Noise depends on the seed, the object and the band only, so a stamp is the same whichever
    others are made.

    Parameters
    ----------
    models : ModelSet
        All models of the exposure.
    exposure : Exposure
        Its band must be one of the models'.
    rows : array, shape (n,), int64
        Rows of OBJECTS.
    params : CleanParams
    seed : int
    """
    band = models.bands.index(exposure.band)
    _, rendered, templates = render_objects(models, band)
    box = exposure.box
    everything = np.zeros(box.shape)
    shares = params.mode == "noise"
    add_stamps(everything, box, templates if shares else rendered)
    own = {int(row): i for i, row in enumerate(modelled_objects(models))}
    parent = {int(p): i for i, p in enumerate(models.parents["id"])}
    out = _empty(len(rows), params.side)
    for i, row in enumerate(rows):
        one = models.objects[row]
        half = params.side // 2
        window = Box(int(one["iy"]) - half, int(one["ix"]) - half, params.side, params.side)
        common = window & box
        if not common.area:
            continue
        here, there = common.slices(window), common.slices(box)
        out.variance[i][here], out.mask[i][here] = exposure.variance[there], exposure.mask[there]
        model = _model(templates if shares else rendered, own.get(int(row)), window)
        image = np.zeros(window.shape)
        image[here] = exposure.image[there]
        total = np.zeros(window.shape)
        total[here] = everything[there]
        if not shares:
            out.image[i] = np.where(np.isfinite(out.variance[i]), image - (total - model), 0)
            continue
        if int(row) in own:
            inside = model > _FAINT * np.sqrt(out.variance[i])
        else:
            inside = models.footprints.mask(parent[int(one["parent"])], window)
            total, model = np.ones(window.shape), np.ones(window.shape)
        share = np.divide(model, total, out=np.zeros(window.shape),
                          where=total > _ROUND_OFF * max(total.max(), 1e-300))  # fmt: skip
        out.image[i] = np.where(inside, share * image, _noise(one, band, out.variance[i], seed))
    return out


def _empty(n: int, side: int) -> CleanStamps:
    shape = (n, side, side)
    return CleanStamps(
        np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32), np.zeros(shape, np.int32)
    )


def _model(stamps: Stamps, index: int | None, window: Box) -> NDArray[np.float64]:
    """One object's image over a window."""
    out = np.zeros(window.shape)
    if index is not None:
        own = Stamps(stamps.boxes[index : index + 1], stamps.stamp(index).ravel())
        add_stamps(out, window, own)
    return out


def _noise(one: Any, band: int, variance: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Noise of the exposure's variance; 0 where there is no data."""
    key = np.random.SeedSequence([seed, int(one["id"]), band])
    draw = np.random.Generator(np.random.Philox(key)).standard_normal(variance.shape)
    return draw * np.sqrt(np.where(np.isfinite(variance), variance, 0))
