"""`reconstruct-footprints` through files: products, options, subsets, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from coblend.core.box import Box
from coblend.core.exposure import Exposure
from coblend.core.footprint import spans_to_labels
from coblend.core.model import ModelSet
from coblend.core.reconstruct.images import light_images
from coblend.core.reconstruct.precision import storage_steps
from coblend.core.reconstruct.render import models_with_psf
from coblend.io.deblend.footprints import read_heavy
from coblend.io.deblend.models import write_models
from coblend.io.exposure.exposures import read_exposure, write_exposure
from coblend.io.fits.provenance import InputFile, Provenance
from coblend.io.fits.reader import open_fits
from coblend.io.fits.structure import scan
from coblend.io.fits.writer import create
from coblend.io.psf.psfs import parse_psf_spec
from coblend.io.sky.wcs import pixel_to_sky, wcs_cards

Cli = Callable[..., Any]
BANDS = ("g", "r")


@pytest.fixture
def models(rng: np.random.Generator, scenes, wcs_cards) -> ModelSet:
    made = scenes.make_models(rng, 12, BANDS, n_cell=2, psf=scenes.ringing_psf, kinds=True)
    return replace(made, wcs=wcs_cards)


@pytest.fixture
def exposures(models: ModelSet, rng: np.random.Generator, scenes) -> dict[str, Exposure]:
    made = {b: replace(scenes.make_exposure(models, b, rng), wcs=models.wcs) for b in BANDS}
    for exposure in made.values():
        exposure.image[30, 40], exposure.variance[30, 40] = np.nan, np.nan
    return made


@pytest.fixture
def folder(in_folder: Path, models: ModelSet, exposures: dict[str, Exposure]) -> Path:
    """An empty folder with deblended.fits, g.fits and r.fits, which is the working folder."""
    with create("deblended.fits", "deblended/1") as out:
        write_models(out, models, storage_steps(models, 0.005))
    for band, exposure in exposures.items():
        save(exposure, f"{band}.fits")
    return in_folder


def save(exposure: Exposure, name: str) -> None:
    with create(name, "exposure/1", overwrite=True) as out:
        write_exposure(out, exposure)


def test_catalogue_and_side_products(
    folder: Path, cli: Cli, models: ModelSet, exposures: dict[str, Exposure]
) -> None:
    done = cli(
        "reconstruct-footprints", "deblended.fits", "g.fits", "r=r.fits", "-o", "out.fits",
        "--heavy", "{band}.heavy.fits", "--residual", "{band}.res.fits",
        "--model-image", "{band}.mod.fits", "--set", "flux_error=0", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["n_parent"], summary["n_object"], summary["n_band"]) == (12, 30, 2)
    objects = Table.read("out.fits", hdu="OBJECTS")
    assert objects["id"].tolist() == models.objects["id"].tolist()
    assert str(objects["flux_r"].unit) == "nJy"
    assert objects["zero_flux_g"].sum() == 1
    for band in BANDS:
        exposure = exposures[band]
        heavy = read_heavy(f"{band}.heavy.fits")
        assert len(heavy.table) == len(objects)
        np.testing.assert_array_equal(heavy.table["flux"], objects[f"flux_{band}"])
        total = light_images(heavy.footprints, heavy.light, models.box).sum(0, dtype=np.float64)
        owned = spans_to_labels(heavy.footprints.spans, models.box) > 0
        image = np.where(np.isnan(exposure.image), 0, exposure.image)
        np.testing.assert_allclose(total[owned], image[owned], rtol=1e-6)
        residual, model = (read_exposure(f"{band}.{n}.fits") for n in ("res", "mod"))
        both = residual.image.astype(np.float64) + model.image
        good = exposure.good()
        np.testing.assert_allclose(both[good], exposure.image[good], rtol=2e-7, atol=1e-5)
        with open_fits(f"{band}.res.fits") as file:
            header = file.header("IMAGE")
            assert file.header(0)["PRODUCT"] == "residual"
        assert 0.9 < header["CHI2PIX"] < 1.15
        assert abs(header["RESMED"]) < 0.05
    parents = Table.read("out.fits", hdu="PARENTS")
    assert np.all(parents["n_stray_g"] >= 0)


def test_a_pixel_of_absurd_size(folder: Path, cli: Cli, exposures: dict[str, Exposure]) -> None:
    """What cannot be rounded to the noise is stored as it is, and all the rest with it."""
    image = exposures["g"].image.copy()
    image[50:53, 60] = 1e30, -1e30, 3e38
    save(replace(exposures["g"], image=image), "g.fits")
    done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "r.fits", "-o", "out.fits",
               "--heavy", "{band}.heavy.fits", "--residual", "{band}.res.fits")  # fmt: skip
    assert done.code == 0, done.err
    assert "band g: a pixel of 3e+38 is too large to be rounded to 0.02 of the noise" in done.err
    assert "band r" not in done.err
    for band in BANDS:
        with open_fits(f"{band}.heavy.fits") as file:
            assert (file.header("FOOTPRINTS")["FLUXERR"] > 0) == (band == "r")


def test_workers_and_order_change_nothing(folder: Path, cli: Cli) -> None:
    def run(name: str, *more: str) -> bytes:
        done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", name,
                   "--heavy", f"heavy_{name}", *more)  # fmt: skip
        assert done.code == 0, done.err
        with fitsio.FITS(name) as f, fitsio.FITS(f"heavy_{name}") as h:
            return f["OBJECTS"].read().tobytes() + h["FLUX"].read().tobytes()

    assert (
        run("a.fits") == run("b.fits", "--neighbours", "--no-neighbours") == run("c.fits", "-j2")
    )


def test_a_rerun_gives_the_same_file(folder: Path, cli: Cli) -> None:
    call = ("reconstruct-footprints", "deblended.fits", "g.fits", "-o", "a.fits")
    assert cli(*call).code == 0
    first = Path("a.fits").read_bytes()
    assert cli(*call).code == 73
    assert cli(*call, "--overwrite", "-j4").code == 0
    assert Path("a.fits").read_bytes() == first


@pytest.mark.parametrize(
    "options",
    [("--kind", "model"), ("--weights", "reference"), ("--stray", "nearest"),
     ("--stray", "r-to-peak"), ("--neighbours",), ("--set", "fill_bad=model"),
     ("--set", "metrics=observed"), ("--set", "kernel_reg=0"), ("--set", "min_ratio=0.01"),
     ("--set", "mask_footprint=false"), ("--preset", "reference")],
    ids=" ".join,
)  # fmt: skip
def test_options_run(folder: Path, cli: Cli, options: tuple[str, ...]) -> None:
    done = cli("reconstruct-footprints", "deblended.fits", "r.fits", "-o", "a.fits", *options)
    assert done.code == 0, done.err
    table = Table.read("a.fits", hdu="OBJECTS")
    modelled = table["n_component"] > 0
    assert np.isfinite(table["flux_r"][modelled]).all()
    assert "flux_g" not in table.colnames


def test_lossy_residuals(folder: Path, cli: Cli) -> None:
    """Within 0.035 of the noise, which is 1 here."""
    images = []
    for name in ("auto", "lossy"):
        done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", f"{name}.fits",
                   "--residual", f"r_{name}.fits", "--set", f"compress={name}")  # fmt: skip
        assert done.code == 0, done.err
        images.append(read_exposure(f"r_{name}.fits").image)
    assert 0 < np.abs(images[0] - images[1]).max() <= 0.035


def test_another_psf_than_that_of_the_fit(
    folder: Path, cli: Cli, models: ModelSet, scenes
) -> None:
    """An exposure of worse seeing: with its PSF the models leave nothing, with the fit's much."""
    psf = parse_psf_spec("gaussian:fwhm=6")
    blurred = scenes.make_exposure(models_with_psf(models, psf), "g")
    save(replace(blurred, wcs=models.wcs, psf=psf), "g.fits")
    left = {}
    for name, options in {
        "fit": (), "own": ("--set", "kernel=recompute"), "told": ("--psf", "g=gaussian:fwhm=6"),
        "wings": ("--psf", "gaussian:fwhm=6", "--neighbours"),
    }.items():  # fmt: skip
        done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", f"{name}.fits",
                   "--residual", f"r_{name}.fits", *options)  # fmt: skip
        assert done.code == 0, done.err
        left[name] = np.abs(read_exposure(f"r_{name}.fits").image).max()
    assert left["fit"] > 5
    assert left["own"] < 0.02  # models are stored to 0.005 of the noise each
    assert left["own"] == left["told"] == left["wings"]
    done = cli("reconstruct-footprints", "deblended.fits", "r.fits", "-o", "x.fits", "--set",
               "kernel=recompute")  # fmt: skip
    assert done.code == 2
    assert "no exposure of band r has a PSF" in done.err
    done = cli("reconstruct-footprints", "deblended.fits", "r.fits", "-o", "x.fits", "--psf",
               "g=gaussian:fwhm=6")  # fmt: skip
    assert done.code == 2
    assert "--psf: no exposure of band g\n  there is r" in done.err


