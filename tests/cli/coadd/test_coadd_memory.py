"""Peak memory of coadds, whatever the number and the height of the inputs."""

import json
import os
import subprocess
import sys

import fitsio
import numpy as np
import pytest


def peak(words, in_folder):
    """Peak memory (MiB) of a run of the program, which a shell starts: a child's peak begins
    with the size of the process that it comes from.
    """
    shell = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "coblend", *words]
    done = subprocess.run([*shell, "--json", "-q"], capture_output=True, check=True, cwd=in_folder)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rows"), [(20, 4096), (200, 1024)])
@pytest.mark.parametrize("statistic", ["mean", "meanclip"])
def test_memory_is_bounded(in_folder, rng, n, rows, statistic):
    """Whatever the number of inputs and their height, and as the dry run says."""
    fitsio.write("a.fits", rng.standard_normal((rows, 512), np.float32))
    fitsio.write("weight.fits", np.ones((rows, 512), np.float32))
    names = []
    for i in range(n):  # the same pixels: what is measured is memory
        os.link("a.fits", f"{i}.fits")
        os.link("weight.fits", f"{i}.weight.fits")
        names.append(f"{i}.fits")
    (in_folder / "list.txt").write_text("\n".join(names))
    words = ("assemble-coadd", "@list.txt", "-o", "c.fits", "--statistic", statistic,
             "--max-memory", "200MiB", "--set", "compress=none")  # fmt: skip
    planned = peak([*words, "-n"], in_folder)["memory_mib"]
    used = peak(words, in_folder)["peak_rss_mib"]
    assert used <= planned <= 200


@pytest.mark.slow
def test_memory_of_the_comparison_is_bounded(write, stamp, in_folder, rng):
    shape = (6000, 512)
    image = rng.standard_normal(shape, np.float32)
    names = []
    for kind in "dm":
        write("plain.fits", image, psf=stamp(7.7, 41))
        for i in range(6):
            os.link("plain.fits", f"{kind}{i}.fits")
            names.append(f"{kind}{i}.fits")
        os.unlink("plain.fits")
    words = ["assemble-coadd", *names[:6], "--reject", "compare-warp", "--psf-matched",
             ",".join(names[6:]), "-o", "c.fits", "--set", "compress=none", "--set",
             "faint_artifacts=true", "--max-memory"]  # fmt: skip
    for limit in (200, 1000):  # the planes are on disk, or in memory
        planned = peak([*words, f"{limit}MiB", "-n"], in_folder)["memory_mib"]
        used = peak([*words, f"{limit}MiB", "--overwrite"], in_folder)["peak_rss_mib"]
        assert used <= planned <= limit
