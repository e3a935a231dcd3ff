"""The merge of several bands into one catalogue of parents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import check_suffixes, column_suffix
from coblend.core.box import Box
from coblend.core.detect import identifiers
from coblend.core.detect.assemble import assemble, blank_peaks
from coblend.core.detection import Detections
from coblend.core.errors import FormatError
from coblend.core.exposure import HeaderValue
from coblend.core.footprint import FootprintSet, raster_order, union_spans
from coblend.core.merge.association import Association, associate, associate_by_band
from coblend.core.merge.cull import kept_peaks
from coblend.core.merge.footprint_lists import FootprintLists
from coblend.core.merge.limits import Limits, peak_limits
from coblend.core.merge.overlap import SortedSpans, overlap_edges, union_footprints
from coblend.core.merge.parents import containing, cut_crowded, flag_parents, union_cores
from coblend.core.merge.sky import sky_footprints, sky_positions
from coblend.core.merge.tree import entry_tree
from coblend.core.params.merge import MergeParams


def merge_detections(
    catalogues: Sequence[Detections],
    params: MergeParams,
    *,
    pixel_scale: float | None = None,
    seed: int | Sequence[int] = 0,
    masked: NDArray[np.int32] | None = None,
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
    masked : array, shape (n, 3), int32, optional
        Spans that sky objects avoid besides the footprints, parent coordinates, any order.

    Returns
    -------
    Detections
        In the order in which the sequential rule founds the parents, then sky objects.

    Raises
    ------
    FormatError
        Two catalogues of one band, or different fields.
    ParameterError
        As `coblend.core.merge.limits.peak_limits`, or bands with the same identifier code.
    """
    bands = _bands(catalogues)
    field_id = _field_id(catalogues) if params.field_id is None else params.field_id
    limits = peak_limits(params, bands, pixel_scale)
    box = Box.union(c.box for c in catalogues)
    _check_extent(catalogues, box)
    lists = FootprintLists.of(catalogues, params.positions == "subpixel")
    footprints, parent_of, state = _join(lists, params, limits)
    cores = union_cores(catalogues)
    peaks = _surviving_peaks(catalogues, bands, lists, state, cores)
    owner = parent_of[lists.peak_owner[state.alive]]
    keep = _keep(peaks, owner, params)
    peaks, culled = peaks[keep], peaks[~keep]
    owner, culled_owner = owner[keep], owner[~keep]
    parents = cut_crowded(catalogues, footprints, cores, peaks, owner, box, params.max_peaks)
    if parents.cut.any():
        owner, culled_owner = (
            containing(parents.footprints, table["iy"], table["ix"]) for table in (peaks, culled)
        )
    sky = _sky_objects(parents.footprints, masked, box, params, seed)
    everything = FootprintSet.concatenate([parents.footprints, sky])
    rows, table = _tables(everything, peaks, owner, sky, bands, params, field_id)
    flag_parents(rows, catalogues, bands, parents, parent_of, cores, params.max_peaks)
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
            "MAXPEAKS": params.max_peaks,
            "NCULLED": len(culled),
            "NSPLIT": len(np.unique(parents.origin[parents.cut])),
            "SKYWANT": params.sky_objects,
            "SKYGOT": len(sky),
            **_band_meta(catalogues, limits),
        },
    )


def _join(
    lists: FootprintLists, params: MergeParams, limits: Limits
) -> tuple[FootprintSet, NDArray[np.int64], Association]:
    """Unions of overlapping footprints, the union of each, and what became of the peaks."""
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
    return footprints, np.searchsorted(roots, tree.root), state


