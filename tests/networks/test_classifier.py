"""The embedded feature network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pagoda.networks.classifier import FeatureNetwork, degrade, extract, load_feature_network


def pixels(n: int, resolution: int, seed: int = 0) -> np.ndarray:
    shape = (n, 3, resolution, resolution)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def network() -> FeatureNetwork:
    """A network whose running statistics are those of some data, not their initial values."""
    made = FeatureNetwork(classes=5, resolution=16, channels=4, dim=12, degradations=2)
    for seed in range(60):
        made.features(torch.from_numpy(pixels(16, 16, seed)))
    return made.eval()


def test_features_have_the_same_bits_in_any_company(network: FeatureNetwork) -> None:
    images = pixels(37, 16)
    features, logits = extract(network, images, batch=16)
    alone, alone_logits = extract(network, images[20:21], batch=16)
    assert np.array_equal(alone, features[20:21])
    assert np.array_equal(alone_logits, logits[20:21])
    turned, _ = extract(network, images[::-1], batch=16)
    assert np.array_equal(turned[::-1], features)


def test_batch_size_changes_nothing_beyond_rounding(network: FeatureNetwork) -> None:
    images = pixels(37, 16)
    small, _ = extract(network, images, batch=5)
    large, _ = extract(network, images, batch=64)
    np.testing.assert_allclose(small, large, rtol=0, atol=1e-5)
    assert small.std(axis=0).min() > 1e-3  # and the features say something


def test_extract_equals_a_plain_call(network: FeatureNetwork) -> None:
    images = pixels(9, 16)
    features, logits = extract(network, images, batch=4)
    with torch.inference_mode():
        plain, plain_logits, _ = network(torch.from_numpy(images))
    np.testing.assert_allclose(features, plain, atol=1e-5)
    np.testing.assert_allclose(logits, plain_logits, atol=1e-5)


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_any_resolution_gives_the_same_feature_space(
    network: FeatureNetwork, resolution: int
) -> None:
    features, logits = extract(network, pixels(3, resolution))
    assert features.shape == (3, 12) and logits.shape == (3, 5)
    assert np.isfinite(features).all()


def test_a_flat_image_looks_alike_at_every_resolution(network: FeatureNetwork) -> None:
    flat = [np.full((1, 3, res, res), 77, np.uint8) for res in (4, 8, 16, 32)]
    features = [extract(network, image)[0] for image in flat]
    for other in features[1:]:
        np.testing.assert_allclose(other, features[0], atol=1e-5)


def test_downsizing_is_antialiased(network: FeatureNetwork) -> None:
    """One-pixel stripes are grey at half the resolution; point sampling would keep one colour."""
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 254
    small = network.prepare(stripes)
    assert small.shape[-1] == 16
    # The filter's weights on the two colours are equal away from the border.
    assert small[..., 2:-2].abs().max() < 0.01


@pytest.mark.parametrize("resolution", [8, 16, 64, 128])
def test_networks_exist_for_every_resolution(resolution: int) -> None:
    network = FeatureNetwork(3, resolution, channels=4, dim=8, degradations=1).eval()
    features, _ = extract(network, pixels(2, resolution), batch=2)
    assert features.shape == (2, 8)


def test_degrading_averages_blocks_and_rounds() -> None:
    image = np.zeros((1, 3, 4, 4), np.uint8)
    image[..., :2, :2] = [[10, 20], [30, 41]]
    image[..., 2:, 2:] = 255
    small = degrade(torch.from_numpy(image), 2).numpy()
    assert small.dtype == np.uint8
    assert (small[0, :, 0, 0] == 25).all()  # 101 / 4 = 25.25
    assert (small[0, :, 1, 1] == 255).all() and (small[0, :, 0, 1] == 0).all()
    assert np.array_equal(degrade(torch.from_numpy(image), 4).numpy(), image)


def test_a_saved_network_comes_back(network: FeatureNetwork) -> None:
    card = {"architecture": network.architecture}
    again = load_feature_network(network.state_dict(), card)
    images = pixels(4, 8)
    assert np.array_equal(extract(again, images)[0], extract(network, images)[0])
    assert not again.training
