"""Real headers of surveys and telescopes: cards of published files, copied as they stand.

`test_dialects.py` makes files of every convention from one truth, with headers of ours. Here the
headers are theirs, in excerpts (what names planes, band, unit, zero point, origin and WCS, and
what is unusual about them); the pixels are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from coblend.core.exposure import Exposure
from coblend.io.exposure.exposures import read_exposure
from coblend.io.sky.wcs import pixel_to_sky

SHAPE = (12, 10)

DECAM_PRIMARY = """
PROCTYPE= 'InstCal '
PRODTYPE= 'image   '
TELESCOP= 'CTIO 4.0-m telescope'
INSTRUME= 'DECam   '
EXPTIME =                120.0
DATE-OBS= '2019-04-02T05:06:18.382875'
FILTER  = 'VR DECam c0007 6300.0 2600.0'
ERRORS  = 'None    '
DONUTFS4= '[1.50,1.38,-8.97,0.02,-0.02,-0.01,-0.03,-0.03,-0.38,]'
RADESYS = 'FK5     '
EQUINOX =               2000.0
BAND    = 'VR      '
DES_EXT = 'IMAGE   '
RADECSYS= 'ICRS    '
MAGZERO =               31.227
MAGZPT  =               26.029
NEXTEND =                    2
PLVER   = 'V4.1    '
"""
DECAM_CCD = """
EXTNAME = 'S29     '
INHERIT =                    T
WCSAXES =                    2
DETSEC  = '[2053:4092,8197:12284]'
CCDNUM  =                    1
CRPIX1  =              13422.2
CRPIX2  =     6306.33300000001
CUNIT1  = 'deg     '
CUNIT2  = 'deg     '
CD1_1   =  -1.973017594683E-07
CD1_2   =   7.286055904046E-05
CD2_1   =  -7.285778428117E-05
CD2_2   =   -1.89611031888E-07
LTV2    =                 -1.0
LTV1    =                 -1.0
LTM2_2  =                  1.0
LTM1_1  =                  1.0
PV1_0   =    0.002478697073169
PV1_1   =       1.014909365671
PV1_2   =   -0.004867599457293
PV2_0   =    -0.01104562339251
PV2_1   =       1.041073973972
CTYPE2  = 'DEC--TPV'
CTYPE1  = 'RA---TPV'
CRVAL1  =       215.8658553515
CRVAL2  =       -13.6072849842
BPM     = 'DEC19A_DT20190401_94539a1-VR1-20190402T050618_od[S29]'
WCSDIM  =                    2
WAT0_001= 'system=image'
WAT1_001= 'wtype=tpv axtype=ra'
WAT2_001= 'wtype=tpv axtype=dec'
"""
"""c4d_190402_050618_ooi_VR_v1.fits.fz, DECam community pipeline."""

LEGACY = """
COMMENT Data product of the DESI Imaging Legacy Surveys
LEGPIPEV= 'DR10.0.1'           / legacypipe git version
SURVEY  = 'DECaLS+BASS+MzLS'   / The LegacySurveys
DRVERSIO=                10000 / LegacySurveys Data Release number
DEPVER10= '/global/cfs/cdirs/cosmo/staging/largegalaxies/v3.0/SGA-ellipse-v3.0&'
CONTINUE  '.kd.fits'
BRICK   = '0489m442'           / LegacySurveys brick RRRr[pm]DDd
BANDS   = 'griz    '           / Bands touching this brick
BAND0   = 'g       '           / Band name in this catalog
BAND1   = 'r       '           / Band name in this catalog
CTYPE1  = 'RA---TAN'           / TANgent plane
CTYPE2  = 'DEC--TAN'           / TANgent plane
CRVAL1  =     48.9168278529981 / Reference RA
CRVAL2  =               -44.25 / Reference Dec
CRPIX1  =               1800.5 / Reference x
CRPIX2  =               1800.5 / Reference y
CD1_1   = -7.27777777777778E-05 / CD matrix
CD1_2   =                   0. / CD matrix
CD2_1   =                   0. / CD matrix
CD2_2   = 7.27777777777778E-05 / CD matrix
EQUINOX =                2000. / WCS epoch
FILTER  = 'r DECam SDSS c0002 6415.0 1480.0' / Filter name
FILTERX = 'r       '           / Filter short name
MAGZERO =                 22.5 / Magnitude zeropoint
BUNIT   = 'nanomaggy'          / AB mag = 22.5 - 2.5*log10(nanomaggy)
"""
"""legacysurvey-0489m442-image-r.fits.fz, Legacy Surveys DR10."""

WFC3 = """
DETECTOR= 'IR  '               / detector in use: UVIS or IR
FILTER  = 'F160W  '            / element selected from filter wheel
EXPTIME =           898.467164 / exposure duration (seconds)--calculated
PHOTMODE= 'WFC3 IR F160W'      / Obser
PHOTFLAM=        1.9275602E-20 / Inverse sensitivity, ergs/cm2/A/e-
PHOTFNU =        1.5187570E-07 / Inverse sensitivity, Jy*sec/e-
PHOTZPT =       -2.1100000E+01 / ST magnitude zero point
PHOTPLAM=        1.5369176E+04 / Pivot wavelength (Angstroms)
RULEFILE= '/Users/Boizelle/anaconda/envs/iraf27/lib/python2.7/site-packages/fi&'
CONTINUE  'tsblender/wfc3_header.rules&'
CONTINUE  '' / Name of header kw rules file
NDRIZIM =                    2 / Drizzle, No. images drizzled onto output
D001WKEY= '' / Input image WCS Version used
D001OUUN= 'cps     '           / Drizzle, units of output image - counts or cps
INHERIT =                    T / inherit the primary header
BUNIT   = 'ELECTRONS/S'        / brightness units
WCSAXES =                    2 / number of World Coordinate System axes
CRPIX1  =    809.6162680387491 / x-coordinate of reference pixel
CRPIX2  =    615.3175137042995 / y-coordinate of reference pixel
CRVAL1  =    50.51503112332516 / first axis value at reference pixel
CRVAL2  =    40.86062514579236 / second axis value at reference pixel
CTYPE1  = 'RA---TAN'           / the coordinate type for the first axis
CTYPE2  = 'DEC--TAN'           / the coordinate type for the second axis
CD1_1   = 1.25048678786937E-05 / partial of first axis coordinate w.r.t. x
CD1_2   = 2.48038952103902E-05 / partial of first axis coordinate w.r.t. y
CD2_1   = 2.48038952103902E-05 / partial of second axis coordinate w.r.t. x
CD2_2   = -1.2504867878693E-05 / partial of second axis coordinate w.r.t. y
LTV1    =        0.0000000E+00 / offset in X to subsection start
LTV2    =        0.0000000E+00 / offset in Y to subsection start
STDCFFP = '0x5569'             / science telemetry fill pattern (hex)
RADESYS = 'ICRS    '
WCSNAME = 'DRZWCS  '
"""
"""ugc2698_f160w_pxfr075_pxs010_drz_sci.fits, WFC3, AstroDrizzle."""

ACS_SCI = """
INHERIT =                    T / inherit the primary header
EXTNAME = 'SCI     '           / extension name
EXTVER  =                    1 / extension version number
EXPNAME = 'jbf401p8q                ' / exposure identifier
BUNIT   = 'ELECTRONS'          / brightness units
CCDCHIP =                    2 / CCD chip (1 or 2)
WCSAXES =                    2 / number of World Coordinate System axes
CRPIX1  =                 2048 / x-coordinate of reference pixel
CRPIX2  =                 1024 / y-coordinate of reference pixel
CRVAL1  =        11.3139376926 / first axis value at reference pixel
CRVAL2  =        42.0159325283 / second axis value at reference pixel
CTYPE1  = 'RA---TAN-SIP'       / the coordinate type for the first axis
CTYPE2  = 'DEC--TAN-SIP'       / the coordinate type for the second axis
CD1_1   = -7.8194868997837E-06 / partial of first axis coordinate w.r.t. x
CD1_2   = 1.09620231564470E-05 / partial of first axis coordinate w.r.t. y
CD2_1   = 1.14279318521882E-05 / partial of second axis coordinate w.r.t. x
CD2_2   = 8.66885775536641E-06 / partial of second axis coordinate w.r.t. y
LTV1    =        0.0000000E+00 / offset in X to subsection start
LTV2    =        0.0000000E+00 / offset in Y to subsection start
A_0_2   = 2.18045745103211E-06
B_0_2   = -7.2266555836441E-06
A_ORDER =                    4
B_ORDER =                    4
IDCSCALE=                 0.05
WCSNAMEO= 'OPUS    '
CRPIX1O =                 2048
CTYPE1O = 'RA---TAN-SIP'
CRVAL1O =        11.3139376926
CD1_1O  =   -7.81948731152E-06
CPDIS1  = 'Lookup  '           / Prior distortion funcion type
DP1     = 'EXTVER: 1' / Version number of WCSDVARR extension
DP1     = 'NAXES: 2' / Number of independent variables in CPDIS function
NPOLEXT = 'jref$v971826aj_npl.fits'
"""
"""jbf401p8q_flc.fits, ACS; two chips, ERR and DQ of each, and look-up tables of distortion."""

GRIZLI = """
CRPIX1  =               4591.5 / Pixel coordinate of reference point
CRPIX2  =               6515.5 / Pixel coordinate of reference point
CD1_1   = -1.1111111111111E-05 / Coordinate transformation matrix element
CD2_2   =  1.1111111111111E-05 / Coordinate transformation matrix element
CDELT1  =                  1.0 / [deg] Coordinate increment at reference point
CDELT2  =                  1.0 / [deg] Coordinate increment at reference point
CUNIT1  = 'deg'                / Units of coordinate increment and value
CUNIT2  = 'deg'                / Units of coordinate increment and value
CTYPE1  = 'RA---TAN'           / Right ascension, gnomonic projection
CTYPE2  = 'DEC--TAN'           / Declination, gnomonic projection
CRVAL1  =            110.83403 / [deg] Coordinate value at reference point
CRVAL2  =            -73.45429 / [deg] Coordinate value at reference point
LONPOLE =                180.0 / [deg] Native longitude of celestial pole
LATPOLE =            -73.45429 / [deg] Native latitude of celestial pole
RADESYS = 'ICRS'               / Equatorial coordinate system
CD1_2   =                  0.0
CD2_1   =                  0.0
EXPTIME =    15074.42400000001
TELESCOP= 'JWST    '
FILTER  = 'F444W   '
PUPIL   = 'CLEAR   '
PHOTFLAM= 1.54184756289340E-22
PHOTPLAM=    44036.71097714713
PHOTFNU =                1E-08
PHOTMJSR=   0.3925000131130219
PIXAR_SR=             9.31E-14
OPHOTFNU= 9.30775449348276E-08 / Original PHOTFNU before scaling
BUNIT   = '10.0*nanoJansky'
"""
"""smacs0723-grizli-v7.0-f444w-clear_drc_sci.fits.gz, JWST, drizzled by grizli."""

PS1 = """
BSOFTEN =   2.218863810555E+02 / Scaling: LINEAR = 2 * BSOFTEN * sinh(TRUE/a)
BOFFSET =   7.172080516815E+00 / Scaling: UNCOMP = BOFFSET + LINEAR
CTYPE1  = 'RA---TAN'
CTYPE2  = 'DEC--TAN'
CRVAL1  =     351.887878417988
CRVAL2  =     34.4999999999988
CRPIX1  =                5000.
CRPIX2  =                5000.
CDELT1  =  5.1602346501999E-05
CDELT2  =  5.1602346501999E-05
PC001001=                  -1.
PC001002=                   0.
PC002001=                   0.
PC002002=                   1.
SKYCELL = 'skycell.580.249'    / type of stack
PSCAMERA= 'GPC1    '           / Camera name
HIERARCH FPA.TELESCOPE = 'PS1     ' / Telescope of origin
HIERARCH FPA.FILTER = 'i.00000 ' / Filter used (instrument name)
HIERARCH FPA.ZP = 25.0
EXPTIME =                 900.
"""
"""Stack of skycell 580.249; the exposure time is ours."""

LSST_PRIMARY = """
OBJECT  = 'Blind15A_03'
EXPTIME =                 86.0
FILTER  = 'g       '
BUNIT   = 'adu     '
HIERARCH time_recorded = '2015-02-20T00:49:09.181634'
MAGZERO =               29.446
MAGZPT  =      24.609753871891
NEXTEND =                    2
"""
LSST_IMAGE = """
CRPIX1  =         13422.199999
CRPIX2  =          6306.333004
CRVAL1  =     138.377168956921
CRVAL2  =    -2.29543517596207
CTYPE1  = 'RA---TAN'
CTYPE2  = 'DEC--TAN'
CD1_1   = -6.11039962164836E-08
CD1_2   = 7.28730748292444E-05
CD2_1   = -7.28620297506546E-05
CD2_2   = -3.44604802779743E-08
QV1_0   =    0.001709751912895
RADESYS = 'ICRS    '
LTV1    =                  0.0
LTV2    =                  0.0
INHERIT =                    T
EXTTYPE = 'IMAGE   '
EXTNAME = 'IMAGE   '
CTYPE1A = 'LINEAR  '
CTYPE2A = 'LINEAR  '
CRPIX1A =                  1.0
CRPIX2A =                  1.0
CRVAL1A =                  0.0
CRVAL2A =                  0.0
CUNIT1A = 'PIXEL   '
CUNIT2A = 'PIXEL   '
"""
"""calexp-0412037_10.fits, LSST pipelines on DECam."""
HSC_MASK = """
EXTNAME = 'MASK    '
MP_BAD  =                    0
HIERARCH MP_BRIGHT_OBJECT =  9
HIERARCH MP_CLIPPED =       14
MP_CR   =                    3
HIERARCH MP_CROSSTALK =     10
HIERARCH MP_DETECTED =       5
HIERARCH MP_DETECTED_NEGATIVE = 6
MP_EDGE =                    4
HIERARCH MP_INEXACT_PSF =   16
MP_INTRP=                    2
HIERARCH MP_NOT_DEBLENDED = 11
HIERARCH MP_NO_DATA =        8
HIERARCH MP_REJECTED =      13
MP_SAT  =                    1
HIERARCH MP_SENSOR_EDGE =   15
HIERARCH MP_SUSPECT =        7
HIERARCH MP_UNMASKEDNAN =   12
"""
"""Coadds of the HSC survey, whose images say FLUXMAG0."""

SWARP = """
EQUINOX =        2000.00000000 / Mean equinox
RADESYS = 'ICRS    '           / Equatorial coordinate system
CTYPE1  = 'RA---TAN'           / Coordinate type code
CUNIT1  = 'deg     '           / Units of coordinate increment and value
CRVAL1  =   1.592920354170E+02 / Coordinate value at reference point
CRPIX1  = 6.850000000000000E+01 / Pixel coordinate of reference point
CD1_1   =  -1.527777777778E-04 / Linear projection matrix
CD1_2   =   0.000000000000E+00 / Linear projection matrix
CTYPE2  = 'DEC--TAN'           / Coordinate type code
CUNIT2  = 'deg     '           / Units of coordinate increment and value
CRVAL2  =  -2.807726741670E+01 / Coordinate value at reference point
CRPIX2  = -3.097500000000000E+03 / Pixel coordinate of reference point
CD2_1   =   0.000000000000E+00 / Linear projection matrix
CD2_2   =   1.527777777778E-04 / Linear projection matrix
EXPTIME =                  1.0 / Normalized exposure time
SATURATE=   2.830922105506E+02 / Saturation Level (ADU)
COMMENT
SOFTNAME= 'SWarp   '           / The software that processed those data
COMBINET= 'WEIGHTED'           / COMBINE_TYPE config parameter for SWarp
COMMENT  Propagated FITS keywords
RESAMPT1= 'LANCZOS3'           / RESAMPLING_TYPE config parameter
        STATS 2019-01-31T14:40:30.666269