def test_exposures_that_the_models_were_not_made_from(
    folder: Path, cli: Cli, exposures: dict[str, Exposure], models: ModelSet
) -> None:
    made = Provenance("deblend", (), (), (InputFile.of("exposure", "g.fits"),))
    with create("deblended.fits", "deblended/1", overwrite=True, provenance=made) as out:
        write_models(out, models, storage_steps(models, 0.005))
    call = ("reconstruct-footprints", "deblended.fits", "g.fits", "-o", "a.fits", "--overwrite")
    assert cli(*call).err.count("was made from") == 0
    save(replace(exposures["g"], image=exposures["g"].image + np.float32(1)), "g.fits")
    done = cli(*call)
    assert done.code == 0
    assert "warning: g.fits: not what deblended.fits was made from" in done.err


def test_models_without_images(folder: Path, cli: Cli) -> None:
    done = cli("reconstruct-footprints", "deblended.fits", "-o", "a.fits", "--kind", "model")
    assert done.code == 0, done.err
    table = Table.read("a.fits", hdu="OBJECTS")
    assert np.isfinite(table["flux_g"][table["n_component"] > 0]).all()
    refused = cli("reconstruct-footprints", "deblended.fits", "-o", "b.fits")
    assert refused.code == 2
    assert "no COADD given" in refused.err


