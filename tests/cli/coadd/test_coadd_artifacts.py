"""Artifact rejection on files: cosmic rays, trails and variable stars in simulated epochs."""

import os

import fitsio
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from scipy.signal import fftconvolve

from coblend.core.mask import PLANES

CLIPPED = 1 << PLANES["CLIPPED"]
FWHM = 7.7


class Epochs:
    """Matched epochs with 30 bursts in 1024 x 1024 pixels, a trail in every fourth, fluxes that do
    not fit by 0.2 %, correlated noise of standard deviation 1, and 15 stars that vary: no two
    epochs are alike. (Of three, of which two are, the third is an artifact.)
    """

    def __init__(self, n, side, seed):
        rng, area = np.random.default_rng(seed), side**2 / 1024**2
        stars = rng.integers(12, side - 12, (round(400 * area), 2))
        self.variable = rng.integers(15, side - 15, (max(round(15 * area), 5), 2))
        sky = np.zeros((side, side), np.float32)
        sky[tuple(stars.T)] = 10 ** rng.uniform(2, 4.3, len(stars))
        sky = gaussian_filter(sky, FWHM / 2.3548)
        half = 15
        star = np.zeros((2 * half + 1, 2 * half + 1))
        star[half, half] = 1
        star = gaussian_filter(star, FWHM / 2.3548)
        levels = np.linspace(500, max(8000, 900 * n), n)
        fluxes = np.stack([rng.permutation(levels) for _ in self.variable], axis=1)
        noise = gaussian_filter(rng.standard_normal((side, side), np.float32), 0.8)
        noise /= noise.std()
        self.images, self.artifacts = [], []
        for i in range(n):
            image, extra = sky.copy(), np.zeros_like(sky)
            for (y, x), flux in zip(self.variable, fluxes[i], strict=True):
                image[y - half : y + half + 1, x - half : x + half + 1] += flux * star
            for y, x in rng.integers(8, side - 8, (max(round(30 * area), 6), 2)):
                height, width = rng.integers(2, 6, 2)
                extra[y : y + height, x : x + width] += rng.uniform(10, 80)
            if i % 4 == 0:
                t = np.arange(side)
                extra[t, (t * 0.6 + rng.integers(0, side // 3)).astype(int)] += 60
            self.artifacts.append(gaussian_filter(extra, 1.0))
            image *= rng.normal(1, 0.002)
            own = np.roll(noise, rng.integers(0, side, 2), (0, 1))
            self.images.append(image + own * rng.choice([-1, 1]) + self.artifacts[-1])


def compare(cli, write, images, psf, *options):
    """Compare epochs that are their own PSF-matched versions; the messages."""
    for i, image in enumerate(images):
        write(f"d{i}.fits", image, psf=psf)
        os.link(f"d{i}.fits", f"m{i}.fits")
    direct, matched = ([f"{kind}{i}.fits" for i in range(len(images))] for kind in "dm")
    done = cli("assemble-coadd", *direct, "--reject", "compare-warp", "--psf-matched",
               ",".join(matched), "-o", "c.fits", "--set", "compress=none", *options)  # fmt: skip
    assert done.code == 0, done.err
    return done.err


def reject(cli, write, stamp, images):
    """What is clipped of each epoch, and the messages."""
    err = compare(cli, write, images, stamp(FWHM, 41), "--set", "artifact_masks=a_{name}.fits",
                  "--set", "template=t.fits")  # fmt: skip
    masks = (fitsio.read(f"a_d{i}.fits", ext="MASK") for i in range(len(images)))
    return [mask & CLIPPED != 0 for mask in masks], err


def protected(image, variance):
    """Where the template, smoothed by its PSF, is above 300 sigma, and what is near."""
    sigma = FWHM / 2.3548
    half = int(3.5 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.hypot(*np.mgrid[-half : half + 1, -half : half + 1]) / sigma) ** 2)
    kernel /= kernel.sum()
    image, variance = (
        fftconvolve(plane, k, mode="same") for plane, k in ((image, kernel), (variance, kernel**2))
    )
    return distance_transform_edt(image < 300 * np.sqrt(variance)) <= int(2.4 * sigma + 0.5)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("n", "side"),
    [
        (5, 384),
        pytest.param(3, 1024, marks=slow),
        pytest.param(5, 1024, marks=slow),
        pytest.param(12, 1024, marks=slow),
        pytest.param(20, 1024, marks=slow),
    ],
)
def test_artifacts_go_and_variable_stars_stay(cli, write, stamp, in_folder, n, side):
    epochs = Epochs(n, side, seed=n)
    cut, _ = reject(cli, write, stamp, epochs.images)
    free = ~protected(*(fitsio.read("t.fits", ext=name) for name in ("IMAGE", "VARIANCE")))
    changing = np.zeros_like(free)
    for y, x in epochs.variable:
        changing[y - 12 : y + 13, x - 12 : x + 13] = True
    free &= ~changing
    counts = np.zeros(4, int)
    for mask, extra in zip(cut, epochs.artifacts, strict=True):
        real = (extra > 8.25 * np.sqrt(1 + 1 / (n - 1))) & free
        quiet = gaussian_filter(extra, 3) < 1e-3
        counts += (
            np.count_nonzero(real & mask), np.count_nonzero(real),
            np.count_nonzero(mask & free & quiet), label(mask & changing & quiet)[1],
        )  # fmt: skip
    found, real, spurious, hit = counts
    assert found >= 0.96 * real
    assert spurious < 2e-4 * n * side**2
    assert hit <= 0.02 * len(epochs.variable) * n


def test_two_epochs_clip_nothing(cli, write, stamp, in_folder):
    cut, err = reject(cli, write, stamp, Epochs(2, 384, seed=2).images)
    assert not np.any(cut)
    assert "no artifact can be told from a source" in err


@pytest.mark.slow
def test_epochs_that_may_differ(cli, write, stamp, in_folder, rng):
    """For 1 to 200 epochs: the k-th block of pixels is seen by the first k, the first has a burst.

    The limit is ``int(min(0.4 n, 2 + 0.03 n))``: none for 1 and 2, one up to 4, two up to 33.
    """
    n, block, per_row = 200, 8, 20
    row, column = np.divmod(np.arange(n), per_row)
    y, x = row * block + block // 2 - 1, column * block + block // 2 - 1
    images = []
    for i in range(n):
        image = rng.normal(0, 1, (n // per_row * block, per_row * block))
        if i == 0:
            for dy, dx in np.ndindex(2, 2):
                image[y + dy, x + dx] = 100
        seen = np.repeat(np.repeat((np.arange(n) >= i).reshape(-1, per_row), block, 0), block, 1)
        images.append(np.where(seen, image, np.nan))
    compare(cli, write, images, stamp(2.0, 11))
    table = fitsio.read("c.fits", ext="ARTIFACTS")
    table = np.sort(table[table["input"] == 0], order="n_image")
    np.testing.assert_array_equal(table["n_image"], np.arange(2, n + 1))  # one has no template
    steps = {2: 0, 3: 1, 5: 2, 34: 3, 67: 4, 100: 5, 134: 6, 167: 7, 200: 8}
    step = np.searchsorted(list(steps), table["n_image"], side="right") - 1
    np.testing.assert_array_equal(table["max_epochs"], np.array(list(steps.values()))[step])
    mask = fitsio.read("c.fits", ext="MASK")
    assert not (mask[y[:2], x[:2]] & CLIPPED).any()
    assert (mask[y[2:], x[2:]] & CLIPPED).all()


@pytest.mark.parametrize("faint", [False, True])
def test_faint_trails_and_ghosts(cli, write, stamp, in_folder, rng, faint):
    """A trail of 4 sigma and a disc of 3 sigma, both too faint to be seen pixel by pixel."""
    side, sigma = 300, FWHM / 2.3548
    y, x = np.mgrid[:side, :side]
    trail = 4 * np.exp(-np.square((y - 0.3 * x - 60) / np.hypot(1, 0.3)) / 2 / sigma**2)
    ghost = 3 * gaussian_filter((np.hypot(y - 220, x - 200) < 35).astype(float), 3)
    images = []
    for i in range(6):
        noise = gaussian_filter(rng.standard_normal((side, side)), 0.8)
        images.append(noise / noise.std() + (i == 1) * trail + (i == 4) * ghost)
    compare(cli, write, images, stamp(FWHM, 41), "--set", "artifact_masks=a_{name}.fits", "--set",
            f"faint_artifacts={faint}")  # fmt: skip
    for i in range(6):
        cut = fitsio.read(f"a_d{i}.fits", ext="MASK") & CLIPPED != 0
        extra = (i == 1) * trail + (i == 4) * ghost
        assert not cut[extra < 0.01].any()
        if extra.any():
            assert cut[extra > 1].mean() > 0.85 if faint else not cut.any()
