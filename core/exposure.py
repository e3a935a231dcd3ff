"""An image with its mask, variance, PSF and place on the sky; and a stack of bands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import check_suffixes
from coblend.core.box import Box
from coblend.core.errors import ParameterError, ShapeMismatchError
from coblend.core.mask import STANDARD, MaskPlanes
from coblend.core.psf.base import Psf

_BLOCK = 1 << 21
"""Pixels looked at together where whole images would need large temporaries."""

_MANTISSA = 10

HeaderValue = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Exposure:
    """One band of one field.

    Parameters
    ----------
    image : array, shape (ny, nx), float32
        Pixel values in ``unit``; 0 where there is no data.
    mask : array, shape (ny, nx), int32
        Bit planes named by ``planes``.
    variance : array, shape (ny, nx), float32
        Variance in ``unit`` squared; +inf where there is no data, so that the weight is 0.
    box : Box
        The pixels covered, parent coordinates.
    planes : MaskPlanes
        Names of the mask bits.
    band : str
        Name of the band, "" if unknown.
    unit : str
        Unit of the image (FITS ``BUNIT``), "" if unknown.
    psf : Psf, optional
        PSF model in parent coordinates.
    wcs : tuple of str
        Celestial WCS as 80-character FITS cards, verbatim, in 1-based array coordinates.
    meta : mapping
        Other header values worth carrying (zero point, exposure time, filter).
    """

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    variance: NDArray[np.float32]
    box: Box
    planes: MaskPlanes = STANDARD
    band: str = ""
    unit: str = ""
    psf: Psf | None = None
    wcs: tuple[str, ...] = ()
    meta: Mapping[str, HeaderValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, plane in (("MASK", self.mask), ("VARIANCE", self.variance)):
            if plane.shape != self.image.shape:
                raise ShapeMismatchError(
                    f"{name} has {_size(plane.shape)} pixels, IMAGE {_size(self.image.shape)}"
                )
        if self.image.shape != self.box.shape:
            raise ShapeMismatchError(
                f"IMAGE has {_size(self.image.shape)} pixels, its box {_size(self.box.shape)}"
            )

    def __repr__(self) -> str:
        return (
            f"Exposure(band={self.band!r}, unit={self.unit!r}, {self.box}, "
            f"psf={type(self.psf).__name__}, wcs={'yes' if self.wcs else 'no'})"
        )

    def good(
        self,
        bad_planes: Iterable[str] = ("NO_DATA",),
        *,
        filled: bool = False,
        rows: slice = slice(None),
    ) -> NDArray[np.bool_]:
        """Pixels with finite image, finite positive variance and none of ``bad_planes``.

        Parameters
        ----------
        bad_planes : iterable of str
        filled : bool
            Whether pixels that were interpolated (``INTRP``) are good whatever made that
            necessary: right for a convolution, which needs a value and no independent one.
        rows : slice
            Rows to look at; default: all.
        """
        bad_bits = np.int32(self.planes.value(bad_planes))
        filled_bit = np.int32(0)
        if filled and "INTRP" in self.planes.bits:
            filled_bit = np.int32(self.planes.value(["INTRP"]))
        image, mask, variance = self.image[rows], self.mask[rows], self.variance[rows]
        usable = np.empty(image.shape, bool)
        for part in row_blocks(image.shape):
            good = np.isfinite(image[part]) & np.isfinite(variance[part]) & (variance[part] > 0)
            good &= ((mask[part] & bad_bits) == 0) | ((mask[part] & filled_bit) != 0)
            usable[part] = good
        return usable

    def with_pixels(
        self,
        image: NDArray[np.float32],
        mask: NDArray[np.int32],
        variance: NDArray[np.float32],
    ) -> Exposure:
        """Return the same exposure with other pixels."""
        return replace(self, image=image, mask=mask, variance=variance)


def fill_no_data(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    variance: NDArray[np.float32],
    planes: MaskPlanes = STANDARD,
) -> int:
    """Mark unusable pixels in place: image 0, variance +inf, mask ``NO_DATA``.

    Unusable means a non-finite image, or a variance that is not finite or not positive.

    Returns
    -------
    int
        Number of pixels marked that were not ``NO_DATA`` before.
    """
    no_data = np.int32(planes.value(["NO_DATA"]))
    n_new = 0
    for rows in row_blocks(image.shape):
        unusable = ~(np.isfinite(image[rows]) & np.isfinite(variance[rows]) & (variance[rows] > 0))
        n_new += int(np.count_nonzero(unusable & ((mask[rows] & no_data) == 0)))
        image[rows][unusable] = 0.0
        variance[rows][unusable] = np.inf
        mask[rows][unusable] |= no_data
    return n_new


def round_mantissa(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round positive values to 10 bits of mantissa: to 5e-4 of themselves, powers of 2 exactly.

    Variances need no more, and then take a fifth of the room in losslessly compressed files.
    """
    bits = values.view(np.uint32)
    drop, half = np.uint32(23 - _MANTISSA), np.uint32(1 << (22 - _MANTISSA))
    rounded = ((bits + half) >> drop) << drop
    usable = np.isfinite(values) & (values > 0)
    return np.where(usable, rounded, bits).view(np.float32)


