"""Artifacts: what appears in one epoch and not in the others.

Every PSF-matched epoch is compared with a template of all of them. A significant difference is
clipped from its epoch when few epochs have one at the same place; what differs in many epochs is
a variable source and stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from coblend.core.catalog import Column, empty_table
from coblend.core.coadd.differences import smooth
from coblend.core.coadd.sparse import Indices, Runs, components, disc, drop_small, grow
from coblend.core.mask import MaskPlanes
from coblend.core.params.coadd import CoaddParams

_CLIPPED, _PERSISTENT, _PROTECTED = "CLIPPED", "PERSISTENT", "PROTECTED"
_GROSS_AREA = 0.25
"""Part of a candidate (with its margin) that differs grossly if it is an artifact on a source."""

ARTIFACT_COLUMNS = (
    Column("input", "i4", "number of the input in INPUTS", ucd="meta.id"),
    Column("x0", "i4", "first column, coadd coordinates", "pixel", "pos.cartesian.x"),
    Column("y0", "i4", "first row", "pixel", "pos.cartesian.y"),
    Column("x1", "i4", "column after the last", "pixel", "pos.cartesian.x"),
    Column("y1", "i4", "row after the last", "pixel", "pos.cartesian.y"),
    Column("area", "i8", "pixels, grown by the PSF", "pixel", "phys.area"),
    Column("n_image", "f8", "mean number of epochs that see it", ucd="meta.number;stat.mean"),
    Column("max_epochs", "i4", "epochs that may differ at a place for it to be an artifact",
           ucd="meta.number;stat.max"),
    Column("fraction", "f8", "part of its area where no more epochs than that differ",
           ucd="arith.ratio"),
    Column("decision", "U10", "CLIPPED, PERSISTENT (a variable source) or PROTECTED (bright)",
           ucd="meta.code"),
)  # fmt: skip
"""Columns of ARTIFACTS."""


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


@dataclass(frozen=True, slots=True)
class EpochMask:
    """What the comparison changes in the mask of a warp.

    Parameters
    ----------
    width : int
        Columns of the frame that flat indices count in.
    clipped : array, shape (n,), int64
        Flat indices of artifacts, ascending.
    seen : Runs
        Where the PSF-matched warp has data; nothing can be said elsewhere.
    """

    width: int
    clipped: Indices
    seen: Runs

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
        shape = rows.stop - rows.start, self.width
        first = rows.start * self.width
        lost = ~self.seen.plane(first, shape)[:, columns]
        clipped = np.zeros(shape, bool)
        low, high = np.searchsorted(self.clipped, (first, first + clipped.size))
        clipped.ravel()[self.clipped[low:high] - first] = True
        out = np.zeros(lost.shape, np.int32) if mask is None else mask.copy()
        out[lost] = (out[lost] & np.int32(~bad)) | np.int32(planes.value(["NO_DATA"]))
        out[clipped[:, columns]] |= np.int32(planes.value(["CLIPPED"]))
        return out


def max_epochs(n_image: NDArray[np.float64], params: CoaddParams) -> NDArray[np.int64]:
    """Largest number of epochs that may differ at a place for it to be an artifact.

    ``int(min(low n, epochs + high n))``, for n epochs that see the place.
    """
    few = params.max_fraction_low * n_image
    many = params.max_epochs + params.max_fraction_high * n_image
    return np.minimum(few, many).astype(np.int64)


def find_candidates(
    found: Iterable[Indices],
    min_area: float,
    flagged: Runs,
    shape: tuple[int, int],
    sigma_psf: float,
) -> Candidates:
    """Find connected significant differences.

    Parameters
    ----------
    found : iterable of arrays, int64
        Pixels above the threshold, ascending flat indices, for either sign.
    min_area : float
        Least area of their components (pixel).
    flagged : Runs
        Pixels whose differences are known faults: a candidate of almost only these is dropped.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    sigma_psf : float
        Standard deviation of the matched PSF (pixel).
    """
    radius = int(0.4 * sigma_psf + 0.5)
    grown = [grow(drop_small(pixels, shape[1], min_area), radius, shape) for pixels in found]
    pixels = np.unique(np.concatenate(grown))
    labels, n = components(pixels, shape[1])
    clean = np.bincount(labels, ~flagged.contains(pixels), minlength=n)
    area = np.bincount(labels, minlength=n)
    keep = (clean > 0.05 * area)[labels]
    order = np.argsort(labels[keep], kind="stable")
    _, counts = np.unique(labels[keep], return_counts=True)
    return Candidates(pixels[keep][order], np.concatenate([[0], np.cumsum(counts)]))


def reach(sigma_psf: float) -> int:
    """Rows around a part of the template that `bright` needs."""
    return int(3.5 * sigma_psf + 0.5) + int(2.4 * sigma_psf + 0.5)


def bright(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    sigma_psf: float,
    params: CoaddParams,
) -> NDArray[np.bool_]:
    """Find the surroundings of bright sources in (a part of) the template, shape (ny, nx).

    The template is smoothed by the PSF; regions above ``protect_threshold`` standard deviations
    grow by 2.4 of the PSF's.
    """
    image, variance = smooth(np.nan_to_num(image), np.nan_to_num(variance), sigma_psf)
    above = image >= params.protect_threshold * np.sqrt(variance)
    above &= variance > 0
    if not above.any():
        return above
    radius = int(2.4 * sigma_psf + 0.5)
    dy, dx = disc(radius)
    shape = np.zeros((2 * radius + 1, 2 * radius + 1), bool)
    shape[dy + radius, dx + radius] = True
    return np.asarray(binary_dilation(above, shape))


def judge(
    candidates: Candidates,
    n_image: NDArray[np.uint16],
    n_different: NDArray[np.integer],
    region: NDArray[np.integer],
    gross: NDArray[np.bool_],
    width: int,
    params: CoaddParams,
) -> tuple[Indices, NDArray[np.void]]:
    """Decide which candidates of an epoch are artifacts.

    Parameters
    ----------
    candidates : Candidates
    n_image : array, shape (n,), uint16
        Epochs that see each of the candidates' pixels.
    n_different : array, shape (n,), int
        Epochs with a candidate there.
    region : array, shape (n,), int
        Bright region there, 0: none; a candidate inside one region is not clipped, unless many
        of its pixels are gross.
    gross : array, shape (n,), bool
        Whether the difference is a good part of what is there.
    width : int
        Columns of the frame.
    params : CoaddParams

    Returns
    -------
    pixels : array, int64
        Pixels to clip, ascending.
    table : structured array
        `ARTIFACT_COLUMNS` of every candidate, without the input.
    """
    table = empty_table(ARTIFACT_COLUMNS, len(candidates))
    if not len(candidates):
        return candidates.pixels, table
    area, start = np.diff(candidates.offsets), candidates.offsets[:-1]
    y, x = np.divmod(candidates.pixels, width)
    for name, value, reduce in (
        ("y0", y, np.minimum), ("x0", x, np.minimum),
        ("y1", y + 1, np.maximum), ("x1", x + 1, np.maximum),
    ):  # fmt: skip
        table[name] = reduce.reduceat(value, start)
    table["area"] = area
    table["n_image"] = np.add.reduceat(n_image.astype(np.float64), start) / area
    table["max_epochs"] = max_epochs(table["n_image"], params)
    limit = np.repeat(table["max_epochs"], area)
    few = n_different <= limit
    table["fraction"] = np.add.reduceat(few.astype(np.int64), start) / area
    low, high = np.minimum.reduceat(region, start), np.maximum.reduceat(region, start)
    protected = (low == high) & (low > 0)
    protected &= np.add.reduceat(gross.astype(np.int64), start) < _GROSS_AREA * area
    transient = table["fraction"] > params.spatial_threshold
    table["decision"] = np.where(transient, np.where(protected, _PROTECTED, _CLIPPED), _PERSISTENT)
    clipped = np.repeat(transient & ~protected, area)
    return np.sort(candidates.pixels[clipped]), table
