"""``coblend psf-match``: convolve exposures so that their PSF becomes a given one."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import click

from coblend.cli.command import command
from coblend.cli.run import Run, filled_name
from coblend.core.errors import FormatError, ParameterError, concerning
from coblend.core.params.match import MatchParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coblend.core.box import Box
    from coblend.core.exposure import Exposure, HeaderValue
    from coblend.core.psf import AnalyticPsf, Psf
    from coblend.core.psf.fields import Kernel
    from coblend.core.psfmatch.apply import Applied
    from coblend.core.psfmatch.match import Match
    from coblend.io.fits.specs import FileSpec
    from coblend.io.psf.given import GivenPsfs

log = logging.getLogger("coblend")

_MATCH_CARDS = ("PSFMATCH", "PSFMMETH", "PSFMRES", "PSFMSUM", "PSFMK2", "PSFMLAM", "PSFMVER")


@dataclass(frozen=True)
class Prepared:
    """A kernel, solved now or read from a file, and what it makes of the PSF."""

    kernel: Kernel
    reference: Psf
    achieved: Psf
    cards: Mapping[str, HeaderValue]
    summary: Mapping[str, Any]
    nodes: NDArray[Any] | None = None


@dataclass(frozen=True)
class _Model:
    """PSF of an exposure, and the pixels where it is used."""

    path: str
    psf: Psf
    box: Box


@command(
    "psf-match",
    MatchParams,
    fills=("band", "name"),
    examples=(
        "coblend psf-match coadd_i.fits -o matched_i.fits --reference 'coadd_g.fits[PSF]'",
        "coblend psf-match warp.fits -o matched.fits --reference moffat:fwhm=5.2,beta=3",
        "coblend psf-match coadd_?.fits -o 'matched_{band}.fits' --reference auto",
    ),
)
@click.argument("exposures", metavar="[BAND=]EXPOSURE...", nargs=-1, required=True)
def psf_match(run: Run, params: MatchParams, exposures: tuple[str, ...]) -> None:
    """Match the PSF of each EXPOSURE to a reference, both given as models.

    The kernel is solved at as many places as the variation of the PSF needs, its noise kept as
    low as the tolerance allows; variance and mask follow the image. The output holds the
    reference as PSF, what was reached as PSF_ACHIEVED and the correlation of the noise as
    NOISE_ACF. With several exposures the output's name holds {band} or {name}; --reference auto
    then finds one reference for all.
    """
    from coblend.core.psfmatch.apply import BYTES_PER_PIXEL
    from coblend.io.exposure.exposures import count_pixels
    from coblend.io.fits.specs import expand_lists, parse_band_spec, parse_spec
    from coblend.io.psf.given import require_bands

    params.require_reference("a reference is a PSF: file.fits[PSF], moffat:fwhm=5.2,beta=3, auto")
    specs = [parse_band_spec(text) for text in expand_lists(exposures)]
    if len(specs) > 1:
        _require_templates(run, params)
    run.add_psfs([params.psf] if params.psf else [])
    if params.apply_kernel:
        run.add_input("kernel", params.apply_kernel)
    if params.noise_acf:
        run.add_input("noise", parse_spec(params.noise_acf).path)
    noise = _noise(params)
    science: Exposure | None = None
    models: list[_Model] = []
    outputs: list[dict[str, str]] = []
    bands: list[str] = []
    files: list[list[str]] = []
    for band, spec in specs:  # all kernels first: nothing is written when one is refused
        run.require_memory(BYTES_PER_PIXEL * count_pixels(spec), spec.path)
        science = _read(spec, band, params)
        files.append(run.add_exposure("image", spec))
        outputs.append(_names(run, params, science, spec, [n["output"] for n in outputs]))
        models.append(_Model(spec.path, cast("Psf", science.psf), science.box))
        bands.append(science.band)
    require_bands(_given(params), bands)
    if params.apply_kernel:
        solved = [_from_file(params.apply_kernel, model.box) for model in models]
    else:
        solved = _solved(run, models, params, noise)
    jobs = list(zip(solved, outputs, strict=True))
    rows = [{"output": names["output"], **prepared.summary} for prepared, names in jobs]
    one = len(rows) == 1
    run.report(rows[0] if one else {"n_exposure": len(rows)}, table=None if one else rows)
    if run.dry_run:
        return
    with run.progress("psf-match", len(specs)) as advance:
        for (band, spec), (prepared, names), own in zip(specs, jobs, files, strict=True):
            if science is None or not one:
                science = _read(spec, band, params)
            others = set() if params.reference == "auto" else set().union(*files) - set(own)
            _convolve_and_write(run, params, science, prepared, noise, names, others)
            advance(1)


def _solved(
    run: Run, models: Sequence[_Model], params: MatchParams, noise: NDArray[np.float64] | None
) -> list[Prepared]:
    """Match all to the reference; for auto to the narrowest that all reach, if there is one."""
    from coblend.core.psfmatch.common_reference import text_form
    from coblend.core.psfmatch.match import PARTIAL, match_models

    tried = []
    for reference in _references(run, models, params):
        matches = []
        for model in models:
            with concerning(model.path):
                found = match_models(model.psf, reference, model.box, params, noise)
            matches.append(found)
        tried.append((reference, matches))
        if all(match.status != PARTIAL for match in matches):
            break
    else:
        reference, matches = tried[0]
    if params.reference == "auto":
        text = text_form(cast("AnalyticPsf", reference))
        log.info("reference auto is %s", text)
        run.report({"reference": text})
    return [
        _prepared(match, reference, params, model.path)
        for match, model in zip(matches, models, strict=True)
    ]


def _prepared(match: Match, reference: Psf, params: MatchParams, path: str) -> Prepared:
    for warning in match.warnings:
        log.warning("%s: %s", path, warning, extra={"once": True})
    cards: dict[str, HeaderValue] = {
        "PSFMATCH": match.status,
        "PSFMMETH": params.method,
        "PSFMRES": match.worst,
        "PSFMSUM": float(match.nodes["sum_residual"].max()),
        "PSFMK2": float(match.nodes["noise_gain"].mean()),
        "PSFMLAM": match.strength,
        "PSFMVER": 1,
    }
    return Prepared(match.kernel, reference, match.achieved, cards, _summary(match), match.nodes)


def _from_file(path: str, box: Box) -> Prepared:
    """Kernel that an earlier run saved, with the PSFs it leads to."""
    from coblend.io.fits.reader import open_fits
    from coblend.io.psf.kernels import read_kernel
    from coblend.io.psf.psfs import read_psf

    with open_fits(path) as file:
        kernel = read_kernel(file, box)
        psf, achieved = read_psf(file, None), read_psf(file, None, "PSF_ACHIEVED")
        if psf is None or achieved is None:
            raise FormatError("has no PSF and PSF_ACHIEVED", path)
        header = file.header("KERNEL_BASIS")
    cards = {key: header[key] for key in _MATCH_CARDS if key in header}
    summary = {"kernel_size": kernel.side, "status": str(cards.get("PSFMATCH", "")).lower()}
    return Prepared(kernel, psf, achieved, cards, summary)


def _convolve_and_write(
    run: Run,
    params: MatchParams,
    science: Exposure,
    prepared: Prepared,
    noise: NDArray[np.float64] | None,
    names: Mapping[str, str],
    others: Collection[str],
) -> None:
    import numpy as np

    from coblend.core.psfmatch.apply import apply_kernel
    from coblend.core.psfmatch.diagnose import NODE_COLUMNS
    from coblend.core.psfmatch.noise import autocorrelation, flux_noise_factor
    from coblend.io.exposure.exposures import write_exposure
    from coblend.io.psf.kernels import write_kernel
    from coblend.io.psf.psfs import write_psf

    box, kernel = science.box, prepared.kernel
    if params.region_map:
        applied = _by_region(run, params, params.region_map, science, prepared)
    else:
        applied = apply_kernel(science, kernel, params, run.jobs)
    centre = (box.y0 + (box.ny - 1) / 2, box.x0 + (box.nx - 1) / 2)
    middle = kernel.at_many(*centre)[0]
    correlation = autocorrelation(middle, noise)
    factor = float(middle.sum())
    cards: dict[str, HeaderValue] = {
        **prepared.cards,
        "KRNSIZE": kernel.side,
        "KRNSUM": factor,
        "KRNRAD": applied.radius,
        "NCORPSF": flux_noise_factor(correlation, prepared.reference.at(*centre)),
        "NCORSUM": float(correlation.sum()),
    }
    matched = replace(
        applied.exposure, psf=prepared.reference, meta=_rescaled(science.meta, factor)
    )
    with run.create("exposure/1", path=names["output"], without=others) as out:
        write_exposure(out, matched, header=cards, compress=params.compress)
        write_psf(out, prepared.achieved, "PSF_ACHIEVED")
        out.image("NOISE_ACF", correlation.astype(np.float32))
    if names["kernel"]:
        with run.create("kernel/1", path=names["kernel"], without=others) as out:
            write_kernel(out, kernel, prepared.cards)
            write_psf(out, prepared.reference)
            write_psf(out, prepared.achieved, "PSF_ACHIEVED")
    if names["nodes"] and prepared.nodes is not None:
        with run.create("nodes/1", path=names["nodes"], without=others) as out:
            out.table("MATCH_NODES", prepared.nodes, columns=NODE_COLUMNS)


def _by_region(
    run: Run, params: MatchParams, region_map: str, science: Exposure, prepared: Prepared
) -> Applied:
    """Convolve each region of a map with the kernel of the cell that stands for it."""
    from coblend.core.psf import CellPsf
    from coblend.core.psf.fields import CellField, ChebyshevField
    from coblend.core.psfmatch.regions import apply_by_region
    from coblend.io.fits.reader import open_fits
    from coblend.io.fits.specs import parse_spec

    spec = parse_spec(region_map)
    run.add_input("regions", spec.path)
    psf, kernel = science.psf, prepared.kernel
    if not isinstance(psf, CellPsf) or psf.regions is None or not isinstance(kernel, CellField):
        raise FormatError(
            "a region map needs a PSF with one cell per region",
            spec.path,
            hint="the table PSF_CELLS needs a column region with the numbers of the map",
        )
    with open_fits(spec.path) as file:
        index = 1 if spec.hdu is None and len(file.hdus) > 1 else spec.hdu or 0
        regions = file.image(index, words=True)
    kernels = {
        int(region): ChebyshevField.of_constant(image)
        for region, image in zip(psf.regions, kernel.images, strict=True)
    }
    return apply_by_region(science, kernels, regions.astype("i4"), params, run.jobs)


def _read(spec: FileSpec, band: str | None, params: MatchParams) -> Exposure:
    from coblend.core.psf import PsfexPsf
    from coblend.io.exposure.checks import require_psf
    from coblend.io.exposure.exposures import read_exposure

    science = read_exposure(spec, band=band, psfs=_given(params))
    require_psf(science, spec.path)
    if params.psf_frame == "array" and isinstance(science.psf, PsfexPsf):
        origin = (science.box.y0, science.box.x0)
        science = replace(science, psf=replace(science.psf, origin=origin))
    return science


def _given(params: MatchParams) -> GivenPsfs:
    from coblend.io.psf.given import band_psfs

    return band_psfs([params.psf] if params.psf else [])


def _references(run: Run, models: Sequence[_Model], params: MatchParams) -> Iterator[Psf]:
    """Read the reference asked for, or find those to try, the narrowest first."""
    from coblend.core.psfmatch.common_reference import common_references
    from coblend.io.psf.psfs import parse_psf_spec, psf_file

    text = params.reference or ""
    if text == "auto":
        yield from common_references([(m.psf, m.box) for m in models], params.tolerance)
        return
    psf = parse_psf_spec(text)
    if psf_file(text):
        run.add_input("reference", psf_file(text))
    yield psf


def _noise(params: MatchParams) -> NDArray[np.float64] | None:
    """Autocorrelation of the input noise, if given."""
    if not params.noise_acf:
        return None
    from coblend.core.psfmatch.noise import as_correlation
    from coblend.io.fits.reader import open_fits
    from coblend.io.fits.specs import parse_spec

    spec = parse_spec(params.noise_acf)
    name = "NOISE_ACF" if spec.hdu is None else spec.hdu
    with open_fits(spec.path) as file, concerning(spec.path, str(name)):
        return as_correlation(file.image(name))


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


def _rescaled(meta: Mapping[str, HeaderValue], factor: float) -> dict[str, HeaderValue]:
    """Zero points that follow the scale of the image."""
    out = dict(meta)
    for key in ("PHOTZP", "MAGZERO"):
        if abs(factor - 1) > 1e-9 and key in out:
            out[key] = float(out[key]) + 2.5 * math.log10(factor)
            log.info("%s is now %.5f", key, out[key])
    return out


def _names(
    run: Run, params: MatchParams, science: Exposure, spec: FileSpec, taken: Sequence[str]
) -> dict[str, str]:
    """Names of the outputs of one exposure; refuses at once what could not be written."""
    from coblend.io.fits.specs import stem

    names = {}
    for what, template in (
        ("output", run.output),
        ("kernel", params.save_kernel or ""),
        ("nodes", params.save_nodes or ""),
    ):
        names[what] = filled_name(template, band=science.band, name=stem(spec.path))
        if what == "output" and names[what] in taken:
            raise ParameterError(
                f"two exposures would be written to {names[what]}",
                hint="write {name} where the file's name belongs",
            )
        if names[what] and (what != "output" or names[what] != run.output):
            run.check_output(names[what])
    return names


def _require_templates(run: Run, params: MatchParams) -> None:
    for text in (run.output, params.save_kernel, params.save_nodes):
        if text and "{band}" not in text and "{name}" not in text:
            raise ParameterError(
                f"several exposures cannot all be written to {text}",
                hint="write {band} or {name} where the band's or file's name belongs",
            )
