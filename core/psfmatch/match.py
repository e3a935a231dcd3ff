"""From two PSF models to a matching kernel that holds everywhere in a box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import FormatError, ParameterError, concerning
from coblend.core.params.match import MatchParams
from coblend.core.psf import AnalyticPsf, CellPsf, PolyPsf, Psf, StampPsf
from coblend.core.psf.fields import Array, CellField, ChebyshevField, Kernel, LatticeField
from coblend.core.psf.moments import adaptive_moments
from coblend.core.psf.resample import resized, shifted
from coblend.core.psf.stamp import normalized
from coblend.core.psfmatch.diagnose import DECONVOLUTION, beyond_kernel, node_table, truncated
from coblend.core.psfmatch.everywhere import Pairs, fit_everywhere
from coblend.core.psfmatch.guard import adequate_fwhm, is_deconvolution
from coblend.core.psfmatch.reference import DEFAULT_SIDE, fit_reference
from coblend.core.psfmatch.solver import Solver, make_solver
from coblend.core.psfmatch.spatial import (
    cell_centres,
    chebyshev_nodes,
    domain_of,
    fit_field,
    node_counts,
)
from coblend.core.psfmatch.transform import convolved

FULL, PARTIAL, IDENTITY = "FULL", "PARTIAL", "IDENTITY"
SIZE_PER_FWHM = 4.2
SIZE_RANGE = (21, 65)
SMALLEST = 3
"""Side of the smallest kernel (pixel)."""
ACHIEVED_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A matching kernel and how good it is.

    Parameters
    ----------
    kernel : Field
        In parent coordinates, with the sum asked for; 1 x 1 when nothing needs to be done.
    nodes : structured array
        `coblend.core.psfmatch.diagnose.NODE_COLUMNS`; for kernels of unit sum.
    achieved : Psf
        What the PSF of the convolved exposure is.
    status : str
        FULL: ``worst`` is at most the tolerance, or twice it where kernels are interpolated
        between nodes; PARTIAL: more is left; IDENTITY: nothing had to be done.
    worst : float
        Largest residual over the peak of the reference, at and between the nodes.
    strength : float
        Strength of the ridge; 0 for kernels without.
    warnings : tuple of str
        What is not as it should be, and the remedy.
    """

    kernel: Kernel
    nodes: NDArray[Any]
    achieved: Psf
    status: str
    worst: float
    strength: float
    warnings: tuple[str, ...] = ()


def match_models(
    source: Psf,
    target: Psf,
    box: Box,
    params: MatchParams,
    noise: Array | None = None,
) -> Match:
    """Find the kernel that turns one PSF model into another over a box.

    Parameters
    ----------
    source, target : Psf
        PSF of the exposure, and the one wanted.
    box : Box
        Pixels to match.
    params : MatchParams
    noise : array, shape (m, m), optional
        Autocorrelation of the noise of the exposure; white when absent.

    Raises
    ------
    ParameterError
        For a kernel that does not fit the stamps or the image, and for a refused deconvolution.
    FormatError
        The image is too small for any kernel, or the reference has no width.
    """
    pairs = _pairs_of(source, target, params)
    cells = cell_centres(source, box)
    constant = source.constant and target.constant
    if cells is not None:
        y, x = cells
    else:
        counts = (1, 1) if constant else node_counts(box, params.nodes)
        y, x = chebyshev_nodes(domain_of(box), counts)
    s, t = pairs(y, x)
    if not params.reference_fit and _identical(s, t, params.tolerance):
        return _identity(y, x, s, t, source, params)
    with concerning(params.reference or "the reference"):
        adaptive_moments(t)
    side = _kernel_side(s, t, box, params)
    warnings = _guard(s, t, params)
    warnings += _stamp_warnings(source, s, "PSF") + _stamp_warnings(target, t, "reference")
    if params.kernel_size > source.side:
        warnings.append(
            f"the kernel ({params.kernel_size} px) is larger than the PSF stamps "
            f"({source.side} px)"
        )
    worst, limit = 0.0, params.tolerance
    solver = make_solver(s, t, side, params, noise)
    if params.reference_fit:
        kernel: Kernel = fit_reference(pairs, box, params, constant=constant)
    elif cells is not None:
        kernel = CellField(_solve_distinct(solver, s, t), y, x)
    elif constant:
        kernel = ChebyshevField.of_constant(solver(s[0], t[0]))
    else:
        kernel, worst, notes = fit_everywhere(pairs, box, solver, params)
        warnings += notes
        limit *= 2
    nodes = _table(kernel, y, x, s, t, solver.strength, limit)
    if isinstance(source, CellPsf) and source.regions is not None:
        nodes["region"] = source.regions
    worst = max(worst, float(nodes["max_residual"].max()))
    warnings += _advice(kernel, worst, limit, s, t, y, x, params)
    status = FULL if worst <= limit else PARTIAL
    achieved = _achieved(kernel, convolved(s, kernel.at_many(y, x)), y, x, box)
    scaled = _scaled(kernel, params.kernel_sum)
    return Match(scaled, nodes, achieved, status, worst, solver.strength, tuple(warnings))


