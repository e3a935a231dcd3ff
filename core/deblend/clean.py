"""Images of chosen objects without their neighbours, for programs that measure elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.footprint import spans_to_labels
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.clean import CleanParams
from coblend.core.reconstruct.band import render_objects
from coblend.core.reconstruct.images import add_stamps
from coblend.core.reconstruct.stamps import Stamps, modelled_objects

_FAINT = 0.1
"""Pixels where an object is fainter than this are not its own (units of the noise)."""

Image = NDArray[np.float64]


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
    """Cut objects out of an exposure, each without everything else.

    Neighbours without models (isolated, skipped, failed) cannot be subtracted: noise takes the
    place of their footprints, whatever the mode. It depends on the seed, the object and the band
    only, so a stamp is the same whichever others are made.

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
    light, box, half = _Light.of(models, exposure, params), exposure.box, params.side // 2
    shape = (len(rows), params.side, params.side)
    out = CleanStamps(
        np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32), np.zeros(shape, np.int32)
    )
    for i, row in enumerate(rows):
        one = models.objects[row]
        window = Box(int(one["iy"]) - half, int(one["ix"]) - half, params.side, params.side)
        common = window & box
        if not common.area:
            continue
        here, there = common.slices(window), common.slices(box)
        out.variance[i][here], out.mask[i][here] = exposure.variance[there], exposure.mask[there]
        image, everything = np.zeros(window.shape), np.zeros(window.shape)
        image[here], everything[here] = exposure.image[there], light.everything[there]
        hidden = np.zeros(window.shape, bool)
        hidden[here] = light.unmodelled[there]
        noise = _noise((seed, int(one["id"]), light.band), out.variance[i])
        own, alone = light.of_objects(row[None], window)
        out.image[i] = light.without_others(
            image, out.variance[i], own, everything, alone, hidden & ~alone, noise
        )
    return out


def clean_image(
    models: ModelSet,
    exposure: Exposure,
    rows: NDArray[np.int64],
    params: CleanParams,
    seed: int = 0,
) -> Exposure:
    """Whole exposure in which only some objects are left.

    Parameters as for `clean_stamps`; ``rows`` are kept together. The variance stays that of the
    exposure.
    """
    light = _Light.of(models, exposure, params)
    own, alone = light.of_objects(rows, exposure.box)
    noise = _noise((seed, 0, light.band), exposure.variance)
    image = light.without_others(
        exposure.image, exposure.variance, own, light.everything, alone,
        light.unmodelled & ~alone, noise,
    )  # fmt: skip
    return replace(exposure, image=image.astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Light:
    """Rendered light of all objects in one band.

    Parameters
    ----------
    models : ModelSet
    band : int
    subtract : bool
        Models as the band sees them; otherwise the templates that share the light.
    stamps : Stamps
        Of the objects that have models.
    offsets : array, shape (n + 1,), int64
        Of the stamps' values.
    number : mapping of int to int
        Row of OBJECTS to number of the stamp.
    everything : array, shape (ny, nx), float64
        Sum over the exposure.
    unmodelled : array, shape (ny, nx), bool
        Footprints of isolated, skipped and failed parents.
    """

    models: ModelSet
    band: int
    subtract: bool
    stamps: Stamps
    offsets: NDArray[np.int64]
    number: dict[int, int]
    everything: Image
    unmodelled: NDArray[np.bool_]

    @classmethod
    def of(cls, models: ModelSet, exposure: Exposure, params: CleanParams) -> _Light:
        """Render all objects in the band of an exposure."""
        band, subtract = models.bands.index(exposure.band), params.mode == "subtract"
        _, rendered, templates = render_objects(models, band)
        stamps = rendered if subtract else templates
        everything = np.zeros(exposure.box.shape)
        add_stamps(everything, exposure.box, stamps)
        number = {int(row): i for i, row in enumerate(modelled_objects(models))}
        with_models = models.objects["parent"][list(number)]
        empty = (models.parents["flags"] & FLAGS["skipped_pseudo"]) != 0
        rows = np.flatnonzero(~np.isin(models.parents["id"], with_models) & ~empty)
        spans = models.footprints.select(rows).spans
        unmodelled = spans_to_labels(spans, exposure.box, 1) != 0
        return cls(models, band, subtract, stamps, stamps.offsets, number, everything, unmodelled)

    def of_objects(self, rows: NDArray[np.int64], window: Box) -> tuple[Image, NDArray[np.bool_]]:
        """Light of some objects over a window; and the footprints of those without models."""
        own, alone = np.zeros(window.shape), np.zeros(window.shape, bool)
        for row in rows.tolist():
            if row in self.number:
                i = self.number[row]
                values = self.stamps.values[self.offsets[i] : self.offsets[i + 1]]
                add_stamps(own, window, Stamps(self.stamps.boxes[i : i + 1], values))
            else:
                ids = self.models.parents["id"]
                parent = np.flatnonzero(ids == self.models.objects["parent"][row])
                alone |= self.models.footprints.mask(int(parent[0]), window)
        return own, alone

    def without_others(
        self,
        image: NDArray[np.floating],
        variance: NDArray[np.float32],
        own: Image,
        everything: Image,
        alone: NDArray[np.bool_],
        hidden: NDArray[np.bool_],
        noise: Image,
    ) -> Image:
        """Subtract the others' light, or keep the share of the light; noise where neither goes.

        ``hidden`` are pixels of others that have no models.
        """
        known = np.isfinite(variance) & ~hidden
        if self.subtract:
            return np.where(known, image - (everything - own), noise)
        bright = own > _FAINT * np.sqrt(variance)
        share = np.divide(own, everything, out=np.zeros(own.shape), where=bright)
        return np.where(known & (alone | bright), np.where(alone, 1, share) * image, noise)


def _noise(key: tuple[int, int, int], variance: NDArray[np.float32]) -> Image:
    """Noise of the given variance; 0 where there is no data."""
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    return draw.standard_normal(variance.shape) * np.sqrt(
        np.where(np.isfinite(variance), variance, 0)
    )
