"""Photometric scales: bring all inputs to one unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coblend.core.errors import FormatError
from coblend.core.params.coadd import NANOJANSKY


@dataclass(frozen=True, slots=True)
class Calibration:
    """Unit and zero point of an image.

    Parameters
    ----------
    unit : str
        FITS ``BUNIT``, "" if unknown.
    zero_point : float or None
        AB magnitude of one count; nJy has 31.4 by definition.
    """

    unit: str
    zero_point: float | None

    def __str__(self) -> str:
        zero_point = "no zero point" if self.zero_point is None else f"zp {self.zero_point:g}"
        return f"unit {self.unit or 'unknown'}, {zero_point}"


def scale_factor(zero_point: float, target: float) -> float:
    """Factor that brings fluxes from one zero point to another, ``10**(0.4 (target - zp))``.

    Images are multiplied by it, variances by its square.

    Raises
    ------
    FormatError
        When the factor is not finite and positive.

    Notes
    -----
    pipe_tasks: ``ScaleZeroPointTask``.
    """
    try:
        factor = float(10.0 ** (0.4 * (target - zero_point)))
    except OverflowError:
        factor = float("inf")
    if not 0 < factor < float("inf"):
        raise FormatError(f"zero points {zero_point:g} and {target:g} give no usable scale")
    return factor


def common_calibration(
    inputs: Sequence[Calibration], names: Sequence[str], target: float | None
) -> tuple[Calibration, list[float]]:
    """Calibration of the coadd and the scale of every input.

    Parameters
    ----------
    inputs : sequence of Calibration
    names : sequence of str
        For messages.
    target : float or None
        Zero point of the coadd; None keeps that of the inputs, which must agree.

    Raises
    ------
    FormatError
        When the inputs differ and there is no target, or an input has no zero point, or counts
        and count rates are mixed.
    """
    first = inputs[0]
    for name, other in zip(names, inputs, strict=True):
        relative = {first.unit, other.unit} - {"nJy"}
        if len(relative) > 1:
            raise FormatError(
                f"{other}, but {names[0]} has {first}; these units cannot be compared", name
            )
        if target is None and other != first:
            raise FormatError(
                f"{other}, but {names[0]} has {first}",
                name,
                hint="choose the coadd's unit: --unit nJy, or --unit zp=MAG",
            )
        if target is not None and other.zero_point is None:
            raise FormatError(
                f"{other}; cannot be scaled to zero point {target:g}",
                name,
                hint="add a keyword MAGZERO with the AB magnitude of one count",
            )
    if target is None:
        return first, [1.0] * len(inputs)
    units = {calibration.unit for calibration in inputs}
    unit = "nJy" if target == NANOJANSKY else "" if units == {"nJy"} else (units - {"nJy"}).pop()
    scales = [scale_factor(c.zero_point, target) for c in inputs if c.zero_point is not None]
    return Calibration(unit, target), scales
