"""Morphologies of all components as one heap of values and one of run lengths, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.errors import CorruptFileError, FormatError
from coblend.core.footprint import box_offsets, expand_runs
from coblend.core.model import CUBE, FACTORIZED, POINT, ModelSet, boxes_of
from coblend.io.deblend.encoding import decode_runs, encode_runs, from_codes, intervals, to_codes


@dataclass(frozen=True, slots=True)
class Heap:
    """Stored form of n components.

    Parameters
    ----------
    boxes : array, shape (n, 4), int64
        ``y0, x0, ny, nx`` around the non-zero pixels, parent coordinates.
    scale : array, shape (n,), float32
        Value of one code.
    n_pix, n_run : array, shape (n,), int64
        Codes and runs of each component.
    codes : array, shape (sum(n_pix),), int32, or float32 when lossless
        Values on the support in row-major order; of a cube, band after band.
    runs : array, shape (sum(n_run),), int16
    """

    boxes: NDArray[np.int64]
    scale: NDArray[np.float32]
    n_pix: NDArray[np.int64]
    n_run: NDArray[np.int64]
    codes: NDArray[Any]
    runs: NDArray[np.int16]


def pack(models: ModelSet, steps: NDArray[np.floating] | None) -> Heap:
    """Store morphologies.

    Parameters
    ----------
    models : ModelSet
    steps : array, shape (n_component,), optional
        Rounding step of each morphology; None: lossless.

    Raises
    ------
    FormatError
        A spectrum or morphology is not finite, or a kind is unknown.
    """
    _require_finite(models)
    kind = models.components["kind"]
    boxes = boxes_of(models.components)
    shaped = kind != POINT
    boxes[~shaped] = _peak_boxes(models.components)[~shaped]
    offsets = box_offsets(boxes)
    planes = np.where(shaped, np.where(kind == CUBE, len(models.bands), 1), 0)

    support = np.zeros(int(offsets[-1]), bool)
    for plane in range(int(planes.max(initial=0))):
        rows = np.flatnonzero(planes > plane)
        area = np.diff(offsets)[rows]
        start = models.morph_offsets[:-1][rows] + plane * area
        support[expand_runs(offsets[rows], area)] |= models.morph[expand_runs(start, area)] != 0
    pixels = np.flatnonzero(support)
    trimmed, there, count = _trim(pixels, boxes, offsets, _peak_boxes(models.components))
    corners = box_offsets(trimmed)
    runs, n_run = encode_runs(*intervals(there, corners), corners)
    if not np.all(shaped):
        runs = runs[np.repeat(shaped, n_run)]
        n_run = np.where(shaped, n_run, 0)

    group = np.repeat(np.arange(len(boxes)), planes)
    plane_of = np.arange(len(group)) - np.repeat(np.cumsum(planes) - planes, planes)
    per_group = count[group]
    which = expand_runs((np.cumsum(count) - count)[group], per_group)
    shift = models.morph_offsets[:-1] - offsets[:-1]
    move = shift[group] + plane_of * np.diff(offsets)[group]
    values = models.morph[pixels[which] + np.repeat(move, per_group)]
    if steps is None:
        scale, codes = np.ones(len(boxes), np.float32), values
    else:
        scale = np.asarray(steps, np.float32)
        codes = to_codes(values.astype(np.float64), per_group, scale[group].astype(np.float64))
    return Heap(trimmed, scale, planes * count, n_run, codes, runs)


def unpack(
    components: NDArray[Any], codes: NDArray[Any], runs: NDArray[np.int16], n_band: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Morphologies of stored components.

    Parameters
    ----------
    components : structured array
        Boxes, ``kind``, ``scale``, ``n_pix`` and ``n_run``.
    codes, runs : array
        Theirs.
    n_band : int

    Returns
    -------
    morph : array, shape (n_value,), float32
    offsets : array, shape (n + 1,), int64
        As in `ModelSet`.

    Raises
    ------
    FormatError
        For a kind of component that this program does not know.
    CorruptFileError
        When runs, pixels and boxes contradict each other.
    """
    kind = components["kind"]
    if not np.all(np.isin(kind, (FACTORIZED, CUBE, POINT))):
        raise FormatError(
            f"component kind {int(kind.max())} is unknown",
            hint="the file was written by a newer version; upgrade coblend",
        )
    shaped = kind != POINT
    boxes = boxes_of(components)
    boxes[~shaped, 2:] = 0
    offsets = box_offsets(boxes)
    inner = box_offsets(boxes[shaped])
    start, stop = decode_runs(runs, components["n_run"][shaped].astype(np.int64), inner)
    pixels = expand_runs(start, stop - start)
    owner = np.flatnonzero(shaped)[np.searchsorted(inner, pixels, side="right") - 1]
    count = np.bincount(owner, minlength=len(boxes))
    planes = np.where(shaped, np.where(kind == CUBE, n_band, 1), 0)
    if not np.array_equal(planes * count, components["n_pix"]) or len(codes) != np.sum(
        planes * count
    ):
        raise CorruptFileError("run lengths and number of pixels contradict each other")
    area = np.diff(offsets)
    morph_offsets = np.concatenate([[0], np.cumsum(planes * area)]).astype(np.int64)
    group = np.repeat(np.arange(len(boxes)), planes)
    plane_of = np.arange(len(group)) - np.repeat(np.cumsum(planes) - planes, planes)
    per_group = count[group]
    which = expand_runs((np.cumsum(count) - count)[group], per_group)
    move = (morph_offsets[:-1] - offsets[:-1])[group] + plane_of * area[group]
    morph = np.zeros(int(morph_offsets[-1]), np.float32)
    if codes.dtype.kind == "f":
        values = codes.astype(np.float32)
    else:
        values = from_codes(codes, per_group, components["scale"][group].astype(np.float64))
    morph[pixels[which] + np.repeat(move, per_group)] = values
    return morph, morph_offsets


