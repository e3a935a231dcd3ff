"""Stars of coadds against the PSF that the coadd says, on files; noise-free, isolated stars."""

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.mask import PLANES
from coblend.core.psf import StampPsf
from coblend.io.coadd.coadds import read_coadd_psf
from coblend.io.sky.wcs import pixel_to_sky, sky_to_pixel, tangent_plane

BAD = 1 << PLANES["BAD"]
HALF = 12


def cut(y, x):
    return np.s_[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1]


def errors(path, ys, xs, psf, alike):
    """Largest difference between each star and the PSF there, of its peak.

    ``alike``: a plane that must be constant, and not 0, around a star to be compared.
    """
    image = fitsio.read(path, ext="IMAGE")
    known = [k for k in range(len(ys)) if np.ptp(alike[cut(ys[k], xs[k])]) == 0]
    known = [k for k in known if alike[ys[k], xs[k]]]
    out = []
    for y, x, model in zip(ys[known], xs[known], psf.at_many(ys[known], xs[known]), strict=True):
        middle = model.shape[0] // 2
        model, star = model[cut(middle, middle)], image[cut(y, x)].astype(float)
        out.append(np.abs(star * model.sum() / star.sum() - model).max() / model.max())
    return np.array(out)


def test_stars_where_pixels_are_lost(cli, write, stamp, in_folder, rng):
    """Unequal seeing, weights and cover; a tenth of the stars of each input is masked."""
    side, names = 640, [f"e{i}.fits" for i in range(12)]
    ys, xs = (g.ravel() for g in np.mgrid[20:625:32, 20:625:32])
    for i, name in enumerate(names):
        star, half = stamp(rng.uniform(3, 6)), 15
        image, mask = np.zeros((side, side)), np.zeros((side, side), np.int32)
        for y, x in zip(ys, xs, strict=True):
            place = np.s_[y - half : y + half + 1, x - half : x + half + 1]
            image[place] += 1000 * star[: side - y + half, : side - x + half]
            mask[place] = BAD if rng.random() < 0.1 else 0
        y0, x0 = (0, 0) if i < 2 else rng.integers(0, 250, 2)
        write(name, image[y0:, x0:], rng.uniform(1, 3), mask[y0:, x0:], psf=star,
              header=[f"LTV1    = {-x0}", f"LTV2    = {-y0}"])  # fmt: skip
    done = cli("assemble-coadd", *names, "-o", "c.fits", "--statistic", "mean", "--set",
               "input_map=true", "--set", "compress=none")  # fmt: skip
    assert done.code == 0, done.err
    used = fitsio.read("c.fits", ext="INPUTMAP")
    exact = errors("c.fits", ys, xs, read_coadd_psf("c.fits", exact=True), used)
    plain = errors("c.fits", ys, xs, read_coadd_psf("c.fits"), used)
    assert len(exact) >= 200
    assert exact.max() < 1e-3
    assert plain.max() > 5e-3


def test_clipped_mean_keeps_the_cores_of_stars(cli, write, stamp, in_folder, rng):
    """Seeing of 3.6 to 4.5 pixels: stars of S/N 600 stay, cosmic rays of 20 sigma go."""
    side, names = 200, [f"e{i}.fits" for i in range(5)]
    ys, xs = (g.ravel() for g in np.mgrid[25:180:50, 25:180:50])
    for i, (name, fwhm) in enumerate(zip(names, (3.6, 3.8, 4, 4.2, 4.5), strict=True)):
        image = rng.normal(0, 1, (side, side))
        for y, x in zip(ys, xs, strict=True):
            image[y - 15 : y + 16, x - 15 : x + 16] += 4000 * stamp(fwhm)
        image[5 + i :: 50, ::7] += 20  # a fifth of them in each epoch, away from the stars
        write(name, image, 1.0, psf=stamp(fwhm))
    assert cli("assemble-coadd", *names, "-o", "c.fits").code == 0
    n_image = fitsio.read("c.fits", ext="NIMAGE")
    assert np.median(n_image[ys, xs]) == 5
    assert (
        np.median(errors("c.fits", ys, xs, read_coadd_psf("c.fits"), np.ones_like(n_image))) < 0.01
    )
    image = fitsio.read("c.fits", ext="IMAGE")
    rays = np.concatenate([image[5 + i :: 50, ::7].ravel() for i in range(5)])
    assert abs(rays.mean()) < 0.2


