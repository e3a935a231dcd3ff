"""Images that vary over an exposure (`coblend.core.psf.fields`) in HDUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import FormatError, concerning
from coblend.core.exposure import HeaderValue
from coblend.core.psf.fields import ChebyshevField
from coblend.io.fits.reader import FitsFile
from coblend.io.fits.writer import FitsWriter


def write_field(
    out: FitsWriter,
    field: ChebyshevField,
    basis_name: str,
    coefficient_name: str,
    header: Mapping[str, HeaderValue],
    prefix: str,
) -> None:
    """Append a field of images: its basis (3-D) and its coefficients (2-D), both float64."""
    names = ("XMIN", "XMAX", "YMIN", "YMAX")
    edges = {f"{prefix}{n}": float(v) for n, v in zip(names, field.domain, strict=True)}
    out.image(basis_name, field.basis, header={**header, f"{prefix}ORDER": field.order, **edges})
    out.image(coefficient_name, field.coefficients, compress="none")


def read_field(
    file: FitsFile, basis: str | int, coefficients: str | int, prefix: str
) -> ChebyshevField:
    """Read what `write_field` wrote.

    Raises
    ------
    FormatError
        When an HDU or keyword is absent or they do not fit together.
    """
    header = file.header(basis)
    edges = [number_of(header, f"{prefix}{n}") for n in ("XMIN", "XMAX", "YMIN", "YMAX")]
    with concerning(file.path, str(basis)):
        return ChebyshevField(
            _planes(file.image(basis)),
            np.atleast_2d(file.image(coefficients)).astype(np.float64),
            (edges[0], edges[1], edges[2], edges[3]),
        )


def lattice_header(y: NDArray[np.float64], x: NDArray[np.float64]) -> dict[str, HeaderValue]:
    """Keywords for the places of a 4-D lattice: axis 3 of FITS runs over x, axis 4 over y."""
    head: dict[str, HeaderValue] = {}
    for axis, name, node in ((3, "XPIX", x), (4, "YPIX", y)):
        step = float(node[1] - node[0]) if node.size > 1 else 1.0
        head |= {f"CTYPE{axis}": name, f"CRPIX{axis}": 1.0}
        head |= {f"CRVAL{axis}": float(node[0]), f"CDELT{axis}": step}
    return head


def lattice_nodes(
    shape: tuple[int, ...], header: Mapping[str, HeaderValue]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of a 4-D lattice, y and x; the inverse of `lattice_header`.

    Raises
    ------
    FormatError
        A keyword is absent or not a number.
    """
    nodes = []
    for axis, n in ((4, shape[0]), (3, shape[1])):
        first = number_of(header, f"CRVAL{axis}")
        step = number_of(header, f"CDELT{axis}") if n > 1 else 1.0
        nodes.append(first + step * (np.arange(1.0, n + 1) - number_of(header, f"CRPIX{axis}", 1)))
    return nodes[0], nodes[1]


def number_of(header: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """Value of a keyword as a number, ``default`` where it is absent.

    Raises
    ------
    FormatError
        When it is absent and has no default, or is not a number.
    """
    if default is not None and key not in header:
        return default
    try:
        return float(header[key])
    except (KeyError, TypeError, ValueError):
        found = header.get(key)
        what = f"is {found!r}, expected a number" if found not in (None, "") else "is absent"
        raise FormatError(f"keyword {key} {what}") from None


def _planes(cube: NDArray[Any]) -> NDArray[np.float64]:
    """Cube of planes; fitsio drops nothing, but other writers drop an axis of length 1."""
    return np.asarray(cube.reshape(-1, *cube.shape[-2:]), dtype=np.float64)
