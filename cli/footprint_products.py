"""Side products of ``reconstruct-footprints``: heavy footprints, images, cut-outs."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from coblend.cli.run import Run, filled_name
from coblend.core.bands import column_suffix
from coblend.core.catalog import table_dtype
from coblend.core.errors import ParameterError
from coblend.core.exposure import Exposure, HeaderValue
from coblend.core.footprint import FootprintSet
from coblend.core.reconstruct.images import (
    add_stamps,
    cutout,
    median_noise,
    model_exposure,
    residual_exposure,
    residual_statistics,
    rounding_step,
)
from coblend.io.deblend.footprints import (
    HEAVY_SCHEMA,
    HeavyFootprints,
    HeavySpool,
    heavy_columns,
)
from coblend.io.exposure.exposures import write_exposure
from coblend.io.exposure.frame import frame_header
from coblend.io.sky.wcs import cube_cards, shift_cards

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coblend.core.box import Box
    from coblend.core.params.reconstruct import ReconstructParams
    from coblend.core.reconstruct.band import BandLight
    from coblend.io.deblend.models import ModelFile

log = logging.getLogger("coblend")


@dataclass
class BandPixels:
    """Pixels of one band, gathered chunk by chunk."""

    band: str
    unit: str
    wcs: tuple[str, ...]
    box: Box
    exposure: Exposure | None
    model: NDArray[np.float32] | None
    heavy: HeavySpool | None
    parents: list[FootprintSet] = field(default_factory=list)
    footprints: list[FootprintSet] = field(default_factory=list)
    light: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass(frozen=True)
class Products:
    """What is written beside the catalogue.

    Parameters
    ----------
    run : Run
    params : ReconstructParams
    cutouts : list
        Images of the bands so far, for the cut-out.
    grid : dict
        Unit and celestial WCS of the cut-out: ``unit``, ``wcs``.
    """

    run: Run
    params: ReconstructParams
    cutouts: list[dict[str, NDArray[np.float32]]] = field(default_factory=list)
    grid: dict[str, Any] = field(default_factory=dict)

    @property
    def wants_models(self) -> bool:
        """Whether rendered models are needed as images."""
        return bool(self.params.residual or self.params.model_image or self.params.cutout)

    def check(self, bands: Sequence[str], n_parent: int) -> None:
        """Refuse at once what could not be written at the end.

        Raises
        ------
        ParameterError, OutputError, OutputExistsError
        """
        params, run = self.params, self.run
        if params.cutout and n_parent != 1:
            raise ParameterError(
                f"a cut-out shows one parent, {n_parent} are selected",
                hint="name one with --blend or --source",
            )
        if params.cutout:
            run.check_output(params.cutout)
        for template in (params.heavy, params.residual, params.model_image):
            if template:
                run.plan(template, bands)

    def start(self, band: str, exposure: Exposure | None, models: ModelFile) -> BandPixels:
        """Begin a band; without an exposure the models say where it is and what its unit is."""
        source = models if exposure is None else exposure
        box, unit = source.box, source.unit
        model = np.zeros(box.shape, np.float32) if self.wants_models else None
        heavy = None
        if self.params.heavy:
            folder = os.path.dirname(os.path.abspath(filled_name(self.params.heavy, band=band)))
            heavy = HeavySpool(self._step(band, exposure), folder, spans=self.params.spans)
        return BandPixels(band, unit, source.wcs, box, exposure, model, heavy)

    def _step(self, band: str, exposure: Exposure | None) -> float:
        """Choose the rounding step of heavy footprints; 0, exact, where pixels are too large."""
        if exposure is None:
            return 0.0
        noise, error = median_noise(exposure), self.params.flux_error
        largest = max(float(exposure.image.max()), -float(exposure.image.min()))
        step = rounding_step(error, noise, largest)
        if not step and rounding_step(error, noise):
            log.warning("band %s: a pixel of %.0e is too large to be rounded to %g of the noise: "
                        "heavy footprints are exact", band, largest, error)  # fmt: skip
        return step

    def add(self, pixels: BandPixels, light: BandLight, objects: NDArray[Any]) -> None:
        """Take what a chunk of parents gave; ``objects`` are its rows of the catalogue."""
        if pixels.model is not None:
            add_stamps(pixels.model, pixels.box, light.rendered)
        if pixels.heavy is not None:
            pixels.heavy.add(_heavy(objects, light, pixels.band))
        if self.params.cutout:
            pixels.footprints.append(light.footprints)
            pixels.light.append(light.light.astype(np.float32))

    def write(self, pixels: BandPixels) -> None:
        """Write the side products of a band whose parents have all been added."""
        exposure = pixels.exposure
        parents = FootprintSet.concatenate(pixels.parents)
        if pixels.model is not None and exposure is not None:
            if self.params.model_image:
                model = model_exposure(exposure, pixels.model)
                self._exposure(self.params.model_image, "model", model, {})
            if self.params.residual:
                # in place of the model, which is as large as the image, unless a cut-out shows it
                out = None if self.params.cutout else pixels.model
                residual = residual_exposure(exposure, pixels.model, out)
                values = residual_statistics(residual, parents)
                header = {"RESMED": values.median, "RESMAD": values.mad, "CHI2PIX": values.chi2}
                self._exposure(self.params.residual, "residual", residual, header)
        if pixels.heavy is not None:
            self._write_heavy(pixels, pixels.heavy)
        if self.params.cutout:
            image = None if exposure is None else exposure.image
            part, box = parents.box(0), pixels.box
            wcs = shift_cards(pixels.wcs, part.y0 - box.y0, part.x0 - box.x0)
            self.grid.update(unit=pixels.unit, wcs=wcs)
            footprints = FootprintSet.concatenate(pixels.footprints)
            light = np.concatenate([np.zeros(0, np.float32), *pixels.light])
            self.cutouts.append(cutout(image, pixels.model, box, part, footprints, light))

    def write_cutout(self, objects: NDArray[Any], bands: Sequence[str], box: Box) -> None:
        """Write IMAGE, MODEL, RESIDUAL and one SRC_<id> per object over the box of their parent.

        Each is a cube (band, y, x).
        """
        header = {f"BAND{i}": band for i, band in enumerate(bands, 1)} | frame_header(box)
        if self.grid["unit"]:
            header["BUNIT"] = self.grid["unit"]
        wcs = cube_cards(self.grid["wcs"])
        with self.run.create("cutout/1", path=self.params.cutout) as out:
            for name in ("IMAGE", "MODEL", "RESIDUAL"):
                out.image(name, np.stack([c[name] for c in self.cutouts]), header=header, wcs=wcs)
            for i, row in enumerate(objects):
                cube = np.stack([c["SRC"][i] for c in self.cutouts])
                where = {"ID": int(row["id"]), "PEAK_X": int(row["ix"]), "PEAK_Y": int(row["iy"])}
                out.image(f"SRC_{row['id']}", cube, header={**header, **where}, wcs=wcs)

    def _exposure(
        self, template: str, product: str, exposure: Exposure, header: dict[str, float]
    ) -> None:
        path = filled_name(template, band=exposure.band)
        with self.run.create("exposure/1", path=path, header={"PRODUCT": product}) as out:
            write_exposure(out, exposure, header=header, compress=self.params.compress)

    def _write_heavy(self, pixels: BandPixels, heavy: HeavySpool) -> None:
        header: dict[str, HeaderValue] = {"KIND": self.params.kind, "STRAY": self.params.stray,
                  "FLUXERR": self.params.flux_error if heavy.step else 0.0}  # fmt: skip
        path = filled_name(self.params.heavy, band=pixels.band)
        with self.run.create(HEAVY_SCHEMA, path=path) as out:
            heavy.write(out, pixels.band, pixels.unit, header=header)


def _heavy(objects: NDArray[Any], light: BandLight, band: str) -> HeavyFootprints:
    """Footprints with light of the objects that have any."""
    filled = np.flatnonzero(light.footprints.areas)
    rows = objects[filled]
    table = np.zeros(len(filled), table_dtype(heavy_columns()))
    for name in ("id", "parent", "flags"):
        table[name] = rows[name]
    table["peak_y"], table["peak_x"] = rows["iy"], rows["ix"]
    for name in ("peak_flux", "flux"):
        table[name] = rows[f"{name}_{column_suffix(band)}"]
    return HeavyFootprints(table, light.footprints.select(filled), light.light)
