"""Names of bands, and of columns that hold one number per band."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coblend.core.errors import ParameterError

BAND_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,16}")
"""What a band may be called: 1 to 16 letters, digits or _.+-."""
_PREFIXES = ("err_", "frac_", "overlap_", "overlap_frac_")
"""With what one column's name goes on before the band where another's has ended."""
_REMEDY = "rename one of them with BAND=FILE"


def column_suffix(band: str) -> str:
    """Band name as it may stand in a column name: other characters become ``_``."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in band)


def check_suffixes(bands: Sequence[str]) -> None:
    """Refuse bands whose columns would have the same names; FITS does not tell i from I.

    Raises
    ------
    ParameterError
        Naming the bands.
    """
    owner: dict[str, str] = {}
    for band in bands:
        other = owner.setdefault(column_suffix(band).lower(), band)
        if other != band:
            raise _shared(other, band)
    for suffix, band in owner.items():
        if suffix == "sky":  # as in merge_peak_sky
            raise ParameterError(f"a band cannot be named {band}", hint=_REMEDY)
        for prefix in _PREFIXES:
            if suffix.startswith(prefix) and suffix.removeprefix(prefix) in owner:
                raise _shared(owner[suffix.removeprefix(prefix)], band)


def _shared(one: str, other: str) -> ParameterError:
    return ParameterError(f"bands {one} and {other} would share columns", hint=_REMEDY)
