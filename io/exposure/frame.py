"""Where the first pixel of an image lies in parent coordinates."""

from __future__ import annotations

from collections.abc import Mapping

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.core.exposure import HeaderValue

_FARTHEST = 1e9


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
        from_ltv = -header_number(header, f"LTV{axis}", path)
        value = from_ltv
        if f"CRVAL{axis}A" in header:
            value = header_number(header, f"CRVAL{axis}A", path) + 1
            value -= header_number(header, f"CRPIX{axis}A", path, 1.0)
            if f"LTV{axis}" in header and abs(value - from_ltv) > 0.5:
                raise FormatError(
                    f"CRVAL{axis}A puts the first pixel at {value:g}, LTV{axis} at {from_ltv:g}",
                    path,
                )
        if abs(value) > _FARTHEST or abs(value - round(value)) > 1e-3:
            raise FormatError(
                f"the first pixel is at {value:g} on axis {axis}, expected a whole number of at "
                f"most {_FARTHEST:g}",
                path,
            )
        origin.append(round(value))
    return origin[0], origin[1]


def header_number(
    header: Mapping[str, HeaderValue], key: str, path: str, default: float = 0.0
) -> float:
    """Read the number that a keyword holds, ``default`` where it is absent.

    Raises
    ------
    FormatError
        It holds something else.
    """
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"keyword {key} is {value!r}, expected a number", path)
    return float(value)
