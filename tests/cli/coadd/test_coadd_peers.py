"""Coadds against SWarp and numpy, the same files for all."""

import shutil
import subprocess

import fitsio
import numpy as np
import pytest

from coblend.io.sky.wcs import tangent_plane

SIGMA, SHAPE, N = 5.0, (300, 320), 7


@pytest.fixture
def images(in_folder, rng):
    """Aligned images with weight maps: noise of unequal depth, stars, outliers, dead columns."""
    names, stack, weights = [], [], []
    star = np.zeros(SHAPE)
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for y, x, flux in rng.uniform((20, 20, 200), (280, 300, 3000), (20, 3)):
        star += flux * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 2 / 2.0**2)
    header = fitsio.FITSHDR([*tangent_plane(150.0, 2.0, 0.2, 150, 160), "GAIN    =  1000000.0"])
    for i in range(N):
        sigma = SIGMA * (1 + 0.1 * i)
        image = (star + rng.normal(0, sigma, SHAPE)).astype(np.float32)
        image[rng.random(SHAPE) < 2e-3] += 500
        weight = np.full(SHAPE, 1 / sigma**2, np.float32)
        weight[:, 30 * i : 30 * i + 2] = 0
        names.append(f"e{i}.fits")
        fitsio.write(names[-1], image, header=header)
        fitsio.write(f"e{i}.weight.fits", weight, header=header)
        stack.append(image)
        weights.append(weight)
    return names, np.array(stack), np.array(weights)


def swarp(names, kind):
    """Combine with SWarp; image and weight."""
    program = next((p for p in ("SWarp", "swarp") if shutil.which(p)), None)
    if program is None:
        pytest.skip("SWarp is not installed")
    options = {
        "IMAGEOUT_NAME": "swarp.fits", "WEIGHTOUT_NAME": "swarp.weight.fits",
        "WEIGHT_TYPE": "MAP_WEIGHT", "RESAMPLE": "N", "COMBINE_TYPE": kind, "SUBTRACT_BACK": "N",
        "RESCALE_WEIGHTS": "N", "WRITE_XML": "N", "NTHREADS": "1", "VERBOSE_TYPE": "QUIET",
        "FSCALASTRO_TYPE": "NONE", "FSCALE_KEYWORD": "NONE", "GAIN_KEYWORD": "GAIN",
        "CLIP_SIGMA": "4.0", "CLIP_AMPFRAC": "0.3",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    subprocess.run([program, *names, *words], check=True, capture_output=True, timeout=60)
    return fitsio.read("swarp.fits"), fitsio.read("swarp.weight.fits")


def coadd(cli, names, *options):
    done = cli("assemble-coadd", *names, "-o", "c.fits", "--overwrite", "--weight", "pixel",
               "--set", "interp=false", *options)  # fmt: skip
    assert done.code == 0, done.err
    return (fitsio.read("c.fits", ext=name) for name in ("IMAGE", "VARIANCE", "WEIGHT"))


@pytest.mark.peer
def test_weighted_mean_equals_swarp(cli, images):
    names, _, _ = images
    image, variance, weight = coadd(cli, names, "--statistic", "mean")
    peer, peer_weight = swarp(names, "WEIGHTED")
    good = peer_weight > 0
    assert np.abs((image - peer)[good] / np.sqrt(variance[good])).max() < 1e-3
    np.testing.assert_allclose(weight[good], peer_weight[good], rtol=1e-5)


@pytest.mark.peer
def test_clipping_by_variance_equals_swarp(cli, images):
    names, _, _ = images
    image, variance, _ = coadd(
        cli, names, "--statistic", "meanclip", "--sigma-clip", "4",
        "--set", "clip_scale=input", "--set", "clip_amplitude=0.3",
    )  # fmt: skip
    peer, peer_weight = swarp(names, "CLIPPED")
    good = peer_weight > 0
    same = np.abs((image - peer)[good] / np.sqrt(variance[good])) < 1e-3
    assert same.mean() > 0.999


def test_median_equals_numpy(cli, images):
    names, stack, weights = images
    image, _, _ = coadd(cli, names, "--statistic", "median")
    expected = np.nanmedian(np.where(weights > 0, stack, np.nan), axis=0)
    np.testing.assert_array_max_ulp(image, expected.astype(np.float32), 1)
