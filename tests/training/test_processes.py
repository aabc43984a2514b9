"""Several processes train as one does, with weights sharded over them (FSDP2) or not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.config import parse
from pagoda.errors import PagodaError
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminators import ConvDiscriminator
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.networks.super_resolution import SuperResolver
from pagoda.networks.unet import UNetSpec
from pagoda.stages import downsample
from pagoda.stages import teacher as stage_of_teacher
from pagoda.stages.optim import check_device
from pagoda.training import sharding
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
from tests.tiny import tiny_tree

CPU = torch.device("cpu")
SPEC = UNetSpec(8, 8, (1, 2), 1, (4,), 8, 0.0, 4, time_scale=1.0)
STEPS, BATCH, PRIOR = 3, 7, 5  # odd: shares of 2 and 3 processes differ
LOOP = LoopSpec("toy", STEPS * BATCH, BATCH, warmup=0.2, decay=0.5, seed=3)
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


def _teacher_in_parts() -> Step:
    step = teacher_step()
    step.batch, step.micro_batch = 6, 2
    return step


PARTS: dict[str, Callable[[], Step]] = {
    "teacher-parts": _teacher_in_parts,
    "grow-parts": lambda: one_step(True, batch=6, prior_batch=4, micro_batch=2),
}
SHARDED = {name: make for name, make in (MAKERS | PARTS).items() if name != "grow"}


class _Stopped(Exception):
    """Stands for a power cut."""


def _go(name: str, make: Callable[[], Step], stop_after: int = STEPS) -> Step:
    """Train from whatever ``<name>/scratch`` holds; write the whole state to ``<name>/``."""
    step, folder, seen = make(), Path(name), 0
    if distributed.rank() > 0 and not sharding.wanted():
        with torch.no_grad():  # what a process starts with is the main one's, not its own
            for module in step.modules.values():
                for parameter in module.parameters():
                    parameter.zero_()

    def advance(images: int) -> None:
        nonlocal seen
        seen += images
        if seen > stop_after * BATCH:
            raise _Stopped

    restarted = name.startswith("to-")
    loop = dataclasses.replace(LOOP, save_every_s=-1.0 if restarted else 1e9)
    scratch = Scratch(folder / "scratch", step.modules, step.optimizers)
    with contextlib.suppress(_Stopped):
        train(step, loop, scratch, lambda kept: History(folder / "h.jsonl", kept), advance)
        for part, module in step.modules.items():
            state = sharding.full_state_on_main(module.state_dict())
            if distributed.is_main_process():
                safetensors.torch.save_file(state, folder / f"{part}.safetensors")
    return step


def _stage(name: str) -> None:
    """A real stage, with snapshots of averages, in the working folder."""
    optim = {"teacher.optim.ema_profiles": [0.05, 0.1], "teacher.optim.ema_snapshots": 2,
             "teacher.optim.images": 64}  # fmt: skip
    sizes = {"name": name, "data.train_images": 32, "data.test_images": 16}
    config = parse(tiny_tree(**sizes, **optim))
    Path("params.yaml").touch()
    if distributed.is_main_process():
        downsample.run(config, 8)
    distributed.barrier()
    stage_of_teacher.run(config)


def _same_everywhere(step: Step) -> None:
    for module in step.modules.values():
        for value in module.state_dict().values():
            if value.is_floating_point():
                total = float(value.double().sum())
                assert distributed.all_reduce_max([total, -total]) == [total, -total]


def _plain() -> None:
    """Training in a group, every objective."""
    with distributed.group():
        for name, make in MAKERS.items():
            _same_everywhere(_go(f"plain-{distributed.world_size()}/{name}", make))


def _two() -> None:
    """Two processes, first with plain weights, then with sharded ones."""
    with distributed.group():
        _plain()
        os.environ[sharding.SHARD] = "1"
        for name, make in SHARDED.items():
            step = _go(f"sharded/{name}", make)
            trained = next(iter(step.modules.values()))
            for network in (trained, step.modules["ema"]):
                assert 0.4 < _held(network) < 0.65, _held(network)
            for optimizer in step.optimizers.values():
                for parameter, state in optimizer.state.items():
                    assert sharding.local(state["exp_avg"]).shape == sharding.local(parameter).shape
        _go("to-sharded", MAKERS["distill"])
        _go("to-plain", MAKERS["teacher"], stop_after=2)
        _same_start()
        _stage("sharded")
        _refusals()


def _held(network: nn.Module) -> float:
    """The part of a network's weights that this process holds."""
    parameters = list(network.parameters())
    return sum(sharding.local(p).numel() for p in parameters) / sum(p.numel() for p in parameters)