def test_a_subset_equals_the_whole(folder: Path, cli: Cli, models: ModelSet) -> None:
    blend = int(models.blends["id"][3])
    lone = int(models.objects["id"][models.objects["flag_isolated"]][0])
    for more in ((), ("--neighbours",)):
        for name, chosen in (("all.fits", ()),
                             ("some.fits", ("--blend", blend, "--source", lone))):  # fmt: skip
            done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", name,
                       "--overwrite", *chosen, *more)  # fmt: skip
            assert done.code == 0, done.err
        whole, some = (Table.read(n, hdu="OBJECTS") for n in ("all.fits", "some.fits"))
        expected = whole[(whole["blend"] == blend) | (whole["id"] == lone)]
        assert some["id"].tolist() == expected["id"].tolist()
        np.testing.assert_allclose(some["flux_g"], expected["flux_g"], rtol=1e-9)


def test_a_subset_reads_only_its_part_of_the_exposures(
    folder: Path, cli: Cli, models: ModelSet, exposures: dict[str, Exposure]
) -> None:
    """A damaged pixel elsewhere is met by a run on everything, not by one on a blend."""
    exposure = exposures["g"]
    with create("g.fits", "exposure/1", overwrite=True) as out:
        write_exposure(out, exposure, compress="none")
    image = scan("g.fits")[1]
    data = bytearray(Path("g.fits").read_bytes())
    data[image.data + 4 * exposure.image.size - 1] ^= 1
    Path("bad.fits").write_bytes(bytes(data))
    blend = int(models.blends["id"][0])
    call = ("reconstruct-footprints", "deblended.fits")
    assert cli(*call, "bad.fits", "-o", "all.fits").code == 65
    for name, part in (("bad.fits", ""), ("g.fits", f"[1:{exposure.box.nx},1:{exposure.box.ny}]")):
        done = cli(*call, f"{name}{part}", "-o", "some.fits", "--blend", blend, "--overwrite")
        assert done.code == 0, done.err
        some = Table.read("some.fits", hdu="OBJECTS")
        assert cli(*call, "g.fits", "-o", "all.fits", "--overwrite").code == 0
        whole = Table.read("all.fits", hdu="OBJECTS")
        expected = whole[np.isin(whole["id"], some["id"])]
        np.testing.assert_array_equal(some["flux_g"], expected["flux_g"])


