"""Where image, mask and noise are in a file, ours or another program's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from coblend.core.errors import FormatError, MissingHduError, ParameterError
from coblend.core.exposure import HeaderValue
from coblend.io.exposure import flags
from coblend.io.exposure.calibration import calibrated
from coblend.io.exposure.flags import BITS, Flags, MaskCode, parse_flags
from coblend.io.exposure.frame import header_number
from coblend.io.exposure.planes import (
    MEASURED,
    RELATIVE,
    RMS,
    VARIANCE,
    WEIGHT,
    NoisePlane,
    Plane,
    Planes,
)
from coblend.io.fits.reader import FitsFile, open_fits
from coblend.io.fits.specs import ENDING, FileSpec, stem

KINDS = (VARIANCE, WEIGHT, RMS, RELATIVE, MEASURED)
_UNKNOWN = "unknown"
_DRIZZLED = (
    "say what the weights are: inverse variances (final_wht_type IVM or ERR): "
    "'{path}[noise=weight]'; exposure times (EXP): '{path}[noise=relative]'"
)
_CODES_SINCE = (3, 5)
"""Version of the DECam community pipeline since which masks hold numbers instead of bits."""
_UNCERTAINTIES = {
    "STDDEVUNCERTAINTY": RMS,
    "VARIANCEUNCERTAINTY": VARIANCE,
    "INVERSEVARIANCE": WEIGHT,
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """EXTNAMEs of the planes; the first noise and mask plane that is there counts."""

    convention: str
    image: str
    noise: str
    kind: str
    masks: tuple[tuple[str, Flags], ...] = ()
    telescope: str = ""


_LAYOUTS = (
    _Layout("lsst", "IMAGE", "VARIANCE", VARIANCE, (("MASK", flags.ANY),)),
    _Layout("des", "SCI", "WGT", WEIGHT, (("MSK", flags.DES),)),
    _Layout("weight", "IMAGE", "WEIGHT", WEIGHT, (("MASK", flags.ANY),)),
    _Layout("jwst", "SCI", "ERR", RMS, (("DQ", flags.JWST), ("WHT", flags.NO_WEIGHT)), "JWST"),
    _Layout("hst", "SCI", "ERR", RMS, (("DQ", flags.HST),), "HST"),
    _Layout("sci-err", "SCI", "ERR", RMS, (("DQ", flags.ANY),)),
    _Layout("hst-drz", "SCI", "WHT", _UNKNOWN),
)
_ENDING = f"({ENDING.pattern})"
_BESIDE: tuple[tuple[str, str, str, str, str], ...] = (
    ("legacy", r"-image-(\w+)(?=\.)", r"-invvar-\1", WEIGHT, "-maskbits"),
    ("decam-cp", "_ooi_", "_oow_", WEIGHT, "_ood_"),
    ("ps1", _ENDING, r".wt\1", VARIANCE, r".mask\1"),
    ("image and .weight map", _ENDING, r".weight\1", WEIGHT, ""),
    ("image and .var map", _ENDING, r".var\1", VARIANCE, ""),
    ("image and .rms map", _ENDING, r".rms\1", RMS, ""),
    ("image and _rms map", r"_(?:sci|drz|drc)" + _ENDING, r"_rms\1", RMS, ""),
    ("hst-drz", r"_(?:sci|drz|drc)" + _ENDING, r"_wht\1", _UNKNOWN, ""),
)
"""Names of files: convention, what is replaced in that of the image, and by what for the noise
(with its kind) and for the mask."""


def find_planes(file: FitsFile, spec: FileSpec) -> Planes:
    """Find the planes of an exposure; the first convention that fits wins.

    1. HDUs named as in one of the layouts above: ours and the LSST pipelines', DES, JWST, HST,
       drizzled images; or UNCERT and MASK after the primary image (astropy's CCDData);
    2. three unnamed image HDUs 1, 2, 3: image, mask, variance (LSST by position);
    3. one image with files beside it: Legacy Surveys, DECam community pipeline, Pan-STARRS 1,
       ``X.weight.fits`` (inverse variance, SWarp), ``X.var.fits``, ``X.rms.fits``.

    What the file argument says in brackets (``[noise=...,gain=...,mask=...,flags=...]``) goes
    before all that.

    Raises
    ------
    MissingHduError
        No image, or no noise plane: variance is never guessed.
    ParameterError
        A setting is wrong.
    """
    planes = _by_name(file, spec) or _by_uncertainty(file, spec) or _by_position(file, spec)
    planes = planes or _beside(file, spec)
    planes = _as_told(file, planes, dict(spec.settings))
    if planes.noise.kind == _UNKNOWN:
        raise FormatError(
            "what its weights mean is not said in the file", file.path, "WHT",
            _DRIZZLED.format(path=os.path.basename(file.path)),
        )  # fmt: skip
    if planes.noise.plane is None and planes.noise.kind != MEASURED:
        raise MissingHduError(
            f"no VARIANCE plane; it has {file.describe()}",
            file.path,
            hint=f"name an HDU VARIANCE, put an inverse-variance map beside the file as "
            f"{stem(file.path)}.weight.fits, or say where the noise is: [noise=rms:FILE], "
            "[noise=measured,gain=2.5]",
        )
    return planes


def image_header(file: FitsFile, planes: Planes) -> dict[str, HeaderValue]:
    """Header of the image over that of the primary HDU, with ``BAND`` and ``MAGZERO`` if known."""
    index = planes.image.hdu
    merged = {**(file.header(0) if index else {}), **file.header(index)}
    return calibrated(merged, planes.convention, file.path)


def _by_name(file: FitsFile, spec: FileSpec) -> Planes | None:
    chosen = None if spec.hdu is None else file.hdus[file.index(spec.hdu, spec.version)]
    telescope = file.hdus[0].value("TELESCOP") or ""
    for layout in _LAYOUTS:
        if not (file.has(layout.image) and file.has(layout.noise)):
            continue
        if layout.telescope not in ("", telescope.upper()):
            continue
        if layout.noise != "VARIANCE" and file.schema[0] == "exposure":
            continue  # the WEIGHT of our coadds is no substitute for a lost VARIANCE
        if chosen is not None and chosen.name != layout.image:
            continue
        version = chosen.version if chosen else _only_version(file, layout.image)
        mask, code = None, BITS
        for name, meaning in layout.masks:
            if file.has(name) and file.info(file.index(name, version)).shape:
                mask = Plane(file.path, file.index(name, version))
                numbers = meaning is flags.NO_WEIGHT
                code = MaskCode.of(file.header(mask.hdu), file.path, meaning, numbers=numbers)
                break
        noise = NoisePlane(layout.kind, _plane(file, file.index(layout.noise, version)))
        image = _plane(file, file.index(layout.image, version))
        return Planes(image, noise, mask, code, layout.convention)
    return None


def _by_uncertainty(file: FitsFile, spec: FileSpec) -> Planes | None:
    if spec.hdu not in (None, 0) or not file.hdus[0].shape or not file.has("UNCERT"):
        return None
    uncertainty = file.index("UNCERT")
    kind = _UNCERTAINTIES.get((file.hdus[uncertainty].value("UTYPE") or "").upper(), RMS)
    noise = NoisePlane(kind, _plane(file, uncertainty))
    return Planes(_plane(file, 0), noise, *_own_mask(file), "ccddata")


def _by_position(file: FitsFile, spec: FileSpec) -> Planes | None:
    hdus = file.hdus
    if spec.hdu is not None or len(hdus) < 4 or any(h.name for h in hdus[1:4]):
        return None
    if any(h.kind == "table" or len(h.shape) != 2 for h in hdus[1:4]):
        return None
    image, mask, noise = (_plane(file, i) for i in (1, 2, 3))
    code = MaskCode.of(file.header(2), file.path, flags.ANY)
    return Planes(image, NoisePlane(VARIANCE, noise), mask, code, "lsst by position")


def _beside(file: FitsFile, spec: FileSpec) -> Planes:
    """Planes of one image with other files beside it; without noise if there are none."""
    images = _images(file)
    if not images:
        raise MissingHduError(f"no image; it has {file.describe()}", file.path)
    index = images[0] if spec.hdu is None else file.index(spec.hdu, spec.version)
    image = _plane(file, index)
    own = _own_mask(file)
    for convention, find, noise, kind, mask in _BESIDE:
        path = _other(file.path, find, noise)
        if path is None:
            continue
        if spec.hdu is None:
            _require_only(file, images)
        plane = _same_hdu(path, file, index)
        flagged = _other(file.path, find, mask) if mask else None
        found = own if flagged is None else _mask_beside(flagged, convention, file, index)
        return Planes(image, NoisePlane(kind, plane), *found, convention)
    return Planes(image, NoisePlane(), *own, "image")


def _as_told(file: FitsFile, planes: Planes, told: dict[str, str]) -> Planes:
    """Planes with what the file argument says in brackets."""
    if "noise" in told:
        kind, _, path = told["noise"].partition(":")
        if kind not in KINDS:
            raise ParameterError(f"noise={told['noise']}: no kind {kind!r}; {', '.join(KINDS)}")
        plane = _only_plane(path) if path else planes.noise.plane
        planes = replace(planes, noise=NoisePlane(kind, None if kind == MEASURED else plane))
    if "gain" in told:
        gain = _positive(told["gain"])
        if planes.noise.kind != MEASURED or gain is None:
            raise ParameterError(
                f"gain={told['gain']}: expected photons per unit of the image, beside "
                "noise=measured"
            )
        planes = replace(planes, noise=replace(planes.noise, gain=gain))
    if "mask" in told:
        mask, code = _read_mask(told["mask"], flags.ANY)
        planes = replace(planes, mask=mask, code=code)
    if "flags" in told:
        if planes.mask is None:
            raise ParameterError(f"flags={told['flags']}: {file.path} has no mask")
        planes = replace(planes, code=MaskCode(flags=parse_flags(told["flags"]), told=True))
    return planes


def _plane(file: FitsFile, index: int) -> Plane:
    """One plane with its scale: Pan-STARRS 1 stores inverse hyperbolic sines."""
    info = file.hdus[index]
    if info.value("BSOFTEN") is None:
        return Plane(file.path, index)
    header = file.header(index)
    if "BOFFSET" not in header:
        raise FormatError("has BSOFTEN without BOFFSET, so its pixels have no scale", file.path)
    offset, softening = (header_number(header, k, file.path) for k in ("BOFFSET", "BSOFTEN"))
    return Plane(file.path, index, (offset, softening))


def _images(file: FitsFile) -> list[int]:
    return [i for i, h in enumerate(file.hdus) if h.kind != "table" and len(h.shape) >= 2]


def _only_plane(path: str) -> Plane:
    """Return the only image of a file.

    Raises
    ------
    FormatError
        There is none, or more than one.
    """
    with open_fits(path) as file:
        return _sole_plane(file)


def _sole_plane(file: FitsFile) -> Plane:
    images = _images(file)
    if len(images) != 1:
        raise FormatError(f"{len(images)} images, expected one: {file.describe()}", file.path)
    return _plane(file, images[0])


def _same_hdu(path: str, file: FitsFile, index: int) -> Plane:
    """Return the plane of another file that belongs to an image of this one.

    Its only image; of several the one called MASKBITS (Legacy Surveys), or as the image is.
    """
    info = file.hdus[index]
    with open_fits(path) as other:
        if len(_images(other)) > 1:
            name = "MASKBITS" if other.has("MASKBITS") else info.name or index
            return _plane(other, other.index(name, info.version))
        return _sole_plane(other)


def _only_version(file: FitsFile, name: str) -> int:
    versions = [h.version for h in file.hdus if h.name == name]
    if len(versions) > 1:
        raise FormatError(
            f"holds {len(versions)} exposures, {name} {', '.join(map(str, versions))}", file.path,
            hint=f"choose one: '{os.path.basename(file.path)}[{name},{versions[0]}]'",
        )  # fmt: skip
    return versions[0]


def _require_only(file: FitsFile, images: list[int]) -> None:
    """Refuse several images of one size."""
    alike = [i for i in images if file.hdus[i].shape == file.hdus[images[0]].shape]
    if len(alike) > 1:
        names = [file.hdus[i].name or str(i) for i in alike]
        listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise FormatError(
            f"holds {len(names)} images: {listed}", file.path,
            hint=f"choose one: '{os.path.basename(file.path)}[{names[0]}]'",
        )  # fmt: skip


def _other(path: str, find: str, replacement: str) -> str | None:
    """Path of a file beside another, by its name, under any ending of FITS files."""
    folder, name = os.path.split(path)
    other, count = re.subn(find, replacement, name)
    if not count:
        return None
    for candidate in (other, *(f"{stem(other)}.fits{packed}" for packed in ("", ".fz", ".gz"))):
        if os.path.exists(os.path.join(folder, candidate)):
            return os.path.join(folder, candidate)
    return None


def _own_mask(file: FitsFile) -> tuple[Plane | None, MaskCode]:
    if not file.has("MASK") or file.info("MASK").kind == "table":
        return None, BITS
    mask = Plane(file.path, file.index("MASK"))
    return mask, MaskCode.of(file.header(mask.hdu), file.path, flags.ANY)


def _mask_beside(path: str, convention: str, file: FitsFile, index: int) -> tuple[Plane, MaskCode]:
    meaning, numbers = flags.PS1, False
    if convention == "legacy":
        meaning = flags.legacy(str(calibrated({}, convention, file.path).get("BAND", "")))
    elif convention == "decam-cp":
        version = re.search(r"(\d+)\.(\d+)", file.hdus[0].value("PLVER") or "")
        numbers = version is None or (int(version[1]), int(version[2])) >= _CODES_SINCE
        meaning = flags.DECAM_CODES if numbers else flags.DECAM
    plane = _same_hdu(path, file, index)
    with open_fits(path) as other:
        return plane, MaskCode.of(other.header(plane.hdu), path, meaning, numbers=numbers)


def _read_mask(path: str, meaning: Flags) -> tuple[Plane, MaskCode]:
    plane = _only_plane(path)
    with open_fits(path) as file:
        return plane, MaskCode.of(file.header(plane.hdu), path, meaning)


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 else None
