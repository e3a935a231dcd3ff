"""Lists of inputs: one file per line, or a table with what the headers do not tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coblend.core.errors import FormatError, MissingHduError
from coblend.io.fits.columns import columns_of, numbers_of
from coblend.io.fits.reader import open_fits
from coblend.io.fits.specs import expand_lists
from coblend.io.fits.structure import is_fits

_ECSV = "# %ECSV"


@dataclass(frozen=True, slots=True)
class Listed:
    """An input and what a table says of it; None and "" where it says nothing.

    Parameters
    ----------
    file : str
    weight : float, optional
    scale : float, optional
        Factor on the image.
    zero_point : float, optional
        AB magnitude of one count.
    psf : str
        PSF specification.
    psf_matched : str
        File of the PSF-matched warp.
    id : str
        What the input shares with its PSF-matched warp.
    """

    file: str
    weight: float | None = None
    scale: float | None = None
    zero_point: float | None = None
    psf: str = ""
    psf_matched: str = ""
    id: str = ""


_NUMBERS = {"weight": "weight", "scale": "scale", "zero_point": "zero_point", "zp": "zero_point"}
_TEXTS = {"file": "file", "psf": "psf", "psf_matched": "psf_matched", "psfmatched": "psf_matched",
          "id": "id"}  # fmt: skip


def read_lists(arguments: Iterable[str]) -> list[Listed]:
    """Replace every ``@FILE`` by the files that it lists.

    FILE is text with a file per line, or a FITS or ECSV table with a column ``file`` and any of
    ``weight``, ``scale``, ``zero_point`` (``zp``), ``psf``, ``psf_matched`` and ``id``.

    Raises
    ------
    InputMissingError
        A list cannot be read.
    FormatError
        A table has no column ``file``, or a scale or weight that is negative or not finite.
    """
    out: list[Listed] = []
    for argument in arguments:
        columns = _columns(argument[1:]) if argument.startswith("@") else None
        if columns is None:
            out += [Listed(file) for file in expand_lists([argument])]
        else:
            out += _rows(columns, argument[1:])
    return out


def _columns(path: str) -> dict[str, Any] | None:
    """Columns of a table by name in lower case; None for a plain list."""
    if is_fits(path):
        with open_fits(path) as file:
            index = next((i for i, hdu in enumerate(file.hdus) if hdu.kind == "table"), None)
            if index is None:
                raise MissingHduError("no table of inputs", path)
            rows = file.table(index)
        return {name.lower(): rows[name] for name in rows.dtype.names or ()}
    with open(path, "rb") as stream:
        if stream.read(len(_ECSV)) != _ECSV.encode():
            return None
    from astropy.table import Table

    try:
        table = Table.read(path, format="ascii.ecsv")
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"no ECSV table: {str(error).splitlines()[0]}", path) from error
    return {name.lower(): values for name, values in columns_of(table).items()}


def _rows(columns: Mapping[str, Any], path: str) -> list[Listed]:
    if "file" not in columns:
        raise MissingHduError(f"no column file; it has {', '.join(columns)}", path)
    out = []
    known = {_NUMBERS[c]: numbers_of(columns[c], c, path) for c in _NUMBERS if c in columns}
    for k in range(len(columns["file"])):
        texts = {_TEXTS[c]: str(columns[c][k]).strip() for c in _TEXTS if c in columns}
        numbers = {name: float(values[k]) for name, values in known.items()}
        for name, value in numbers.items():
            least = 0 if name == "weight" else -np.inf if name == "zero_point" else 1e-300
            if not least <= value < np.inf:
                raise FormatError(f"row {k + 1}: {name} is {value:g} for {texts['file']}", path)
        out.append(Listed(**texts, **numbers))  # type: ignore[arg-type]
    return out
