"""Regions for DS9."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from coblend.core.detection import Detections
from coblend.io.fits.output import replacing


def write_regions(path: str, detections: Detections, *, overwrite: bool = False) -> None:
    """Write the outlines of all footprints and a point at every peak.

    Positions are image coordinates, 1-based, of the array that the detections were made on.

    Raises
    ------
    OutputExistsError, OutputError, DiskError
    """
    lines = [
        "# Region file format: DS9 version 4.1",
        "global color=green width=1 select=1",
        "image",
        *_outlines(detections),
        *_points(detections),
    ]
    with (
        replacing(path, overwrite=overwrite) as temporary,
        open(temporary, "w", encoding="ascii") as stream,
    ):
        stream.write("\n".join(lines) + "\n")


def _outlines(detections: Detections) -> Iterator[str]:
    """One line per stretch of border between a footprint and what is beside it."""
    box = detections.box
    lines = detections.footprints.outlines(box) + 1 - np.array([box.x0, box.y0])
    for (x0, y0), (x1, y1) in lines.tolist():
        yield f"line({x0:g},{y0:g},{x1:g},{y1:g}) # line=0 0"


def _points(detections: Detections) -> Iterator[str]:
    box = detections.box
    for peak in detections.peaks:
        x, y = peak["x"] - box.x0 + 1, peak["y"] - box.y0 + 1
        colour = "cyan" if peak["merge_peak_sky"] else "red"
        yield f"point({x:.2f},{y:.2f}) # point=cross color={colour} text={{{peak['snr']:.1f}}}"
