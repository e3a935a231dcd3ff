"""The merge of several bands into one catalogue of parents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.catalog import column_suffix
from coblend.core.detect import identifiers
from coblend.core.detect.assemble import assemble, blank_peaks
from coblend.core.detection import Detections
from coblend.core.errors import FormatError, ParameterError
from coblend.core.exposure import HeaderValue
from coblend.core.footprint import FootprintSet, raster_order
from coblend.core.merge.association import (
    Association,
    Limits,
    associate,
    associate_by_band,
)
from coblend.core.merge.cull import kept_peaks
from coblend.core.merge.footprint_lists import FootprintLists
from coblend.core.merge.overlap import SortedSpans, overlap_edges, union_footprints
from coblend.core.merge.parents import containing, cut, flag_parents, union_cores
from coblend.core.merge.sky import sky_footprints, sky_positions
from coblend.core.merge.tree import entry_tree
from coblend.core.params.merge import MergeParams, distance_of


def merge_detections(
    catalogues: Sequence[Detections],
    params: MergeParams,
    *,
    pixel_scale: float | None = None,
    seed: int | Sequence[int] = 0,
) -> Detections:
    """Merge the detections of several bands on one pixel grid.

    Footprints that overlap become one parent; peaks become one list per parent by the rule of
    `coblend.core.merge.association`.

    Parameters
    ----------
    catalogues : sequence of Detections
        One band each, most trusted first.
    params : MergeParams
    pixel_scale : float, optional
        Side of a pixel, arcsec; needed for limits in arcsec.
    seed : int or sequence of int
        Of the sky objects.

    Returns
    -------
    Detections
        In the order in which the sequential rule founds the parents, then sky objects.

    Raises
    ------
    FormatError
        Two catalogues of one band, or different fields.
    ParameterError
        Limits in arcsec without a pixel scale, or bands with the same identifier code.
    """
    bands = _bands(catalogues)
    field_id = _field_id(catalogues) if params.field_id is None else params.field_id
    limits = Limits(
        squared_limit("min_new_peak", params.min_new_peak, pixel_scale),
        squared_limit("max_same_peak", params.max_same_peak, pixel_scale),
    )
    box = Box.union(c.box for c in catalogues)
    identifiers.check_grid(box)
    lists = FootprintLists.of(catalogues, params.positions == "subpixel")
    spans = SortedSpans.build(lists.spans, lists.span_owner)
    edges = overlap_edges(
        spans, lists.n_footprint, lists.footprint_band, params.connect == "touch"
    )
    tree = entry_tree(*edges, lists.footprint_band)
    if params.peak_merge == "by-band":
        state = associate_by_band(lists, tree.root, limits)
    else:
        state = associate(lists, tree, limits)
    footprints, roots = union_footprints(spans, tree.root)
    parent_of = np.searchsorted(roots, tree.root)
    cores, core_bands = union_cores(catalogues)
    peaks, owner = _surviving_peaks(catalogues, bands, lists, state, parent_of, cores)
    keep = _keep(peaks, owner, params)
    culled, culled_owner = peaks[~keep], owner[~keep]
    peaks, owner = peaks[keep], owner[keep]
    parents = cut(catalogues, footprints, cores, peaks, box, params.max_peaks)
    if parents.cut.any():
        owner, culled_owner = (
            containing(parents.footprints, table["iy"], table["ix"]) for table in (peaks, culled)
        )
    n = len(parents.footprints)
    sky = _sky_objects(parents.footprints, box, params, seed)
    table = np.concatenate([peaks, _sky_peaks(bands, sky, catalogues[0].unit)])
    everything = FootprintSet.concatenate([parents.footprints, sky])
    rows, table, _ = assemble(
        bands, everything, table, np.concatenate([owner, n + np.arange(len(sky))]),
        order=_order(table, params), field_id=field_id, code=identifiers.MERGED,
        unit=catalogues[0].unit, sky=np.arange(len(everything)) >= n,
    )  # fmt: skip
    flag_parents(rows[:n], catalogues, bands, parents, parent_of, core_bands, params.max_peaks)
    rows["merge_footprint_sky"][n:] = True
    _finish_culled(culled, rows, culled_owner, field_id)
    return Detections(
        bands=bands,
        parents=rows,
        peaks=table,
        footprints=everything,
        box=box,
        cores=cores,
        culled=culled if params.cull else None,
        wcs=catalogues[0].wcs,
        unit=catalogues[0].unit,
        meta={
            "FIELDID": field_id,
            "MINNEW2": limits.min_new,
            "MAXSAME2": limits.max_same,
            "MAXPEAKS": params.max_peaks,
            "NCULLED": len(culled),
            "NSPLIT": len(np.unique(parents.origin[parents.cut])),
            "SKYWANT": params.sky_objects,
            "SKYGOT": len(sky),
            **_band_meta(catalogues),
        },
    )


def squared_limit(name: str, text: str, pixel_scale: float | None) -> float:
    """Square of a limit in pixel**2; -1 for a negative one.

    Within 1e-4 of an integer it is that integer: squared distances of pixels are integers, and
    a pixel scale off by 1e-7 must not decide whether an offset of (3, 4) is 5.

    Raises
    ------
    ParameterError
        A limit in arcsec without a pixel scale.
    """
    number, unit = distance_of(name, text)
    if number < 0:
        return -1.0
    if unit == "arcsec" and number > 0:
        if pixel_scale is None:
            raise ParameterError(
                f"{name} is {text}, and the inputs have no WCS",
                hint="give it in pixels, e.g. 5px",
            )
        number /= pixel_scale
    square = number**2
    whole = round(square)
    return float(whole) if abs(square - whole) < 1e-4 else square


def _bands(catalogues: Sequence[Detections]) -> tuple[str, ...]:
    bands = tuple(band for c in catalogues for band in c.bands)
    for i, band in enumerate(bands):
        if band in bands[:i]:
            raise FormatError(f"two catalogues of band {band}", hint="name them with BAND=FILE")
    identifiers.check_band_codes(bands)
    return bands


def _field_id(catalogues: Sequence[Detections]) -> int:
    found = {int(c.meta["FIELDID"]) for c in catalogues if "FIELDID" in c.meta}
    if len(found) > 1:
        raise FormatError(
            f"the inputs are of different fields: {', '.join(map(str, sorted(found)))}",
            hint="give --set field_id=N to merge them all the same",
        )
    return found.pop() if found else 0


def _surviving_peaks(
    catalogues: Sequence[Detections],
    bands: tuple[str, ...],
    lists: FootprintLists,
    state: Association,
    parent_of: NDArray[np.int64],
    cores: FootprintSet,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """PEAKS of those alive, and their parents."""
    alive = np.flatnonzero(state.alive)
    peaks = blank_peaks(bands, len(alive), catalogues[0].unit)
    for name in ("iy", "ix", "y", "x", "flux", "flux_err", "snr", "value", "scale", "flags"):
        peaks[name] = np.concatenate([c.peaks[name] for c in catalogues])[alive]
    peaks["band"] = np.array(bands)[lists.peak_band[alive]] if len(alive) else ""
    ids = np.concatenate([c.peaks["id"] for c in catalogues])
    source, near = state.source[alive], state.near[alive]
    seen = source >= 0
    near &= ~seen
    peaks["n_band"], peaks["n_near"] = seen.sum(axis=1), near.sum(axis=1)
    for i, band in enumerate(bands):
        suffix = column_suffix(band)
        peaks[f"merge_peak_{suffix}"], peaks[f"near_{suffix}"] = seen[:, i], near[:, i]
        peaks[f"src_{suffix}"] = np.where(seen[:, i], ids[source[:, i]], 0)
    peaks["core"] = containing(cores, peaks["iy"], peaks["ix"])
    return peaks, parent_of[lists.peak_owner[alive]]


def _order(peaks: NDArray[Any], params: MergeParams) -> NDArray[np.float64]:
    """Choose what ranks peaks: the column asked for; the flux where it is unknown for any."""
    for name in (params.rank_by, "flux"):
        values = peaks[name].astype(np.float64)
        if not np.isnan(values[~peaks["merge_peak_sky"]]).any():
            return values
    return -np.arange(len(peaks), dtype=np.float64)


def _keep(peaks: NDArray[Any], owner: NDArray[np.int64], params: MergeParams) -> NDArray[np.bool_]:
    """Which peaks culling leaves."""
    if not params.cull:
        return np.ones(len(peaks), bool)
    in_core = (peaks["core"] >= 0) & (params.cull_family == "core")
    n_parent = int(owner.max(initial=-1)) + 1
    family = np.where(in_core, n_parent + peaks["core"], owner)
    return kept_peaks(
        family,
        _order(peaks, params),
        peaks["n_band"],
        bands_sufficient=params.cull_n_bands,
        rank_sufficient=params.cull_rank,
        rank_considered=params.cull_rank_considered,
        rank_normalized=params.cull_rank_normalized,
    )


def _sky_objects(
    footprints: FootprintSet, box: Box, params: MergeParams, seed: int | Sequence[int]
) -> FootprintSet:
    """Discs in empty places, parent coordinates."""
    y, x = sky_positions(
        footprints.spans[raster_order(footprints.spans)], box, number=params.sky_objects,
        radius=params.sky_radius, trials=params.sky_trials, seed=seed,
    )  # fmt: skip
    return sky_footprints(y, x, params.sky_radius)


def _sky_peaks(bands: tuple[str, ...], sky: FootprintSet, unit: str) -> NDArray[Any]:
    """One peak in the middle of each sky object."""
    peaks = blank_peaks(bands, len(sky), unit)
    middle = sky.spans[(sky.offsets[:-1] + sky.offsets[1:]) // 2].astype(np.int64)
    y, x = middle[:, 0], (middle[:, 1] + middle[:, 2]) // 2
    peaks["iy"] = peaks["y"] = y
    peaks["ix"] = peaks["x"] = x
    peaks["value"] = 0.0
    peaks["merge_peak_sky"] = True
    return peaks


def _band_meta(catalogues: Sequence[Detections]) -> dict[str, HeaderValue]:
    """Filter, threshold and calibration of each band, numbered as the bands are."""
    return {
        f"{key}{i}": c.meta[f"{key}1"]
        for i, c in enumerate(catalogues, 1)
        for key in ("PSFSIG", "THRESH", "NOISESC", "VARSCAL", "GROWRAD")
        if f"{key}1" in c.meta
    }


def _finish_culled(
    culled: NDArray[Any], rows: NDArray[Any], owner: NDArray[np.int64], field_id: int
) -> None:
    """Identify culled peaks; they have no rank."""
    culled["id"] = identifiers.encode(
        field_id, identifiers.MERGED, identifiers.PEAK, culled["iy"], culled["ix"]
    )
    culled["parent"] = rows["id"][owner]
    culled["rank"] = -1