def test_cutout_of_one_blend(
    folder: Path, cli: Cli, models: ModelSet, exposures: dict[str, Exposure]
) -> None:
    row = models.blends[2]
    done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "r.fits", "-o", "a.fits",
               "--blend", row["id"], "--cutout", "cut.fits", "--stray", "nearest")  # fmt: skip
    assert done.code == 0, done.err
    parent = models.parents[row["parent"]]
    box = Box(*(int(parent[n]) for n in ("y0", "x0", "ny", "nx")))
    first = int(row["object0"])
    ids = models.objects["id"][first : first + int(row["n_object"])]
    with open_fits("cut.fits") as file:
        assert file.names[1:4] == ["IMAGE", "MODEL", "RESIDUAL"]
        image, model, residual = (file.image(n) for n in file.names[1:4])
        sources = np.stack([file.image(f"SRC_{i}") for i in ids])
        header = file.header(f"SRC_{ids[0]}")
        assert (header["BAND1"], header["BAND2"]) == BANDS
        assert header["CRVAL1A"] == box.x0
        for name in file.names[1:5]:
            header = file.header(name)
            assert header["BUNIT"] == "nJy"
            sky = pixel_to_sky(wcs_cards(file.cards(name)), box, [box.x0], [box.y0])
            assert sky == pixel_to_sky(models.wcs, models.box, [box.x0], [box.y0])
    assert WCS(fits.getheader("cut.fits", 1)).naxis == 3  # astropy has nothing to mend
    assert image.shape == (2, *box.shape)
    expected = exposures["r"].image[box.slices(models.box)]
    assert np.array_equal(image[1], expected)
    np.testing.assert_allclose(image - model, residual, atol=1e-6)
    inside = models.footprints.mask(int(row["parent"]), box)
    np.testing.assert_allclose(sources.sum(0)[:, inside], image[:, inside], atol=1e-4)


def test_noise_of_the_fit_is_not_changed_by_the_order_of_bands(folder: Path, cli: Cli) -> None:
    for name, images in (("a.fits", ("g.fits", "r.fits")), ("b.fits", ("r.fits", "g.fits"))):
        assert cli("reconstruct-footprints", "deblended.fits", *images, "-o", name).code == 0
    a, b = (Table.read(n, hdu="OBJECTS") for n in ("a.fits", "b.fits"))
    for column in a.colnames:
        np.testing.assert_array_equal(a[column], b[column])


