"""Light that no template reaches, and templates that are too much alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import nnls

from coblend.core.deblend.fitting.components import Floats
from coblend.core.params.deblend import DeblendParams


def stray_light(
    image: Floats,
    templates: NDArray[np.float64],
    is_star: NDArray[np.bool_],
    peaks: NDArray[np.int64],
    params: DeblendParams,
) -> NDArray[np.float64]:
    """Light of the pixels that no template reaches, by the distance from the objects.

    Parameters
    ----------
    image : array, shape (ny, nx)
        0 outside the footprint.
    templates : array, shape (n, ny, nx)
    is_star : array, shape (n,), bool
    peaks : array, shape (n, 2), int64
        ``y, x``.
    params : DeblendParams
        ``stray_flux``, ``stray_to_stars``, ``stray_least``.

    Returns
    -------
    array, shape (n, ny, nx), float64
        0 with the rule ``trim``.
    """
    out = np.zeros(templates.shape)
    takes = templates.max((1, 2), initial=0) > 0
    stars = {"always": True, "never": False, "necessary": not (takes & ~is_star).any()}
    if not stars[params.stray_to_stars]:
        takes &= ~is_star
    y, x = np.nonzero((image > 0) & ~(templates > 0).any(0))
    who = np.flatnonzero(takes)
    if params.stray_flux == "trim" or not len(who) or not len(y):
        return out
    if params.stray_flux == "r-to-peak":
        square = (y - peaks[who, :1]) ** 2 + (x - peaks[who, 1:]) ** 2
    else:
        metric = ndimage.distance_transform_edt
        if params.stray_flux == "nearest-footprint":
            metric = ndimage.distance_transform_cdt
        kind = {} if metric is ndimage.distance_transform_edt else {"metric": "taxicab"}
        square = np.array([metric(templates[i] <= 0, **kind)[y, x] for i in who]) ** 2
    share = 1 / (1 + square.astype(np.float64))
    if params.stray_flux == "nearest-footprint":
        share = (np.arange(len(who))[:, None] == share.argmax(0)).astype(np.float64)
    share /= share.sum(0)
    share[share < params.stray_least] = 0
    share /= np.maximum(share.sum(0), 1e-300)
    out[who[:, None], y, x] = share * image[y, x]
    return out


def weighted(image: Floats, templates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale templates so that their sum is as near to the image as possible."""
    matrix = templates.reshape(len(templates), -1).T
    factors, _ = nnls(matrix, np.asarray(image, np.float64).ravel())
    return np.asarray(templates * factors[:, None, None], np.float64)


def degenerate(
    templates: NDArray[np.float64], is_star: NDArray[np.bool_], limit: float
) -> NDArray[np.bool_]:
    """Templates to drop until no two have a cosine beyond a limit, shape (n,), bool.

    Of two, a star loses against another; otherwise the one with the lower maximum.
    """
    flat = templates.reshape(len(templates), -1)
    norm = np.sqrt(np.einsum("np,np->n", flat, flat))
    unit = flat / np.where(norm > 0, norm, 1)[:, None]
    cosine = np.triu(unit @ unit.T, 1)
    top = templates.max((1, 2), initial=0)
    gone = np.zeros(len(templates), bool)
    for k in np.argsort(-cosine, axis=None, kind="stable"):
        i, j = divmod(int(k), len(templates))
        if cosine[i, j] <= limit:
            break
        if not (gone[i] or gone[j]):
            first_loses = bool(is_star[i]) if is_star[i] != is_star[j] else top[i] < top[j]
            gone[i if first_loses else j] = True
    return gone
