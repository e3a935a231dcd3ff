"""``assemble-coadd --kind chi2`` on files."""

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.mask import PLANES
from coblend.io.exposure.exposures import read_exposure


@pytest.fixture
def bands(exposure, write_file, in_folder, rng):
    for name in "gri":
        noise = rng.normal(size=exposure.box.shape).astype(np.float32)
        mask = exposure.mask.copy()
        mask[1, 1] |= 1 << PLANES["BAD"] if name == "i" else 0
        write_file(replace(exposure, image=noise, band=name, mask=mask), f"{name}.fits")
    return ["g.fits", "r.fits", "i.fits"]


def test_three_bands(cli, bands, exposure):
    done = cli("assemble-coadd", "--kind", "chi2", *bands, "-o", "chi2.fits")
    assert done.code == 0, done.err
    coadd = read_exposure("chi2.fits")
    assert coadd.band == "chi2"
    assert coadd.box == exposure.box
    assert coadd.wcs == exposure.wcs
    assert coadd.mask[1, 1] & (1 << PLANES["BAD"])
    good = np.isfinite(coadd.variance)
    assert good.sum() == good.size - 1
    assert np.ptp(coadd.variance[good]) == 0
    assert coadd.psf.constant


# bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"band": "g"}, "band g is given twice"),
        ({"psf": None}, "no PSF"),
        ({"wcs": ()}, "WCS"),
    ],
)
def test_bands_that_do_not_belong_together(cli, bands, exposure, write_file, change, message):
    write_file(replace(exposure, **{"band": "z", **change}), "z.fits")
    done = cli("assemble-coadd", "--kind", "chi2", *bands, "z.fits", "-o", "c.fits")
    assert done.code == 65
    assert message in done.err
    assert "z.fits" in done.err


def test_coadds_that_do_not_fit_into_memory(cli, bands, in_folder):
    """Refused before the first band is read."""
    done = cli("assemble-coadd", "--kind", "chi2", *bands, "-o", "c.fits", "--max-memory", "10kB")
    assert done.code == 75
    assert "g.fits: needs about 0 MB, --max-memory is 10kB" in done.err
    assert not (in_folder / "c.fits").exists()
