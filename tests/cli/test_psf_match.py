"""``coblend psf-match`` through files: what it writes, what re-applies, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import fitsio
import numpy as np
import pytest
from numpy.polynomial import chebyshev
from scipy.special import j1

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.psf import AnalyticPsf, CellPsf, GridPsf, PsfexPsf, StampPsf
from coblend.core.psf.moments import adaptive_moments
from coblend.core.psfmatch.common_reference import common_reference, text_form
from coblend.io.exposure.exposures import read_exposure
from coblend.io.fits.reader import open_fits
from coblend.io.psf.psfs import parse_psf_spec, read_psf

REFERENCE = "moffat:fwhm=5,beta=3,size=31"


def moffat(fwhm: float, side: int = 31) -> np.ndarray:
    return AnalyticPsf("MOFFAT", fwhm, size=side, integrated=False).stamp()


@pytest.fixture
def science(rng, wcs_cards) -> Exposure:
    """100 x 90 pixels of noise with a star, a dead pixel and a PSF of FWHM 3.5 px."""
    image = rng.normal(size=(90, 100)) * 0.01
    image[45 - 15 : 46 + 15, 50 - 15 : 51 + 15] += 100 * moffat(3.5)
    variance = np.full((90, 100), 1e-4)
    mask = np.zeros((90, 100), np.int32)
    image[20, 30], variance[20, 30], mask[20, 30] = 0, np.inf, 1 << 8
    return Exposure(
        image=image.astype(np.float32), mask=mask, variance=variance.astype(np.float32),
        box=Box(300, 500, 90, 100), band="i", unit="nJy", psf=StampPsf(moffat(3.5)),
        wcs=wcs_cards, meta={"MAGZERO": 31.4, "OBSERVER": "nobody"},
    )  # fmt: skip


@pytest.fixture
def varying(science) -> Exposure:
    """The same with a PSF on a lattice, narrower to the right."""
    stamps = np.stack([moffat(3.6 - 0.1 * i) for _ in range(4) for i in range(4)])
    psf = GridPsf(stamps.reshape(4, 4, 31, 31), 300 + np.arange(4) * 30.0,
                  500 + np.arange(4) * 34.0)  # fmt: skip
    return replace(science, psf=psf)


def test_what_is_said_of_many_files_is_said_once(in_folder, science, cli):
    """Two files, each read twice, with a mask bit that has no name; -v names every file."""
    science.mask[5, 5] = 1 << 30
    for name in ("a.fits", "b.fits"):
        with fitsio.FITS(name, "rw") as file:
            file.write(science.image, extname="IMAGE", header={"BAND": name[0]})
            file.write(science.mask, extname="MASK", header={"MP_NO_DATA": 8})
            file.write(science.variance, extname="VARIANCE")
            file.write(moffat(3.5), extname="PSF")
    common = ("psf-match", "a.fits", "b.fits", "-o", "{name}_m.fits", "--reference", REFERENCE)
    assert cli(*common).err.count("mask bits 30 (value 1073741824) have no name") == 1
    done = cli(*common, "--overwrite", "-v")
    assert all(f"{name}.fits: mask bits 30" in done.err for name in "ab")


def test_output_holds_the_matched_exposure(in_folder, science, write_file, cli):
    write_file(science, "in.fits")
    done = cli("psf-match", "in.fits", "-o", "out.fits", "--reference", REFERENCE)
    assert done.code == 0
    assert "status full" in done.err
    out = read_exposure("out.fits")
    reference = parse_psf_spec(REFERENCE)
    assert out.psf == reference
    assert (out.band, out.unit, out.box) == ("i", "nJy", science.box)
    assert out.wcs == science.wcs
    assert out.meta["OBSERVER"] == "nobody"
    assert out.meta["MAGZERO"] == 31.4
    star = out.image[45 - 15 : 46 + 15, 50 - 15 : 51 + 15] / 100
    assert np.abs(star - reference.stamp()).max() < 4e-3 * reference.stamp().max()
    assert not np.isfinite(out.variance[20, 30])
    with open_fits("out.fits") as file:
        head = file.header("IMAGE")
        acf = file.image("NOISE_ACF")
        achieved = read_psf(file, out.box, "PSF_ACHIEVED")
    assert head["PSFMATCH"] == "FULL"
    assert head["PSFMRES"] <= 1e-3
    assert head["KRNSUM"] == pytest.approx(1)
    assert head["PSFMK2"] == pytest.approx(np.median(out.variance) / 1e-4, rel=1e-3)
    assert 1 < head["NCORPSF"] < 5
    side = 2 * head["KRNSIZE"] - 1
    assert acf.shape == (side, side)
    assert acf[side // 2, side // 2] == 1
    middle = achieved.at(345, 550)
    margin = (middle.shape[0] - 31) // 2
    inner = middle[margin:-margin, margin:-margin]
    np.testing.assert_allclose(inner, reference.stamp(), atol=1.1e-3 * reference.stamp().max())


@pytest.mark.parametrize("which", ["science", "varying"])
def test_a_saved_kernel_applies_again(in_folder, which, request, write_file, cli):
    """The same pixels, bit for bit; and twenty lines of numpy find the same values."""
    exposure = request.getfixturevalue(which)
    write_file(exposure, "in.fits")
    assert cli("psf-match", "in.fits", "-o", "a.fits", "--reference", REFERENCE,
               "--save-kernel", "k.fits", "--save-nodes", "n.fits").code == 0  # fmt: skip
    assert cli("psf-match", "in.fits", "-o", "b.fits", "--apply-kernel", "k.fits").code == 0
    a, b = read_exposure("a.fits"), read_exposure("b.fits")
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.variance, b.variance)
    np.testing.assert_array_equal(a.mask, b.mask)
    assert a.psf == b.psf
    assert fitsio.read_header("b.fits", "IMAGE")["PSFMRES"] == pytest.approx(
        fitsio.read_header("a.fits", "IMAGE")["PSFMRES"]
    )
    basis = fitsio.read("k.fits", "KERNEL_BASIS")
    coefficients = fitsio.read("k.fits", "KERNEL_COEF")
    head = fitsio.read_header("k.fits", "KERNEL_BASIS")
    assert head["KRNSPMOD"] == "CHEBYSHEV1"
    degrees = [(n - j, j) for n in range(head["KRNORDER"] + 1) for j in range(n + 1)]
    half = basis.shape[-1] // 2
    for y, x in ((340, 550), (338, 560), (348, 541)):
        xi = (2 * x - head["KRNXMIN"] - head["KRNXMAX"]) / (head["KRNXMAX"] - head["KRNXMIN"])
        eta = (2 * y - head["KRNYMIN"] - head["KRNYMAX"]) / (head["KRNYMAX"] - head["KRNYMIN"])
        terms = [chebyshev.chebval(xi, [0] * i + [1]) * chebyshev.chebval(eta, [0] * j + [1])
                 for i, j in degrees]  # fmt: skip
        kernel = np.tensordot(coefficients @ terms, basis, 1)
        j, i = y - 300, x - 500
        cut = exposure.image[j - half : j + half + 1, i - half : i + half + 1].astype(float)
        good = np.isfinite(exposure.variance[j - half : j + half + 1, i - half : i + half + 1])
        if good.all():
            assert a.image[j, i] == pytest.approx(np.sum(kernel[::-1, ::-1] * cut), abs=1e-5)
    nodes = fitsio.read("n.fits", "MATCH_NODES")
    assert len(nodes) == (1 if which == "science" else 36)
    assert nodes["max_residual"].max() <= (1e-3 if which == "science" else 2e-3)
    assert (nodes["status"] == 0).all()


def test_kernel_sum_scales_image_variance_and_zero_point(in_folder, science, write_file, cli):
    write_file(science, "in.fits")
    for name, factor in (("one.fits", "1"), ("two.fits", "2")):
        cli("psf-match", "in.fits", "-o", name, "--reference", REFERENCE, "--kernel-sum", factor)
    one, two = read_exposure("one.fits"), read_exposure("two.fits")
    np.testing.assert_allclose(two.image, 2 * one.image, atol=1e-6)
    good = one.good()
    np.testing.assert_allclose(two.variance[good], 4 * one.variance[good], rtol=1e-6)
    assert two.meta["MAGZERO"] == pytest.approx(31.4 + 2.5 * np.log10(2))


def test_equal_psfs_copy_the_pixels(in_folder, science, write_file, cli):
    write_file(science, "in.fits")
    assert cli("psf-match", "in.fits", "-o", "out.fits", "--reference", "in.fits[PSF]").code == 0
    out = read_exposure("out.fits")
    for plane in ("image", "variance", "mask"):
        np.testing.assert_array_equal(getattr(out, plane), getattr(science, plane))
    assert fitsio.read_header("out.fits", "IMAGE")["PSFMATCH"] == "IDENTITY"


def test_several_exposures_get_a_common_reference(in_folder, science, write_file, cli):
    for band, fwhm in (("g", 3.9), ("r", 3.2)):
        psf = StampPsf(moffat(fwhm))
        write_file(replace(science, band=band, psf=psf), f"c_{band}.fits")
    done = cli("psf-match", "c_g.fits", "c_r.fits", "-o", "m_{band}.fits", "--reference", "auto",
               "--json")  # fmt: skip
    assert done.code == 0
    report = json.loads(done.out)
    assert [row["status"] for row in report["table"]] == ["full", "full"]
    g, r = read_exposure("m_g.fits"), read_exposure("m_r.fits")
    assert g.psf == r.psf
    assert parse_psf_spec(report["reference"]) == g.psf
    assert 3.9 <= g.psf.fwhm < 4.8


def airy(fwhm: float, side: int = 43) -> StampPsf:
    """Diffraction of a round aperture, undersampled: a kernel of finite side has it hard."""
    y, x = (np.mgrid[: side * 5, : side * 5] - (side * 5 - 1) / 2) / 5
    u = np.hypot(y, x) * np.pi * 1.029 / fwhm + 1e-9
    fine = (2 * j1(u) / u) ** 2
    return StampPsf(fine.reshape(side, 5, side, 5).sum(axis=(1, 3)))


def test_a_common_reference_is_widened_until_all_reach_it(in_folder, science, write_file, cli):
    """Where the estimate is too narrow; where no width helps the narrowest stays, with a word."""
    psfs = {"g": airy(2.4), "r": airy(1.6)}
    for band, psf in psfs.items():
        write_file(replace(science, band=band, psf=psf), f"c_{band}.fits")
    estimate = common_reference([(psf, science.box) for psf in psfs.values()], 1e-3)
    run = ("psf-match", "c_g.fits", "c_r.fits", "-o", "m_{band}.fits", "-n", "--json",
           "--reference")  # fmt: skip
    done = cli(*run, text_form(estimate))
    assert [row["status"] for row in json.loads(done.out)["table"]] == ["partial", "full"]
    done = cli(*run, "auto")
    report = json.loads(done.out)
    assert "warning" not in done.err
    assert [row["status"] for row in report["table"]] == ["full", "full"]
    assert max(row["max_residual"] for row in report["table"]) <= 1e-3
    done = cli(*run, "auto", "--kernel-size", "5")
    assert json.loads(done.out)["reference"] == text_form(estimate)
    assert "raise kernel_size above 5" in done.err


@pytest.mark.parametrize(("reference", "n_input"), [("auto", 2), (REFERENCE, 1)])
def test_each_output_names_the_inputs_that_it_depends_on(
    in_folder, science, write_file, cli, reference, n_input
):
    for band in "gr":
        write_file(replace(science, band=band), f"c_{band}.fits")
    assert cli("psf-match", "c_g.fits", "c_r.fits", "-o", "m_{band}.fits", "--reference",
               reference).code == 0  # fmt: skip
    for band in "gr":
        names = fitsio.read(f"m_{band}.fits", "PROVENANCE")["name"].tolist()
        assert len(names) == n_input
        assert f"c_{band}.fits" in names


def test_dry_run_predicts_the_match_and_writes_nothing(in_folder, science, write_file, cli):
    write_file(science, "in.fits")
    done = cli("psf-match", "in.fits", "-o", "out.fits", "--reference", REFERENCE, "-n", "--json",
               "--save-kernel", "k.fits")  # fmt: skip
    report = json.loads(done.out)
    assert report["status"] == "full"
    assert report["max_residual"] <= 1e-3
    assert sorted(p.name for p in in_folder.iterdir()) == ["in.fits"]


def test_the_reference_preset_is_worse(in_folder, science, write_file, cli):
    write_file(science, "in.fits")
    worst = {}
    for preset in ((), ("--preset", "reference")):
        cli(
            "psf-match",
            "in.fits",
            "-o",
            "o.fits",
            "--overwrite",
            "--reference",
            REFERENCE,
            *preset,
        )
        worst[preset] = fitsio.read_header("o.fits", "IMAGE")["PSFMRES"]
    assert worst[()] < worst[("--preset", "reference")]


def test_threads_make_the_same_bytes(in_folder, varying, write_file, cli):
    write_file(varying, "in.fits")
    for jobs in ("1", "2"):
        arguments = ("in.fits", "-o", f"o{jobs}.fits", "--reference", REFERENCE, "-j", jobs,
                     "--kernel-size", "15")  # fmt: skip
        assert cli("psf-match", *arguments).code == 0
    assert (in_folder / "o1.fits").read_bytes() == (in_folder / "o2.fits").read_bytes()


def test_cells_and_regions(in_folder, science, write_file, cli):
    stamps = np.stack([moffat(3.2), moffat(3.8)])
    cells = CellPsf(stamps, [345, 345], [525, 575], regions=np.array([1, 2]))
    write_file(replace(science, psf=cells), "in.fits")
    regions = np.ones((90, 100), np.int16)
    regions[:, 50:] = 2
    fitsio.write("map.fits", regions)
    common = ("--reference", REFERENCE, "--kernel-size", "21", "-q")
    assert cli("psf-match", "in.fits", "-o", "cells.fits", *common).code == 0
    assert cli("psf-match", "in.fits", "-o", "regions.fits", *common,
               "--set", "region_map=map.fits").code == 0  # fmt: skip
    by_cell, by_region = read_exposure("cells.fits"), read_exposure("regions.fits")
    inner = np.s_[15:-15, 15:35]
    np.testing.assert_allclose(by_cell.image[inner], by_region.image[inner], atol=1e-6)
    assert np.isfinite(by_cell.variance[45, 49:51]).all()
    assert not np.isfinite(by_region.variance[45, 49:51]).any()


def test_correlated_input_noise_is_taken_into_account(in_folder, science, write_file, cli):
    correlation = np.array([[0.05, 0.2, 0.05], [0.2, 1, 0.2], [0.05, 0.2, 0.05]])
    fitsio.write("acf.fits", correlation, extname="NOISE_ACF")
    write_file(science, "in.fits")
    factors = {}
    for extra in ((), ("--set", "noise_acf=acf.fits")):
        common = ("psf-match", "in.fits", "-o", "o.fits", "--overwrite", "--reference", REFERENCE)
        assert cli(*common, *extra).code == 0
        factors[extra] = fitsio.read_header("o.fits", "IMAGE")["NCORSUM"]
    assert factors[()] < factors[("--set", "noise_acf=acf.fits")]


def test_a_psfex_model_may_count_in_the_pixels_of_the_file(in_folder, science, write_file, cli):
    """Planes that vary by 1 % per 100 px; the file starts at (500, 300) of its parent."""
    planes = np.stack([moffat(3.5), (moffat(3.4) - moffat(3.5)) / 2, np.zeros((31, 31))])
    psf = PsfexPsf(planes, 1, (50.0, 50.0), (50.0, 50.0))
    write_file(replace(science, psf=psf), "in.fits")
    sigma = {}
    for frame in ("parent", "array"):
        again = ("in.fits", "-o", "o.fits", "--overwrite", "--reference", REFERENCE)
        options = ("--kernel-size", "15", "--save-nodes", "n.fits", "--set", f"psf_frame={frame}")
        assert cli("psf-match", *again, *options).code == 0
        sigma[frame] = fitsio.read("n.fits", "MATCH_NODES")["sigma_sci"].mean()
    truth = {place: adaptive_moments(psf.at(*place)).sigma[0] for place in ((45, 50), (345, 550))}
    assert sigma["array"] == pytest.approx(truth[45, 50], rel=1e-3)
    assert sigma["parent"] == pytest.approx(truth[345, 550], rel=2e-3)


# Bad input


def test_a_refused_deconvolution_writes_nothing(in_folder, science, write_file, cli):
    write_file(science, "in.fits")
    done = cli("psf-match", "in.fits", "-o", "out.fits", "--reference", "gaussian:fwhm=2.5",
               "--deconvolution", "error")  # fmt: skip
    assert done.code == 2
    assert "deconvolution is refused" in done.err
    assert "px or more avoids it" in done.err
    assert not (in_folder / "out.fits").exists()
    partial = cli("psf-match", "in.fits", "-o", "out.fits", "--reference", "gaussian:fwhm=2.5")
    assert partial.code == 0
    assert "it is reached in part" in partial.err
    assert fitsio.read_header("out.fits", "IMAGE")["PSFMATCH"] == "PARTIAL"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give either --reference or --apply-kernel"),
        (("--reference", "auto", "--apply-kernel", "k.fits"), 2, "give either"),
        (("--reference", "nothing.fits"), 66, "nothing.fits"),
        (("--reference", "gaussian:fwhm=0"), 2, "must be positive"),
        (("--reference", "gaussian:fwhm=0.1"), 65, "coblend: gaussian:fwhm=0.1: "),
        (("--reference", REFERENCE, "--kernel-size", "20"), 2, "19 and 21"),
        (("--reference", REFERENCE, "--kernel-size", "95"), 2, "61"),
        (("--apply-kernel", "in.fits"), 65, "schema exposure, expected schema kernel"),
        (("--reference", REFERENCE, "--save-kernel", "in.fits"), 73, "in.fits: exists"),
        (("--reference", REFERENCE, "--set", "region_map=in.fits"), 65, "one cell per region"),
        (("--reference", REFERENCE, "--set", "bad_planes=BADD"), 2, "no mask plane BADD"),
        (("--reference", REFERENCE, "--max-memory", "100kB"), 75, "in.fits: needs about"),
    ],
)
def test_bad_arguments(in_folder, science, write_file, cli, arguments, code, message):
    write_file(science, "in.fits")
    done = cli("psf-match", "in.fits", "-o", "out.fits", *arguments)
    assert done.code == code
    assert message in done.err
    assert sorted(p.name for p in in_folder.iterdir()) == ["in.fits"]


def test_several_exposures_need_a_template(in_folder, science, write_file, cli):
    write_file(science, "in.fits")
    write_file(science, "in2.fits")
    done = cli("psf-match", "in.fits", "in2.fits", "-o", "out.fits", "--reference", REFERENCE)
    assert done.code == 2
    assert "{band} or {name}" in done.err
    done = cli("psf-match", "in.fits", "in2.fits", "-o", "o_{band}.fits", "--reference", REFERENCE)
    assert done.code == 2
    assert "two exposures would be written to o_i.fits" in done.err


def test_a_varying_kernel_is_not_used_elsewhere(in_folder, varying, write_file, cli):
    write_file(varying, "in.fits")
    save = ("--save-kernel", "k.fits", "--kernel-size", "15")
    cli("psf-match", "in.fits", "-o", "a.fits", "--reference", REFERENCE, *save)
    write_file(replace(varying, box=Box(0, 0, 90, 100), psf=StampPsf(moffat(3.5))), "far.fits")
    done = cli("psf-match", "far.fits", "-o", "b.fits", "--apply-kernel", "k.fits")
    assert done.code == 65
    assert "k.fits[KERNEL_BASIS]: the kernel was made for x 499.5 to 599.5" in done.err
