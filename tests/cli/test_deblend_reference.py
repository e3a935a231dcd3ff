"""`deblend --preset reference` through files: the peer's numbers on a real blend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coblend.io.deblend.models import read_models
from coblend.io.exposure.exposures import read_cube
from coblend.io.fits.reader import open_fits

Cli = Callable[..., Any]
LOSSES = {0: 268778.2464, 5: 81345.7781, 20: 12654.991, 47: 8663.1813}
"""Of lsst.scarlet.lite at its defaults, before that iteration; it converges after 47."""


@pytest.fixture
def arguments(in_folder: Path, fields, shared_data: Path) -> list[str]:
    """The whole cut-out as one footprint with seven peaks."""
    folder = shared_data / "hsc_cosmos_35"
    cube = read_cube([f"{band}={folder / band}.fits" for band in "grizy"])
    with open_fits(str(folder / "peaks.fits")) as f:
        table = f.table(1)
    peaks = [(float(row["y"]), float(row["x"]), 1.0) for row in table]
    detections = fields.detections_of([peaks], cube, 99)
    return ["merged.fits", *fields.save(cube, detections, in_folder)]


@pytest.mark.parametrize("n", LOSSES)
def test_losses_are_the_peers(cli: Cli, arguments: list[str], n: int) -> None:
    limit = ("--max-iter", n) if n < 47 else ()
    done = cli("deblend", *arguments, "-o", "m.fits", "--preset", "reference", *limit)
    assert done.code == 0, done.err
    (blend,) = read_models("m.fits").blends
    assert blend["n_iter"] == n
    assert -blend["log_likelihood"] == pytest.approx(LOSSES[n], rel=1e-6)


# bad input


def test_presets_that_do_not_exist_are_named(cli: Cli, arguments: list[str]) -> None:
    done = cli("deblend", *arguments, "-o", "m.fits", "--preset", "referense")
    assert done.code == 2
    assert "reference" in done.err
    assert not Path("m.fits").exists()