def _trim(
    pixels: NDArray[np.int64],
    boxes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    fallback: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Boxes around the pixels, the pixels' flat indices in those, and pixels per box."""
    owner = np.searchsorted(offsets, pixels, side="right") - 1
    count = np.bincount(owner, minlength=len(boxes))
    y, x = np.divmod(pixels - offsets[owner], boxes[owner, 3])
    y, x = y + boxes[owner, 0], x + boxes[owner, 1]
    filled = np.flatnonzero(count)
    first = (np.cumsum(count) - count)[filled]
    trimmed = fallback.copy()
    if len(filled):
        y0, x0 = np.minimum.reduceat(y, first), np.minimum.reduceat(x, first)
        y1, x1 = np.maximum.reduceat(y, first), np.maximum.reduceat(x, first)
        trimmed[filled] = np.stack([y0, x0, y1 - y0 + 1, x1 - x0 + 1], axis=1)
    there = box_offsets(trimmed)[owner]
    there += (y - trimmed[owner, 0]) * trimmed[owner, 3] + x - trimmed[owner, 1]
    return trimmed, there, count


def _peak_boxes(components: NDArray[Any]) -> NDArray[np.int64]:
    """One pixel at each centre, shape (n, 4), int64."""
    one = np.ones(len(components), np.int64)
    return np.stack([components["peak_y"], components["peak_x"], one, one], axis=1)


def _require_finite(models: ModelSet) -> None:
    values = np.logical_not(np.isfinite(models.morph))
    spectra = np.logical_not(np.isfinite(models.spectra()).all(axis=1))
    per_component = np.diff(np.concatenate([[0], np.cumsum(values)])[models.morph_offsets])
    bad = np.flatnonzero(spectra | (per_component > 0))
    if len(bad):
        row = int(bad[0])
        owner = models.objects[models.components["object"][row]]
        raise FormatError(
            f"the model of object {owner['id']} in blend {owner['blend']} is not finite: "
            f"component {row} has {int(per_component[row])} bad pixels"
            f"{' and a bad spectrum' if spectra[row] else ''}; {len(bad)} such components"
        )
