"""Exposures: one loader for all commands, and the writer of our own layout."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import BAND_NAME
from coblend.core.box import Box
from coblend.core.errors import FormatError, ShapeMismatchError
from coblend.core.exposure import Cube, Exposure, HeaderValue, fill_no_data, round_mantissa
from coblend.core.mask import STANDARD, MaskPlanes
from coblend.io.exposure.calibration import raised
from coblend.io.exposure.checks import (
    require_band,
    require_psf,
    require_same_grid,
    require_scale,
)
from coblend.io.exposure.dialects import find_planes, image_header
from coblend.io.exposure.flags import ANY
from coblend.io.exposure.frame import frame_header, frame_origin
from coblend.io.exposure.lossy import rounding_step
from coblend.io.exposure.planes import Plane, Planes
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.specs import FileSpec, parse_band_spec, parse_spec
from coblend.io.fits.writer import FitsWriter
from coblend.io.psf.given import GivenPsfs, given_psf, require_bands
from coblend.io.psf.psfs import read_psf, write_psf
from coblend.io.sky.wcs import is_wcs_key, shift_cards, wcs_cards

log = logging.getLogger("coblend")

_LARGE, _BLOCK = 1 << 25, 1 << 21
"""Exposures of more pixels are written in blocks of rows, which needs no copy of a plane."""
_NOT_META = re.compile(
    r"^(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|TFIELDS|T[A-Z]+\d+|THEAP|EXTNAME|"
    r"EXTVER|EXTTYPE|INHERIT|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|Z(?:HECKSUM|DATASUM|IMAGE|"
    r"CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|VAL\d+|NAME\d+|SCALE|ZERO|BLANK|QUANTIZ|DITHER0|TENSION|"
    r"PCOUNT|GCOUNT|SIMPLE|EXTEND|MASKCMP)|LTV[12]|LTM\d_\d|WCSNAMEA|[A-Z]+[12]A|SCHEMA|NEXTEND|"
    r"CREATOR|CBLCMD|CMDLINE|CBLDIG|DATE|MP_.*|BAND|BUNIT|AR_.*|LONGSTRN|COMMENT|HISTORY|"
    r"CONTINUE)$"
)


def read_exposure(
    spec: str | FileSpec,
    *,
    band: str | None = None,
    psfs: GivenPsfs | None = None,
    section: Box | None = None,
    allow_empty: bool = False,
) -> Exposure:
    """Read an exposure of ours, of the LSST pipelines, or an image with a weight map.

    Parameters
    ----------
    spec : str or FileSpec
        File, with an optional HDU and section.
    band : str, optional
        Name of the band; default: the header's BAND, else FILTER.
    psfs : mapping of str to Psf, optional
        PSFs in place of the file's, by band (`coblend.io.psf.given.band_psfs`).
    section : Box, optional
        Part to read, array coordinates.
    allow_empty : bool
        Whether an exposure without a usable pixel is returned rather than refused.

    Returns
    -------
    Exposure
        Native byte order; pixels without data are 0 with infinite variance and ``NO_DATA``.

    Raises
    ------
    CoblendError
        With the file and HDU at fault (`coblend.io.fits.structure.scan`,
        `coblend.io.exposure.dialects.find_planes`).
    """
    spec = parse_spec(spec) if isinstance(spec, str) else spec
    section = section or spec.section
    with open_fits(spec.path) as file:
        planes = find_planes(file, spec).scaled(file)
        log.info("%s: read as %s", file.path, planes.convention)
        header = image_header(file, planes)
        image = _image(planes.image.read(file, "IMAGE", section))
        box = _box(file, planes.image, image.shape, section)
        names, mask = _mask(file, planes, image.shape, section)
        variance = _variance(file, planes, image, section)
        _same_shape("MASK", mask, image, file.path)
        n_filled = fill_no_data(image, mask, variance, names)
        if n_filled:
            log.info("%s: %d pixels without data", file.path, n_filled)
        if not allow_empty and not variance.min(initial=np.inf) < np.inf:
            raise FormatError(
                f"no usable pixel: all {image.size} have a NaN image or a variance that is not "
                "positive",
                file.path,
                hint="leave it out",
            )
        cards = _shifted_wcs(file, planes.image.hdu, section)
        name = band or band_of(header, file.path)
        model = given_psf(psfs or {}, name)
        if model is None:
            model = read_psf(file, box, planes.psf)
    return Exposure(
        image=image,
        mask=mask,
        variance=variance,
        box=box,
        planes=names,
        band=name,
        unit=str(header.get("BUNIT", "")).strip(),
        psf=model,
        wcs=cards,
        meta={k: v for k, v in header.items() if not _NOT_META.match(k) and not is_wcs_key(k)},
    )


@dataclass(frozen=True, slots=True)
class Outline:
    """What the headers of an exposure, or of a section of it, tell.

    Parameters
    ----------
    box : Box
        Pixels covered, parent coordinates.
    first : tuple of int
        Where they begin in the file's array, ``(y, x)``.
    band, unit : str
        "" if unknown.
    wcs : tuple of str
        Cards, in coordinates of ``box``.
    """

    box: Box
    first: tuple[int, int]
    band: str
    unit: str
    wcs: tuple[str, ...]

    def section(self, part: Box) -> Box:
        """Where a part of the box is in the file's array."""
        y, x = self.first
        return (part & self.box).shift(y - self.box.y0, x - self.box.x0)


