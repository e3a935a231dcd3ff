"""Detections made of another program's catalogue: footprints, one peak per source."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.components import group_spans, join_runs, label_spans
from coblend.core.detect import identifiers
from coblend.core.detect.assemble import assemble, blank_peaks
from coblend.core.detect.filtering import Template, flux_error, snr_map
from coblend.core.detect.growth import grow_spans, stencil
from coblend.core.detect.pixels import Pixels
from coblend.core.detection import Detections, SourceList
from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.footprint import (
    FootprintSet,
    SpanIndex,
    expand_runs,
    labels_to_spans,
    stable_order,
    union_spans,
)

MIN_RADIUS = 3.0
"""Smallest radius of a footprint that follows from a significance, pixel."""


def adopt_sources(
    sources: SourceList,
    exposure: Exposure,
    *,
    field_id: int = 0,
    sigma: float | NDArray[np.float64] | None = None,
    radius: float | None = None,
    ellipse_scale: float = 3.0,
) -> tuple[Detections, list[str]]:
    """Give every source a disc or ellipse; those that touch make one parent.

    Parameters
    ----------
    sources : SourceList
    exposure : Exposure
        The image that the catalogue belongs to.
    field_id : int
    sigma : float or array, optional
        PSF width, pixel (the median of several): a source of significance s gets the radius at
        which it falls below 5, ``2 sigma sqrt(log(s / 5))``, and 2.4 sigma.
    radius : float, optional
        Radius of all footprints instead, pixel.
    ellipse_scale : float
        Semi-axes of footprints in those of the catalogue, where it has them.

    Returns
    -------
    detections : Detections
    warnings : list of str

    Raises
    ------
    FormatError
        No source lies in the image.
    """
    sources, warnings = _inside(sources, exposure.box)
    if radius is not None:
        a = b = np.full(len(sources), radius)
        theta = np.zeros(len(sources))
    else:
        a, b, theta = _extents(sources, sigma, ellipse_scale)
    spans = union_spans(ellipse_spans(sources.y, sources.x, a, b, theta, exposure.box))
    y, x = _pixels(sources)
    footprints, owner = _connected(spans, y, x)
    return _detections(sources, exposure, field_id, footprints, owner, y, x), warnings


def adopt_segmentation(
    sources: SourceList,
    exposure: Exposure,
    segmentation: NDArray[np.integer],
    *,
    field_id: int = 0,
    by_label: bool = False,
    grow: int = 0,
    max_misfit: float = 0.01,
) -> tuple[Detections, list[str]]:
    """Take the footprints from a segmentation image.

    Parameters
    ----------
    sources : SourceList
        Rows without a label take that of their pixel.
    exposure : Exposure
    segmentation : array, shape (ny, nx), int
        0 outside sources.
    field_id : int
    by_label : bool
        Every label is a parent, instead of every set of touching labels.
    grow : int
        Growth of the parents, pixel; not with ``by_label``.
    max_misfit : float
        Largest fraction of labels without a row, or of rows without a label.

    Returns
    -------
    detections : Detections
    warnings : list of str

    Raises
    ------
    FormatError
        Another shape, negative labels, no labels, or too many labels without a row.
    """
    box = exposure.box
    _check_segmentation(segmentation, box)
    sources, warnings = _inside(sources, box)
    corner = np.array([box.y0, box.x0, box.x0], np.int32)
    spans, values = labels_to_spans(segmentation)
    spans += corner
    y, x = _pixels(sources)
    label = np.where(sources.label > 0, sources.label, segmentation[y - box.y0, x - box.x0])
    known = np.isin(label, values)
    warnings += _misfits(label, known, values, max_misfit)
    sources, label = _rows(sources, known), label[known]
    y, x = _nearest_pixels(sources, spans, values, label)
    spans, values = _with_sources(spans, values, label)
    if by_label:
        names, group = np.unique(values, return_inverse=True)
        order = np.argsort(group, kind="stable")
        footprints = group_spans(*join_runs(spans[order], group[order]), len(names))
        owner = np.searchsorted(names, label)
    else:
        spans = union_spans(spans)
        if grow:
            spans = grow_spans(spans - corner, box.shape, stencil(grow)) + corner
        footprints, owner = _occupied(*_connected(spans, y, x))
    return _detections(sources, exposure, field_id, footprints, owner, y, x), warnings


def with_significance(
    sources: SourceList, exposure: Exposure, sigma: float | NDArray[np.float64]
) -> SourceList:
    """Measure point-source fluxes and significances where the catalogue has none.

    Parameters
    ----------
    sources : SourceList
        Returned as it is if any significance is known.
    exposure : Exposure
        The image that the catalogue belongs to.
    sigma : float or array, shape (n_y, n_x)
        Width of the matched filter, pixel, in equal cells of the image.
    """
    if np.isfinite(sources.snr).any():
        return sources
    pixels = Pixels.of(exposure, ["NO_DATA"])
    template = Template.gaussian(sigma)
    y, x = _pixels(sources)
    y, x = y - exposure.box.y0, x - exposure.box.x0
    inside = (y >= 0) & (y < exposure.box.ny) & (x >= 0) & (x < exposure.box.nx)
    y, x = y[inside], x[inside]
    snr, error = np.full((2, len(sources)), np.nan)
    snr[inside] = snr_map(pixels, template)[y, x]
    error[inside] = flux_error(pixels, template, y, x)
    flux = np.where(np.isnan(sources.flux), snr * error, sources.flux)
    return replace(sources, snr=snr, flux=flux, flux_err=error)


def ellipse_spans(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    theta: NDArray[np.float64],
    box: Box,
) -> NDArray[np.int32]:
    """Spans of filled ellipses, clipped to ``box``: per row the roots of a quadratic.

    Parameters
    ----------
    y, x, a, b, theta : array, shape (n,)
        Centres, semi-axes (pixel) and angle of ``a`` from x to y (radian).
    """
    cos, sin = np.cos(theta), np.sin(theta)
    cxx = (cos / a) ** 2 + (sin / b) ** 2
    cyy = (sin / a) ** 2 + (cos / b) ** 2
    cxy = cos * sin * (a**-2.0 - b**-2.0)
    height = np.sqrt((a * sin) ** 2 + (b * cos) ** 2)
    first = np.maximum(np.ceil(y - height), box.y0).astype(np.int64)
    last = np.minimum(np.floor(y + height), box.y1 - 1).astype(np.int64)
    count = np.maximum(last - first + 1, 0)
    which = np.repeat(np.arange(len(y)), count)
    row = expand_runs(first, count)
    dy = row - y[which]
    middle = x[which] - (cxy / cxx)[which] * dy
    inside = (cxy[which] * dy) ** 2 - cxx[which] * (cyy[which] * dy**2 - 1)
    half = np.sqrt(np.maximum(inside, 0)) / cxx[which]
    left = np.maximum(np.ceil(middle - half), box.x0).astype(np.int64)
    right = np.minimum(np.floor(middle + half), box.x1 - 1).astype(np.int64)
    spans = np.stack([row, left, right], axis=1)[(left <= right) & (inside >= 0)]
    return spans.astype(np.int32)


def _extents(
    sources: SourceList, sigma: float | NDArray[np.float64] | None, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Semi-axes and angles of the footprints."""
    width = 0.0 if sigma is None else float(np.median(sigma))
    significance = np.nan_to_num(sources.snr, nan=5.0)
    radius = 2 * width * np.sqrt(np.log(np.maximum(significance / 5, 1))) + 2.4 * width
    radius = np.maximum(radius, MIN_RADIUS)
    shaped = (sources.a > 0) & (sources.b > 0)
    return (
        np.where(shaped, np.maximum(scale * sources.a, MIN_RADIUS), radius),
        np.where(shaped, np.maximum(scale * sources.b, MIN_RADIUS), radius),
        np.where(shaped, np.nan_to_num(sources.theta), 0.0),
    )


