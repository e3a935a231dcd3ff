"""Detection against sep and SExtractor: completeness, purity, time, memory; growth with size.

    OPENBLAS_NUM_THREADS=1 python benchmarks/detect.py [--size 4000] [--repeat 7]

A crowded field (5600 sources per square kilopixel, half of them above 5 sigma, 85 % exponential
galaxies, 30 % in groups, counts falling as flux^-0.9, a PSF with wings, white and Poisson noise,
10 bad columns and a bad corner, background known) is searched by each program with the same
Gaussian kernel at 5 sigma of the filtered image, smallest area 1, no cleaning. Completeness: truth
of matched-filter significance >= 5 with a one-to-one match within 2 px. Purity: detections with
such a match to truth of significance >= 2. CPU seconds of one thread, median of alternating runs.
sep and SExtractor take part where installed.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from coblend.core.box import Box
from coblend.core.detect.filtering import gaussian_taps
from coblend.core.detect.search import detect
from coblend.core.exposure import Exposure
from coblend.core.params.detect import DetectParams
from coblend.core.psf.moments import adaptive_moments

PSF = ((0.88, 1.55), (0.12, 3.4))
EXPONENTIAL = ((0.07, 0.25), (0.30, 0.6), (0.43, 1.05), (0.20, 1.8))
"""Weights and widths, in half-light radii, of Gaussians that add up to an exponential disk."""
GAIN = 0.02
THRESHOLD = 5.0

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class Field:
    """A crowded field and its truth.

    Parameters
    ----------
    image, variance : array, shape (n, n), float32
        The image is NaN on bad pixels.
    truth : array, shape (n_source, 2)
        Positions y, x.
    significance : array, shape (n_source,)
        Matched-filter significance of each source alone.
    sigma : float
        Adaptive-moment width of the PSF.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    truth: Positions
    significance: NDArray[np.float64]
    sigma: float


