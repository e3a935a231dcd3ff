"""Files of surveys and telescopes, each made from one truth in its own convention.

Pixels, variance, mask planes, band and zero point come back as they are in the truth: the same
star has the same magnitude whoever observed it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty

from coblend.core.box import Box
from coblend.core.errors import FormatError, MissingHduError, ParameterError
from coblend.core.mask import STANDARD
from coblend.io.coadd.inputs import Listed
from coblend.io.coadd.warps import open_warp
from coblend.io.exposure.exposures import count_pixels, read_exposure
from coblend.io.fits.specs import parse_spec

SHAPE = (40, 50)
MAGNITUDE = 21.5
"""Of the star: the sum of the truth's image."""
PLACES = {"BAD": (3, 4), "SAT": (5, 6), "CR": (7, 8), "SUSPECT": (9, 10), "NO_DATA": (11, 12)}
"""A pixel of each plane."""
PSF = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


@dataclass(frozen=True)
class Truth:
    """Image, variance (float64) and pixels of each plane; no weight in the pixel (35, 45)."""

    image: np.ndarray
    variance: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        weight = 1 / self.variance
        weight[35, 45] = 0.0
        return weight

    @property
    def error(self) -> np.ndarray:
        error = np.sqrt(self.variance)
        error[35, 45] = 0.0
        return error

    def mask(self, dtype: str, **values: int) -> np.ndarray:
        mask = np.zeros(SHAPE, dtype)
        for name, value in values.items():
            mask[PLACES[name]] = value
        return mask


@pytest.fixture
def truth(rng: np.random.Generator) -> Truth:
    y, x = np.indices(SHAPE)
    star = np.exp(-0.5 * ((y - 20) ** 2 + (x - 25) ** 2) / 2.0**2)
    image = 2e3 * star / star.sum()
    return Truth(image.astype(np.float32), rng.uniform(0.5, 2.0, SHAPE))


def header(**cards: object) -> fits.Header:
    long = {k for k in cards if "." in k or len(k) > 8}
    made = fits.Header({f"HIERARCH {k}" if k in long else k: v for k, v in cards.items()})
    for i, name in enumerate(("RA---TAN", "DEC--TAN"), 1):
        made.update(
            {f"CTYPE{i}": name, f"CRPIX{i}": 20.0, f"CRVAL{i}": 10.0 * i, f"CDELT{i}": 5e-5}
        )
    return made


def hdus(primary: dict, image: fits.Header, planes: dict[str, np.ndarray], **other: fits.Header):
    """HDUs named as the planes; the first has the header ``image``."""
    out = [fits.PrimaryHDU(header=fits.Header(primary))]
    for i, (name, data) in enumerate(planes.items()):
        out.append(fits.ImageHDU(data, other.get(name, image if not i else None), name=name))
    return fits.HDUList(out)


def packed(data: np.ndarray, head: fits.Header, name: str = "") -> fits.HDUList:
    """A tile-compressed image as fpack makes it, without loss."""
    codec = "GZIP_2" if data.dtype.kind == "f" else "RICE_1"
    level = {"quantize_level": 0.0} if data.dtype.kind == "f" else {}
    hdu = fits.CompImageHDU(data, head, name=name or None, compression_type=codec, **level)
    return fits.HDUList([fits.PrimaryHDU(), hdu])


def zero_point(total: float) -> float:
    """AB magnitude of one count if ``total`` counts are the star."""
    return MAGNITUDE + 2.5 * np.log10(total)


def flam_of(zero: float, wavelength: float) -> float:
    """PHOTFLAM of a zero point: AB = -2.5 log10(f_nu) - 48.6, f_nu = f_lambda wavelength^2 / c."""
    return 10 ** (-0.4 * (zero + 48.6)) * 2.99792458e18 / wavelength**2


