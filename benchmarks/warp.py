"""Resampling side by side: coblend and reproject, the same image, variance and grids.

Run ``python benchmarks/warp.py`` (options: ``--side 2048 --repeats 3``) where reproject is
installed. White noise and stars of FWHM 3 pixels are turned by 30 degrees onto pixels 5 % larger;
the table shows CPU seconds of one thread for image and variance, output pixels per CPU second, the
worst relative error of the flux of 40 stars, and the noise squared over the variance, which is 1
where the variance is that of the pixels.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

for _name in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
from astropy.wcs import WCS  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from coblend.core.box import Box  # noqa: E402
from coblend.core.coadd.pixelmap import PixelMap, lattice  # noqa: E402
from coblend.core.coadd.resample import resample  # noqa: E402

Image = NDArray[np.float32]
Resampler = Callable[[Image, Image], tuple[Image, Image]]
SIGMA = 3 / 2.3548


def plane(angle: float, scale: float, side: int) -> WCS:
    """Tangent plane turned by ``angle`` degrees, ``scale`` arcseconds per pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150, 2]
    wcs.wcs.crpix = [side / 2 + 1, side / 2 + 1]
    cos, sin = (f(np.radians(angle)) * scale / 3600 for f in (np.cos, np.sin))
    wcs.wcs.cd = [[-cos, sin], [sin, cos]]
    return wcs


def ours(source: WCS, target: WCS, side: int, kernel: str, image: Image, variance: Image):
    """Resample with coblend; positions are exact every 10 pixels."""
    rows, columns = lattice(Box(0, 0, side, side), 10)
    x, y = np.meshgrid(columns, rows)
    at = source.all_world2pix(*target.all_pix2world(x.ravel(), y.ravel(), 0), 0)
    pixel_map = PixelMap(
        Box(0, 0, side, side), rows, columns, at[1].reshape(y.shape), at[0].reshape(y.shape)
    )
    mask = np.zeros(image.shape, np.int32)
    done = resample(image, mask, variance, pixel_map, kernel=kernel)
    return done.image, done.variance


def theirs(source: WCS, target: WCS, side: int, how: str, image: Image, variance: Image):
    """Resample with reproject, which keeps surface brightness and knows no variance: that is
    resampled as another image, once with the area of a pixel and once with its square.
    """  # noqa: D205
    import reproject

    function = reproject.reproject_adaptive if how == "adaptive" else reproject.reproject_interp
    options = {"conserve_flux": True} if how == "adaptive" else {"order": how}
    area = 1.0 if how == "adaptive" else 1.05**2
    out = [
        function((data, source), target, shape_out=(side, side), return_footprint=False, **options)
        for data in (image, variance)
    ]
    return out[0] * area, out[1] * area**2


def stars(side: int) -> tuple[Image, NDArray[np.float64]]:
    """40 stars of flux 1 in the middle half of an image, and their ``y, x``."""
    rng = np.random.default_rng(2)
    image, places = np.zeros((side, side), np.float32), rng.uniform(0.25, 0.75, (40, 2)) * side
    ys, xs = np.mgrid[-15:16, -15:16]
    for y, x in places:
        r, c = round(y), round(x)
        stamp = np.exp(-((ys + r - y) ** 2 + (xs + c - x) ** 2) / 2 / SIGMA**2)
        image[r - 15 : r + 16, c - 15 : c + 16] += stamp / (2 * np.pi * SIGMA**2)
    return image, places


def worst_flux(image: Image, before: Image, y: NDArray, x: NDArray, places: NDArray) -> float:
    """Largest relative change of the light within 15 pixels of a star."""
    errors = []
    for at, old in zip(zip(y, x, strict=True), places, strict=True):
        fluxes = []
        for plane, (v, u), radius in ((image, at, 15 / 1.05), (before, old, 15.0)):
            ys, xs = np.mgrid[round(v) - 16 : round(v) + 17, round(u) - 16 : round(u) + 17]
            near = (ys - v) ** 2 + (xs - u) ** 2 < radius**2
            fluxes.append(np.sum(plane[ys, xs] * near, dtype=float))
        errors.append(abs(fluxes[0] / fluxes[1] - 1))
    return max(errors)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    side = options.side
    source, target = plane(30, 0.2, side), plane(0, 0.21, side)
    tools: dict[str, Resampler] = {
        f"coblend {kernel}": partial(ours, source, target, side, kernel)
        for kernel in ("lanczos3", "bilinear")
    }
    try:
        import reproject
    except ImportError:
        print("reproject is not installed")
    else:
        for how in ("bilinear", "bicubic", "adaptive"):
            name = f"reproject {reproject.__version__} {how}"
            tools[name] = partial(theirs, source, target, side, how)
    noise = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    ones, (sky, places) = np.ones_like(noise), stars(side)
    x, y = target.all_world2pix(*source.all_pix2world(places[:, 1], places[:, 0], 0), 0)
    inner = np.s_[side // 4 : -side // 4, side // 4 : -side // 4]
    print(f"{'':28}{'CPU s':>8}{'Mpix/s':>8}{'flux error':>12}{'noise/variance':>16}")
    for label, tool in tools.items():
        costs = []
        for _ in range(options.repeats):
            started = time.process_time()
            image, variance = tool(noise, ones)
            costs.append(time.process_time() - started)
        pull = float(np.var(image[inner] / np.sqrt(variance[inner])))
        flux = worst_flux(tool(sky, ones)[0], sky, y, x, places)
        rate = side**2 / 1e6 / min(costs)
        print(f"{label:28}{min(costs):8.2f}{rate:8.2f}{flux:12.1e}{pull:16.3f}")


if __name__ == "__main__":
    main()
