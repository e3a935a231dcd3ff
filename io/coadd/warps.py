"""Inputs of a coadd: what their headers tell, and their pixels a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError, ShapeMismatchError
from coblend.core.exposure import HeaderValue
from coblend.core.mask import MaskPlanes
from coblend.core.params.coadd import NANOJANSKY
from coblend.core.psf.base import Psf
from coblend.io.coadd.grid import Grid, is_framed
from coblend.io.coadd.inputs import Listed
from coblend.io.coadd.rows import RowReader
from coblend.io.exposure.checks import require_scale
from coblend.io.exposure.dialects import find_planes, image_header
from coblend.io.exposure.exposures import band_of
from coblend.io.exposure.frame import frame_origin
from coblend.io.exposure.planes import Plane, Planes
from coblend.io.fits.columns import numbers_of
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.specs import FileSpec, parse_band_spec
from coblend.io.psf.psfs import parse_psf_spec, read_psf
from coblend.io.sky.wcs import wcs_cards

ZERO_POINT_KEYS = ("MAGZERO", "MAGZP", "MAGZPT", "PHOTZP", "ZP", "PHOTZPT")
"""Keywords of the AB magnitude of one count, in order of preference."""

_N_ROWS = 4  # of a section that are looked at

Pixels = tuple[NDArray[np.float32], NDArray[np.int32] | None, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Warp:
    """What is known of an input before its pixels are read.

    Parameters
    ----------
    grid : Grid
        Pixels covered.
    planes : MaskPlanes
    unit, band : str
    zero_point : float or None
    psf : Psf or None
        In parent coordinates of the file.
    header : mapping
        Of the image, over that of the primary HDU.
    polygon : array, shape (2, n), or None
        Outline ``(y, x)`` of the covered part of the box, parent coordinates of the file.
    scales : array, shape (3, n), or None
        Rows of ZPGRID: ``y``, ``x`` (parent coordinates of the file) and the factor on the image.
    scale, weight : float, optional
        Factor on the image, and weight, of a table of inputs.
    """

    grid: Grid
    planes: MaskPlanes
    unit: str
    band: str
    zero_point: float | None
    psf: Psf | None
    header: Mapping[str, HeaderValue]
    polygon: NDArray[np.float64] | None
    scales: NDArray[np.float64] | None
    scale: float | None = None
    weight: float | None = None

    @property
    def path(self) -> str:
        """The file."""
        return self.grid.path

    @property
    def box(self) -> Box:
        """Pixels covered, parent coordinates of the file."""
        return self.grid.box

    @property
    def wcs(self) -> tuple[str, ...]:
        """Celestial WCS, array coordinates."""
        return self.grid.wcs


class WarpFile:
    """An input, read by sections; use `open_warp`.

    Parameters
    ----------
    info : Warp
    origin : tuple of int
        Parent coordinates ``(y, x)`` of the first pixel in the file.
    planes : Planes
        What its numbers mean.
    image : RowReader
    noise, mask : RowReader or None
    """

    def __init__(
        self,
        info: Warp,
        origin: tuple[int, int],
        planes: Planes,
        image: RowReader,
        noise: RowReader | None,
        mask: RowReader | None,
    ) -> None:
        self.info = info
        self._origin = origin
        self._planes = planes
        self._image, self._noise, self._mask = image, noise, mask
        self._checked = False
        self._files: dict[str, FitsFile] = {}

    @property
    def straight(self) -> bool:
        """Whether a few rows cost no more than their bytes: nothing is compressed."""
        planes = (self._image, self._noise, self._mask)
        return all(plane is None or plane.straight for plane in planes)

    @property
    def paths(self) -> list[str]:
        """Files that the planes are in, that of the image first."""
        return self._planes.paths

    @property
    def whole(self) -> bool:
        """Whether a few rows cost as much as all: a plane is in a gzipped file."""
        planes = (self._image, self._noise, self._mask)
        return any(plane is not None and plane.whole for plane in planes)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep the files open while some sections are read: gzipped ones are unpacked once."""
        with ExitStack() as stack:
            self._files = self._open(stack)
            try:
                yield
            finally:
                self._files = {}

    def _open(self, stack: ExitStack) -> dict[str, FitsFile]:
        """Open the files whose planes are not read straight, by path."""
        planes = (self._image, self._noise, self._mask)
        paths = {plane.path for plane in planes if plane is not None and not plane.straight}
        return {path: stack.enter_context(open_fits(path)) for path in sorted(paths)}

    def read(self, box: Box, target: MaskPlanes) -> Pixels:
        """Image, mask (None if there is none) and variance of a section.

        Parameters
        ----------
        box : Box
            Parent coordinates of the file.
        target : MaskPlanes
            Where the planes go in the mask; bits without a name are dropped.
        """
        section = box.slices(Box(*self._origin, *self._image.shape))
        planes = self._planes
        with ExitStack() as stack:
            files = self._files or self._open(stack)
            image = planes.image.linear(self._image.read(*section, files.get(self._image.path)))
            image = image.astype(np.float32, copy=False)
            noise: NDArray[Any] = image
            if self._noise is not None and planes.noise.plane is not None:
                noise = self._noise.read(*section, files.get(self._noise.path))
                noise = planes.noise.plane.linear(noise)
            mask = None
            if self._mask is not None:
                words = self._mask.read(*section, files.get(self._mask.path))
                mask = planes.code.decode(words, target)
        self._require_scale(noise, image)
        return image, mask, planes.noise.variance(noise.astype(np.float32, copy=False), image)

    def _require_scale(self, noise: NDArray[Any], image: NDArray[np.float32]) -> None:
        """Check the first rows read, before they are rounded to 32 bits."""
        if not self._checked:
            rows = slice(None, None, max(len(noise) // _N_ROWS, 1))
            some = self._planes.noise.variance(noise[rows].astype(np.float64), image[rows])
            path = self.info.path if self._noise is None else self._noise.path
            require_scale(some, path, "VARIANCE")
            self._checked = True


def open_warp(listed: Listed) -> WarpFile:
    """Read everything but the pixels of an input of a coadd.

    Parameters
    ----------
    listed : Listed
        ``[BAND=]FILE[HDU][x1:x2,y1:y2]``, and what stands in the place of its header.

    Raises
    ------
    CoblendError
        The file cannot be used, with file and HDU.
    """
    band, spec = parse_band_spec(listed.file)
    with open_fits(spec.path) as file:
        planes = find_planes(file, spec).scaled(file)
        image = _rows(file, planes.image, "IMAGE")
        mask = None if planes.mask is None else _rows(file, planes.mask, "MASK")
        plane = planes.noise.plane
        noise = None if plane is None else _rows(file, plane, "VARIANCE")
        info = _describe(file, spec, planes, band)
    for name, rows in (("VARIANCE", noise), ("MASK", mask)):
        if rows is not None and rows.shape != image.shape:
            raise ShapeMismatchError(
                f"{name} has {_size(rows.shape)} pixels, IMAGE {_size(image.shape)}", spec.path
            )
    origin = info.box.y0, info.box.x0
    if spec.section is not None:
        info = replace(info, grid=info.grid.cut(spec.section))
    return WarpFile(_as_listed(info, listed), origin, planes, image, noise, mask)


def _as_listed(info: Warp, listed: Listed) -> Warp:
    """Let a table of inputs overrule the header."""
    return replace(
        info,
        scale=listed.scale,
        weight=listed.weight,
        zero_point=info.zero_point if listed.zero_point is None else listed.zero_point,
        psf=parse_psf_spec(listed.psf) if listed.psf else info.psf,
    )


def require_same_band(warps: Sequence[Warp]) -> None:
    """Refuse inputs of different bands; an unknown band goes with any.

    Raises
    ------
    FormatError
    """
    known = [warp for warp in warps if warp.band]
    for warp in known:
        if warp.band != known[0].band:
            raise FormatError(
                f"band {warp.band}, but {known[0].path} has {known[0].band}",
                warp.path,
                hint=f"if they belong together name the band: {known[0].band}={warp.path}",
            )


def _describe(file: FitsFile, spec: FileSpec, planes: Planes, band: str | None) -> Warp:
    index = planes.image.hdu
    own = file.header(index)
    header = image_header(file, planes)
    y0, x0 = frame_origin(own, spec.path)
    box = Box(y0, x0, *file.hdus[index].shape)
    unit = str(header.get("BUNIT", "")).strip()
    return Warp(
        grid=Grid(spec.path, box, wcs_cards(file.cards(index), spec.path), is_framed(own)),
        planes=planes.code.planes,
        unit=unit,
        band=band or band_of(header, spec.path),
        zero_point=_zero_point(header, unit),
        psf=read_psf(file, box, planes.psf),
        header=header,
        polygon=_polygon(file),
        scales=_columns(file, "ZPGRID", ("y", "x", "scale")),
    )


def _polygon(file: FitsFile) -> NDArray[np.float64] | None:
    """Outline that `warp` wrote; coadds, whose POLYGONS are those of their inputs, have none."""
    polygon = None if file.has("INPUTS") else _columns(file, "POLYGONS", ("y", "x"))
    return polygon if polygon is not None and polygon.size else None


def _columns(file: FitsFile, name: str, columns: Sequence[str]) -> NDArray[np.float64] | None:
    """Columns of a table, shape (n_column, n_row); None without the table."""
    if not file.has(name):
        return None
    table = file.table(name, columns)
    names = {column.lower(): column for column in table.dtype.names or ()}
    return np.stack([numbers_of(table[names[c]], f"{c} of {name}", file.path) for c in columns])


def _rows(file: FitsFile, plane: Plane, name: str) -> RowReader:
    if plane.path != file.path:
        with open_fits(plane.path) as other:
            return _rows(other, plane, name)
    shape = file.hdus[plane.hdu].shape
    if len(shape) != 2:
        raise FormatError(f"{name} has {_size(shape)} pixels, expected two axes", file.path)
    return RowReader.of(file, plane.hdu, words=name == "MASK")


def _zero_point(header: Mapping[str, HeaderValue], unit: str) -> float | None:
    if unit.lower() == "njy":
        return NANOJANSKY
    value = header_float(header, *ZERO_POINT_KEYS)
    return None if np.isnan(value) else value


def header_float(header: Mapping[str, HeaderValue], *keys: str) -> float:
    """Return the number of the first of the keywords that holds one; NaN if none does."""
    for key in keys:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return float("nan")


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape[::-1])
