"""``coblend psf-match``: convolve exposures so that their PSF becomes a given one."""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, Any

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.errors import ParameterError
from coblend.core.params.match import MatchParams

if TYPE_CHECKING:
    from coblend.core.exposure import Exposure, HeaderValue
    from coblend.core.psf import Psf
    from coblend.core.psfmatch.apply import Applied
    from coblend.core.psfmatch.match import Match

log = logging.getLogger("coblend")


@command(
    "psf-match",
    MatchParams,
    examples=(
        "coblend psf-match coadd_i.fits -o matched_i.fits --reference coadd_g.fits[PSF]",
        "coblend psf-match warp.fits -o matched.fits --reference moffat:fwhm=5.2,beta=3",
    ),
)
@click.argument("exposure")
def psf_match(run: Run, params: MatchParams, exposure: str) -> None:
    """Match the PSF of EXPOSURE to a reference, both given as models.

    The kernel is solved at as many places as the variation of the PSF needs, its noise kept as
    low as the tolerance allows; variance and mask follow the image. The output holds the
    reference as PSF, what was reached as PSF_ACHIEVED and the correlation of the noise as
    NOISE_ACF.
    """
    from coblend.core.psfmatch.apply import apply_kernel
    from coblend.core.psfmatch.match import match_models
    from coblend.io.exposures import read_exposure, require_psf
    from coblend.io.psfs import parse_psf_spec
    from coblend.io.specs import parse_band_spec

    if not params.reference:
        raise ParameterError("option reference is missing", hint="give a PSF with --reference")
    band, spec = parse_band_spec(exposure)
    run.add_input("image", spec.path)
    science = read_exposure(spec, band=band, psf=params.psf or None)
    require_psf(science, spec.path)
    assert science.psf is not None
    reference = parse_psf_spec(params.reference)
    match = match_models(science.psf, reference, science.box, params)
    for warning in match.warnings:
        log.warning("%s: %s", os.path.basename(spec.path), warning)
    run.report(_summary(match))
    if run.dry_run:
        return
    applied = apply_kernel(science, match.kernel, params, run.jobs)
    _write(run, params, match, applied, reference)


def _write(run: Run, params: MatchParams, match: Match, applied: Applied, reference: Psf) -> None:
    """Write the matched exposure and what was asked for besides."""
    from dataclasses import replace

    import numpy as np

    from coblend.core.psfmatch.diagnose import NODE_COLUMNS
    from coblend.core.psfmatch.noise import autocorrelation, flux_noise_factor
    from coblend.io.exposures import write_exposure
    from coblend.io.kernels import write_kernel
    from coblend.io.psfs import write_psf

    box = applied.exposure.box
    centre = (box.y0 + (box.ny - 1) / 2, box.x0 + (box.nx - 1) / 2)
    correlation = autocorrelation(match.kernel.at_many(*centre)[0])
    cards = _cards(match, params, applied.radius)
    cards["NCORPSF"] = flux_noise_factor(correlation, reference.at(*centre))
    matched = _rescaled(replace(applied.exposure, psf=reference), params.kernel_sum)
    with run.create("exposure/1") as out:
        write_exposure(out, matched, header=cards)
        write_psf(out, match.achieved, "PSF_ACHIEVED")
        out.image("NOISE_ACF", correlation.astype(np.float32))
    if params.save_kernel:
        with run.create("kernel/1", path=params.save_kernel) as out:
            write_kernel(out, match.kernel, {"KRNMETH": params.method, **cards})
    if params.save_nodes:
        with run.create("nodes/1", path=params.save_nodes) as out:
            out.table("MATCH_NODES", match.nodes, columns=NODE_COLUMNS)


def _summary(match: Match) -> dict[str, Any]:
    """Numbers for the line at the end and ``--json``."""
    return {
        "status": match.status.lower(),
        "n_node": len(match.nodes),
        "kernel_size": match.kernel.side,
        "max_residual": float(f"{match.worst:.3g}"),
        "noise_gain": float(f"{match.nodes['noise_gain'].mean():.4g}"),
        "max_gain": float(f"{match.nodes['max_gain'].max():.3g}"),
        "regularization": float(f"{match.strength:.3g}"),
        "warnings": list(match.warnings),
    }


def _cards(match: Match, params: MatchParams, radius: int) -> dict[str, HeaderValue]:
    return {
        "PSFMATCH": match.status,
        "PSFMMETH": params.method,
        "PSFMRES": match.worst,
        "PSFMSUM": float(match.nodes["sum_residual"].max()),
        "PSFMK2": float(match.nodes["noise_gain"].mean()),
        "PSFMLAM": match.strength,
        "PSFMVER": 1,
        "KRNSIZE": match.kernel.side,
        "KRNSUM": params.kernel_sum,
        "KRNRAD": radius,
    }


def _rescaled(exposure: Exposure, factor: float) -> Exposure:
    """Zero points that follow the scale of the image."""
    from dataclasses import replace

    meta = dict(exposure.meta)
    for key in ("PHOTZP", "MAGZERO"):
        if factor != 1 and key in meta:
            meta[key] = float(meta[key]) + 2.5 * math.log10(factor)
            log.info("%s is now %.5f", key, meta[key])
    return replace(exposure, meta=meta)
