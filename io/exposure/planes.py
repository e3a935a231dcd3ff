"""Planes of an exposure as they stand in files, and what their numbers stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError
from coblend.io.exposure.flags import BITS, MaskCode
from coblend.io.fits.reader import FitsFile, open_fits

VARIANCE, WEIGHT, RMS, RELATIVE, MEASURED = "variance", "weight", "rms", "relative", "measured"
"""What is known of the noise: variance, its inverse, its square root; weights that lack a factor,
which the scatter of the image gives; or that scatter alone."""

_POGSON = 2.5 * math.log10(math.e)
_SAMPLE = 1 << 20
"""Pixels that the scatter is measured in."""
_CLIP, _N_CLIP = 3.0, 20


@dataclass(frozen=True, slots=True)
class Plane:
    """One image plane.

    Parameters
    ----------
    path : str
    hdu : int
        Number of the HDU.
    asinh : (float, float), optional
        Offset b and softening s of pixels v stored as inverse hyperbolic sine, of which
        ``b + 2 s sinh(v / 1.0857)`` is linear (Pan-STARRS 1: BOFFSET, BSOFTEN).
    """

    path: str
    hdu: int
    asinh: tuple[float, float] | None = None

    def linear(self, data: NDArray[Any]) -> NDArray[Any]:
        """Pixels on a linear scale."""
        if self.asinh is None:
            return data
        offset, softening = self.asinh
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(offset + 2 * softening * np.sinh(data.astype(float) / _POGSON))

    def read(
        self,
        file: FitsFile,
        label: str,
        section: Box | None = None,
        *,
        step: int = 1,
        words: bool = False,
    ) -> NDArray[Any]:
        """Pixels on a linear scale, shape (ny, nx).

        Parameters
        ----------
        file : FitsFile
            An open file, used if it is the plane's.
        label : str
            Name for messages.
        section : Box, optional
            Part to read, array coordinates.
        step : int
            Of the section, every n-th row.
        words : bool
            Whether it is a mask (`FitsFile.image`).

        Raises
        ------
        FormatError
            The plane has not two axes, or the section is outside.
        """
        if file.path != self.path:
            with open_fits(self.path) as other:
                return self.read(other, label, section, step=step, words=words)
        info = file.info(self.hdu)
        where = info.name or str(self.hdu)
        shape = info.shape
        if len(shape) != 2 and not (len(shape) == 3 and shape[0] == 1):
            size = "x".join(str(n) for n in shape[::-1]) or "no"
            raise FormatError(f"{label} has {size} pixels, expected two axes", file.path, where)
        slices: tuple[slice, ...] | None = None
        whole = Box(0, 0, *shape[-2:])
        if section is not None or step > 1:
            part = whole if section is None else section
            if not whole.contains(part):
                raise FormatError(
                    f"section {part.nx}x{part.ny} pixels from ({part.x0}, {part.y0}) is outside "
                    f"the {shape[-1]}x{shape[-2]} image",
                    file.path,
                    where,
                )
            slices = (slice(part.y0, part.y1, step), slice(part.x0, part.x1))
            slices = (slice(0, 1), *slices) if len(shape) == 3 else slices
        data = file.image(self.hdu, slices, words=words)
        return self.linear(data.reshape(data.shape[-2:]))


@dataclass(frozen=True, slots=True)
class NoisePlane:
    """What is known of the noise.

    Parameters
    ----------
    kind : str
        `VARIANCE`, `WEIGHT`, `RMS`, `RELATIVE` or `MEASURED`.
    plane : Plane or None
        None for `MEASURED`.
    gain : float
        For `MEASURED`: photons per unit of the image; light adds its variance.
    scale : float
        For `RELATIVE` and `MEASURED`: variance of a pixel of weight 1, see `Planes.scaled`.
    """

    kind: str = VARIANCE
    plane: Plane | None = None
    gain: float = math.inf
    scale: float = math.nan

    @property
    def wide(self) -> bool:
        """Whether it is to be computed in float64, so as not to overflow."""
        return self.kind != VARIANCE

    def variance(self, data: NDArray[Any], image: NDArray[Any]) -> NDArray[Any]:
        """Variance; not finite or not positive where nothing is known.

        Parameters
        ----------
        data : array
            Pixels of the plane; for `MEASURED` they do not count.
        image : array, same shape
        """
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            match self.kind:
                case "weight":
                    return np.asarray(np.divide(data.dtype.type(1), data))
                case "rms":
                    return np.asarray(np.square(data) * np.sign(data))
                case "relative":
                    return np.asarray(np.divide(data.dtype.type(self.scale), data))
                case "measured":
                    return np.asarray(self.scale + np.maximum(image, 0) / self.gain)
        return data


@dataclass(frozen=True, slots=True)
class Planes:
    """The planes of an exposure.

    Parameters
    ----------
    image : Plane
    noise : NoisePlane
    mask : Plane, optional
    code : MaskCode
        What the words of the mask mean.
    convention : str
        Name of the layout.
    """

    image: Plane
    noise: NoisePlane
    mask: Plane | None = None
    code: MaskCode = BITS
    convention: str = "lsst"

    @property
    def paths(self) -> list[str]:
        """Files that the planes are in, that of the image first."""
        planes = (self.image, self.noise.plane, self.mask)
        return list(dict.fromkeys(plane.path for plane in planes if plane is not None))

    @property
    def psf(self) -> str:
        """EXTNAME of the PSF, if there is one."""
        return "PSFIMAGE" if self.convention == "ccddata" else "PSF"

    def scaled(self, file: FitsFile) -> Planes:
        """Return the same with the scale of the noise, from the scatter of the image's sky.

        The scatter is 1.4826 times the median absolute deviation of the pixels, or of their
        significance where there are relative weights, within three times itself.

        Raises
        ------
        FormatError
            There is no scatter.
        """
        noise = self.noise
        if noise.kind not in (RELATIVE, MEASURED):
            return self
        step = (
            1
            + file.info(self.image.hdu).shape[-2] * file.info(self.image.hdu).shape[-1] // _SAMPLE
        )
        some = self.image.read(file, "IMAGE", step=step).astype(float)
        if noise.plane is not None:
            weight = noise.plane.read(file, "VARIANCE", step=step).astype(float)
            some = some[weight > 0] * np.sqrt(weight[weight > 0])
        scatter = _scatter(some[np.isfinite(some) & (some != 0)])
        if not scatter > 0:
            raise FormatError(
                f"its noise cannot be measured: the scatter of {some.size} pixels is {scatter:g}",
                self.image.path,
            )
        return replace(self, noise=replace(noise, scale=scatter**2))


def _scatter(values: NDArray[np.float64]) -> float:
    """Scaled median absolute deviation of values within three times itself."""
    scatter = math.nan
    for _ in range(_N_CLIP):
        if not values.size:
            break
        distance = np.abs(values - np.median(values))
        scatter = 1.4826 * float(np.median(distance))
        near = distance <= _CLIP * scatter
        if np.all(near):
            break
        values = values[near]
    return scatter
