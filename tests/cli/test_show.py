"""Pictures: what they hold, that they are the same every time, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from coblend.cli.main import run
from coblend.core.box import Box
from coblend.core.detection import Detections
from coblend.core.exposure import Exposure
from coblend.core.psf import GridPsf
from coblend.core.show.scene import model_images
from coblend.io.deblend.models import read_models
from coblend.io.detect.detections import read_detections
from coblend.io.exposure.exposures import read_exposure, write_exposure
from coblend.io.fits.writer import create

pytest.importorskip("matplotlib")

COADDS = ["coadd_g.fits", "coadd_r.fits"]
KINDS = {
    "rgb": COADDS,
    "detections": ["merged.fits", *COADDS],
    "scene": ["deblended.fits", *COADDS],
    "sources": ["deblended.fits", *COADDS],
    "coadd": ["coadd_r.fits"],
    "psf": COADDS,
    "report": ["deblended.fits"],
}


@pytest.fixture(scope="session")
def patch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated patch in two bands and everything that the chain makes of it."""
    folder = tmp_path_factory.mktemp("show")

    def step(*arguments: str) -> None:
        paths = [f"{folder}/{a}" if a.endswith(".fits") else a for a in arguments]
        assert run([*paths, "-q"]) == 0

    size = ["--size", "110", "--blends", "2", "--singles", "2", "--epochs", "2"]
    assert run(["simulate", str(folder), "--bands", "g,r", *size, "-q"]) == 0
    for band in "gr":
        coadd = f"coadd_{band}.fits"
        step(
            "assemble-coadd",
            f"warp_{band}_0.fits",
            f"warp_{band}_1.fits",
            "-o",
            coadd,
            "--unit",
            "nJy",
        )
        step("detect", coadd, "-o", f"det_{band}.fits", "--set", "threshold=20")
    step("merge-detections", "det_g.fits", "det_r.fits", "-o", "merged.fits")
    step("deblend", "merged.fits", *COADDS, "-o", "deblended.fits")
    return folder


