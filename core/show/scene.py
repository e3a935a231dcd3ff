"""Images of models: as fitted, as the bands see them, and the light of single objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.footprint import FootprintSet
from coblend.core.model import ModelSet
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.band import reconstruct_band, render_objects
from coblend.core.reconstruct.frames import cut_frames
from coblend.core.reconstruct.images import add_stamps, light_images
from coblend.core.reconstruct.stamps import Stamps, modelled_objects


@dataclass(frozen=True, slots=True)
class SourceImages:
    """Some objects of one parent in one band, all arrays of shape (n, ny, nx), float32.

    Parameters
    ----------
    model : array
        As the band sees it; 0 for objects without a model.
    light : array
        Their share of the image's light.
    """

    model: NDArray[np.float32]
    light: NDArray[np.float32]


def model_images(
    models: ModelSet, band: int, box: Box
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All models over ``box`` in one band: at the resolution of the model PSF, and as seen."""
    sharp, seen, _ = render_objects(models, band)
    images = np.zeros(box.shape), np.zeros(box.shape)
    for image, stamps in zip(images, (sharp, seen), strict=True):
        add_stamps(image, box, stamps)
    return images


def source_images(
    models: ModelSet, band: int, exposure: Exposure, rows: NDArray[np.integer]
) -> SourceImages:
    """Model and light of some objects of one parent over the exposure.

    Parameters
    ----------
    models : ModelSet
        One parent.
    band : int
    exposure : Exposure
        That band; must cover the parent's box.
    rows : array, shape (n,)
        Rows of OBJECTS.
    """
    frames = cut_frames(models, exposure)
    found = reconstruct_band(models, frames, band, ReconstructParams(), with_models=True)
    stamp_of = {int(row): i for i, row in enumerate(modelled_objects(models))}
    ends = np.concatenate([[0], np.cumsum(found.footprints.areas)])
    model = np.zeros((len(rows), *exposure.box.shape), np.float32)
    light = np.zeros_like(model)
    for i, row in enumerate(rows.tolist()):
        if row in stamp_of:
            k = stamp_of[row]
            one = Stamps(found.rendered.boxes[k : k + 1], found.rendered.stamp(k).ravel())
            add_stamps(model[i], exposure.box, one)
        own = found.footprints.select(np.array([row]))
        light[i] = light_images(own, found.light[ends[row] : ends[row + 1]], exposure.box)[0]
    return SourceImages(model, light)


def stamp_half_size(
    model: NDArray[np.floating],
    y: NDArray[np.integer],
    x: NDArray[np.integer],
    fraction: float = 0.95,
) -> int:
    """Half the side of squares around objects that hold most of the flux of each.

    Parameters
    ----------
    model : array, shape (n, ny, nx)
        Summed over bands.
    y, x : array, shape (n,)
        Where the objects are in ``model``.
    fraction : float
        Part of the flux, for the largest object.
    """
    dy = np.abs(np.arange(model.shape[1]) - y[:, None])
    dx = np.abs(np.arange(model.shape[2]) - x[:, None])
    ring = np.maximum(dy[:, :, None], dx[:, None, :])
    half = 0
    for own, light in zip(ring, model, strict=True):
        inside = np.cumsum(np.bincount(own.ravel(), np.maximum(light, 0.0).ravel()))
        half = max(half, int(np.searchsorted(inside, fraction * inside[-1])))
    return half


def modelled_footprints(models: ModelSet) -> tuple[FootprintSet, FootprintSet]:
    """Footprints of the parents with and without models."""
    has = np.isin(models.parents["id"], models.objects["parent"][modelled_objects(models)])
    with_models, without = np.flatnonzero(has), np.flatnonzero(~has)
    return models.footprints.select(with_models), models.footprints.select(without)
