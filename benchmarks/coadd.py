"""Coadds side by side: a plain read of all bytes, coblend, SWarp, ccdproc, a naive numpy cube.

Run ``python benchmarks/coadd.py`` (options: ``--side 2048 --inputs 20 --growth``). Data are made
in a temporary folder, in memory where the system has ``/dev/shm``. Every tool runs as a process
of its own on one thread; the table shows CPU seconds (user and system), samples per CPU second,
the ratio to a loop that reads and byte-swaps everything, and peak memory. Tools that are not
installed are left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import fitsio
import numpy as np

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


def best(command: list[str], repeats: int) -> Cost | None:
    """Cheapest of several runs."""
    costs = [run(command) for _ in range(repeats)]
    good = [cost for cost in costs if cost is not None]
    return min(good, key=lambda cost: cost.seconds) if good else None


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
    program = next((p for p in SWARP if shutil.which(p)), None)
    if program:
        for kind in ("WEIGHTED", "CLIPPED", "MEDIAN"):
            commands[f"SWarp {kind}"] = swarp(program, names, output, kind)
    commands["numpy cube, nanmean"] = [*python, CUBE.format(function="nanmean"), *names]
    commands["numpy cube, nanmedian"] = [*python, CUBE.format(function="nanmedian"), *names]
    commands["ccdproc average"] = [*python, CCDPROC.format(options=""), *names]
    commands["ccdproc sigma clip"] = [*python, CCDPROC.format(options="sigma_clip=True"), *names]
    idle = run([*python, "import numpy"])
    costs = {label: best(command, repeats) for label, command in commands.items()}
    loop = costs["read and byte-swap"]
    samples = n * side**2 / 1e6
    print(f"{n} images of {side} x {side} with weight maps, {samples:.0f} Mpix\n")
    print(f"{'':24}{'CPU s':>8}{'Mpix/s':>9}{'x loop':>8}{'MiB':>7}")
    for label, cost in costs.items():
        if cost is None or loop is None or idle is None:
            print(f"{label:24}{'-':>8}")
            continue
        ratio = cost.seconds / max(loop.seconds - idle.seconds, 1e-3)
        rate = samples / cost.seconds
        print(f"{label:24}{cost.seconds:8.2f}{rate:9.1f}{ratio:8.1f}{cost.peak:7.0f}")


def growth(folder: str, repeats: int) -> None:
    """Show how cost and memory grow with the number of inputs and with the height."""
    print(f"\n{'meanclip, 1024 columns':24}{'CPU s':>8}{'Mpix/s':>9}{'MiB':>7}")
    for n, rows in ((5, 1024), (20, 1024), (80, 1024), (20, 4096), (20, 8192)):
        names = make(folder, n, (rows, 1024))
        output = os.path.join(folder, "out.fits")
        command = coblend(names, output, "--statistic", "meanclip", "--max-memory", "256MiB")
        cost = best(command, repeats)
        label = f"N = {n}, {rows} rows"
        if cost is None:
            print(f"{label:24}{'-':>8}")
        else:
            rate = n * rows * 1024 / 1e6 / cost.seconds
            print(f"{label:24}{cost.seconds:8.2f}{rate:9.1f}{cost.peak:7.0f}")
        for name in names:
            os.remove(name)
            os.remove(name[:-5] + ".weight.fits")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="also N, height and memory")
    parser.add_argument("--make", nargs=4, metavar=("FOLDER", "N", "NY", "NX"))
    options = parser.parse_args()
    if options.make:
        make_data(options.make[0], int(options.make[1]), tuple(map(int, options.make[2:])))
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        side_by_side(folder, options.inputs, options.side, options.repeats)
        if options.growth:
            growth(folder, options.repeats)


if __name__ == "__main__":
    main()
