"""Options of `psf-match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from coblend.core.errors import ParameterError
from coblend.core.params.field import Checked, compress_option, option


@dataclass(frozen=True, slots=True)
class MatchParams(Checked):
    """How a PSF is matched to a reference and the kernel applied."""

    reference: str | None = option(
        None,
        "PSF to reach: FILE[HDU], gaussian:fwhm=5.5, moffat:fwhm=4.2,beta=3, "
        "double-gaussian:fwhm=7.7, or auto for the narrowest Moffat that all inputs reach.",
        shown=True,
    )
    psf: str | None = option(
        None, "[BAND=]SPEC: PSF of the exposure, instead of the one in its file.", shown=True
    )
    psf_frame: str = option(
        "parent",
        "Pixels in which a PSFEx model counts: of the parent image, or of the file's own array.",
        choices=("parent", "array"),
    )
    method: str = option(
        "delta",
        "Kernel family: one unknown per pixel, Gaussians times polynomials, or more of these.",
        choices=("delta", "al", "al-extended"),
        shown=True,
    )
    kernel_size: int = option(
        0,
        "Side of the kernel, odd; 0: about 8 FWHM of the reference (21 for al).",
        unit="pixel",
        minimum=0,
        shown=True,
        alias="kernelSize",
    )
    tolerance: float = option(
        1e-3,
        "Largest residual over the peak of the reference that is aimed at.",
        minimum=1e-9,
        maximum=1,
        shown=True,
    )
    regularization: float | None = option(
        None, "Strength of the ridge; unset: the largest that meets the tolerance.", minimum=0
    )
    alpha: float = option(30.0, "Growth of the ridge towards the kernel's border.", minimum=0)
    spatial_order: int | None = option(
        None,
        "Order of the spatial variation; unset: as high as the PSF needs.",
        minimum=0,
        maximum=8,
        shown=True,
        alias="spatialKernelOrder",
    )
    nodes: int = option(
        6, "Nodes along an axis at which kernels are solved, to start with.", minimum=2, maximum=12
    )
    rank_tolerance: float = option(
        1e-3, "What the principal images may leave of the kernels.", minimum=0, maximum=1
    )
    max_rank: int = option(12, "Most principal images besides the mean.", minimum=1)
    kernel_sum: float = option(
        1.0,
        "Factor that scales the image (its variance by the square).",
        minimum=1e-6,
        shown=True,
        alias="kernelSum",
    )
    deconvolution: str = option(
        "warn",
        "When the reference is sharper than the PSF: match in part and warn, refuse, or match.",
        choices=("warn", "error", "allow"),
        shown=True,
    )
    max_noise_gain: float = option(
        1.0, "Largest sum of the kernel squared, unless deconvolution is allowed.", minimum=1e-6
    )
    max_gain: float = option(
        3.0, "Largest gain at any frequency, unless deconvolution is allowed.", minimum=1
    )
    bad_planes: tuple[str, ...] = option(
        ("NO_DATA", "BAD"),
        "Mask planes whose pixels count as missing unless they were interpolated (INTRP); others "
        "are only flagged.",
    )
    fill: str = option(
        "interpolate",
        "Missing pixels: filled where they matter little, or all lost that a kernel can reach.",
        choices=("interpolate", "nan"),
    )
    max_missing: float = option(
        0.1,
        "Fraction of the kernel that may fall on missing pixels.",
        minimum=0,
        maximum=1,
        shown=True,
    )
    mask_spread: str = option(
        "significant",
        "How far mask planes grow: where the kernel matters, over its whole side, or not.",
        choices=("significant", "full", "none"),
    )
    mask_spread_threshold: float = option(
        0.01, "Fraction of the kernel's peak that matters.", minimum=0, maximum=1
    )
    no_spread_planes: tuple[str, ...] = option(
        ("DETECTED", "DETECTED_NEGATIVE"), "Mask planes that never grow."
    )
    noise_acf: str | None = option(None, "FILE[HDU] with the autocorrelation of the input noise.")
    recenter_psf: bool = option(False, "Shift the stamps of the PSF onto their central pixel.")
    region_map: str | None = option(
        None, "FILE[HDU] with an integer image of regions that are matched one by one."
    )
    al_sigmas: tuple[float, ...] = option(
        (0.7, 1.5, 3.0), "Widths of the Gaussians (al).", unit="pixel", alias="alardSigGauss",
        minimum=1e-3,
    )  # fmt: skip
    al_degrees: tuple[int, ...] = option(
        (4, 2, 2), "Degree of the polynomial of each Gaussian (al).", alias="alardDegGauss",
        minimum=0, maximum=8,
    )  # fmt: skip
    reference_fit: bool = option(
        False,
        "Fit as the reference system does: inside the stamps only, first coefficient overwritten.",
    )
    auto_pad_psf: bool = option(
        True, "Pad the stamps to the kernel (reference_fit).", alias="doAutoPadPsf"
    )
    auto_pad_psf_to: float = option(
        1.4, "Side of the padded stamps over that of the kernel (reference_fit).", minimum=1,
        maximum=2, alias="autoPadPsfTo",
    )  # fmt: skip
    pad_psf_by: int = option(
        0, "Pixels by which to pad the stamps when not automatic, even (reference_fit).",
        minimum=0, alias="padPsfBy", unit="pixel",
    )  # fmt: skip
    cell_size: int = option(
        128, "Side of the cells whose centres are the nodes (reference_fit).", minimum=32,
        alias="sizeCellX", unit="pixel",
    )  # fmt: skip
    save_kernel: str | None = option(None, "Write the kernel to this file.", shown=True)
    save_nodes: str | None = option(None, "Write the table of nodes to this file.", shown=True)
    apply_kernel: str | None = option(
        None, "Apply the kernel of this file instead of solving for one.", shown=True
    )

    compress: str = compress_option()

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "reference": {
            "method": "al",
            "kernel_size": 21,
            "spatial_order": 2,
            "reference_fit": True,
            "deconvolution": "allow",
            "fill": "nan",
            "mask_spread": "full",
            "no_spread_planes": (),
            "bad_planes": ("NO_DATA",),
        }
    }

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if self.kernel_size and (self.kernel_size % 2 == 0 or self.kernel_size < 3):
            raise ParameterError(
                f"option kernel_size is {self.kernel_size}; a kernel has an odd side of 3 or more",
                hint=f"the next valid sizes are {max(3, self.kernel_size - 1)} and "
                f"{max(5, self.kernel_size + 1)}",
            )
        if len(self.al_sigmas) != len(self.al_degrees) or not self.al_sigmas:
            raise ParameterError(
                f"al_sigmas {self.al_sigmas} and al_degrees {self.al_degrees} differ in number"
            )
        if self.pad_psf_by % 2:
            raise ParameterError(f"option pad_psf_by is {self.pad_psf_by}; it must be even")
        if self.reference_fit and self.method != "al":
            raise ParameterError(f"reference_fit needs method al, not {self.method}")

    def require_reference(self, hint: str) -> None:
        """Refuse to match to nothing, or to two things.

        Raises
        ------
        ParameterError
        """
        if bool(self.reference) == bool(self.apply_kernel):
            raise ParameterError("give either --reference or --apply-kernel", hint=hint)
