"""The mask of the coadd, rule by rule."""

from dataclasses import replace

import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.coadd.rules import StackRules
from coblend.core.coadd.stack import stack
from coblend.core.errors import ParameterError
from coblend.core.mask import PLANES, MaskPlanes
from coblend.core.params.coadd import CoaddParams

BIT = {name: 1 << bit for name, bit in PLANES.items()}
MEAN = StackRules.of(CoaddParams(statistic="mean"))


def mask_of(warps, rules=MEAN):
    word = int(stack(warps, Box(0, 0, 1, 1), rules).mask[0, 0])
    return {name for name, bit in BIT.items() if word & bit}


def test_bits_of_used_samples_are_kept(make_pixel):
    masks = [BIT["DETECTED"], BIT["CR"], 0]
    assert mask_of(make_pixel([1, 2, 3], masks=masks)) == {"DETECTED", "CR"}


def test_a_tenth_of_saturated_weight_is_not_more_than_a_tenth(make_pixel):
    masks = [BIT["SAT"]] + [0] * 9
    assert mask_of(make_pixel([1] * 10, masks=masks)) == {"REJECTED", "INEXACT_PSF"}


def test_two_tenths_of_saturated_weight_propagate(make_pixel):
    masks = [BIT["SAT"]] * 2 + [0] * 8
    assert mask_of(make_pixel([1] * 10, masks=masks)) == {"SAT", "REJECTED", "INEXACT_PSF"}


def test_thresholds_count_weights_and_every_rejected_sample(make_pixel):
    masks = [BIT["SAT"] | BIT["BAD"]] + [0] * 9
    heavy = make_pixel([1] * 10, masks=masks, weights=[3] + [1] * 9)
    assert "SAT" in mask_of(heavy)
    only_flagged = replace(MEAN, bad=BIT["BAD"])
    assert "SAT" in mask_of(heavy, only_flagged)


def test_edge_marks_a_sensor_edge(make_pixel):
    masks = [BIT["EDGE"], 0, 0]
    assert mask_of(make_pixel([1, 2, 3], masks=masks)) == {"SENSOR_EDGE", "INEXACT_PSF"}


def test_edge_of_a_used_sample_is_no_sensor_edge(make_pixel):
    rules = replace(MEAN, bad=BIT["SAT"])
    masks = [BIT["EDGE"], BIT["SAT"], 0, 0, 0, 0, 0, 0, 0, 0]
    found = mask_of(make_pixel([1] * 10, masks=masks), rules)
    assert found == {"EDGE", "REJECTED", "INEXACT_PSF"}


@pytest.mark.parametrize("image", [1.0, np.nan])
def test_missing_data_alone_is_exact(make_warp, image):
    mask = BIT["NO_DATA"] if image == 1 else 0
    warps = [make_warp(0, image, mask=mask), make_warp(1, 2), make_warp(2, 3)]
    assert mask_of(warps) == set()


def test_clipped_input_pixels_mark_the_coadd(make_pixel):
    rules = replace(MEAN, bad=BIT["CLIPPED"])
    masks = [BIT["CLIPPED"], 0, 0]
    assert mask_of(make_pixel([1, 2, 3], masks=masks), rules) == {"CLIPPED", "INEXACT_PSF"}


def test_clipped_samples_leave_no_bits(make_pixel):
    rules = StackRules.of(CoaddParams())
    masks = [0] * 9 + [BIT["CR"]]
    warps = make_pixel([0] * 9 + [100], masks=masks)
    assert mask_of(warps, rules) == {"CLIPPED", "INEXACT_PSF"}


def test_uncovered_inputs_do_not_count(make_warp):
    far = make_warp(1, 1, mask=BIT["SAT"], origin=(5, 5))
    assert mask_of([make_warp(0, 1), far]) == set()


def test_ignored_planes_neither_reject_nor_show(make_pixel):
    rules = StackRules.of(CoaddParams(statistic="mean", remove_planes=("SAT", "CR")))
    masks = [BIT["SAT"] | BIT["CR"]] * 3
    assert mask_of(make_pixel([1, 2, 3], masks=masks), rules) == set()


def test_everything_rejected(make_pixel):
    masks = [BIT["SAT"], BIT["BAD"]]
    found = mask_of(make_pixel([1, 2], masks=masks))
    assert found == {"NO_DATA", "REJECTED", "INEXACT_PSF"}


def test_foreign_planes_are_resolved_by_name():
    planes = MaskPlanes().union(MaskPlanes({"GHOST": 3}))
    rules = StackRules.of(CoaddParams(bad_planes=("GHOST",)), planes)
    assert rules.bad == 1 << planes.bits["GHOST"]


# bad input


def test_unknown_plane():
    with pytest.raises(ParameterError, match="SATT"):
        StackRules.of(CoaddParams(bad_planes=("SATT",)))