HIERARCH OAJ QC NCMIDRMS = 0.000599999999999999 / rms level (ADU)
HIERARCH OAJ PRO SWCMB1 = 'HYDRA_C-20170219-055302_proc'
FILENAME= 'HYDRA-0045_U_swp.fits'
"""
"""HYDRA-0045_U_swp.fits, S-PLUS, cut out."""


def header(text: str) -> fits.Header:
    """Cards as they stand."""
    return fits.Header.fromstring("".join(line.ljust(80) for line in text.strip().splitlines()))


def primary(text: str = "", data: np.ndarray | None = None) -> fits.PrimaryHDU:
    return fits.PrimaryHDU(data, header(text) if text else None)


def write(name: str, *hdus: fits.ImageHDU | fits.PrimaryHDU | fits.CompImageHDU) -> None:
    fits.HDUList(list(hdus)).writeto(name, output_verify="ignore")


def packed(data: np.ndarray, text: str = "") -> fits.CompImageHDU:
    options = {"quantize_level": 0.0} if data.dtype.kind == "f" else {}
    return fits.CompImageHDU(data, header(text) if text else None, **options,
                             compression_type="GZIP_2" if options else "RICE_1")  # fmt: skip


def sky_of(exposure: Exposure, x: float, y: float) -> tuple[float, float]:
    """Sky of a 1-based FITS pixel of the file's array."""
    box = exposure.box
    places = np.array([x - 1 + box.x0]), np.array([y - 1 + box.y0])
    ra, dec = pixel_to_sky(exposure.wcs, box, *places)
    return float(ra[0]), float(dec[0])


