"""The one-step generator and its growth."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pagoda.diffusion.edm import scalings
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import (
    Generator,
    build_generator,
    generator_from_teacher,
    grow,
    load_generator,
)
from pagoda.networks.unet import UNetSpec

SPEC = UNetSpec(8, 16, (1, 2), 1, (4,), 16, 0.0, 4, time_scale=1.0)
SIGMA_MAX = 80.0


def randomise(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)


@pytest.fixture
def teacher() -> Denoiser:
    made = Denoiser(SPEC, 0.5)
    randomise(made)
    return made.eval()


@pytest.fixture
def student(teacher: Denoiser) -> Generator:
    return generator_from_teacher(teacher, sigma_max=SIGMA_MAX, output="denoiser").eval()


@pytest.fixture
def latents() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 3, 8, 8), torch.tensor([0, 3, 1])


def test_denoiser_output_is_the_teacher_without_its_skip(
    teacher: Denoiser, student: Generator, latents: tuple[torch.Tensor, torch.Tensor]
) -> None:
    z, labels = latents
    sigma = torch.full((3,), SIGMA_MAX)
    skip = scalings(sigma, 0.5).c_skip[:, None, None, None] * SIGMA_MAX * z
    expected = teacher(SIGMA_MAX * z, sigma, labels)
    torch.testing.assert_close(student(z, labels) + skip, expected, rtol=1e-4, atol=1e-5)
    assert 0 < skip.abs().max() < 0.02  # small, as the documentation says, but there


def test_raw_output_is_the_network(
    teacher: Denoiser, latents: tuple[torch.Tensor, torch.Tensor]
) -> None:
    z, labels = latents
    raw = generator_from_teacher(teacher, sigma_max=SIGMA_MAX, output="raw").eval()
    s = scalings(torch.full((3,), SIGMA_MAX), 0.5)
    f = teacher.net(s.c_in[:, None, None, None] * SIGMA_MAX * z, s.c_noise, labels)
    torch.testing.assert_close(raw(z, labels), f, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_copied_not_shared(teacher: Denoiser) -> None:
    before = [p.clone() for p in teacher.parameters()]
    generator = generator_from_teacher(teacher, sigma_max=SIGMA_MAX, output="raw")
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))


def features(generator: Generator, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What the last head is given."""
    seen: list[torch.Tensor] = []
    hook = generator.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    generator(z, labels)
    hook.remove()
    return seen[0]


def test_growth_at_equal_width_is_upsampling_of_features(
    student: Generator, latents: tuple[torch.Tensor, torch.Tensor]
) -> None:
    generator = student
    for side in (16, 32):
        grown = grow(generator, channels=16, blocks=2).eval()
        assert grown.resolution == side and grown.base_res == 8
        wide = F.interpolate(features(generator, *latents), scale_factor=2, mode="nearest")
        expected = generator.head(wide) * generator.output_scale
        out = grown(*latents)
        assert out.shape == (3, 3, side, side) and out.std() > 0.01
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
        generator = grown


def test_growth_at_another_width_starts_at_zero(
    student: Generator, latents: tuple[torch.Tensor, torch.Tensor]
) -> None:
    out = grow(student, channels=8, blocks=1)(*latents)
    assert out.shape == (3, 3, 16, 16) and not out.any()


def test_growth_takes_all_weights_over(student: Generator) -> None:
    once = grow(student, channels=8, blocks=1)
    randomise(once.levels)
    twice = grow(once, channels=12, blocks=2)
    state = twice.state_dict()
    for name, value in once.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(state[name], value), name
    assert twice.card()["levels"] == [[8, 1], [12, 2]]


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_freezing_leaves_the_top_of_the_base_and_the_new_parts(
    student: Generator, stages: int
) -> None:
    grown = grow(student, channels=8, blocks=1)
    grown.freeze_base(stages)
    count = len(grown.trunk.decoder)
    top = [f"trunk.decoder.{i}." for i in range(count - stages, count)]
    expected = {
        name for name, _ in grown.named_parameters()
        if name.startswith(("levels.", "head.", *top))
    }  # fmt: skip
    assert {name for name, p in grown.named_parameters() if p.requires_grad} == expected
    assert any(name.startswith("levels.") for name in expected)


def test_the_adaptive_weight_looks_at_the_last_block(
    student: Generator, latents: tuple[torch.Tensor, torch.Tensor]
) -> None:
    grown = grow(student, channels=16, blocks=2)
    for generator in (student, grown):
        weight = generator.last_block_weight()
        (gradient,) = torch.autograd.grad(generator(*latents).square().sum(), weight)
        assert gradient.abs().sum() > 0
    assert grown.last_block_weight() is grown.levels[-1].stages[-1].out_conv.weight  # type: ignore[union-attr,index]


def test_label_and_latent_matter(
    student: Generator, latents: tuple[torch.Tensor, torch.Tensor]
) -> None:
    z, labels = latents
    grown = grow(student, channels=16, blocks=1)
    out = grown(z, labels)
    assert (grown(z, labels.flip(0))[0] - out[0]).abs().max() > 1e-3
    torch.testing.assert_close(grown(z[1:2], labels[1:2]), out[1:2], rtol=1e-4, atol=1e-5)


def test_a_card_rebuilds_the_generator(
    student: Generator, latents: tuple[torch.Tensor, torch.Tensor]
) -> None:
    grown = grow(grow(student, channels=16, blocks=2), channels=8, blocks=1)
    randomise(grown)
    card = json.loads(json.dumps(grown.card()))
    again = load_generator(grown.state_dict(), card)
    assert torch.equal(again(*latents), grown.eval()(*latents)) and not again.training
    assert again.card() == grown.card() == build_generator(card).card()
    assert again.resolution == 32


def test_growth_at_imagenet_has_the_derived_sizes() -> None:
    """Counts of the official code's networks: 298.3 M at 128, 300.8 M at 256, 301.6 M at 512."""
    spec = UNetSpec(64, 192, (1, 2, 3, 4), 3, (32, 16, 8), 64, 0.0, 1000, min_group=1)
    levels = [(192, 2), (192, 2), (96, 2), (96, 2)]
    totals, trainable = [298.34e6, 300.77e6, 301.59e6], [27.17e6, 29.61e6, 30.43e6]
    for count in range(1, 5):
        with torch.device("meta"):
            grown = Generator(
                spec, levels[:count], sigma_max=80.0, sigma_data=0.5, output_scale=1.0
            )
        grown.freeze_base(7)
        total = sum(p.numel() for p in grown.parameters())
        top = sum(p.numel() for p in grown.parameters() if p.requires_grad)
        assert grown.resolution == 64 << count
        if count < 4:
            assert total == pytest.approx(totals[count - 1], rel=1e-4)
            assert top == pytest.approx(trainable[count - 1], rel=1e-3)
        grown.freeze_below_top()
        names = {n.split(".")[1] for n, p in grown.named_parameters()
                 if p.requires_grad and n.startswith("levels.")}  # fmt: skip
        assert names == {str(i) for i in range(max(0, count - 2), count)}
        base = [n for n, p in grown.named_parameters() if p.requires_grad and "trunk" in n]
        assert len(base) > 0 if count == 1 else not base
