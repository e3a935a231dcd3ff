"""Coadds in files: planes written a few rows at a time, and the tables of their inputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from coblend.core.box import Box
from coblend.core.catalog import Column, empty_table
from coblend.core.errors import FormatError
from coblend.core.exposure import HeaderValue, round_mantissa
from coblend.core.mask import STANDARD, MaskPlanes
from coblend.core.psf import StampPsf
from coblend.core.psf.coadd import CoaddPsf, InputMap, InputPsf
from coblend.io.coadd.warps import Warp, header_float
from coblend.io.exposure.calibration import raised
from coblend.io.exposure.frame import frame_header, frame_origin
from coblend.io.exposure.lossy import rounding_step
from coblend.io.fits.reader import FitsFile, open_fits, text_of
from coblend.io.fits.writer import FitsWriter
from coblend.io.psf.psfs import read_psf, write_psf

Edit = Callable[[NDArray[Any], NDArray[np.int32]], NDArray[Any]]

INPUT_MAP = "INPUTMAP"
"""EXTNAME of the first plane of an input map; the others are INPUTMAP_2 and so on."""


def input_map_names(n_planes: int) -> tuple[str, ...]:
    """EXTNAMEs of the planes of an input map."""
    return tuple(INPUT_MAP + (f"_{p + 1}" if p else "") for p in range(n_planes))


class PlaneStore:
    """Planes of a coadd under construction.

    They are kept on disk, in files that have no name and vanish with the process, so that memory
    does not grow with the coadd; or in memory where they fit.

    Parameters
    ----------
    folder : str or None
        Where there is room; None: in memory.
    dtypes : mapping of str to dtype
        Planes by name.
    shape : tuple of int
    """

    def __init__(
        self, folder: str | None, dtypes: Mapping[str, DTypeLike], shape: tuple[int, int]
    ) -> None:
        self.shape = shape
        self.dtypes = {name: np.dtype(dtype) for name, dtype in dtypes.items()}
        self._files: dict[str, IO[bytes]] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._rows = dict.fromkeys(dtypes, 0)
        with ExitStack() as stack:
            for name, dtype in self.dtypes.items():
                if folder is None:
                    self._arrays[name] = np.empty(shape, dtype)
                else:
                    self._files[name] = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            self._stack = stack.pop_all()

    @property
    def n_bytes_in_memory(self) -> int:
        """Memory that the planes take."""
        return sum(plane.nbytes for plane in self._arrays.values())

    def __enter__(self) -> PlaneStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, **rows: NDArray[Any]) -> None:
        """Append whole rows to the planes named."""
        for name, block in rows.items():
            if name in self._arrays:
                first = self._rows[name]
                self._arrays[name][first : first + len(block)] = block
                self._rows[name] = first + len(block)
            else:
                block.astype(self.dtypes[name], copy=False).tofile(self._files[name])

    def read(self, name: str, first: int, last: int) -> NDArray[Any]:
        """Rows ``first`` to ``last`` (exclusive) of a plane."""
        if name in self._arrays:
            return self._arrays[name][first:last]
        file, dtype, width = self._files[name], self.dtypes[name], self.shape[1]
        file.seek(first * width * dtype.itemsize)
        return np.fromfile(file, dtype, (last - first) * width).reshape(-1, width)

    def blocks(self, name: str, n_rows: int = 256) -> Iterator[NDArray[Any]]:
        """Yield the rows of a plane, ``n_rows`` at a time, in order."""
        height = self.shape[0]
        for row in range(0, height, n_rows):
            yield self.read(name, row, min(row + n_rows, height))


INPUT_COLUMNS = (
    Column("input", "i4", "number of the input", ucd="meta.id"),
    Column("warp", "U120", "file", ucd="meta.file"),
    Column("used", "?", "whether it is part of the coadd", ucd="meta.code"),
    Column("reason", "U16", "why it is not: EMPTY, WEIGHT or NOOVERLAP", ucd="meta.code"),
    Column("weight", "f8", "weight, one over the unit squared", ucd="stat.weight"),
    Column("mean_variance", "f8", "clipped mean of the scaled variance", ucd="stat.variance"),
    Column("scale", "f8", "factor on the image", ucd="arith.factor"),
    Column("zero_point", "f8", "AB magnitude of one count before scaling", "mag", "phot.mag"),
    Column("unit", "U16", "unit before scaling", ucd="meta.unit"),
    Column("good_pixels", "i8", "pixels used (goodpix)", ucd="meta.number"),
    Column("clipped_pixels", "i8", "pixels clipped", ucd="meta.number"),
    Column("rejected_pixels", "i8", "pixels masked or not finite", ucd="meta.number"),
    Column("psf", "U16", "HDU of its PSF, in its own coordinates", ucd="meta.ref"),
    Column("dy", "i4", "coadd row minus own row", "pixel", "pos.cartesian.y;arith.diff"),
    Column("dx", "i4", "coadd column minus own column", "pixel", "pos.cartesian.x;arith.diff"),
    Column("x0", "i4", "first column, coadd coordinates", "pixel", "pos.cartesian.x"),
    Column("y0", "i4", "first row", "pixel", "pos.cartesian.y"),
    Column("nx", "i4", "columns", "pixel", "instr.pixel;meta.number"),
    Column("ny", "i4", "rows", "pixel", "instr.pixel;meta.number"),
    Column("band", "U16", "band", ucd="instr.bandpass"),
    Column("date_obs", "U32", "DATE-OBS of the input", ucd="time.epoch"),
    Column("mjd", "f8", "MJD of the input", "d", "time.epoch"),
    Column("exptime", "f8", "exposure time", "s", "time.duration;obs.exposure"),
    Column("datasum", "U16", "DATASUM of the image", ucd="meta.checksum"),
)
"""Columns of INPUTS."""


def inputs_table(warps: Sequence[Warp]) -> NDArray[Any]:
    """Make INPUTS with what the headers tell; the rest is for the caller to fill."""
    table = empty_table(INPUT_COLUMNS, len(warps))
    for row, warp in zip(table, warps, strict=True):
        row["warp"] = os.path.basename(warp.path)
        row["unit"], row["band"] = warp.unit, warp.band
        row["zero_point"] = np.nan if warp.zero_point is None else warp.zero_point
        row["date_obs"] = str(warp.header.get("DATE-OBS", ""))
        row["mjd"] = header_float(warp.header, "MJD-AVG", "MJD-OBS", "MJD")
        row["exptime"] = header_float(warp.header, "EXPTIME")
        row["datasum"] = str(warp.header.get("DATASUM", ""))
    table["input"] = np.arange(len(warps))
    return table


POLYGON_COLUMNS = (
    Column("input", "i4", "number of the input", ucd="meta.id"),
    Column("x", "f8", "column of the vertex, parent coordinates", "pixel", "pos.cartesian.x"),
    Column("y", "f8", "row of the vertex", "pixel", "pos.cartesian.y"),
)
"""Columns of POLYGONS: the vertices of the outline of each input, in order."""


def polygons_table(polygons: Sequence[NDArray[np.float64] | None]) -> NDArray[Any]:
    """Make POLYGONS of the outlines ``(y, x)``, shape (2, n), of inputs; None: no polygon."""
    known = [(i, p) for i, p in enumerate(polygons) if p is not None]
    table = empty_table(POLYGON_COLUMNS, sum(p.shape[1] for _, p in known))
    if known:
        table["input"] = np.concatenate([np.full(p.shape[1], i) for i, p in known])
        table["y"], table["x"] = np.concatenate([p for _, p in known], axis=1)
    return table


def write_polygon(out: FitsWriter, polygon: NDArray[np.float64]) -> None:
    """Write POLYGONS of a single exposure: vertices ``(y, x)``, shape (2, n)."""
    out.table("POLYGONS", polygons_table([polygon]), columns=POLYGON_COLUMNS)


def write_planes(
    out: FitsWriter,
    store: PlaneStore,
    box: Box,
    planes: MaskPlanes,
    *,
    header: Mapping[str, HeaderValue],
    wcs: Sequence[str],
    edits: Mapping[str, Edit] | None = None,
    compress: str = "auto",
) -> None:
    """Write the planes of a store: IMAGE with ``header``, MASK, VARIANCE and further ones.

    Parameters
    ----------
    out : FitsWriter
    store : PlaneStore
    box : Box
    planes : MaskPlanes
    header : mapping
    wcs : sequence of str
    edits : mapping of str to function, optional
        Last changes by plane: rows and the same rows of MASK to what is written.
    compress : str
        ``auto`` (lossless), ``none``, or ``lossy``, which holds IMAGE and VARIANCE in memory: as
        `coblend.io.exposure.exposures.write_exposure` does it.
    """
    frame = frame_header(box)
    unit = str(header.get("BUNIT", ""))
    squared = {"BUNIT": raised(unit, 2)} if unit else {}
    bits = {f"MP_{name}": bit for name, bit in planes.union(STANDARD).bits.items()}
    own: dict[str, Mapping[str, HeaderValue]] = {
        "IMAGE": {"EXTTYPE": "IMAGE", "INHERIT": True, **header},
        "MASK": {"EXTTYPE": "MASK", "INHERIT": True, **bits},
        "VARIANCE": {"EXTTYPE": "VARIANCE", "INHERIT": True, **squared},
    }
    for name, dtype in store.dtypes.items():
        wide = dtype.kind == "f" or name.startswith(INPUT_MAP)
        codec = "GZIP_2" if wide else "PLIO_1"
        blocks = store.blocks(name)
        edit = (edits or {}).get(name)
        if edit is not None:
            blocks = map(edit, blocks, store.blocks("MASK"))
        cards = {**own.get(name, {}), **frame}
        if compress == "lossy" and name == "IMAGE":
            image, variance = (np.concatenate(list(b)) for b in (blocks, store.blocks("VARIANCE")))
            step = rounding_step(image, variance)
            out.image(name, image, header=cards, wcs=wcs, step=step)
            continue
        if compress == "lossy" and name == "VARIANCE":
            blocks = map(round_mantissa, blocks)
        out.stream(name, blocks, store.shape, dtype, header=cards, wcs=wcs,
                   compress="none" if compress == "none" else codec)  # fmt: skip


def write_mask(
    out: FitsWriter,
    blocks: Iterable[NDArray[np.int32]],
    box: Box,
    planes: MaskPlanes,
    wcs: Sequence[str],
) -> None:
    """Write MASK alone, from blocks of whole rows in order."""
    bits = {f"MP_{name}": bit for name, bit in planes.union(STANDARD).bits.items()}
    out.stream(
        "MASK", blocks, box.shape, "i4", header={**bits, **frame_header(box)}, wcs=wcs,
        compress="PLIO_1",
    )  # fmt: skip


def write_input_psfs(out: FitsWriter, table: NDArray[Any], psfs: Sequence[InputPsf]) -> None:
    """Write INPUTS, POLYGONS and one HDU per distinct PSF of the inputs.

    Parameters
    ----------
    out : FitsWriter
    table : structured array
        INPUTS; the column ``psf`` is filled here.
    psfs : sequence of InputPsf
        Of the inputs used, in order; empty if they have none.
    """
    known: dict[bytes, str] = {}
    rows = np.flatnonzero(table["used"])
    for i, source in zip(rows, psfs, strict=False):
        stamped = isinstance(source.psf, StampPsf)
        key = source.psf.at(0, 0).tobytes() if stamped else str(i).encode()
        if key not in known:
            known[key] = f"PSF_{i + 1:04d}"
            write_psf(out, source.psf, known[key])
        table["psf"][i] = known[key]
    outlines: list[NDArray[np.float64] | None] = [None] * len(table)
    for i, source in zip(rows, psfs, strict=False):
        outlines[i] = source.polygon
    out.table("INPUTS", table, columns=INPUT_COLUMNS)
    polygons = polygons_table(outlines)
    if len(polygons):
        out.table("POLYGONS", polygons, columns=POLYGON_COLUMNS)


def read_coadd_psf(path: str, *, exact: bool = False) -> CoaddPsf:
    """PSF of a coadd from the PSFs of its inputs, at any position.

    Parameters
    ----------
    path : str
    exact : bool
        Whether to leave out inputs that were clipped or masked at a pixel; needs the input map
        (``assemble-coadd --set input_map=true``).

    Raises
    ------
    FormatError
        The coadd does not hold its inputs' PSFs, or no input map.
    """
    with open_fits(path) as file:
        file.require_schema("exposure")
        rows = file.table("INPUTS")
        rows = rows[rows["used"]]
        names = [text_of(name) for name in rows["psf"]]
        if not names or not all(names):
            raise FormatError("the coadd holds no PSFs of its inputs", path, "INPUTS")
        models = {name: read_psf(file, None, name) for name in dict.fromkeys(names)}
        polygons = file.table("POLYGONS") if file.has("POLYGONS") else None
        sources = []
        for row, name in zip(rows, names, strict=True):
            psf = models[name]
            if psf is None:
                raise FormatError(f"no HDU {name}", path, "INPUTS")
            own = None if polygons is None else polygons[polygons["input"] == row["input"]]
            outline = None if own is None or not len(own) else np.stack([own["y"], own["x"]])
            box = Box(*(int(row[k]) for k in ("y0", "x0", "ny", "nx")))
            offset = int(row["dy"]), int(row["dx"])
            sources.append(InputPsf(psf, float(row["weight"]), box, offset, outline))
        return CoaddPsf(sources, _input_map(file, rows) if exact else None)


def _input_map(file: FitsFile, rows: NDArray[Any]) -> InputMap:
    names = [name for name in file.names if name.startswith(INPUT_MAP)]
    if not names:
        raise FormatError(
            "no input map", file.path, hint="make the coadd with --set input_map=true"
        )
    planes = np.stack([file.image(name) for name in names])
    origin = frame_origin(file.header(names[0]), file.path)
    chosen = np.zeros((-(-len(rows) // 31), *planes.shape[1:]), np.int32)
    for k, i in enumerate(rows["input"]):  # inputs that were not used have no PSF
        chosen[k // 31] |= (planes[i // 31] >> (i % 31) & 1) << (k % 31)
    return InputMap(Box(*origin, *planes.shape[1:]), chosen)