def check(exposure: Exposure, band: str, zero: float | None, first: tuple[int, int],
          sky: Mapping[tuple[float, float], tuple[float, float]],
          tolerance: float = 1e-9) -> None:  # fmt: skip
    """Band, zero point, first pixel ``(y, x)`` and the sky at pixels ``(x, y)``."""
    assert exposure.band == band
    assert exposure.meta.get("MAGZERO") == (
        None if zero is None else pytest.approx(zero, abs=2e-3)
    )
    assert (exposure.box.y0, exposure.box.x0) == first
    for (x, y), expected in sky.items():
        assert sky_of(exposure, x, y) == pytest.approx(expected, abs=tolerance)


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def weight() -> np.ndarray:
    weight = np.full(SHAPE, 4.0, np.float32)
    weight[2, 3] = 0.0
    return weight


def same_pixels(exposure: Exposure, image: np.ndarray) -> None:
    """All but the pixel without weight."""
    good = exposure.good()
    assert np.flatnonzero(~good).tolist() == [2 * SHAPE[1] + 3]
    assert np.array_equal(exposure.image[good], image[good])
    assert np.allclose(exposure.variance[good], 0.25, rtol=1e-6)


def test_decam(in_folder: Path, image: np.ndarray, weight: np.ndarray) -> None:
    codes = np.zeros(SHAPE, np.int16)
    codes[5, 5], codes[6, 6] = 7, 4
    for mark, data in (("ooi", image), ("oow", weight), ("ood", codes)):
        name = f"c4d_190402_050618_{mark}_VR_v1.fits.fz"
        write(name, primary(DECAM_PRIMARY), packed(data, DECAM_CCD))
    exposure = read_exposure("c4d_190402_050618_ooi_VR_v1.fits.fz[S29]")
    check(exposure, "VR", 31.227, (1, 1), {})
    same_pixels(exposure, image)
    for place, plane in (((5, 5), "SUSPECT"), ((6, 6), "SAT")):
        assert exposure.mask[place] & exposure.planes.value([plane])
    # The projection's zero terms move the reference point: xi = PV1_0, eta = PV2_0 degrees.
    ra, dec = sky_of(exposure, 13422.2, 6306.333)
    assert (ra - 215.8658553515) * np.cos(np.radians(dec)) == pytest.approx(0.0024787, abs=1e-5)
    assert dec + 13.6072849842 == pytest.approx(-0.0110456, abs=1e-5)


