"""Images of chosen objects without their neighbours, for programs that measure elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.deblend.excerpt import part_of, starts_of
from coblend.core.exposure import Exposure
from coblend.core.footprint import spans_to_labels
from coblend.core.model import FLAGS, ModelSet
from coblend.core.params.clean import CleanParams
from coblend.core.reconstruct.band import members_of
from coblend.core.reconstruct.frames import chunk_parents
from coblend.core.reconstruct.images import add_stamps
from coblend.core.reconstruct.render import band_kernels, render
from coblend.core.reconstruct.stamps import Stamps, modelled_objects, object_stamps

BYTES_PER_PIXEL, BYTES_PER_WHOLE_PIXEL = 28, 64
"""Memory per pixel of an exposure that stamps are cut from, or that is made anew as a whole."""
_FAINT = 0.1
"""Pixels where an object is fainter than this are not its own (units of the noise)."""
_CHUNK = 1 << 21
"""Pixels that are rendered together."""

Image = NDArray[np.float64]
Chunk = tuple[NDArray[np.int64], dict[int, Stamps]]
"""Some rows of OBJECTS, and the light of those that have models."""


def clean_stamps(
    models: ModelSet,
    exposure: Exposure,
    rows: NDArray[np.int64],
    params: CleanParams,
    seed: int = 0,
) -> Iterator[NDArray[np.float32]]:
    """Cut objects out of an exposure, each without everything else.

    Neighbours without models (isolated, skipped, failed) cannot be subtracted: noise takes the
    place of their footprints, whatever the mode. It depends on the seed, the object and the band
    only, so a stamp is the same whichever others are made. Pixels beyond the exposure are 0.

    Parameters
    ----------
    models : ModelSet
        All models of the exposure.
    exposure : Exposure
        Its band must be one of the models'.
    rows : array, shape (n,), int64
        Rows of OBJECTS, ascending.
    params : CleanParams
    seed : int

    Yields
    ------
    array, shape (n_some, side, side), float32
        Stamps of the next few objects.
    """
    light, box, side = _Light.of(models, exposure, params), exposure.box, params.side
    for some, stamps in light.chunks(rows):
        out = np.zeros((len(some), side, side), np.float32)
        variances = cut_stamps(exposure.variance, box, models.objects[some], side, np.inf)
        for i, row in enumerate(some.tolist()):
            window = _window(models.objects[row], side)
            common = window & box
            if not common.area:
                continue
            here, there = common.slices(window), common.slices(box)
            image, everything = np.zeros(window.shape), np.zeros(window.shape)
            image[here], everything[here] = exposure.image[there], light.everything[there]
            hidden = np.zeros(window.shape, bool)
            hidden[here] = light.unmodelled[there]
            noise = _noise((seed, int(models.objects["id"][row]), light.band), variances[i])
            own, alone = np.zeros(window.shape), np.zeros(window.shape, bool)
            light.add(row, stamps, window, own, alone)
            out[i] = light.without_others(
                image, variances[i], own, everything, alone, hidden & ~alone, noise
            )
        yield out


def cut_stamps(
    plane: NDArray[Any], box: Box, objects: NDArray[Any], side: int, fill: float
) -> NDArray[Any]:
    """Cut the stamps of some objects out of a plane over ``box``; ``fill`` beyond it.

    Returns
    -------
    array, shape (n, side, side)
    """
    out = np.full((len(objects), side, side), fill, plane.dtype)
    for stamp, one in zip(out, objects, strict=True):
        window = _window(one, side)
        common = window & box
        if common.area:
            stamp[common.slices(window)] = plane[common.slices(box)]
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
    light, box = _Light.of(models, exposure, params), exposure.box
    own, alone = np.zeros(box.shape), np.zeros(box.shape, bool)
    for some, stamps in light.chunks(rows):
        for row in some.tolist():
            light.add(row, stamps, box, own, alone)
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
    margin : int
        Pixels that a stamp may be larger than the box of its parent.
    starts : array, shape (n_parent + 1, 3), int64
        From `starts_of`.
    kernels : array, shape (1, n_cell, k, k), float64
    everything : array, shape (ny, nx), float64
        Sum over the exposure.
    unmodelled : array, shape (ny, nx), bool
        Footprints of isolated, skipped and failed parents.
    """

    models: ModelSet
    band: int
    subtract: bool
    margin: int
    starts: NDArray[np.int64]
    kernels: NDArray[np.float64]
    everything: Image
    unmodelled: NDArray[np.bool_]

    @classmethod
    def of(cls, models: ModelSet, exposure: Exposure, params: CleanParams) -> _Light:
        """Render all objects in the band of an exposure, some at a time."""
        band, subtract = models.bands.index(exposure.band), params.mode == "subtract"
        modelled = modelled_objects(models)
        kernels = np.zeros((2, 0, 1, 1)) if not len(modelled) else band_kernels(models, band)
        kernels = kernels[:1] if subtract else kernels[1:]
        with_models = models.objects["parent"][modelled]
        empty = (models.parents["flags"] & FLAGS["skipped_pseudo"]) != 0
        rows = np.flatnonzero(~np.isin(models.parents["id"], with_models) & ~empty)
        spans = models.footprints.select(rows).spans
        unmodelled = spans_to_labels(spans, exposure.box, 1) != 0
        margin = max(params.side, models.psfs.shape[-1])
        light = cls(models, band, subtract, margin, starts_of(models), kernels,
                    np.zeros(exposure.box.shape), unmodelled)  # fmt: skip
        for _, stamps in light.chunks(modelled):
            for one in stamps.values():
                add_stamps(light.everything, exposure.box, one)
        return light

    def chunks(self, rows: NDArray[np.int64]) -> Iterator[Chunk]:
        """Render the objects ``rows`` (ascending) parent by parent, some at a time."""
        parents = self.models.parents
        every = np.arange(len(parents))
        for first, last in chunk_parents(parents, every, _CHUNK, margin=self.margin):
            object0, object1 = self.starts[[first, last], 0]
            some = rows[slice(*np.searchsorted(rows, [object0, object1]))]
            if len(some):
                yield some, self._rendered(first, last)

    def _rendered(self, first: int, last: int) -> dict[int, Stamps]:
        """Light of the objects of some parents, by row of OBJECTS."""
        part, _ = part_of(self.models, self.starts, first, last)
        modelled = modelled_objects(part)
        if not len(modelled):
            return {}
        stamps = object_stamps(part, self.band)
        if not self.subtract:
            stamps = Stamps(stamps.boxes, np.maximum(stamps.values, 0.0))
        (stamps,) = render(stamps, self.kernels, members_of(part).cell)
        values = np.split(stamps.values, stamps.offsets[1:-1])
        return {
            int(row): Stamps(stamps.boxes[i : i + 1], values[i])
            for i, row in enumerate(modelled + self.starts[first, 0])
        }

    def add(
        self,
        row: int,
        stamps: dict[int, Stamps],
        window: Box,
        own: Image,
        alone: NDArray[np.bool_],
    ) -> None:
        """Add an object's light over a window, or its footprint if it has no model, in place."""
        if row in stamps:
            add_stamps(own, window, stamps[row])
        else:
            parent = int(np.searchsorted(self.starts[:, 0], row, "right")) - 1
            alone |= self.models.footprints.mask(parent, window)

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


def _window(one: Any, side: int) -> Box:
    """Box of the stamp of an object."""
    half = side // 2
    return Box(int(one["iy"]) - half, int(one["ix"]) - half, side, side)


def _noise(key: tuple[int, int, int], variance: NDArray[np.float32]) -> Image:
    """Noise of the given variance; 0 where there is no data."""
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    return draw.standard_normal(variance.shape) * np.sqrt(
        np.where(np.isfinite(variance), variance, 0)
    )
