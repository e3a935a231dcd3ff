"""What all figures share: style, colours, panels of sky, saving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from coblend.core.show.channels import channel_weights, mixed, mixed_noise, reddest_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from coblend.core.box import Box
    from coblend.core.exposure import Cube
    from coblend.core.footprint import FootprintSet
    from coblend.core.params.show import ShowParams

STYLE: Mapping[str, Any] = {
    "font.size": 8.0,
    "font.family": ["DejaVu Sans"],
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.labelsize": 8.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.2,
    "image.origin": "lower",
    "image.interpolation": "antialiased",
    "image.cmap": "viridis",
    "svg.hashsalt": "coblend",
    "pdf.fonttype": 42,
}
BAND_COLOURS = {
    "u": "#7b3fe4", "B": "#3366ff", "g": "#1f9e89", "V": "#4caf50", "r": "#d1495b",
    "R": "#d1495b", "i": "#e08e0b", "I": "#e08e0b", "z": "#9c4f96", "y": "#5c3a21",
    "Y": "#5c3a21", "J": "#777777", "H": "#444444", "K": "#111111",
}  # fmt: skip
RESIDUAL = LinearSegmentedColormap.from_list(
    "residual", ["#0b3c7d", "#4a90d9", "#f7f7f7", "#e2725b", "#7d0b1e"]
)
MARKS = ("white", "#ff5ca8", "#5cf2ff", "#8cff66", "#ffb347", "#c9a0ff")
"""Colours of marks over images."""
ACCENT = "#ffd166"
QUIET = "#8ecae6"
_COLOUR_STRETCH, _GREY_STRETCH = 12.0, 5.0
"""Where brightness turns logarithmic, in units of the noise: grey noise disturbs less."""
RIM = [withStroke(linewidth=1.6, foreground="black")]
"""What makes marks and letters legible on any colour."""
_MARK, _SMALL_MARK, _NUMEROUS = 26, 12, 40
"""Size of marks (point**2), that of more than so many, and how many may have the first."""
_METADATA: Mapping[str, Mapping[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}


@contextmanager
def house_style() -> Iterator[None]:
    """Give figures the same look, whatever the user's matplotlibrc says."""
    plain = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context({**plain, **STYLE}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make a figure (inches) whose panels keep clear of each other."""
    return Figure(figsize=(width, height), layout="constrained")


def sky_figure(width: float, height: float) -> Figure:
    """Make a figure of panels of equal shape, drawn together."""
    return Figure(figsize=(width, height), layout="compressed")


def save(figure: Figure, path: str, kind: str, dpi: int) -> None:
    """Write a figure; the same figure gives the same bytes."""
    figure.savefig(
        path, format=kind, dpi=dpi, metadata=dict(_METADATA[kind]), bbox_inches="tight",
        pad_inches=0.06,
    )  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """How the bands of a cube become colours; the same for all panels of a figure.

    Parameters
    ----------
    bands : tuple of str
        From red to blue.
    rows : list of int
        Their rows in the cube.
    weights : array, shape (3, n_band)
    black, stretch, softening : float
        Brightness shown as black, where colours turn logarithmic, and Q.
    """

    bands: tuple[str, ...]
    rows: list[int]
    weights: NDArray[np.float64]
    black: float
    stretch: float
    softening: float

    @classmethod
    def of(cls, cube: Cube, params: ShowParams) -> Palette:
        """Choose colours for a cube whose bands are those to be shown."""
        order = list(range(len(cube.bands))) if params.bands else reddest_first(cube.bands)
        weights = channel_weights(len(order))
        if params.weights:
            weights = weights * np.array(params.weights)
        noise = mixed_noise(cube.variances[order], weights)
        contrast = _GREY_STRETCH if len(order) == 1 else _COLOUR_STRETCH
        stretch = contrast * noise if params.stretch is None else params.stretch
        black = -noise if params.minimum is None else params.minimum
        bands = tuple(cube.bands[i] for i in order)
        return cls(bands, order, weights, black, stretch, params.softening)

    def __call__(self, images: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Colours of images in the order of the cube's bands, shape (ny, nx, 3)."""
        from astropy.visualization import make_lupton_rgb

        red, green, blue = mixed(images[self.rows], self.weights) - self.black
        colours: NDArray[np.uint8] = make_lupton_rgb(
            red, green, blue, minimum=0, stretch=self.stretch, Q=self.softening
        )
        return colours

    @property
    def name(self) -> str:
        """Bands in the order of the colours."""
        return " ".join(self.bands)


def band_colour(band: str, index: int) -> str:
    """Colour of a band's lines."""
    return BAND_COLOURS.get(band, f"C{index % 10}")


def sky_panel(axes: Axes, title: str, box: Box, image: NDArray[Any], **options: Any) -> Any:
    """Show an image in parent coordinates."""
    extent = (box.x0 - 0.5, box.x1 - 0.5, box.y0 - 0.5, box.y1 - 0.5)
    shown = axes.imshow(image, extent=extent, **options)
    axes.set_title(title)
    axes.set_anchor("C")
    return shown


def residual_panel(
    axes: Axes, title: str, box: Box, image: NDArray[np.float64], limit: float
) -> None:
    """Show an image in units of its noise, with its colour scale; NaN is grey."""
    axes.set_facecolor("0.6")
    shown = sky_panel(axes, title, box, image, cmap=RESIDUAL, vmin=-limit, vmax=limit)
    colour_bar(axes, shown, "noise")


def colour_bar(axes: Axes, shown: Any, label: str, **options: Any) -> None:
    """Colour scale beside a panel."""
    place = axes.inset_axes((1.03, 0.0, 0.04, 1.0))
    bar = axes.figure.colorbar(shown, cax=place, label=label, **options)
    bar.outline.set_linewidth(0.5)


def outline(axes: Axes, footprints: FootprintSet, box: Box, **options: Any) -> None:
    """Draw the borders of footprints."""
    style = {"colors": ACCENT, "linewidths": 0.7, **options}
    axes.add_collection(LineCollection(list(footprints.outlines(box)), **style))


def peaks(axes: Axes, x: NDArray[Any], y: NDArray[Any], **options: Any) -> None:
    """Mark peaks with small crosses, dark rimmed so that they show on any colour."""
    rim = [withStroke(linewidth=1.8, foreground="black")]
    style = {
        "marker": "+",
        "s": _MARK if np.size(x) <= _NUMEROUS else _SMALL_MARK,
        "linewidths": 0.8,
        "color": "white",
        "path_effects": rim,
    }
    style |= options
    axes.scatter(x, y, **style)


def scale_bar(axes: Axes, box: Box, scale: float | None) -> None:
    """Draw a bar of a round length in arcseconds (``scale`` per pixel), else in pixels."""
    unit = scale or 1.0
    length = _round(0.22 * box.nx * unit)
    label = f"{length:g}″" if scale else f"{length:g} pixels"
    x0, y0 = box.x0 + 0.06 * box.nx, box.y0 + 0.06 * box.ny
    halo = {"solid_capstyle": "butt"}
    axes.plot([x0, x0 + length / unit], [y0, y0], color="white", linewidth=2.0, **halo)
    axes.text(
        x0 + length / unit / 2,
        y0 + 0.015 * box.ny,
        label,
        color="white",
        ha="center",
        va="bottom",
        path_effects=RIM,
    )
    limits(axes, box)


def limits(axes: Axes, box: Box) -> None:
    """Show exactly the pixels of a box."""
    axes.set_xlim(box.x0 - 0.5, box.x1 - 0.5)
    axes.set_ylim(box.y0 - 0.5, box.y1 - 0.5)


def bare(axes: Sequence[Axes]) -> None:
    """Leave out the coordinates of panels that share those of another."""
    for panel in axes:
        panel.tick_params(labelleft=False, labelbottom=False)


def _round(length: float) -> float:
    """Largest of 1, 2, 5, 10, ... that is not above ``length``."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)))
