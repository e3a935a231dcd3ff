"""The start of the reference system, faults included, for comparisons with it.

As ``FactorizedInitialization`` and ``Blend.fit_spectra`` of scarlet lite do: a detection image
that is not deconvolved, reflected about integer pixels and cut at a threshold in the units of
another image; spectra solved for without weights, in which negative ones become 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Centres, Floats, Stack, stack_stamps
from coblend.core.deblend.fitting.evaluate import TINY
from coblend.core.deblend.fitting.initialize import (
    DISK_FRACTION,
    brightest_near,
    signal_to_noise,
)
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.operators import monotonic_mask, reflect
from coblend.core.deblend.fitting.spectra import render
from coblend.core.params.deblend import DeblendParams

_PADDING = 4
"""Growth of the boxes of lit pixels: twice the default of 2 (pixel)."""


def reference_components(
    observation: Observation,
    weights: Sequence[Floats],
    psfs: Floats,
    centres: Centres,
    sigma: Floats,
    psf_morph: Floats,
    params: DeblendParams,
) -> tuple[Centres, list[Stack], NDArray[np.bool_]]:
    """Components of every peak as the reference system starts with them.

    Parameters
    ----------
    observation : Observation
        Whose data count outside the footprints, too.
    weights : sequence of array, shape (n_band, ny, nx)
        Of each blend's whole box.
    psfs : array, shape (n, n_band, p, p)
        Observed PSFs of each blend.
    centres : Centres
        The peaks.
    sigma : array, shape (n_band,)
        Noise of the bands (image units).
    psf_morph : array, shape (q, q)
        Morphology of peaks without light of their own; its sum is 1, not its maximum.
    params : DeblendParams

    Returns
    -------
    centres : Centres
        Of the components.
    stacks : list of Stack
    point : array, shape (k,), bool
        Components that start as the model PSF.
    """
    images = [np.einsum("byx,b->yx", data, 1 / sigma) for data in observation.data]
    threshold = params.initial_background_thresh * float(np.mean(sigma))
    ratio = signal_to_noise(observation.data, weights, psfs * sigma[:, None, None], centres)
    double = np.floor(ratio) >= 2 * params.min_snr
    rows, limits, morphs, point = [], [], [], []
    for i, (blend, y, x) in enumerate(
        zip(centres.blend.tolist(), centres.y.tolist(), centres.x.tolist(), strict=True)
    ):
        image = images[blend][: centres.ny[i], : centres.nx[i]]
        box, morph = _lit_part(image, y, x, threshold)
        empty = not morph.any()
        if empty:
            half = len(psf_morph) // 2
            box = _grown((y, y + 1, x, x + 1), half, image.shape)
            morph = psf_morph[box[0] - y + half : box[1] - y + half,
                              box[2] - x + half : box[3] - x + half]  # fmt: skip
        parts = [morph]
        if double[i] and not empty:
            parts = [np.minimum(morph, DISK_FRACTION), np.maximum(morph - DISK_FRACTION, 0)]
            parts = [part / part.max() for part in parts]
        for part in parts:
            rows.append(i)
            limits.append(box)
            morphs.append(part)
            point.append(empty)
    own, edges = (
        centres.select(np.array(rows, np.int64)),
        np.array(limits, np.int64).reshape(-1, 4),
    )
    stacks = stack_stamps(own.radii_of(edges), own, [], 1, edges)
    dtype = observation.frames[0].data.dtype
    stacks = [stack.with_planes(stack.planes.astype(dtype)) for stack in stacks]
    for stack in stacks:
        for stamp, row, (_, _, place) in zip(stack.morph, stack.rows, stack.places, strict=True):
            stamp[place] = morphs[row]
    return own, stacks, np.array(point, bool)


def _lit_part(
    image: Floats, y: int, x: int, threshold: float
) -> tuple[tuple[int, int, int, int], Floats]:
    """Symmetric, monotonic part of an image about a pixel: its box, and its morphology there."""
    if (y, x) == (image.shape[0] // 2, image.shape[1] // 2):
        image = np.minimum(image, image[::-1, ::-1])  # off by half a pixel along even sides
    else:
        image = reflect(image, y, x)
    lit = monotonic_mask(image, *brightest_near(image, y, x)) & (image > threshold)
    if not lit.any():
        return (y, y + 1, x, x + 1), np.zeros((1, 1))
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    tight = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    box = _grown(tight, _PADDING, image.shape)
    cut = slice(*box[:2]), slice(*box[2:])
    morph = np.where(lit[cut], image[cut], 0)
    return box, morph / morph.max()


def _grown(
    box: tuple[int, int, int, int], padding: int, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Box (first and end row, first and end column) with room around it, within the frame."""
    y0, y1, x0, x1 = box
    ny, nx = shape
    return max(0, y0 - padding), min(ny, y1 + padding), max(0, x0 - padding), min(nx, x1 + padding)


def unweighted_spectra(
    observation: Observation, centres: Centres, stacks: Sequence[Stack]
) -> Floats:
    """Least-squares spectra at fixed morphologies, all pixels alike; negative ones become 0.

    Returns
    -------
    array, shape (k, n_band)
    """
    spectra = np.zeros((len(centres), observation.n_band))
    for own, data in zip(render(observation, stacks), observation.data, strict=True):
        rows = [row for row, _, _ in own]
        box = np.s_[:, : int(centres.ny[rows[0]]), : int(centres.nx[rows[0]])]
        images = np.zeros((len(own), *data.shape))
        for image, (_, window, rendered) in zip(images, own, strict=True):
            image[(slice(None), *window)] = rendered
        for b, target in enumerate(data[box]):
            design = images[(slice(None), b, *box[1:])].reshape(len(own), -1).T
            spectra[rows, b] = np.linalg.lstsq(design, target.ravel().astype(float))[0]
    return np.maximum(spectra, TINY).astype(observation.frames[0].data.dtype)
