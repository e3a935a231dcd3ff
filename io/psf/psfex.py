"""PSFEx models: the table ``PSF_DATA`` that psfex writes."""

from __future__ import annotations

import re

import numpy as np

from coblend.core.errors import FormatError
from coblend.core.exposure import HeaderValue
from coblend.core.psf import PsfexPsf
from coblend.core.psf.fields import n_terms
from coblend.io.fits.reader import FitsFile
from coblend.io.fits.writer import FitsWriter
from coblend.io.psf.fields import number_of


def read_psfex(file: FitsFile, index: int) -> PsfexPsf:
    """PSFEx model of one table.

    Raises
    ------
    FormatError
        When it depends on anything but the position, or planes and degree disagree.
    """
    header = file.header(index)
    planes = np.asarray(file.table(index, ["PSF_MASK"])["PSF_MASK"][0], dtype=np.float32)
    planes = planes.reshape(-1, *planes.shape[-2:])
    sampling = number_of(header, "PSF_SAMP", 1)
    n_axis, n_group = int(number_of(header, "POLNAXIS", 0)), int(number_of(header, "POLNGRP", 1))
    if not n_axis:
        return PsfexPsf(planes, sampling=sampling)
    names = [str(header.get(f"POLNAME{i}", "")) for i in range(1, n_axis + 1)]
    axis = {name[0]: i for i, name in enumerate(names, 1) if re.fullmatch("[XY].*IMAGE", name)}
    if len(names) != 2 or set(axis) != {"X", "Y"} or n_group != 1:
        raise FormatError(
            f"the PSFEx model depends on {', '.join(names)} in {n_group} group(s), "
            "expected one group of X_IMAGE and Y_IMAGE",
            hint="run psfex with PSFVAR_KEYS X_IMAGE,Y_IMAGE and PSFVAR_GROUPS 1,1",
        )
    degree = int(number_of(header, "POLDEG1", 0))
    if len(planes) != n_terms(degree):
        raise FormatError(
            f"PSFAXIS3 is {len(planes)}, but POLDEG1 = {degree} needs {n_terms(degree)} planes"
        )
    if axis["X"] == 2:  # planes run over the first variable fastest
        planes = planes[_swapped(degree)]
    zero = [number_of(header, f"POLZERO{axis[a]}") for a in "XY"]
    scale = [number_of(header, f"POLSCAL{axis[a]}") for a in "XY"]
    return PsfexPsf(planes, degree, (zero[0], zero[1]), (scale[0], scale[1]), sampling)


def write_psfex(out: FitsWriter, psf: PsfexPsf, name: str) -> None:
    """Append a PSFEx table, as ``PSF_DATA`` when ``name`` is ``PSF``."""
    n_plane, side, _ = psf.planes.shape
    header: dict[str, HeaderValue] = {"POLNAXIS": 2 if psf.degree else 0}
    if psf.degree:
        shift = (psf.origin[1], psf.origin[0])
        for i, axis in enumerate("XY", 1):
            header |= {
                f"POLGRP{i}": 1,
                f"POLNAME{i}": f"{axis}_IMAGE",
                f"POLZERO{i}": psf.zero[i - 1] + shift[i - 1],
                f"POLSCAL{i}": psf.scale[i - 1],
            }
        header["POLDEG1"] = psf.degree
    header |= {"POLNGRP": 1 if psf.degree else 0, "PSF_SAMP": psf.sampling, "PSFNAXIS": 3}
    header |= {"PSFAXIS1": side, "PSFAXIS2": side, "PSFAXIS3": n_plane}
    rows = np.zeros(1, dtype=[("PSF_MASK", "f4", psf.planes.shape)])
    rows["PSF_MASK"][0] = psf.planes
    out.table("PSF_DATA" if name == "PSF" else name, rows, header=header)


def _swapped(degree: int) -> list[int]:
    powers = [(i, j) for j in range(degree + 1) for i in range(degree + 1 - j)]
    return [powers.index((j, i)) for i, j in powers]