def _pairs_of(source: Psf, target: Psf, params: MatchParams) -> Pairs:
    """Stamps of both models at positions, padded to the same side.

    The reference system cuts its reference to the side of the PSF.
    """
    side = source.side if params.reference_fit else max(source.side, target.side)
    if isinstance(source, AnalyticPsf):
        source = StampPsf(source.stamp(side))
    if isinstance(target, AnalyticPsf):
        target = StampPsf(target.stamp(side))

    def pairs(y: Array, x: Array) -> tuple[Array, Array]:
        s = source.at_many(y, x)
        unknown = np.flatnonzero(~np.isfinite(s).all(axis=(1, 2)))
        if len(unknown):
            i = unknown[0]
            raise FormatError(
                f"the PSF is unknown at x {x[i]:.0f}, y {y[i]:.0f} "
                f"({len(unknown)} of {len(s)} places where it is needed)",
                hint="match a part where it is known, with --section",
            )
        if params.recenter_psf:
            moments = adaptive_moments(s)
            moves = zip(s, -moments.dy, -moments.dx, strict=True)
            s = normalized(np.stack([shifted(stamp, dy, dx) for stamp, dy, dx in moves]))
        return resized(s, side), resized(target.at_many(y, x), side)

    return pairs


def _identical(source: Array, target: Array, tolerance: float) -> bool:
    difference = np.abs(source - target).max(axis=(1, 2))
    return bool(np.all(difference <= tolerance * target.max(axis=(1, 2))))


def _solve_distinct(solver: Solver, source: Array, target: Array) -> Array:
    """Kernels of all pairs; equal pairs are solved once."""
    both = np.concatenate([source, target], axis=1).reshape(len(source), -1)
    _, first, which = np.unique(both, axis=0, return_index=True, return_inverse=True)
    kernels = np.stack([solver(source[i], target[i]) for i in first])
    return np.asarray(kernels[which.ravel()])


