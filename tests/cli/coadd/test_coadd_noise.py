"""The noise of coadds: its variance, what clipping costs, outliers."""

import os

import fitsio
import numpy as np
import pytest

SCATTER = ("--set", "clip_scale=scatter")
LOSS = 0.01036
"""Clipped fraction of 20 Gaussian samples at 3 sigma after two iterations, from `survivors` and
20 million samples (standard error 2e-5). With variances divided by n instead of n - 1 in the
iteration, which the definition does not say, it is 0.0111."""


def survivors(samples, k=3.0, n_iter=2):
    """Which samples survive, from the definition written out; shape of the samples."""
    lower, centre, upper = np.quantile(samples, (0.25, 0.5, 0.75), axis=0)
    half = k * 0.741301109252802 * (upper - lower)
    for _ in range(n_iter):
        inside = np.abs(samples - centre) <= half
        n = inside.sum(axis=0)
        centre = np.sum(samples, axis=0, where=inside) / n
        spread = np.sum(np.square(samples - centre), axis=0, where=inside) / (n - 1)
        half = k * np.sqrt(spread)
    return inside


@pytest.fixture(scope="module")
def white(tmp_path_factory):
    """Noise with one weight map for all, and the same with outliers."""
    folder, rng = tmp_path_factory.mktemp("white"), np.random.default_rng(7)
    fitsio.write(folder / "weight.fits", np.full((1024, 1024), 1 / 25, np.float32))
    names = {"clean": [], "dirty": []}
    for i in range(20):
        image = 5 * rng.standard_normal((1024, 1024), np.float32)
        for kind, group in names.items():
            if kind == "dirty":
                hit = rng.random(image.shape, np.float32) < 5e-4
                image[hit] += rng.uniform(100, 5000, hit.sum()).astype(np.float32)
            group.append(str(folder / f"{kind}{i:02d}.fits"))
            fitsio.write(group[-1], image)
            os.symlink(folder / "weight.fits", folder / f"{kind}{i:02d}.weight.fits")
    return names


def test_clipped_fraction_of_the_definition(rng):
    """The number that coadds must reproduce."""
    inside = survivors(rng.normal(size=(20, 200_000)))
    assert 1 - inside.mean() == pytest.approx(LOSS, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        (("mean",), 0.995, 1.005),
        (("meanclip", *SCATTER), 0.995, 1.04),
        (("meanclip",), 0.995, 1.04),
        (("median",), 0.99, 1.01),
    ],
)
def test_noise_is_that_of_the_variance_plane(coadd, white, in_folder, options, low, high):
    out = coadd(white["clean"], "--statistic", *options)
    assert low < np.std(out["IMAGE"] / np.sqrt(out["VARIANCE"])) < high
    if SCATTER[0] in options:
        assert out["header"]["CLIPLOSS"] == pytest.approx(LOSS, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["scatter", "input"])
def test_outliers_are_removed(coadd, white, in_folder, scale):
    out = coadd(white["dirty"], "--statistic", "meanclip", "--set", f"clip_scale={scale}")
    assert np.count_nonzero(np.abs(out["IMAGE"]) > 6 * np.sqrt(out["VARIANCE"])) == 0
    assert (out["INPUTS"]["clipped_pixels"] > 5e-4 * 1024**2).all()


@pytest.mark.slow
def test_a_million_pixels_equal_the_definition(coadd, white, in_folder):
    """Survivors of MEANCLIP, and MEDIAN, pixel by pixel."""
    out = coadd(white["dirty"], "--statistic", "meanclip", *SCATTER)
    median = coadd(white["dirty"], "--statistic", "median")["IMAGE"]
    n_different, n_rows = 0, 128
    for first in range(0, 1024, n_rows):
        rows = np.s_[first : first + n_rows]
        samples = np.stack([fitsio.FITS(name)[0][rows, :] for name in white["dirty"]])
        expected = np.median(samples.astype(float), axis=0).astype(np.float32)
        np.testing.assert_array_equal(median[rows], expected)
        n_used = survivors(samples.astype(float)).sum(axis=0)
        n_different += np.count_nonzero(out["NIMAGE"][rows] != n_used)
    assert n_different <= 1e-6 * out["NIMAGE"].size