def lsst(truth: Truth, folder: Path) -> str:
    mask = truth.mask("int32", BAD=1, SAT=2, CR=8, SUSPECT=128, NO_DATA=256)
    variance = np.where(truth.weight > 0, truth.variance, np.nan)
    frame = header(
        FILTER="i",
        MAGZERO=zero_point(2e3),
        CTYPE1A="LINEAR",
        CTYPE2A="LINEAR",
        CRPIX1A=1.0,
        CRPIX2A=1.0,
        CRVAL1A=100.0,
        CRVAL2A=200.0,
    )
    planes = {"IMAGE": truth.image, "MASK": mask, "VARIANCE": variance}
    names = header(MP_BAD=0, MP_SAT=1, MP_CR=3, MP_SUSPECT=7, MP_NO_DATA=8)
    hdus({}, frame, planes, MASK=names).writeto(folder / "calexp.fits")
    return "calexp.fits"


def des(truth: Truth, folder: Path) -> str:
    mask = truth.mask("int16", BAD=8, SAT=64, CR=16, SUSPECT=2048)
    image = header(FILTER="i DECam SDSS c0003 7835.0 1470.0", SEXMGZPT=zero_point(2e3))
    planes = {"SCI": truth.image, "MSK": mask, "WGT": truth.weight}
    made = fits.HDUList([fits.PrimaryHDU()])
    for name, data in planes.items():
        made.append(packed(data, image if name == "SCI" else None, name)[1])
    made.writeto(folder / "D00233601_i.fits.fz")
    return "D00233601_i.fits.fz"


def jwst(truth: Truth, folder: Path, *, resampled: bool = False) -> str:
    """MJy/sr: a pixel of one has PIXAR_SR million jansky, AB 8.9 each."""
    area = 10 ** (0.4 * (8.9 - zero_point(2e3))) / 1e6
    mask = truth.mask("uint32", BAD=1, SAT=2, CR=4)
    mask[0, 0] = 1 << 31 | 1  # reference pixel
    primary = {"TELESCOP": "JWST", "FILTER": "F150W2", "PUPIL": "F162M"}
    planes = {"SCI": truth.image, "ERR": truth.error}
    if resampled:
        planes["ERR"] = np.sqrt(truth.variance)
        planes["WHT"] = truth.weight
        planes["CON"] = np.ones((1, *SHAPE), np.int32)
    else:
        planes["DQ"] = mask
    made = hdus(primary, header(BUNIT="MJy/sr", PIXAR_SR=area), planes)
    made.writeto(folder / "jw_nircam.fits")
    return "jw_nircam.fits"


def jwst_resampled(truth: Truth, folder: Path) -> str:
    return jwst(truth, folder, resampled=True)


def hst(truth: Truth, folder: Path) -> str:
    """Two chips; electrons, so that the zero point per second grows with the exposure time."""
    zero = zero_point(2e3) - 2.5 * np.log10(500.0)
    primary = {"TELESCOP": "HST", "INSTRUME": "ACS", "FILTER1": "CLEAR1L", "FILTER2": "F814W",
               "EXPTIME": 500.0}  # fmt: skip
    sci = header(BUNIT="ELECTRONS", PHOTFLAM=flam_of(zero, 8045.0), PHOTPLAM=8045.0, PHOTZPT=-21.1)
    mask = truth.mask("int16", BAD=16, SAT=2048, CR=4096)
    made = hdus(primary, sci, {})
    for version, image in ((1, truth.image * 0), (2, truth.image)):
        for name, data in (("SCI", image), ("ERR", truth.error), ("DQ", mask)):
            made.append(
                fits.ImageHDU(data, sci if name == "SCI" else None, name=name, ver=version)
            )
    made.writeto(folder / "j8_flc.fits")
    return "j8_flc.fits[SCI,2]"


def drizzled(truth: Truth, folder: Path) -> str:
    """Electrons per second."""
    sci = header(BUNIT="ELECTRONS/S", PHOTFLAM=flam_of(zero_point(2e3), 15369.0), PHOTPLAM=15369.0)
    planes = {"SCI": truth.image, "WHT": truth.weight, "CTX": np.ones(SHAPE, np.int32)}
    primary = {"TELESCOP": "HST", "FILTER": "F160W", "EXPTIME": 1200.0}
    hdus(primary, sci, planes).writeto(folder / "i_drz.fits")
    return "i_drz.fits[noise=weight]"


