"""What one iteration does to the blends that are still moving."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from coblend.core.deblend.blend import observe
from coblend.core.deblend.fitting.components import Centres, radii_of, stack_stamps
from coblend.core.deblend.fitting.live import Live
from coblend.core.params.deblend import DeblendParams

Scenery = Callable[..., object]
POSITIONS = [(25, 20), (25, 29)]


def begin(scenery: Scenery, **options: object) -> Live:
    """Two Gaussians of 1.5 pixels in a frame of 50 by 50."""
    scene = scenery(POSITIONS, np.full((2, 3), 60.0), shape=(50, 50))
    observation = observe(scene.batch, DeblendParams())
    n = np.full(2, 50)
    centres = Centres(np.zeros(2, np.int64), np.arange(2), *np.array(POSITIONS).T, n, n)
    stacks = stack_stamps(np.full(2, 15), centres, [])
    y, x = np.mgrid[-15:16, -15:16]
    morph = np.exp(-0.5 * (y**2 + x**2) / 1.5**2)
    stacks[0].planes[:] = np.where(morph > 1e-3, morph, 0)
    spectra = np.full((2, 3), 200, np.float32)
    params = DeblendParams(**options)
    return Live.begin(observation, centres, stacks, spectra, 1 / spectra, np.ones(3), params)


def test_fista_goes_on_from_the_spectra_that_it_returns(scenery: Scenery) -> None:
    """Its first step has no momentum, whatever morphologies were divided by."""
    live = begin(scenery, optimizer="fista")
    params = DeblendParams(optimizer="fista")
    assert params.rescale_spectra
    live.iterate(0, params, np.full(1, np.inf))
    assert live.steps is not None
    assert np.allclose(live.steps.moments[0], live.spectra, rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.25])
def test_dark_pixels_do_not_make_stamps_grow(scenery: Scenery, threshold: float) -> None:
    """One source is lit to 5 pixels from its centre, one to 12; both have 5 to grow into."""
    live = begin(scenery)
    live.stacks[0].planes[0, 1, 15, 27] = 0.5
    live.resize(DeblendParams(background_thresh=threshold))
    assert radii_of(live.stacks, 2).tolist() == [10, 20]


def test_a_loss_that_is_no_number_ends_the_fit(scenery: Scenery) -> None:
    live = begin(scenery)
    live.iterate(0, DeblendParams(), np.full(1, np.inf))
    assert not live.lost().any()
    live.spectra[0] = np.nan
    live.iterate(0, DeblendParams(), np.full(1, np.inf))
    assert live.lost().all()
