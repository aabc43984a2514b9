"""The U-Net and the denoiser around it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pagoda.diffusion.edm import scalings
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.layers import Attention, GroupNorm, timestep_embedding
from pagoda.networks.unet import NO_CLASS, UNet, UNetSpec, UNetTrunk


def small_spec(resolution: int = 8) -> UNetSpec:
    return UNetSpec(
        resolution=resolution, channels=16, channel_mult=(1, 2), blocks=1,
        attention=(resolution // 2,), head_channels=16, dropout=0.0, num_classes=4, time_scale=1.0,
    )  # fmt: skip


M = TypeVar("M", bound=nn.Module)


def awake(network: M) -> M:
    """Random values where layers start at zero, as after some training."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return network


@pytest.fixture
def unet() -> UNet:
    return awake(UNet(small_spec())).eval()


@pytest.mark.parametrize(
    ("resolution", "mult"), [(8, (1, 2)), (16, (1, 2)), (32, (1, 1, 2)), (64, (1, 1, 1, 2))]
)
def test_shapes(resolution: int, mult: tuple[int, ...]) -> None:
    spec = UNetSpec(resolution, 8, mult, 1, (8, 4), 8, 0.0, 3)
    x = torch.randn(2, 3, resolution, resolution)
    out = awake(UNet(spec))(x, torch.zeros(2), torch.tensor([0, 2]))
    assert out.shape == x.shape and out.isfinite().all() and out.std() > 0


def test_a_new_network_returns_zero() -> None:
    """So the denoiser starts as c_skip x."""
    denoiser = Denoiser(small_spec(), 0.5)
    x, sigma = torch.randn(3, 3, 8, 8), torch.tensor([0.01, 1.0, 50.0])
    expected = (0.25 / (0.25 + sigma**2))[:, None, None, None] * x
    torch.testing.assert_close(denoiser(x, sigma, torch.tensor([0, 1, 2])), expected)


def test_denoiser_is_eq_7() -> None:
    denoiser = awake(Denoiser(small_spec(), 0.5)).eval()
    x, sigma, labels = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 7.0]), torch.tensor([1, 3])
    for i in range(2):
        s = scalings(sigma[i], 0.5)
        row = slice(i, i + 1)
        f = denoiser.net(s.c_in * x[row], s.c_noise[None], labels[row])
        torch.testing.assert_close(
            denoiser(x, sigma, labels)[row], s.c_skip * x[row] + s.c_out * f, rtol=1e-4, atol=1e-5
        )


def test_rows_of_a_batch_do_not_mix(unet: UNet) -> None:
    x, c, labels = torch.randn(4, 3, 8, 8), torch.randn(4), torch.tensor([0, 1, 2, 3])
    whole = unet(x, c, labels)
    for i in range(4):
        alone = unet(x[i : i + 1], c[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_label_and_noise_level_matter(unet: UNet) -> None:
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    out = unet(x, torch.zeros(2), labels)
    assert (unet(x, torch.zeros(2), labels.flip(0)) - out).abs().max() > 1e-3
    assert (unet(x, torch.ones(2), labels) - out).abs().max() > 1e-3


def test_gradient_reaches_every_parameter(unet: UNet) -> None:
    labels = torch.tensor([0, 1, 2, 3])
    unet(torch.randn(4, 3, 8, 8), torch.randn(4), labels).square().sum().backward()
    for name, parameter in unet.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_adm_at_imagenet_64_has_the_published_size() -> None:
    """295.9 M parameters (Karras et al. 2022, table 7 "ADM architecture")."""
    spec = UNetSpec(64, 192, (1, 2, 3, 4), 3, (32, 16, 8), 64, 0.1, 1000)
    with torch.device("meta"):
        network = UNet(spec)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(295.9e6, rel=1e-3)


def test_bf16_autocast_is_close_to_fp32(unet: UNet) -> None:
    x, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    exact = unet(x, torch.zeros(4), labels)
    with torch.autocast("cpu", torch.bfloat16):
        rough = unet(x, torch.zeros(4), labels)
    # bfloat16 keeps 8 bits: 0.4 % a rounding, a few dozen of them in a row.
    assert (rough.float() - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_dropout_acts_in_training_only() -> None:
    spec = UNetSpec(8, 16, (1, 2), 1, (), 16, 0.5, 4)
    network, x = awake(UNet(spec)), torch.randn(2, 3, 8, 8)
    arguments = (x, torch.zeros(2), torch.tensor([0, 1]))
    assert not torch.equal(network(*arguments), network(*arguments))
    network.eval()
    assert torch.equal(network(*arguments), network(*arguments))


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (32, 8), (16, 4), (12, 3), (3, 1)])
def test_group_norm_is_torchs(channels: int, groups: int) -> None:
    ours, theirs = GroupNorm(channels), nn.GroupNorm(groups, channels)
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, channels, 4, 4) * 3 + 1
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x.bfloat16()).dtype == torch.bfloat16


