"""PSFEx models against psfex itself and against GalSim, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import fitsio
import numpy as np
import pytest

from coblend.core.psf import AnalyticPsf
from coblend.io.psf.psfs import parse_psf_spec

pytestmark = pytest.mark.peer

SIZE, SIDE = 900, 41
COLUMNS = """VIGNET(41,41)
X_IMAGE
Y_IMAGE
FLUX_RADIUS
SNR_WIN
FLUX_APER(1)
FLUXERR_APER(1)
ELONGATION
FLAGS
"""


def star_field(path: Path, rng: np.random.Generator) -> None:
    """Stars on a lattice with random sub-pixel offsets; the seeing grows to the right."""
    image = rng.normal(0, 5.0, (SIZE, SIZE))
    axis = np.arange(61) - 30
    for y in range(50, SIZE - 50, 62):
        for x in range(50, SIZE - 50, 62):
            dy, dx = rng.uniform(-0.5, 0.5, 2)
            fwhm = 3.2 + 0.6 * x / SIZE
            alpha = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
            radius2 = (axis[:, None] - dy) ** 2 + (axis[None, :] - dx) ** 2
            profile = (1 + radius2 / alpha**2) ** -3.0
            flux = rng.uniform(1e5, 4e5)
            image[y - 30 : y + 31, x - 30 : x + 31] += flux * profile / profile.sum()
    fitsio.write(path, image.astype("f4"), clobber=True)


@pytest.fixture(scope="module")
def run_psfex(tmp_path_factory):
    """Return a function that measures the field with psfex and returns its folder."""
    extractor = shutil.which("source-extractor") or shutil.which("sex")
    psfex = shutil.which("psfex")
    if not (extractor and psfex):
        pytest.skip("source-extractor and psfex are not both installed")

    @cache
    def run(degree: int, sampling: float) -> Path:
        folder = tmp_path_factory.mktemp("psfex")
        star_field(folder / "stars.fits", np.random.default_rng(4))
        (folder / "columns.param").write_text(COLUMNS)
        (folder / "conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
        commands = (
            [extractor, "stars.fits", "-CATALOG_NAME", "stars.cat", "-CATALOG_TYPE", "FITS_LDAC",
             "-PARAMETERS_NAME", "columns.param", "-FILTER_NAME", "conv", "-DETECT_THRESH", "20",
             "-PHOT_APERTURES", "20", "-GAIN", "0", "-SATUR_LEVEL", "1e9"],
            [psfex, "stars.cat", "-PSFVAR_DEGREES", str(degree), "-PSF_SAMPLING", str(sampling),
             "-PSF_SIZE", f"{SIDE},{SIDE}", "-PSFVAR_NSNAP", "3", "-CHECKIMAGE_TYPE", "SNAPSHOTS",
             "-CHECKIMAGE_NAME", "snap.fits", "-CHECKPLOT_TYPE", "NONE", "-WRITE_XML", "N",
             "-BASIS_TYPE", "PIXEL", "-SAMPLE_MINSN", "10"],
        )  # fmt: skip
        for arguments in commands:
            subprocess.run(arguments, cwd=folder, check=True, capture_output=True)
        return folder

    return run


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [1.0, 0.5])
def test_planes_add_up_to_the_snapshots_of_psfex(run_psfex, sampling):
    """Snapshots are at u, v = -1/3 ... 1/3 of the field: equal to 1e-6 of the peak."""
    folder = run_psfex(2, sampling)
    psf = parse_psf_spec(str(folder / "stars.psf"))
    snapshots = fitsio.read(str(next(folder.glob("snap*.fits"))))
    side = psf.planes.shape[-1]
    if snapshots.ndim == 2:
        n = snapshots.shape[0] // side
        snapshots = snapshots.reshape(n, side, n, side).swapaxes(1, 2)
    v, u = np.meshgrid(np.arange(-1, 2) / 3, np.arange(-1, 2) / 3, indexing="ij")
    x = u * psf.scale[0] + psf.zero[0] - 1
    y = v * psf.scale[1] + psf.zero[1] - 1
    found = psf.samples(y, x).reshape(3, 3, side, side)
    np.testing.assert_allclose(found, snapshots, atol=1e-6 * snapshots.max())


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [1.0, 0.5])
def test_stamps_equal_those_of_galsim(run_psfex, sampling):
    galsim = pytest.importorskip("galsim")
    from galsim.des import DES_PSFEx

    folder = run_psfex(2, sampling)
    psf = parse_psf_spec(str(folder / "stars.psf"))
    other = DES_PSFEx(str(folder / "stars.psf"))
    for y, x in ((450.0, 450.0), (100.0, 800.0)):
        drawn = other.getPSF(galsim.PositionD(x + 1, y + 1)).drawImage(
            nx=psf.side, ny=psf.side, scale=1.0, method="no_pixel"
        )
        expected = drawn.array / drawn.array.sum()
        found = psf.at(y, x)
        assert np.abs(found - expected).max() < 1e-5 * found.max()


@pytest.mark.slow
def test_a_model_without_variation_is_constant_and_close_to_the_stars(run_psfex):
    folder = run_psfex(0, 1.0)
    psf = parse_psf_spec(str(folder / "stars.psf"))
    assert psf.constant
    assert psf.side == SIDE
    truth = AnalyticPsf("MOFFAT", 3.5, size=SIDE, integrated=False).stamp()
    assert np.abs(psf.at(1, 2) - truth).max() < 0.05 * truth.max()
