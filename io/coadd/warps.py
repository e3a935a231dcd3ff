"""Inputs of a coadd: what their headers tell, and their pixels a few rows at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError, ShapeMismatchError
from coblend.core.exposure import HeaderValue
from coblend.core.mask import STANDARD, MaskPlanes
from coblend.core.psf.base import Psf
from coblend.io.coadd.grid import Grid, is_framed
from coblend.io.coadd.inputs import Listed
from coblend.io.coadd.rows import RowReader
from coblend.io.exposure.checks import require_scale
from coblend.io.exposure.dialects import RMS, WEIGHT, Planes, find_planes, only_image
from coblend.io.exposure.frame import frame_origin
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.specs import FileSpec, parse_band_spec
from coblend.io.psf.psfs import parse_psf_spec, read_psf
from coblend.io.sky.wcs import wcs_cards

ZERO_POINT_KEYS = ("MAGZERO", "MAGZP", "MAGZPT", "PHOTZP", "ZP", "PHOTZPT")
"""Keywords of the AB magnitude of one count, in order of preference."""

_NANOJANSKY_ZERO_POINT = 31.4
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
        Without names, any bit means ``BAD``.
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
    image, noise : RowReader
    mask : RowReader or None
    noise_kind : str
        What the noise plane holds (`coblend.io.exposure.dialects`).
    """

    def __init__(
        self,
        info: Warp,
        origin: tuple[int, int],
        image: RowReader,
        noise: RowReader,
        mask: RowReader | None,
        noise_kind: str,
    ) -> None:
        self.info = info
        self._origin = origin
        self._image, self._noise, self._mask = image, noise, mask
        self._noise_kind = noise_kind
        self._checked = False

    @property
    def straight(self) -> bool:
        """Whether a few rows cost no more than their bytes: nothing is compressed."""
        planes = (self._image, self._noise, self._mask)
        return all(plane is None or plane.straight for plane in planes)

    @property
    def whole(self) -> bool:
        """Whether a few rows cost as much as all: the file is gzipped."""
        return self._image.whole

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
        with ExitStack() as stack:
            file = None if self.straight else stack.enter_context(open_fits(self.info.path))
            other = file if self._noise.path == self.info.path else None
            image = self._image.read(*section, file).astype(np.float32, copy=False)
            noise = self._noise.read(*section, other)
            mask = None
            if self._mask is not None:
                words = self._mask.read(*section, file).astype(np.int32, copy=False)
                mask = self._remap(words, target)
        self._require_scale(noise)
        return image, mask, _variance(noise.astype(np.float32, copy=False), self._noise_kind)

    def _require_scale(self, noise: NDArray[Any]) -> None:
        """Check the first rows read, before they are rounded to 32 bits."""
        if not self._checked:
            some = noise[:: max(len(noise) // _N_ROWS, 1)].astype(np.float64)
            require_scale(_variance(some, self._noise_kind), self._noise.path, "VARIANCE")
            self._checked = True

    def _remap(self, mask: NDArray[np.int32], target: MaskPlanes) -> NDArray[np.int32]:
        own = self.info.planes
        if not own.bits:
            return np.where(mask != 0, np.int32(1 << target.bits["BAD"]), np.int32(0))
        fixed = sum(1 << bit for name, bit in own.bits.items() if target.bits[name] == bit)
        found = int(np.bitwise_or.reduce(mask, axis=None))
        return mask if found & ~fixed == 0 else own.remap(mask, target)


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
        planes = find_planes(file, spec)
        image = _plane(file, planes.image.hdu, "IMAGE")
        mask = None if planes.mask is None else _plane(file, planes.mask.hdu, "MASK")
        if planes.noise.path == spec.path:
            noise = _plane(file, planes.noise.hdu, "VARIANCE")
        else:
            with open_fits(planes.noise.path) as other:
                noise = _plane(other, only_image(other), "VARIANCE")
        info = _describe(file, spec, planes, band)
    for name, plane in (("VARIANCE", noise), ("MASK", mask)):
        if plane is not None and plane.shape != image.shape:
            raise ShapeMismatchError(
                f"{name} has {_size(plane.shape)} pixels, IMAGE {_size(image.shape)}", spec.path
            )
    origin = info.box.y0, info.box.x0
    if spec.section is not None:
        info = replace(info, grid=info.grid.cut(spec.section))
    return WarpFile(_as_listed(info, listed), origin, image, noise, mask, planes.noise_kind)


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
    header = {**file.header(0), **own}
    y0, x0 = frame_origin(own, spec.path)
    box = Box(y0, x0, *file.hdus[index].shape)
    unit = str(header.get("BUNIT", "")).strip()
    named = dict(STANDARD.bits)
    if planes.mask is not None:
        mask_header = file.header(planes.mask.hdu)
        named = {k[3:]: int(v) for k, v in mask_header.items() if k.startswith("MP_")}
        named = named or dict(planes.mask_bits)
    return Warp(
        grid=Grid(spec.path, box, wcs_cards(file.cards(index), spec.path), is_framed(own)),
        planes=MaskPlanes(named),
        unit=unit,
        band=band or str(header.get("BAND", header.get("FILTER", ""))).strip(),
        zero_point=_zero_point(header, unit),
        psf=read_psf(file, box),
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
    return np.stack([table[names[column]] for column in columns]).astype(np.float64)


def _plane(file: FitsFile, index: int, name: str) -> RowReader:
    shape = file.hdus[index].shape
    if len(shape) != 2:
        raise FormatError(f"{name} has {_size(shape)} pixels, expected two axes", file.path)
    return RowReader.of(file, index)


def _zero_point(header: Mapping[str, HeaderValue], unit: str) -> float | None:
    if unit.lower() == "njy":
        return _NANOJANSKY_ZERO_POINT
    value = header_float(header, *ZERO_POINT_KEYS)
    return None if np.isnan(value) else value


def _variance(noise: NDArray[Any], kind: str) -> NDArray[Any]:
    """Variance from a noise plane; not finite or not positive where nothing is known."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if kind == WEIGHT:
            return np.asarray(np.divide(np.float32(1), noise))
        if kind == RMS:
            return np.asarray(np.square(noise) * np.sign(noise))
    return noise


def header_float(header: Mapping[str, HeaderValue], *keys: str) -> float:
    """Return the number of the first of the keywords that holds one; NaN if none does."""
    for key in keys:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return float("nan")


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape[::-1])