def test_attention_is_the_textbook_formula() -> None:
    attention = awake(Attention(8, head_channels=4))
    x = torch.randn(2, 8, 3, 3)
    q, k, v = attention.qkv(attention.norm(x)).flatten(2).chunk(3, dim=1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weight = torch.einsum("nci,ncj->nij", q[:, head], k[:, head]) / 4**0.5
        heads.append(torch.einsum("nij,ncj->nci", weight.softmax(-1), v[:, head]))
    expected = x + attention.proj(torch.cat(heads, 1).reshape(2, 8, 3, 3))
    torch.testing.assert_close(attention(x), expected)


def test_timestep_embedding_is_the_formula() -> None:
    t = torch.tensor([0.0, 1.5])
    out = timestep_embedding(t, 4, max_period=100.0)
    waves = [t[1].cos(), (t[1] / 10).cos(), t[1].sin(), (t[1] / 10).sin()]
    torch.testing.assert_close(out[1], torch.stack(waves))
    torch.testing.assert_close(out[0], torch.tensor([1.0, 1.0, 0.0, 0.0]))


def test_a_card_rebuilds_the_denoiser() -> None:
    denoiser = awake(Denoiser(small_spec(), 0.4)).eval()
    again = load_denoiser(denoiser.state_dict(), json.loads(json.dumps(denoiser.card())))
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    assert torch.equal(again(x, torch.ones(2), labels), denoiser(x, torch.ones(2), labels))
    assert again.spec == denoiser.spec and not again.training


def test_labels_of_zero_say_that_images_are_not_augmented() -> None:
    denoiser = awake(Denoiser(replace(small_spec(), augment_labels=9), 0.5)).eval()
    x, sigma, labels = torch.randn(3, 3, 8, 8), torch.tensor([0.01, 1.0, 50.0]), torch.arange(3)
    plain = denoiser(x, sigma, labels)
    assert torch.equal(plain, denoiser(x, sigma, labels, torch.zeros(3, 9)))
    assert not torch.allclose(plain, denoiser(x, sigma, labels, torch.ones(3, 9)))


def test_no_class_is_the_absence_of_labels_and_classes_keep_their_bits() -> None:
    trunk = UNetTrunk(UNetSpec(8, 8, (1,), 1, (), 8, 0.0, 4))
    c_noise, labels = torch.randn(4), torch.tensor([0, 3, NO_CLASS, 1])
    mixed, without = trunk.embed(c_noise, labels), trunk.embed(c_noise, None)
    assert isinstance(mixed, torch.Tensor) and isinstance(without, torch.Tensor)
    assert isinstance(trunk.label, torch.nn.Embedding)
    assert torch.equal(mixed[2], without[2]) and not torch.equal(mixed[1], without[1])
    wave = timestep_embedding(1000.0 * c_noise, 8)
    told = torch.tensor([0, 3, 2, 1])
    plain = F.silu(trunk.time_out(F.silu(trunk.time_in(wave))) + trunk.label(told))
    known = trunk.embed(c_noise, told)
    assert isinstance(known, torch.Tensor) and torch.equal(known, plain)
    mixed.sum().backward()
    assert trunk.label.weight.grad is not None
    assert torch.equal(trunk.label.weight.grad[2], torch.zeros(32))  # the class that was not told