@pytest.fixture
def folder(patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with links to the patch's files."""
    for path in patch.glob("*.fits"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_the_kinds_line_by_line(cli: Callable[..., Any]) -> None:
    text = cli("show", "--help").out
    for kind in KINDS:
        assert any(line.split()[:1] == [kind] for line in text.splitlines())
    assert "\\b" not in text
    assert "\b" not in text


def pixels(path: str) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(path))


FEW = ["--set", "dpi=40", "--set", "max_sources=2"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_a_picture(
    kind: str, folder: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a display, and without a date inside."""
    monkeypatch.delenv("DISPLAY", raising=False)
    outcome = cli("show", kind, *KINDS[kind], "-o", "a.png", *FEW)
    assert (outcome.code, outcome.out) == (0, ""), outcome.err
    assert outcome.err == f"coblend show: a.png: kind {kind}\n"
    content = Path("a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"tEXt" not in content
    assert pixels("a.png").std() > 0.05, "not a blank page"


@pytest.mark.parametrize(
    ("kind", "name"), [("scene", "a.png"), ("report", "a.pdf"), ("coadd", "a.svg")]
)
def test_the_same_picture_every_time(
    kind: str, name: str, folder: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same bytes on another day and with another matplotlibrc."""
    assert cli("show", kind, *KINDS[kind], "-o", name, *FEW).code == 0
    first = Path(name).read_bytes()
    Path("matplotlibrc").write_text("axes.facecolor: red\nfont.size: 20\n")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert cli("show", kind, *KINDS[kind], "-o", name, *FEW, "--overwrite").code == 0
    assert Path(name).read_bytes() == first
    assert first.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[name[2:]])


def figure_of(kind: str, *arguments: str, **options: Any) -> Any:
    """The figure itself, to look at what it holds."""
    from coblend.cli import show as module
    from coblend.cli.pictures.canvas import house_style
    from coblend.core.params.show import ShowParams

    class Inputs:
        def add_input(self, role: str, path: str) -> None:
            assert Path(path).exists()

    with house_style():
        return module._KINDS[kind](Inputs(), ShowParams(**options), arguments)  # type: ignore[arg-type]


def test_detections_show_every_footprint_and_peak(folder: Path) -> None:
    merged = read_detections("merged.fits")
    figure = figure_of("detections", *KINDS["detections"])
    legend = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    n_blend = int(np.count_nonzero(merged.parents["npeak"] > 1))
    assert any(text.startswith(f"{n_blend} blend") for text in legend)
    marks = sum(int(text.split()[0]) for text in legend if "peak" in text or "sky" in text)
    assert marks == len(merged.peaks)
    part = figure_of("detections", *KINDS["detections"], section="21:70,31:90")
    legend = [t.get_text() for t in part.axes[0].get_legend().get_texts()]
    marks = sum(int(text.split()[0]) for text in legend if "peak" in text or "sky" in text)
    x, y = merged.peaks["ix"], merged.peaks["iy"]
    assert marks == np.count_nonzero((x >= 20) & (x < 70) & (y >= 30) & (y < 90))
    assert 0 < marks < len(merged.peaks)


def test_scene_residual_is_in_units_of_the_noise(folder: Path) -> None:
    """It is the sum over bands of image minus model; what has no model is blank."""
    figure = figure_of("scene", *KINDS["scene"])
    models = read_models("deblended.fits")
    residual = figure.axes[3].images[0].get_array()
    g, r = (read_exposure(name) for name in COADDS)
    seen = [model_images(models, models.bands.index(band), models.box)[1] for band in "gr"]
    expected = (g.image + r.image - sum(seen)) / np.sqrt(g.variance + r.variance)
    shown = ~np.ma.getmaskarray(residual)
    np.testing.assert_allclose(residual[shown], expected[shown], rtol=1e-4, atol=1e-4)
    isolated = models.parents["n_blend"] == 0
    blank = models.footprints.select(np.flatnonzero(isolated)).labels(models.box) > 0
    assert np.ma.getmaskarray(residual)[blank].all()


def test_one_blend_is_found_by_id_of_anything_in_it_and_by_pixel(folder: Path) -> None:
    models = read_models("deblended.fits")
    blend = models.blends[0]
    parent = models.parents[blend["parent"]]
    one = models.objects[models.objects["blend"] == blend["id"]][0]
    choices: list[dict[str, Any]] = [
        {"blend": int(blend["id"])},
        {"blend": int(parent["id"])},
        {"blend": int(one["id"])},
        {"at": (float(one["x"]), float(one["y"]))},
    ]
    for choice in choices:
        title = figure_of("sources", *KINDS["sources"], max_sources=1, **choice).get_suptitle()
        assert title.startswith(f"blend {parent['id']}: the brightest of {parent['n_child']} obj")
    cut = figure_of("scene", *KINDS["scene"], **choices[0]).axes[0]
    assert cut.get_xlim()[0] <= parent["x0"] <= cut.get_xlim()[1]
    assert cut.get_xlim()[1] - cut.get_xlim()[0] <= parent["nx"] + 8


def test_isolated_objects_have_a_picture_too(folder: Path) -> None:
    models = read_models("deblended.fits")
    lone = models.parents["id"][models.parents["n_blend"] == 0][0]
    figure = figure_of("sources", *KINDS["sources"], blend=int(lone))
    assert "1 object" in figure.get_suptitle()


def test_bands_and_sections_are_those_asked_for(folder: Path) -> None:
    axes = figure_of("rgb", *COADDS, bands=("r",), section="11:60,21:50").axes[0]
    assert axes.get_title("left") == "r"
    assert axes.get_xlim() == (9.5, 59.5)
    assert axes.get_ylim() == (19.5, 49.5)
    grey = axes.images[0].get_array()
    assert grey.shape == (30, 50, 3)
    assert (grey[..., 0] == grey[..., 2]).all()


def test_missing_matplotlib_is_one_line(folder: Path) -> None:
    """Exit 69 and the remedy, in a process where matplotlib cannot be imported."""
    code = (
        "import sys; sys.modules['matplotlib'] = None; from coblend.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "show", "rgb", *COADDS, "-o", "a.png"],
        capture_output=True, text=True, timeout=60, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 69
    assert done.stderr == "coblend: show needs matplotlib: pip install 'coblend[plot]'\n"
    assert not Path("a.png").exists()


def test_wrong_arguments(folder: Path, cli: Callable[..., Any]) -> None:
    for arguments, code, message in (
        (["rgb", *COADDS, "-o", "a.gif"], 2, "a.gif: pictures are written as .png, .pdf, .svg"),
        (["rgbb", *COADDS, "-o", "a.png"], 2, "'rgbb' is not one of"),
        (["rgb", *COADDS, "--bands", "z", "-o", "a.png"], 2, "no exposure is of band 'z'"),
        (["rgb", *COADDS, "--set", "weights=1", "-o", "a.png"], 2, "1 weights for 2 bands"),
        (["rgb", *COADDS, "--stretch", "0", "-o", "a.png"], 2, "must be pos"),
        (["scene", "deblended.fits", "-o", "a.png"], 2, "then the exposures"),
        (["coadd", *COADDS, "-o", "a.png"], 2, "2 are given"),
        (["sources", *KINDS["sources"], "--blend", "7", "-o", "a.png"], 2, "has id 7"),
        (["sources", *KINDS["sources"], "--at", "7", "-o", "a.png"], 2, "expected x,y"),
        (["sources", *KINDS["sources"], "--at", "500,500", "-o", "a.png"], 2, "no parent holds"),
        (["rgb", *COADDS, "--section", "1:900,1:9", "-o", "a.png"], 65, "outside the 110x110"),
        (
            ["scene", "merged.fits", *COADDS, "-o", "a.png"],
            65,
            "schema merged, expected schema deblended",
        ),
        (["detections", "coadd_g.fits", *COADDS, "-o", "a.png"], 65, "coadd_g.fits"),
        (["rgb", "none.fits", "-o", "a.png"], 66, "none.fits: no such file"),
    ):
        outcome = cli("show", *arguments)
        assert outcome.code == code, outcome.err
        assert message in outcome.err
        assert len(outcome.err.splitlines()) <= 6
        assert not Path("a.png").exists()
    Path("a.png").write_text("old")
    assert cli("show", "rgb", *COADDS, "-o", "a.png").code == 73
    assert cli("show", "rgb", *COADDS, "-o", "b.png", "--dry-run").code == 0
    assert Path("a.png").read_text() == "old"
    assert not Path("b.png").exists()


def test_models_of_another_grid_are_refused(
    folder: Path, cli: Callable[..., Any], exposure: Exposure, write_file: Callable[..., Path]
) -> None:
    other = write_file(replace(exposure, band="g"), "other.fits")
    outcome = cli("show", "scene", "deblended.fits", other, "-o", "a.png")
    assert outcome.code == 65
    assert "covers 40x30 pixels from (100, 200), the models of deblended.fits" in outcome.err
    outcome = cli("show", "detections", "merged.fits", other, "-o", "a.png")
    assert outcome.code == 65
    assert "its WCS and that of merged.fits disagree" in outcome.err


def test_models_of_the_rubin_pipelines(
    in_folder: Path, cli: Callable[..., Any], shared_data: Path
) -> None:
    """They do not know their grid: it is that of the exposures, which must hold what is shown."""
    path = shared_data / "lsst_models_v29.json"
    around = Box(15880, 15940, 60, 240)
    for name, box in (("i", around), ("far", around.shift(500, 0))):
        planes = np.zeros(box.shape, np.float32), np.zeros(box.shape, np.int32)
        exposure = Exposure(*planes, np.ones(box.shape, np.float32), box, band="i", unit="nJy")
        with create(f"{name}.fits", "exposure/1") as out:
            write_exposure(out, exposure)
    for kind in ("scene", "sources"):
        assert cli("show", kind, path, "i.fits", "-o", f"{kind}.png").code == 0
    assert cli("show", "report", path, "-o", "report.png").code == 0
    assert {p.name for p in in_folder.glob("*.png")} == {"scene.png", "sources.png", "report.png"}
    done = cli("show", "sources", path, "far.fits", "-o", "far.png")
    assert done.code == 65
    assert "give the exposures that were deblended" in done.err


def test_empty_detections_and_blank_images_have_pictures(
    folder: Path, cli: Callable[..., Any], exposure: Exposure, write_file: Callable[..., Path]
) -> None:
    """Nothing found, nothing to see: still a picture, and no warning."""
    from coblend.io.detect.detections import write_detections
    from coblend.io.fits.writer import create

    merged: Detections = read_detections("merged.fits")
    none = replace(
        merged, parents=merged.parents[:0], peaks=merged.peaks[:0],
        footprints=merged.footprints.select(np.zeros(0, np.int64)),
    )  # fmt: skip
    with create("none.fits", "merged/1") as out:
        write_detections(out, none)
    assert cli("show", "detections", "none.fits", *COADDS, "-o", "a.png").code == 0
    none, every = np.zeros_like(exposure.mask), np.full_like(exposure.mask, 1 << 5)
    dark = np.zeros_like(exposure.image)
    noise = np.ones_like(exposure.variance)
    for i, mask in enumerate((exposure.mask, none, every)):  # nothing masked; no sky
        flat = replace(exposure, image=dark, mask=mask, variance=noise)
        path = write_file(flat, f"flat{i}.fits")
        assert cli("show", "coadd", path, "-o", f"flat{i}.png", *FEW).code == 0


def test_colours_do_not_depend_on_the_unit(folder: Path, rng: np.random.Generator) -> None:
    """Image and noise a trillion times smaller: the same picture."""
    from coblend.cli.pictures.canvas import Palette
    from coblend.core.exposure import Cube
    from coblend.core.params.show import ShowParams

    cube = Cube.from_exposures([read_exposure(name) for name in COADDS])
    tiny = replace(cube, images=cube.images * 1e-12, variances=cube.variances * 1e-24)
    first, second = (Palette.of(c, ShowParams())(c.images).astype(int) for c in (cube, tiny))
    assert np.abs(first - second).max() <= 1
    assert first.std() > 3


@pytest.mark.parametrize("corner", [(0, 0), (1, 1)])
def test_a_psf_that_is_unknown_in_places(
    in_folder: Path, exposure: Exposure, cli: Callable[..., Any], write_file: Callable[..., Path],
    corner: tuple[int, int],
) -> None:  # fmt: skip
    """A quarter of the field, with or without the centre, has no PSF: the rest is drawn."""
    stamps = np.broadcast_to(exposure.psf.stamp, (3, 3, 21, 21)).copy()
    stamps[corner] = np.nan
    box = exposure.box
    psf = GridPsf(stamps, np.linspace(box.y0, box.y1 - 1, 3), np.linspace(box.x0, box.x1 - 1, 3))
    path = write_file(replace(exposure, psf=psf), "holed.fits")
    for kind in ("psf", "coadd"):
        outcome = cli("show", kind, path, "-o", f"{kind}.png", *FEW)
        assert outcome.code == 0, outcome.err


def test_models_of_isolated_objects_only(
    in_folder: Path, scenes: ModuleType, rng: np.random.Generator, cli: Callable[..., Any],
    write_file: Callable[..., Path],
) -> None:  # fmt: skip
    from coblend.io.deblend.models import write_models
    from coblend.io.fits.writer import create

    models = scenes.make_models(rng, n_parent=1)
    assert not len(models.blends)
    with create("lone.fits", "deblended/1") as out:
        write_models(out, models)
    image = write_file(scenes.make_exposure(models, "g", rng), "g.fits")
    for kind, more in (("report", []), ("scene", [image]), ("sources", [image])):
        assert cli("show", kind, "lone.fits", *more, "-o", f"{kind}.png", *FEW).code == 0


def test_a_file_without_objects(
    in_folder: Path, scenes: ModuleType, rng: np.random.Generator, cli: Callable[..., Any],
    write_file: Callable[..., Path],
) -> None:  # fmt: skip
    """An overview is drawn, empty; that there is no source to show is said."""
    from coblend.io.deblend.models import write_models
    from coblend.io.fits.writer import create

    some = scenes.make_models(rng, n_parent=1)
    image = write_file(scenes.make_exposure(some, "g", rng), "g.fits")
    none = replace(
        some, parents=some.parents[:0], objects=some.objects[:0], components=some.components[:0],
        footprints=some.footprints.select(np.zeros(0, np.int64)), morph=some.morph[:0],
        morph_offsets=some.morph_offsets[:1],
    )  # fmt: skip
    with create("none.fits", "deblended/1") as out:
        write_models(out, none)
    for kind, more in (("report", []), ("scene", [image])):
        assert cli("show", kind, "none.fits", *more, "-o", f"{kind}.png", *FEW).code == 0
    outcome = cli("show", "sources", "none.fits", image, "-o", "sources.png")
    assert (outcome.code, outcome.err) == (65, "coblend: none.fits: holds no objects to show\n")
