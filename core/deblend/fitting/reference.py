"""The start of the reference system, faults included, for comparisons with it.

As ``FactorizedInitialization`` and ``Blend.fit_spectra`` of scarlet lite do: a detection image
that is not deconvolved, reflected about integer pixels and cut at a threshold in the units of
another image; spectra solved for without weights, in which negative ones become 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.deblend.fitting.components import Centres, Floats, Stack, stack_stamps
from coblend.core.deblend.fitting.evaluate import TINY
from coblend.core.deblend.fitting.initialize import brightest_near, signal_to_noise
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.operators import monotonic_mask, reflect
from coblend.core.deblend.fitting.render import render
from coblend.core.params.deblend import DeblendParams

_DISK = 0.25
"""Level at which a bright source (of maximum 1) is cut into a disk and a bulge."""
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
        box, morph, is_point = _morphology(image, y, x, threshold, psf_morph)
        parts = [morph]
        if double[i] and not is_point:
            parts = [np.minimum(morph, _DISK), np.maximum(morph - _DISK, 0)]
            parts = [part / part.max() for part in parts]
        for part in parts:
            rows.append(i)
            limits.append((box.y0, box.y1, box.x0, box.x1))
            morphs.append(part)
            point.append(is_point)
    own = centres.select(np.array(rows, np.int64))
    edges = np.array(limits, np.int64).reshape(-1, 4)
    stacks = stack_stamps(own.reach_within(edges), own, [], 1, edges)
    dtype = observation.frames[0].data.dtype
    stacks = [stack.with_planes(stack.planes.astype(dtype)) for stack in stacks]
    for stack in stacks:
        for stamp, row, (_, _, place) in zip(stack.morph, stack.rows, stack.places, strict=True):
            stamp[place] = morphs[row]
    return own, stacks, np.array(point, bool)


def _morphology(
    image: Floats, y: int, x: int, threshold: float, psf_morph: Floats
) -> tuple[Box, Floats, bool]:
    """Symmetric, monotonic light about a pixel: its box, its pixels, whether it is the PSF's."""
    frame = Box(0, 0, *image.shape)
    if (y, x) == (frame.ny // 2, frame.nx // 2):
        image = np.minimum(image, image[::-1, ::-1])  # off by half a pixel along even sides
    else:
        image = reflect(image, y, x)
    lit = monotonic_mask(image, *brightest_near(image, y, x)) & (image > threshold)
    if not lit.any():
        stamp = Box(y, x, 1, 1).grow(len(psf_morph) // 2)
        box = stamp & frame
        return box, psf_morph[box.slices(stamp)], True
    rows, columns = np.flatnonzero(lit.any(1)).tolist(), np.flatnonzero(lit.any(0)).tolist()
    tight = Box.from_bounds(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    box = tight.grow(_PADDING) & frame
    cut = box.slices(frame)
    morph = np.where(lit[cut], image[cut], 0)
    return box, morph / morph.max(), False


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
