"""Who gets the light of a pixel.

Every object's share is its template's part of the sum of all templates of the parent. Templates
are the models convolved with a non-negative kernel, so shares lie between 0 and 1 and sum to 1
wherever any template reaches: flux is conserved exactly. The reference system (scarlet lite:
Blend.conserve_flux) takes absolute values of both instead, source by source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from coblend.core.reconstruct.frames import Frames
from coblend.core.reconstruct.stamps import Stamps, common_pixels, group_sum

ROUND_OFF = 1e-10
"""Template values below this part of the parent's largest are round-off of the transform."""
_EXCESS = 5.0
"""Light of a bad pixel above the models, in units of its noise, that is not theirs to share."""
_STRAY_BLOCK = 1 << 18
"""Pairs of stray pixels and candidates that are looked at together."""
_STRAY_CLIP = 1e-3
"""Stray light: weights below this part of the largest are dropped (meas_deblender)."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pixels with their owners, sorted by owner, then pixel; a pixel may have several owners.

    Parameters
    ----------
    owner : array, shape (n,), int32
        Object.
    pixel : array, shape (n,), int32 or int64
        Flat index in the frames.
    value : array, shape (n,), float64
        Share of the pixel's light (or the template before it is made a share).
    source : array, shape (n,), int32 or int64
        Flat index in the templates; -1 where the piece comes from none.
    """

    owner: NDArray[np.int32]
    pixel: NDArray[np.integer]
    value: NDArray[np.float64]
    source: NDArray[np.integer]

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Pieces:
        """Select pieces."""
        if index.dtype == bool and np.all(index):
            return self
        return Pieces(self.owner[index], self.pixel[index], self.value[index], self.source[index])

    def with_values(self, value: NDArray[np.float64]) -> Pieces:
        """Return the same pieces with other values."""
        return Pieces(self.owner, self.pixel, value, self.source)