def test_an_empty_catalogue(folder: Path, cli: Cli, scenes, models: ModelSet) -> None:
    from coblend.io.deblend.nested import flatten

    psfs = np.stack([[scenes.moffat(3.0, 15)] * 2])
    empty = flatten([], BANDS, psfs, np.zeros((1, 2)), models.box, "nJy", wcs=models.wcs)
    with create("empty.fits", "deblended/1") as out:
        write_models(out, empty)
    done = cli("reconstruct-footprints", "empty.fits", "g.fits", "-o", "a.fits",
               "--heavy", "h.fits", "--residual", "res.fits")  # fmt: skip
    assert done.code == 0, done.err
    assert len(Table.read("a.fits", hdu="OBJECTS")) == 0
    assert len(read_heavy("h.fits").table) == 0


def test_partial_exposures(folder: Path, cli: Cli, exposures: dict[str, Exposure]) -> None:
    """Where nothing is seen there is no flux, NaN and not 0 +- 0, and the flag says so."""
    e = exposures["g"]
    rows = slice(0, 70)
    box = Box(e.box.y0, e.box.x0, 70, e.box.nx)
    save(replace(e, image=e.image[rows], mask=e.mask[rows], variance=e.variance[rows], box=box),
         "part.fits")  # fmt: skip
    refused = cli("reconstruct-footprints", "deblended.fits", "part.fits", "-o", "a.fits")
    assert refused.code == 65
    assert "part.fits" in refused.err
    done = cli("reconstruct-footprints", "deblended.fits", "part.fits", "-o", "a.fits",
               "--set", "allow_partial=true")  # fmt: skip
    assert done.code == 0, done.err
    table = Table.read("a.fits", hdu="OBJECTS", mask_invalid=False)
    outside = table["iy"] > box.y1 + 40
    assert np.all(table["coverage_g"][outside] == 0)
    assert outside.any()
    for name in ("flux_g", "flux_err_g", "peak_flux_g"):
        assert np.all(np.isnan(table[name][outside & ~table["zero_flux_g"]]))
    seen = table["coverage_g"] > 0
    assert np.all(np.isfinite(table["flux_g"][seen]))
    assert np.array_equal(table["flag_no_data"], ~seen & (table["n_pix_g"] > 0))
    covered = (table["iy"] < box.y1 - 40) & ~table["zero_flux_g"]
    assert np.all(table["coverage_g"][covered] > 0.99)


def test_fluxes_of_objects_without_a_model_are_kept(
    folder: Path, cli: Cli, models: ModelSet
) -> None:
    """The deblender's flux of an isolated object, beside its error."""
    lone = models.objects["flag_isolated"]
    models.objects["model_flux_g"][lone] = 12.5
    models.objects["model_flux_err_g"][lone] = 0.5
    with create("deblended.fits", "deblended/1", overwrite=True) as out:
        write_models(out, models, storage_steps(models, 0.005))
    done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", "a.fits")
    assert done.code == 0, done.err
    table = Table.read("a.fits", hdu="OBJECTS")
    assert np.all(table["model_flux_g"][lone] == 12.5)
    assert np.all(np.isfinite(table["model_flux_g"][table["n_component"] > 0]))
    names = table.colnames
    between = names[names.index("model_flux_g") : names.index("model_flux_err_r") + 1]
    assert between == ["model_flux_g", "model_flux_r", "model_flux_err_g", "model_flux_err_r"]


def test_every_column_is_described(folder: Path, cli: Cli) -> None:
    """TCOMM and TUCD of all tables, read and written."""
    done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", "a.fits",
               "--heavy", "h.fits", "--set", "spans=true")  # fmt: skip
    assert done.code == 0, done.err
    n_column = 0
    for name in ("deblended.fits", "a.fits", "h.fits"):
        for hdu in scan(name):
            for i in range(1, 1 + int(hdu.value("TFIELDS") or 0) * (hdu.kind == "table")):
                column = f"{name}[{hdu.name}] {hdu.value(f'TTYPE{i}')}"
                assert hdu.value(f"TCOMM{i}"), column
                assert hdu.value(f"TUCD{i}"), column
                n_column += 1
    assert n_column > 200


