"""The discriminator on the teacher's encoder."""

from __future__ import annotations

import pytest
import torch

from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminators import EncoderDiscriminator
from pagoda.networks.unet import UNetSpec


def teacher() -> Denoiser:
    torch.manual_seed(2)
    denoiser = Denoiser(UNetSpec(16, 16, (1, 2, 2), 1, (4,), 16, 0.1, 4), 0.5)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return denoiser


@pytest.mark.parametrize(("side", "views"), [(16, 1), (32, 2), (64, 2)])
def test_shapes(side: int, views: int) -> None:
    network = EncoderDiscriminator(teacher(), 0.1, 4, 24)
    x, labels = torch.rand(3, 3, side, side) * 2 - 1, torch.tensor([0, 1, 3])
    maps = network.features(x)
    assert [tuple(m.shape) for m in maps] == [
        (3 * views, c, s, s) for c, s in ((16, 16), (32, 8), (32, 4))
    ]
    assert network(x, labels).shape == (3, views * 3 * 16)


def test_the_maps_are_those_that_the_teacher_hands_to_its_decoder() -> None:
    denoiser = teacher().eval()
    network = EncoderDiscriminator(denoiser, 0.1, 4, 24)
    x, labels = torch.rand(2, 3, 16, 16), torch.tensor([1, 2])
    seen: dict[int, torch.Tensor] = {}
    for i, stage in enumerate(denoiser.net.trunk.encoder):
        stage.register_forward_hook(lambda _, __, out, i=i: seen.__setitem__(i, out))
    denoiser(x, torch.full((2,), 0.1), labels)
    by_side = {m.shape[-1]: m for _, m in sorted(seen.items())}  # the last of every resolution
    for made, side in zip(network.features(x, labels), (16, 8, 4), strict=True):
        torch.testing.assert_close(made, by_side[side])


def test_gradient_reaches_the_heads_and_the_image_and_not_the_teacher() -> None:
    denoiser = teacher()
    network = EncoderDiscriminator(denoiser, 0.1, 4, 24).train().requires_grad_(True)
    x = (torch.rand(4, 3, 32, 32) * 2 - 1).requires_grad_(True)
    network(x, torch.arange(4)).square().mean().backward()
    assert x.grad is not None and (x.grad.flatten(1).abs().sum(1) > 0).all()
    for name, parameter in network.named_parameters():
        assert name.startswith("heads.")
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in denoiser.parameters())
    assert not denoiser.training and all(k.startswith("heads.") for k in network.state_dict())


def test_every_row_is_scored_with_both_of_its_views() -> None:
    """Changing one image changes its own row of logits alone."""
    network = EncoderDiscriminator(teacher(), 0.1, 4, 24).eval()
    x, labels = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    before = network(x, labels)
    network.aim(1)
    assert not torch.equal(network(x, labels), before)  # the crop is elsewhere
    network.aim(2)
    before = network(x, labels)
    x[1] = 0.0
    after = network(x, labels)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert ((before[1] - after[1]).abs() > 0).float().mean() > 0.9
