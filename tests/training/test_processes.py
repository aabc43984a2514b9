"""Several processes train as one does: the batch is divided, the noise is not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from pagoda import distributed
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminator import ConvDiscriminator
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.networks.super_resolution import SuperResolver
from pagoda.networks.unet import UNetSpec
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History
from pagoda.training.loop import LoopSpec, Step, train
from pagoda.training.one_step import OneStepSpec, OneStepStep
from pagoda.training.optim import OptimSpec
from pagoda.training.super_resolution import (
    ResolutionPairs,
    SuperResolutionSpec,
    SuperResolutionStep,
)
from pagoda.training.teacher import TeacherStep
from tests.group import log, run_group

CPU = torch.device("cpu")
SPEC = UNetSpec(8, 8, (1, 2), 1, (4,), 8, 0.0, 4, time_scale=1.0)
STEPS, BATCH, PRIOR = 3, 7, 5  # odd: shares of 2 and 3 processes differ
LOOP = LoopSpec("toy", STEPS * BATCH, BATCH, warmup=0.2, decay=0.5, seed=3, save_every_s=-1.0)
OPTIM = OptimSpec("adamw", 1e-3, (0.9, 0.99), 0.01)


class Doubles(ImageBatches):
    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        x, labels = super().draw(batch)
        return x.double(), labels


class _DoublePairs(PairBatches):
    def draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        z, x, labels = super().draw(batch)
        return z.double(), x.double(), labels


class _DoubleSizes(ResolutionPairs):
    def draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        low, high, labels = super().draw(batch)
        return low.double(), high.double(), labels


def pixels(n: int, resolution: int) -> np.ndarray:
    shape = (n, 3, resolution, resolution)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def teacher() -> Denoiser:
    torch.manual_seed(5)
    teacher = Denoiser(SPEC, 0.5).double().to(memory_format=torch.channels_last)
    with torch.no_grad():  # layers that start at zero would hide the others' gradients
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return teacher


def teacher_step() -> TeacherStep:
    return TeacherStep(
        teacher(), Doubles(pixels(20, 8), np.arange(20) % 4, CPU), batch=BATCH, optim=OPTIM,
        p_mean=-1.2, p_std=1.2, clip=1.0, ema=0.9, precision="fp32", label_dropout=0.4,
    )  # fmt: skip


def super_resolution_step(
    batch: int = BATCH, micro_batch: int | None = None
) -> SuperResolutionStep:
    torch.manual_seed(5)
    resolver = SuperResolver(dataclasses.replace(SPEC, resolution=16), 0.5).double()
    with torch.no_grad():
        for parameter in resolver.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    spec = SuperResolutionSpec(batch, 0.5, -1.2, 1.2, 1.0, 0.9, "fp32", micro_batch)
    pairs = _DoubleSizes(pixels(20, 8), pixels(20, 16), np.arange(20) % 4, CPU)
    return SuperResolutionStep(resolver.to(memory_format=torch.channels_last), pairs, spec, OPTIM)


def one_step(grown: bool, **changes: Any) -> OneStepStep:
    generator = generator_from_teacher(teacher(), sigma_max=80.0, output="denoiser")
    if grown:
        generator = grow(generator, channels=8, blocks=1)
        generator.freeze_base(1)
    resolution = 16 if grown else 8
    rng = np.random.default_rng(2)
    pairs = _DoublePairs(
        rng.standard_normal((16, 3, 8, 8)).astype(np.float32), np.arange(16) // 2,
        (np.arange(16) % 2).astype(np.uint8), pixels(20, resolution), np.arange(16) // 2 % 4, CPU,
    )  # fmt: skip
    torch.manual_seed(6)
    spec = OneStepSpec(
        batch=BATCH, prior_batch=PRIOR, regression="reconstruction", feature_weight=0.1,
        adversarial="hinge", fakes="prior", weighting="adaptive", weight=0.3, weight_min=0.0,
        weight_max=10.0, adversarial_start=0.0, adversarial_ramp=0.5, r1=1.0, r1_every=2,
        augment=True, clip=1.0, ema=0.9, precision="fp32",
    )  # fmt: skip
    return OneStepStep(
        generator.double().to(memory_format=torch.channels_last),
        ConvDiscriminator(resolution, 4, 8, 4).double(),
        pairs,
        Doubles(pixels(20, resolution), np.arange(20) % 4, CPU),
        dataclasses.replace(spec, **changes),
        OPTIM,
        OptimSpec("adamw", 1e-3, (0.0, 0.99)),
    )


MAKERS: dict[str, Callable[[], Step]] = {
    "teacher": lambda: teacher_step(),
    "distill": lambda: one_step(False),
    "grow": lambda: one_step(True, weighting="fixed", adversarial="non_saturating"),
    "super-resolution": lambda: super_resolution_step(),
}


def _train(what: str) -> None:
    """Train a toy and leave its state in the working folder."""
    step: Step = MAKERS[what]()
    if distributed.rank() > 0:
        with torch.no_grad():  # what a process starts with is the first one's, not its own
            for module in step.modules.values():
                for parameter in module.parameters():
                    parameter.zero_()
    folder = Path(f"{what}-{distributed.launched_world_size()}")
    with distributed.group():
        scratch = Scratch(folder / "scratch", step.modules, step.optimizers)
        train(step, LOOP, scratch, lambda kept: History(folder / "h.jsonl", kept), lambda n: None)
        state = {
            f"{name}.{key}": value.contiguous()
            for name, module in step.modules.items()
            for key, value in module.state_dict().items()
        }
        safetensors.torch.save_file(state, folder / f"{distributed.rank()}.safetensors")


def _train_all() -> None:
    for what in MAKERS:
        _train(what)


def _difference(a: Path, b: Path) -> float:
    left, right = (safetensors.torch.load_file(f) for f in (a, b))
    assert left.keys() == right.keys()
    return max((left[k] - right[k]).abs().max().item() for k in left)


def test_two_and_three_processes_train_as_one(tmp_path: Path) -> None:
    """Every objective in float64, every loss term on, shares of unequal size."""
    for world in (1, 2, 3):
        assert run_group(world, _train_all, folder=tmp_path) == [0] * world, log(tmp_path)
    for what in MAKERS:
        alone = tmp_path / f"{what}-1" / "0.safetensors"
        for world in (2, 3):
            folder = tmp_path / f"{what}-{world}"
            assert _difference(alone, folder / "0.safetensors") < 1e-6, what
            for rank in range(1, world):  # all processes hold the same bits
                assert _difference(folder / "0.safetensors", folder / f"{rank}.safetensors") == 0
            histories = [_losses(f / "h.jsonl") for f in (alone.parent, folder)]
            assert histories[0] == pytest.approx(histories[1], rel=1e-8)


def _losses(path: Path) -> list[float]:
    rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == STEPS
    return [row[k] for row in rows for k in sorted(row) if k not in ("seconds", "images", "step")]
