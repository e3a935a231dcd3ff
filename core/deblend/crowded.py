"""Crowded fields: every peak of a parent as a point source, thousands at once.

The images are linear in the fluxes, so each band is one sparse non-negative least-squares
problem; places follow by Newton steps of each star on what all the others leave. Nothing is
rendered over the whole frame: a star is a row of a sparse matrix, as long as its PSF has pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from coblend.core.deblend.batch import Batch
from coblend.core.deblend.fitting.components import Floats
from coblend.core.deblend.fitting.spectra import ENOUGH_COVERAGE
from coblend.core.deblend.point import model_stamps, shifted_stamps
from coblend.core.deblend.report import BlendResult
from coblend.core.errors import FitError
from coblend.core.model import FLAGS, MODEL_PSF_SIDE
from coblend.core.params.deblend import DeblendParams

_ROUNDS = 6
"""Alternations of fluxes and places."""
_PRIOR = 0.2
"""Expected error of a peak's place: faint stars hardly move (pixel)."""
_LONGEST_STEP, _FARTHEST = 0.3, 1.0
_RIDGE = 1e-8
_FAINT = 0.1
_CHUNK = 512

Matrix = Any
"""`scipy.sparse.csr_array`, which has no type hints."""


@dataclass(frozen=True, slots=True)
class Stars:
    """Places of n stars and where their stamps lie in a frame.

    Parameters
    ----------
    y, x : array, shape (n,), int64
        Pixels.
    offset : array, shape (n, 2), float64
        ``dy, dx`` from there.
    shape : (ny, nx)
        Of the frame.
    """

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    offset: NDArray[np.float64]
    shape: tuple[int, int]

    def matrix(self, stamps: Floats) -> Matrix:
        """Stamps as rows over the pixels of the frame, shape (n, ny nx), float64."""
        pixels, inside = self._pixels(stamps.shape[-1])
        ends = np.concatenate([[0], np.cumsum(inside.sum((1, 2)))])
        values = stamps[inside].astype(np.float64)
        columns = self.shape[0] * self.shape[1]
        return sparse.csr_array((values, pixels[inside], ends), shape=(len(self.y), columns))

    def _pixels(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Flat pixels of stamps of a side, and which lie in the frame, shape (n, side, side)."""
        reach = np.arange(side) - side // 2
        y, x = self.y[:, None, None] + reach[:, None], self.x[:, None, None] + reach
        ny, nx = self.shape
        return y * nx + x, (y >= 0) & (y < ny) & (x >= 0) & (x < nx)

    def images(self, psf: Floats) -> Floats:
        """PSF of every star at its place, shape (n, k, k), float32."""
        parts = [
            shifted_stamps(psf[None], *self.offset[i : i + _CHUNK].T)
            for i in range(0, len(self.y), _CHUNK)
        ]
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class StarField:
    """A blend to be fitted with point sources.

    Parameters
    ----------
    batch : Batch
        One blend.
    offset : array, shape (n_peak, 2), float64
        ``dy, dx`` of the peaks from their pixels.
    """

    batch: Batch
    offset: NDArray[np.float64]


def fit_stars(field: StarField, params: DeblendParams) -> BlendResult:
    """Fit all peaks of one blend as point sources.

    Parameters
    ----------
    field : StarField
    params : DeblendParams

    Raises
    ------
    FitError
        ``NoData``: no usable pixel.
    """
    batch = field.batch
    data, weight = (getattr(batch.cuts[0], name)[0] for name in ("data", "weight"))
    if not (weight > 0).any():
        raise FitError("NoData")
    psfs = batch.psfs[batch.cell[0]]
    stars = Stars(batch.y, batch.x, field.offset, data.shape[1:])
    first_loss = np.nan
    for it in range(_ROUNDS):
        flux, _, left = _solve_fluxes(stars, psfs, data, weight)
        if it == 0:
            first_loss = _loss(left, weight)
        stars = _moved(stars, psfs, flux, left, weight)
    flux, error, left = _solve_fluxes(stars, psfs, data, weight, with_errors=True)
    error[~_seen(stars, psfs, weight, batch.cuts[0].footprint[0])] = np.nan
    return _result(batch, stars, flux, error, left, weight, first_loss, params)


def _solve_fluxes(
    stars: Stars, psfs: Floats, data: Floats, weight: Floats, *, with_errors: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], Floats]:
    """Fluxes and errors, shape (n, n_band), and the residual images."""
    n, n_band = len(stars.y), len(data)
    flux, error = np.zeros((n, n_band)), np.full((n, n_band), np.nan)
    left = np.empty_like(data)
    for b in range(n_band):
        w = weight[b].ravel().astype(np.float64)
        rows = stars.matrix(stars.images(psfs[b]))
        weighted = rows * w[None, :]
        gram = (weighted @ rows.T).tocsc()
        flux[:, b] = sparse_nnls(gram, weighted @ data[b].ravel())
        if with_errors:
            error[:, b] = flux_errors(gram, flux[:, b])
        left[b] = data[b] - (flux[:, b] @ rows).reshape(stars.shape)
    return flux, error, left


def _seen(
    stars: Stars, psfs: Floats, weight: Floats, footprint: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Bands that see enough of each star's light within the footprint, shape (n, n_band)."""
    out = np.empty((len(stars.y), len(psfs)), bool)
    for b, psf in enumerate(psfs):
        light = stars.matrix(np.maximum(stars.images(psf), 0))
        usable, whole = (weight[b] > 0).ravel(), footprint.ravel()
        out[:, b] = light @ usable > ENOUGH_COVERAGE * (light @ whole)
    return out


def sparse_nnls(gram: sparse.csc_array, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise ``x G x / 2 - y x`` over ``x >= 0`` by block principal pivoting.

    Parameters
    ----------
    gram : sparse array, shape (n, n)
        Positive semi-definite; unknowns with a diagonal of 0 stay 0.
    rhs : array, shape (n,), float64

    Notes
    -----
    Kim & Park (2011, SIAM J. Sci. Comput. 33, 3261), with sparse LU factorisations.
    """
    diagonal = gram.diagonal()
    free = diagonal > 1e-12 * diagonal.max(initial=0)
    scale = np.where(free, 1 / np.sqrt(np.where(free, diagonal, 1)), 0)
    unit = sparse.csc_array(sparse.diags_array(scale) @ gram @ sparse.diags_array(scale))
    y = rhs * scale
    tolerance = 1e-9 * (np.abs(y).max(initial=0) + 1e-300)
    x = np.zeros_like(y)
    active, fewest, spare = free & (y > 0), len(y) + 1, 3
    for _ in range(5 * len(y) + 10):
        rows = np.flatnonzero(active)
        x = np.zeros_like(y)
        if len(rows):
            own = sparse.csc_array(gram[rows][:, rows])
            x[rows] = _factor(own, scale[rows]).solve(y[rows])
        dual = y - unit @ x
        wrong = (active & (x < -tolerance)) | (free & ~active & (dual > tolerance))
        count = int(np.count_nonzero(wrong))
        if not count:
            break
        spare = 3 if count < fewest else spare - 1
        fewest = min(count, fewest)
        if spare < 0:  # exchanging all of them went in circles
            wrong[: np.flatnonzero(wrong)[-1]] = False
        active ^= wrong
    return np.maximum(x, 0) * scale


def flux_errors(gram: sparse.csc_array, flux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors of non-negative fluxes from their Gram matrix, shape (n,).

    The root of the diagonal of the inverse over positive fluxes; those at 0 have the error that
    they would have alone, NaN where no pixel sees them.
    """
    diagonal = gram.diagonal()
    out = np.full(len(diagonal), np.nan)
    seen = diagonal > 0
    out[seen] = 1 / np.sqrt(diagonal[seen])
    rows = np.flatnonzero(flux > 0)
    scale = 1 / np.sqrt(diagonal[rows])
    factor: Any = _factor(sparse.csc_array(gram[rows][:, rows]), scale) if len(rows) else None
    for first in range(0, len(rows), _CHUNK):
        unit = np.zeros((len(rows), min(_CHUNK, len(rows) - first)))
        own = np.arange(unit.shape[1])
        unit[first + own, own] = 1
        variance = factor.solve(unit)[first + own, own]
        out[rows[first + own]] = np.sqrt(np.maximum(variance, 1)) * scale[first + own]
    return out


def _factor(gram: sparse.csc_array, scale: NDArray[np.float64]) -> Any:
    """Sparse LU factors of a Gram matrix scaled to a diagonal of 1."""
    diagonal = sparse.diags_array(scale)
    unit = diagonal @ gram @ diagonal + _RIDGE * sparse.eye_array(len(scale))
    return splu(sparse.csc_array(unit), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
                options={"SymmetricMode": True})  # fmt: skip


def _moved(
    stars: Stars, psfs: Floats, flux: NDArray[np.float64], left: Floats, weight: Floats
) -> Stars:
    """Move every star by one Newton step on the residual of all bands."""
    n = len(stars.y)
    slope, curvature = np.zeros((n, 2)), np.zeros((n, 2, 2))
    for b, psf in enumerate(psfs):
        w = weight[b].ravel().astype(np.float64)
        images = stars.images(psf)
        # a star that moves up changes the image by minus the gradient
        rows = [stars.matrix(-np.gradient(images, axis=axis)) for axis in (1, 2)]
        for i, row in enumerate(rows):
            slope[:, i] += flux[:, b] * (row @ (w * left[b].ravel()))
            for j in range(i + 1):
                products = row.copy()
                products.data = row.data * rows[j].data
                curvature[:, i, j] += flux[:, b] ** 2 * (products @ w)
    curvature[:, 0, 1] = curvature[:, 1, 0]
    step = np.linalg.solve(curvature + np.eye(2) / _PRIOR**2, slope[:, :, None])[:, :, 0]
    offset = stars.offset + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
    return Stars(stars.y, stars.x, np.clip(offset, -_FARTHEST, _FARTHEST), stars.shape)


def _loss(left: Floats, weight: Floats) -> float:
    return 0.5 * float((weight * left.astype(np.float64) ** 2).sum())


def _result(
    batch: Batch,
    stars: Stars,
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    left: Floats,
    weight: Floats,
    first_loss: float,
    params: DeblendParams,
) -> BlendResult:
    """Fluxes, metrics and components; morphologies are the model PSF at the stars' places."""
    dy, dx = stars.offset.T
    stamps = model_stamps(dy, dx, params.model_psf_sigma)
    top = stamps.max((1, 2))
    bright = (flux > 0).any(1)
    flags = np.full(len(stars.y), FLAGS["psf_only"])
    flags[~np.isfinite(error).all(1)] |= FLAGS["no_data"]
    flags[~bright] |= FLAGS["null"]
    objects = _in_image_units(_overlap(stars, stamps, flux), flux, error, batch.sigma, params)
    chi2 = np.einsum("byx,byx,byx->yx", weight, left, left, dtype=np.float64).ravel()
    count = (weight > 0).sum(0, dtype=np.float64).ravel()
    lit = _lit(stars, batch.psfs[batch.cell[0]], flux)
    with np.errstate(invalid="ignore", divide="ignore"):
        objects["chi2"] = (lit @ chi2) / (lit @ count)
    rows, peak = np.flatnonzero(bright), np.stack([stars.y, stars.x], 1)
    origin = np.array([batch.boxes[0].y0, batch.boxes[0].x0])
    first = peak - MODEL_PSF_SIDE // 2 + origin
    centre = peak + np.floor(stars.offset + 0.5).astype(np.int64) + origin
    missing = not (weight > 0).any((1, 2)).all()
    return BlendResult(
        parent=int(batch.parents[0]),
        n_iter=_ROUNDS,
        flags=FLAGS["psf_only"] | FLAGS["bands_missing"] * bool(missing),
        chi2=float(chi2.sum() / count.sum()),
        loss=_loss(left, weight),
        loss_init=first_loss,
        source=rows,
        boxes=np.concatenate([first, np.full_like(first, MODEL_PSF_SIDE)], axis=1)[rows],
        centres=centre[rows],
        spectra=(flux * top[:, None] * batch.sigma)[rows].astype(np.float32),
        morphs=tuple((stamps / top[:, None, None]).astype(np.float32)[rows]),
        objects=objects,
        object_flags=flags,
    )


def _in_image_units(
    overlap: dict[str, Floats],
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    sigma: NDArray[np.float64],
    params: DeblendParams,
) -> dict[str, Floats]:
    """Columns of the stars; NaN in bands that do not see them."""
    errors = np.hypot(error, params.flux_err_floor * flux)
    columns = overlap | {"model_flux": flux, "model_flux_err": errors}
    plain = ("flux_overlap_frac", "blendedness")
    return {
        name: np.where(np.isfinite(error), values * (1.0 if name in plain else sigma), np.nan)
        for name, values in columns.items()
    }


def _lit(stars: Stars, psfs: Floats, flux: NDArray[np.float64]) -> Matrix:
    """Which pixels each star lights, shape (n, n_pixel), 0 or 1."""
    lit = stars.matrix(stars.images(np.maximum(psfs, 0).mean(0)))
    light = lit.data * np.repeat(flux.max(1), np.diff(lit.indptr))
    lit.data = (light > _FAINT).astype(float)
    return lit


def _overlap(stars: Stars, stamps: Floats, flux: NDArray[np.float64]) -> dict[str, Floats]:
    """Overlap of the unconvolved models, as `metrics.overlap`."""
    rows = stars.matrix(stamps)
    out: dict[str, Floats] = {
        name: np.zeros(flux.shape)
        for name in ("max_overlap", "flux_overlap", "flux_overlap_frac", "blendedness")
    }
    n_pixel = np.diff(rows.indptr)
    filled = np.flatnonzero(n_pixel)
    for b in range(flux.shape[1]):
        model = rows.data * np.repeat(flux[:, b], n_pixel)
        total = np.bincount(rows.indices, model, rows.shape[1])[rows.indices]
        others = np.maximum(total - model, 0)
        lit = np.repeat(flux[:, b] > 0, n_pixel)
        first = rows.indptr[filled]
        out["max_overlap"][filled, b] = np.maximum.reduceat(np.where(lit, others, 0), first)
        sums = np.add.reduceat(np.stack([others * lit, model * model, model * total]), first, 1)
        light = np.where(flux[filled, b] > 0, flux[filled, b], np.inf)
        out["flux_overlap"][filled, b] = sums[0]
        out["flux_overlap_frac"][filled, b] = sums[0] / light
        purity = np.divide(sums[1], sums[2], out=np.full(len(filled), np.nan), where=sums[2] > 0)
        out["blendedness"][filled, b] = 1 - purity
    return out
