"""Options of `coblend detect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coblend.core.errors import ParameterError
from coblend.core.params.common import MAX_FIELD
from coblend.core.params.field import Checked, option


@dataclass(frozen=True, slots=True)
class DetectParams(Checked):
    """Options of `coblend detect`; see the help of each.

    Preset ``reference``: what the Rubin pipelines' coadd detection does.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {
            "filter": "conv",
            "edge": "trim",
            "exclude_mask": (),
            "local_bg": 64,
            "wide_bg": 512,
            "plateau": "all",
            "subpixel": False,
            "max_peaks": 0,
            "noise_scale": "reference",
        }
    }

    threshold: float = option(
        5.0, "Pixels of a footprint reach this significance.", unit="sigma", minimum=0.01,
        shown=True, alias="thresholdValue")  # fmt: skip
    peak_threshold: float | None = option(
        None, "A footprint is kept if one pixel reaches this; default: threshold.",
        unit="sigma", minimum=0.01)  # fmt: skip
    polarity: str = option(
        "positive", "Which sign to look for.", choices=("positive", "negative", "both"),
        shown=True, alias="thresholdPolarity")  # fmt: skip
    filter: str = option(
        "matched", "Noise-weighted matched filter, the reference's plain convolution, or none for "
        "images that are filtered already.", choices=("matched", "conv", "none"),
        shown=True)  # fmt: skip
    psf_sigma: float | None = option(
        None, "Filter width; default: adaptive moments of the PSF. FWHM = 2.3548 sigma.",
        unit="pixel", minimum=0.1, shown=True)  # fmt: skip
    kernel_nsigma: float = option(
        7.0, "Full width of the filter in sigma.", minimum=2.0, maximum=20.0,
        alias="nSigmaForKernel")  # fmt: skip
    exclude_mask: tuple[str, ...] = option(
        ("NO_DATA", "BAD"), "Mask planes whose pixels have weight 0, unless they are INTRP "
        "(interpolated) and that is not among these.", shown=True,
        alias="excludeMaskPlanes")  # fmt: skip
    edge: str = option(
        "keep", "Search up to the border, or leave out half a filter there.",
        choices=("keep", "trim"))  # fmt: skip
    min_pixels: int = option(
        1, "Smaller components are dropped before growth.", unit="pixel", minimum=1,
        alias="minPixels")  # fmt: skip
    connectivity: int = option(8, "Neighbours of a pixel, 4 or 8.", minimum=4, maximum=8)
    peak_scales: tuple[float, ...] = option(
        (1.0,), "Filter widths for the peak search in PSF widths, first 1; 1,0.6 for crowded "
        "fields.", minimum=0.2, maximum=2.0, shown=True)  # fmt: skip
    peak_separation: float = option(
        2.0, "Peaks of further scales nearer than this to a kept one are dropped.",
        unit="pixel", minimum=0.0)  # fmt: skip
    plateau: str = option(
        "one", "Peaks per plateau of equal, or of saturated, pixels; all: the reference.",
        choices=("one", "all"))  # fmt: skip
    subpixel: bool = option(True, "Refine positions with a quadratic through 3x3 pixels.")
    grow_nsigma: float = option(
        2.4, "Growth of the footprints in filter widths.", unit="sigma", minimum=0.0,
        shown=True, alias="nSigmaToGrow")  # fmt: skip
    grow: int | None = option(
        None, "Growth in pixels, in place of grow_nsigma.", unit="pixel", minimum=0,
        maximum=64)  # fmt: skip
    grow_shape: str = option("disc", "Shape of the growth.", choices=("disc", "diamond"))
    grow_merge: str = option(
        "merge", "Grown footprints that touch become one; are shared out between their cores; "
        "or do not grow.", choices=("merge", "voronoi", "none"))  # fmt: skip
    max_peaks: int = option(
        600, "Footprints with more peaks are cut into one per core; 0: never.", minimum=0,
        shown=True)  # fmt: skip
    local_bg: int = option(
        0, "Bins of a local background for the peak search; 0: none.", unit="pixel",
        minimum=0)  # fmt: skip
    wide_bg: int = option(
        0, "Bins of a background subtracted for the search only; 0: none.", unit="pixel",
        minimum=0)  # fmt: skip
    bg_mesh: int = option(
        0, "Bins of the background to subtract for good; 0: none.", unit="pixel", minimum=0,
        shown=True)  # fmt: skip
    bg_stat: str = option(
        "clipmean", "Statistic of a bin.", choices=("clipmean", "median", "mode"))  # fmt: skip
    bg_interp: str = option(
        "akima", "Surface through the bins.", choices=("akima", "spline", "linear"))  # fmt: skip
    bg_filter: int = option(1, "Side of a median filter over bins, odd; 1: none.", minimum=1)
    bg_kappa: float = option(3.0, "Clipping limit of a bin.", unit="sigma", minimum=1.0)
    bg_iters: int = option(3, "Rounds of clipping.", minimum=1)
    bg_minfrac: float = option(
        0.1, "Bins with fewer usable pixels are filled from their neighbours.", minimum=0.0,
        maximum=1.0)  # fmt: skip
    var_scale: str = option(
        "pixel", "Scale the variance to the scatter of each pixel, of the image, or not.",
        choices=("pixel", "image", "none"), shown=True)  # fmt: skip
    var_scale_limit: float = option(
        10.0, "Largest scale that is believed.", minimum=1.0, alias="limit")  # fmt: skip
    noise_scale: str = option(
        "map", "Scale the threshold to the scatter of the filtered image; reference: the "
        "inverse ratio.", choices=("map", "none", "reference"), shown=True)  # fmt: skip
    noise_scale_limits: tuple[float, ...] = option(
        (0.1, 10.0), "Smallest and largest scale of the threshold.", minimum=0.001)  # fmt: skip
    max_area: float = option(
        0.6, "Refuse images with a larger fraction of pixels above the threshold.", minimum=0.0,
        maximum=1.0)  # fmt: skip
    field_id: int = option(
        0, "Prefix of all identifiers, for example tract and patch.", minimum=0,
        maximum=MAX_FIELD)  # fmt: skip
    cores: bool = option(True, "Write the ungrown footprints too.")

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if self.peak_threshold is not None and self.peak_threshold < self.threshold:
            raise ParameterError(
                f"peak_threshold {self.peak_threshold:g} is below threshold {self.threshold:g}"
            )
        if self.connectivity not in (4, 8):
            raise ParameterError(f"option connectivity is {self.connectivity}; allowed: 4, 8")
        if not self.peak_scales or self.peak_scales[0] != 1.0:
            raise ParameterError(f"option peak_scales is {self.peak_scales}; the first must be 1")
        if self.filter == "none" and len(self.peak_scales) > 1:
            raise ParameterError("option peak_scales needs a filter, and filter is none")
        if self.bg_filter % 2 == 0:
            raise ParameterError(f"option bg_filter is {self.bg_filter}; it must be odd")
        if len(self.noise_scale_limits) != 2 or not (
            self.noise_scale_limits[0] <= 1 <= self.noise_scale_limits[1]
        ):
            raise ParameterError(
                f"option noise_scale_limits is {self.noise_scale_limits}; give two numbers, "
                "at most 1 and at least 1"
            )