def drizzled_apart(truth: Truth, folder: Path) -> str:
    sci = header(FILTER="F160W", MAGZERO=zero_point(2e3))
    fits.PrimaryHDU(truth.image, sci).writeto(folder / "f_drz.fits")
    fits.PrimaryHDU(truth.weight).writeto(folder / "f_wht.fits")
    return "f_drz.fits[noise=weight]"


def ccddata(truth: Truth, folder: Path, kind: type = StdDevUncertainty) -> str:
    noise = {StdDevUncertainty: truth.error, InverseVariance: truth.weight}
    made = CCDData(
        truth.image, unit=units.adu, mask=truth.mask("uint8", BAD=1) > 0,
        uncertainty=kind(noise.get(kind, np.where(truth.weight > 0, truth.variance, np.nan))),
        meta={"FILTER": "r", "MAGZERO": zero_point(2e3)}, psf=PSF,
    )  # fmt: skip
    made.write(folder / "ccd.fits")
    return "ccd.fits"


def ccddata_variance(truth: Truth, folder: Path) -> str:
    return ccddata(truth, folder, VarianceUncertainty)


def ccddata_weight(truth: Truth, folder: Path) -> str:
    return ccddata(truth, folder, InverseVariance)


def swarp(truth: Truth, folder: Path) -> str:
    head = header(FILTER="r", MAGZERO=zero_point(2e3))
    fits.PrimaryHDU(truth.image, head).writeto(folder / "coadd.fits")
    fits.PrimaryHDU(truth.weight).writeto(folder / "coadd.weight.fits")
    return "coadd.fits"


def decam(truth: Truth, folder: Path, version: str = "V5.0", **mask: int) -> str:
    """One extension per CCD; after version 3.5 masks hold numbers."""
    values = mask or {"BAD": 1, "NO_DATA": 2, "SAT": 3, "CR": 5, "SUSPECT": 6}
    primary = {"FILTER": "r DECam SDSS c0002 6415.0 1480.0", "PLVER": version,
               "MAGZERO": zero_point(2e3)}  # fmt: skip
    for mark, data in (
        ("ooi", truth.image),
        ("oow", truth.weight),
        ("ood", truth.mask("int16", **values)),
    ):
        made = fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary))])
        for ccd, factor in (("S29", 0), ("N4", 1)):
            made.append(packed(data * np.array(factor, data.dtype), header(), ccd)[1])
        made.writeto(folder / f"c4d_140329_{mark}_r_v1.fits.fz")
    return "c4d_140329_ooi_r_v1.fits.fz[N4]"


def decam_bits(truth: Truth, folder: Path) -> str:
    return decam(truth, folder, "V3.2", BAD=1, SAT=64, CR=16, SUSPECT=128)


def legacy(truth: Truth, folder: Path) -> str:
    """Nanomaggies: the star's image is scaled to them by the test below."""
    mask = truth.mask("int32", BAD=1 << 6, SAT=1 << 3)
    mask[0, 0] = 1 << 2 | 1 << 5 | 1  # another band; not primary
    stem = folder / "legacysurvey-0001p000"
    factor = nanomaggies(truth)
    packed(truth.image * np.float32(factor), header(BUNIT="nanomaggy"), "").writeto(
        f"{stem}-image-r.fits.fz"
    )
    packed(truth.weight / factor**2, header(), "").writeto(f"{stem}-invvar-r.fits.fz")
    bits = packed(mask, header(), "MASKBITS")
    bits.append(packed(mask * 0 + 1, header(), "WISEM1")[1])  # infrared: not ours
    bits.writeto(f"{stem}-maskbits.fits.fz")
    return "legacysurvey-0001p000-image-r.fits.fz"


def nanomaggies(truth: Truth) -> float:
    return 10 ** (0.4 * (22.5 - MAGNITUDE)) / 2e3


