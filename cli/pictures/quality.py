"""Figures of quality: a coadd's planes, PSFs, and all fits of a deblended file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from coblend.cli.pictures.canvas import (
    Palette,
    band_colour,
    colour_bar,
    limits,
    new_figure,
    scale_bar,
    sky_panel,
)
from coblend.core.bands import column_suffix
from coblend.core.exposure import Cube
from coblend.core.model import FLAGS
from coblend.core.psf.moments import adaptive_moments
from coblend.core.show.noise import negative_width, noise_image, sky_ratios
from coblend.core.show.planes import plane_image
from coblend.core.show.profiles import encircled_energy, radial_profile, shape_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from coblend.core.exposure import Exposure
    from coblend.core.model import ModelSet
    from coblend.core.params.show import ShowParams
    from coblend.core.psf.base import Psf

_PLANE_COLOURS = (
    "#d1495b", "#e08e0b", "#1f9e89", "#4a90d9", "#7b3fe4", "#9c4f96", "#5c3a21", "#2b9348",
    "#ff70a6", "#8d99ae",
)  # fmt: skip
_QUIET_PLANES = ("DETECTED",)
_LATTICE = 9
"""PSFs along each side of the field."""


def draw_coadd(
    exposure: Exposure, n_image: NDArray[Any] | None, params: ShowParams, scale: float | None
) -> Figure:
    """Image, noise, number of inputs, mask planes, and whether the noise is what it says.

    Parameters
    ----------
    exposure : Exposure
    n_image : array, shape (ny, nx), optional
        Inputs of every pixel.
    params : ShowParams
    scale : float, optional
        Arcseconds per pixel.
    """
    box = exposure.box
    palette = Palette.of(Cube.from_exposures([exposure]), params)
    figure = new_figure(9.6, 6.2)
    panels = figure.subplots(2, 3)
    sky_panel(panels[0, 0], f"image {exposure.band}", box, palette(exposure.image[None]))
    scale_bar(panels[0, 0], box, scale)
    noise = noise_image(exposure)
    low, high = np.nanpercentile(noise, [0.5, 99.5])
    shown = sky_panel(panels[0, 1], "noise", box, noise, vmin=low, vmax=high)
    colour_bar(panels[0, 1], shown, exposure.unit, extend="both")
    if n_image is None:
        panels[0, 2].set_axis_off()
    else:
        _inputs(panels[0, 2], box, n_image)
    _planes(panels[1, 0], exposure)
    _noise_check(panels[1, 1], exposure)
    if exposure.psf is None:
        panels[1, 2].set_axis_off()
    else:
        _stamp(panels[1, 2], exposure.psf, box, "PSF at the centre")
    return figure


def _inputs(axes: Axes, box: Any, n_image: NDArray[Any]) -> None:
    """Map of small whole numbers, one colour each."""
    most = max(int(n_image.max()), 1)
    if most > 12:
        shown = sky_panel(axes, "inputs", box, n_image, vmin=0)
        colour_bar(axes, shown, "")
        return
    steps = np.arange(most + 2) - 0.5
    norm = BoundaryNorm(list(steps), 256)
    shown = sky_panel(axes, "inputs", box, n_image, norm=norm, interpolation="nearest")
    colour_bar(axes, shown, "", ticks=np.arange(most + 1))


def _planes(axes: Axes, exposure: Exposure) -> None:
    """Mask planes as colours, rare ones over common ones, with their share of the pixels."""
    image, found = plane_image(exposure)
    colours = ["white"]
    for i, (name, share) in enumerate(found, 1):
        colour = "0.85" if name in _QUIET_PLANES else _PLANE_COLOURS[i % len(_PLANE_COLOURS)]
        colours.append(colour)
        axes.plot([], [], "s", color=colour, label=f"{name} {100 * share:.2g}%")
    options = {"cmap": ListedColormap(colours), "vmin": -0.5, "vmax": len(colours) - 0.5}
    sky_panel(axes, "mask", exposure.box, image, interpolation="nearest", **options)
    limits(axes, exposure.box)
    if not found:
        axes.set_xlabel("no plane is set")
        return
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.05, -0.08),
        ncols=2,
        fontsize=7,
        handletextpad=0.1,
        columnspacing=0.6,
        borderpad=0.2,
    )


def _noise_check(axes: Axes, exposure: Exposure) -> None:
    """Histogram of sky pixels in units of their noise, beside the normal distribution."""
    ratio = sky_ratios(exposure)
    edges = np.linspace(-5, 5, 81)
    if len(ratio):
        axes.hist(ratio, edges, density=True, color="0.75", label="pixels")
    middle = np.linspace(-5, 5, 201)
    axes.plot(middle, np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi), "k", label="normal")
    axes.set_yscale("log")
    axes.set_ylim(1e-5, 1)
    axes.set_xlim(-5, 5)
    axes.set_box_aspect(1)
    axes.set_xlabel("image / noise")
    axes.set_title(f"negative side: {negative_width(ratio):.3f} of the noise")
    axes.legend(loc="upper left")


def draw_psfs(cube: Cube, scale: float | None) -> Figure:
    """Per band the PSF at the centre and its size over the field; profiles of all bands."""
    n = len(cube.bands)
    figure = new_figure(9.6, 2.15 * max(n, 2) + 0.3)
    left, right = figure.subfigures(1, 2, width_ratios=[1.45, 1])
    grid = left.subplots(n, 2, squeeze=False)
    profile, energy = right.subplots(2, 1, sharex=True)
    for i, (band, psf) in enumerate(zip(cube.bands, cube.psfs, strict=True)):
        if psf is None:
            continue
        _stamp(grid[i, 0], psf, cube.box, f"{band}, centre")
        _sizes(grid[i, 1], psf, cube.box, scale)
        stamp = psf.at(*_centre(cube.box))
        if not np.isfinite(stamp).all():
            continue
        unit = scale or 1.0
        colour = band_colour(band, i)
        width = adaptive_moments(stamp).fwhm[0] * unit
        label = f"{band}  FWHM {width:.3g}{'″' if scale else ' pixels'}"
        radius, mean = radial_profile(stamp)
        profile.plot(radius * unit, mean / mean[0], color=colour, label=label)
        radius, inside = encircled_energy(stamp)
        energy.plot(radius * unit, inside, color=colour)
    profile.set_yscale("log")
    profile.set_ylim(1e-5, 1.5)
    profile.set_title("profile")
    if profile.lines:
        profile.legend()
    energy.set_title("encircled energy")
    energy.set_xlabel("radius [arcsec]" if scale else "radius [pixel]")
    energy.axhline(1, color="0.7", linewidth=0.5)
    return figure


def _centre(box: Any) -> tuple[float, float]:
    return box.y0 + (box.ny - 1) / 2, box.x0 + (box.nx - 1) / 2


def _stamp(axes: Axes, psf: Psf, box: Any, title: str) -> None:
    """PSF at the centre, logarithmic over four decades."""
    stamp = psf.at(*_centre(box))
    if not np.isfinite(stamp).all():
        axes.set_title(f"{title}: unknown")
        axes.set_axis_off()
        return
    half = psf.side // 2
    extent = (-half - 0.5, half + 0.5, -half - 0.5, half + 0.5)
    norm = LogNorm(1e-4, 1, clip=True)
    shown = axes.imshow(np.maximum(stamp / stamp.max(), 1e-9), norm=norm, extent=extent,
                        cmap="magma")  # fmt: skip
    axes.set_title(title)
    colour_bar(axes, shown, "of the peak")


def _sizes(axes: Axes, psf: Psf, box: Any, scale: float | None) -> None:
    """FWHM over the field, with strokes along the longer axis; blank where it is unknown."""
    shapes = shape_map(psf, box, _LATTICE)
    if not len(shapes.y):
        axes.set_axis_off()
        return
    fwhm = shapes.fwhm * (scale or 1.0)
    middle = np.nanmean(fwhm)
    low, high = min(np.nanmin(fwhm), 0.99 * middle), max(np.nanmax(fwhm), 1.01 * middle)
    shown = sky_panel(axes, "", box, fwhm, vmin=low, vmax=high)
    colour_bar(axes, shown, "arcsec" if scale else "pixel")
    largest = float(np.hypot(shapes.dy, shapes.dx).max())
    axes.quiver(
        shapes.x, shapes.y, shapes.dx, shapes.dy,
        color="white", width=0.006, headwidth=0, headlength=0, headaxislength=0, pivot="mid",
        scale=max(0.02, largest) * 1.4 * _LATTICE,
    )  # fmt: skip
    axes.set_title(f"FWHM, ellipticity up to {largest:.2g}")


def draw_report(models: ModelSet) -> Figure:
    """Quality of the fits, iterations, fluxes, overlap, sizes of blends, flags."""
    figure = new_figure(9.6, 5.6)
    panels = figure.subplots(2, 3).ravel()
    objects, blends = models.objects, models.blends
    fitted = objects["n_component"] > 0
    figure.suptitle(
        f"{len(models.parents)} parents, {len(blends)} blends fitted, {len(objects)} objects, "
        f"bands {' '.join(models.bands)}", x=0.01, ha="left", fontsize=9,
    )  # fmt: skip
    _histogram(panels[0], blends["chi2"], "reduced χ² of blends")
    panels[0].axvline(1, color="k", linewidth=0.8)
    _histogram(panels[1], blends["n_iter"], "iterations of blends", whole=True)
    _fluxes(panels[2], models, fitted)
    _overlap(panels[3], models, fitted)
    _histogram(panels[4], models.parents["n_child"], "objects per parent", whole=True)
    _flags(panels[5], objects["flags"])
    return figure


def _histogram(axes: Axes, values: NDArray[Any], label: str, *, whole: bool = False) -> None:
    values = values[np.isfinite(values)]
    if not len(values):
        axes.set_xlabel(label)
        return
    low, high = float(values.min()), float(values.max())
    if whole:
        step = max(1, int(high - low) // 25)
        edges = np.arange(low, high + 2 * step, step) - 0.5
    elif low > 0 and high > 5 * low:
        edges = np.geomspace(low / 1.1, high * 1.1, 25)
        axes.set_xscale("log")
    else:
        edges = np.linspace(low - 0.05, high + 0.05, 25)
    axes.hist(values, edges, color="#4a90d9")
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"median {np.median(values):.3g}")
    axes.set_ylabel("number")


def _fluxes(axes: Axes, models: ModelSet, fitted: NDArray[np.bool_]) -> None:
    """Fluxes of all objects per band."""
    fluxes = [models.objects[f"model_flux_{column_suffix(b)}"][fitted] for b in models.bands]
    positive = [flux[np.isfinite(flux) & (flux > 0)] for flux in fluxes]
    every = np.concatenate([np.zeros(0), *positive])
    if len(every):
        edges = np.geomspace(every.min(), every.max() * 1.001, 20)
        for i, (band, flux) in enumerate(zip(models.bands, positive, strict=True)):
            axes.hist(flux, edges, label=band, histtype="step", color=band_colour(band, i))
        axes.set_xscale("log")
        axes.legend()
    axes.set_xlabel("model flux" + (f" [{models.unit}]" if models.unit else ""))
    axes.set_ylabel("number")


def _overlap(axes: Axes, models: ModelSet, fitted: NDArray[np.bool_]) -> None:
    """Blendedness against flux, in the first band."""
    band = column_suffix(models.bands[0])
    flux, blendedness = (
        models.objects[f"{n}_{band}"][fitted] for n in ("model_flux", "blendedness")
    )
    use = np.isfinite(flux) & (flux > 0) & np.isfinite(blendedness)
    axes.plot(flux[use], blendedness[use], ".", color="0.2", markersize=3)
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"model flux {models.bands[0]}")
    axes.set_ylabel("blendedness")


def _flags(axes: Axes, flags: NDArray[Any]) -> None:
    """Count the objects of every flag."""
    counts = {name: int(np.count_nonzero(flags & bit)) for name, bit in FLAGS.items()}
    found = sorted((n, name) for name, n in counts.items() if n)
    axes.barh([name for _, name in found], [n for n, _ in found], color="#d1495b")
    axes.set_xlabel("objects with a flag")
