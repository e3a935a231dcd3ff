"""Kernel files: what `psf-match` convolved with, ready to be applied again.

``KRNSPMOD = 'CHEBYSHEV1'``: ``KERNEL_BASIS`` (n, k, k) and ``KERNEL_COEF`` (n, n_term), and

    K(x, y) = sum_b [ sum_t COEF[b, t] phi_t(xi, eta) ] BASIS[b]
    xi = (2 x - XMIN - XMAX) / (XMAX - XMIN), eta likewise; x, y parent coordinates

with ``phi_t = T_{n-j}(xi) T_j(eta)``, n ascending, j = 0 ... n. ``'GRID'``: a 4-D lattice of
kernels in ``KERNEL_BASIS``, cubic splines between. ``'CELLS'``: one kernel per row of
``KERNEL_CELLS``, that of the nearest centre holds. True convolution, the centre at k // 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coblend.core.box import Box
from coblend.core.catalog import Column, table_dtype
from coblend.core.errors import FormatError, concerning
from coblend.core.exposure import HeaderValue
from coblend.core.psf.fields import CellField, ChebyshevField, Kernel, LatticeField
from coblend.io.fits.reader import FitsFile
from coblend.io.fits.writer import FitsWriter
from coblend.io.psf.fields import lattice_header, lattice_nodes, read_field, write_field

_CELLS = (
    Column("cell", "i4", "plane of KERNEL_BASIS", "", "meta.record"),
    Column("xc", "f8", "column of the centre, parent coordinates", "pixel", "pos.cartesian.x"),
    Column("yc", "f8", "row of the centre, parent coordinates", "pixel", "pos.cartesian.y"),
)


def write_kernel(
    out: FitsWriter, kernel: Kernel, header: Mapping[str, HeaderValue] | None = None
) -> None:
    """Append the HDUs of a kernel to a file of schema ``kernel/1``.

    Parameters
    ----------
    out : FitsWriter
    kernel : Field
    header : mapping, optional
        Further keywords of ``KERNEL_BASIS``.
    """
    head: dict[str, HeaderValue] = {"KRNVER": 1, "KRNCONV": "CONVOLUTION", **(header or {})}
    if isinstance(kernel, ChebyshevField):
        head["KRNSPMOD"] = "CHEBYSHEV1"
        write_field(out, kernel, "KERNEL_BASIS", "KERNEL_COEF", head, "KRN")
    elif isinstance(kernel, LatticeField):
        head |= {"KRNSPMOD": "GRID", "KRNINTRP": kernel.interpolation.upper()}
        head |= lattice_header(kernel.y, kernel.x)
        out.image("KERNEL_BASIS", kernel.images, header=head)
    else:
        out.image("KERNEL_BASIS", kernel.images, header={**head, "KRNSPMOD": "CELLS"})
        rows = np.zeros(len(kernel.images), table_dtype(_CELLS))
        rows["cell"], rows["xc"], rows["yc"] = np.arange(len(rows)), kernel.x, kernel.y
        out.table("KERNEL_CELLS", rows, columns=_CELLS)


def read_kernel(file: FitsFile, box: Box) -> Kernel:
    """Read the kernel of a file of schema ``kernel/1``, to be used on ``box``.

    Raises
    ------
    SchemaError, FormatError
        When it is another kind of file, the kernel is damaged, or was made for other pixels.
    """
    file.require_schema("kernel")
    header = file.header("KERNEL_BASIS")
    model = str(header.get("KRNSPMOD", "")).strip().upper()
    with concerning(file.path, "KERNEL_BASIS"):
        if model == "CHEBYSHEV1":
            field = read_field(file, "KERNEL_BASIS", "KERNEL_COEF", "KRN")
            _check_covers(field, box)
            return field
        images = file.image("KERNEL_BASIS").astype(np.float64)
        if model == "GRID":
            how = str(header.get("KRNINTRP", "CUBIC")).strip().lower()
            return LatticeField(images, *lattice_nodes(images.shape, header), how)
        if model == "CELLS":
            rows = file.table("KERNEL_CELLS", ["cell", "yc", "xc"])
            return CellField(images[rows["cell"]], rows["yc"], rows["xc"])
        raise FormatError(f"KRNSPMOD is {model!r}; known: CHEBYSHEV1, GRID, CELLS")


def _check_covers(field: ChebyshevField, box: Box) -> None:
    """Refuse to extrapolate a polynomial."""
    x_min, x_max, y_min, y_max = field.domain
    inside = x_min <= box.x0 and box.x1 <= x_max + 1 and y_min <= box.y0 and box.y1 <= y_max + 1
    if not field.constant and not inside:
        raise FormatError(
            f"the kernel was made for x {x_min:g} to {x_max:g}, y {y_min:g} to {y_max:g}; "
            f"the image covers {box}"
        )