def test_legacy(in_folder: Path, image: np.ndarray, weight: np.ndarray) -> None:
    for kind, data in (("image", image), ("invvar", weight)):
        write(f"legacysurvey-0489m442-{kind}-r.fits.fz", primary(), packed(data, LEGACY))
    exposure = read_exposure("legacysurvey-0489m442-image-r.fits.fz")
    place = {(1800.5, 1800.5): (48.9168278529981, -44.25)}
    check(exposure, "r", 22.5, (0, 0), place, 1e-5)  # EQUINOX without RADESYS: FK5
    same_pixels(exposure, image)


def test_drizzled_wfc3(in_folder: Path, image: np.ndarray, weight: np.ndarray) -> None:
    write("ugc2698_drz_sci.fits", primary(WFC3, image))
    write("ugc2698_drz_wht.fits", primary(WFC3, weight))
    exposure = read_exposure("ugc2698_drz_sci.fits[noise=weight]")
    # 25.946: the published AB zero point of F160W per second
    place = {(809.6162680387491, 615.3175137042995): (50.51503112332516, 40.86062514579236)}
    check(exposure, "F160W", 25.946, (0, 0), place)
    same_pixels(exposure, image)


def test_acs(in_folder: Path, image: np.ndarray, weight: np.ndarray) -> None:
    error = np.where(weight > 0, 0.5, 0).astype(np.float32)
    flags = np.zeros(SHAPE, np.int16)
    flags[5, 5], flags[6, 6], flags[7, 7] = 256, 4096, 16
    hdus = [primary("TELESCOP= 'HST'\nINSTRUME= 'ACS     '\nFILTER1 = 'F475W   '\n"
                    "FILTER2 = 'CLEAR2L '")]  # fmt: skip
    for version in (1, 2):
        science = header(ACS_SCI)
        science["EXTVER"] = version
        hdus.append(fits.ImageHDU(image * (version == 1), science))
        hdus += [fits.ImageHDU(d, name=n, ver=version) for n, d in (("ERR", error), ("DQ", flags))]
    write(
        "jbf401p8q_flc.fits", *hdus, fits.ImageHDU(np.zeros((3, 5), np.float32), name="WCSDVARR")
    )
    exposure = read_exposure("jbf401p8q_flc.fits[SCI,1]")
    check(exposure, "F475W", None, (0, 0), {(2048, 1024): (11.3139376926, 42.0159325283)})
    same_pixels(exposure, image)
    for place, plane in (((5, 5), "SAT"), ((6, 6), "CR"), ((7, 7), "BAD")):
        assert exposure.mask[place] & exposure.planes.value([plane])