def _detections(
    sources: SourceList,
    exposure: Exposure,
    field_id: int,
    footprints: FootprintSet,
    owner: NDArray[np.int64],
    y: NDArray[np.int64],
    x: NDArray[np.int64],
) -> Detections:
    """Tables; of several sources on one pixel the first-ranked stays."""
    order = ranking(sources)
    pixel = y * (1 << 32) + x
    rows = np.lexsort((-order, pixel))
    first = np.ones(len(rows), bool)
    first[1:] = pixel[rows][1:] != pixel[rows][:-1]
    rows = np.sort(rows[first])
    peaks = blank_peaks((exposure.band,), len(rows))
    peaks["iy"], peaks["ix"] = y[rows], x[rows]
    for name in ("x", "y", "flux", "flux_err", "snr"):
        peaks[name] = getattr(sources, name)[rows]
    peaks["value"] = peaks["flux"]
    peaks["band"], peaks["n_band"] = exposure.band, 1
    suffix = column_suffix(exposure.band)
    peaks[f"merge_peak_{suffix}"] = True
    parents, peaks, _ = assemble(
        (exposure.band,), footprints, peaks, owner[rows], order=order[rows],
        field_id=field_id, code=identifiers.FOREIGN,
    )  # fmt: skip
    parents[f"merge_footprint_{suffix}"] = True
    return Detections(
        bands=(exposure.band,),
        parents=parents,
        peaks=peaks,
        footprints=footprints,
        box=exposure.box,
        wcs=exposure.wcs,
        unit=exposure.unit,
        meta={"FIELDID": field_id, "ORIGIN1": sources.program},
    )


