"""Options of `assemble-coadd`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coblend.core.errors import ParameterError
from coblend.core.params.field import Checked, compress_option, option

STATISTICS = (
    "mean",
    "meanclip",
    "median",
    "variance",
    "stdev",
    "varianceclip",
    "stdevclip",
    "meansquare",
    "iqrange",
    "min",
    "max",
    "sum",
    "npoint",
    "nmasked",
    "nclipped",
)
"""Statistics that can be stacked: the reference system's names in lower case."""


@dataclass(frozen=True, slots=True)
class CoaddParams(Checked):
    """How warps are scaled, weighted and combined."""

    kind: str = option(
        "stack",
        "stack: warps of one band; chi2: coadds of several bands into one for detection.",
        choices=("stack", "chi2"),
        shown=True,
    )
    statistic: str = option(
        "auto",
        "Statistic of the samples of a pixel; auto: mean with artifact rejection, else meanclip.",
        choices=("auto", *STATISTICS),
        shown=True,
    )
    like: str = option(
        "",
        "File whose pixels the coadd gets, or a section of it: FILE[x1:x2,y1:y2]; default: all "
        "that the warps cover.",
        shown=True,
    )
    sigma_clip: float = option(
        3.0,
        "Half width of the clip window in standard deviations.",
        minimum=0.1,
        shown=True,
        alias="sigmaClip",
    )
    clip_iter: int = option(
        2, "Iterations of the clip window.", minimum=1, maximum=100, shown=True, alias="clipIter"
    )
    clip_scale: str = option(
        "input",
        "Width of the clip window: from the variances of the samples, or from their scatter, "
        "which needs no true variance but cuts the cores of stars when the seeing varies.",
        choices=("scatter", "input"),
    )
    clip_amplitude: float = option(
        0.3,
        "With clip_scale=input: further half width as a fraction of the median, so that the cores "
        "of stars survive changes of the seeing.",
        minimum=0,
        maximum=10,
    )
    variance: str = option(
        "input",
        "Variance from the inputs' planes, from the scatter of samples of like noise, or for "
        "fully correlated inputs.",
        choices=("input", "scatter", "mosaic"),
    )
    weight: str = option(
        "mean-variance",
        "Weight of an input: one over its mean variance, one over the variance of each pixel, "
        "equal, or the column weight of a table of inputs (@TABLE).",
        choices=("mean-variance", "pixel", "none", "column"),
        shown=True,
    )
    bad_planes: tuple[str, ...] = option(
        ("NO_DATA", "BAD", "SAT", "EDGE"),
        "Mask planes that exclude a sample.",
        shown=True,
        alias="badMaskPlanes",
    )
    remove_planes: tuple[str, ...] = option(
        ("NOT_DEBLENDED",),
        "Mask planes of the inputs that are ignored.",
        alias="removeMaskPlanes",
    )
    propagate: tuple[str, ...] = option(
        ("SAT=0.1",),
        "PLANE=FRACTION: set a plane where rejected samples that have it carry more than that "
        "fraction of the weight.",
        alias="maskPropagationThresholds",
    )
    unit: str = option(
        "input", "Unit of the coadd: input, nJy or zp=MAG.", shown=True, alias="modelZeroPoint"
    )
    reject: str = option(
        "none",
        "Artifact rejection: compare-warp compares the PSF-matched warps with their template.",
        choices=("none", "compare-warp"),
        shown=True,
    )
    psf_matched: tuple[str, ...] = option(
        (), "PSF-matched warps for compare-warp, in the order of the warps; @list.", shown=True
    )
    artifact_threshold: float = option(
        7.5, "Significance of an artifact's pixels.", unit="sigma", minimum=1,
    )  # fmt: skip
    faint_artifacts: bool = option(
        False,
        "Look for faint wide artifacts too, in differences smoothed by the PSF: trails, ghosts.",
    )
    max_epochs: int = option(
        2, "Epochs that may differ at one place.", minimum=0, alias="maxNumEpochs"
    )
    max_fraction_low: float = option(
        0.4,
        "Where few epochs see a place, at most this fraction of them may differ there.",
        minimum=0,
        maximum=1,
        alias="maxFractionEpochsLow",
    )
    max_fraction_high: float = option(
        0.03,
        "Where many epochs see a place, this fraction of them may differ besides max_epochs.",
        minimum=0,
        maximum=1,
        alias="maxFractionEpochsHigh",
    )
    spatial_threshold: float = option(
        0.5,
        "Least part of an artifact's area where no more epochs differ than max_epochs and its "
        "fractions allow.",
        minimum=0,
        maximum=1,
        alias="spatialThreshold",
    )
    protect_threshold: float = option(
        300.0,
        "Sources of this significance are not clipped where epochs differ by less than 30 %.",
        unit="sigma",
        minimum=1,
    )
    streaks: bool = option(
        False,
        "Follow long straight artifacts across the warp, where they are too faint to be found.",
        alias="doFilterMorphological",
    )
    template: str = option("", "File for the template of compare-warp.")
    artifact_masks: str = option(
        "",
        "Files for the artifact masks (CLIPPED, NO_DATA) of compare-warp; {name} stands for the "
        "name of the warp.",
    )
    interp: bool = option(
        True,
        "Fill pixels without data from their row; they keep NO_DATA and get INTRP.",
        alias="doInterp",
    )
    input_map: bool = option(
        False, "Record which inputs were used in every pixel, for exact PSFs.",
        alias="doInputMap",
    )  # fmt: skip
    bright_objects: str = option(
        "",
        "DS9 region file, or FITS table with ra, dec, radius, of bright objects.",
        shown=True,
    )
    bright_plane: str = option("BRIGHT_OBJECT", "Mask plane of bright objects.")
    zp_interp: str = option(
        "linear",
        "How scales measured at points of an input (table ZPGRID) are spread over it.",
        choices=("constant", "linear", "poly2"),
    )
    psf_step: int = option(
        256, "Spacing of the coadd's PSF cells.", unit="pixel", minimum=16, maximum=100000
    )
    compress: str = compress_option()

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"reference": {"clip_scale": "scatter"}}

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        self.thresholds()
        self.zero_point()

    def thresholds(self) -> dict[str, float]:
        """Weight fraction by plane, from ``propagate``.

        Raises
        ------
        ParameterError
            For an entry that is not ``PLANE=FRACTION`` with a fraction from 0 to 1.
        """
        out = {}
        for entry in self.propagate:
            name, _, text = entry.partition("=")
            try:
                fraction = float(text)
            except ValueError:
                fraction = -1.0
            if not 0 <= fraction <= 1:
                raise ParameterError(
                    f"propagate: {entry!r} is not PLANE=FRACTION with a fraction from 0 to 1"
                )
            out[name] = fraction
        return out

    def zero_point(self) -> float | None:
        """Zero point of the coadd (AB mag); None keeps that of the inputs.

        Raises
        ------
        ParameterError
            For a unit that is none of ``input``, ``nJy``, ``zp=MAG``.
        """
        if self.unit == "input":
            return None
        if self.unit.lower() == "njy":
            return NANOJANSKY
        try:
            if self.unit.startswith("zp="):
                return float(self.unit[3:])
        except ValueError:
            pass
        raise ParameterError(f"unit is {self.unit!r}; allowed: input, nJy, zp=MAG")


NANOJANSKY = 31.4
"""AB zero point of fluxes in nJy: 2.5 log10(1e9 1e23 10**(-48.6 / 2.5))."""
