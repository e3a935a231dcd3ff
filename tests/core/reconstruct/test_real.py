"""Real pixels and real PSFs, whose kernels have negative lobes: light is still conserved."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.model import ModelSet
from coblend.core.params.reconstruct import ReconstructParams
from coblend.core.reconstruct.band import reconstruct_band
from coblend.core.reconstruct.frames import cut_frames
from coblend.core.reconstruct.render import band_kernels
from coblend.io.deblend.nested import (
    NestedBlend,
    NestedComponent,
    NestedObject,
    NestedParent,
    flatten,
)

BANDS = ("g", "r", "i", "z", "y")


@pytest.fixture(scope="module")
def hsc(shared_data: Path) -> tuple[ModelSet, list[Exposure]]:
    """The HSC COSMOS cut-out with a compact profile at each of its peaks."""
    folder = shared_data / "hsc_cosmos_35"
    planes = {
        name: [fitsio.read(str(folder / f"{b}.fits"), name) for b in BANDS]
        for name in ("IMAGE", "VARIANCE", "PSF")
    }
    ny, nx = planes["IMAGE"][0].shape
    box = Box(0, 0, ny, nx)
    exposures = [
        Exposure(image.astype(np.float32), np.zeros((ny, nx), np.int32),
                 variance.astype(np.float32), box, band=b)
        for b, image, variance in zip(BANDS, planes["IMAGE"], planes["VARIANCE"], strict=True)
    ]  # fmt: skip
    radius = np.hypot(*np.mgrid[-8:9, -8:9])
    objects = []
    for i, row in enumerate(fitsio.read(str(folder / "peaks.fits"))):
        y, x = int(row["y"]), int(row["x"])
        morph = np.exp(-radius / (0.6 + 0.2 * i))
        morph[morph < 1e-3] = 0
        spectrum = np.array([max(float(e.image[y, x]), 0.1) for e in exposures])
        objects.append(NestedObject(i + 1, (y, x), [
            NestedComponent(y - 8, x - 8, morph, spectrum, (y, x))
        ]))  # fmt: skip
    parent = NestedParent(1, 0, 0, np.ones((ny, nx), bool), [NestedBlend(1, box, objects)])
    psfs = np.stack(planes["PSF"])[None]
    return flatten([parent], BANDS, psfs, np.zeros((1, 2)), box), exposures


@pytest.mark.parametrize("reg", [0.0, 0.01])
def test_light_is_conserved(hsc: tuple[ModelSet, list[Exposure]], reg: float) -> None:
    models, exposures = hsc
    reference_error = []
    for band, exposure in enumerate(exposures):
        kernel = band_kernels(models, band, reg)[0, 0]
        if reg == 0:
            assert -kernel[kernel < 0].sum() > 0.05
        sigma = np.sqrt(np.median(exposure.variance))
        frames = cut_frames(models, exposure)
        for weights in ("positive", "reference"):
            params = ReconstructParams(weights=weights, kernel_reg=reg)
            light = reconstruct_band(models, frames, band, params)
            total, n_owner = np.zeros(exposure.box.shape), np.zeros(exposure.box.shape, int)
            ends = np.concatenate([[0], np.cumsum(light.footprints.areas)])
            for i in range(len(light.footprints)):
                mask = light.footprints.mask(i, exposure.box)
                total[mask] += light.light[ends[i] : ends[i + 1]]
                n_owner[mask] += 1
            error = np.abs(total - exposure.image)[n_owner > 0].max() / sigma
            if weights == "positive":
                assert error < 1e-9
                n_stray = light.parents["n_stray"][0]
                assert n_stray == np.count_nonzero(n_owner == 0)
            else:
                reference_error.append(error)
    assert max(reference_error) > 1.0