def ranking(sources: SourceList) -> NDArray[np.float64]:
    """Rank sources by significance, else flux, else their order; largest first."""
    for values in (sources.snr, sources.flux):
        if len(values) and np.isfinite(values).all():
            return values
    return -np.arange(len(sources), dtype=np.float64)


def _inside(sources: SourceList, box: Box) -> tuple[SourceList, list[str]]:
    """Drop sources outside the image; say how many there are."""
    y, x = _pixels(sources)
    inside = (y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)
    n_out = int(np.count_nonzero(~inside))
    if n_out == len(sources) and n_out:
        raise FormatError(
            f"none of {n_out} sources lies in the image {box}; the first is at "
            f"x {sources.x[0]:.1f}, y {sources.y[0]:.1f}",
            hint="is --like the image that the catalogue was made from?",
        )
    warnings = [f"{n_out} of {len(sources)} sources lie outside the image"] if n_out else []
    return _rows(sources, inside), warnings


def _rows(sources: SourceList, which: NDArray[np.bool_]) -> SourceList:
    arrays = {f.name: getattr(sources, f.name) for f in fields(sources) if f.name != "program"}
    return replace(sources, **{name: values[which] for name, values in arrays.items()})


def _pixels(sources: SourceList) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels ``y, x`` of the sources; unknown positions are far outside any image."""
    far = -(1 << 40)
    y, x = (np.nan_to_num(v, nan=far, posinf=far, neginf=far) for v in (sources.y, sources.x))
    return np.floor(y + 0.5).astype(np.int64), np.floor(x + 0.5).astype(np.int64)


def _check_segmentation(segmentation: NDArray[np.integer], box: Box) -> None:
    if segmentation.shape != box.shape:
        raise FormatError(
            f"the segmentation image has {segmentation.shape[1]}x{segmentation.shape[0]} pixels, "
            f"the exposure {box.nx}x{box.ny}"
        )
    if segmentation.size and segmentation.min() < 0:
        raise FormatError(f"the segmentation image has labels down to {segmentation.min()}")
    if not segmentation.any():
        raise FormatError("the segmentation image is empty: all labels are 0")


def _misfits(
    label: NDArray[np.int64],
    known: NDArray[np.bool_],
    values: NDArray[np.integer],
    limit: float,
) -> list[str]:
    """Say how many rows and labels have no counterpart; refuse too many."""
    names = np.unique(values)
    orphans = int(np.count_nonzero(~np.isin(names, label)))
    lost = int(np.count_nonzero(~known))
    text = (
        f"{lost} of {len(label)} rows have no label in the segmentation image, "
        f"{orphans} of {len(names)} labels no row"
    )
    if lost > limit * len(label) or orphans > limit * len(names):
        raise FormatError(
            text,
            hint="do both come from one run, counted from one --set origin=0 or 1? "
            "--set max_misfit=1 drops them",
        )
    return [text] if lost or orphans else []


def _with_sources(
    spans: NDArray[np.int32], values: NDArray[np.integer], label: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
    """Spans whose label has a row."""
    mine = np.isin(values, label)
    return spans[mine], values[mine]


def _nearest_pixels(
    sources: SourceList,
    spans: NDArray[np.int32],
    values: NDArray[np.integer],
    label: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Peak pixels: that of the position, or the nearest one with the source's label."""
    y, x = _pixels(sources)
    span = SpanIndex.build(spans).find(y, x)
    order = stable_order(values.astype(np.int64))
    first, stop = (np.searchsorted(values[order], label, side) for side in ("left", "right"))
    for i in np.flatnonzero((span < 0) | (values[span] != label)):
        own = spans[order[first[i] : stop[i]]].astype(np.int64)
        column = np.clip(x[i], own[:, 1], own[:, 2])
        best = np.argmin((own[:, 0] - y[i]) ** 2 + (column - x[i]) ** 2)
        y[i], x[i] = own[best, 0], column[best]
    return y, x


def _connected(
    spans: NDArray[np.int32], y: NDArray[np.int64], x: NDArray[np.int64]
) -> tuple[FootprintSet, NDArray[np.int64]]:
    """Footprints of spans that touch, and the numbers of those that hold the pixels."""
    labels, n = label_spans(spans)
    owner = labels[SpanIndex.build(spans).find(y, x)]
    return group_spans(spans, labels, n), owner


def _occupied(
    footprints: FootprintSet, owner: NDArray[np.int64]
) -> tuple[FootprintSet, NDArray[np.int64]]:
    """Footprints that have a peak, and the new numbers of the peaks' footprints."""
    used, number = np.unique(owner, return_inverse=True)
    return footprints.select(used), number