def test_drizzled_jwst(in_folder: Path, image: np.ndarray, weight: np.ndarray) -> None:
    root = "smacs0723-grizli-v7.0-f444w-clear_drc"
    write(f"{root}_sci.fits.gz", primary(GRIZLI, image))
    write(f"{root}_wht.fits.gz", primary(GRIZLI, weight))
    exposure = read_exposure(f"{root}_sci.fits.gz[noise=weight]")
    # 28.9: what the release says of its unit; PHOTFLAM and the exposure time are those of counts
    check(exposure, "F444W", 28.9, (0, 0), {(4591.5, 6515.5): (110.83403, -73.45429)})
    same_pixels(exposure, image)


def test_pan_starrs(in_folder: Path, image: np.ndarray) -> None:
    stem = "rings.v3.skycell.580.249.stk.i.unconv"
    write(f"{stem}.fits", primary(), packed(image, PS1))
    write(f"{stem}.wt.fits", primary(), packed(np.full(SHAPE, 0.3, np.float32), PS1))
    write(f"{stem}.mask.fits", primary(), packed(np.zeros(SHAPE, np.int16)))
    exposure = read_exposure(f"{stem}.fits")
    zero = 25 + 2.5 * np.log10(900)
    check(exposure, "i", zero, (0, 0), {(5000, 5000): (351.887878417988, 34.4999999999988)})
    a, s, b = 1.0857362, 221.8863810555, 7.172080516815  # as the survey's pages put it
    assert np.allclose(exposure.image, b + s * (np.exp(image / a) - np.exp(-image / a)), rtol=1e-5)
    assert np.allclose(exposure.variance, b + s * (np.exp(0.3 / a) - np.exp(-0.3 / a)), rtol=1e-5)
    # PC001001 is -1: right ascension grows to the left
    assert sky_of(exposure, 4000, 5000)[0] > 351.887878417988 + 0.05


