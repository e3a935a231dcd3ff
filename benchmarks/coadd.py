"""Coadds side by side: a plain read of all bytes, coblend, SWarp, ccdproc, a naive numpy cube.

Run ``python benchmarks/coadd.py`` (options: ``--side 2048 --inputs 20 --repeats 5 --growth
--compare``). Data are made in a temporary folder, in memory where the system has
``/dev/shm``. Every tool runs as a process of its own on one thread, all of them in turn, so that
each meets the same load of the machine; the tables show the least and the median CPU seconds
(user and system), samples per CPU second, the ratio to a loop that reads and byte-swaps
everything, and peak memory. Tools that are not installed are left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import fitsio
import numpy as np
from scipy.ndimage import gaussian_filter

from coblend.core.box import Box
from coblend.core.psf import StampPsf
from coblend.core.psf.coadd import CoaddPsf, InputPsf

SWARP = ("SWarp", "swarp")
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}

READ = """
import sys
for path in sys.argv[1:]:
    with open(path, "rb") as stream:
        while stream.read(1 << 22):
            pass
"""
SWAP = """
import sys
import numpy as np
for path in sys.argv[1:]:
    np.fromfile(path, ">f4").byteswap().view("=f4")
"""
CUBE = """
import sys
import fitsio
import numpy as np
cube = np.stack([fitsio.read(path) for path in sys.argv[1:]])
np.{function}(cube, axis=0)
"""
CCDPROC = """
import sys
import warnings
warnings.simplefilter("ignore")
from ccdproc import combine
combine(sys.argv[1:], unit="adu", method="average", mem_limit=5e8, {options})
"""


@dataclass(frozen=True)
class Cost:
    """CPU seconds and peak memory (MiB) of one process."""

    seconds: float
    peak: float


def run(command: list[str]) -> Cost | None:
    """Run a command; None when it fails."""
    process = subprocess.Popen(
        command, env={**os.environ, **THREADS}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return None
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def in_turn(commands: dict[str, list[str]], repeats: int) -> dict[str, list[Cost]]:
    """Run all commands one after the other, several times; leaves out those that fail."""
    costs: dict[str, list[Cost]] = {label: [] for label in commands}
    for _ in range(repeats):
        for label, command in commands.items():
            cost = run(command) if label in costs else None
            if cost is None:
                costs.pop(label, None)
            else:
                costs[label].append(cost)
    return costs


def make(folder: str, n: int, shape: tuple[int, int]) -> list[str]:
    """Make data in a process of its own: a child's peak memory counts that of its parent."""
    command = [sys.executable, __file__, "--make", folder, str(n), *map(str, shape)]
    subprocess.run(command, check=True)
    return sorted(
        os.path.join(folder, name)
        for name in os.listdir(folder)
        if name.startswith(f"{n}_{shape[0]}_") and not name.endswith(".weight.fits")
    )


