"""Every discriminator and distance trains a generator, resumes to the bit, and is what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminator import ConvDiscriminator, Discriminator
from pagoda.networks.encoder_discriminator import EncoderDiscriminator
from pagoda.networks.generator import generator_from_teacher
from pagoda.networks.projected import ProjectedDiscriminator
from pagoda.networks.unet import UNetSpec
from pagoda.objectives.distances import ProjectedDistance
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


@pytest.mark.parametrize(("fakes", "expected"), [("prior", 5), ("reconstructions", 3), ("both", 8)])
def test_the_discriminator_judges_the_fakes_it_is_told_to(fakes: str, expected: int) -> None:
    step = make("conv", regression="reconstruction", batch=3, prior_batch=5, fakes=fakes)
    seen: list[tuple[Tensor, Tensor]] = []
    whole = step._judge

    def judge(images: Tensor, labels: Tensor, step: int) -> Tensor:
        seen.append((images, labels))
        return whole(images, labels, step)

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
