"""Units and zero points."""

import numpy as np
import pytest

from coblend.core.coadd.photometry import Calibration, common_calibration, scale_factor
from coblend.core.errors import FormatError, ParameterError
from coblend.core.params.coadd import NANOJANSKY, CoaddParams

NAMES = ("a.fits", "b.fits")


def test_the_same_star_at_two_zero_points():
    inputs = [Calibration("adu", 27.0), Calibration("adu", 29.5)]
    calibration, scales = common_calibration(inputs, NAMES, NANOJANSKY)
    assert calibration == Calibration("nJy", 31.4)
    np.testing.assert_allclose(scales, [10**1.76, 10**0.76], rtol=1e-12)
    assert 1 * scales[0] == pytest.approx(10 * scales[1], rel=1e-12)


def test_nanojansky_zero_point_is_exact():
    exact = 2.5 * np.log10(1e9 * 1e23 * 10**-19.44)
    assert exact == pytest.approx(NANOJANSKY, abs=1e-12)


def test_equal_inputs_keep_their_unit():
    inputs = [Calibration("adu", 27.0)] * 2
    assert common_calibration(inputs, NAMES, None) == (inputs[0], [1.0, 1.0])


def test_mixed_calibrated_and_counts():
    inputs = [Calibration("nJy", 31.4), Calibration("adu", 30.0)]
    calibration, scales = common_calibration(inputs, NAMES, 30.0)
    assert calibration == Calibration("adu", 30.0)
    assert scales == pytest.approx([10 ** (0.4 * -1.4), 1.0])


@pytest.mark.parametrize(
    ("unit", "zero_point"), [("input", None), ("nJy", 31.4), ("njy", 31.4), ("zp=27.5", 27.5)]
)
def test_unit_option(unit, zero_point):
    assert CoaddParams(unit=unit).zero_point() == zero_point


# bad input


def test_different_zero_points_need_a_choice():
    inputs = [Calibration("adu", 27.0), Calibration("adu", 29.5)]
    with pytest.raises(FormatError, match=r"b.fits.*29.5.*a.fits.*27.*\n.*--unit nJy"):
        common_calibration(inputs, NAMES, None)


def test_no_zero_point():
    inputs = [Calibration("adu", 27.0), Calibration("adu", None)]
    with pytest.raises(FormatError, match=r"b.fits.*no zero point"):
        common_calibration(inputs, NAMES, 31.4)


def test_counts_and_rates():
    inputs = [Calibration("adu", 27.0), Calibration("adu/s", 27.0)]
    with pytest.raises(FormatError, match=r"adu/s.*cannot be compared"):
        common_calibration(inputs, NAMES, 31.4)


@pytest.mark.parametrize("zero_point", [-5000.0, 5000.0, np.nan])
def test_absurd_zero_point(zero_point):
    with pytest.raises(FormatError, match="no usable scale"):
        scale_factor(zero_point, 31.4)


@pytest.mark.parametrize("unit", ["mJy", "zp=", "zp=x", ""])
def test_unknown_unit(unit):
    with pytest.raises(ParameterError, match="allowed: input, nJy, zp=MAG"):
        CoaddParams(unit=unit)


@pytest.mark.parametrize("entry", ["SAT", "SAT=", "SAT=2", "SAT=-0.1", "SAT=x"])
def test_bad_thresholds(entry):
    with pytest.raises(ParameterError, match="PLANE=FRACTION"):
        CoaddParams(propagate=(entry,))