def make_data(folder: str, n: int, shape: tuple[int, int]) -> None:
    """Images with weight maps and checksums: noise, outliers, dead columns."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 5, shape).astype(np.float32)
    for i in range(n):
        image = np.roll(base, (37 * i, 91 * i), (0, 1))
        image[rng.random(shape) < 5e-4] += 1000
        weight = np.full(shape, 1 / 25 / (1 + 0.01 * i) ** 2, np.float32)
        column = (100 * i) % (shape[1] - 2)
        weight[:, column : column + 2] = 0
        name = os.path.join(folder, f"{n}_{shape[0]}_{i:03d}")
        for path, data in ((name + ".fits", image), (name + ".weight.fits", weight)):
            with fitsio.FITS(path, "rw", clobber=True) as out:
                out.write(data)
                out[0].write_checksum()


def coblend(names: list[str], output: str, *options: str) -> list[str]:
    """Command line of assemble-coadd."""
    head = [sys.executable, "-m", "coblend", "assemble-coadd", *names, "-o", output]
    return [*head, "--overwrite", "--set", "compress=none", "-q", *options]


def swarp(program: str, names: list[str], output: str, kind: str) -> list[str]:
    """Command line of SWarp for images that are already aligned."""
    options = {
        "IMAGEOUT_NAME": output, "WEIGHTOUT_NAME": output + ".weight.fits",
        "WEIGHT_TYPE": "MAP_WEIGHT", "RESAMPLE": "N", "COMBINE_TYPE": kind, "SUBTRACT_BACK": "N",
        "WRITE_XML": "N", "NTHREADS": "1", "RESCALE_WEIGHTS": "N", "VERBOSE_TYPE": "QUIET",
    }  # fmt: skip
    return [program, *names, *(word for k, v in options.items() for word in (f"-{k}", v))]


def side_by_side(folder: str, n: int, side: int, repeats: int) -> None:
    """Compare the tools on ``n`` images of ``side`` squared."""
    names = make(folder, n, (side, side))
    everything = names + [name[:-5] + ".weight.fits" for name in names]
    output = os.path.join(folder, "out.fits")
    python = [sys.executable, "-c"]
    commands = {
        "plain read": [*python, READ, *everything],
        "read and byte-swap": [*python, SWAP, *everything],
    }
    for statistic in ("mean", "meanclip", "median"):
        commands[f"coblend {statistic}"] = coblend(names, output, "--statistic", statistic)
    commands["coblend meanclip, scatter"] = coblend(
        names, output, "--statistic", "meanclip", "--set", "clip_scale=scatter"
    )
    program = next((p for p in SWARP if shutil.which(p)), None)
    if program:
        for kind in ("WEIGHTED", "CLIPPED", "MEDIAN"):
            commands[f"SWarp {kind}"] = swarp(program, names, output, kind)
    commands["numpy cube, nanmean"] = [*python, CUBE.format(function="nanmean"), *names]
    commands["numpy cube, nanmedian"] = [*python, CUBE.format(function="nanmedian"), *names]
    commands["ccdproc average"] = [*python, CCDPROC.format(options=""), *names]
    commands["ccdproc sigma clip"] = [*python, CCDPROC.format(options="sigma_clip=True"), *names]
    costs = in_turn({"import numpy": [*python, "import numpy"], **commands}, repeats)
    print(f"{n} images of {side} x {side} with weight maps, {repeats} runs in turn\n")
    show(costs, n * side**2 / 1e6)
    ratios(costs)


def show(costs: dict[str, list[Cost]], samples: float) -> None:
    """Print one row per tool; ``samples`` in millions."""
    loop = least(costs, "read and byte-swap") - least(costs, "import numpy")
    print(f"{'':24}{'CPU s':>8}{'median':>8}{'Mpix/s':>9}{'x loop':>8}{'MiB':>7}")
    for label, runs in costs.items():
        seconds = sorted(cost.seconds for cost in runs)
        peak = max(cost.peak for cost in runs)
        row = f"{label:24}{seconds[0]:8.2f}{seconds[len(seconds) // 2]:8.2f}"
        relative = f"{seconds[0] / loop:8.1f}" if loop > 0 else f"{'':8}"
        print(f"{row}{samples / seconds[0]:9.1f}{relative}{peak:7.0f}")


def least(costs: dict[str, list[Cost]], label: str) -> float:
    """CPU seconds of the cheapest run."""
    return min((cost.seconds for cost in costs.get(label, [])), default=float("nan"))


def ratios(costs: dict[str, list[Cost]]) -> None:
    """Print how often SWarp's CPU time contains ours, run by run: least, median, largest."""
    print()
    for ours, theirs in (
        ("coblend mean", "SWarp WEIGHTED"),
        ("coblend meanclip", "SWarp CLIPPED"),
        ("coblend meanclip, scatter", "SWarp CLIPPED"),
        ("coblend median", "SWarp MEDIAN"),
    ):
        if ours in costs and theirs in costs:
            pairs = zip(costs[theirs], costs[ours], strict=True)
            found = sorted(a.seconds / b.seconds for a, b in pairs)
            middle = found[len(found) // 2]
            print(f"{theirs} / {ours}: {found[0]:.2f}, {middle:.2f}, {found[-1]:.2f}")


def growth(folder: str, repeats: int) -> None:
    """Show how cost and memory grow with the number of inputs and with the height."""
    print("\nmeanclip, 1024 columns, --max-memory 256MiB")
    for n, rows in ((5, 1024), (20, 1024), (80, 1024), (200, 1024), (20, 4096), (20, 8192)):
        names = make(folder, n, (rows, 1024))
        output = os.path.join(folder, "out.fits")
        command = coblend(names, output, "--statistic", "meanclip", "--max-memory", "256MiB")
        (runs,) = in_turn({"": command}, repeats).values()
        seconds, peak = min(c.seconds for c in runs), max(c.peak for c in runs)
        rate = n * rows * 1024 / 1e6 / seconds
        print(f"{f'N = {n}, {rows} rows':24}{seconds:8.2f}{rate:9.1f}{peak:7.0f}")
        for name in names:
            os.remove(name)
            os.remove(name[:-5] + ".weight.fits")


def compare(folder: str, n: int, side: int, repeats: int) -> None:
    """Artifact rejection: epochs with a PSF, matched ones the same; all of it, per sample."""
    subprocess.run(
        [sys.executable, __file__, "--make", folder, str(n), str(side), "epochs"], check=True
    )
    names = [os.path.join(folder, f"{kind}{i:02d}.fits") for kind in "dm" for i in range(n)]
    output = os.path.join(folder, "out.fits")
    words = ("--reject", "compare-warp", "--psf-matched", ",".join(names[n:]))
    costs = in_turn({"compare-warp": coblend(names[:n], output, *words)}, repeats)
    print(f"\n{n} epochs of {side} x {side}, direct and PSF-matched\n")
    show(costs, n * side**2 / 1e6)


def make_epochs(folder: str, n: int, side: int) -> None:
    """Epochs of stars in correlated noise with cosmic rays and trails."""
    rng = np.random.default_rng(1)
    stars = rng.integers(20, side - 20, (side**2 // 3000, 2))
    sky = np.zeros((side, side), np.float32)
    sky[stars[:, 0], stars[:, 1]] = 10 ** rng.uniform(2, 4.3, len(stars))
    sky, noise = gaussian_filter(sky, 3.27), gaussian_filter(rng.normal(size=sky.shape), 0.8)
    y, x = np.mgrid[:41, :41] - 20
    psf = np.exp(-(y**2 + x**2) / 2 / 3.27**2)
    for i in range(n):
        extra = np.zeros_like(sky)
        for a, b in rng.integers(8, side - 8, (side**2 // 35000, 2)):
            extra[a : a + 4, b : b + 4] += rng.uniform(10, 80)
        if i % 4 == 0:
            t = np.arange(side)
            extra[t, (t * 0.6 + rng.integers(0, side // 3)).astype(int)] += 60
        image = sky + np.roll(noise / noise.std(), (37 * i, 91 * i), (0, 1))
        image = (image + gaussian_filter(extra, 1.0)).astype(np.float32)
        for kind in "dm":
            with fitsio.FITS(os.path.join(folder, f"{kind}{i:02d}.fits"), "rw") as out:
                out.write(image, extname="IMAGE")
                out.write(np.zeros(image.shape, np.int32), extname="MASK",
                          header={"MP_NO_DATA": 8, "MP_BAD": 0, "MP_EDGE": 4})  # fmt: skip
                out.write(np.ones_like(image), extname="VARIANCE")
                out.write(psf / psf.sum(), extname="PSF")


def positions(n_input: int = 20, n: int = 10_000) -> None:
    """Time the PSF of a coadd at many positions; inputs cover parts of it."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:31, :31] - 15
    inputs = []
    for k in range(n_input):
        stamp = np.exp(-(y**2 + x**2) / 2 / (1.5 + 0.05 * k) ** 2)
        corner = (0, 0) if k == 0 else rng.integers(-900, 900, 2).tolist()
        box = Box(*corner, 4000, 4000)
        inputs.append(InputPsf(StampPsf(stamp / stamp.sum()), 1.0, box))
    psf, (y, x) = CoaddPsf(inputs), rng.uniform(0, 3999, (2, n))
    started = time.process_time()
    psf.at_many(y, x)
    seconds = time.process_time() - started
    print(f"\nPSF at {n} positions, {n_input} inputs: {seconds:.2f} CPU s")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="also N, height and memory")
    parser.add_argument("--compare", action="store_true", help="also artifact rejection")
    parser.add_argument("--make", nargs=4, metavar=("FOLDER", "N", "NY", "NX"))
    options = parser.parse_args()
    if options.make and options.make[3] == "epochs":
        make_epochs(options.make[0], int(options.make[1]), int(options.make[2]))
        return
    if options.make:
        make_data(options.make[0], int(options.make[1]), tuple(map(int, options.make[2:])))
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        side_by_side(folder, options.inputs, options.side, options.repeats)
        positions()
        if options.growth:
            growth(folder, options.repeats)
        if options.compare:
            compare(folder, options.inputs, options.side, options.repeats)


if __name__ == "__main__":
    main()
