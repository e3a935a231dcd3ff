"""Warps onto pixels 5 % larger, turned by 30 degrees: fluxes of stars and noise, on files."""

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.io.sky.wcs import pixel_to_sky, sky_to_pixel, tangent_plane

SCALE = 1.05


@pytest.fixture
def warped(cli, write, in_folder):
    """Warp an image; image, variance and header, and where positions ``(y, x)`` come to lie."""

    def make(image, options=()):
        side = image.shape[0]
        frame, n = Box(0, 0, side, side), int(side * 1.3)
        plane = tangent_plane(150.0, 2.0, 0.2, side / 2, side / 2)
        write("e.fits", image, header=plane)
        cos, sin = (f(np.radians(30)) * SCALE * 0.2 / 3600 for f in (np.cos, np.sin))
        turn = {"CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos}
        grid = [
            f"{card[:8]}= {turn[key]:>20.13E}".ljust(80)
            if (key := card[:8].strip()) in turn
            else card
            for card in tangent_plane(150.0, 2.0, 0.2, n / 2 + 0.3, n / 2 - 0.1)
        ]
        fitsio.write("g.fits", np.zeros((n, n), "u1"), header=fitsio.FITSHDR(grid), clobber=True)
        done = cli("warp", "e.fits", "--like", "g.fits", "-o", "w.fits", "--overwrite", *options)
        assert done.code == 0, done.err
        with fitsio.FITS("w.fits") as file:
            header = file["IMAGE"].read_header()
            planes = [file[name].read().astype(float) for name in ("IMAGE", "VARIANCE")]
        y0, x0 = (-header[key] for key in ("LTV2", "LTV1"))

        def place(y, x):
            x, y = sky_to_pixel(tuple(grid), Box(0, 0, n, n), *pixel_to_sky(plane, frame, x, y))
            return y - y0, x - x0

        return *planes, header, place

    return make


@pytest.mark.parametrize(("fwhm", "tolerance"), [(2, 1e-3), (3, 4e-4), (4, 2e-4), (6, 5e-5)])
def test_flux_of_stars(warped, rng, fwhm, tolerance):
    sigma, space, n = fwhm / 2.3548, 40, 7
    ys, xs = (g.ravel() + rng.uniform(30, 31, n * n) for g in np.mgrid[:n, :n] * space)
    image, (v, u) = np.zeros((n * space + 20,) * 2), np.mgrid[: n * space + 20, : n * space + 20]
    for y, x in zip(ys, xs, strict=True):
        image += np.exp(-((v - y) ** 2 + (u - x) ** 2) / 2 / sigma**2)
    out, _, _, place = warped(image / (2 * np.pi * sigma**2))
    v, u = np.mgrid[: out.shape[0], : out.shape[1]]
    near = [np.hypot(v - y, u - x) < 18 for y, x in zip(*place(ys, xs), strict=True)]
    fluxes = np.array([out[own].sum() for own in near])
    assert len(fluxes) >= 40
    assert np.abs(fluxes - 1).max() < tolerance


def test_noise_is_that_of_the_variance(warped, rng):
    image, variance, header, _ = warped(rng.normal(size=(1100, 1100)))
    known = np.isfinite(variance) & (variance > 0)
    assert known.sum() > 1e6
    area = SCALE**2
    assert header["NOISECOR"] == pytest.approx(0.798, abs=0.005)
    assert image[known].var() / area**2 == pytest.approx(0.798, abs=0.005)
    assert (image[known] / np.sqrt(variance[known])).var() == pytest.approx(1, abs=0.005)
    acf = fitsio.read("w.fits", ext="NOISE_ACF")
    middle = image[400:900, 400:900]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (2, 0)):
        pairs = middle[: 500 - dy, : 500 - dx] * middle[dy:, dx:]
        assert acf[2 + dy, 2 + dx] == pytest.approx(pairs.mean() / middle.var(), abs=0.015)