def ps1(truth: Truth, folder: Path) -> str:
    """Inverse hyperbolic sines in image and variance, each with its own scale."""
    zero = zero_point(2e3)
    head = {"FPA.FILTER": "i.00000", "FPA.ZP": 25.0, "EXPTIME": 10 ** (0.4 * (zero - 25.0))}
    mask = truth.mask("int16", BAD=0x4, SAT=0x20, CR=0x100, SUSPECT=0x80, NO_DATA=0x8)
    variance = np.where(truth.weight > 0, truth.variance, np.nan)
    stem = folder / "rings.v3.skycell.1784.059.stk.i.unconv"
    for mark, data, offset, soft in (("", truth.image, 7.17, 221.9), (".wt", variance, 0.1, 3.3)):
        scaled = 2.5 / np.log(10) * np.arcsinh((data - offset) / (2 * soft))
        packed(scaled, header(**head, BOFFSET=offset, BSOFTEN=soft)).writeto(f"{stem}{mark}.fits")
    packed(mask, header()).writeto(f"{stem}.mask.fits")
    return f"{stem.name}.fits"


CONVENTIONS: dict[Callable[..., str], tuple[str, tuple[str, ...]]] = {
    lsst: ("i", ("BAD", "SAT", "CR", "SUSPECT", "NO_DATA")),
    des: ("i", ("BAD", "SAT", "CR", "SUSPECT")),
    jwst: ("F162M", ("BAD", "SAT", "CR")),
    jwst_resampled: ("F162M", ()),
    hst: ("F814W", ("BAD", "SAT", "CR")),
    drizzled: ("F160W", ()),
    drizzled_apart: ("F160W", ()),
    ccddata: ("r", ("BAD",)),
    ccddata_variance: ("r", ("BAD",)),
    ccddata_weight: ("r", ("BAD",)),
    swarp: ("r", ()),
    decam: ("r", ("BAD", "SAT", "CR", "SUSPECT", "NO_DATA")),
    decam_bits: ("r", ("BAD", "SAT", "CR", "SUSPECT")),
    legacy: ("r", ("BAD", "SAT")),
    ps1: ("i", ("BAD", "SAT", "CR", "SUSPECT", "NO_DATA")),
}


@pytest.fixture(params=list(CONVENTIONS), ids=lambda c: c.__name__)
def convention(request: pytest.FixtureRequest) -> Callable[..., str]:
    made: Callable[..., str] = request.param
    return made


def test_every_convention(convention: Callable[..., str], truth: Truth, tmp_path: Path) -> None:
    """Acceptance 15: image identical, variance to 1e-6, no data where there is no weight."""
    band, planes = CONVENTIONS[convention]
    spec = f"{tmp_path}/{convention(truth, tmp_path)}"
    back = read_exposure(spec)
    factor = nanomaggies(truth) if convention is legacy else 1.0
    good = np.ones(SHAPE, bool)
    good[35, 45] = False
    image = (truth.image * np.float32(factor)).astype(np.float32)
    if convention is ps1:
        np.testing.assert_allclose(back.image[good], image[good], rtol=1e-6, atol=1e-4)
    else:
        assert np.array_equal(back.image[good], image[good])
    np.testing.assert_allclose(back.variance[good], truth.variance[good] * factor**2, rtol=1e-6)
    assert back.mask[35, 45] & 1 << STANDARD.bits["NO_DATA"]
    assert not back.good()[35, 45]
    expected = {
        place: 1 << STANDARD.bits[name] for name, place in PLACES.items() if name in planes
    }
    found = {(int(y), int(x)): int(back.mask[y, x]) for y, x in np.argwhere(back.mask)}
    found.pop((35, 45))
    if convention is jwst:
        assert found.pop((0, 0)) == 1  # DO_NOT_USE beside a bit that has no plane
    assert found == expected
    assert back.band == band
    magnitude = back.meta["MAGZERO"] - 2.5 * np.log10(np.sum(back.image, dtype=float))
    assert magnitude == pytest.approx(MAGNITUDE, abs=1e-4)
    assert (back.box.y0, back.box.x0) == ((200, 100) if convention is lsst else (0, 0))
    assert len(back.wcs) >= 8 or convention in (ccddata, ccddata_variance, ccddata_weight)
    assert (back.psf is not None) == convention.__name__.startswith("ccddata")
    assert count_pixels(parse_spec(spec)) == back.image.size


