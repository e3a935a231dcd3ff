"""Where the first pixel of an image lies in parent coordinates."""

from __future__ import annotations

from collections.abc import Mapping

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.exposure import HeaderValue


def frame_header(box: Box) -> dict[str, HeaderValue]:
    """Keywords that carry the origin of parent coordinates: LTV and the alternate WCS A."""
    frame: dict[str, HeaderValue] = {"LTV1": -box.x0, "LTV2": -box.y0}
    for axis, origin in ((1, box.x0), (2, box.y0)):
        frame |= {
            f"CTYPE{axis}A": "LINEAR",
            f"CRPIX{axis}A": 1.0,
            f"CRVAL{axis}A": float(origin),
            f"CUNIT{axis}A": "PIXEL",
        }
    return frame


def frame_origin(header: Mapping[str, HeaderValue], path: str) -> tuple[int, int]:
    """Origin ``(y0, x0)`` of parent coordinates: WCS A, else LTV, else 0.

    Raises
    ------
    FormatError
        WCS A and LTV disagree, or the origin is not a whole number.
    """
    origin = []
    for axis in (2, 1):
        from_a = header.get(f"CRVAL{axis}A")
        from_ltv = header.get(f"LTV{axis}")
        if from_a is not None:
            value = float(from_a) + 1 - float(header.get(f"CRPIX{axis}A", 1))
            if from_ltv is not None and abs(value + float(from_ltv)) > 0.5:
                raise FormatError(
                    f"CRVAL{axis}A puts the first pixel at {value:g}, "
                    f"LTV{axis} at {-float(from_ltv):g}",
                    path,
                )
        else:
            value = -float(from_ltv or 0)
        if abs(value - round(value)) > 1e-3:
            raise FormatError(
                f"the first pixel is at {value:g} on axis {axis}, expected a whole number", path
            )
        origin.append(round(value))
    return origin[0], origin[1]
