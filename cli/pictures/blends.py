"""Figures of deblended models: a scene, and its sources one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from coblend.cli.pictures.canvas import (
    RIM,
    Palette,
    band_colour,
    bare,
    limits,
    new_figure,
    outline,
    peaks,
    residual_panel,
    scale_bar,
    sky_figure,
    sky_panel,
)
from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.model import FLAGS
from coblend.core.show.channels import significance
from coblend.core.show.scene import modelled_footprints, stamp_half_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from coblend.core.exposure import Cube
    from coblend.core.model import ModelSet
    from coblend.core.params.show import ShowParams
    from coblend.core.show.scene import SourceImages

_LINES, _COLUMNS = 6, 2
"""More objects than this are drawn in several columns."""
_SMALLEST = 7
"""Half the side of the smallest stamps (pixel)."""
_NUMBERED = 40
"""Most objects that get a number beside their peak."""


def draw_scene(
    models: ModelSet,
    cube: Cube,
    sharp: NDArray[np.float64],
    seen: NDArray[np.float64],
    params: ShowParams,
    scale: float | None,
) -> Figure:
    """Observed, model, residual, and the model before it is convolved.

    Parameters
    ----------
    models : ModelSet
    cube : Cube
        Exposures; its bands are all among those of the models.
    sharp, seen : array, shape (n_band, ny, nx)
        Models as fitted, and as the bands see them.
    params : ShowParams
    scale : float, optional
        Arcseconds per pixel.
    """
    palette = Palette.of(cube, params)
    box = cube.box
    figure = sky_figure(8.0, 7.8 * box.ny / box.nx + 0.2)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    observed, model, deconvolved, residual = panels.ravel()
    sky_panel(observed, f"observed, {palette.name}", box, palette(cube.images))
    sky_panel(model, "model as observed", box, palette(seen))
    sky_panel(deconvolved, "model, deconvolved", box, palette(sharp))
    modelled, others = modelled_footprints(models)
    left = significance(cube.images - seen, cube.variances)
    left[others.labels(box) > 0] = np.nan
    title = f"(observed − model) / noise, {'+'.join(palette.bands)}"
    residual_panel(residual, title, box, left, params.limit)
    if len(others):
        residual.set_xlabel("grey: not modelled")
    outline(observed, modelled, box, alpha=0.8)
    outline(residual, modelled, box, colors="0.35", linewidths=0.4)
    real = models.objects["flags"] & FLAGS["skipped_pseudo"] == 0
    peaks(observed, models.objects["x"][real], models.objects["y"][real])
    _number(observed, models)
    scale_bar(observed, box, scale)
    return figure


def draw_sources(
    models: ModelSet,
    rows: NDArray[np.integer[Any]],
    cube: Cube,
    images: Sequence[SourceImages],
    params: ShowParams,
    scale: float | None,
) -> Figure:
    """Observed, model, light and spectrum of some objects of one parent.

    Parameters
    ----------
    models : ModelSet
        The parent.
    rows : array, shape (n,)
        Rows of OBJECTS in the order to be shown.
    cube : Cube
    images : sequence of SourceImages
        Of ``rows``, for each band of the cube.
    params : ShowParams
    scale : float, optional
        Arcseconds per pixel.
    """
    palette = Palette.of(cube, params)
    box = cube.box
    objects = models.objects[rows]
    model = np.stack([found.model for found in images], axis=1)
    light = np.stack([found.light for found in images], axis=1)
    flux, error = (
        _columns(objects, name, cube.bands) for name in ("model_flux", "model_flux_err")
    )
    y, x = objects["iy"] - box.y0, objects["ix"] - box.x0
    half = max(_SMALLEST, stamp_half_size(model.sum(axis=1), y, x))
    blue_first = palette.rows[::-1]
    n_line = -(-len(rows) // _COLUMNS) if len(rows) > _LINES else len(rows)
    n_column = -(-len(rows) // n_line)
    figure = new_figure(4.9 * n_column, 1.15 * n_line + 0.6)
    number = _count(len(rows), len(models.objects))
    title = f"blend {models.parents['id'][0]}: {number}; {palette.name}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    grid = figure.subplots(
        n_line, 4 * n_column, squeeze=False, width_ratios=[1, 1, 1, 1.2] * n_column
    )
    cells = grid.reshape(n_line, n_column, 4).swapaxes(0, 1).reshape(-1, 4)
    for i, (cell, place) in enumerate(zip(cells, objects, strict=False)):
        around = Box(int(place["iy"]), int(place["ix"]), 1, 1).grow(half)
        view = around & box
        for axes, pixels in zip(cell, (cube.images, model[i], light[i]), strict=False):
            sky_panel(axes, "", view, palette(pixels[:, *view.slices(box)]))
            axes.set_facecolor("0.9")
            limits(axes, around)
        bare(cell[:3])
        peaks(cell[0], place["x"], place["y"])
        _caption(cell[0], rows[i] + 1, place["id"])
        _spectrum(
            cell[3], [cube.bands[b] for b in blue_first], flux[i, blue_first],
            error[i, blue_first], light[i, blue_first].sum(axis=(1, 2)),
        )  # fmt: skip
        if not i:
            cell[3].legend(loc="best")
            scale_bar(cell[0], around, scale)
    for cell in cells[len(rows) :]:
        for axes in cell:
            axes.set_axis_off()
    unit = f" [{models.unit}]" if models.unit else ""
    for axes, title in zip(
        grid[0], ("observed", "model", "its light", f"flux{unit}") * n_column, strict=True
    ):
        axes.set_title(title)
    return figure


def _caption(axes: Axes, number: int, identifier: int) -> None:
    """Write the number of an object in its panel and its id beside it."""
    axes.text(0.05, 0.93, str(number), color="white", transform=axes.transAxes, va="top",
              fontweight="bold", path_effects=RIM)  # fmt: skip
    axes.set_ylabel(str(identifier), fontsize=5.5)


def _number(axes: Axes, models: ModelSet) -> None:
    """Write the number of each object of a single parent beside its peak."""
    if len(models.parents) > 1 or len(models.objects) > _NUMBERED:
        return
    for i, row in enumerate(models.objects, 1):
        axes.annotate(
            str(i), (row["x"], row["y"]), (4, 3), textcoords="offset points", color="white",
            fontsize=8, path_effects=RIM,
        )  # fmt: skip


def _spectrum(
    axes: Axes,
    bands: Sequence[str],
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    light: NDArray[np.float64],
) -> None:
    """Fluxes of one object in all bands: of the model, and of its light in the image."""
    place = np.arange(len(bands))
    axes.plot(place, light, "s", color="0.55", markersize=5, fillstyle="none", label="light")
    axes.errorbar(place, flux, error, fmt="o", color="0.1", markersize=3, label="model")
    for i, band in enumerate(bands):
        axes.axvspan(i - 0.5, i + 0.5, color=band_colour(band, i), alpha=0.08, linewidth=0)
    axes.set_xticks(place, bands)
    axes.set_xlim(-0.5, len(bands) - 0.5)
    low, high = np.nanmin([flux - error, light]), np.nanmax([flux + error, light])
    axes.set_ylim(min(0.0, 1.2 * low), 1.2 * max(high, 0.0) or None)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=6.5)
    axes.yaxis.tick_right()


def _columns(objects: NDArray[Any], name: str, bands: Sequence[str]) -> NDArray[np.float64]:
    names = [f"{name}_{column_suffix(band)}" for band in bands]
    return np.stack([objects[n].astype(np.float64) for n in names], axis=1)


def brightest(models: ModelSet, bands: Sequence[str], most: int) -> NDArray[np.int64]:
    """Rows of the objects of most flux in all bands together, brightest first."""
    flux = _columns(models.objects, "model_flux", bands).sum(axis=1)
    return np.argsort(-np.nan_to_num(flux), kind="stable")[:most]


def _count(shown: int, total: int) -> str:
    some = "brightest" if shown == 1 else f"{shown} brightest"
    all_of_them = f"{total} object{'' if total == 1 else 's'}"
    return all_of_them if shown == total else f"the {some} of {all_of_them}"
