"""Made-up deblended models and exposures of them, for tests of files and reconstruction."""

from __future__ import annotations

import numpy as np

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.model import CUBE, POINT, ModelSet
from coblend.core.reconstruct.band import render_objects
from coblend.core.reconstruct.images import add_stamps
from coblend.io.deblend.nested import (
    NestedBlend,
    NestedComponent,
    NestedObject,
    NestedParent,
    flatten,
)


def moffat(fwhm: float, side: int = 33, beta: float = 3.0, ellipticity: float = 0.0) -> np.ndarray:
    """A Moffat PSF of sum 1."""
    r = np.arange(side) - side // 2
    width = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    radius2 = (1 + ellipticity) * r[None, :] ** 2 + (1 - ellipticity) * r[:, None] ** 2
    psf = (1 + radius2 / width**2) ** -beta
    return psf / psf.sum()


def ringing_psf(fwhm: float, side: int = 33) -> np.ndarray:
    """A PSF with a dark ring, whose difference kernel has negative lobes as real ones have."""
    r = np.arange(side) - side // 2
    radius = np.hypot(r[None, :], r[:, None])
    psf = moffat(fwhm, side) * (1 - 0.9 * np.exp(-(((radius - 1.2 * fwhm) / 1.3) ** 2)))
    return psf / psf.sum()


def galaxy(rng: np.random.Generator, radius: int) -> np.ndarray:
    """An elliptical exponential profile cut at 1 % of its peak."""
    r = np.arange(-radius, radius + 1)
    angle, flatness = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
    u = np.cos(angle) * r[None, :] + np.sin(angle) * r[:, None]
    v = (np.cos(angle) * r[:, None] - np.sin(angle) * r[None, :]) / flatness
    profile = np.exp(-np.hypot(u, v) / rng.uniform(1.0, 2.5)).astype(np.float32)
    profile[profile < 0.01] = 0.0
    return profile


def make_models(
    rng: np.random.Generator,
    n_parent: int = 12,
    bands: tuple[str, ...] = ("g", "r", "i"),
    n_cell: int = 1,
    pitch: int = 64,
    psf=moffat,
    kinds: bool = False,
    flux: float = 5.0,
) -> ModelSet:
    """Parents on a lattice; every fourth has one object and was not deblended.

    ``kinds`` adds a point source, a cube, and an object without components.
    """
    side = int(np.ceil(np.sqrt(n_parent)))
    psfs = [[psf(3.2 + 0.3 * b + 0.2 * c) for b in range(len(bands))] for c in range(n_cell)]
    parents = []
    for p in range(n_parent):
        y0, x0 = 100 + p // side * pitch, 200 + p % side * pitch
        inner = pitch - 8
        y, x = np.mgrid[:inner, :inner] - inner // 2
        mask = np.hypot(y, x) < rng.uniform(14, inner / 2)
        objects = []
        for k in range(1 + p % 4):
            dy, dx = rng.integers(-7, 8, 2)
            peak = (y0 + inner // 2 + int(dy), x0 + inner // 2 + int(dx))
            components = []
            for _ in range(1 + k % 2):
                radius = int(rng.integers(5, 12))
                spectrum = flux * rng.lognormal(0.0, 1.0, len(bands))
                components.append(
                    NestedComponent(
                        peak[0] - radius, peak[1] - radius, galaxy(rng, radius), spectrum, peak
                    )
                )
            objects.append(NestedObject(1000 + 10 * p + k, peak, components, peak_id=10 * p + k))
        if kinds and p == 3:
            first = objects[0].components[0]
            cube = np.stack([first.morph * (1 + 0.1 * b) for b in range(len(bands))])
            objects[0] = _with(
                objects[0],
                NestedComponent(first.y0, first.x0, cube, first.spectrum, first.peak, CUBE),
            )
            point = NestedComponent(
                0, 0, np.zeros((0, 0)), np.full(len(bands), 40.0), objects[1].peak, POINT
            )
            objects[1] = _with(objects[1], point)
            objects[2] = _with(objects[2])
        if len(objects) == 1:
            lone = NestedObject(objects[0].id, objects[0].peak, flags=("isolated",))
            parents.append(NestedParent(p + 1, y0, x0, mask, objects=[lone], flags=("isolated",)))
        else:
            box = Box(y0, x0, inner, inner)
            values = {f"sigma_{b}": 1.0 for b in bands}
            blend = NestedBlend(500 + p, box, objects, p % n_cell, values)
            parents.append(NestedParent(p + 1, y0, x0, mask, [blend]))
    places = np.array([[100.0 + 7 * c, 200.0] for c in range(n_cell)])
    box = Box(80, 180, side * pitch + 40, side * pitch + 40)
    return flatten(parents, bands, np.array(psfs), places, box, "nJy")


def make_exposure(
    models: ModelSet, band: str, rng: np.random.Generator | None = None, noise: float = 1.0
) -> Exposure:
    """An image of the models, with noise if a generator is given."""
    image = np.zeros(models.box.shape)
    add_stamps(image, models.box, render_objects(models, models.bands.index(band))[1])
    if rng is not None:
        image += rng.normal(0, noise, image.shape)
    variance = np.full(image.shape, noise**2, np.float32)
    mask = np.zeros(image.shape, np.int32)
    return Exposure(
        image.astype(np.float32), mask, variance, models.box, band=band, unit=models.unit
    )


def _with(one: NestedObject, *components: NestedComponent) -> NestedObject:
    return NestedObject(one.id, one.peak, components, one.peak_id)
