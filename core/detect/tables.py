"""Tables of what was found on one exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.detect import identifiers
from coblend.core.detect.assemble import (
    assemble,
    blank_peaks,
    brightest_of_uncut,
    set_parent_flag,
)
from coblend.core.detect.locate import Peaks
from coblend.core.detect.prepare import Prepared
from coblend.core.detect.splitting import Parents
from coblend.core.detect.sums import sum_footprints
from coblend.core.detection import PEAK_FLAGS, Detections
from coblend.core.footprint import FootprintSet

PARTIAL = 0.5
"""Peaks with less weight under the template than this fraction of the typical are partial."""


def detections_of(
    ready: Prepared, sign: int, cores: FootprintSet, parents: Parents, peaks: Peaks
) -> Detections:
    """Tables in parent coordinates and physical units."""
    exposure, params = ready.exposure, ready.params
    box, bands = exposure.box, (exposure.band,)
    shift = np.array([box.y0, box.x0, box.x0], np.int32)
    footprints = FootprintSet(parents.footprints.spans + shift, parents.footprints.offsets)
    table = _peak_table(ready, sign, peaks)
    owner = parents.core_parent[peaks.core]
    rows, table, _ = assemble(
        bands, footprints, table, owner, order=table["snr"], field_id=params.field_id,
        code=identifiers.band_code(exposure.band),
    )  # fmt: skip
    sums = sum_footprints(ready.flat, parents.footprints)
    rows["flux"] = sums.flux
    rows[f"merge_footprint_{column_suffix(exposure.band)}"] = True
    _flag_parents(ready, sign, rows, parents, peaks, owner)
    set_parent_flag(rows, "masked", sums.masked)
    set_parent_flag(rows, "sat", sums.saturated)
    return Detections(
        bands=bands,
        parents=rows,
        peaks=table,
        footprints=footprints,
        box=box,
        cores=FootprintSet(cores.spans + shift, cores.offsets) if params.cores else None,
        wcs=exposure.wcs,
        unit=exposure.unit,
        meta={
            "FIELDID": params.field_id,
            "PSFSIG1": ready.sigma,
            "PSFMIN1": float(ready.widths.min()),
            "PSFMAX1": float(ready.widths.max()),
            "THRESH1": params.threshold,
            "NOISESC1": ready.scale.noise,
            "VARSCAL1": ready.scale.variance,
            "GROWRAD1": len(ready.half_widths) - 1,
            "MAXPEAKS": params.max_peaks,
            "NSPLIT": len(np.unique(parents.origin[parents.cut])),
        },
    )


def _peak_table(ready: Prepared, sign: int, peaks: Peaks) -> NDArray[Any]:
    """PEAKS with pixels and values; fluxes carry their sign, significances do not."""
    exposure = ready.exposure
    box, unit = exposure.box, ready.scale.unit
    flux = sign * peaks.snr * peaks.flux_err
    table = blank_peaks((exposure.band,), len(peaks))
    iy, ix = np.divmod(peaks.pixel, box.nx)
    table["iy"], table["ix"] = iy + box.y0, ix + box.x0
    table["y"], table["x"] = peaks.y + box.y0, peaks.x + box.x0
    table["snr"] = peaks.snr / unit
    table["flux"] = flux
    table["flux_err"] = peaks.flux_err * unit
    table["value"] = flux * ready.template.power_at(box.shape, iy, ix)
    table["scale"], table["core"], table["flags"] = peaks.scale, peaks.core, peaks.flags
    table["band"], table["n_band"] = exposure.band, 1
    table[f"merge_peak_{column_suffix(exposure.band)}"] = True
    return table


def _flag_parents(
    ready: Prepared,
    sign: int,
    rows: NDArray[Any],
    parents: Parents,
    peaks: Peaks,
    owner: NDArray[np.int64],
) -> None:
    """Set the flags that follow from geometry and peaks."""
    n, box = len(rows), ready.exposure.box

    def any_peak(which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.bincount(owner[which], minlength=n) > 0

    edge = (rows["box_y0"] == box.y0) | (rows["box_x0"] == box.x0)
    edge |= rows["box_y0"] + rows["box_ny"] == box.y1
    edge |= rows["box_x0"] + rows["box_nx"] == box.x1
    set_parent_flag(rows, "edge", edge)
    set_parent_flag(rows, "partial", any_peak(peaks.flux_err > _partial_error(ready, peaks)))
    set_parent_flag(rows, "nopeak_fallback", any_peak(peaks.flags & PEAK_FLAGS["fallback"] > 0))
    set_parent_flag(rows, "negative", np.full(n, sign < 0))
    set_parent_flag(rows, "split", parents.cut)
    if ready.params.max_peaks:
        set_parent_flag(rows, "crowded", rows["npeak"] > ready.params.max_peaks)
    rows["blob"] = brightest_of_uncut(rows, parents)


def _partial_error(ready: Prepared, peaks: Peaks) -> NDArray[np.float64]:
    """Flux errors that peaks would have with half the typical weight under the template."""
    never = np.full(len(peaks), np.inf)
    if not ready.template.matched:
        return never
    step = max(1, min(ready.searched.shape) // 500)
    rows = slice(0, ready.searched.shape[0], step)
    variance = ready.searched.variance(rows)[:, ::step][ready.searched.usable(rows)[:, ::step]]
    if not len(variance):
        return never
    y, x = np.divmod(peaks.pixel, ready.searched.shape[1])
    power = ready.template.power_at(ready.searched.shape, y, x)
    return np.asarray((np.median(variance) / (power * PARTIAL)) ** 0.5)
