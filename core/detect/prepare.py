"""Before the search: filter width, backgrounds, filtered map and its calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.detect.background import MeshOptions, measure_background
from coblend.core.detect.filtering import Template, snr_map
from coblend.core.detect.growth import growth_radius, stencil
from coblend.core.detect.identifiers import check_grid
from coblend.core.detect.mesh import Mesh
from coblend.core.detect.noise import (
    Noise,
    measure_noise,
    outside_detections,
    trusted_variance_scale,
)
from coblend.core.detect.pixels import Pixels
from coblend.core.errors import FormatError, ParameterError
from coblend.core.exposure import Exposure
from coblend.core.params.detect import DetectParams
from coblend.core.psf.base import Psf
from coblend.core.psf.moments import adaptive_moments

MIN_USABLE = 0.005
"""Smallest fraction of usable pixels."""
SMALLEST = 16
"""Narrower images, if a PSF does not fit into them, are to blame, not the PSF (pixel)."""
CELLS = 5
"""Cells along each axis in which the width of a varying PSF is measured."""
DOUBTFUL = 2.0
"""Scale of the noise above which the background may be what scatters."""
MAX_NOISE_SPREAD = 0.2
"""Spread of the noise over the image above which one threshold is doubtful."""
PEDESTAL = 1.0
"""Median of the empty sky, in sigma of the map, beyond which it is no sky: faint sources raise it
to 0.3 in crowded fields."""
MAX_SPREAD = 0.1
"""Relative range of the PSF's width above which each cell is filtered with its own."""
EMPTY = 0.7
"""The noise is measured outside detections above this fraction of the threshold. At 0.5 they take
so many noise peaks with them that the scatter comes out 2.6 % too small, at 0.7 0.3 %."""
GIVE_PSF = "give --psf moffat:fwhm=4.2 or x.psf, or --psf-sigma PIXELS (FWHM / 2.3548)"


