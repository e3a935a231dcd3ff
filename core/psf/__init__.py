"""PSF models with one evaluator for all commands.

Every model follows the protocol `Psf`: ``side``, ``constant``, ``at(y, x)``, ``at_many(y, x)``.

=============== ==============================================================
`StampPsf`      the same stamp everywhere
`AnalyticPsf`   Gaussian, double Gaussian, Moffat
`GridPsf`       stamps on a lattice, interpolated (cubic or linear)
`CellPsf`       stamps at irregular centres, nearest or linear
`PolyPsf`       pixels that are Chebyshev polynomials of the position
`PsfexPsf`      PSFEx models
=============== ==============================================================
"""

from __future__ import annotations

from coblend.core.psf.analytic import AnalyticPsf
from coblend.core.psf.base import Psf
from coblend.core.psf.grid import CellPsf, GridPsf
from coblend.core.psf.polynomial import PolyPsf, PsfexPsf
from coblend.core.psf.stamp import StampPsf

__all__ = ["AnalyticPsf", "CellPsf", "GridPsf", "PolyPsf", "Psf", "PsfexPsf", "StampPsf"]
