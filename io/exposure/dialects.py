"""Where image, mask and variance are in a file, ours or another program's."""

from __future__ import annotations

import os
from dataclasses import dataclass

from coblend.core.errors import FormatError, MissingHduError
from coblend.io.fits.reader import FitsFile
from coblend.io.fits.specs import FileSpec

VARIANCE, WEIGHT, RMS = "variance", "weight", "rms"
"""What a noise plane holds: variance, its inverse, its square root."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One image plane: a file and the number of its HDU."""

    path: str
    hdu: int


@dataclass(frozen=True, slots=True)
class Planes:
    """The planes of an exposure.

    Parameters
    ----------
    image, noise : Plane
    mask : Plane, optional
    noise_kind : str
        `VARIANCE`, `WEIGHT` or `RMS`.
    convention : str
        Name of the layout, for the log.
    mask_bits : tuple of (str, int)
        Plane names of a mask whose header does not name them.
    """

    image: Plane
    noise: Plane
    mask: Plane | None = None
    noise_kind: str = VARIANCE
    convention: str = "lsst"
    mask_bits: tuple[tuple[str, int], ...] = ()


# Dark Energy Survey, "DESDM image masks" (bit numbers of MSK)
_DES_BITS = (
    ("BAD", 0), ("SAT", 1), ("INTRP", 2), ("CR", 4), ("STREAK", 6), ("CROSSTALK", 8),
    ("EDGE", 9), ("SUSPECT", 11),
)  # fmt: skip
_NAMED = (
    ("lsst", "IMAGE", "MASK", "VARIANCE", VARIANCE, ()),
    ("des", "SCI", "MSK", "WGT", WEIGHT, _DES_BITS),
    ("weight", "IMAGE", "MASK", "WEIGHT", WEIGHT, ()),
)
_SIBLINGS = ((".weight", WEIGHT), (".var", VARIANCE), (".rms", RMS))
_SUFFIXES = (".fits.fz", ".fits.gz", ".fits", ".fit", ".fts")


def find_planes(file: FitsFile, spec: FileSpec) -> Planes:
    """Find the planes of an exposure; the first convention that fits wins.

    1. HDUs named IMAGE, MASK, VARIANCE (ours, LSST), or SCI, MSK, WGT (DES);
    2. three unnamed image HDUs 1, 2, 3: image, mask, variance (LSST by position);
    3. one image and beside it ``X.weight.fits`` (inverse variance, SWarp), ``X.var.fits`` or
       ``X.rms.fits``.

    Raises
    ------
    MissingHduError
        No image, or no noise plane: variance is never guessed.
    """
    planes = None if spec.hdu is not None and _plain_hdu(file, spec) else _by_name(file, spec)
    planes = planes or (None if spec.hdu is not None else _by_position(file))
    planes = planes or _with_sibling(file, spec)
    if planes is None:
        raise MissingHduError(
            f"no VARIANCE plane; it has {file.describe()}",
            file.path,
            hint=f"name an HDU VARIANCE, or put an inverse-variance map beside the file as "
            f"{os.path.basename(_stem(file.path)[0])}.weight.fits",
        )
    return planes


def _plain_hdu(file: FitsFile, spec: FileSpec) -> bool:
    """Whether the selected HDU is an image outside the named layouts."""
    name = file.info(file.index(spec.hdu, spec.version)).name  # type: ignore[arg-type]
    return name not in {row[1] for row in _NAMED}


def _by_name(file: FitsFile, spec: FileSpec) -> Planes | None:
    for convention, image, mask, noise, kind, bits in _NAMED:
        if not (file.has(image) and file.has(noise)):
            continue
        if noise != "VARIANCE" and file.schema[0] == "exposure":
            continue  # the WEIGHT of our coadds is no substitute for a lost VARIANCE
        if spec.hdu is not None and file.info(file.index(spec.hdu)).name != image:
            continue
        version = spec.version
        return Planes(
            Plane(file.path, file.index(image, version)),
            Plane(file.path, file.index(noise, version)),
            Plane(file.path, file.index(mask, version)) if file.has(mask) else None,
            kind,
            convention,
            bits,
        )
    return None


def _by_position(file: FitsFile) -> Planes | None:
    hdus = file.hdus
    if len(hdus) < 4 or any(h.name for h in hdus[1:4]):
        return None
    if any(h.kind == "table" or len(h.shape) != 2 for h in hdus[1:4]):
        return None
    image, mask, noise = (Plane(file.path, i) for i in (1, 2, 3))
    return Planes(image, noise, mask, VARIANCE, "lsst by position")


def _with_sibling(file: FitsFile, spec: FileSpec) -> Planes | None:
    images = [i for i, h in enumerate(file.hdus) if h.kind != "table" and len(h.shape) >= 2]
    if not images:
        raise MissingHduError(f"no image; it has {file.describe()}", file.path)
    index = images[0] if spec.hdu is None else file.index(spec.hdu, spec.version)
    stem, suffix = _stem(file.path)
    for mark, kind in _SIBLINGS:
        for ending in dict.fromkeys((suffix, ".fits", ".fits.fz")):
            path = f"{stem}{mark}{ending}"
            if os.path.exists(path):
                return Planes(
                    Plane(file.path, index), Plane(path, -1), None, kind, f"image and {mark} map"
                )
    return None


def _stem(path: str) -> tuple[str, str]:
    for suffix in _SUFFIXES:
        if path.endswith(suffix):
            return path.removesuffix(suffix), suffix
    return path, ".fits"


def only_image(file: FitsFile) -> int:
    """Return the number of the only image HDU of a file.

    Raises
    ------
    FormatError
        There is none, or more than one.
    """
    images = [i for i, h in enumerate(file.hdus) if h.kind != "table" and len(h.shape) >= 2]
    if len(images) != 1:
        raise FormatError(f"{len(images)} images, expected one: {file.describe()}", file.path)
    return images[0]
