"""Catalogues that SExtractor, sep and photutils write, merged through the command line.

Each program searches one image; its catalogue and label image then stand in place of ours.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import fitsio
import numpy as np
import pytest

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.psf.stamp import StampPsf
from coblend.io.detect.detections import read_detections

WHERE = np.array([(40, 40), (41, 121), (60, 200), (100, 60), (103, 66), (150, 250), (170, 33)])
ISOLATED = np.array([0, 1, 2, 5, 6])
SIGMA = 2.0


@pytest.fixture
def coadd(write_file):
    """Stars, two of them blended, none in the middle; parent coordinates of their own."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:200, :300]
    image = rng.normal(0, 1, (200, 300))
    for k, (b, a) in enumerate(WHERE):
        image += (60 + 5 * k) * np.exp(-0.5 * ((y - b) ** 2 + (x - a) ** 2) / SIGMA**2)
    r2 = np.add.outer(np.arange(-12, 13) ** 2, np.arange(-12, 13) ** 2)
    stamp = np.exp(-0.5 * r2 / SIGMA**2)
    exposure = Exposure(
        image.astype(np.float32), np.zeros((200, 300), np.int32), np.ones((200, 300), np.float32),
        Box(500, 7000, 200, 300), band="i", psf=StampPsf(stamp / stamp.sum()),
    )  # fmt: skip
    return exposure, write_file(exposure, "coadd.fits")