def make_field(size: int, density: float = 5.6e-3, seed: int = 1) -> Field:
    """Draw the field."""
    rng = np.random.default_rng(seed)
    n = int(density * size**2)
    place = rng.uniform(0, size, (n, 2))
    member = np.arange(n) < 0.3 * n
    groups = rng.uniform(0, size, (max(int(0.3 * n / 12), 1), 2))
    near = groups[rng.integers(0, len(groups), n)] + rng.normal(0, 25, (n, 2))
    place = np.where(member[:, None], near, place)
    place = place[((place > 0) & (place < size - 1)).all(axis=1)]
    n = len(place)
    flux = np.minimum(19 * rng.uniform(1e-4, 1, n) ** (-1 / 0.9), 2e5)
    radius = np.where(rng.random(n) < 0.85, 1.2 * rng.lognormal(0, 0.4, n), 0.0)
    reach = 24
    sky = np.zeros((size + 2 * reach + 2,) * 2, np.float32)
    sigma = psf_width()
    significance = np.zeros(n)
    for i, (y, x) in enumerate(place):
        weight, width = components(radius[i])
        overlap = (weight / (2 * np.pi * (width**2 + sigma**2))).sum()
        significance[i] = flux[i] * overlap * np.sqrt(4 * np.pi) * sigma
        half = reach if flux[i] > 3000 else 12
        iy, ix = round(y), round(x)
        offset = np.arange(-half, half + 1)
        down = np.exp(-0.5 * ((offset + iy - y) / width[:, None]) ** 2)
        along = np.exp(-0.5 * ((offset + ix - x) / width[:, None]) ** 2)
        amplitude = flux[i] * weight / (2 * np.pi * width**2)
        top, left = iy + reach - half, ix + reach - half
        sky[top : top + len(offset), left : left + len(offset)] += (down.T * amplitude) @ along
    sky = sky[reach : reach + size, reach : reach + size]
    variance = 1 + GAIN * sky
    noise = rng.standard_normal(sky.shape, dtype=np.float32) * np.sqrt(variance)
    image = sky + noise
    image[:, rng.integers(0, size, max(size // 400, 1))] = np.nan
    image[-(size // 60) :, -(size // 60) :] = np.nan
    return Field(image, variance, place, significance, sigma)


def components(radius: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and widths of the Gaussians that make up a source seen through the PSF."""
    profile = EXPONENTIAL if radius else ((1.0, 0.0),)
    pairs = [(p * w, np.hypot(s, r * radius)) for p, s in PSF for w, r in profile]
    weight, width = np.array(pairs).T
    return weight, width


def psf_width() -> float:
    """Adaptive-moment width of the PSF."""
    r2 = np.add.outer(np.arange(-20, 21) ** 2, np.arange(-20, 21) ** 2)
    stamp = sum(w * np.exp(-0.5 * r2 / s**2) / (2 * np.pi * s**2) for w, s in PSF)
    return float(adaptive_moments(stamp).sigma[0])


def matches(a: Positions, b: Positions, radius: float = 2.0) -> int:
    """Count the one-to-one pairs within ``radius``, nearest first."""
    if not len(a) or not len(b):
        return 0
    pairs = cKDTree(a).sparse_distance_matrix(cKDTree(b), radius, output_type="ndarray")
    used_a, used_b = np.zeros(len(a), bool), np.zeros(len(b), bool)
    n = 0
    for i, j, _ in np.sort(pairs, order="v"):
        if not used_a[i] and not used_b[j]:
            used_a[i] = used_b[j] = True
            n += 1
    return n


def exposure_of(field: Field) -> Exposure:
    """Make an exposure of the field."""
    shape = field.image.shape
    return Exposure(
        field.image, np.zeros(shape, np.int32), field.variance, Box(0, 0, *shape), band="i"
    )


def programs(field: Field, folder: Path) -> dict[str, Callable[[], Positions]]:
    """Every program as a function that returns positions y, x."""
    exposure = exposure_of(field)

    def ours(*scales: float) -> Positions:
        params = DetectParams(psf_sigma=field.sigma, peak_scales=scales)
        peaks = detect(exposure, params).detections.peaks
        return np.stack([peaks["iy"], peaks["ix"]], axis=1).astype(float)

    out: dict[str, Callable[[], Positions]] = {
        "coblend": lambda: ours(1.0),
        "coblend, scales 1,0.6": lambda: ours(1.0, 0.6),
    }
    taps = gaussian_taps(field.sigma)
    kernel = np.outer(taps, taps)
    conv = THRESHOLD * float(np.sqrt((kernel**2).sum()))
    try:
        import sep
    except ImportError:
        sep = None
    if sep is not None:
        sep.set_extract_pixstack(max(300_000, field.image.size // 2))
        sep.set_sub_object_limit(100_000)
        error, bad = np.sqrt(field.variance), np.isnan(field.image)
        image = np.nan_to_num(field.image)

        def extract(how: str, level: float, contrast: float) -> Positions:
            found = sep.extract(
                image, level, err=error, mask=bad, filter_kernel=kernel, filter_type=how,
                minarea=1, deblend_cont=contrast, clean=False,
            )  # fmt: skip
            return np.stack([found["ycpeak"], found["xcpeak"]], axis=1).astype(float)

        out["sep conv"] = lambda: extract("conv", conv, 1.0)
        out["sep conv, deblend 0.005"] = lambda: extract("conv", conv, 0.005)
        out["sep conv, deblend 0.0001"] = lambda: extract("conv", conv, 0.0001)
        out["sep matched"] = lambda: extract("matched", THRESHOLD, 1.0)
    program = shutil.which("source-extractor") or shutil.which("sex")
    if program:
        out["SExtractor 0.005"] = source_extractor(program, field, kernel, conv, folder)
    return out


def source_extractor(
    program: str, field: Field, kernel: NDArray[np.float64], level: float, folder: Path
) -> Callable[[], Positions]:
    """SExtractor on files; its CPU time counts as that of a child."""
    import fitsio

    variance = np.where(np.isnan(field.image), np.float32(1e30), field.variance)
    fitsio.write(str(folder / "image.fits"), np.nan_to_num(field.image), clobber=True)
    fitsio.write(str(folder / "variance.fits"), variance, clobber=True)
    rows = "\n".join(" ".join(f"{v:.8f}" for v in row) for row in kernel)
    (folder / "kernel.conv").write_text(f"CONV NORM\n{rows}\n")
    (folder / "sky.param").write_text("XPEAK_IMAGE\nYPEAK_IMAGE\n")
    (folder / "empty.sex").write_text("")
    command = [
        program, "image.fits", "-c", "empty.sex", "-PARAMETERS_NAME", "sky.param",
        "-FILTER_NAME", "kernel.conv", "-DETECT_THRESH", str(level), "-ANALYSIS_THRESH",
        str(level), "-DETECT_MINAREA", "1", "-CLEAN", "N", "-BACK_TYPE", "MANUAL",
        "-BACK_VALUE", "0", "-WEIGHT_TYPE", "MAP_VAR", "-WEIGHT_IMAGE", "variance.fits",
        "-WEIGHT_GAIN", "N", "-WEIGHT_THRESH", "1e29", "-CATALOG_TYPE", "FITS_1.0",
        "-CATALOG_NAME", "out.fits", "-MEMORY_PIXSTACK", "20000000",
        "-MEMORY_OBJSTACK", "60000", "-NTHREADS", "1",
    ]  # fmt: skip

    def run() -> Positions:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        found = fitsio.read(str(folder / "out.fits"))
        return np.stack([found["YPEAK_IMAGE"], found["XPEAK_IMAGE"]], axis=1) - 1.0

    return run


def cpu_seconds() -> float:
    """CPU time of this process and its children."""
    own, children = (
        resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def compare(field: Field, repeat: int) -> None:
    """Print the table of programs."""
    size = len(field.image)
    bright = field.truth[field.significance >= 5]
    real = field.truth[field.significance >= 2]
    print(f"{size} x {size} px, {len(bright)} sources of significance >= 5, "
          f"PSF sigma {field.sigma:.3f} px")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        runs = programs(field, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        found: dict[str, Positions] = {}
        for _ in range(repeat):
            for name, run in runs.items():
                start = cpu_seconds()
                found[name] = run()
                seconds[name].append(cpu_seconds() - start)
    base = statistics.median(seconds.get("sep conv", seconds["coblend"]))
    print(f"{'program':28}{'n':>8}{'complete':>10}{'pure':>8}{'CPU s':>8}{'ratio':>8}")
    for name, positions in found.items():
        complete = matches(bright, positions) / len(bright)
        pure = matches(positions, real) / len(positions)
        time_used = statistics.median(seconds[name])
        print(f"{name:28}{len(positions):8d}{complete:10.3f}{pure:8.3f}{time_used:8.2f}"
              f"{time_used / base:8.2f}")  # fmt: skip


def growth(largest: int) -> None:
    """Print how time and memory grow with area and density."""
    print(f"{'pixels':>10}{'sources':>9}{'peaks':>8}{'CPU s':>8}{'us/px':>8}")
    for size, density in (
        (largest // 4, 5.6e-3), (largest // 2, 5.6e-3), (largest, 5.6e-3), (largest, 1.4e-3),
        (largest, 0.35e-3),
    ):  # fmt: skip
        field = make_field(size, density)
        exposure = exposure_of(field)
        params = DetectParams(psf_sigma=field.sigma)
        detect(exposure, params)
        start = time.process_time()
        peaks = detect(exposure, params).detections.peaks
        used = time.process_time() - start
        print(f"{size**2:10d}{len(field.truth):9d}{len(peaks):8d}{used:8.2f}"
              f"{1e6 * used / size**2:8.3f}")  # fmt: skip


def blank(size: int) -> None:
    """Print the false detections on blank correlated noise of 16 Mpx."""
    from scipy import ndimage

    kernel = np.array([1.0, 2.0, 1.0])
    n_false, scale = 0, []
    n_image = max(1, round(16e6 / size**2))
    for seed in range(n_image):
        noise = np.random.default_rng(seed).standard_normal((size, size))
        for axis in (0, 1):
            noise = ndimage.correlate1d(noise, kernel, axis, mode="wrap")
        noise /= np.sqrt((np.outer(kernel, kernel) ** 2).sum())
        image = noise.astype(np.float32)
        exposure = Exposure(
            image, np.zeros(image.shape, np.int32), np.ones_like(image), Box(0, 0, size, size)
        )
        found = detect(exposure, DetectParams(psf_sigma=1.93))
        n_false += len(found.detections.parents)
        scale.append(float(found.detections.meta["NOISESC1"]))
    print(f"blank, noise correlated by 1-2-1: noise scale {np.mean(scale):.3f} (exact 2.50), "
          f"{n_false} false footprints in {n_image * size**2 / 1e6:.0f} Mpx")  # fmt: skip


def false_alarms(size: int, n_image: int) -> None:
    """Print the peaks on white noise over the number that Gaussian statistics predict."""
    for sigma, u in ((1.5, 3.5), (1.5, 4.0), (2.5, 3.5), (2.5, 4.0), (3.5, 3.5), (3.5, 4.0)):
        params = DetectParams(psf_sigma=sigma, threshold=u, var_scale="none", noise_scale="none")
        n = sum(
            len(detect(blank_exposure(seed, size), params).detections.peaks)
            for seed in range(n_image)
        )
        rate = u * np.exp(-0.5 * u**2) / ((2 * np.pi) ** 1.5 * 2 * sigma**2)
        share = n / (rate * n_image * size**2)
        print(f"white noise, sigma {sigma}, {u} sigma: {n} peaks, {share:.2f} of the prediction")


def blank_exposure(seed: int, size: int) -> Exposure:
    """White noise of unit variance."""
    image = np.random.default_rng(seed).standard_normal((size, size), dtype=np.float32)
    mask = np.zeros(image.shape, np.int32)
    return Exposure(image, mask, np.ones_like(image), Box(0, 0, size, size))


def memory(field: Field) -> None:
    """Print the peak memory of a process of its own, with the exposure."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/field.npz", image=field.image, variance=field.variance)
        command = [
            sys.executable,
            __file__,
            "--peak-memory",
            f"{folder}/field.npz",
            str(field.sigma),
        ]
        used = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    n = field.image.size
    print(f"peak memory {used / 2**20:.0f} MiB: {(used - 150e6) / n:.1f} bytes per pixel + "
          "150 MB, of which 12 are image, variance and mask")  # fmt: skip


def peak_memory(path: str, sigma: float) -> None:
    """Search a saved field and print the peak memory of this process (byte)."""
    with np.load(path) as planes:
        image, variance = planes["image"], planes["variance"]
    mask = np.zeros(image.shape, np.int32)
    detect(Exposure(image, mask, variance, Box(0, 0, *image.shape)), DetectParams(psf_sigma=sigma))
    with open("/proc/self/status") as status:  # ru_maxrss would count the parent's too
        line = next(line for line in status if line.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024)


def main() -> None:
    """Run all."""
    if sys.argv[1:2] == ["--peak-memory"]:
        return peak_memory(sys.argv[2], float(sys.argv[3]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=4000, help="side of the field")
    parser.add_argument("--repeat", type=int, default=7, help="alternating runs")
    options = parser.parse_args()
    field = make_field(options.size)
    compare(field, options.repeat)
    memory(field)
    growth(options.size)
    blank(options.size)
    false_alarms(options.size // 2, 10)
    return None


if __name__ == "__main__":
    main()