def _kernel_side(source: Array, target: Array, box: Box, params: MatchParams) -> int:
    """Side of the kernel, checked against the stamps and the image."""
    if min(box.shape) < SMALLEST:
        raise FormatError(
            f"an image of {box.nx}x{box.ny} pixels is too small for a matching kernel: "
            f"{SMALLEST} pixels along each axis are the least"
        )
    stamp = source.shape[-1]
    side = params.kernel_size
    if not side and params.method == "al":
        side = DEFAULT_SIDE
    elif not side:
        fwhm = float(adaptive_moments(target).fwhm.max())
        side = 2 * int(SIZE_PER_FWHM * fwhm) + 1
        side = int(np.clip(side, SIZE_RANGE[0], max(SIZE_RANGE[0], min(SIZE_RANGE[1], stamp))))
        side = min(side, (min(box.shape) - 1) // 2 * 2 + 1)
    if side > 2 * stamp:
        raise ParameterError(
            f"a kernel of {side} pixels is more than twice the PSF stamps of {stamp} pixels",
            hint=f"the largest kernel_size is {2 * stamp - 1}; or give larger stamps",
        )
    if side > min(box.shape):
        raise ParameterError(
            f"a kernel of {side} pixels is larger than the image of {box.nx}x{box.ny} pixels",
            hint=f"the largest kernel_size is {(min(box.shape) - 1) // 2 * 2 + 1}",
        )
    return side


def _guard(source: Array, target: Array, params: MatchParams) -> list[str]:
    """Refuse or announce a reference that is sharper than the PSF."""
    if params.deconvolution == "allow":
        return []
    sharp = is_deconvolution(source, target)
    if not sharp.any():
        return []
    wide, narrow = (float(adaptive_moments(p).fwhm.max()) for p in (source, target))
    text = (
        f"the reference (FWHM {narrow:.2f} px) is sharper than the PSF (FWHM up to {wide:.2f} px)"
    )
    if len(sharp) > 1:
        text += f" at {int(sharp.sum())} of {len(sharp)} nodes"
    hint = f"a reference of FWHM {adequate_fwhm(source, target):.2f} px or more avoids it"
    if params.deconvolution == "error":
        raise ParameterError(f"{text}; deconvolution is refused", hint=hint)
    return [f"{text}: it is reached in part; {hint}"]


def _stamp_warnings(psf: Psf, stamps: Array, name: str) -> list[str]:
    """Say when the stamps of a model are cut off; a formula is evaluated as far as needed."""
    if isinstance(psf, AnalyticPsf) and psf.size is None:
        return []
    if not any(truncated(stamp) for stamp in resized(stamps, psf.side)):
        return []
    return [f"the stamps of the {name} stop before its wings do: larger stamps avoid ringing"]


def _advice(
    kernel: Kernel,
    worst: float,
    limit: float,
    source: Array,
    target: Array,
    y: Array,
    x: Array,
    params: MatchParams,
) -> list[str]:
    """Say what to change when the tolerance was missed."""
    if worst <= limit:
        return []
    kernels = kernel.at_many(y, x)
    outside = max(beyond_kernel(*k) for k in zip(kernels, source, target, strict=True))
    if outside > params.tolerance:
        remedy = f"{outside:.1e} of it beyond the kernel: raise kernel_size above {kernel.side}"
    else:
        remedy = "use a wider reference, or raise tolerance"
    return [f"the residual is {worst:.1e} of the peak, {params.tolerance:.1e} was asked: {remedy}"]


def _table(
    kernel: Kernel, y: Array, x: Array, source: Array, target: Array, strength: float, limit: float
) -> NDArray[Any]:
    rows = node_table(y, x, kernel.at_many(y, x), source, target, strength, limit)
    rows["status"][is_deconvolution(source, target)] = DECONVOLUTION
    return rows


def _achieved(kernel: Kernel, reached: Array, y: Array, x: Array, box: Box) -> Psf:
    """PSF after the convolution, in the simplest form that holds it."""
    if isinstance(kernel, CellField):
        return CellPsf(reached, y, x)
    if kernel.constant:
        return StampPsf(reached[0])
    order = kernel.order if isinstance(kernel, ChebyshevField) else 4
    return PolyPsf(
        fit_field(reached, y, x, domain_of(box), order, ACHIEVED_TOLERANCE, len(reached))
    )


def _identity(
    y: Array, x: Array, source: Array, target: Array, psf: Psf, params: MatchParams
) -> Match:
    """Return the kernel that leaves the image alone: a regularised one would blur and sharpen."""
    one = np.ones((len(y), 1, 1))
    nodes = node_table(y, x, one, source, target, 0.0, params.tolerance)
    kernel = ChebyshevField.of_constant(np.full((1, 1), params.kernel_sum))
    return Match(kernel, nodes, psf, IDENTITY, float(nodes["max_residual"].max()), 0.0)


def _scaled(kernel: Kernel, factor: float) -> Kernel:
    if isinstance(kernel, ChebyshevField):
        return ChebyshevField(kernel.basis * factor, kernel.coefficients, kernel.domain)
    if isinstance(kernel, LatticeField):
        return LatticeField(kernel.images * factor, kernel.y, kernel.x, kernel.interpolation)
    return CellField(kernel.images * factor, kernel.y, kernel.x)
