"""From a fitted batch to the numbers of each blend and each of its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.fitting.components import Floats, Stack
from coblend.core.deblend.fitting.fit import Fit
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.render import Rendered, render
from coblend.core.deblend.fitting.spectra import (
    ENOUGH_COVERAGE,
    NormalEquations,
    blend_equations,
    covariance,
    same_light,
    solve,
)
from coblend.core.deblend.fitting.start import solved_at_start
from coblend.core.deblend.metrics import Patch, add_up, merge, overlap, reduced_chi2
from coblend.core.errors import FitError
from coblend.core.model import FLAGS
from coblend.core.params.deblend import DeblendParams

_WORSE = 1.001
"""Chi-square over that without any model beyond which a fit has diverged."""

Morph = tuple[int, int, Floats]
"""First row, first column (frame coordinates) and pixels of a trimmed morphology."""


@dataclass(frozen=True, slots=True)
class BlendResult:
    """What the fit of one blend leaves behind; fluxes in image units, parent coordinates.

    Parameters
    ----------
    parent : int
        Row of the parent.
    error : str
        Why it failed, "" if it did not.
    trace : str
        Where a fit that failed stopped, for those who look for the bug.
    n_iter, flags : int
    chi2, loss, loss_init : float
    source : array, shape (k,), int64
        Peak of each component, counted within the blend.
    boxes : array, shape (k, 4), int64
        ``y0, x0, ny, nx`` of the components' lit pixels.
    centres : array, shape (k, 2), int64
        ``y, x``.
    spectra : array, shape (k, n_band), float32
    morphs : tuple of array, each shape (ny, nx), float32
    objects : mapping of str to array
        ``n_peak`` rows of the OBJECTS columns that the fit determines; per band two-dimensional.
    object_flags : array, shape (n_peak,), int64
    peaks : array, shape (n_peak,), int64, optional
        Which of the parent's real peaks these are; None: all of them.
    """

    parent: int
    error: str = ""
    trace: str = ""
    n_iter: int = 0
    flags: int = 0
    chi2: float = float("nan")
    loss: float = float("nan")
    loss_init: float = float("nan")
    source: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    centres: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    spectra: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    morphs: tuple[Floats, ...] = ()
    objects: Mapping[str, Floats] = field(default_factory=dict)
    object_flags: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    peaks: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class _Blend:
    """One blend of a batch as it was fitted, in units of the noise.

    Parameters
    ----------
    data, weight : array, shape (n_band, ny, nx)
    footprint : array, shape (ny, nx), bool
    n_source : int
    source : array, shape (k,), int64
        Peak of each component, counted within the blend.
    spectra : array, shape (k, n_band), float32
    morphs : list of (y, x, pixels), length k
    rendered : sequence of (row, window, images), length k
        See `spectra.render`.
    system : NormalEquations
    """

    data: Floats
    weight: Floats
    footprint: NDArray[np.bool_]
    n_source: int
    source: NDArray[np.int64]
    spectra: Floats
    morphs: list[Morph]
    rendered: Sequence[Rendered]
    system: NormalEquations


def report(
    batch: Batch,
    observation: Observation,
    fitted: Fit,
    point: NDArray[np.bool_],
    params: DeblendParams,
) -> list[BlendResult]:
    """Solve for the final spectra and describe every blend of a batch.

    Parameters
    ----------
    batch : Batch
    observation : Observation
    fitted : Fit
    point : array, shape (k,), bool
        Components that started as the model PSF.
    params : DeblendParams

    Raises
    ------
    FitError
        The fit is not finite.
    """
    rendered = render(observation, fitted.stacks)
    data, weights = observation.data, observation.weight
    footprints = observation.by_blend([cut.footprint for cut in batch.cuts])
    systems = [
        blend_equations(own, weight, d)
        for own, weight, d in zip(rendered, weights, data, strict=True)
    ]
    spectra = fitted.spectra
    if params.final_spectra:
        spectra = solve(systems, len(fitted.centres)).astype(np.float32)
    if not np.isfinite(spectra).all():
        raise FitError("NonFinite")
    morphs = _trimmed(fitted.stacks, len(fitted.centres))
    marks = {"psf_init": point, "recentred": _recentred(fitted, batch)}
    results = []
    for i, system in enumerate(systems):
        rows, members = system.rows, batch.blend == i
        blend = _Blend(
            data[i], weights[i], footprints[i], int(np.count_nonzero(members)),
            fitted.centres.source[rows] - int(np.argmax(members)), spectra[rows],
            [morphs[row] for row in rows], rendered[i], system,
        )  # fmt: skip
        results.append(_result(blend, batch, i, fitted, marks, params))
    return results


def _recentred(fitted: Fit, batch: Batch) -> NDArray[np.bool_]:
    """Components that are about another pixel than their peak, or brighter elsewhere."""
    at = fitted.centres
    moved = np.asarray((at.y != batch.y[at.source]) | (at.x != batch.x[at.source]), bool)
    for stack in fitted.stacks:
        centre = stack.morph[:, stack.radius, stack.radius]
        moved[stack.rows] |= stack.morph.max((1, 2)) > centre
    return moved


def _result(
    blend: _Blend,
    batch: Batch,
    i: int,
    fitted: Fit,
    marks: Mapping[str, NDArray[np.bool_]],
    params: DeblendParams,
) -> BlendResult:
    """Describe blend ``i`` of a batch; ``marks`` are flags of all its components by name."""
    rows, box, source = blend.system.rows, batch.boxes[i], blend.source
    models = _models(blend)
    chi2, total = chi2_image(blend.data, blend.weight, blend.spectra, blend.rendered)
    objects = _overlaps(models, batch.sigma)
    objects["chi2"] = _source_chi2(blend, chi2)
    objects["model_flux_err"] = _errors(blend, objects["model_flux"], batch.sigma, params)
    seen = (blend.weight > 0).any((1, 2))
    for values in objects.values():
        if values.ndim == 2:
            values[:, ~seen] = np.nan
    constrained = _constrained(blend)
    for name in ("model_flux", "model_flux_err"):
        objects[name][~constrained] = np.nan
    flags = _source_flags(blend, models, params)
    flags[~constrained.all(1)] |= FLAGS["no_data"]
    for name, mark in marks.items():
        flags[np.unique(source[mark[rows]])] |= FLAGS[name]
    solved = solved_at_start(fitted.centres.select(rows), len(batch), params)[i]
    blend_flags = FLAGS["not_converged"] * (not fitted.converged[i] and params.max_iter > 0)
    blend_flags |= FLAGS["diverged"] * bool(fitted.diverged[i])
    blend_flags |= FLAGS["bands_missing"] * bool(not seen.all())
    blend_flags |= FLAGS["spectrum_init"] * bool(solved)
    return BlendResult(
        parent=int(batch.parents[i]),
        n_iter=int(fitted.n_iter[i]),
        flags=int(blend_flags),
        chi2=reduced_chi2(chi2, blend.weight > 0, total),
        loss=0.5 * float(chi2.sum(dtype=np.float64)),
        loss_init=float(fitted.loss_init[i]),
        source=source,
        boxes=np.array([(y + box.y0, x + box.x0, *m.shape) for y, x, m in blend.morphs], np.int64),
        centres=np.stack([fitted.centres.y[rows] + box.y0, fitted.centres.x[rows] + box.x0], 1),
        spectra=(blend.spectra * batch.sigma).astype(np.float32),
        morphs=tuple(morph for _, _, morph in blend.morphs),
        objects=objects,
        object_flags=flags,
    )


def chi2_image(
    data: Floats, weight: Floats, spectra: Floats, rendered: Sequence[Rendered]
) -> tuple[Floats, Floats]:
    """``w (d - R)^2`` and ``R`` of one blend, shape (n_band, ny, nx) each.

    Raises
    ------
    FitError
        ``Diverged``: no model at all would be nearer to the data.
    """
    scaled = ((window, spectrum * image) for spectrum, (_, window, image) in
              zip(spectra[:, :, None, None], rendered, strict=True))  # fmt: skip
    total = add_up(scaled, weight.shape)
    chi2 = data - total
    np.square(chi2, out=chi2)
    chi2 *= weight
    nothing = np.einsum("byx,byx,byx->", data, data, weight, dtype=np.float64)
    if not float(chi2.sum(dtype=np.float64)) <= _WORSE * nothing:
        raise FitError("Diverged")
    return chi2, total


def _models(blend: _Blend) -> list[Patch]:
    """Unconvolved models of the sources."""
    models: list[list[Patch]] = [[] for _ in range(blend.n_source)]
    spectra = blend.spectra[:, :, None, None]
    for k, spectrum, (y, x, morph) in zip(blend.source, spectra, blend.morphs, strict=True):
        place = slice(y, y + morph.shape[0]), slice(x, x + morph.shape[1])
        models[k].append((place, spectrum * morph))
    return [merge(patches) for patches in models]


def _source_chi2(blend: _Blend, chi2: Floats) -> NDArray[np.float64]:
    """Reduced chi-square over the pixels of each source of a blend."""
    out = np.empty(blend.n_source)
    for k in range(blend.n_source):
        own = [
            (blend.rendered[i][1], blend.spectra[i][:, None, None] * blend.rendered[i][2])
            for i in np.flatnonzero(blend.source == k).tolist()
        ]
        window, image = merge(own)
        cut = (slice(None), *window)
        out[k] = reduced_chi2(chi2[cut], blend.weight[cut] > 0, image)
    return out


def _constrained(blend: _Blend) -> NDArray[np.bool_]:
    """Which bands see enough of each source of a blend, shape (n_source, n_band)."""
    coverage = np.zeros((blend.n_source, len(blend.data)))
    np.maximum.at(coverage, blend.source, blend.system.coverage.T)
    return coverage > ENOUGH_COVERAGE


def _source_flags(
    blend: _Blend, models: Sequence[Patch], params: DeblendParams
) -> NDArray[np.int64]:
    """Set the flags of the sources of a blend that follow from the final model."""
    flags = np.zeros(blend.n_source, np.int64)
    doubled = same_light(blend.system.gram) != np.arange(len(blend.source))
    flags[np.unique(blend.source[doubled])] |= FLAGS["degenerate"]
    border = _border(blend.footprint)
    for k, (window, model) in enumerate(models):
        brightest_band = model.max(0)
        flags[k] |= FLAGS["null"] * (not (brightest_band > 0).any())
        flags[k] |= FLAGS["edge"] * bool(
            (brightest_band[border[window]] > params.background_thresh).any()
        )
    return flags


def _overlaps(models: Sequence[Patch], sigma: NDArray[np.float64]) -> dict[str, Floats]:
    """Fluxes and overlap metrics of the sources of a blend, in image units."""
    metrics = overlap(models)
    return {
        "model_flux": metrics.flux * sigma,
        "max_overlap": metrics.max_overlap * sigma,
        "flux_overlap": metrics.flux_overlap * sigma,
        "flux_overlap_frac": metrics.flux_overlap_frac,
        "blendedness": metrics.blendedness,
    }


def _errors(
    blend: _Blend, flux: Floats, sigma: NDArray[np.float64], params: DeblendParams
) -> NDArray[np.float64]:
    """Errors of the fluxes at fixed morphologies, with the floor, shape (n_source, n_band).

    A flux that is 0 because it may not be negative has the error that it would have alone.
    """
    light = np.array([morph.sum(dtype=np.float64) for _, _, morph in blend.morphs])
    share = (blend.source == np.arange(len(flux))[:, None]) * light
    variance = np.einsum("sk,bkl,sl->sb", share, covariance(blend.system, blend.spectra), share)
    weight = np.einsum("bkk->kb", blend.system.gram)
    alone = np.full(variance.shape, np.inf)
    own = np.divide(light[:, None] ** 2, weight, out=np.full(weight.shape, np.inf),
                    where=weight > 0)  # fmt: skip
    np.minimum.at(alone, blend.source, own)
    variance = np.where(variance > 0, variance, alone)
    return np.asarray(np.sqrt(variance * sigma**2 + (params.flux_err_floor * flux) ** 2))


def _border(footprint: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a footprint with a 4-neighbour outside it."""
    inside = np.zeros_like(footprint)
    inside[1:-1, 1:-1] = (
        footprint[:-2, 1:-1] & footprint[2:, 1:-1] & footprint[1:-1, :-2] & footprint[1:-1, 2:]
    )
    return footprint & ~inside


def _trimmed(stacks: Sequence[Stack], n: int) -> list[Morph]:
    """Cut the morphologies of all components to their lit pixels."""
    morphs: list[Morph] = [(0, 0, np.zeros((1, 1), np.float32))] * n
    for stack in stacks:
        for row, morph, (_, frame, part) in zip(
            stack.rows, stack.morph, stack.places, strict=True
        ):
            own = morph[part]
            rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
            y, x = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            y0, x0 = frame[0].start + int(rows[0]), frame[1].start + int(columns[0])
            morphs[int(row)] = y0, x0, own[y, x].astype(np.float32)
    return morphs
