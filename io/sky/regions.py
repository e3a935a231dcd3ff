"""Regions for DS9."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from coblend.core.detection import Detections
from coblend.io.fits.writer import replacing


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
    """One line per stretch of border between a footprint and what is above or left of it."""
    box = detections.box
    labels = np.pad(detections.footprints.labels(box), 1)
    below, right = labels[1:, :] != labels[:-1, :], labels[:, 1:] != labels[:, :-1]
    for horizontal, edge in ((True, below), (False, right.T)):
        flat = np.pad(edge, ((0, 0), (1, 1))).astype(np.int8)
        step = np.diff(flat, axis=1)
        row, start = np.nonzero(step == 1)
        _, stop = np.nonzero(step == -1)
        for at, a, b in zip(row.tolist(), start.tolist(), stop.tolist(), strict=True):
            # Padding shifts by one, and 1-based pixel centres shift it back: borders are at +0.5.
            ends = (a - 0.5, at + 0.5, b - 0.5, at + 0.5)
            if not horizontal:
                ends = (at + 0.5, a - 0.5, at + 0.5, b - 0.5)
            yield "line({:g},{:g},{:g},{:g}) # line=0 0".format(*ends)


def _points(detections: Detections) -> Iterator[str]:
    box = detections.box
    for peak in detections.peaks:
        x, y = peak["x"] - box.x0 + 1, peak["y"] - box.y0 + 1
        colour = "cyan" if peak["merge_peak_sky"] else "red"
        yield f"point({x:.2f},{y:.2f}) # point=cross color={colour} text={{{peak['snr']:.1f}}}"
