"""Figures of images: colours, detections."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coblend.cli.pictures.canvas import (
    ACCENT,
    MARKS,
    QUIET,
    Palette,
    limits,
    outline,
    peaks,
    scale_bar,
    sky_figure,
    sky_panel,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from coblend.core.box import Box
    from coblend.core.detection import Detections
    from coblend.core.exposure import Cube
    from coblend.core.params.show import ShowParams


def draw_rgb(cube: Cube, params: ShowParams, scale: float | None) -> Figure:
    """One panel in colours (one band: grey).

    Parameters
    ----------
    cube : Cube
    params : ShowParams
    scale : float, optional
        Arcseconds per pixel.
    """
    palette = Palette.of(cube, params)
    figure = sky_figure(6.0, 6.0 * cube.box.ny / cube.box.nx + 0.4)
    axes = figure.subplots()
    sky_panel(axes, palette.name, cube.box, palette(cube.images))
    scale_bar(axes, cube.box, scale)
    return figure


def draw_detections(
    detections: Detections, cube: Cube, params: ShowParams, scale: float | None
) -> Figure:
    """Outlines of footprints and peaks over the image, by the band that founded them."""
    palette = Palette.of(cube, params)
    figure = sky_figure(6.5, 6.5 * cube.box.ny / cube.box.nx + 0.7)
    axes = figure.subplots()
    sky_panel(axes, palette.name, cube.box, palette(cube.images))
    parents = detections.parents
    found = detections.peaks[_inside(detections.peaks, cube.box)]
    seen = np.isin(np.arange(1, len(parents) + 1), detections.footprints.labels(cube.box))
    blended, sky = parents["npeak"] > 1, parents["merge_footprint_sky"]
    single = ~blended & ~sky
    for kind, colour, what in ((blended, ACCENT, "blend"), (single, QUIET, "single source")):
        rows = kind & seen
        style = {"colors": colour, "label": _count(rows, what)}
        outline(axes, detections.footprints.select(np.flatnonzero(rows)), cube.box, **style)
    for band, colour in zip(detections.bands, cycle(MARKS), strict=False):
        rows = found["band"] == band
        style = {"color": colour, "label": f"{_count(rows, 'peak')} in {band}"}
        if rows.any():
            peaks(axes, found["x"][rows], found["y"][rows], **style)
    rows = found["merge_peak_sky"]
    if rows.any():
        style = {"color": "0.7", "marker": "x", "label": _count(rows, "sky object")}
        peaks(axes, found["x"][rows], found["y"][rows], **style)
    scale_bar(axes, cube.box, scale)
    limits(axes, cube.box)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=5, columnspacing=1.2,
        frameon=True, facecolor="0.15", edgecolor="none", labelcolor="white",
    )  # fmt: skip
    return figure


def _inside(peaks: NDArray[Any], box: Box) -> NDArray[np.bool_]:
    y, x = peaks["iy"] - box.y0, peaks["ix"] - box.x0
    return np.asarray((y >= 0) & (y < box.ny) & (x >= 0) & (x < box.nx))


def _count(rows: NDArray[np.bool_], what: str) -> str:
    n = np.count_nonzero(rows)
    return f"{n} {what}{'' if n == 1 else 's'}"