@pytest.mark.parametrize("survey", ["DECam", "HSC"])
def test_lsst(in_folder: Path, image: np.ndarray, weight: np.ndarray, survey: str) -> None:
    bits = header(HSC_MASK)
    mask = np.zeros(SHAPE, np.int32)
    names = {n.removeprefix("MP_"): bit for n, bit in bits.items() if n.startswith("MP_")}
    for i, bit in enumerate(names.values()):
        mask[divmod(40 + i, SHAPE[1])] = 1 << bit
    first = header(LSST_PRIMARY)
    if survey == "HSC":
        del first["MAGZERO"], first["MAGZPT"]
        first["FLUXMAG0"], first["FILTER"] = 63095734448.0194, "HSC-I"
    variance = np.divide(1, weight, where=weight > 0, out=np.full(SHAPE, np.nan, np.float32))
    fits.HDUList([
        fits.PrimaryHDU(header=first), fits.ImageHDU(image, header(LSST_IMAGE)),
        fits.ImageHDU(mask, bits), fits.ImageHDU(variance, name="VARIANCE"),
    ]).writeto("calexp-0412037_10.fits")  # fmt: skip
    exposure = read_exposure("calexp-0412037_10.fits")
    place = {(13422.199999, 6306.333004): (138.377168956921, -2.29543517596207)}
    expected = ("g", 29.446) if survey == "DECam" else ("HSC-I", 27.0)
    check(exposure, *expected, (0, 0), place)
    assert exposure.unit == "adu"
    for i, name in enumerate(names):
        found = exposure.mask[divmod(40 + i, SHAPE[1])]
        assert found & exposure.planes.value([name]), name


def test_swarp(in_folder: Path, image: np.ndarray, weight: np.ndarray) -> None:
    write("HYDRA-0045_U_swp.fits", primary(SWARP, image))
    write("HYDRA-0045_U_swp.weight.fits", primary(SWARP, weight))
    exposure = read_exposure("HYDRA-0045_U_swp.fits", band="U")
    check(exposure, "U", None, (0, 0), {(68.5, -3097.5): (159.292035417, -28.0772674167)})
    same_pixels(exposure, image)