# Bad input


def test_bands(folder: Path, cli: Cli) -> None:
    unknown = cli("reconstruct-footprints", "deblended.fits", "u=g.fits", "-o", "a.fits")
    assert unknown.code == 65
    assert "band 'u' is not among the bands of deblended.fits: g, r" in unknown.err
    twice = cli("reconstruct-footprints", "deblended.fits", "g.fits", "g=r.fits", "-o", "a.fits")
    assert twice.code == 65
    assert "band g was already given by g.fits" in twice.err


def test_units(folder: Path, cli: Cli, exposures: dict[str, Exposure]) -> None:
    save(replace(exposures["g"], unit="adu"), "adu.fits")
    refused = cli("reconstruct-footprints", "deblended.fits", "adu.fits", "-o", "a.fits")
    assert refused.code == 65
    assert "is in adu, the models in nJy" in refused.err
    done = cli("reconstruct-footprints", "deblended.fits", "adu.fits", "-o", "a.fits",
               "--set", "ignore_units=true")  # fmt: skip
    assert done.code == 0


def test_grids(folder: Path, cli: Cli, exposures: dict[str, Exposure]) -> None:
    cards = tuple(
        c.replace("20.5", "21.5") if c.startswith("CRPIX1") else c for c in exposures["g"].wcs
    )
    save(replace(exposures["g"], wcs=cards), "moved.fits")
    refused = cli("reconstruct-footprints", "deblended.fits", "moved.fits", "-o", "a.fits")
    assert refused.code == 65
    assert "disagree" in refused.err
    assert "moved.fits" in refused.err


def test_templates_and_outputs(folder: Path, cli: Cli) -> None:
    call = ("reconstruct-footprints", "deblended.fits", "g.fits", "r.fits", "-o", "a.fits")
    one = cli(*call, "--heavy", "heavy.fits")
    assert one.code == 2
    assert "names one file for 2 bands" in one.err
    same = cli(*call, "--heavy", "{band}.x.fits", "--residual", "{band}.x.fits")
    assert same.code == 2
    assert "g.x.fits would be written twice" in same.err
    Path("r.res.fits").touch()
    there = cli(*call, "--residual", "{band}.res.fits")
    assert there.code == 73
    assert "r.res.fits" in there.err
    many = cli(*call, "--cutout", "c.fits")
    assert many.code == 2
    assert "12 are selected" in many.err
    assert not Path("a.fits").exists()


def test_unknown_blend(folder: Path, cli: Cli) -> None:
    done = cli(
        "reconstruct-footprints", "deblended.fits", "g.fits", "-o", "a.fits", "--blend", 999
    )
    assert done.code == 2
    assert "no parent, blend or object has id 999" in done.err


def test_damaged_models(folder: Path, cli: Cli, models: ModelSet) -> None:
    with fitsio.FITS("deblended.fits", "rw") as file:
        values = file["COMPONENTS"].read()
        values["x0"][-1] += 1
        file["COMPONENTS"].write(values)
    done = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", "a.fits")
    assert done.code == 65
    assert f"blend {models.blends['id'][-1]} is damaged" in done.err
    assert "deblended.fits" in done.err
    assert not Path("a.fits").exists()
    whole = cli("reconstruct-footprints", "deblended.fits", "g.fits", "-o", "a.fits",
                "--set", "keep_going=true", "--heavy", "h.fits")  # fmt: skip
    assert whole.code == 3  # one of twelve parents is more than max_failed = 0.01
    assert "1 of 12" in whole.err
    table = Table.read("a.fits", hdu="OBJECTS")
    lost = table["blend"] == models.blends["id"][-1]
    assert np.array_equal(table["flag_corrupt"], lost)
    assert np.ma.getmaskarray(table["flux_g"])[lost].all()  # NaN
    assert np.all(np.isfinite(table["flux_g"][~lost]))
    assert not np.isin(table["id"][lost], read_heavy("h.fits").table["id"]).any()