def row_blocks(shape: tuple[int, ...]) -> list[slice]:
    """Rows to be looked at together: temporaries are of a few rows instead of the image."""
    step = max(1, _BLOCK // max(1, shape[1]))
    return [slice(first, first + step) for first in range(0, shape[0], step)]


@dataclass(frozen=True, slots=True)
class Cube:
    """Exposures of several bands on one pixel grid.

    Parameters
    ----------
    images, variances : array, shape (n_band, ny, nx), float32
    masks : array, shape (n_band, ny, nx), int32
    bands : tuple of str
    psfs : tuple of Psf or None
    box : Box
    planes : MaskPlanes
    units : tuple of str
    wcs : tuple of str
        WCS cards of the first band.
    """

    images: NDArray[np.float32]
    variances: NDArray[np.float32]
    masks: NDArray[np.int32]
    bands: tuple[str, ...]
    psfs: tuple[Psf | None, ...]
    box: Box
    planes: MaskPlanes = STANDARD
    units: tuple[str, ...] = ()
    wcs: tuple[str, ...] = ()

    @classmethod
    def from_exposures(cls, exposures: Sequence[Exposure]) -> Cube:
        """Stack exposures of equal box; mask planes are matched by name.

        Raises
        ------
        ParameterError
            When there is none, or two bands would share columns of a catalogue.
        ShapeMismatchError
            When the boxes differ.
        """
        if not exposures:
            raise ParameterError("no exposures given: the lists are empty")
        check_suffixes([exposure.band for exposure in exposures])
        first = exposures[0]
        planes = MaskPlanes()
        for exposure in exposures:
            if exposure.box != first.box:
                raise ShapeMismatchError(
                    f"band {exposure.band} covers {exposure.box}, band {first.band} {first.box}"
                )
            planes = planes.union(exposure.planes)
        return cls(
            images=np.stack([e.image for e in exposures]),
            variances=np.stack([e.variance for e in exposures]),
            masks=np.stack([e.planes.remap(e.mask, planes) for e in exposures]),
            bands=tuple(e.band for e in exposures),
            psfs=tuple(e.psf for e in exposures),
            box=first.box,
            planes=planes,
            units=tuple(e.unit for e in exposures),
            wcs=first.wcs,
        )

    def exposure(self, index: int) -> Exposure:
        """One of the bands."""
        return Exposure(
            image=self.images[index],
            mask=self.masks[index],
            variance=self.variances[index],
            box=self.box,
            planes=self.planes,
            band=self.bands[index],
            unit=self.units[index] if self.units else "",
            psf=self.psfs[index],
            wcs=self.wcs,
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape[::-1])
