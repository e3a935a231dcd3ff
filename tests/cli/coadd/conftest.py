"""Warps as other programs write them, and the planes of their coadd."""

import fitsio
import numpy as np
import pytest

from coblend.core.mask import PLANES


@pytest.fixture(scope="session")
def stamp():
    """Make a Gaussian PSF."""

    def make(fwhm, side=31):
        y, x = np.mgrid[:side, :side] - side // 2
        values = np.exp(-(y**2 + x**2) / 2 / (fwhm / 2.3548) ** 2)
        return values / values.sum()

    return make


@pytest.fixture(scope="session")
def write():
    """Write IMAGE, MASK and VARIANCE, and a PSF if there is one."""

    def make(name, image, variance=1.0, mask=0, psf=None, header=()):
        image = np.atleast_2d(np.asarray(image, np.float32))
        mask, variance = (np.broadcast_to(plane, image.shape) for plane in (mask, variance))
        with fitsio.FITS(name, "rw", clobber=True) as file:
            file.write(image, extname="IMAGE", header=fitsio.FITSHDR([*header]))
            file.write(mask.astype(np.int32), extname="MASK",
                       header={f"MP_{k}": v for k, v in PLANES.items()})  # fmt: skip
            file.write(variance.astype(np.float32), extname="VARIANCE")
            if psf is not None:
                file.write(psf, extname="PSF")
        return name

    return make


@pytest.fixture
def coadd(cli):
    """Make a coadd without interpolation; its planes, INPUTS and the header of IMAGE."""

    def make(inputs, *options, name="c.fits"):
        done = cli("assemble-coadd", *inputs, "-o", name, "--overwrite", "--set", "interp=false",
                   "--set", "compress=none", *options)  # fmt: skip
        assert done.code == 0, done.err
        with fitsio.FITS(name) as file:
            out = {k: file[k].read() for k in ("IMAGE", "MASK", "VARIANCE", "NIMAGE", "INPUTS")}
            return out | {"header": file["IMAGE"].read_header()}

    return make
