"""Artifacts: what appears in one epoch and not in the others.

Every PSF-matched epoch is compared with a template of all of them. A significant difference is
clipped from its epoch when few epochs have one at the same place; what differs in many epochs is
a variable source and stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, correlate1d, label

from coblend.core.catalog import Column, empty_table
from coblend.core.coadd.sparse import Indices, components, disc, drop_small, grow
from coblend.core.mask import MaskPlanes
from coblend.core.params.coadd import CoaddParams

IQR_TO_SIGMA = 0.74
_LAG = 16  # pixels; further apart than noise is correlated
_CLIPPED, _PERSISTENT, _PROTECTED = "CLIPPED", "PERSISTENT", "PROTECTED"

ARTIFACT_COLUMNS = (
    Column("input", "i4", "number of the input in INPUTS"),
    Column("x0", "i4", "first column, coadd coordinates", "pixel", "pos.cartesian.x"),
    Column("y0", "i4", "first row", "pixel", "pos.cartesian.y"),
    Column("x1", "i4", "column after the last", "pixel"),
    Column("y1", "i4", "row after the last", "pixel"),
    Column("area", "i8", "pixels, grown by the PSF", "pixel"),
    Column("n_image", "f8", "mean number of epochs that see it"),
    Column("max_epochs", "i4", "epochs that may differ at a place for it to be an artifact"),
    Column("fraction", "f8", "part of its area where no more epochs than that differ"),
    Column("decision", "U10", "CLIPPED, PERSISTENT (a variable source) or PROTECTED (bright)"),
)
"""Columns of ARTIFACTS."""


@dataclass(frozen=True, slots=True)
class Template:
    """Clipped mean of the PSF-matched epochs.

    Parameters
    ----------
    image, variance, weight : array, shape (ny, nx), float32
        NaN (weight 0) where no epoch has data.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    weight: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Significant differences of one epoch.

    Parameters
    ----------
    pixels : array, shape (n,), int64
        Flat indices, by candidate.
    offsets : array, shape (n_candidate + 1,), int64
        First pixel of each candidate.
    """

    pixels: Indices
    offsets: Indices

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def mean(self, plane: NDArray[np.generic]) -> NDArray[np.float64]:
        """Mean of a plane over each candidate, shape (n_candidate,)."""
        if not len(self):
            return np.zeros(0)
        sums = np.add.reduceat(plane.ravel()[self.pixels].astype(np.float64), self.offsets[:-1])
        return np.asarray(sums / np.diff(self.offsets))


@dataclass(frozen=True, slots=True)
class EpochMask:
    """What the comparison changes in the mask of a warp, one bit per pixel.

    Parameters
    ----------
    clipped : array, shape (ny, ceil(nx / 8)), uint8
        Artifacts, packed along rows.
    lost : array, like ``clipped``
        Where the PSF-matched warp has no data, so that nothing can be said.
    """

    clipped: NDArray[np.uint8]
    lost: NDArray[np.uint8]

    @classmethod
    def of(cls, pixels: Indices, lost: NDArray[np.bool_]) -> EpochMask:
        """Pack the flat indices of artifacts and the plane of lost pixels."""
        clipped = np.zeros(lost.shape, bool)
        clipped.ravel()[pixels] = True
        return cls(np.packbits(clipped, axis=1), np.packbits(lost, axis=1))

    def apply(
        self,
        mask: NDArray[np.int32] | None,
        rows: slice,
        columns: slice,
        planes: MaskPlanes,
        bad: int,
    ) -> NDArray[np.int32]:
        """Set ``CLIPPED`` on artifacts; lost pixels become ``NO_DATA`` and nothing else bad.

        Parameters
        ----------
        mask : array, shape (n_row, n_column), int32, or None
        rows, columns : slice
            Place of the mask in the frame of the comparison.
        planes : MaskPlanes
        bad : int
            Bits that exclude a sample.
        """
        width = columns.stop
        clipped, lost = (
            np.unpackbits(packed[rows], axis=1, count=width)[:, columns].astype(bool)
            for packed in (self.clipped, self.lost)
        )
        out = np.zeros(clipped.shape, np.int32) if mask is None else mask.copy()
        out[lost] = (out[lost] & np.int32(~bad)) | np.int32(planes.value(["NO_DATA"]))
        out[clipped] |= np.int32(planes.value(["CLIPPED"]))
        return out


def max_epochs(n_image: NDArray[np.float64], params: CoaddParams) -> NDArray[np.int64]:
    """Largest number of epochs that may differ at a place for it to be an artifact.

    ``int(min(low n, epochs + high n))``, for n epochs that see the place.
    """
    few = params.max_fraction_low * n_image
    many = params.max_epochs + params.max_fraction_high * n_image
    return np.minimum(few, many).astype(np.int64)


def noise_factor(image: NDArray[np.float32], variance: NDArray[np.float32]) -> float:
    """Ratio of the real noise to the variance plane, from pixels 16 columns apart.

    Differences need no background; the quartiles of ``(a - b)**2 / (v_a + v_b)`` ignore sources.

    Parameters
    ----------
    image, variance : array, shape (ny, nx), float32
        NaN where not usable.

    Returns
    -------
    float
        1 when there are fewer than 100 pairs, or for a factor above 10, which no noise explains.
    """
    left, right = slice(None, -_LAG), slice(_LAG, None)
    with np.errstate(invalid="ignore"):
        ratio = image[:, left] - image[:, right]
        ratio /= np.sqrt(variance[:, left] + variance[:, right])
    ratio = ratio[np.isfinite(ratio)]
    if ratio.size < 100:
        return 1.0
    lower, upper = np.quantile(ratio[:: max(ratio.size >> 20, 1)], (0.25, 0.75))
    factor = float((IQR_TO_SIGMA * (upper - lower)) ** 2)
    return factor if 0 < factor <= 10 else 1.0


def difference(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    template: Template,
    weight: float,
    in_template: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Significance of an epoch minus the template of the other epochs.

    With T the template of all epochs and W its weight, the epoch's own share w / W is taken out:
    ``(I - T) / (1 - w/W)``, variance ``v + v_T W / (W - w)``.

    Parameters
    ----------
    image, variance : array, shape (ny, nx), float32
        Epoch on the frame of the template, NaN outside.
    template : Template
    weight : float
        Weight of the epoch in the template.
    in_template : array, shape (ny, nx), bool
        Where the epoch is part of the template.

    Returns
    -------
    array, shape (ny, nx), float32
        In standard deviations; NaN where either is missing.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(in_template, 1 - weight / template.weight, 1.0)
        rest[rest < 1e-6] = np.nan
        total = variance + template.variance / rest
        return np.asarray((image - template.image) / (rest * np.sqrt(total)), np.float32)


def find_candidates(
    significance: NDArray[np.float32],
    flagged: NDArray[np.bool_],
    sigma_psf: float,
    params: CoaddParams,
) -> Candidates:
    """Find connected significant differences of either sign.

    Parameters
    ----------
    significance : array, shape (ny, nx), float32
    flagged : array, shape (ny, nx), bool
        Pixels whose differences are known faults: a candidate of almost only these is dropped.
    sigma_psf : float
        Standard deviation of the matched PSF (pixel).
    params : CoaddParams
    """
    shape = significance.shape
    radius = int(0.4 * sigma_psf + 0.5)
    found = []
    for sign in (1, -1):
        pixels = np.flatnonzero(sign * significance >= params.artifact_threshold)
        found.append(grow(drop_small(pixels, shape[1], 4), radius, shape))
    pixels = np.union1d(*found)
    labels, n = components(pixels, shape[1])
    clean = np.bincount(labels, ~flagged.ravel()[pixels], minlength=n)
    area = np.bincount(labels, minlength=n)
    keep = (clean > 0.05 * area)[labels]
    order = np.argsort(labels[keep], kind="stable")
    _, counts = np.unique(labels[keep], return_counts=True)
    return Candidates(pixels[keep][order], np.concatenate([[0], np.cumsum(counts)]))


def protected_regions(
    template: Template, sigma_psf: float, params: CoaddParams
) -> NDArray[np.int32]:
    """Label the surroundings of bright sources, 0 elsewhere, shape (ny, nx).

    The template is smoothed by the PSF; regions above ``protect_threshold`` standard deviations
    grow by 2.4 of the PSF's.
    """
    half = int(3.5 * sigma_psf + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_psf) ** 2)
    kernel /= kernel.sum()
    image = np.nan_to_num(template.image)
    variance = np.nan_to_num(template.variance)
    for axis in (0, 1):
        image = correlate1d(image, kernel, axis, mode="constant")
        variance = correlate1d(variance, kernel**2, axis, mode="constant")
    bright = image >= params.protect_threshold * np.sqrt(variance)
    bright &= variance > 0
    radius = int(2.4 * sigma_psf + 0.5)
    dy, dx = disc(radius)
    shape = np.zeros((2 * radius + 1, 2 * radius + 1), bool)
    shape[dy + radius, dx + radius] = True
    labels, _ = label(binary_dilation(bright, shape), np.ones((3, 3)))
    return np.asarray(labels, np.int32)


def judge(
    candidates: Candidates,
    n_image: NDArray[np.uint16],
    n_different: NDArray[np.uint16],
    regions: NDArray[np.int32],
    params: CoaddParams,
) -> tuple[Indices, NDArray[np.void]]:
    """Decide which candidates of an epoch are artifacts.

    Parameters
    ----------
    candidates : Candidates
    n_image : array, shape (ny, nx), uint16
        Epochs that see a pixel.
    n_different : array, shape (ny, nx), uint16
        Epochs with a candidate there.
    regions : array, shape (ny, nx), int32
        From `protected_regions`: a candidate inside one region is not clipped.
    params : CoaddParams

    Returns
    -------
    pixels : array, int64
        Pixels to clip.
    table : structured array
        `ARTIFACT_COLUMNS` of every candidate, without the input.
    """
    table = empty_table(ARTIFACT_COLUMNS, len(candidates))
    if not len(candidates):
        return candidates.pixels, table
    area, start = np.diff(candidates.offsets), candidates.offsets[:-1]
    y, x = np.divmod(candidates.pixels, n_image.shape[1])
    for name, value, reduce in (
        ("y0", y, np.minimum), ("x0", x, np.minimum),
        ("y1", y + 1, np.maximum), ("x1", x + 1, np.maximum),
    ):  # fmt: skip
        table[name] = reduce.reduceat(value, start)
    table["area"] = area
    table["n_image"] = candidates.mean(n_image)
    table["max_epochs"] = max_epochs(table["n_image"], params)
    limit = np.repeat(table["max_epochs"], area)
    few = n_different.ravel()[candidates.pixels] <= limit
    table["fraction"] = np.add.reduceat(few.astype(np.int64), start) / area
    region = regions.ravel()[candidates.pixels]
    low, high = np.minimum.reduceat(region, start), np.maximum.reduceat(region, start)
    protected = (low == high) & (low > 0)
    transient = table["fraction"] > params.spatial_threshold
    table["decision"] = np.where(transient, np.where(protected, _PROTECTED, _CLIPPED), _PERSISTENT)
    clipped = np.repeat(transient & ~protected, area)
    return np.sort(candidates.pixels[clipped]), table
