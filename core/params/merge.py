"""Options of `coblend merge-detections`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coblend.core.errors import ParameterError
from coblend.core.params.common import MAX_FIELD
from coblend.core.params.field import Checked, option

_DISTANCE = re.compile(
    r"\s*(?:([^=,\s]+)\s*=)?\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(arcsec|px|pixel)?\s*"
)


@dataclass(frozen=True, slots=True)
class MergeParams(Checked):
    """Options of `coblend merge-detections`; see the help of each.

    Preset ``reference``: what the Rubin pipelines' merge does.
    """

    priority: tuple[str, ...] = option(
        (), "Bands, most trusted first; default: the order of the arguments.", shown=True,
        alias="priorityList")  # fmt: skip
    min_new_peak: str = option(
        "1arcsec", "A new peak is farther than this from every existing one; arcsec or px, "
        "-1: never. A band may have its own: 1arcsec,u=1.5arcsec.", shown=True,
        alias="minNewPeak")  # fmt: skip
    max_same_peak: str = option(
        "0.3arcsec", "A peak closer than this to an existing one is the same; -1: never.",
        shown=True, alias="maxSamePeak")  # fmt: skip
    peak_merge: str = option(
        "sequential", "Footprint by footprint as the reference, or all peaks of a band at once.",
        choices=("sequential", "by-band"))  # fmt: skip
    connect: str = option(
        "overlap", "Footprints become one parent when they share a pixel, or touch.",
        choices=("overlap", "touch"))  # fmt: skip
    positions: str = option(
        "integer", "Compare peak pixels, or sub-pixel positions.",
        choices=("integer", "subpixel"))  # fmt: skip
    rank_by: str = option(
        "snr", "What ranks the peaks of a parent.", choices=("snr", "flux", "value"))  # fmt: skip
    cull: bool = option(
        True, "Drop faint peaks of crowded cores that one band alone has seen.", shown=True,
        alias="doCullPeaks")  # fmt: skip
    cull_n_bands: int = option(
        2, "Peaks seen in so many bands stay.", minimum=1, alias="nBandsSufficient")  # fmt: skip
    cull_rank: int = option(
        20, "Peaks of smaller rank stay.", minimum=1, alias="rankSufficient")  # fmt: skip
    cull_rank_considered: int = option(
        30, "Peaks of larger rank go.", minimum=1, alias="rankConsidered")  # fmt: skip
    cull_rank_normalized: float = option(
        0.7, "Peaks ranked from cull_rank to cull_rank_considered go if rank over number of peaks "
        "is larger.", minimum=0.0, maximum=1.0, alias="rankNormalizedConsidered")  # fmt: skip
    cull_count_near: bool = option(
        False, "Bands with a near miss count as having seen a peak.")  # fmt: skip
    cull_family: str = option(
        "core", "Rank among the peaks of a core (connected pixels before growth), or of a "
        "parent.", choices=("core", "parent"))  # fmt: skip
    max_peaks: int = option(
        600, "Parents with more peaks are cut into one per core; 0: never.", minimum=0,
        shown=True)  # fmt: skip
    sky_objects: int = option(
        100, "Sky objects to place in empty places.", minimum=0, shown=True,
        alias="nSources")  # fmt: skip
    sky_radius: int = option(
        8, "Radius of a sky object.", unit="pixel", minimum=1, maximum=64,
        alias="sourceRadius")  # fmt: skip
    sky_trials: int = option(
        5, "Places tried per sky object.", minimum=1, alias="nTrialSkySourcesMultiplier"
    )  # fmt: skip
    sky_avoid_mask: tuple[str, ...] = option(
        ("NO_DATA", "BAD"), "Planes of the exposures of --mask that sky objects avoid."
    )
    footprint_radius: float | None = option(
        None, "Radius of the footprints of catalogues that have none. Default: where a point "
        "source falls below 5 sigma, and 2.4 PSF widths; at least 3.", unit="pixel",
        minimum=1.0, shown=True)  # fmt: skip
    ellipse_scale: float = option(
        3.0, "Footprints of catalogues with a, b and theta are ellipses so many times as large.",
        minimum=0.1)  # fmt: skip
    grow: int = option(
        0, "Growth of the footprints of segmentation images.", unit="pixel", minimum=0,
        maximum=64)  # fmt: skip
    seg_parent: str = option(
        "component", "In a segmentation image a parent is a set of touching labels, or a label.",
        choices=("component", "label"))  # fmt: skip
    max_misfit: float = option(
        0.01, "Largest fraction of labels without a row, or of rows without a label.",
        minimum=0.0, maximum=1.0)  # fmt: skip
    columns: tuple[str, ...] = option(
        (), "Columns of other programs' catalogues, e.g. x=XWIN_IMAGE,y=YWIN_IMAGE."
    )
    origin: int | None = option(
        None, "Number of the first pixel in catalogues with x, y: 0 or 1. Default: what the "
        "program that wrote them uses, 0 if unknown.", minimum=0, maximum=1)  # fmt: skip
    field_id: int | None = option(
        None, "Prefix of all identifiers; default: that of the inputs.", minimum=0,
        maximum=MAX_FIELD)  # fmt: skip
    ignore_wcs: bool = option(False, "Merge although the pixel grids differ.")

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {"rank_by": "value", "cull_family": "parent", "max_peaks": 0}
    }

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        for name in ("min_new_peak", "max_same_peak"):
            distances_of(name, getattr(self, name))
        if self.grow and self.seg_parent == "label":
            raise ParameterError(
                f"option grow is {self.grow}: labels that are parents do not grow into each other",
                hint="give seg_parent=component, or grow=0",
            )
        if len(set(self.priority)) != len(self.priority):
            raise ParameterError(f"option priority names a band twice: {','.join(self.priority)}")


def distances_of(name: str, text: str) -> dict[str, tuple[float, str]]:
    """Read ``1``, ``0.3arcsec``, ``5px`` or ``1arcsec,u=1.5arcsec``.

    Returns
    -------
    dict of str to (float, str)
        Number and unit, ``arcsec`` or ``px``, by band; "" is all the others.

    Raises
    ------
    ParameterError
    """
    out: dict[str, tuple[float, str]] = {}
    for part in str(text).split(","):
        match = _DISTANCE.fullmatch(part)
        try:
            number = float(match[2]) if match else None
        except ValueError:
            number = None
        if match is None or number is None:
            raise ParameterError(
                f"option {name} is {text!r}, expected a distance such as 1arcsec or 5px"
            )
        band = match[1] or ""
        if band in out:
            raise ParameterError(f"option {name} is {text!r}: two distances for one band")
        out[band] = number, "px" if match[3] in ("px", "pixel") else "arcsec"
    if "" not in out:
        raise ParameterError(
            f"option {name} is {text!r}, and the other bands have none",
            hint="begin with the distance of all bands, e.g. 1arcsec,u=1.5arcsec",
        )
    return out