def sextractor(image, folder, kind):
    program = shutil.which("source-extractor") or shutil.which("sex")
    if program is None:
        pytest.skip("source-extractor is not installed")
    fitsio.write(str(folder / "image.fits"), image)
    peaks = "XPEAK_IMAGE\nYPEAK_IMAGE\n" if kind == "FITS_1.0" else ""
    (folder / "sky.param").write_text(
        f"{peaks}NUMBER\nFLUX_APER(3)\nX_IMAGE\nY_IMAGE\nFLUX_AUTO\nFLUXERR_AUTO\nA_IMAGE\nB_IMAGE\n"
        "THETA_IMAGE\n"
    )
    (folder / "none.sex").write_text("")
    command = [
        program, "image.fits", "-c", "none.sex", "-PARAMETERS_NAME", "sky.param",
        "-CATALOG_NAME", "out.cat", "-CATALOG_TYPE", kind, "-CHECKIMAGE_TYPE", "SEGMENTATION",
        "-CHECKIMAGE_NAME", "seg.fits", "-FILTER", "N", "-DETECT_THRESH", "4",
        "-PHOT_APERTURES", "5,8,12", "-DEBLEND_MINCONT", "0.001",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "out.cat", folder / "seg.fits"


def sep(image, folder, kind):
    table, labels = pytest.importorskip("sep").extract(
        image, 4.0, segmentation_map=True, deblend_cont=0.001
    )
    fitsio.write(str(folder / "seg.fits"), labels)
    path = folder / f"out.{kind}"
    np.save(path, table) if kind == "npy" else fitsio.write(str(path), table)
    return path, folder / "seg.fits"


def photutils(image, folder, kind):
    segmentation = pytest.importorskip("photutils.segmentation")
    finder = segmentation.SourceFinder(n_pixels=5, deblend=False, progress_bar=False)
    segments = finder(image, 4.0)
    table = segmentation.SourceCatalog(image, segments).to_table()
    if kind == "fits":  # FITS can hold neither the empty columns nor the versions of everything
        table.meta.clear()
        table = table["label", "x_centroid", "y_centroid", "segment_flux", "kron_flux"]
    table.write(folder / f"out.{kind}")
    fitsio.write(str(folder / "seg.fits"), np.asarray(segments.data, np.int32))
    return folder / f"out.{kind}", folder / "seg.fits"


PROGRAMS = [
    (sextractor, "FITS_LDAC"),
    (sextractor, "FITS_1.0"),
    (sextractor, "ASCII_HEAD"),
    (sep, "npy"),
    (sep, "fits"),
    (photutils, "ecsv"),
    (photutils, "fits"),
]


@pytest.mark.peer
@pytest.mark.parametrize(("program", "kind"), PROGRAMS)
def test_catalogue_with_its_label_image(cli, coadd, tmp_path, program, kind):
    """Same pixels; peaks of isolated stars within a pixel of ours."""
    exposure, path = coadd
    catalogue, labels = program(exposure.image, tmp_path, kind)
    out = tmp_path / "merged.fits"
    given = (f"i={catalogue}", "--like", path, "--segmentation", f"i={labels}",
             "--sky-objects", 0)  # fmt: skip
    done = cli("merge-detections", *given, "--min-new-peak", "5px", "--max-same-peak", "1px",
               "-o", out)  # fmt: skip
    assert done.code == 0, done.err
    merged = read_detections(str(out))
    painted = fitsio.read(str(labels)) > 0
    assert np.array_equal(merged.footprints.labels(merged.box) > 0, painted)
    assert (merged.peaks["snr"] > 10).all()
    ours = tmp_path / "det.fits"
    assert cli("detect", path, "-o", ours).code == 0
    own = read_detections(str(ours)).peaks
    for y, x in WHERE[ISOLATED] + [500, 7000]:
        near = [np.hypot(p["iy"] - y, p["ix"] - x).argmin() for p in (own, merged.peaks)]
        a, b = own[near[0]], merged.peaks[near[1]]
        assert np.hypot(a["x"] - x, a["y"] - y) < 0.3
        assert max(abs(a["ix"] - b["ix"]), abs(a["iy"] - b["iy"])) <= 1


@pytest.mark.peer
@pytest.mark.parametrize(("program", "kind"), PROGRAMS[2:4])
def test_wrong_origin(cli, coadd, tmp_path, program, kind):
    """Counted from the wrong pixel every position is off by one, in both axes."""
    exposure, path = coadd
    catalogue, labels = program(exposure.image, tmp_path, kind)
    right = {sextractor: 1, sep: 0}[program]
    centres = {}
    for origin in (0, 1):
        out = tmp_path / f"merged{origin}.fits"
        done = cli(
            "merge-detections", f"i={catalogue}", "--like", path, "--segmentation", f"i={labels}",
            "--min-new-peak", "5px", "--max-same-peak", "1px", "--set", f"origin={origin}",
            "-o", out,
        )  # fmt: skip
        assert done.code == 0, done.err
        peaks = read_detections(str(out)).peaks
        star = np.hypot(peaks["y"] - 670, peaks["x"] - 7033).argmin()
        centres[origin] = peaks["y"][star] - 670, peaks["x"][star] - 7033
    assert np.abs(centres[right]).max() < 1
    assert np.subtract(centres[0], centres[1]) == pytest.approx([1, 1])


@pytest.mark.peer
def test_catalogue_without_label_image(cli, coadd, tmp_path):
    """SExtractor's ellipses become footprints, three times as large."""
    exposure, path = coadd
    catalogue, _ = sextractor(exposure.image, tmp_path, "FITS_LDAC")
    out = tmp_path / "merged.fits"
    done = cli("merge-detections", f"i={catalogue}", "--like", path, "--min-new-peak", "5px",
               "--max-same-peak", "1px", "--sky-objects", 0, "-o", out)  # fmt: skip
    assert done.code == 0, done.err
    merged = read_detections(str(out))
    table = fitsio.read(str(catalogue), ext="LDAC_OBJECTS")
    alone = table[np.hypot(table["Y_IMAGE"] - 41, table["X_IMAGE"] - 41).argmin()]
    row = np.hypot(merged.parents["x"] - 7040, merged.parents["y"] - 540).argmin()
    ellipse = 9 * np.pi * alone["A_IMAGE"] * alone["B_IMAGE"]
    assert merged.parents["area"][row] == pytest.approx(ellipse, rel=0.1)
    assert len(merged.peaks) == len(table)


@pytest.mark.peer
def test_label_image_of_another_run(cli, coadd, tmp_path):
    """More than 1 % of the labels have no row: refused, with what to do; forced, dropped."""
    exposure, path = coadd
    catalogue, labels = sextractor(exposure.image, tmp_path, "FITS_1.0")
    table = fitsio.read(str(catalogue))
    fitsio.write(str(tmp_path / "part.fits"), table[:-2])
    given = (f"i={tmp_path / 'part.fits'}", "--like", path, "--segmentation", f"i={labels}",
             "--min-new-peak", "5px", "--max-same-peak", "1px")  # fmt: skip
    done = cli("merge-detections", *given, "-o", tmp_path / "no.fits")
    assert done.code == 65
    assert f"2 of {len(table)} labels no row" in done.err
    assert "max_misfit=1" in done.err
    assert not Path(tmp_path / "no.fits").exists()
    out = tmp_path / "merged.fits"
    done = cli("merge-detections", *given, "--set", "max_misfit=1", "--sky-objects", 0, "-o", out)
    assert done.code == 0, done.err
    assert f"2 of {len(table)} labels no row" in done.err  # said, not silent
    assert len(read_detections(str(out)).peaks) == len(table) - 2
