"""What `deblend` says of every kind of wrong input; nothing is written then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from coblend.core.detection import Detections
from coblend.core.exposure import Cube
from coblend.core.footprint import FootprintSet
from coblend.io.deblend.models import read_models

Cli = Callable[..., Any]
PAIR = [(30.2, 30.4, 4000.0), (30.0, 38.3, 2500.0)]
LONE = [(30.3, 80.2, 1500.0)]
RUN = ("-o", "x.fits", "--max-iter", "5")


@pytest.fixture
def scene(in_folder: Path, fields) -> tuple[Cube, Detections]:
    """A pair and a lone star, not yet written."""
    return fields.make_scene([PAIR, LONE], (60, 110))


def edited(detections: Detections, table: str, row: int, **values: object) -> Detections:
    """Detections with some values of one row changed."""
    changed = getattr(detections, table).copy()
    for name, value in values.items():
        changed[name][row] = value
    return replace(detections, **{table: changed})


def overlapping(detections: Detections) -> Detections:
    """Both parents on the pixels of the first."""
    first = detections.footprints.select(np.zeros(1, np.int64))
    twice = FootprintSet.concatenate([first, first])
    parents, peaks = detections.parents.copy(), detections.peaks.copy()
    parents["span0"], parents["nspan"] = twice.offsets[:-1], np.diff(twice.offsets)
    parents["area"] = twice.areas
    for name, values in zip(("y0", "x0", "ny", "nx"), twice.boxes().T, strict=True):
        parents[f"box_{name}"] = values
    for name in ("ix", "iy"):
        peaks[name][2] = peaks[name][0]
    return replace(detections, parents=parents, peaks=peaks, footprints=twice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: edited(d, "peaks", 1, ix=9999), "[PEAKS]: 1 rows lie outside the footprint"),
        (lambda d: edited(d, "peaks", 1, ix=160), "[PEAKS]: 1 rows lie outside the footprint"),
        (lambda d: edited(d, "parents", 1, id=1), "[PARENTS]: 1 rows repeat an identifier"),
        (lambda d: edited(d, "peaks", 1, id=1), "[PEAKS]: 1 rows repeat an identifier"),
        (overlapping, "[SPANS]: 18 rows overlap another span"),
    ],
)
def test_catalogues_that_contradict_themselves(
    cli: Cli, scene, fields, change: Callable[[Detections], Detections], message: str
) -> None:
    cube, detections = scene
    names = fields.save(cube, change(detections), Path())
    done = cli("deblend", "merged.fits", *names, *RUN)
    assert done.code == 65, done.err
    assert f"merged.fits{message}" in done.err
    assert not Path("x.fits").exists()


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        (lambda g: g[:20, :20], "has an even side, 20 px"),
        (lambda g: np.roll(g, 3, 1), "is off its centre by (3.00, "),
        (lambda g: -g, "sums to -1; its sum must be positive"),
        (lambda g: np.where(g == g.max(), np.nan, g), "has 1 non-finite value"),
    ],
)
def test_psfs_that_are_none(cli: Cli, scene, fields, stamp: Callable, message: str) -> None:
    names = fields.save(*scene, Path())
    fits.writeto("p.fits", stamp(fields.gaussian(0, 0)).astype("f4"))
    done = cli("deblend", "merged.fits", *names, "--psf", "p.fits", *RUN)
    assert done.code == 65, done.err
    assert f"p.fits[0]: the PSF {message}" in done.err
    assert not Path("x.fits").exists()


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_a_band_without_variance(cli: Cli, scene, fields, value: float) -> None:
    cube, detections = scene
    variances = cube.variances.copy()
    variances[1] = value
    names = fields.save(replace(cube, variances=variances), detections, Path())
    done = cli("deblend", "merged.fits", *names, *RUN)
    assert done.code == 65
    assert "r.fits: no usable pixel: all 6600" in done.err


def test_exposures_that_do_not_belong_together(cli: Cli, scene, fields) -> None:
    """Another shape, the same band twice, a file that is not there: both files are named."""
    cube, detections = scene
    narrow = replace(
        cube, images=cube.images[:, :, :-1], variances=cube.variances[:, :, :-1],
        masks=cube.masks[:, :, :-1], box=replace(cube.box, nx=109),
    )  # fmt: skip
    fields.save(narrow, detections, Path())
    Path("g.fits").rename("narrow.fits")
    names = fields.save(cube, detections, Path())
    for exposures, code, message in (
        (("narrow.fits", *names[1:]), 65, "r.fits: covers 110x60 pixels from (100, 200), but "
         "narrow.fits 109x60"),
        ((*names, names[0]), 65, "g.fits: band g was already given by g.fits"),
        ((*names[:2], "none.fits"), 66, "none.fits: no such file"),
    ):  # fmt: skip
        done = cli("deblend", "merged.fits", *exposures, *RUN)
        assert done.code == code
        assert message in done.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("bad_mask=NONE", "no mask plane NONE\n  known planes: BAD, "),
        ("stats_mask=NONE", "no mask plane NONE\n  known planes: BAD, "),
        ("mask_limits=NONE=0.1", "no mask plane NONE\n  known planes: BAD, "),
        ("mask_limits=SAT", "mask_limits has 'SAT'\n  write PLANE=FRACTION"),
    ],
)
def test_planes_that_do_not_exist(cli: Cli, scene, fields, option: str, message: str) -> None:
    names = fields.save(*scene, Path())
    done = cli("deblend", "merged.fits", *names, *RUN, "--set", option)
    assert done.code == 2
    assert message in done.err


def test_misspelt_options_and_existing_outputs(cli: Cli, scene, fields) -> None:
    names = fields.save(*scene, Path())
    Path("own.toml").write_text("[deblend]\nmaxItre = 3\n")
    done = cli("deblend", "merged.fits", *names, *RUN, "--config", "own.toml")
    assert done.code == 78
    assert "own.toml: line 2: [deblend] has no option 'maxItre'" in done.err
    assert "did you mean max-iter?" in done.err
    Path("x.fits").write_text("precious")
    assert cli("deblend", "merged.fits", *names, *RUN).code == 73
    assert Path("x.fits").read_text() == "precious"


def test_units_that_differ_are_named_and_columns_have_none(cli: Cli, scene, fields) -> None:
    cube, detections = scene
    names = fields.save(replace(cube, units=("nJy", "Jy", "nJy")), detections, Path())
    done = cli("deblend", "merged.fits", *names, *RUN)
    assert done.code == 0, done.err
    assert "units differ (g nJy, r Jy, i nJy)" in done.err
    assert read_models("x.fits").unit == ""


def test_no_parents_are_announced(cli: Cli, scene, fields) -> None:
    cube, detections = scene
    empty = replace(
        detections, parents=detections.parents[:0], peaks=detections.peaks[:0],
        footprints=detections.footprints.select(np.zeros(0, np.int64)),
    )  # fmt: skip
    names = fields.save(cube, empty, Path())
    done = cli("deblend", "merged.fits", *names, *RUN)
    assert done.code == 0, done.err
    assert "no parents" in done.err
    assert len(read_models("x.fits").objects) == 0