def _same_start() -> None:
    network = teacher()
    expected = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(float(distributed.is_main_process()))
    sharding.shard(CPU, network)
    for parameter, value in zip(network.parameters(), expected, strict=True):
        full: Any = parameter.detach()
        assert torch.equal(full.full_tensor(), value)


def _refusals() -> None:
    with pytest.raises(PagodaError, match=r"PAGODA_SHARD=1 .* precision = 'fp16'; use 'bf16'"):
        sharding.check("fp16", [8], None)
    with pytest.raises(PagodaError, match=r"micro_batch needs batches that 2 processes divide"):
        sharding.check("fp32", [8, 7], 2)
    sharding.check("bf16", [8, 6], 2)
    optim = parse(tiny_tree(**{"teacher.optim.compile": True})).teacher.optim
    with pytest.raises(PagodaError, match=r"PAGODA_SHARD=1 .* teacher\.optim\.compile = true"):
        check_device("teacher", optim, CPU)
    os.environ[sharding.SHARD] = "yes"
    with pytest.raises(PagodaError, match=r"PAGODA_SHARD = 'yes'; it must be 0 or 1"):
        sharding.wanted()


def _difference(a: Path, b: Path) -> float:
    files = sorted(f.name for f in a.glob("*.safetensors"))
    assert files == sorted(f.name for f in b.glob("*.safetensors")) and files
    worst = 0.0
    for name in files:
        left, right = (safetensors.torch.load_file(f / name) for f in (a, b))
        assert left.keys() == right.keys()
        worst = max(worst, *((left[k] - right[k]).abs().max().item() for k in left))
    return worst


def test_any_number_of_processes_trains_as_one_sharded_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every objective in float64, every loss term on, parts of unequal size; restarts both ways."""
    monkeypatch.chdir(tmp_path)
    for name, make in (MAKERS | PARTS).items():
        _go(f"plain-1/{name}", make)
    _go("to-sharded", MAKERS["distill"], stop_after=2)
    _stage("plain")
    for world, work in ((2, _two), (3, _plain)):
        ended = run_group(world, work, folder=tmp_path, limit=900)
        assert ended == [0] * world, "".join(log(tmp_path, rank) for rank in range(world))
    _go("to-plain", MAKERS["teacher"])
    alone = tmp_path / "plain-1"
    for run, makers in (("plain-2", MAKERS), ("plain-3", MAKERS), ("sharded", SHARDED)):
        for name in makers:
            assert _difference(alone / name, tmp_path / run / name) < 1e-6, (run, name)
            if name in MAKERS:  # the loop weighs statistics by its own batch, not by that of parts
                histories = [_losses(f / name / "h.jsonl") for f in (alone, tmp_path / run)]
                assert histories[0] == pytest.approx(histories[1], rel=1e-8)
    assert _difference(alone / "distill", tmp_path / "to-sharded") < 1e-6
    assert _difference(alone / "teacher", tmp_path / "to-plain") < 1e-6
    made = [tmp_path / "runs" / name / "b8" / "teacher" for name in ("plain", "sharded")]
    assert len(list(made[1].glob("*.safetensors"))) == 1 + 2 * 2  # the average and its snapshots
    assert _difference(*made) < 1e-4  # float32


def _losses(path: Path) -> list[float]:
    rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == STEPS
    return [row[k] for row in rows for k in sorted(row) if k not in ("seconds", "images", "step")]
