"""The cascade's super-resolution model and the count of operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pagoda.losses.denoising import denoising_loss
from pagoda.networks.super_resolution import SuperResolver, condition, load_super_resolver
from pagoda.networks.unet import UNetSpec


def _resolver() -> SuperResolver:
    spec = UNetSpec(8, 16, (1, 1), 1, (), 16, 0.0, 3, 1.0)
    resolver = SuperResolver(spec, 0.5)
    for parameter in resolver.parameters():  # heads start at zero, which would hide everything
        nn.init.normal_(parameter, std=0.1)
    return resolver


def test_the_output_depends_on_condition_and_level_and_survives_a_round_trip() -> None:
    resolver = _resolver()
    x, sigma, labels = torch.randn(2, 3, 8, 8), torch.ones(2), torch.tensor([0, 2])
    seen, level = torch.randn(2, 3, 8, 8), torch.full((2,), 0.1)
    out = resolver(x, sigma, labels, seen, level)
    assert (resolver(x, sigma, labels, seen + 1, level) - out).abs().max() > 1e-3
    assert (resolver(x, sigma, labels, seen, level + 1) - out).abs().max() > 1e-3
    again = load_super_resolver(resolver.state_dict(), resolver.card())
    torch.testing.assert_close(again(x, sigma, labels, seen, level), out)


def test_without_noise_the_denoiser_returns_its_input() -> None:
    """c_skip -> 1 and c_out -> 0 as sigma -> 0, whatever the network says."""
    x = torch.randn(2, 3, 8, 8)
    out = _resolver()(x, torch.full((2,), 1e-6), None, torch.randn_like(x), torch.zeros(2))
    torch.testing.assert_close(out, x, atol=1e-4, rtol=0)


def test_conditioning_augmentation_adds_noise_of_the_level() -> None:
    low, noise = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    clean = condition(low, 8, torch.zeros(2), noise)
    dirty = condition(low, 8, torch.tensor([0.5, 2.0]), noise)
    torch.testing.assert_close(dirty - clean, noise * torch.tensor([0.5, 2.0])[:, None, None, None])
    torch.testing.assert_close(clean.mean((2, 3)), low.mean((2, 3)))


def test_a_perfect_denoiser_has_no_loss_and_a_wrong_one_its_weighted_error() -> None:
    x, noise, sigma = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.full((4,), 0.5)
    zeros = torch.zeros(4, dtype=torch.int64)

    def loss(error: float) -> float:
        def denoiser(*_: object) -> torch.Tensor:
            return x + error

        value = denoising_loss(denoiser, x, zeros, sigma, noise, 0.5)
        return float(value)

    assert loss(0.0) == 0.0
    # lambda(0.5) = (0.25 + 0.25) / (0.5 * 0.5)^2 = 8
    assert loss(0.1) == pytest.approx(8 * 0.01, rel=1e-5)
