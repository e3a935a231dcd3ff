"""Compare what the chain made of simulated warps with their truth.

    python sample_data/compare.py out/demo sample_data/truth.fits

prints one row per band: the noise of the coadd over what its VARIANCE plane says, how many
sources were found, and how well the flux of blended ones was shared: each object's flux against
the light that its true source alone puts into the same footprint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.mask import STANDARD
from coblend.core.simulate.expose import transfer_of
from coblend.core.simulate.sky import Sky, sky_images, source_images
from coblend.io.deblend.footprints import read_heavy
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits

MATCH_RADIUS = 2.0
"""Largest distance between a true source and the object taken for it (pixel)."""


@dataclass(frozen=True)
class Truth:
    """What ``truth.fits`` says."""

    sky: Sky
    epochs: NDArray[Any]


@dataclass(frozen=True)
class Shared:
    """Matched objects of one band: arrays of equal length, fluxes in the unit of the coadd."""

    flux: NDArray[np.float64]
    own_light: NDArray[np.float64]
    flux_err: NDArray[np.float64]
    blended: NDArray[np.bool_]

    @property
    def error(self) -> NDArray[np.float64]:
        """Relative error of the flux."""
        return self.flux / self.own_light - 1

    def judged(self, snr: float = 20.0) -> NDArray[np.bool_]:
        """Blended objects whose true light exceeds ``snr`` times the error."""
        return self.blended & (self.own_light > snr * self.flux_err)


def read_truth(path: str | Path) -> Truth:
    """Read the truth of a simulated sky."""
    with open_fits(str(path)) as file:
        header = file.header(0)
        bands = tuple(str(header[f"BAND{i + 1}"]) for i in range(int(header["NBAND"])))
        box = Box(0, 0, int(header["PATCHNY"]), int(header["PATCHNX"]))
        return Truth(Sky(bands, file.table("SOURCES"), box), file.table("EPOCHS"))


def coadd_transfer(coadd: str | Path, truth: Truth) -> NDArray[np.float64]:
    """Transform of the coadd's true PSF: the weighted mean of those of its inputs."""
    with open_fits(str(coadd)) as file:
        inputs = file.table("INPUTS")
    inputs = inputs[inputs["used"]]
    epoch_of = {str(e["file"]): e for e in truth.epochs}
    weights = inputs["weight"] / inputs["weight"].sum()
    transfers = [transfer_of(epoch_of[Path(str(name)).name]) for name in inputs["warp"]]
    return np.einsum("i,iyx->yx", weights, np.stack(transfers))


def pulls(coadd: str | Path, truth: Truth) -> NDArray[np.float64]:
    """(coadd - truth) / sqrt(VARIANCE) of all pixels with data."""
    exposure = read_exposure(str(coadd))
    transfer = coadd_transfer(coadd, truth)
    light = sky_images(truth.sky, exposure.band, transfer[None])[0]
    bad = STANDARD.value(["NO_DATA"])
    good = np.isfinite(exposure.variance) & ((exposure.mask & bad) == 0)
    difference = exposure.image - light[exposure.box.slices(truth.sky.box)]
    return np.asarray(difference[good] / np.sqrt(exposure.variance[good]), np.float64)


def shared_flux(folder: str | Path, band: str, truth: Truth) -> Shared:
    """Fluxes of the objects that lie on a true source, and the light of that source."""
    folder = Path(folder)
    with open_fits(str(folder / "footprints.fits")) as file:
        objects = file.table("OBJECTS")
    objects = objects[~objects["flag_skipped_pseudo"]]  # sky objects
    heavy = read_heavy(str(folder / f"heavy_{band}.fits"))
    row_of = {int(identifier): i for i, identifier in enumerate(heavy.table["id"])}
    transfer = coadd_transfer(folder / f"coadd_{band}.fits", truth)
    _, size = np.unique(objects["parent"], return_inverse=True)
    n_sibling = np.bincount(size)[size]
    rows = []
    for which, box, light in _matched(objects, truth.sky, band, transfer):
        item = objects[which]
        spans = heavy.footprints.of(row_of[int(item["id"])])
        own = sum(
            float(light[y - box.y0, max(x0 - box.x0, 0) : x1 - box.x0 + 1].sum())
            for y, x0, x1 in spans
            if box.y0 <= y < box.y1
        )
        rows.append((item[f"flux_{band}"], own, item[f"flux_err_{band}"], n_sibling[which] > 1))
    flux, own_light, flux_err, blended = np.array(rows, float).reshape(-1, 4).T
    return Shared(flux, own_light, flux_err, blended.astype(bool))


def _matched(
    objects: NDArray[Any], sky: Sky, band: str, transfer: NDArray[np.float64]
) -> Iterator[tuple[int, Box, NDArray[np.float64]]]:
    """Row of the object nearest to each true source, and the image of that source."""
    images = source_images(sky, band, transfer[None])
    for source, (box, image) in zip(sky.sources, images, strict=True):
        distance = np.hypot(objects["y"] - source["y"], objects["x"] - source["x"])
        if len(distance) and distance.min() <= MATCH_RADIUS:
            yield int(np.argmin(distance)), box, image[0]


def summary(folder: str | Path, truth_path: str | Path) -> list[tuple[str, ...]]:
    """Rows of the table that is printed, the first of them its head."""
    truth = read_truth(truth_path)
    rows: list[tuple[str, ...]] = [
        ("band", "noise/plane", "true", "found", "judged", "median", "90 %")
    ]
    for band in truth.sky.bands:
        noise = np.sqrt(np.mean(pulls(Path(folder) / f"coadd_{band}.fits", truth) ** 2))
        shared = shared_flux(folder, band, truth)
        error = np.abs(shared.error[shared.judged()])
        middle, tail = np.percentile(error, [50, 90]) if len(error) else (np.nan, np.nan)
        rows.append((
            band, f"{noise:.3f}", str(len(truth.sky.sources)), str(len(shared.flux)),
            str(len(error)), f"{100 * middle:.1f} %", f"{100 * tail:.1f} %",
        ))  # fmt: skip
    return rows


def main() -> None:
    """Print the comparison."""
    folder, truth_path = sys.argv[1:3]
    rows = summary(folder, truth_path)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    write = sys.stdout.write
    write("\nThe result against the truth\n\n")
    for row in rows:
        write("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) + "\n")
    write(
        "\n  noise/plane: rms of coadd minus truth over the square root of VARIANCE\n"
        "  true, found: sources in the sky; of these with an object within 2 pixels\n"
        "  judged: found in a blend, with a signal-to-noise ratio above 20\n"
        "  median, 90 %: absolute error of their flux in that band, against the light that the\n"
        "  true source alone puts into the same footprint\n"
    )


if __name__ == "__main__":
    main()
