"""Small steps of a training, and a training of them that may be cut off.

Weights are channels-last, as the stages train them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminators import ConvDiscriminator
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.networks.unet import UNetSpec
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History
from pagoda.training.loop import LoopSpec, Step, train
from pagoda.training.one_step import OneStepSpec, OneStepStep
from pagoda.training.optim import OptimSpec
from pagoda.training.teacher import TeacherStep

CPU = torch.device("cpu")
SPEC = UNetSpec(8, 16, (1, 2), 1, (4,), 16, 0.1, 4, time_scale=1.0)
STEPS, BATCH = 6, 4
LOOP = LoopSpec("toy", STEPS * BATCH, BATCH, warmup=0.2, decay=0.5, seed=3, save_every_s=-1.0)
ONE_STEP = OneStepSpec(
    batch=BATCH, prior_batch=3, regression="reconstruction", feature_weight=0.1,
    adversarial="hinge", fakes="prior", weighting="adaptive", weight=0.3, weight_min=0.0,
    weight_max=10.0, adversarial_start=0.0, adversarial_ramp=0.5, r1=1.0, r1_every=2,
    augment=True, clip=1.0, ema=0.9, precision="fp32",
)  # fmt: skip


def pixels(n: int, resolution: int) -> np.ndarray:
    shape = (n, 3, resolution, resolution)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def teacher_step(optimizer: str = "adamw", **changes: Any) -> TeacherStep:
    torch.manual_seed(5)
    return TeacherStep(
        Denoiser(SPEC, 0.5).to(memory_format=torch.channels_last),
        ImageBatches(pixels(20, 8), np.arange(20) % 4, CPU),
        batch=BATCH, optim=OptimSpec(optimizer, 1e-2, (0.9, 0.99), 0.01), p_mean=-1.2, p_std=1.2,
        clip=1.0, ema=0.9, **({"precision": "fp32"} | changes),
    )  # fmt: skip


def one_step(optimizer: str = "adamw", **changes: Any) -> OneStepStep:
    torch.manual_seed(5)
    teacher = Denoiser(SPEC, 0.5)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    base = generator_from_teacher(teacher, sigma_max=80.0, output="denoiser")
    generator = grow(base, channels=16, blocks=1)
    generator.freeze_base(1)
    rng = np.random.default_rng(2)
    pairs = PairBatches(
        rng.standard_normal((16, 3, 8, 8)).astype(np.float32), np.arange(16) // 2,
        (np.arange(16) % 2).astype(np.uint8), pixels(20, 16), np.arange(16) // 2 % 4, CPU,
    )  # fmt: skip
    return OneStepStep(
        generator.to(memory_format=torch.channels_last),
        ConvDiscriminator(16, 4, 8, 4).to(memory_format=torch.channels_last),
        pairs,
        ImageBatches(pixels(20, 16), np.arange(20) % 4, CPU),
        dataclasses.replace(ONE_STEP, **changes),
        OptimSpec(optimizer, 1e-2, (0.9, 0.99)),
        OptimSpec("adamw", 1e-2, (0.0, 0.99)),
    )


class Stopped(Exception):
    """Stands for a power cut."""


def go(
    make: Callable[[], Step], folder: Path, *, stop_after: int | None = None, spec: LoopSpec = LOOP,
    run: str = "scratch",
) -> Step:  # fmt: skip
    """Train fresh objects from whatever ``folder`` holds; a power cut after ``stop_after``.

    ``run`` names the folder of the checkpoints; the curves of all go to one file.
    """
    step = make()
    seen = 0

    def advance(images: int) -> None:
        nonlocal seen
        seen += images
        if stop_after is not None and seen > stop_after * BATCH:
            raise Stopped

    scratch, own = Scratch(folder / run, step.modules, step.optimizers), folder / run / "own.jsonl"
    with contextlib.suppress(Stopped):
        train(step, spec, scratch, lambda kept: History(folder / "h.jsonl", kept, own), advance)
    return step


def state(step: Step) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in step.modules.items()
        for key, value in module.state_dict().items()
    }
