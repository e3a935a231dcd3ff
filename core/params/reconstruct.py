"""Options of ``coblend reconstruct-footprints``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coblend.core.params.field import Checked, compress_option, option


@dataclass(frozen=True, slots=True)
class ReconstructParams(Checked):
    """How models become footprints with light in every band."""

    kind: str = option(
        "flux",
        "What a footprint holds: the image's light, shared in proportion to the models, or the "
        "models themselves as the band sees them.",
        choices=("flux", "model"),
        shown=True,
    )
    weights: str = option(
        "positive",
        "How light is shared: non-negative weights that sum to 1, or the absolute values of the "
        "reference system, which do not conserve flux.",
        choices=("positive", "reference"),
        shown=True,
    )
    stray: str = option(
        "none",
        "Who gets footprint pixels that no model reaches: nobody, the nearest peak, or all "
        "objects with weights 1/(1 + r^2).",
        choices=("none", "nearest", "r-to-peak"),
        shown=True,
    )
    neighbours: bool = option(
        False,
        "Leave to the objects of other parents the light of their wings.",
        shown=True,
    )
    blend: tuple[int, ...] = option(
        (), "Only these blends: ids of them, of their parents or of their objects.", shown=True
    )
    source: tuple[int, ...] = option(
        (), "Only the parents that hold these objects (ids).", shown=True
    )
    heavy: str = option(
        "", "Write the pixels of every footprint to this file, e.g. '{band}.heavy.fits'.",
        shown=True,
    )  # fmt: skip
    residual: str = option(
        "", "Write image minus models to this file, e.g. '{band}.residual.fits'.", shown=True
    )
    model_image: str = option(
        "", "Write the rendered models to this file, e.g. '{band}.model.fits'.", shown=True
    )
    cutout: str = option(
        "",
        "Write observed, model, residual and single-object images of one blend to this file.",
        shown=True,
    )
    flux_error: float = option(
        0.02,
        "Largest rounding of a heavy pixel in units of the noise; 0 stores the exact values.",
        minimum=0.0,
        maximum=1.0,
    )
    spans: bool = option(False, "Add a table of explicit spans to heavy files.")
    kernel: str = option(
        "stored",
        "Whose PSFs make the kernels: those stored with the models, or those of the exposures. "
        "One given with --psf is used in any case.",
        choices=("stored", "recompute"),
    )
    kernel_reg: float | None = option(
        None,
        "Regularisation of the difference kernels; unset: the one of the fit.",
        minimum=0.0,
        maximum=1.0,
    )
    min_ratio: float = option(
        0.0, "Shares below this are given to the others.", minimum=0.0, maximum=0.5
    )
    bad_mask: tuple[str, ...] = option(
        ("BAD", "NO_DATA", "SAT", "SUSPECT", "EDGE"),
        "Mask planes that make a pixel bad.",
        alias="badMask",
    )
    fill_bad: str = option(
        "keep",
        "What bad pixels hold: the image's value (of a bleed trail its star gets what the models "
        "do not explain), the model's, or zero.",
        choices=("keep", "model", "zero"),
    )
    mask_footprint: bool = option(
        True, "Confine objects to the footprint of their parent.", alias="maskFootprint"
    )
    metrics: str = option(
        "model",
        "Where overlap is measured: in the models, or in the image that the band sees.",
        choices=("model", "observed"),
    )
    compress: str = compress_option()
    allow_partial: bool = option(
        False, "Accept exposures that do not cover all parents; the rest has no data."
    )
    ignore_units: bool = option(False, "Accept exposures in another unit than the models.")
    keep_going: bool = option(
        False, "Skip damaged blends instead of stopping; they are flagged as corrupt."
    )

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {"weights": "reference", "kernel_reg": 0.0}
    }
