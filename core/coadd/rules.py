"""How samples are chosen and combined: the options in the form that the pixel loops use."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.mask import STANDARD, MaskPlanes
from coblend.core.params.coadd import CoaddParams

CLIPPING = ("meanclip", "varianceclip", "stdevclip", "nclipped")
"""Statistics of the samples inside the clip window."""

SQUARES = ("variance", "varianceclip", "meansquare")
"""Statistics in the square of the unit of the samples."""
SPREADS = ("stdev", "stdevclip", "iqrange")
"""Statistics in the unit of the samples that are no fluxes."""
COUNTS = ("npoint", "nmasked", "nclipped")
"""Statistics without a unit."""

INTERPOLABLE = ("mean", "meanclip", "median", "variance", "varianceclip")
"""Statistics whose missing pixels may be filled from their neighbours."""


@dataclass(frozen=True, slots=True)
class StackRules:
    """Rules of one coadd.

    Parameters
    ----------
    statistic, variance : str
        As in `CoaddParams`.
    sigma_clip : float
    clip_iter : int
    clip_scale : str
    clip_amplitude : float
    bad : int
        Bits that exclude a sample.
    ignored : int
        Bits of the inputs that count for nothing.
    thresholds : tuple of (int, float)
        Bits, each with the weight fraction above which rejected samples set it.
    planes : MaskPlanes
        Names of the bits, of inputs and output.
    pixel_weights : bool
        Whether samples weigh ``1/variance`` instead of one weight per input.
    """

    statistic: str = "mean"
    variance: str = "input"
    sigma_clip: float = 3.0
    clip_iter: int = 2
    clip_scale: str = "scatter"
    clip_amplitude: float = 0.0
    bad: int = 0
    ignored: int = 0
    thresholds: tuple[tuple[int, float], ...] = ()
    planes: MaskPlanes = STANDARD
    pixel_weights: bool = False

    @classmethod
    def of(cls, params: CoaddParams, planes: MaskPlanes = STANDARD) -> StackRules:
        """Resolve the options against the planes of the inputs.

        With artifact rejection ``CLIPPED`` excludes a sample and ``EDGE`` is ignored.

        Raises
        ------
        ParameterError
            For a plane that nobody knows.
        """
        planes.value([params.bright_plane])
        compares = params.reject == "compare-warp"
        ignored = planes.value(params.remove_planes)
        bad = planes.value(params.bad_planes)
        if compares:
            ignored |= planes.value(["EDGE"])
            bad |= planes.value(["CLIPPED"])
        thresholds = {
            planes.value([name]) & ~ignored: fraction
            for name, fraction in params.thresholds().items()
        }
        return cls(
            statistic=(
                params.statistic
                if params.statistic != "auto"
                else "mean"
                if compares
                else "meanclip"
            ),
            variance=params.variance,
            sigma_clip=params.sigma_clip,
            clip_iter=params.clip_iter,
            clip_scale=params.clip_scale,
            clip_amplitude=params.clip_amplitude,
            bad=bad & ~ignored,
            ignored=ignored,
            thresholds=tuple((bit, f) for bit, f in thresholds.items() if bit and f < 1),
            planes=planes,
            pixel_weights=params.weight == "pixel",
        )

    @property
    def clips(self) -> bool:
        """Whether samples outside a window are left out."""
        return self.statistic in CLIPPING

    @property
    def needs_scatter(self) -> bool:
        """Whether the variance among the samples is needed."""
        mean = self.statistic in ("mean", "meanclip", "median") and self.variance == "scatter"
        return mean or self.statistic in (
            "variance", "stdev", "varianceclip", "stdevclip", "meansquare",
        )  # fmt: skip

    @property
    def sums(self) -> tuple[str, ...]:
        """Sums over the samples that the statistic is made of: names of `Sums`."""
        if self.needs_scatter:
            return "w", "w2", "s1", "s2"
        if self.statistic not in ("mean", "meanclip", "sum"):
            return ("w",)
        error = {"input": ("error",), "mosaic": ("mosaic",)}
        return "w", "s1", *error.get(self.variance, ())