@dataclass(frozen=True, slots=True)
class Scale:
    """Calibration: ``variance`` of the plane, ``noise`` of the threshold."""

    variance: float
    noise: float

    @property
    def unit(self) -> float:
        """Value in the map of one sigma of the rescaled variance."""
        return float(self.variance**0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What the search reads.

    Parameters
    ----------
    exposure : Exposure
    params : DetectParams
    flat : Pixels
        Less the background that is subtracted for good.
    searched : Pixels
        Less the wide background too.
    background : Mesh or None
        The one subtracted for good.
    widths : array, shape (n_y, n_x), float64
        Filter width in each cell of the image, pixel; one cell where one width serves all.
    template : Template
        Of these widths.
    half_widths : array
        Stencil of the growth.
    noise : Noise
    scale : Scale
    threads : int
    warnings : tuple of str
    """

    exposure: Exposure
    params: DetectParams
    flat: Pixels
    searched: Pixels
    background: Mesh | None
    widths: NDArray[np.float64]
    template: Template
    half_widths: NDArray[np.int64]
    noise: Noise
    scale: Scale
    threads: int
    warnings: tuple[str, ...]

    @property
    def level(self) -> float:
        """Threshold on the map."""
        return self.params.threshold * self.scale.noise * self.scale.unit

    @property
    def sigma(self) -> float:
        """Typical filter width, pixel."""
        return float(np.median(self.widths))

    def filtered(self, pixels: Pixels, template: Template, sign: int) -> NDArray[np.float32]:
        """Map of other pixels or another template, times ``sign``."""
        snr = snr_map(pixels, template, self.threads)
        return np.negative(snr, out=snr) if sign < 0 else snr


def prepare(
    exposure: Exposure, params: DetectParams, threads: int = 1
) -> tuple[Prepared, NDArray[np.float32]]:
    """Choose the filter, subtract backgrounds, filter and calibrate; also return the map.

    Raises
    ------
    FormatError, ParameterError
        As `coblend.core.detect.search.detect`.
    """
    check_grid(exposure.box)
    widths, warnings = filter_widths(exposure, params)
    sigma = float(np.median(widths))
    flat = Pixels.of(exposure, params.exclude_mask)
    check_usable(flat)
    radius = growth_radius(sigma, params.grow_nsigma) if params.grow is None else params.grow
    half_widths = stencil(radius, params.grow_shape)
    if params.filter == "none":
        template = Template(np.ones((1, 1, 1)))
    else:
        template = Template.gaussian(widths, params.kernel_nsigma, params.filter == "matched")
    background = None
    if params.bg_mesh:
        background = masked_background(flat, params, template, sigma, half_widths, threads)
        flat = flat.with_background(background)
    searched = flat
    if params.wide_bg and min(flat.shape) >= params.wide_bg:
        wide = MeshOptions(params.wide_bg, interpolation=params.bg_interp)
        searched = flat.with_background(measure_background(flat, wide))
    snr = snr_map(searched, template, threads)
    level = max(EMPTY * params.threshold, 3.0)
    noise = measure_noise(searched, snr, level, sigma, half_widths)
    scale, notes = calibrate(noise, params)
    if params.filter != "none" and "CHI2BAND" in exposure.meta:
        notes = ["a chi2 coadd is filtered already: give --filter none"]
    ready = Prepared(
        exposure, params, flat, searched, background, widths, template, half_widths, noise, scale,
        threads, (*warnings, *notes),
    )  # fmt: skip
    return ready, snr


def psf_widths(psf: Psf, box: Box) -> NDArray[np.float64]:
    """Widths of a PSF over a field: its adaptive moments in the middle of equal cells.

    This width is the Gaussian filter of largest significance; unweighted moments are too wide
    by up to 70 % for PSFs with wings.

    Returns
    -------
    array, shape (n_y, n_x), float64
        Pixel; one cell where they differ little. A cell where the PSF is unknown gets the
        median of the others.

    Raises
    ------
    FormatError
        It is unknown everywhere.
    """
    n = 1 if psf.constant else CELLS
    y, x = (
        start + (np.arange(n) + 0.5) * size / n - 0.5
        for start, size in ((box.y0, box.ny), (box.x0, box.nx))
    )
    grid_y, grid_x = (g.ravel() for g in np.meshgrid(y, x, indexing="ij"))
    stamps = psf.at_many(grid_y, grid_x)
    known = np.isfinite(stamps).all((1, 2))
    if not known.any():
        raise FormatError("the PSF is unknown on all of the image", hint=GIVE_PSF)
    widths = np.empty(n * n)
    widths[known] = adaptive_moments(stamps[known]).sigma
    middle = np.median(widths[known])
    widths[~known] = middle
    return (
        widths.reshape(n, n) if np.ptp(widths) > MAX_SPREAD * middle else np.full((1, 1), middle)
    )


def filter_widths(
    exposure: Exposure, params: DetectParams
) -> tuple[NDArray[np.float64], list[str]]:
    """Filter width of each cell in pixels, and what to warn about."""
    if params.psf_sigma is not None:
        widths = np.full((1, 1), params.psf_sigma)
    elif exposure.psf is not None:
        widths = psf_widths(exposure.psf, exposure.box)
    else:
        raise FormatError("the exposure has no PSF", hint=GIVE_PSF)
    low, high, limit = float(widths.min()), float(widths.max()), min(exposure.box.shape) / 8
    if high > limit:
        if min(exposure.box.shape) < SMALLEST:
            raise FormatError(
                f"an image of {exposure.box.nx}x{exposure.box.ny} pixels is too small to search: "
                f"its sides have to be 8 times the PSF sigma of {high:.3g} px"
            )
        raise ParameterError(
            f"the PSF sigma is {high:.3g} px, at most {limit:.3g} (an eighth of the image)",
            hint=f"check the PSF, or {GIVE_PSF}",
        )
    undersampled = f"PSF sigma {low:.2f} px: the image is undersampled"
    return widths, [undersampled] if low < 0.5 else []


def check_usable(pixels: Pixels) -> None:
    """Refuse an image that has hardly any usable pixel."""
    total = pixels.shape[0] * pixels.shape[1]
    if pixels.n_usable < max(MIN_USABLE * total, 1):
        raise FormatError(
            f"only {pixels.n_usable} of {total} pixels are usable",
            hint="check VARIANCE and the planes of --exclude-mask",
        )


def masked_background(
    pixels: Pixels,
    params: DetectParams,
    template: Template,
    sigma: float,
    half_widths: NDArray[np.int64],
    threads: int,
) -> Mesh:
    """Background measured twice, the second time outside grown 3-sigma detections."""
    options = MeshOptions(
        params.bg_mesh, params.bg_stat, params.bg_interp, params.bg_filter, params.bg_kappa,
        params.bg_iters, params.bg_minfrac,
    )  # fmt: skip
    first = measure_background(pixels, options)
    searched = pixels.with_background(first)
    snr = snr_map(searched, template, threads)
    noise = measure_noise(searched, snr, 3.0, sigma, half_widths)
    level = 3.0 * (noise.map_sigma if np.isfinite(noise.map_sigma) else 1.0)
    return measure_background(pixels, options, outside_detections(snr, level, half_widths))


def calibrate(noise: Noise, params: DetectParams) -> tuple[Scale, list[str]]:
    """Scales to use, and what to warn about."""
    if not np.isfinite(noise.map_sigma):
        asked = (params.var_scale, params.noise_scale) != ("none", "none")
        note = (
            f"noise in only {noise.n_pixel} pixels without sources: VARIANCE is taken as it is; "
            "if the background is not subtracted, give --bg-mesh 128"
        )
        return Scale(1.0, 1.0), [note] if asked else []
    notes = []
    offset = noise.map_median / noise.map_sigma
    if abs(offset) > PEDESTAL:
        notes.append(
            f"the empty sky is at {offset:.3g} sigma of the filtered image: if the background is "
            "not subtracted, give --bg-mesh 128"
        )
    variance = 1.0
    if params.var_scale != "none":
        by_pixel = params.var_scale == "pixel"
        variance = trusted_variance_scale(noise, params.var_scale_limit, by_pixel)
    if params.noise_scale == "none":
        return Scale(variance, 1.0), notes
    measured = noise.map_sigma / variance**0.5
    measured = 1 / measured if params.noise_scale == "reference" else measured
    low, high = params.noise_scale_limits
    used = float(np.clip(measured, low, high))
    if max(variance, used) > DOUBTFUL:
        notes.append(
            f"more scatter than VARIANCE says (variance scale {variance:.2f}, noise scale "
            f"{used:.2f}): if the background is not subtracted, give --bg-mesh 128"
        )
    if noise.spread > MAX_NOISE_SPREAD:
        notes.append(
            f"the noise varies by {noise.spread:.0%} over the image (table NOISE); one threshold "
            "serves all"
        )
    if used != measured:
        notes.append(f"noise scale {measured:.3g} is outside {low:g} to {high:g}: used {used:g}")
    return Scale(variance, used), notes