def test_inputs_of_coadds_are_read_alike(
    convention: Callable[..., str], truth: Truth, tmp_path: Path
) -> None:
    """By rows, with the same conventions, band and zero point."""
    spec = f"{tmp_path}/{convention(truth, tmp_path)}"
    whole = read_exposure(spec)
    warp = open_warp(Listed(spec))
    box = Box(whole.box.y0 + 2, whole.box.x0 + 3, 25, 40)
    image, mask, variance = warp.read(box, STANDARD)
    cut = box.slices(whole.box)
    good = np.isfinite(variance) & (variance > 0)
    assert np.array_equal(good, np.isfinite(whole.variance[cut]))
    np.testing.assert_array_equal(image[good], whole.image[cut][good])
    np.testing.assert_allclose(variance[good], whole.variance[cut][good], rtol=1e-6)
    if mask is not None:
        np.testing.assert_array_equal(mask[good], whole.mask[cut][good])
    assert warp.info.band == whole.band
    assert (warp.info.psf is None) == (whole.psf is None)
    assert warp.info.zero_point == pytest.approx(whole.meta["MAGZERO"])


def test_a_section_of_every_convention(
    convention: Callable[..., str], truth: Truth, tmp_path: Path
) -> None:
    spec = f"{tmp_path}/{convention(truth, tmp_path)}"
    whole, part = read_exposure(spec), read_exposure(f"{spec}[6:35,11:30]")
    cut = (slice(10, 30), slice(5, 35))
    assert np.array_equal(part.image, whole.image[cut])
    assert np.array_equal(part.variance, whole.variance[cut])
    assert np.array_equal(part.mask, whole.mask[cut])


def test_relative_weights_and_images_alone(rng: np.random.Generator, tmp_path: Path) -> None:
    """Exposure times, or nothing: the scatter of the sky says what they lack."""
    seconds = np.where(np.arange(400) < 200, 100.0, 400.0) * np.ones((300, 1))
    sky = rng.normal(size=(300, 400)) * 3.0 * np.sqrt(100.0 / seconds)
    sky[50:60, 50:60] += 500.0
    primary = {"TELESCOP": "HST", "FILTER": "F606W"}
    hdus(primary, header(), {"SCI": sky, "WHT": seconds}).writeto(tmp_path / "a_drz.fits")
    back = read_exposure(f"{tmp_path}/a_drz.fits[noise=relative]")
    np.testing.assert_allclose(back.variance, 9.0 * 100.0 / seconds, rtol=0.02)

    flat = rng.normal(size=(300, 400)) * 3.0
    flat[50:60, 50:60] += 500.0
    fits.PrimaryHDU(flat).writeto(tmp_path / "plain.fits")
    dark = read_exposure(f"{tmp_path}/plain.fits[noise=measured]", band="g")
    np.testing.assert_allclose(dark.variance, 9.0, rtol=0.02)
    lit = read_exposure(f"{tmp_path}/plain.fits[noise=measured,gain=2.5]", band="g")
    np.testing.assert_allclose(lit.variance, dark.variance + np.maximum(flat, 0) / 2.5, rtol=1e-6)