def join(parts: list[Pieces]) -> Pieces:
    """All pieces of several sets, sorted."""
    parts = [p for p in parts if len(p.owner)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    n_pixel = 1 + max(int(p.pixel.max()) for p in parts)
    key = np.concatenate([p.owner * np.int64(n_pixel) + p.pixel for p in parts])
    order = np.argsort(key, kind="stable")  # merges sorted runs, does not sort anew
    del key  # large
    fields = (np.concatenate([getattr(p, f) for p in parts])[order] for f in Pieces.__slots__)
    return Pieces(*fields)


def template_pieces(
    frames: Frames,
    templates: Stamps,
    owner: NDArray[np.int64],
    parent: NDArray[np.int64],
    *,
    confined: bool = True,
) -> Pieces:
    """Pixels that the templates reach, with the templates' values.

    Parameters
    ----------
    frames : Frames
    templates : Stamps
    owner, parent : array, shape (n,), int64
        Object and frame of each template.
    confined : bool
        Whether pixels outside the parent's footprint are left out.
    """
    source, pixel, counts = common_pixels(
        templates.boxes, templates.offsets[:-1], frames.boxes[parent], frames.offsets[parent]
    )
    value = templates.values[source]
    keep = np.abs(value) > np.repeat(_floors(templates, parent, len(frames.boxes)), counts)
    if confined:
        keep &= frames.inside[pixel]
    value = value[keep]  # one after the other: each copy frees its original
    source = source[keep]
    pixel = pixel[keep]
    owners = np.repeat(owner.astype(np.int32), counts)[keep]
    narrow = _narrow(pixel, len(frames.inside))
    return Pieces(owners, narrow, value, _narrow(source, len(templates.values)))


def whole_pieces(frames: Frames, owner: NDArray[np.int64], parent: NDArray[np.int64]) -> Pieces:
    """All footprint pixels of some parents, each for its one object."""
    counts = (frames.boxes[:, 2] * frames.boxes[:, 3])[parent]
    pixel = np.concatenate(
        [np.empty(0, np.int64)] + [np.arange(*frames.offsets[p : p + 2]) for p in parent]
    )
    keep = frames.inside[pixel]
    where = _narrow(pixel[keep], len(frames.inside))
    owners = np.repeat(owner.astype(np.int32), counts)[keep]
    return Pieces(owners, where, np.ones(len(where)), np.full(len(where), -1, where.dtype))


def positive_shares(
    pieces: Pieces,
    n_pixel: int,
    other: NDArray[np.float64] | None = None,
    min_ratio: float = 0.0,
) -> Pieces:
    """Shares ``T / sum T``, which sum to 1 in every pixel.

    Parameters
    ----------
    pieces : Pieces
        Templates; values that are not positive get nothing.
    n_pixel : int
        Pixels in the frames.
    other : array, shape (n_pixel,), float64, optional
        Templates of objects that are not among the pieces: they keep their share.
    min_ratio : float
        Shares below this are given to the others.
    """
    pieces = pieces.take(pieces.value > 0)
    total = group_sum(pieces.pixel, pieces.value, n_pixel)
    if other is not None:
        total += other
    share = pieces.value / total[pieces.pixel]
    if min_ratio > 0:
        keep = share >= min_ratio
        pieces, share = pieces.take(keep), share[keep]
        left = group_sum(pieces.pixel, share, n_pixel)
        if other is not None:
            left += np.divide(other, total, out=np.zeros(n_pixel), where=total > 0)
        share = share / left[pieces.pixel]
    return pieces.with_values(share)


def settle_excess(
    pieces: Pieces,
    templates: Pieces,
    frames: Frames,
    other: NDArray[np.float64] | None = None,
) -> Pieces:
    """Give light of bad pixels that no model explains to one object.

    A bleed trail is far brighter than the models of the objects that it crosses: shared like
    other light it would be theirs. In bad pixels whose image exceeds the sum of the templates by
    5 sigma every object gets what its template says, and the rest goes to the object that has the
    most light in the connected bad pixels above 5 sigma: the saturated star. Shares still sum
    to 1.

    Parameters
    ----------
    pieces : Pieces
        Shares, which sum to 1.
    templates : Pieces
        What they are shares of.
    frames : Frames
    other : array, shape (n_pixel,), float64, optional
        Templates of objects that are not among the pieces.
    """
    bad = frames.bad & ~frames.no_data
    if not np.any(bad):
        return pieces
    total = group_sum(templates.pixel, np.maximum(templates.value, 0.0), len(bad))
    if other is not None:
        total += other
    excess = frames.image - total
    least = _EXCESS * np.sqrt(frames.variance)
    odd = bad & (total > 0) & (excess > least)
    if not np.any(odd):
        return pieces
    region = _regions(frames, bad & (frames.image > least), odd)
    light = pieces.value * total[pieces.pixel]
    takers = _brightest(region[pieces.pixel], pieces.owner, light)

    among = odd[pieces.pixel]
    share = pieces.value.copy()
    share[among] = light[among] / frames.image[pieces.pixel[among]]
    takes = among & (pieces.owner == takers[region[pieces.pixel]])
    where = pieces.pixel[takes]
    share[takes] += excess[where] / frames.image[where]
    odd[where] = False  # what is left are pixels that the template of their taker does not reach
    more = np.flatnonzero(odd)
    rest = Pieces(
        takers[region[more]].astype(np.int32),
        _narrow(more, len(odd)),
        excess[more] / frames.image[more],
        np.full(len(more), -1, pieces.source.dtype),
    )
    return join([pieces.with_values(share), rest])


def _regions(frames: Frames, lit: NDArray[np.bool_], odd: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count sets of connected lit pixels from 1, in frames with odd ones; 0 elsewhere."""
    region = np.zeros(len(lit), np.int64)
    offsets, last = frames.offsets, 0
    for i in np.unique(np.searchsorted(offsets, np.flatnonzero(odd), side="right") - 1).tolist():
        cut = slice(offsets[i], offsets[i + 1])
        labels, n = ndimage.label(lit[cut].reshape(frames.boxes[i, 2:]), np.ones((3, 3)))
        region[cut] = np.where(labels > 0, labels + last, 0).ravel()
        last += n
    return region


def _brightest(
    region: NDArray[np.int64], owner: NDArray[np.int32], light: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Owner of the most light in each region, shape (largest region + 1,), int64."""
    inside = np.flatnonzero(region)
    n = int(owner.max(initial=0)) + 1
    pairs, which = np.unique(region[inside] * n + owner[inside], return_inverse=True)
    where, who = np.divmod(pairs, n)
    order = np.lexsort((group_sum(which, light[inside], len(pairs)), where))
    out = np.zeros(int(region.max(initial=0)) + 1, np.int64)
    out[where[order]] = who[order]  # the last one of each region is its brightest
    return out


def reference_shares(pieces: Pieces, n_pixel: int) -> Pieces:
    """Shares ``min(|T| / |sum T|, 1)`` of the reference system; they need not sum to 1."""
    total = np.abs(group_sum(pieces.pixel, pieces.value, n_pixel))[pieces.pixel]
    keep = total > 0
    pieces = pieces.take(keep)
    return pieces.with_values(np.minimum(np.abs(pieces.value) / total[keep], 1.0))


def stray_pieces(
    rule: str,
    stray: NDArray[np.int64],
    frames: Frames,
    owner: NDArray[np.int64],
    parent: NDArray[np.int64],
    peaks: NDArray[np.int64],
) -> list[Pieces]:
    """Share pixels that no template reaches; the parts are to be joined.

    Parameters
    ----------
    rule : {"nearest", "r-to-peak"}
        All to the nearest peak (the first of equals), or ``1 / (1 + r^2)`` to each (r in pixels;
        meas_deblender: strayFluxRule).
    stray : array, shape (n_stray,), int64
        Flat indices in the frames, ascending.
    frames : Frames
    owner, parent : array, shape (n,), int64
        Candidates, in order of preference, and their frames.
    peaks : array, shape (n, 2), int64
        Their peak pixels ``y, x``.
    """
    offsets = frames.offsets
    frame_of = np.searchsorted(offsets, stray, side="right") - 1
    parts = []
    for frame in np.unique(frame_of).tolist():
        rows = np.flatnonzero(parent == frame)
        if not len(rows):
            continue
        pixels = stray[frame_of == frame]
        share = _nearest if rule == "nearest" else _by_distance
        n_pair = len(pixels) * (1 if rule == "nearest" else len(rows))
        for pixel in np.array_split(pixels, n_pair // _STRAY_BLOCK + 1):
            y, x = np.divmod(pixel - offsets[frame], frames.boxes[frame, 3])
            places = np.stack([y, x], axis=1) + frames.boxes[frame, :2]
            who, which, value = share(places, peaks[rows])
            whose = owner[rows].astype(np.int32)[who]
            where = _narrow(pixel[which], len(frames.inside))
            parts.append(Pieces(whose, where, value, np.full(len(who), -1, where.dtype)))
    return parts


def _nearest(
    places: NDArray[np.int64], peaks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Candidate, place and weight of every pair: each place and its nearest peak.

    Squared distances are integers, so a third coordinate whose square is below 1 decides between
    equals: the first one wins.
    """
    n = len(peaks)
    rank = np.sqrt(np.arange(n) / (n + 1))
    tree = cKDTree(np.column_stack([peaks, rank]))
    best = tree.query(np.column_stack([places, np.zeros(len(places))]))[1]
    order = np.argsort(best, kind="stable")
    return best[order], order, np.ones(len(order))


def _by_distance(
    places: NDArray[np.int64], peaks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Candidate, place and weight of every pair with a weight."""
    difference = places[None] - peaks[:, None]
    weight = 1.0 / (1.0 + (difference * difference).sum(axis=2))
    weight[weight < _STRAY_CLIP * weight.max(axis=0)] = 0.0
    weight /= weight.sum(axis=0)
    who, which = np.nonzero(weight)
    return who, which, weight[who, which]


def _narrow(index: NDArray[np.int64], n: int) -> NDArray[np.integer]:
    """Store indices below ``n`` in half the memory where they fit."""
    return index.astype(np.int32) if n <= np.iinfo(np.int32).max else index


def _floors(templates: Stamps, parent: NDArray[np.int64], n_parent: int) -> NDArray[np.float64]:
    """Level below which each template counts as zero, shape (n,), float64."""
    if not len(templates):
        return np.zeros(0)
    own = np.split(templates.values, templates.offsets[1:-1])  # reduceat is slow
    largest = [max(values.max(), -values.min()) for values in own]
    of_parent = np.zeros(n_parent)
    np.maximum.at(of_parent, parent, largest)
    return ROUND_OFF * of_parent[parent]
