"""Artifacts of epochs in memory: found in the right epoch, whatever is read at a time."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from coblend.core.box import Box
from coblend.core.coadd.comparison import Epoch, EpochRows, compare_slab, find_artifacts
from coblend.core.coadd.differences import Template
from coblend.core.coadd.regions import Regions
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.samples import WarpPart
from coblend.core.coadd.sparse import Runs
from coblend.core.coadd.stack import stack
from coblend.core.mask import STANDARD
from coblend.core.params.coadd import CoaddParams

SIGMA, SIDE, N = 2.0, 150, 6
FRAME = Box(7, 3, SIDE, SIDE)
RULES = StackRules(statistic="meanclip", sigma_clip=2.5, clip_iter=3)
PARAMS = CoaddParams()
SPOT, GHOST, VARIABLE = (30, 40), (110, 40), (60, 110)


@pytest.fixture(scope="module")
def parts():
    """Six epochs of white noise, the last of them of the right half.

    A spot in the second, a wide faint ghost in the fourth, a star that varies in all.
    """
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:SIDE, :SIDE]
    out = []
    for i in range(N):
        image = rng.normal(0, 1, (SIDE, SIDE))
        sky = np.zeros(image.shape)
        sky[VARIABLE] = 500 * (i + 1)
        sky[SPOT] = 2000 * (i == 1)
        image += gaussian_filter(sky, SIGMA)
        image += 2.0 * (i == 3) * (np.hypot(y - GHOST[0], x - GHOST[1]) < 9)
        first = SIDE // 2 * (i == N - 1)
        box = Box(FRAME.y0, FRAME.x0 + first, SIDE, SIDE - first)
        image = image[:, first:].astype(np.float32)
        out.append(WarpPart(i, box, image, None, np.ones_like(image)))
    return out


def found(parts, slabs, **options):
    """Masks and ARTIFACTS of a comparison in slabs of the heights given."""
    params = replace(PARAMS, **options)
    planes = {name: [] for name in ("IMAGE", "VARIANCE", "WEIGHT", "NIMAGE")}
    looks, edges, top = [[] for _ in parts], [], FRAME.y0
    for height in slabs:
        box = Box(top, FRAME.x0, height, SIDE)
        cuts = [part.cut(part.box & box) for part in parts]
        done = stack(cuts, box, RULES, n_input=N, input_map=True)
        slab = compare_slab(cuts, [1.0] * N, done, FRAME, STANDARD, params)
        for i, look in slab.looks.items():
            looks[i].append(look)
        edges.append(slab.edges)
        stored = done.image, done.variance, done.weight, slab.n_image
        for name, plane in zip(planes, stored, strict=True):
            planes[name].append(plane)
        top += height
    assert not len(Runs.joined(edges).bounds)
    template = {name: np.concatenate(rows) for name, rows in planes.items()}

    def rows(name, first, last):
        return template[name][first:last]

    def read(part, first, last):
        place = part.box.slices(FRAME)[1]
        names = ("IMAGE", "VARIANCE", "WEIGHT")
        own = Template(*(template[name][first:last, place] for name in names))
        return EpochRows((slice(None), place), part.image[first:last], part.variance[first:last],
                         own)  # fmt: skip

    epochs = [
        Epoch(FRAME.shape, 1.0, own, partial(read, part))
        for part, own in zip(parts, looks, strict=True)
    ]
    regions = Regions.of(rows, FRAME.shape, SIGMA, params)
    return find_artifacts(epochs, regions, lambda: [template["NIMAGE"]], SIGMA, params)


def clipped(masks):
    """Epochs in which each place is clipped."""
    flat = {name: y * SIDE + x for name, (y, x) in
            {"spot": SPOT, "ghost": GHOST, "variable": VARIABLE}.items()}  # fmt: skip
    return {name: [i for i in range(N) if place in masks[i].clipped]
            for name, place in flat.items()}  # fmt: skip


def test_an_artifact_is_clipped_in_its_epoch_and_a_variable_star_in_none(parts):
    masks, table = found(parts, [SIDE])
    assert clipped(masks) == {"spot": [1], "ghost": [], "variable": []}
    assert set(table["decision"]) == {"CLIPPED", "PERSISTENT"}
    spot = table[table["decision"] == "CLIPPED"]
    assert spot["input"].tolist() == [1]
    assert (spot["y0"] <= SPOT[0]) & (SPOT[0] < spot["y1"])


def test_wide_faint_artifacts_are_found_on_request(parts):
    masks, _ = found(parts, [SIDE], faint_artifacts=True)
    assert clipped(masks) == {"spot": [1], "ghost": [3], "variable": []}


def test_what_an_epoch_covers(parts):
    masks, _ = found(parts, [SIDE])
    left = np.zeros(FRAME.shape, bool)
    left[:, : SIDE // 2] = True
    for i, mask in enumerate(masks):
        seen = mask.seen.plane(0, FRAME.shape)
        np.testing.assert_array_equal(seen, ~left if i == N - 1 else np.ones_like(left))


def test_slabs_change_nothing(parts, monkeypatch):
    whole = found(parts, [SIDE], faint_artifacts=True)
    monkeypatch.setattr("coblend.core.coadd.regions.BLOCK", 40)
    parted = found(parts, [50, 1, 99], faint_artifacts=True)
    for a, b in zip(whole[0], parted[0], strict=True):
        np.testing.assert_array_equal(a.clipped, b.clipped)
    np.testing.assert_array_equal(whole[1], parted[1])
