"""All PSF-matched epochs against their template: what is an artifact, and in which epoch.

Epochs and template are read a few rows at a time; what is found is kept as lists of pixels, so
memory does not grow with the coadd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.coadd.artifacts import Candidates, EpochMask, find_candidates, judge, reach
from coblend.core.coadd.differences import Look, Template, difference, look, smoothed_difference
from coblend.core.coadd.regions import BLOCK, Regions, values_at
from coblend.core.coadd.samples import WarpPart
from coblend.core.coadd.sparse import Indices, Runs
from coblend.core.coadd.stack import Stacked
from coblend.core.coadd.streaks import MIN_AREA, band, extent, line_of
from coblend.core.mask import MaskPlanes
from coblend.core.params.coadd import CoaddParams

_MIN_AREA = 4.0
_FAINT = 5.0  # standard deviations of the smoothed difference
_NOWHERE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class SlabComparison:
    """A slab of the template against the epochs in it.

    Parameters
    ----------
    looks : dict of int to Look
        By number of the input.
    n_image : array, shape (ny, nx), uint16
        Epochs that can be compared.
    edges : Runs
        Where one is near the end of a sensor.
    """

    looks: dict[int, Look]
    n_image: NDArray[np.uint16]
    edges: Runs


def compare_slab(
    parts: Iterable[WarpPart],
    noise: Sequence[float],
    template: Stacked,
    frame: Box,
    planes: MaskPlanes,
    params: CoaddParams,
) -> SlabComparison:
    """Compare the parts of the epochs in a slab with the template there.

    Parameters
    ----------
    parts : iterable of WarpPart
        Those that the template was made of.
    noise : sequence of float
        Of every input: ratio of its real noise to its variance plane.
    template : Stacked
        The slab, with its input map.
    frame : Box
        All of the template.
    planes : MaskPlanes
    params : CoaddParams
    """
    looks = {}
    n_image, edge = np.zeros(template.box.shape, np.uint16), np.zeros(template.box.shape, bool)
    for part in parts:
        cut = part.box.slices(template.box)
        plane, bit = divmod(part.index, 31)
        inside = (template.input_map[plane][cut] >> bit & 1).astype(bool)
        own = Template(template.image[cut], template.variance[cut], template.weight[cut])
        looks[part.index], usable, near_edge = look(
            part, noise[part.index], own, inside, frame, planes, params
        )
        n_image[cut] += usable
        edge[cut] |= near_edge
    return SlabComparison(looks, n_image, Runs.of(edge, (template.box.y0 - frame.y0) * frame.nx))


@dataclass(frozen=True, slots=True)
class EpochRows:
    """An epoch in some rows of the frame.

    Parameters
    ----------
    place : tuple of slice
        Place of the arrays in those rows.
    image, variance : array, float32
        Of the epoch, NaN where it has no data.
    template : Template
    """

    place: tuple[slice, slice]
    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    template: Template


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch on the frame of the template.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    weight : float
        In the template.
    looks : sequence of Look
        From the bottom to the top.
    read : callable
        Rows from the first to before the second argument; None where the epoch has none.
    """

    shape: tuple[int, int]
    weight: float
    looks: Sequence[Look]
    read: Callable[[int, int], EpochRows | None]

    @property
    def seen(self) -> Runs:
        """Where the epoch has data."""
        return Runs.joined([look.seen for look in self.looks])

    def candidates(self, sigma: float) -> Candidates:
        """Significant pixels; ``sigma`` is the standard deviation of the PSF (pixel)."""
        found = (
            np.concatenate([_NOWHERE, *(look.positive for look in self.looks)]),
            np.concatenate([_NOWHERE, *(look.negative for look in self.looks)]),
        )
        return find_candidates(found, _MIN_AREA, self._flagged, self.shape, sigma)

    def faint_candidates(self, sigma: float) -> Candidates:
        """Wide areas whose difference is significant once it is smoothed by the PSF."""
        height, width = self.shape
        margin = reach(sigma)
        above, below = [_NOWHERE], [_NOWHERE]
        for first in range(0, height, BLOCK):
            last = min(first + BLOCK, height)
            low, high = max(first - margin, 0), min(last + margin, height)
            rows = self.read(low, high)
            if rows is None:
                continue
            found = np.full((high - low, width), np.nan, np.float32)
            found[rows.place] = smoothed_difference(
                rows.image, rows.variance, rows.template, self.weight, sigma
            )
            found = found[first - low : last - low]
            above.append(np.flatnonzero(found >= _FAINT) + first * width)
            below.append(np.flatnonzero(found <= -_FAINT) + first * width)
        both = np.concatenate(above), np.concatenate(below)
        return find_candidates(both, 4 * np.pi * sigma**2, self._flagged, self.shape, sigma)

    def trails(self, candidates: Candidates, table: NDArray[np.void], sigma: float) -> Indices:
        """Pixels of the trails that clipped candidates, judged in ``table``, belong to."""
        found = [_NOWHERE]
        for k in np.flatnonzero((table["decision"] == "CLIPPED") & (table["area"] >= MIN_AREA)):
            own = candidates.pixels[candidates.offsets[k] : candidates.offsets[k + 1]]
            line = line_of(own, self.shape[1])
            if line is None:
                continue
            near, along = band(line, 2 * sigma, self.shape)
            first, last = extent(line, along, self._significance(near))
            pixels, along = band(line, max(5 * sigma, 3 * line.sigma), self.shape)
            found.append(pixels[(along >= first) & (along <= last)])
        return np.unique(np.concatenate(found))

    @property
    def gross(self) -> Runs:
        """Where it differs by a good part of what is there."""
        return Runs.joined([look.gross for look in self.looks])

    @property
    def _flagged(self) -> Runs:
        return Runs.joined([look.flagged for look in self.looks])

    def _significance(self, pixels: Indices) -> NDArray[np.float32]:
        """Significance of the difference at ascending flat indices, NaN where it is not known.

        A trail too faint to be found was not clipped from the template either.
        """
        out = np.full(pixels.size, np.nan, np.float32)
        width = self.shape[1]
        first, last = (int(p) // width for p in (pixels[0], pixels[-1]))
        for row in range(first, last + 1, BLOCK):
            end = min(row + BLOCK, last + 1)
            rows = self.read(row, end)
            if rows is None:
                continue
            full = np.full((end - row, width), np.nan, np.float32)
            full[rows.place] = difference(rows.image, rows.variance, rows.template, self.weight)
            low, high = np.searchsorted(pixels, (row * width, end * width))
            out[low:high] = full.ravel()[pixels[low:high] - row * width]
        return out


def find_artifacts(
    epochs: Sequence[Epoch],
    regions: Regions,
    n_image: Callable[[], Iterable[NDArray[np.uint16]]],
    sigma: float,
    params: CoaddParams,
) -> tuple[list[EpochMask], NDArray[np.void]]:
    """Find the artifacts of all epochs.

    Parameters
    ----------
    epochs : sequence of Epoch
    regions : Regions
        Surroundings of bright sources.
    n_image : callable
        Blocks of whole rows, in order, with the number of epochs that can be compared.
    sigma : float
        Standard deviation of the PSF (pixel).
    params : CoaddParams

    Returns
    -------
    masks : list of EpochMask
    table : structured array
        ARTIFACTS; positions are array indices of the frame.
    """
    rounds = [Epoch.candidates, *[Epoch.faint_candidates] * params.faint_artifacts]
    clipped: list[list[Indices]] = [[] for _ in epochs]
    tables = []
    for find in rounds:
        found = [find(epoch, sigma) for epoch in epochs]
        judged = _judge_all(epochs, found, n_image(), regions, params)
        for i, (candidates, (pixels, table)) in enumerate(zip(found, judged, strict=True)):
            clipped[i].append(pixels)
            if params.streaks:
                trails = epochs[i].trails(candidates, table, sigma)
                clipped[i].append(trails[regions.at(trails) == 0])
            table["input"] = i
            tables.append(table)
    masks = [
        EpochMask(epoch.shape[1], np.unique(np.concatenate(pixels)), epoch.seen)
        for epoch, pixels in zip(epochs, clipped, strict=True)
    ]
    return masks, np.concatenate(tables)


def _judge_all(
    epochs: Sequence[Epoch],
    found: Sequence[Candidates],
    n_image: Iterable[NDArray[np.uint16]],
    regions: Regions,
    params: CoaddParams,
) -> Iterator[tuple[Indices, NDArray[np.void]]]:
    """Judge the candidates of all epochs together: pixels to clip, and rows of ARTIFACTS."""
    pixels = [candidates.pixels for candidates in found]
    everywhere, n_different = np.unique(np.concatenate(pixels), return_counts=True)
    n_seen = values_at(n_image, everywhere, np.uint16)
    region = regions.at(everywhere)
    for epoch, candidates in zip(epochs, found, strict=True):
        own = np.searchsorted(everywhere, candidates.pixels)
        gross = epoch.gross.contains(candidates.pixels)
        yield judge(
            candidates, n_seen[own], n_different[own], region[own], gross, epoch.shape[1], params
        )
