"""How bands become colours."""

from __future__ import annotations

import numpy as np
import pytest

from coblend.core.show.channels import (
    channel_weights,
    mixed,
    mixed_noise,
    reddest_first,
    significance,
)


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (("g", "r", "i"), "irg"),
        (("g", "i", "r", "u", "y", "z"), "yzirgu"),
        (("HSC-G", "HSC-I", "HSC-R"), ["HSC-I", "HSC-R", "HSC-G"]),
        (("J", "H", "Ks"), ["Ks", "H", "J"]),
        (("VISTA-J", "VISTA-Ks", "VISTA-H"), ["VISTA-Ks", "VISTA-H", "VISTA-J"]),
        (("F444W", "F115W", "g"), ["F444W", "F115W", "g"]),
    ],
)
def test_known_bands_are_sorted_from_red_to_blue(
    bands: tuple[str, ...], expected: str | list[str]
) -> None:
    """One unknown name, and all stay as they were given."""
    assert [bands[i] for i in reddest_first(bands)] == list(expected)


def test_weights_are_means_that_use_every_band_alike() -> None:
    """Rows sum to 1, three bands are the channels, and red and blue mirror each other."""
    np.testing.assert_array_equal(channel_weights(3), np.eye(3))
    np.testing.assert_array_equal(channel_weights(1), np.ones((3, 1)))
    np.testing.assert_allclose(channel_weights(2), [[1, 0], [0.5, 0.5], [0, 1]])
    for n in range(1, 10):
        weights = channel_weights(n)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        np.testing.assert_allclose(weights, weights[::-1, ::-1])
        assert np.all(weights.sum(axis=0) > 0)


def test_mixing_ignores_what_is_not_finite() -> None:
    images = np.array([[[1.0, np.nan]], [[3.0, 5.0]]])
    np.testing.assert_allclose(mixed(images, channel_weights(2))[1], [[2.0, 2.5]])
    assert images[0, 0, 1] != images[0, 0, 1], "the input stays as it is"


def test_noise_of_the_mean_channel(rng: np.random.Generator) -> None:
    """It is the scatter of the mean of the three channels of a blank sky."""
    sigma = np.array([1.0, 3.0, 2.0, 5.0])
    variances = np.broadcast_to(sigma[:, None, None] ** 2, (4, 300, 300)).copy()
    images = rng.normal(size=variances.shape) * np.sqrt(variances)
    weights = channel_weights(4)
    noise = mixed_noise(variances, weights)
    assert noise == pytest.approx(mixed(images, weights).mean(axis=0).std(), rel=0.02)
    variances[0, :140] = np.inf
    assert mixed_noise(variances, weights) == pytest.approx(noise)
    variances[1:] = np.inf
    assert mixed_noise(variances, weights) == pytest.approx(weights[:, 0].mean())


def test_significance_of_noise_is_normal_and_leaves_out_bands_without_data(
    rng: np.random.Generator,
) -> None:
    variances = rng.uniform(0.5, 4, (3, 200, 200)).astype(np.float32)
    images = (rng.normal(size=variances.shape) * np.sqrt(variances)).astype(np.float32)
    images[0, :100], variances[0, :100] = 1e6, np.inf
    variances[:, 150:] = np.inf
    ratio = significance(images, variances)
    assert ratio[:150].std() == pytest.approx(1, abs=0.02)
    assert np.isnan(ratio[150:]).all()