@pytest.mark.parametrize(
    ("column", "value"), [("n_object", -1), ("n_object", 2**31 - 1), ("object0", 2**30)]
)
def test_rows_that_do_not_exist(folder: Path, cli: Cli, column: str, value: int) -> None:
    """A table that another program changed, without checksums."""
    with fits.open("deblended.fits") as hdus:
        parents = Table(hdus["PARENTS"].data)
        parents[column] = parents[column].astype("i8")
        parents[column][2] = value
        header = hdus["PARENTS"].header.copy()
        hdus["PARENTS"] = fits.BinTableHDU(parents.as_array(), header, name="PARENTS")
        for hdu in hdus:
            for key in ("CHECKSUM", "DATASUM"):
                hdu.header.remove(key, ignore_missing=True)
        hdus.writeto("changed.fits")
    done = cli("reconstruct-footprints", "changed.fits", "g.fits", "-o", "a.fits")
    assert done.code == 65, done.err
    assert "changed.fits[PARENTS]: parent 3 has" in done.err


def test_objects_without_models_are_refused(folder: Path, cli: Cli, models: ModelSet) -> None:
    """As `deblend --algorithm sdss` leaves them: fluxes, but nothing to share light with."""
    models.objects["n_component"] = models.blends["n_component"] = 0
    none = np.zeros(0, models.components.dtype), np.zeros(0, np.float32), np.zeros(1, np.int64)
    bare = replace(models, components=none[0], morph=none[1], morph_offsets=none[2])
    bare.objects["component0"] = bare.blends["component0"] = 0
    with create("sdss.fits", "deblended/1") as out:
        write_models(out, bare)
    done = cli("reconstruct-footprints", "sdss.fits", "g.fits", "-o", "a.fits")
    assert done.code == 65, done.err
    assert "sdss.fits[OBJECTS]: 26 blended objects have no model" in done.err
    assert "--algorithm scarlet" in done.err


def test_models_of_the_rubin_pipelines(in_folder: Path, cli: Cli, shared_data: Path) -> None:
    """A real file of release 29; its two parents hold one object each."""
    from coblend.io.deblend.lsst_models import read_lsst_models

    path = shared_data / "lsst_models_v29.json"
    models = read_lsst_models(str(path))
    box = Box(15880, 15940, 60, 240)
    rng = np.random.default_rng(1)
    image = rng.normal(size=box.shape).astype(np.float32)
    mask, variance = np.zeros(box.shape, np.int32), np.ones(box.shape, np.float32)
    save(Exposure(image, mask, variance, box, band="i", unit="nJy"), "i.fits")
    done = cli("reconstruct-footprints", path, "i.fits", "-o", "a.fits", "--heavy", "h.fits",
               "--set", "flux_error=0")  # fmt: skip
    assert done.code == 0, done.err
    table = Table.read("a.fits", hdu="OBJECTS")
    assert table["id"].tolist() == models.objects["id"].tolist()
    heavy = read_heavy("h.fits")
    for i in range(2):
        own = models.footprints.box(i)
        expected = image[own.slices(box)]
        assert table["flux_i"][i] == pytest.approx(expected.sum(dtype=float))
        _, light = heavy.of(int(table["id"][i]))
        assert np.array_equal(light, expected.ravel())
    rendered = cli("reconstruct-footprints", path, "-o", "m.fits", "--kind", "model")
    assert rendered.code == 0, rendered.err
    flux = Table.read("m.fits", hdu="OBJECTS")
    assert np.all(flux["flux_z"] > 0.6 * flux["model_flux_z"])
    told = json.loads(cli("info", "--json", path).out)
    assert told["table"] == [
        {"bands": "g,i,r,y,z", "n_parents": 2, "n_blends": 2, "n_objects": 2, "n_components": 2}
    ]
