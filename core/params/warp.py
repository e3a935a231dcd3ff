"""Options of `warp`."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.params.field import Checked, compress_option, option


@dataclass(frozen=True, slots=True)
class WarpParams(Checked):
    """How an exposure is resampled."""

    like: str = option("", "File whose pixel grid the warp gets.", shown=True)
    kernel: str = option(
        "lanczos3",
        "Interpolation kernel.",
        choices=("lanczos3", "bilinear"),
        shown=True,
        alias="warpingKernelName",
    )
    border: int = option(
        0,
        "Pixels kept around the grid of --like, for a later convolution.",
        unit="pixel",
        minimum=0,
        maximum=10000,
        shown=True,
    )
    bad_planes: tuple[str, ...] = option(
        ("NO_DATA", "BAD", "CR"),
        "Mask planes whose pixels count as missing unless they were interpolated (INTRP); others "
        "are only flagged.",
    )
    interp_length: int = option(
        10,
        "Spacing of the positions that are computed exactly.",
        unit="pixel",
        minimum=1,
        maximum=1000,
        alias="interpLength",
    )
    psf_step: int = option(
        256, "Spacing of the nodes of the warped PSF.", unit="pixel", minimum=16, maximum=100000
    )
    compress: str = compress_option()