def read_outline(spec: FileSpec, band: str | None = None) -> Outline:
    """Read an exposure's headers; arguments as of `read_exposure`.

    Raises
    ------
    CoblendError
        The file cannot be read, or its band has no usable name.
    """
    with open_fits(spec.path) as file:
        planes = find_planes(file, spec)
        header = image_header(file, planes)
        index, section = planes.image.hdu, spec.section
        shape = file.info(index).shape[-2:] if section is None else section.shape
        return Outline(
            _box(file, planes.image, shape, section),
            (0, 0) if section is None else (section.y0, section.x0),
            band or band_of(header, file.path),
            str(header.get("BUNIT", "")).strip(),
            _shifted_wcs(file, index, section),
        )


def files_of(spec: FileSpec) -> list[str]:
    """Files that an exposure is read from: its own, and those of its noise and mask.

    Raises
    ------
    CoblendError
        The file cannot be read.
    """
    with open_fits(spec.path) as file:
        return find_planes(file, spec).paths


def count_pixels(spec: FileSpec) -> int:
    """Count the pixels of an exposure, or of its section, without reading them.

    Raises
    ------
    CoblendError
        The file cannot be read.
    """
    if spec.section is not None:
        return spec.section.area
    with open_fits(spec.path) as file:
        ny, nx = file.info(find_planes(file, spec).image.hdu).shape[-2:]
        return ny * nx


def read_cube(
    arguments: Sequence[str], *, need_psf: bool = True, psfs: GivenPsfs | None = None
) -> Cube:
    """Read exposures of several bands that share one pixel grid.

    Parameters
    ----------
    arguments : sequence of str
        ``[BAND=]FILE[HDU]`` each.
    need_psf : bool
        Whether an exposure without a PSF is refused.
    psfs : mapping of str to Psf, optional
        PSFs in place of the files', by band (`coblend.io.psf.given.band_psfs`).

    Raises
    ------
    FormatError
        A band is unknown or given twice, or has no PSF.
    ParameterError
        A PSF is given for a band that there is not.
    ShapeMismatchError, WcsMismatchError
        The exposures do not share a grid; both files are named.
    """
    exposures: list[Exposure] = []
    paths: list[str] = []
    for argument in arguments:
        band, spec = parse_band_spec(argument)
        exposure = read_exposure(spec, band=band, psfs=psfs)
        require_band(exposure, spec.path)
        if need_psf:
            require_psf(exposure, spec.path)
        for other, path in zip(exposures, paths, strict=True):
            if other.band == exposure.band:
                raise FormatError(f"band {exposure.band} was already given by {path}", spec.path)
        if exposures:
            require_same_grid(exposures[0], paths[0], exposure, spec.path)
        exposures.append(exposure)
        paths.append(spec.path)
    require_bands(psfs or {}, [exposure.band for exposure in exposures])
    return Cube.from_exposures(exposures)


