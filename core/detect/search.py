"""Detection on one exposure: from pixels to parents with footprints and peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.components import edge_labels, group_spans, label_spans
from coblend.core.detect.background import IQR_TO_SIGMA, MeshOptions, measure_background
from coblend.core.detect.cores import Cores, find_cores
from coblend.core.detect.filtering import Template
from coblend.core.detect.growth import grow_spans, paint_rows, span_range
from coblend.core.detect.locate import (
    Filtered,
    Peaks,
    distant_peaks,
    fallback_peaks,
    locate_peaks,
    replaced_peaks,
)
from coblend.core.detect.mesh import Mesh
from coblend.core.detect.noise import Noise
from coblend.core.detect.prepare import Prepared, prepare
from coblend.core.detect.saturation import one_peak_per_saturation
from coblend.core.detect.splitting import Parents, cut_footprints
from coblend.core.detect.tables import detections_of
from coblend.core.detection import Detections
from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.footprint import FootprintSet, SpanIndex
from coblend.core.params.detect import DetectParams

BYTES_PER_PIXEL = 24
"""Memory of a search per pixel of the exposure, which takes half of it (docs/performance.md)."""
SMALL_IMAGE = 100_000
"""Usable pixels below which an image may be covered by one object."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What `detect` returns.

    Parameters
    ----------
    detections : Detections
        Positive ones; negative ones when only those were sought.
    negative : Detections or None
        With polarity ``both``.
    background : Mesh or None
        The background to subtract for good.
    noise : Noise
    threshold : float
        Calibrated threshold on the significance.
    significance : array, shape (ny, nx), float32, or None
        Filtered image over its error by the rescaled variance, where it was asked for.
    warnings : tuple of str
    """

    detections: Detections
    negative: Detections | None
    background: Mesh | None
    noise: Noise
    threshold: float
    significance: NDArray[np.float32] | None
    warnings: tuple[str, ...]


def detect(
    exposure: Exposure, params: DetectParams, *, threads: int = 1, keep_map: bool = False
) -> Search:
    """Find footprints and peaks on one exposure.

    Backgrounds, matched filter, noise calibration, threshold, components, peaks, growth and the
    cut of crowded footprints, in that order.

    Parameters
    ----------
    exposure : Exposure
        With a PSF, unless ``params.psf_sigma`` is given.
    params : DetectParams
    threads : int
        Threads for the filter; the result does not depend on it.
    keep_map : bool
        Whether to return the significance of every pixel too.

    Raises
    ------
    FormatError
        Too few usable pixels, a variance plane that cannot be right, or an image that is too
        small or nearly all above the threshold.
    ParameterError
        No filter width, or one that does not fit the image.
    """
    ready, snr = prepare(exposure, params, threads)
    signs = {"positive": (1,), "negative": (-1,), "both": (1, -1)}[params.polarity]
    found = [_find(ready, snr, sign) for sign in signs]
    significance = None
    if keep_map:
        sign = signs[-1]  # negative ones were sought on its negative
        snr *= np.float32(sign / ready.scale.unit)
        significance = snr
    del snr  # four bytes per pixel that growth and tables can use
    catalogues = [
        detections_of(ready, sign, footprints, _parents(ready, cores, footprints, peaks), peaks)
        for sign, (cores, footprints, peaks) in zip(signs, found, strict=True)
    ]
    return Search(
        catalogues[0],
        catalogues[1] if len(catalogues) > 1 else None,
        ready.background,
        ready.noise,
        params.threshold * ready.scale.noise,
        significance,
        ready.warnings,
    )


def _find(
    ready: Prepared, snr: NDArray[np.float32], sign: int
) -> tuple[Cores, FootprintSet, Peaks]:
    """Find cores and peaks of one sign; negates ``snr`` for the negative ones."""
    params = ready.params
    if sign < 0:
        np.negative(snr, out=snr)
    peak_level = None
    if params.peak_threshold is not None:
        peak_level = params.peak_threshold / params.threshold * ready.level
    cores = find_cores(
        ready.searched,
        snr,
        ready.level,
        peak_level=peak_level,
        min_pixels=params.min_pixels,
        connectivity=params.connectivity,
        margin=ready.template.half if params.edge == "trim" else 0,
    )
    _check_area(ready, cores)
    return cores, cores.footprints(), _peaks(ready, snr, sign, cores)


def _check_area(ready: Prepared, cores: Cores) -> None:
    """Refuse an image that is nearly all above the threshold; a cut-out of one blend may be."""
    area = int(np.sum(cores.spans[:, 2] - cores.spans[:, 1] + 1))
    n_usable = ready.searched.n_usable
    if area <= ready.params.max_area * n_usable or n_usable < SMALL_IMAGE:
        return
    step = max(1, ready.searched.shape[0] // 500)
    rows = slice(0, ready.searched.shape[0], step)
    sample = ready.searched.image(rows)[ready.searched.usable(rows)]
    low, median, high = np.percentile(sample, [25, 50, 75])
    raise FormatError(
        f"{area / n_usable:.0%} of the usable pixels are above the threshold (image median "
        f"{median:.4g}, scatter {IQR_TO_SIGMA * (high - low):.4g}): the background is not "
        "subtracted, the variance is wrong, or the field is that crowded",
        hint="subtract the background with --bg-mesh 128, or allow it with --set max_area=1",
    )


def _peaks(ready: Prepared, snr: NDArray[np.float32], sign: int, cores: Cores) -> Peaks:
    """Peaks of all scales; every core has at least one."""
    params = ready.params
    found = Filtered(ready.searched, ready.template, snr)
    peaks = _located(ready, found, cores)
    if params.local_bg:
        local = _located(ready, _locally_filtered(ready, sign, cores), cores)
        peaks = replaced_peaks(peaks, local, cores.n)
    peaks = peaks.joined(fallback_peaks(found, cores, peaks))
    for scale in params.peak_scales[1:]:
        template = Template.gaussian(
            ready.widths * scale, params.kernel_nsigma, ready.template.matched
        )
        narrow = ready.filtered(ready.searched, template, sign)
        more = _located(ready, Filtered(ready.searched, template, narrow, scale), cores)
        peaks = peaks.joined(distant_peaks(more, peaks, params.peak_separation))
    if params.plateau == "all":
        return peaks
    return one_peak_per_saturation(peaks, found, cores)


def _located(ready: Prepared, found: Filtered, cores: Cores) -> Peaks:
    """Peaks of one map that reach the threshold."""
    every, subpixel = ready.params.plateau == "all", ready.params.subpixel
    return locate_peaks(found, cores, level=ready.level, every=every, subpixel=subpixel)


def _locally_filtered(ready: Prepared, sign: int, cores: Cores) -> Filtered:
    """Map after subtraction of a background on small bins."""
    params, (ny, nx) = ready.params, ready.searched.shape
    hull_rows = cores.hull[:, 0].copy()

    def outside(rows: slice) -> NDArray[np.bool_]:
        start, stop, step = rows.indices(ny)
        here = span_range(hull_rows, slice(start, stop))
        return ~paint_rows(cores.hull[here], slice(start, stop), nx)[::step]

    options = MeshOptions(params.local_bg, interpolation=params.bg_interp)
    local = ready.searched.with_background(measure_background(ready.searched, options, outside))
    return Filtered(local, ready.template, ready.filtered(local, ready.template, sign))


def _parents(ready: Prepared, cores: Cores, footprints: FootprintSet, peaks: Peaks) -> Parents:
    """Grow the cores into footprints; cut those with too many peaks."""
    params, shape = ready.params, ready.searched.shape
    each = np.arange(cores.n)
    alone = Parents.whole(footprints, each)
    if params.grow_merge == "none" or len(ready.half_widths) == 1:
        return alone
    grown = grow_spans(cores.spans, shape, ready.half_widths)
    labels, n = _joined_by_cores(grown, *label_spans(grown), footprints)
    first = footprints.spans[footprints.offsets[:-1]]
    core_parent = labels[SpanIndex.build(grown).find(first[:, 0], first[:, 1])]
    parents = Parents.whole(group_spans(grown, labels, n), core_parent)
    if params.grow_merge == "voronoi":
        seeds = np.ones(cores.n, bool)
    else:
        n_peak = np.bincount(core_parent[peaks.core], minlength=n)
        seeds = (n_peak > (params.max_peaks or np.inf))[core_parent]
    radius = max(len(ready.half_widths) - 1, 2)
    return cut_footprints(parents, footprints, seeds, shape, radius)


def _joined_by_cores(
    grown: NDArray[np.int32], labels: NDArray[np.int64], n: int, cores: FootprintSet
) -> tuple[NDArray[np.int64], int]:
    """Join grown components that hold parts of one core, which unusable pixels keep apart."""
    part = labels[SpanIndex.build(grown).find(cores.spans[:, 0], cores.spans[:, 1])]
    main = np.repeat(part[cores.offsets[:-1]], np.diff(cores.offsets))
    if np.array_equal(part, main):
        return labels, n
    joined, n_joined = edge_labels(main, part, n)
    return joined[labels], n_joined
