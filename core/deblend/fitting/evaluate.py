"""The loss at given morphologies, and its gradients.

Frames with a single component need the transform of its morphology only, instead of those of all
bands, and have their best spectrum in closed form; the others are rendered band by band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats, Stack, Window, placed
from coblend.core.deblend.fitting.observation import Frames, Observation

TINY = np.float32(1e-20)
"""Smallest value of a spectrum."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Loss and gradients.

    Parameters
    ----------
    loss : array, shape (n,), float64
        Half the weighted sum of squared residuals of every blend.
    spectra : array, shape (k, n_band), float32
        Those that the gradients belong to: the best ones for components that are alone.
    spectrum_pull : array, shape (k, n_band), float32
        Gradient with respect to the spectra; 0 with closed forms, where nobody needs it.
    pull : sequence of array, shape (m, side, side), float32
        Per stack, the gradient with respect to the morphologies, ``s K'(w (K M - d))``, sharpened
        as the observation says.
    load : sequence of array
        The part of the model in it, ``s K'(w K M)``.
    """

    loss: NDArray[np.float64]
    spectra: Floats
    spectrum_pull: Floats
    pull: Sequence[Floats]
    load: Sequence[Floats]


def correlated_data(observation: Observation) -> list[Floats]:
    """Apply the adjoint kernels to the weighted data, per group of frames: ``K'(w d)``."""
    return [frames.correlate(frames.weight * frames.data) for frames in observation.frames]


def evaluate(
    observation: Observation,
    members: Sequence[Sequence[int]],
    stacks: Sequence[Stack],
    spectra: Floats,
    correlated: Sequence[Floats],
    closed_form: bool = True,
) -> Evaluation:
    """Evaluate the loss and its gradients.

    Parameters
    ----------
    observation : Observation
        Frames hold either blends with one component, or with more.
    members : sequence of sequence of int
        Components of every blend.
    stacks : sequence of Stack
        Morphologies.
    spectra : array, shape (k, n_band), float32
    correlated : sequence of array
        From `correlated_data`.
    closed_form : bool
        Whether components that are alone get their best spectra; others are solved for elsewhere.
    """
    loss = np.zeros(len(observation))
    spectra = spectra.copy()
    spectrum_pull = np.zeros_like(spectra)
    pull = [np.zeros_like(stack.morph) for stack in stacks]
    load = [np.zeros_like(stack.morph) for stack in stacks]
    targets: list[tuple[Floats, Floats]] = [(np.empty(0), np.empty(0))] * len(spectra)
    for stack, a, b in zip(stacks, pull, load, strict=True):
        for i, (row, (_, _, part)) in enumerate(
            zip(stack.rows.tolist(), stack.places, strict=True)
        ):
            targets[row] = a[i][part], b[i][part]
    places = placed(stacks, len(spectra))
    for frames, data in zip(observation.frames, correlated, strict=True):
        own = [members[blend] for blend in frames.blends]
        if closed_form and all(len(rows) == 1 for rows in own):
            loss[frames.blends] = _alone(frames, own, places, spectra, data, targets)
        else:
            loss[frames.blends] = _together(
                frames, own, places, spectra, data, targets, None if closed_form else spectrum_pull
            )
    return Evaluation(loss, spectra, spectrum_pull, pull, load)


def _alone(
    frames: Frames,
    members: Sequence[Sequence[int]],
    places: Sequence[tuple[Floats, Window]],
    spectra: Floats,
    correlated: Floats,
    targets: Sequence[tuple[Floats, Floats]],
) -> NDArray[np.float64]:
    """Evaluate frames of one component each; their spectra are replaced by the best ones."""
    rows = [own[0] for own in members]
    planes = np.zeros((len(rows), *frames.shape), frames.data.dtype)
    for plane, row in zip(planes, rows, strict=True):
        morph, window = places[row]
        plane[window] = morph
    image = frames.invert(frames.transform(planes)[:, None] * frames.kernel_ft)
    weighted = frames.weight * image
    norm = np.einsum("nbyx,nbyx->nb", weighted, image)
    best = np.einsum("nbyx,nbyx->nb", weighted, frames.data)
    best = np.maximum(np.divide(best, norm, out=np.zeros_like(best), where=norm > TINY), TINY)
    spectra[rows] = best
    image *= best[:, :, None, None]
    image -= frames.data
    np.multiply(frames.weight, image, out=weighted)
    loss = _half_chi2(weighted, image)
    back = frames.transform(weighted)
    back *= np.conj(frames.kernel_ft)
    back = np.einsum("nb,nbyx->nyx", best, back)
    if frames.gain is not None:
        back *= frames.gain
    pull = frames.invert(back)
    load = pull + np.einsum("nb,nbyx->nyx", best, correlated)
    for i, row in enumerate(rows):
        window = places[row][1]
        targets[row][0][...] = pull[i][window]
        targets[row][1][...] = load[i][window]
    return loss


def _together(
    frames: Frames,
    members: Sequence[Sequence[int]],
    places: Sequence[tuple[Floats, Window]],
    spectra: Floats,
    correlated: Floats,
    targets: Sequence[tuple[Floats, Floats]],
    spectrum_pull: Floats | None,
) -> NDArray[np.float64]:
    """Evaluate frames of any number of components."""
    model = np.zeros_like(frames.data)
    for image, own in zip(model, members, strict=True):
        for row in own:
            morph, window = places[row]
            part = image[(slice(None), *window)]
            part += spectra[row][:, None, None] * morph
    residual = frames.convolve(model)
    residual -= frames.data
    np.multiply(frames.weight, residual, out=model)
    loss = _half_chi2(model, residual)
    del residual
    gradient = frames.correlate(model)
    for image, known, own in zip(gradient, correlated, members, strict=True):
        for row in own:
            cut = (slice(None), *places[row][1])
            pull, load = targets[row]
            window = image[cut].reshape(len(image), -1)
            if spectrum_pull is not None:
                spectrum_pull[row] = window @ places[row][0].ravel()
            pull[...] = (spectra[row] @ window).reshape(pull.shape)
            window = known[cut].reshape(len(known), -1)
            np.add(pull, (spectra[row] @ window).reshape(pull.shape), out=load)
    return loss


def _half_chi2(weighted: Floats, residual: Floats) -> NDArray[np.float64]:
    """Half the weighted sum of squared residuals, shape (n,)."""
    rows = np.einsum("nbyx,nbyx->nby", weighted, residual)  # so few pixels float32 can add up
    return np.asarray(0.5 * rows.sum((1, 2), dtype=np.float64))
