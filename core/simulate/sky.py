"""A sky of stars, galaxies and blends, and its noise-free images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.bands import column_suffix
from coblend.core.box import Box
from coblend.core.catalog import Column, per_band, table_dtype
from coblend.core.errors import ParameterError
from coblend.core.params.coadd import NANOJANSKY
from coblend.core.params.simulate import SimulateParams
from coblend.core.simulate.profiles import (
    BULGE_NU,
    DISK_NU,
    STAMP_SIDE,
    spergel_transform,
    stamps,
)

WAVELENGTHS = {"u": 365.0, "g": 477.0, "r": 622.0, "i": 770.0, "z": 890.0, "y": 1000.0}
"""Effective wavelengths of known bands (nm)."""

COUNTS_SLOPE = 0.6
"""Integral number counts fall as flux to this power."""
BLEND_SIZES = np.array([2, 3, 4, 5, 6, 7, 8])


def source_columns(bands: Sequence[str]) -> tuple[Column, ...]:
    """Columns of SOURCES of a truth file."""
    shape = tuple(
        column
        for part in ("bulge", "disk")
        for column in (
            Column(f"{part}_radius", "f8", f"Half-light radius of the {part}, 0: a point", "pixel",
                   "phys.angSize"),
            Column(f"{part}_axis_ratio", "f8", f"Minor over major axis of the {part}", "",
                   "phys.size.axisRatio"),
            Column(f"{part}_angle", "f8", f"Major axis of the {part} from +x towards +y", "rad",
                   "pos.posAng"),
        )
    )  # fmt: skip
    light = (
        Column("flux", "f8", "Total flux", "nJy", "phot.flux"),
        Column("bulge_flux", "f8", "Part of the flux in the bulge", "nJy", "phot.flux"),
    )
    return (
        Column("id", "i8", "Identifier", "", "meta.id;meta.main"),
        Column("blend", "i8", "Identifier of the group, 0: alone", "", "meta.id.parent"),
        Column("kind", "U6", "star or galaxy", "", "src.class"),
        Column("x", "f8", "x position, parent coordinates", "pixel",
               "pos.cartesian.x;instr.det"),
        Column("y", "f8", "y position, parent coordinates", "pixel",
               "pos.cartesian.y;instr.det"),
        Column("ra", "f8", "Right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
        Column("dec", "f8", "Declination, ICRS", "deg", "pos.eq.dec;meta.main"),
        *shape,
        *per_band(light, bands),
    )  # fmt: skip


def relative_wavelength(band: str, index: int) -> float:
    """Wavelength over that of i; an unknown band is taken for the ``index``-th from 500 nm on."""
    return WAVELENGTHS.get(band, 500.0 + 100.0 * index) / WAVELENGTHS["i"]


@dataclass(frozen=True, slots=True)
class Sky:
    """True sources in a patch.

    Parameters
    ----------
    bands : tuple of str
    sources : structured array
        `source_columns`; positions ``ra``, ``dec`` may be NaN.
    box : Box
        The patch.
    """

    bands: tuple[str, ...]
    sources: NDArray[Any]
    box: Box


def random_sky(params: SimulateParams, rng: np.random.Generator) -> Sky:
    """Draw a sky: blends of 2 to 8 sources, every size at least once if there are 7 or more.

    Parameters
    ----------
    params : SimulateParams
    rng : numpy.random.Generator

    Returns
    -------
    Sky

    Raises
    ------
    ParameterError
        When the patch is too small for so many sources.
    """
    sizes = BLEND_SIZES.copy()
    rng.shuffle(sizes)
    more = rng.choice(BLEND_SIZES, params.blends, p=_pair_weights())
    sizes = np.concatenate([sizes, more])[: params.blends]
    members = np.concatenate([sizes, np.ones(params.singles, np.int64)]).astype(np.int64)
    position = _place(members, params, rng)

    sources = np.zeros(len(position), table_dtype(source_columns(params.bands)))
    sources["id"] = np.arange(1, len(sources) + 1)
    group = np.repeat(np.arange(1, len(members) + 1), members)
    sources["blend"] = np.where(group <= params.blends, group, 0)
    sources["y"], sources["x"] = position.T
    sources["ra"] = sources["dec"] = np.nan
    _draw_light(sources, params, rng)
    return Sky(params.bands, sources, Box(0, 0, params.size, params.size))


def source_images(
    sky: Sky, band: str, transfers: NDArray[np.float64]
) -> Iterator[tuple[Box, NDArray[np.float64]]]:
    """Noise-free images of each source in one band, behind each of n PSFs.

    Parameters
    ----------
    sky : Sky
    band : str
    transfers : array, shape (n, m, m // 2 + 1), float64
        Transforms of the PSFs (`profiles.moffat_transfer`) or sums of them.

    Yields
    ------
    box : Box
        Pixels covered, parent coordinates; may reach beyond the patch.
    images : array, shape (n, STAMP_SIDE, STAMP_SIDE), float64
        Surface brightness integrated over the pixels (nJy).
    """
    suffix = column_suffix(band)
    middle = STAMP_SIDE // 2
    for row in sky.sources:
        bulge = float(row[f"bulge_flux_{suffix}"])
        disk = float(row[f"flux_{suffix}"]) - bulge
        light = disk * spergel_transform(DISK_NU, *_shape(row, "disk"))
        if bulge:
            light += bulge * spergel_transform(BULGE_NU, *_shape(row, "bulge"))
        y, x = int(np.floor(row["y"] + 0.5)), int(np.floor(row["x"] + 0.5))
        images = stamps(light * transfers, float(row["y"]) - y, float(row["x"]) - x)
        yield Box(y - middle, x - middle, STAMP_SIDE, STAMP_SIDE), images


def sky_images(sky: Sky, band: str, transfers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise-free images of the patch in one band, behind each of n PSFs.

    Parameters
    ----------
    sky, band, transfers
        As in `source_images`.

    Returns
    -------
    array, shape (n, ny, nx), float64
        In nJy.
    """
    total = np.zeros((len(transfers), *sky.box.shape))
    for box, images in source_images(sky, band, transfers):
        common = box & sky.box
        total[(..., *common.slices(sky.box))] += images[(..., *common.slices(box))]
    return total


def _shape(row: Any, part: str) -> tuple[float, float, float]:
    names = (f"{part}_radius", f"{part}_axis_ratio", f"{part}_angle")
    radius, axis_ratio, angle = (float(row[n]) for n in names)
    return radius, axis_ratio, angle


def _pair_weights() -> NDArray[np.float64]:
    weights = (1.0 / (BLEND_SIZES - 1)).astype(np.float64)
    return weights / np.sum(weights)


def _place(
    members: NDArray[np.int64], params: SimulateParams, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Positions (y, x) by dart throwing: groups well apart, their members a seeing or two."""
    seeing = params.seeing
    margin = min(6 * seeing + params.dither, params.size / 4)
    groups: list[NDArray[np.float64]] = []
    for n in members:
        group = _grow_group(int(n), params.separation * seeing, rng)
        for _ in range(2000):
            moved = group + rng.uniform(margin, params.size - margin, 2)
            taken = np.concatenate(groups) if groups else np.zeros((0, 2))
            if _distance(moved, taken) > 4 * seeing and _inside(moved, margin / 2, params.size):
                groups.append(moved)
                break
        else:
            raise ParameterError(
                f"no room for {len(members)} groups of sources in {params.size} x {params.size} "
                f"pixels",
                hint="raise size or lower blends and singles",
            )
    return np.concatenate(groups) if groups else np.zeros((0, 2))


def _grow_group(n: int, separation: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Positions of ``n`` sources, each 1 to 1.8 separations from another and none closer."""
    group = np.zeros((1, 2))
    while len(group) < n:
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1, 1.8) * separation
        step = distance * np.array([np.sin(angle), np.cos(angle)])
        new = group[rng.integers(len(group))] + step
        if _distance(new[None], group) >= separation:
            group = np.concatenate([group, new[None]])
    group -= group.mean(axis=0)
    return group


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Smallest distance between two sets of points."""
    if not len(a) or not len(b):
        return np.inf
    return float(np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1).min()))


def _inside(points: NDArray[np.float64], margin: float, size: int) -> bool:
    return bool(np.all((points > margin) & (points < size - margin)))


def _draw_light(sources: NDArray[Any], params: SimulateParams, rng: np.random.Generator) -> None:
    """Fill shapes and fluxes: power-law counts, power-law spectra, larger when brighter."""
    n = len(sources)
    faint, bright = (10 ** (0.4 * (NANOJANSKY - m)) for m in (params.faintest, params.brightest))
    low, high = faint**-COUNTS_SLOPE, bright**-COUNTS_SLOPE
    flux = (low + rng.uniform(0, 1, n) * (high - low)) ** (-1 / COUNTS_SLOPE)
    star = rng.uniform(0, 1, n) < params.star_fraction
    sources["kind"] = np.where(star, "star", "galaxy")

    disk_radius = 0.55 * params.seeing * (flux / faint) ** 0.12 * rng.lognormal(0, 0.3, n)
    angle = rng.uniform(0, np.pi, n)
    for part, radius, ratios in (
        ("disk", disk_radius, rng.uniform(0.3, 1.0, n)),
        ("bulge", 0.4 * disk_radius, rng.uniform(0.6, 1.0, n)),
    ):
        sources[f"{part}_radius"] = np.where(star, 0, radius)
        sources[f"{part}_axis_ratio"] = np.where(star, 1, ratios)
        sources[f"{part}_angle"] = np.where(star, 0, angle)

    bulge_fraction = np.where(star, 0, rng.uniform(0, 0.7, n))
    star_slope, disk_slope = rng.uniform(-1.5, 3.0, n), rng.uniform(-1.0, 1.5, n)
    bulge_slope = rng.uniform(1.5, 4.0, n)
    for i, band in enumerate(params.bands):
        ratio = relative_wavelength(band, i)
        disk = (1 - bulge_fraction) * ratio ** np.where(star, star_slope, disk_slope)
        bulge = bulge_fraction * ratio**bulge_slope
        suffix = column_suffix(band)
        sources[f"flux_{suffix}"] = flux * (disk + bulge)
        sources[f"bulge_flux_{suffix}"] = flux * bulge