def write_exposure(
    out: FitsWriter,
    exposure: Exposure,
    *,
    extra: Mapping[str, NDArray[Any]] | None = None,
    header: Mapping[str, HeaderValue] | None = None,
    compress: str = "auto",
) -> None:
    """Append IMAGE, MASK, VARIANCE, PSF and further planes to a file being written.

    Parameters
    ----------
    out : FitsWriter
        From `coblend.io.fits.writer.create` with schema ``exposure/1``.
    exposure : Exposure
        Pixels of infinite variance are written as NaN.
    extra : mapping of str to array, optional
        Further image HDUs by name.
    header : mapping, optional
        Further keywords of the IMAGE HDU.
    compress : str
        ``auto`` (lossless), ``none``, or ``lossy``: the image in steps of a sixteenth of the
        noise, the variance to 5e-4.
    """
    lossy = compress == "lossy"
    step = rounding_step(exposure.image, exposure.variance) if lossy else None
    codec = "auto" if lossy else compress
    planes = exposure.planes.union(STANDARD)
    frame, unit = frame_header(exposure.box), exposure.unit
    named = {"BAND": exposure.band} if exposure.band else {}
    science = {**_unit(unit), **named, **frame, **exposure.meta, **(header or {})}
    bits = {f"MP_{name}": bit for name, bit in planes.bits.items()}
    squared = {**_unit(raised(unit, 2)), **frame}

    def image(rows: slice) -> NDArray[np.float32]:
        return _blanked(exposure, exposure.image, rows)

    def mask(rows: slice) -> NDArray[np.int32]:
        return exposure.planes.remap(exposure.mask[rows], planes)

    def variance(rows: slice) -> NDArray[np.float32]:
        plane = _blanked(exposure, exposure.variance, rows)
        return round_mantissa(plane) if lossy else plane

    for name, part, cards, rounded in (
        ("IMAGE", image, science, step),
        ("MASK", mask, {**bits, **frame}, None),
        ("VARIANCE", variance, squared, None),
    ):
        told: dict[str, HeaderValue] = {"EXTTYPE": name, "INHERIT": True, **cards}
        if exposure.image.size <= _LARGE or lossy:
            out.image(name, part(slice(None)), header=told, wcs=exposure.wcs, compress=codec,
                      step=rounded)  # fmt: skip
        else:
            n_row = max(1, _BLOCK // exposure.box.nx)
            blocks = (part(slice(y, y + n_row)) for y in range(0, exposure.box.ny, n_row))
            best = "PLIO_1" if name == "MASK" else "GZIP_2"
            out.stream(name, blocks, exposure.box.shape, part(slice(0, 1)).dtype, header=told,
                       wcs=exposure.wcs, compress=best if codec == "auto" else codec)  # fmt: skip
    if exposure.psf is not None:
        write_psf(out, exposure.psf)
    for name, data in (extra or {}).items():
        out.image(name, data, header=frame, wcs=exposure.wcs, compress=codec)


def _blanked(exposure: Exposure, plane: NDArray[np.float32], rows: slice) -> NDArray[np.float32]:
    """Copy some rows of a plane, with NaN where there is no data."""
    return np.where(np.isfinite(exposure.variance[rows]), plane[rows], np.float32(np.nan))


def _image(data: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, so NO_DATA
        return np.asarray(data, np.float32)


def _mask(
    file: FitsFile, planes: Planes, shape: tuple[int, ...], section: Box | None
) -> tuple[MaskPlanes, NDArray[np.int32]]:
    if planes.mask is None:
        return STANDARD, np.zeros(shape, np.int32)
    words = planes.mask.read(file, "MASK", section, words=True)
    code = planes.code
    if code.flags is ANY and words.any():
        log.warning(
            "%s: MASK names no planes (MP_ cards); non-zero is read as BAD", file.path,
            extra={"once": True},
        )  # fmt: skip
    unnamed = code.unnamed(words)
    if unnamed:
        bits = ", ".join(f"{bit} (value {1 << bit})" for bit in unnamed)
        log.warning(
            "%s: mask bits %s have no name; dropped", file.path, bits, extra={"once": True}
        )
    target = code.planes.union(STANDARD)
    return target, code.decode(words, target)


def _variance(
    file: FitsFile, planes: Planes, image: NDArray[np.float32], section: Box | None
) -> NDArray[np.float32]:
    noise = planes.noise
    data: NDArray[Any] = image
    if noise.plane is not None:
        data = noise.plane.read(file, "VARIANCE", section)
        _same_shape("VARIANCE", data, image, file.path)
        data = data.astype(np.float64) if noise.wide else data
    variance = noise.variance(data, image)
    path = file.path if noise.plane is None else noise.plane.path
    require_scale(variance, path, noise.kind.upper())
    with np.errstate(over="ignore"):
        return np.asarray(variance, np.float32)


def _same_shape(label: str, plane: NDArray[Any], image: NDArray[Any], path: str) -> None:
    if plane.shape != image.shape:
        sizes = ["x".join(str(n) for n in a.shape[::-1]) for a in (plane, image)]
        raise ShapeMismatchError(f"{label} has {sizes[0]} pixels, IMAGE {sizes[1]}", path)


def _box(file: FitsFile, plane: Plane, shape: tuple[int, ...], section: Box | None) -> Box:
    y0, x0 = frame_origin(file.header(plane.hdu), file.path)
    if section is not None:
        y0, x0 = y0 + section.y0, x0 + section.x0
    return Box(y0, x0, shape[0], shape[1])


def _shifted_wcs(file: FitsFile, index: int, section: Box | None) -> tuple[str, ...]:
    cards = wcs_cards(file.cards(index), file.path)
    return cards if section is None else shift_cards(cards, section.y0, section.x0)


def band_of(header: Mapping[str, HeaderValue], path: str) -> str:
    """Name of the band that a header gives, "" without.

    Raises
    ------
    FormatError
        It cannot be the name of a band.
    """
    for key in ("BAND", "FILTER"):
        name = str(header.get(key, "")).strip()
        if name:
            if not BAND_NAME.fullmatch(name):
                raise FormatError(
                    f"{key} is {name!r}; a band has 1 to 16 letters, digits or _.+-",
                    path,
                    hint=f"name it on the command line: BAND={path}",
                )
            return name
    return ""


def _unit(text: str) -> dict[str, HeaderValue]:
    return {"BUNIT": text} if text else {}
