"""PSF matching: accuracy and noise against other programs, and time against size.

    OPENBLAS_NUM_THREADS=1 python benchmarks/psf_match.py [--data FOLDER] [--size 2048]

Prints, for eight pairs of PSFs (four analytic, four real), the largest residual over the peak,
the sum of the absolute residual and the noise gain of each method on the same stamps; then the
seconds that solving and convolving take, in one thread, relative to one plain FFT of the image.
photutils and pypher take part where they are installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from coblend.core.box import Box
from coblend.core.params.match import MatchParams
from coblend.core.psf import AnalyticPsf, StampPsf
from coblend.core.psf.fields import ChebyshevField, n_terms
from coblend.core.psf.moments import FWHM_PER_SIGMA
from coblend.core.psf.resample import resized
from coblend.core.psfmatch.convolve import convolve
from coblend.core.psfmatch.delta import solve_delta
from coblend.core.psfmatch.match import match_models
from coblend.core.psfmatch.noise import squared
from coblend.core.psfmatch.transform import residual
from coblend.io.psf.psfs import parse_psf_spec

Stamp = NDArray[np.float64]
Method = Callable[[Stamp, Stamp], Stamp]

BOX = Box(0, 0, 500, 500)


def analytic_pairs() -> dict[str, tuple[Stamp, Stamp]]:
    """Pairs of analytic PSFs, 43 px, sampled at the pixel centres."""

    def stamp(kind: str, fwhm: float, beta: float = 3.0, e: float = 0.0) -> Stamp:
        e1, e2 = e * np.cos(np.pi / 3), e * np.sin(np.pi / 3)
        return AnalyticPsf(kind, fwhm, beta, e1, e2, integrated=False, size=43).stamp()

    s = FWHM_PER_SIGMA
    return {
        "gaussian": (stamp("GAUSSIAN", 2 * s), stamp("GAUSSIAN", 2.6 * s)),
        "moffat": (stamp("MOFFAT", 3.5, 2.5), stamp("GAUSSIAN", 5.5)),
        "ell. gauss.": (stamp("GAUSSIAN", 2 * s, e=0.15), stamp("GAUSSIAN", 2.5 * s)),
        "ell. moffat": (stamp("MOFFAT", 3.5, e=0.15), stamp("MOFFAT", 4.2)),
    }


def real_pairs(folder: Path) -> dict[str, tuple[Stamp, Stamp]]:
    """Real PSFs of four bands, each matched to the band of worst seeing."""
    if not folder.is_dir():
        return {}
    psf = {b: parse_psf_spec(str(folder / f"{b}.fits")).at(0, 0) for b in "grizy"}
    return {f"HSC {b}>g": (psf[b], psf["g"]) for b in "rizy"}


def methods() -> dict[str, Method]:
    """Kernel of each program at its defaults, by name."""

    def ours(**options: object) -> Method:
        def solve(source: Stamp, target: Stamp) -> Stamp:
            params = MatchParams(**options)  # type: ignore[arg-type]
            match = match_models(StampPsf(source), StampPsf(target), BOX, params)
            return match.kernel.at_many([0.0], [0.0])[0]

        return solve

    found = {
        "coblend": ours(),
        "coblend al-extended": ours(method="al-extended", kernel_size=41),
        "reference system": ours(**MatchParams.PRESETS["reference"]),
    }
    try:
        from photutils.psf_matching import make_kernel, make_wiener_kernel
    except ImportError:
        print("photutils is not installed")
    else:
        found["photutils threshold"] = lambda s, t: make_kernel(s, t)
        found["photutils wiener"] = lambda s, t: make_wiener_kernel(s, t)
    try:
        from pypher.pypher import homogenization_kernel
    except ImportError:
        print("pypher is not installed")
    else:
        found["pypher"] = lambda s, t: homogenization_kernel(t, s)[0]
    return found


def accuracy(folder: Path) -> None:
    """Print the table of residuals and noise."""
    pairs = analytic_pairs() | real_pairs(folder)
    solvers = methods()
    print("largest residual / sum of residual / noise gain")
    for name, (source, target) in pairs.items():
        print(f"\n{name}")
        for label, solve in solvers.items():
            kernel = solve(source, target)
            kernel = kernel / kernel.sum()
            left = np.abs(resized(residual(kernel, source, target), 43))
            print(
                f"  {label:20} {left.max() / target.max():8.1e} {left.sum():8.1e} "
                f"{np.sum(kernel**2):7.4f}"
            )


def seconds(call: Callable[[], object], repeat: int = 3) -> float:
    """Best time of several calls."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def timing(size: int) -> None:
    """Print times against kernel side, number of basis images and number of pixels."""
    source, target = analytic_pairs()["moffat"]
    print("\none kernel, by side:")
    for side in (21, 31, 41, 51, 61, 71):
        elapsed = seconds(lambda k=side: solve_delta(source, target, k, 1e-3, 30.0), 2)
        print(f"  {side:3d} px  {elapsed:7.3f} s")
    rng = np.random.default_rng(0)
    for n in (size // 2, size):
        image = rng.standard_normal((n, n), dtype=np.float32)
        box = Box(0, 0, n, n)
        plain = seconds(lambda i=image: fft.irfft2(fft.rfft2(i.astype(np.float64))))
        print(
            f"\n{n} x {n} pixels; a plain FFT there and back takes {plain:.2f} s; in units of it:"
        )
        for side in (21, 41):
            constant = ChebyshevField.of_constant(solve_delta(source, target, side, 1e-3, 30.0))
            row = [seconds(lambda i=image, b=box, c=constant: convolve(i, c, b)) / plain]
            for n_image in (4, 8, 12):
                basis = np.repeat(constant.basis, n_image, axis=0)
                basis = basis * rng.normal(size=(n_image, 1, 1))
                weights = rng.normal(size=(n_image, n_terms(5)))
                field = ChebyshevField(basis, weights, (-0.5, n - 0.5, -0.5, n - 0.5))
                row.append(seconds(lambda i=image, b=box, f=field: convolve(i, f, b), 1) / plain)
            print(f"  side {side}: constant {row[0]:.1f}, 4 images {row[1]:.1f}, "
                  f"8 images {row[2]:.1f}, 12 images {row[3]:.1f}")  # fmt: skip
    square = squared(field)
    print(f"\nthe last kernel squared needs {len(square.separable()[0])} images")


def main() -> None:
    """Run both parts."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=root.parent / "shared" / "data" / "hsc_cosmos_35"
    )
    parser.add_argument("--size", type=int, default=2048, help="side of the largest image")
    arguments = parser.parse_args()
    accuracy(arguments.data)
    timing(arguments.size)


if __name__ == "__main__":
    main()