def _tables(
    everything: FootprintSet,
    peaks: NDArray[Any],
    owner: NDArray[np.int64],
    sky: FootprintSet,
    bands: tuple[str, ...],
    params: MergeParams,
    field_id: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """PARENTS and PEAKS, with those of the sky objects, the last footprints, at the end."""
    n = len(everything) - len(sky)
    table = np.concatenate([peaks, _sky_peaks(bands, sky)])
    rows, table, _ = assemble(
        bands, everything, table, np.concatenate([owner, n + np.arange(len(sky))]),
        order=_order(table, params), field_id=field_id, code=identifiers.MERGED,
        sky=np.arange(len(everything)) >= n,
    )  # fmt: skip
    rows["merge_footprint_sky"][n:] = True
    return rows, table


def _bands(catalogues: Sequence[Detections]) -> tuple[str, ...]:
    bands = tuple(band for c in catalogues for band in c.bands)
    for i, band in enumerate(bands):
        if band in bands[:i]:
            raise FormatError(f"two catalogues of band {band}", hint="name them with BAND=FILE")
    check_suffixes(bands)
    identifiers.check_band_codes(bands)
    return bands


def _check_extent(catalogues: Sequence[Detections], box: Box) -> None:
    """Refuse catalogues so far apart that two pixels would share an identifier."""
    try:
        identifiers.check_grid(box)
    except FormatError as error:
        grids = ", ".join(f"{c.bands[0]} {c.box}" for c in catalogues)
        raise FormatError(
            f"the catalogues lie too far apart for one merge (columns, rows): {grids}",
            hint="are they of one field? " + (error.hint or ""),
        ) from error


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
    cores: FootprintSet,
) -> NDArray[Any]:
    """PEAKS of those alive."""
    alive = np.flatnonzero(state.alive)
    peaks = blank_peaks(bands, len(alive))
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
    return peaks


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
    # a core may span parents that touch; none of them may lose all its peaks
    core = np.where(in_core, peaks["core"].astype(np.int64) + 1, 0)
    family = owner + n_parent * core
    return kept_peaks(
        family,
        _order(peaks, params),
        peaks["n_band"] + peaks["n_near"] * params.cull_count_near,
        bands_sufficient=params.cull_n_bands,
        rank_sufficient=params.cull_rank,
        rank_considered=params.cull_rank_considered,
        rank_normalized=params.cull_rank_normalized,
    )


def _sky_objects(
    footprints: FootprintSet,
    masked: NDArray[np.int32] | None,
    box: Box,
    params: MergeParams,
    seed: int | Sequence[int],
) -> FootprintSet:
    """Discs in empty places, parent coordinates."""
    taken = footprints.spans[raster_order(footprints.spans)]
    if masked is not None:
        taken = union_spans(np.concatenate([taken, masked]))
    y, x = sky_positions(
        taken, box, number=params.sky_objects, radius=params.sky_radius,
        trials=params.sky_trials, seed=seed,
    )  # fmt: skip
    return sky_footprints(y, x, params.sky_radius)


def _sky_peaks(bands: tuple[str, ...], sky: FootprintSet) -> NDArray[Any]:
    """One peak in the middle of each sky object."""
    peaks = blank_peaks(bands, len(sky))
    middle = sky.spans[(sky.offsets[:-1] + sky.offsets[1:]) // 2].astype(np.int64)
    y, x = middle[:, 0], (middle[:, 1] + middle[:, 2]) // 2
    peaks["iy"] = peaks["y"] = y
    peaks["ix"] = peaks["x"] = x
    peaks["value"] = 0.0
    peaks["merge_peak_sky"] = True
    return peaks


def _band_meta(catalogues: Sequence[Detections], limits: Limits) -> dict[str, HeaderValue]:
    """Filter, threshold, calibration and limits of each band, numbered as the bands are."""
    meta: dict[str, HeaderValue] = {}
    for i, catalogue in enumerate(catalogues, 1):
        for key in ("PSFSIG", "PSFMIN", "PSFMAX", "THRESH", "NOISESC", "VARSCAL", "GROWRAD"):
            if f"{key}1" in catalogue.meta:
                meta[f"{key}{i}"] = catalogue.meta[f"{key}1"]
    for name, values in (("MINNEW2", limits.min_new), ("MAXSAME2", limits.max_same)):
        same = (values == values[0]).all()
        meta |= (
            {name: float(values[0])}
            if same
            else {f"{name[:6]}_{i}": float(value) for i, value in enumerate(values, 1)}
        )
    return meta


def _finish_culled(
    culled: NDArray[Any], rows: NDArray[Any], owner: NDArray[np.int64], field_id: int
) -> None:
    """Identify culled peaks; they have no rank."""
    culled["id"] = identifiers.encode(
        field_id, identifiers.MERGED, identifiers.PEAK, culled["iy"], culled["ix"]
    )
    culled["parent"] = rows["id"][owner]
    culled["rank"] = -1
