"""The exposure as the search saw it, with its detections marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coblend.core.detect.growth import paint_rows, span_range
from coblend.core.detect.pixels import strips
from coblend.core.detect.search import Search
from coblend.core.detection import Detections
from coblend.core.exposure import Exposure
from coblend.core.footprint import raster_order
from coblend.core.mask import STANDARD


def marked_exposure(exposure: Exposure, search: Search) -> Exposure:
    """Return a copy less the background, with rescaled variance and new DETECTED planes.

    Parameters
    ----------
    exposure : Exposure
        The one that was searched.
    search : Search
    """
    planes = exposure.planes.union(STANDARD)
    bits = {name: np.int32(planes.value([name])) for name in ("DETECTED", "DETECTED_NEGATIVE")}
    mask = exposure.planes.remap(exposure.mask, planes) & ~(bits["DETECTED"])
    mask &= ~bits["DETECTED_NEGATIVE"]
    for catalogue in (search.detections, search.negative):
        if catalogue is None:
            continue
        spans = catalogue.footprints.spans
        corner = np.array([exposure.box.y0, exposure.box.x0, exposure.box.x0], np.int32)
        spans = spans[raster_order(spans)] - corner
        bit = bits["DETECTED_NEGATIVE" if _negative(catalogue) else "DETECTED"]
        span_rows = spans[:, 0].copy()
        for rows in strips(exposure.box.ny):
            here = span_range(span_rows, rows)
            mask[rows][paint_rows(spans[here], rows, exposure.box.nx)] |= bit
    scale = np.float32(search.detections.meta["VARSCAL1"])
    image = exposure.image.copy()
    if search.background is not None:
        for rows in strips(exposure.box.ny):
            image[rows] -= search.background.rows(np.arange(rows.start, rows.stop))
        image[~np.isfinite(exposure.variance)] = 0.0
    return replace(
        exposure, image=image, mask=mask, variance=exposure.variance * scale, planes=planes
    )


def _negative(catalogue: Detections) -> bool:
    return bool(catalogue.parents["flag_negative"].any())
