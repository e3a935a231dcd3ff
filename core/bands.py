"""Names of bands, and of columns that hold one number per band."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coblend.core.errors import ParameterError

BAND_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,16}")
"""What a band may be called: 1 to 16 letters, digits or _.+-."""


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
    owner = {"sky": ""}  # as in merge_peak_sky
    for band in bands:
        suffix = column_suffix(band).lower()
        other = owner.get(suffix, owner.get(suffix.removeprefix("err_"), band))
        if other != band:
            raise ParameterError(
                f"bands {other} and {band} would share columns" if other
                else f"a band cannot be named {band}",
                hint="rename one of them with BAND=FILE",
            )  # fmt: skip
        owner[suffix] = band
