"""Gradients are sharpened where the residual is light, not where it is noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coblend.core.deblend.blend import deblend_batch, observe
from coblend.core.deblend.fitting import live
from coblend.core.deblend.fitting.observation import Observation
from coblend.core.deblend.fitting.sharpen import sharpened
from coblend.core.params.deblend import DeblendParams

PARAMS = DeblendParams(process_singles=True)


@pytest.fixture
def bright(scenery: Callable[..., object]):
    """Two galaxies in each of three blends, far above the noise."""
    flux = np.array([[60000.0] * 3, [20000.0] * 3])
    return scenery([(25.3, 20.2), (26, 31)], flux, (2.0, 1.0)).again(3, 1).batch


def test_gains_rest_on_the_excess_over_the_noise(bright) -> None:
    observation = observe(bright, PARAMS)
    (frames,) = observation.frames
    noise = 0.5 * np.count_nonzero(frames.weight[0])
    excess = np.array([0.1, 0.5, 1000.0])
    (own,) = sharpened(observation, noise * (1 + excess)).frames
    assert (own.gain[0] == 1).all()  # noise prevails
    np.testing.assert_allclose(own.gain[:, 0, 0], 1, atol=1e-5)  # the mean is not changed
    assert own.gain[1].max() == pytest.approx(1.5, abs=0.01)  # 1 + q where kernels leave nothing
    assert own.gain[2].max() == pytest.approx(2, abs=0.01)
    impulse = np.zeros_like(own.data)
    impulse[..., 25, 25] = 1
    plain, sharp = frames.correlate(impulse), own.correlate(impulse)
    np.testing.assert_array_equal(sharp[0], plain[0])
    assert (sharp[2, :, 25, 25] > 1.2 * plain[2, :, 25, 25]).all()
    assert sharpened(Observation((own,)), noise * np.ones(3)).frames[0].gain is None


def test_gains_do_not_depend_on_the_company(bright) -> None:
    observation = observe(bright, PARAMS)
    loss = 0.5 * np.count_nonzero(observation.weight[0]) * np.array([1.0, 2.0, 5.0])
    together = sharpened(observation, loss).frames[0]
    alone = sharpened(observation.select(np.array([False, True, False])), loss[1:2]).frames[0]
    np.testing.assert_array_equal(together.gain[1:2], alone.gain)


def test_bright_blends_converge_sooner(bright, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same iterations with and without."""
    short = replace(PARAMS, max_iter=8)
    fast = sum(result.loss for result in deblend_batch(bright, short))
    monkeypatch.setattr(live, "sharpened", lambda observation, loss: observation)
    plain = sum(result.loss for result in deblend_batch(bright, short))
    noise = 0.5 * bright.cuts[0].data.size
    assert fast - noise < 0.7 * (plain - noise)


def test_the_last_iterations_follow_the_loss(
    scenery: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A very bright source is never fitted to its noise; still the fit ends as without."""
    batch = scenery([(25.3, 20.2), (26, 31)], [[3e5] * 3, [20000.0] * 3], (0.0, 1.0)).batch
    params = replace(PARAMS, max_iter=100)
    (fast,) = deblend_batch(batch, params)
    monkeypatch.setattr(live, "sharpened", lambda observation, loss: observation)
    (plain,) = deblend_batch(batch, params)
    assert fast.loss < 1.05 * plain.loss


# bad input


def test_frames_without_a_usable_pixel_stay_as_they_are(bright) -> None:
    (frames,) = observe(bright, PARAMS).frames
    blind = Observation((replace(frames, weight=np.zeros_like(frames.weight)),))
    assert sharpened(blind, np.zeros(3)).frames[0].gain is None
