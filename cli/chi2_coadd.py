"""``assemble-coadd --kind chi2``: coadds of several bands into one for detection."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from coblend.cli.run import Run
from coblend.core.coadd.chi2 import add, smoothed
from coblend.core.errors import FormatError
from coblend.core.exposure import Exposure
from coblend.core.params.coadd import CoaddParams
from coblend.core.psf import StampPsf
from coblend.io.exposure.checks import require_psf, require_same_grid
from coblend.io.exposure.exposures import read_exposure, write_exposure
from coblend.io.fits.specs import expand_lists, parse_band_spec


def chi2_coadd(run: Run, params: CoaddParams, arguments: Iterable[str]) -> None:
    """Sum the bands, one in memory at a time; the mask is the union of theirs."""
    total = first = None
    bands: list[str] = []
    for argument in expand_lists(arguments):
        band, spec = parse_band_spec(argument)
        run.add_input("coadd", spec.path)
        exposure = read_exposure(spec, band=band)
        require_psf(exposure, spec.path)
        if exposure.band in bands:
            raise FormatError(f"band {exposure.band} is given twice", spec.path)
        bands.append(exposure.band)
        if first is None:
            first, path, planes, mask = exposure, spec.path, exposure.planes, exposure.mask
        else:
            require_same_grid(first, path, exposure, spec.path)
            union = planes.union(exposure.planes)
            mask = planes.remap(mask, union) | exposure.planes.remap(exposure.mask, union)
            planes = union
        part = smoothed(exposure)
        total = part if total is None else add(total, part)
    if first is None or total is None:
        raise FormatError("no coadds given: the lists are empty")
    summary = {"n_band": len(bands), "size": f"{first.box.nx}x{first.box.ny}"}
    if run.dry_run:
        run.report(summary)
        return
    missing = (mask & planes.value(["NO_DATA"])) != 0
    variance = np.where(missing, np.inf, total.variance).astype(np.float32)
    coadd = Exposure(
        total.image.astype(np.float32), mask, variance, first.box, planes,
        band="chi2", psf=StampPsf(total.psf), wcs=first.wcs,
    )  # fmt: skip
    with run.create("exposure/1") as out:
        write_exposure(out, coadd, header={"CHI2BAND": ",".join(bands)}, compress=params.compress)
    run.report(summary)