def test_what_is_said_in_brackets_wins(
    truth: Truth, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Noise and mask in files of any name, and bits of any meaning; a forgotten one is named."""
    for name, data in (("sky", truth.image), ("sigma", truth.error),
                       ("flags", truth.mask("int16", SAT=4, CR=24, BAD=1))):  # fmt: skip
        fits.PrimaryHDU(data).writeto(tmp_path / f"{name}.fits")
    told = f"noise=rms:{tmp_path}/sigma.fits,mask={tmp_path}/flags.fits"
    back = read_exposure(f"{tmp_path}/sky.fits[{told},flags=SAT:4/CR:16/CR:8]", band="g")
    assert back.mask[PLACES["SAT"]] == 1 << STANDARD.bits["SAT"]
    assert back.mask[PLACES["CR"]] == 1 << STANDARD.bits["CR"]
    assert back.mask[PLACES["BAD"]] == 0
    assert "mask bits 0 (value 1) have no name; dropped" in caplog.text
    caplog.clear()
    read_exposure(f"{tmp_path}/sky.fits[{told},flags=SAT:4/CR:24/BAD:1]", band="g")
    assert "mask bits" not in caplog.text
    plain = read_exposure(f"{tmp_path}/sky.fits[{told}]", band="g")
    assert plain.mask[PLACES["CR"]] == plain.mask[PLACES["BAD"]] == 1
    good = truth.error > 0
    np.testing.assert_allclose(back.variance[good], truth.variance[good], rtol=1e-6)


# Bad input


def test_what_is_missing_is_said(truth: Truth, tmp_path: Path) -> None:
    """In one line, with the remedy: nothing is guessed."""
    fits.PrimaryHDU(truth.image).writeto(tmp_path / "plain.fits")
    with pytest.raises(MissingHduError, match=r"plain\.fits: no VARIANCE plane") as caught:
        read_exposure(f"{tmp_path}/plain.fits")
    assert "[noise=measured,gain=2.5]" in (caught.value.hint or "")
    weights = drizzled(truth, tmp_path).partition("[")[0]
    with pytest.raises(FormatError, match="what its weights mean is not said") as caught:
        read_exposure(f"{tmp_path}/{weights}")
    for kind in ("weight", "relative"):
        assert f"i_drz.fits[noise={kind}]" in (caught.value.hint or "")
    chips = hst(truth, tmp_path).partition("[")[0]
    with pytest.raises(FormatError, match="holds 2 exposures, SCI 1, 2") as caught:
        read_exposure(f"{tmp_path}/{chips}")
    assert "j8_flc.fits[SCI,1]" in (caught.value.hint or "")
    ccds = decam(truth, tmp_path).partition("[")[0]
    with pytest.raises(FormatError, match="holds 2 images: S29, N4"):
        read_exposure(f"{tmp_path}/{ccds}")
    stack = ps1(truth, tmp_path)
    with fits.open(tmp_path / stack, mode="update") as file:
        del file[1].header["BOFFSET"]
    with pytest.raises(FormatError, match="has BSOFTEN without BOFFSET"):
        read_exposure(f"{tmp_path}/{stack}")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("noise=sigma", "no kind 'sigma'; variance, weight, rms, relative, measured"),
        ("noise=weight", "no VARIANCE plane"),
        ("noise=measured,gain=-1", "gain=-1: expected photons per unit"),
        ("gain=2", "gain=2: expected photons per unit of the image, beside noise=measured"),
        ("noise=measured,flags=SAT:2", "flags=SAT:2: .* has no mask"),
        ("noise=measured,mask=sky.fits,flags=HALO:2", "flags=HALO:2 is not PLANE:NUMBER"),
        ("noise=rms:nowhere.fits", "nowhere.fits: no such file"),
        ("sky=1", r"\[sky=1\] sets 'sky'"),
    ],
)
def test_wrong_words_in_brackets(truth: Truth, in_folder: Path, told: str, message: str) -> None:
    fits.PrimaryHDU(truth.image).writeto("sky.fits")
    with pytest.raises((FormatError, ParameterError, FileNotFoundError), match=message):
        read_exposure(f"sky.fits[{told}]")


def test_no_noise_to_measure(in_folder: Path) -> None:
    fits.PrimaryHDU(np.ones(SHAPE)).writeto("flat.fits")
    with pytest.raises(FormatError, match="its noise cannot be measured"):
        read_exposure("flat.fits[noise=measured]")
