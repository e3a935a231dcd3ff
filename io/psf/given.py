"""PSFs given on the command line in place of those in the files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coblend.core.errors import ParameterError
from coblend.core.psf import Psf
from coblend.io.fits.specs import split_band
from coblend.io.psf.psfs import parse_psf_spec, psf_file

GivenPsfs = Mapping[str, Psf]
"""By band; that of "" stands for all bands without one of their own."""


def band_psfs(texts: Sequence[str]) -> dict[str, Psf]:
    """Read ``[BAND=]SPEC`` of each.

    Raises
    ------
    ParameterError
        A band is given twice, or the form is unknown.
    """
    found: dict[str, Psf] = {}
    for text in texts:
        band, spec = split_band(text)
        if (band or "") in found:
            raise ParameterError(f"--psf: band {band or '(any)'} has two PSFs")
        found[band or ""] = parse_psf_spec(spec)
    return found


def psf_files(texts: Sequence[str]) -> list[str]:
    """Files that ``[BAND=]SPEC`` name."""
    named = (psf_file(split_band(text)[1]) for text in texts)
    return [path for path in named if path]


def given_psf(psfs: GivenPsfs, band: str) -> Psf | None:
    """Find the PSF given for a band; None for the file's own."""
    return psfs.get(band, psfs.get(""))


def require_bands(psfs: GivenPsfs, bands: Collection[str]) -> None:
    """Refuse PSFs of bands that there are not.

    Raises
    ------
    ParameterError
    """
    for band in psfs:
        if band and band not in bands:
            raise ParameterError(
                f"--psf: no exposure of band {band}", hint=f"there is {', '.join(bands)}"
            )