@pytest.mark.slow
def test_stars_of_warps_through_their_own_wcs(cli, write, stamp, in_folder, rng):
    """Turned exposures that cover parts of the grid, warped with Lanczos-3."""
    side, native = 520, 540
    grid = tangent_plane(150.0, 2.0, 0.2, side / 2, side / 2)
    fitsio.write("grid.fits", np.zeros((side, side), np.uint8), header=fitsio.FITSHDR([*grid]))
    ys, xs = (g.ravel() for g in np.mgrid[20 : side - 15 : 26, 20 : side - 15 : 26])
    sky = pixel_to_sky(grid, Box(0, 0, side, side), xs, ys)
    frame, names = Box(0, 0, native, native), [f"e{i}.fits" for i in range(12)]
    v, u = np.mgrid[:native, :native]
    for name in names:
        cards = turned(rng.uniform(0, 360), *rng.uniform(0.42, 0.58, 2) * native)
        fwhm = rng.uniform(3, 6)
        image, sigma = np.zeros(frame.shape), fwhm / 2.3548
        for x, y in zip(*sky_to_pixel(cards, frame, *sky), strict=True):
            near = np.s_[max(int(y) - 15, 0) : int(y) + 16, max(int(x) - 15, 0) : int(x) + 16]
            image[near] += np.exp(-((v[near] - y) ** 2 + (u[near] - x) ** 2) / 2 / sigma**2)
        write(name, 1e4 / (2 * np.pi * sigma**2) * image, rng.uniform(1, 3), psf=stamp(fwhm),
              header=cards)  # fmt: skip
    plain = ("--set", "compress=none", "-o")
    assert cli("warp", *names, "--like", "grid.fits", *plain, "w_{name}.fits").code == 0
    done = cli("assemble-coadd", *(f"w_{n}" for n in names), "--statistic", "mean", "--like",
               "grid.fits", "--set", "input_map=true", *plain, "c.fits")  # fmt: skip
    assert done.code == 0, done.err
    n_image = fitsio.read("c.fits", ext="NIMAGE")
    used = fitsio.read("c.fits", ext="INPUTMAP")
    found = errors("c.fits", ys, xs, read_coadd_psf("c.fits"), used)
    assert len(found) >= 200
    assert found.max() < 3e-3
    assert np.ptp(n_image[ys, xs]) > 3


def turned(degrees, y, x):
    """Tangent plane with rotated axes."""
    cos, sin = (f(np.radians(degrees)) * 0.2 / 3600 for f in (np.cos, np.sin))
    values = {"CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos}
    cards = []
    for card in tangent_plane(150.0, 2.0, 0.2, y, x):
        key = card[:8].strip()
        cards.append(f"{key:<8}= {values[key]:>20.13E}".ljust(80) if key in values else card)
    return cards


def test_a_star_is_the_psf_of_its_warp(cli, write, stamp, in_folder):
    """One input on its own pixels: nothing is resampled, so the PSF is the star to rounding."""
    star = stamp(4.2)
    write("e.fits", 1e4 * np.pad(star, 20), psf=star)
    assert cli("assemble-coadd", "e.fits", "-o", "c.fits", "--statistic", "mean").code == 0
    psf = read_coadd_psf("c.fits")
    assert isinstance(psf.inputs[0].psf, StampPsf)
    found = errors("c.fits", np.array([35]), np.array([35]), psf, np.ones((71, 71)))
    assert found.max() < 1e-6
