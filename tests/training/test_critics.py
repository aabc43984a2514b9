"""Every discriminator and distance trains a generator, resumes to the bit, and is what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pagoda.losses.distances import ProjectedDistance
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminators import (
    ConvDiscriminator,
    Discriminator,
    EncoderDiscriminator,
    ProjectedDiscriminator,
)
from pagoda.networks.generator import generator_from_teacher
from pagoda.networks.unet import UNetSpec
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.checkpoint import Scratch
from pagoda.training.one_step import OneStepSpec, OneStepStep
from pagoda.training.optim import OptimSpec

CPU = torch.device("cpu")
UNET = UNetSpec(8, 16, (1, 2), 1, (4,), 16, 0.0, 2, time_scale=1.0)
SPEC = OneStepSpec(
    batch=8, prior_batch=16, regression="none", feature_weight=0.0, adversarial="hinge",
    fakes="prior", weighting="fixed", weight=1.0, weight_min=0.0, weight_max=10.0,
    adversarial_start=0.0, adversarial_ramp=0.0, r1=0.0, r1_every=1, augment=False, clip=None,
    ema=0.9, precision="fp32",
)  # fmt: skip


def denoiser() -> Denoiser:
    torch.manual_seed(5)
    network = Denoiser(UNET, 0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return network


KINDS: dict[str, Callable[[], Discriminator]] = {
    "conv": lambda: ConvDiscriminator(8, 8, 16, 2),
    "encoder": lambda: EncoderDiscriminator(denoiser(), 0.1, 2, 32),
    "projected": lambda: ProjectedDiscriminator(["test_efficientnet"], "random", 2, 0),
}


def data() -> tuple[np.ndarray, np.ndarray]:
    """Flat images, red for class 0 and blue for class 1, of slightly varied brightness."""
    labels = np.arange(64) % 2
    images = np.full((64, 3, 8, 8), 40, np.uint8)
    images[labels == 0, 0] = 220
    images[labels == 1, 2] = 220
    noise = np.random.default_rng(0).integers(-12, 13, (64, 1, 1, 1))
    return (images + noise).astype(np.uint8), labels


def make(
    kind: str, lr: tuple[float, float] = (3e-3, 3e-3), distance: bool = False, **changes: object
) -> OneStepStep:
    generator = generator_from_teacher(denoiser(), sigma_max=80.0, output="raw")
    images, labels = data()
    latents = np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32)
    rows = np.arange(64)
    pairs = PairBatches(latents, rows, np.zeros(64, np.uint8), images, labels, CPU)
    torch.manual_seed(6)
    return OneStepStep(
        generator, KINDS[kind](), pairs, ImageBatches(images, labels, CPU),
        dataclasses.replace(SPEC, **changes),  # type: ignore[arg-type]
        OptimSpec("adamw", lr[0], (0.0, 0.99)), OptimSpec("adamw", lr[1], (0.0, 0.99)),
        ProjectedDistance(["test_efficientnet"], "random", 1, False) if distance else None,
    )  # fmt: skip


def colour_error(step: OneStepStep) -> float:
    """Mean square distance of the mean colours of generated images from those of their class."""
    torch.manual_seed(9)
    images, labels = data()
    y = torch.arange(32) % 2
    with torch.no_grad():
        made = step.ema.model(torch.randn(32, 3, 8, 8), y).mean((2, 3))
    real = torch.stack([torch.from_numpy(images[labels == k] / 127.5 - 1).mean((0, 2, 3))
                        for k in (0, 1)])[y]  # fmt: skip
    return (made - real).square().mean().item()


def run(step: OneStepStep, steps: int, first: int = 0) -> None:
    for i in range(first, steps):
        torch.manual_seed(i)
        step(i, i / steps)


@pytest.mark.parametrize(("kind", "loss"), [("conv", "non_saturating"), ("encoder", "hinge")])
def test_the_adversarial_loss_alone_trains_the_generator(kind: str, loss: str) -> None:
    step = make(kind, adversarial=loss)
    before = colour_error(step)
    run(step, 40)
    assert colour_error(step) < before / 3


@pytest.mark.slow
def test_the_projected_discriminator_trains_the_generator() -> None:
    step = make("projected", (3e-3, 2e-3), prior_batch=4)
    before = colour_error(step)
    run(step, 25)
    assert colour_error(step) < 0.6 * before


@pytest.mark.parametrize("kind", ["encoder", pytest.param("projected", marks=pytest.mark.slow)])
def test_a_checkpoint_holds_the_projections_and_not_the_frozen_networks(
    kind: str, tmp_path: Path
) -> None:
    projected = kind == "projected"
    first = make(kind, distance=projected, regression="reconstruction", batch=2, prior_batch=3)
    run(first, 2)
    Scratch(tmp_path, first.modules, first.optimizers).save(2, 0.0)
    run(first, 3, first=2)
    second = make(kind, distance=projected, regression="reconstruction", batch=2, prior_batch=3)
    for name in ("discriminator", "distance")[: 1 + projected]:  # as if projections were drawn anew
        for tensor in second.modules[name].state_dict().values():
            if tensor.is_floating_point():
                tensor.zero_()
    Scratch(tmp_path, second.modules, second.optimizers).restore()
    run(second, 3, first=2)
    for name, module in first.modules.items():
        after = second.modules[name].state_dict()
        assert all(torch.equal(v, after[k]) for k, v in module.state_dict().items()), name


def test_separate_updates_are_a_step_by_each_loss() -> None:
    """Official scripts for 256 and 512: reconstruction first, then new fakes for the adversary."""
    settings: dict[str, Any] = {"regression": "reconstruction", "batch": 4, "prior_batch": 3}
    made = make("conv", **settings, separate_update=True)
    torch.manual_seed(0)
    made(0, 0.5)
    by_hand = make("conv", **settings)
    torch.manual_seed(0)
    z, x, labels = by_hand._latents_and_targets(True)
    generator, optimizer = by_hand.generator, by_hand.optimizers["generator"]
    fake = generator(z[4:], labels[4:]).detach()
    by_hand._update_discriminator(0, *by_hand.real.draw(3), fake, labels[4:])
    for loss in (
        lambda: (generator(z[:4], labels[:4]) - x).square().mean(),
        lambda: -by_hand.discriminator(generator(z[4:], labels[4:]), labels[4:]).mean(),
    ):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    for player in ("generator", "discriminator"):
        pairs = zip(made.modules[player].parameters(), by_hand.modules[player].parameters(),
                    strict=True)  # fmt: skip
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    moved = make("conv", **settings)
    torch.manual_seed(0)
    moved(0, 0.5)  # one step by the sum goes elsewhere
    ends = [torch.cat([p.flatten() for p in s.generator.parameters()]) for s in (made, moved)]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_each_network_and_each_player_draws_its_own_augmentation() -> None:
    """Real images and fakes of one update share the draw, as in the official code."""
    KINDS["two"] = lambda: ProjectedDiscriminator(["test_efficientnet"] * 2, "random", 2, 0)
    step = make("two", augment=True, regression="none", prior_batch=4)
    del KINDS["two"]
    seen: list[list[Tensor]] = []

    def judge(images: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        assert isinstance(images, list)
        seen.append(images)
        return images[0].flatten(1).mean(1) * next(step.discriminator.parameters()).sum()

    step.judge = judge  # type: ignore[method-assign]
    x, y = torch.ones(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    step._update_discriminator(7, x, y, x, y)
    step._judge(x, y, 2 * 7 + 1)
    real, fake, for_generator = seen
    assert all(torch.equal(a, b) for a, b in zip(real, fake, strict=True))
    views = [*real, *for_generator]
    assert not any(torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


@pytest.mark.parametrize(("fakes", "expected"), [("prior", 5), ("reconstructions", 3), ("both", 8)])
def test_the_discriminator_judges_the_fakes_it_is_told_to(fakes: str, expected: int) -> None:
    step = make("conv", regression="reconstruction", batch=3, prior_batch=5, fakes=fakes)
    seen: list[tuple[Tensor, Tensor]] = []
    whole = step._judge

    def judge(images: Tensor, labels: Tensor, draw: int) -> Tensor:
        seen.append((images, labels))
        return whole(images, labels, draw)

    step._judge = judge  # type: ignore[method-assign]
    stats = step(0, 0.5)
    assert [len(x) for x, _ in seen] == [5, expected, expected]  # real, fake for D, fake for G
    assert all(len(x) == len(y) for x, y in seen)
    assert not seen[1][0].requires_grad and seen[2][0].requires_grad
    assert {"loss_rec", "loss_adv"} <= stats.keys()


def test_squared_norms_square_the_ratio() -> None:
    ratios = {}
    for weighting in ("adaptive", "adaptive_squared"):
        step = make("conv", regression="reconstruction", weighting=weighting, weight=0.2,
                    weight_max=1e9)  # fmt: skip
        torch.manual_seed(0)
        ratios[weighting] = float(step(0, 0.5)["lambda"]) / 0.2
    assert ratios["adaptive_squared"] == pytest.approx(ratios["adaptive"] ** 2, rel=1e-4)
    assert ratios["adaptive"] != pytest.approx(1, abs=0.05)


def test_the_distance_is_the_regression_loss() -> None:
    step = make("conv", distance=True, regression="reconstruction", batch=2, prior_batch=2)
    assert isinstance(step.distance, nn.Module)
    torch.manual_seed(0)
    stats = step(4, 0.5)
    torch.manual_seed(0)
    again = make("conv", distance=True, regression="reconstruction", batch=2, prior_batch=2)
    torch.manual_seed(0)
    z, x, y = again._latents_and_targets(True)
    made = again.generator(z, y)[:2]
    assert again.distance is not None
    assert float(stats["loss_rec"]) == pytest.approx(again.distance(made, x, 4).item(), rel=1e-4)
