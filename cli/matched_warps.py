"""The PSF-matched warps of ``--reject compare-warp``: one for each warp, all of one PSF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coblend.cli.coadd_inputs import Field, PlacedWarp, open_warps
from coblend.cli.run import Run
from coblend.core.coadd.rules import StackRules
from coblend.core.errors import FormatError, ParameterError
from coblend.core.params.coadd import CoaddParams
from coblend.core.psf.resample import largest_difference
from coblend.io.coadd.inputs import Listed, read_lists
from coblend.io.coadd.warps import header_float


def matched_warps(
    direct: Field, params: CoaddParams, run: Run, partners: Sequence[str], ids: Sequence[str]
) -> Field:
    """Open the PSF-matched warps and check that they are those of the warps."""
    if not partners:
        raise ParameterError(
            "compare-warp needs the PSF-matched warps",
            hint="pass --psf-matched @LIST, in the order of the warps",
        )
    files = open_warps(_in_order(read_lists(partners), ids))
    if len(files) != len(direct.warps):
        raise ParameterError(
            f"{len(files)} PSF-matched warps for {len(direct.warps)} warps; expected one for each"
        )
    field = direct.partners(files, params, run)
    for own, other in zip(field.warps, direct.warps, strict=True):
        _require_partners(own, other)
    _require_one_psf(field)
    rules = StackRules(
        statistic="meanclip",
        sigma_clip=2.5,
        clip_iter=3,
        bad=field.rules.planes.value(["NO_DATA"]),
        planes=field.rules.planes,
    )
    return replace(field, rules=rules)


def _in_order(partners: Sequence[Listed], ids: Sequence[str]) -> Sequence[Listed]:
    """PSF-matched warps in the order of the warps: by their ids, where both lists have them."""
    by_id = {entry.id: entry for entry in partners}
    if not partners or not all((*by_id, *ids)):
        return partners
    unpaired = sorted({*by_id}.symmetric_difference(ids))
    if unpaired or len(by_id) < len(partners):
        raise ParameterError(
            f"the ids of warps and PSF-matched warps do not pair: {', '.join(unpaired)}"
            if unpaired
            else "several PSF-matched warps have one id"
        )
    return [by_id[own] for own in ids]


def _require_partners(own: PlacedWarp, other: PlacedWarp) -> None:
    """Refuse a PSF-matched warp that cannot be made of the warp in its place."""
    path, partner = own.file.info.path, other.file.info.path
    if other.box.area and not (own.box & other.box).area:
        raise FormatError(f"does not overlap {partner}, its partner", path)
    for keys in (("MJD-AVG", "MJD-OBS", "MJD"), ("EXPTIME",)):
        a, b = (header_float(warp.file.info.header, *keys) for warp in (own, other))
        if abs(a - b) > _SAME * abs(b):
            raise FormatError(
                f"{keys[0]} is {a:.10g}, but {partner}, its partner, has {b:.10g}",
                path,
                hint="list the PSF-matched warps in the order of the warps",
            )


def _require_one_psf(field: Field) -> None:
    """Refuse PSF-matched warps whose PSFs differ."""
    first = stamp_of(field.warps[0])
    for warp in field.warps[1:]:
        difference = largest_difference(stamp_of(warp), first)
        if difference > _ONE_PSF:
            raise FormatError(
                f"its PSF and that of {field.warps[0].file.info.path} differ by "
                f"{100 * difference:.0f} % of the peak: not matched to one PSF",
                warp.file.info.path,
                hint="coblend psf-match WARP... --reference gaussian:fwhm=F, wider than all",
            )


def stamp_of(warp: PlacedWarp) -> NDArray[np.float64]:
    """PSF in the middle of a warp."""
    psf, box = warp.file.info.psf, warp.file.info.box
    if psf is None:
        raise FormatError("no PSF; compare-warp needs that of the matched warps",
                          warp.file.info.path)  # fmt: skip
    return psf.at(box.y0 + box.ny / 2, box.x0 + box.nx / 2)


_ONE_PSF = 0.05  # of the peak
_SAME = 1e-9
