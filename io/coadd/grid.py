"""The pixel grid of a coadd and the places of its inputs on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coblend.core.box import Box
from coblend.core.errors import ParameterError, WcsMismatchError
from coblend.io.exposure.frame import frame_origin
from coblend.io.fits.reader import open_fits
from coblend.io.fits.specs import parse_spec
from coblend.io.fits.structure import card_number
from coblend.io.sky.wcs import shift_cards, wcs_cards

_FRACTION = 1e-3  # pixel; larger fractional shifts need resampling


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels of a file.

    Parameters
    ----------
    path : str
    box : Box
        Parent coordinates of the file.
    wcs : tuple of str
        Celestial WCS, array coordinates of ``box``.
    framed : bool
        Whether the file says where its parent coordinates begin.
    """

    path: str
    box: Box
    wcs: tuple[str, ...]
    framed: bool

    def cut(self, section: Box) -> Grid:
        """Part of the grid; the section is in array coordinates.

        Raises
        ------
        ParameterError
            The section is not inside.
        """
        if not Box(0, 0, *self.box.shape).contains(section):
            raise ParameterError(
                f"section {section.x0 + 1}:{section.x1},{section.y0 + 1}:{section.y1} of "
                f"{self.path}, which has {self.box.nx}x{self.box.ny} pixels"
            )
        box = section.shift(self.box.y0, self.box.x0)
        return Grid(self.path, box, shift_cards(self.wcs, section.y0, section.x0), self.framed)


def read_grid(argument: str) -> Grid:
    """Grid of the first image with a celestial WCS in ``FILE``, or of a section of it.

    Of ``FILE[HDU]`` only that HDU counts.

    Raises
    ------
    MissingHduError
        There is no such HDU.
    WcsMismatchError
        There is no such image.
    """
    spec = parse_spec(argument)
    with open_fits(spec.path) as file:
        chosen = None if spec.hdu is None else file.index(spec.hdu, spec.version)
        for index in range(len(file.hdus)) if chosen is None else [chosen]:
            hdu = file.hdus[index]
            cards = wcs_cards(file.cards(index), spec.path) if hdu.kind != "table" else ()
            if cards and len(hdu.shape) == 2:
                header = file.header(index)
                box = Box(*frame_origin(header, spec.path), *hdu.shape)
                grid = Grid(spec.path, box, cards, is_framed(header))
                return grid if spec.section is None else grid.cut(spec.section)
    where = None if spec.hdu is None else str(spec.hdu)
    raise WcsMismatchError("no image with a celestial WCS", spec.path, where)


def is_framed(header: object) -> bool:
    """Whether a header says where parent coordinates begin."""
    return "LTV1" in header or "CRVAL1A" in header  # type: ignore[operator]


def offset_to(grid: Grid, reference: Grid) -> tuple[int, int]:
    """Shift ``(dy, dx)`` from the file's parent coordinates to those of the reference.

    Zero when both files say where their parent coordinates begin, else from the reference points
    (CRPIX) of the two WCS.

    Raises
    ------
    WcsMismatchError
        The shift is not a whole number of pixels.
    """
    if grid is reference or (grid.framed and reference.framed) or not grid.wcs:
        return 0, 0
    shift = []
    for key, own, ref in (
        ("CRPIX2", grid.box.y0, reference.box.y0),
        ("CRPIX1", grid.box.x0, reference.box.x0),
    ):
        shift.append((_number(reference.wcs, key) + ref) - (_number(grid.wcs, key) + own))
    if any(abs(s - round(s)) > _FRACTION for s in shift):
        raise WcsMismatchError(
            f"is shifted by a fraction of a pixel from {reference.path} "
            f"(dx={shift[1]:.4f}, dy={shift[0]:.4f})",
            grid.path,
            hint="resample it first: coblend warp --like REFERENCE",
        )
    return round(shift[0]), round(shift[1])


def _number(cards: Sequence[str], key: str) -> float:
    for card in cards:
        if card.startswith(key.ljust(8)):
            return card_number(card[10:])
    return 0.0
