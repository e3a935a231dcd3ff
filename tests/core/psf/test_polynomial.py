"""PSFs with polynomial pixels and PSFEx models."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.errors import FormatError
from coblend.core.psf import AnalyticPsf, PolyPsf, Psf, PsfexPsf
from coblend.core.psf.fields import ChebyshevField
from coblend.core.psf.moments import adaptive_moments


def moffat(fwhm: float, side: int = 31) -> np.ndarray:
    return AnalyticPsf("MOFFAT", fwhm, size=side, integrated=False).stamp()


def test_poly_psf_is_scaled_to_unit_sum_everywhere(rng):
    basis = np.stack([moffat(4.0) * 3, rng.normal(size=(31, 31)) * 1e-4])
    psf = PolyPsf(ChebyshevField(basis, np.array([[1, 0, 0], [0.0, 1, 2]]), (0, 100, 0, 100)))
    stamps = psf.at_many([0, 50, 99], [99, 50, 0])
    np.testing.assert_allclose(stamps.sum(axis=(1, 2)), 1)
    assert np.abs(stamps[0] - stamps[2]).max() > 1e-5
    assert isinstance(psf, Psf)
    assert not psf.constant


def test_psfex_planes_follow_its_order_of_terms(rng):
    """1, u, u^2, v, uv, v^2 at 1-based positions; sampling 1 needs no interpolation."""
    planes = np.concatenate([moffat(4.0)[None], rng.normal(size=(5, 31, 31)) * 1e-4])
    psf = PsfexPsf(planes, 2, (512.5, 300.5), (400.0, 250.0))
    y, x = 123.0, 700.0
    u, v = (x + 1 - 512.5) / 400, (y + 1 - 300.5) / 250
    terms = np.array([1, u, u * u, v, u * v, v * v])
    expected = np.tensordot(terms, planes.astype("f4").astype("f8"), 1)
    np.testing.assert_allclose(psf.samples(y, x)[0], expected, atol=1e-15)
    np.testing.assert_allclose(psf.at(y, x), expected / expected.sum(), atol=1e-15)


def test_psfex_of_a_cut_out_is_evaluated_where_it_was_made(rng):
    planes = np.concatenate([moffat(4.0)[None], rng.normal(size=(2, 31, 31)) * 1e-4])
    whole = PsfexPsf(planes, 1, (50.0, 60.0), (30.0, 40.0))
    cut = PsfexPsf(planes, 1, (50.0, 60.0), (30.0, 40.0), origin=(100, 200))
    np.testing.assert_allclose(cut.at(112, 231), whole.at(12, 31), atol=1e-15)


@pytest.mark.parametrize(("n", "step"), [(41, 0.5), (51, 0.4), (40, 0.5)])
def test_psfex_sampled_finer_than_the_pixels_keeps_size_and_centre(n, step):
    """Flux per image pixel, centre at n // 2 also for even sides."""
    axis = (np.arange(n) - n // 2) * step
    plane = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 1.4**2)
    psf = PsfexPsf(plane[None], sampling=step)
    assert psf.side == 2 * int((n - 1) // 2 * step + 1e-9) + 1
    moments = adaptive_moments(psf.at(0, 0))
    assert moments.sigma[0] == pytest.approx(1.4, abs=2e-3)
    assert abs(moments.dy[0]) < 1e-6
    assert psf.constant


def test_bad_psfex_models():
    planes = np.ones((3, 5, 5))
    with pytest.raises(FormatError, match="degree 2 cannot have 3 planes"):
        PsfexPsf(planes, 2)
    with pytest.raises(FormatError, match="square planes"):
        PsfexPsf(np.ones((1, 5, 6)))
    with pytest.raises(FormatError, match="PSF_SAMP is 0"):
        PsfexPsf(planes, 1, sampling=0.0)
    with pytest.raises(FormatError, match="not all finite"):
        PsfexPsf(np.full((1, 5, 5), np.nan))
