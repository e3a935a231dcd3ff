"""Point symmetry: the light that a source has a mirror image of, and the light that it has not.

Galaxies and stars look nearly the same after half a turn; a neighbour that nobody detected does
not. Half a turn about a pixel moves a source by up to a pixel, because its true centre lies
anywhere within; a mirror image is therefore the brightest of the 3x3 pixels about a reflection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coblend.core.deblend.fitting.components import Floats


def shrink_asymmetry(
    target: Floats, morph: Floats, price: Floats, outside: NDArray[np.bool_] | None
) -> Floats:
    """Pay the price of light without a mirror image: lower it, but not below that image.

    Parameters
    ----------
    target : array, shape (k, n, n), float32 or float64
        Where a step of the fit leads.
    morph : array, shape (k, n, n), same dtype
        Morphologies before it, whose mirror image counts.
    price : array, shape (k, n, n), same dtype
        Overwritten. By what each pixel falls at most.
    outside : array, shape (k, n, n), bool, optional
        Pixels that nobody has seen.

    Returns
    -------
    array, shape (k, n, n)
        ``target``, changed in place.
    """
    paid = np.subtract(target, price, out=price)
    np.maximum(paid, mirror_image(morph, outside), out=paid)
    return np.minimum(target, paid, out=target)


def mirror_image(stamps: Floats, outside: NDArray[np.bool_] | None = None) -> Floats:
    """Turn stamps by 180 degrees, each pixel the brightest of its 3x3 neighbours.

    Parameters
    ----------
    stamps : array, shape (k, n, n), float32 or float64
    outside : array, shape (k, n, n), bool, optional
        Pixels that nobody has seen; where they are reflected to, any light is allowed.

    Returns
    -------
    array, shape (k, n, n), dtype of ``stamps``
    """
    wide = stamps.copy()
    np.maximum(wide[:, 1:], stamps[:, :-1], out=wide[:, 1:])
    np.maximum(wide[:, :-1], stamps[:, 1:], out=wide[:, :-1])
    image = wide.copy()
    np.maximum(image[:, :, 1:], wide[:, :, :-1], out=image[:, :, 1:])
    np.maximum(image[:, :, :-1], wide[:, :, 1:], out=image[:, :, :-1])
    if outside is not None:
        image[outside] = np.inf
    return image[:, ::-1, ::-1]
