"""``assemble-coadd --kind chi2``: coadds of several bands into one for detection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coblend.cli.run import Run
from coblend.core.coadd import chi2
from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.params.coadd import CoaddParams
from coblend.io.exposure.checks import require_psf, require_same_grid
from coblend.io.exposure.exposures import count_pixels, read_exposure, write_exposure
from coblend.io.fits.specs import expand_lists, parse_band_spec


def chi2_coadd(run: Run, params: CoaddParams, arguments: Iterable[str]) -> None:
    """Sum the bands, one in memory at a time."""
    run.fill_output(band="chi2")
    bands: list[str] = []
    coadd = chi2.chi2_coadd(_read(run, arguments, bands))
    summary = {"n_band": len(bands), "size": f"{coadd.box.nx}x{coadd.box.ny}"}
    if not run.dry_run:
        with run.create("exposure/1") as out:
            header = {"CHI2BAND": ",".join(bands)}
            write_exposure(out, coadd, header=header, compress=params.compress)
    run.report(summary)


def _read(run: Run, arguments: Iterable[str], bands: list[str]) -> Iterator[Exposure]:
    """Read and check band after band; their names are added to ``bands``."""
    first = None
    for argument in expand_lists(arguments):
        band, spec = parse_band_spec(argument)
        run.add_exposure("coadd", spec)
        run.require_memory(chi2.BYTES_PER_PIXEL * count_pixels(spec), spec.path)
        exposure = read_exposure(spec, band=band)
        require_psf(exposure, spec.path)
        if exposure.band in bands:
            raise FormatError(f"band {exposure.band} is given twice", spec.path)
        bands.append(exposure.band)
        if first is None:
            first, path = exposure, spec.path
        else:
            require_same_grid(first, path, exposure, spec.path)
        yield exposure
