"""The class-conditional discriminator."""

from __future__ import annotations

import pytest
import torch

from pagoda.networks.discriminators import ConvDiscriminator


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_shapes(resolution: int) -> None:
    network = ConvDiscriminator(resolution, channels=4, max_channels=8, num_classes=3)
    x = torch.randn(5, 3, resolution, resolution)
    maps = network.features(x)
    sides = [m.shape[-1] for m in maps]
    assert sides == [resolution >> i for i in range(len(sides))] and sides[-1] == 4
    assert [m.shape[1] for m in maps] == [min(4 << i, 8) for i in range(len(maps))]
    logits = network(x, torch.tensor([0, 1, 2, 0, 1]))
    assert logits.shape == (5,) and logits.dtype == torch.float32


def test_forward_is_features_then_classify() -> None:
    network = ConvDiscriminator(16, 4, 8, 3)
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    assert torch.equal(network(x, labels), network.classify(network.features(x)[-1], labels))


def test_the_label_matters_to_its_own_row_alone() -> None:
    network = ConvDiscriminator(8, 8, 16, 4)
    x = torch.randn(3, 3, 8, 8)
    a = network(x, torch.tensor([0, 1, 2]))
    b = network(x, torch.tensor([0, 3, 2]))
    assert (a[1] - b[1]).abs() > 1e-4
    assert torch.equal(a[[0, 2]], b[[0, 2]])


def test_a_logit_reacts_to_the_diversity_of_its_batch() -> None:
    """The same first image among copies of itself and among others."""
    network = ConvDiscriminator(8, 8, 16, 2)
    x, labels = torch.randn(6, 3, 8, 8), torch.zeros(6, dtype=torch.long)
    copies = x[:1].expand(6, -1, -1, -1)
    assert (network(x, labels)[0] - network(copies, labels)[0]).abs() > 1e-4
    # Without diversity the size of the batch says nothing.
    torch.testing.assert_close(network(copies, labels)[:2], network(copies[:2], labels[:2]))


def test_gradient_reaches_every_parameter() -> None:
    network = ConvDiscriminator(16, 4, 8, 3)
    network(torch.randn(6, 3, 16, 16), torch.arange(6) % 3).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_activations_neither_vanish_nor_explode() -> None:
    """He's variance: unit input stays of order one through all resolutions."""
    network = ConvDiscriminator(64, 32, 64, 2)
    deepest = network.features(torch.randn(4, 3, 64, 64))[-1]
    assert 0.1 < deepest.square().mean().sqrt() < 10
