"""Kernel files: every form survives a file exactly; damaged ones are refused."""

from __future__ import annotations

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.errors import FormatError, SchemaError
from coblend.core.psf.fields import CellField, ChebyshevField, LatticeField
from coblend.io.fits.reader import open_fits
from coblend.io.fits.writer import create
from coblend.io.psf.kernels import read_kernel, write_kernel

BOX = Box(0, 0, 200, 300)


def kernels() -> list[object]:
    rng = np.random.default_rng(8)
    return [
        ChebyshevField(rng.normal(size=(3, 9, 9)), rng.normal(size=(3, 6)),
                       (-0.5, 299.5, -0.5, 199.5)),
        ChebyshevField.of_constant(rng.normal(size=(9, 9))),
        ChebyshevField.of_constant(np.ones((1, 1))),
        LatticeField(rng.normal(size=(4, 5, 9, 9)), np.arange(4) * 66.3, np.arange(5) * 74.75),
        LatticeField(rng.normal(size=(2, 1, 9, 9)), [0, 199], [7], "linear"),
        CellField(rng.normal(size=(6, 9, 9)), *rng.uniform(0, 200, (2, 6))),
    ]  # fmt: skip


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "kernel.fits")


def save(path: str, kernel: object) -> None:
    with create(path, "kernel/1", overwrite=True) as out:
        write_kernel(out, kernel, {"KRNMETH": "delta"})


@pytest.mark.parametrize("kernel", kernels(), ids=lambda k: type(k).__name__)
def test_every_kernel_survives_a_file_exactly(path, kernel, rng):
    save(path, kernel)
    with open_fits(path) as file:
        twin = read_kernel(file, BOX)
        assert file.header("KERNEL_BASIS")["KRNCONV"] == "CONVOLUTION"
    y, x = rng.uniform(0, 199, 7), rng.uniform(0, 299, 7)
    assert type(twin) is type(kernel)
    np.testing.assert_allclose(twin.at_many(y, x), kernel.at_many(y, x), rtol=0, atol=1e-13)


def test_kernels_of_cells_as_anyone_reads_them(path, rng):
    """The lines of docs/psf-match.md."""
    kernel = kernels()[-1]
    save(path, kernel)
    basis, cells = fitsio.read(path, "KERNEL_BASIS"), fitsio.read(path, "KERNEL_CELLS")
    for y, x in rng.uniform(0, 200, (9, 2)):
        nearest = np.hypot(cells["xc"] - x, cells["yc"] - y).argmin()
        np.testing.assert_array_equal(basis[cells["cell"][nearest]], kernel.at_many(y, x)[0])


@pytest.mark.parametrize(
    ("changes", "coefficients", "message"),
    [
        ({}, np.full((3, 6), np.nan), "not all finite"),
        ({}, np.ones((2, 6)), "3 basis images"),
        ({}, np.ones((3, 5)), "5 terms"),
        ({"KRNXMAX": None}, np.ones((3, 6)), "KRNXMAX is absent"),
        ({"KRNSPMOD": "WAVELET"}, np.ones((3, 6)), "KRNSPMOD is 'WAVELET'"),
    ],
)
def test_inconsistent_files(path, changes, coefficients, message):
    header = {"KRNSPMOD": "CHEBYSHEV1", "KRNXMIN": -0.5, "KRNXMAX": 299.5, "KRNYMIN": -0.5,
              "KRNYMAX": 199.5, **changes}  # fmt: skip
    with create(path, "kernel/1") as out:
        out.image("KERNEL_BASIS", np.ones((3, 9, 9)), header=header)
        out.image("KERNEL_COEF", coefficients, compress="none")
    with open_fits(path) as file, pytest.raises(FormatError, match=message):
        read_kernel(file, BOX)


def test_other_pixels_and_other_files(path):
    save(path, kernels()[0])
    with open_fits(path) as file, pytest.raises(FormatError, match=r"was made for x -0\.5 to"):
        read_kernel(file, Box(0, 0, 200, 400))
    with create(path, "det/1", overwrite=True):
        pass
    with open_fits(path) as file, pytest.raises(SchemaError, match="expected schema kernel"):
        read_kernel(file, BOX)
