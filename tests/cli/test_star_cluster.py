"""A globular cluster through the command line: thousands of stars in one parent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from coblend.io.deblend.models import read_models

Cli = Callable[..., Any]
SIZE = 600


@pytest.mark.slow
def test_fluxes_of_3000_stars_in_one_parent(cli: Cli, in_folder: Path, fields) -> None:
    """Above S/N 20 the median is right within 1 % in every range, and errors are the scatter."""
    rng = np.random.default_rng(11)
    radius, angle = np.abs(rng.normal(0, SIZE / 5, 5000)), rng.uniform(0, 2 * np.pi, 5000)
    place = SIZE / 2 + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    place = np.clip(place, 15, SIZE - 15)
    keep = np.ones(len(place), bool)
    for a, b in sorted(cKDTree(place).query_pairs(2.5)):
        keep[b] &= not keep[a]
    place = place[keep]
    flux = np.minimum(100 * rng.uniform(0, 1, len(place)) ** (-1 / 1.2), 1e5)
    stars = [(*at, f) for at, f in zip(place.tolist(), flux.tolist(), strict=True)]
    cube, detections = fields.make_scene([stars], (SIZE, SIZE), bands=("r",))
    assert len(stars) > 3000
    names = fields.save(cube, detections, in_folder)
    done = cli("deblend", "merged.fits", *names, "-o", "x.fits", "--crowded", "psf", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["n_fitted"] == 1
    models = read_models("x.fits")
    assert models.objects["flag_psf_only"].all()
    assert abs(models.parents["chi2"][0] - 1) < 0.05
    found, error = (models.objects[f"model_flux{kind}_r"].astype(float) for kind in ("", "_err"))
    truth = fields.COLOUR[0] * flux
    for low, high in ((20, 40), (40, 100), (100, np.inf)):
        part = (truth / error > low) & (truth / error <= high)
        assert np.count_nonzero(part) > 100
        pull = ((found - truth) / error)[part]
        assert abs(np.median((found / truth)[part]) - 1) < 0.01
        assert abs(np.median(pull)) < 0.3
        assert 1.4826 * np.median(np.abs(pull)) < 1.4
