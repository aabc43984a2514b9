"""Weights cut over processes (FSDP2) train as whole ones do, and checkpoints know no difference."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from pagoda import distributed
from pagoda.config import parse
from pagoda.errors import PagodaError
from pagoda.stages import downsample
from pagoda.stages import teacher as stage_of_teacher
from pagoda.stages.optim import check_device
from pagoda.training import sharding
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History
from pagoda.training.loop import LoopSpec, Step, train
from tests.group import log, run_group
from tests.tiny import tiny_tree
from tests.training.test_processes import (
    CPU,
    MAKERS,
    STEPS,
    one_step,
    super_resolution_step,
    teacher,
    teacher_step,
)

BATCH = 7
LOOP = LoopSpec("toy", STEPS * BATCH, BATCH, warmup=0.2, decay=0.5, seed=3, save_every_s=-1.0)


def _teacher_in_parts() -> Step:
    step = teacher_step()
    step.batch, step.micro_batch = 6, 2
    return step


CASES = MAKERS | {
    "teacher-parts": _teacher_in_parts,
    "grow-parts": lambda: one_step(True, batch=6, prior_batch=4, micro_batch=2),
    "super-resolution-parts": lambda: super_resolution_step(6, 2),
}


class _Stopped(Exception):
    """Stands for a power cut."""


def _go(name: str, make: Callable[[], Step], stop_after: int = STEPS) -> Step:
    """Train from whatever ``<name>/scratch`` holds; write the whole state to ``<name>/``."""
    step, folder, seen = make(), Path(name), 0

    def advance(images: int) -> None:
        nonlocal seen
        seen += images
        if seen > stop_after * BATCH:
            raise _Stopped

    scratch = Scratch(folder / "scratch", step.modules, step.optimizers)
    try:
        train(step, LOOP, scratch, lambda kept: History(folder / "h.jsonl", kept), advance)
    except _Stopped:
        return step
    for part, module in step.modules.items():
        state = sharding.full_state_on_main(module.state_dict())
        if distributed.is_main_process():
            safetensors.torch.save_file(state, folder / f"{part}.safetensors")
    return step


def _stage(name: str) -> None:
    """A real stage, with snapshots of averages, in the working folder."""
    optim = {"teacher.optim.ema_profiles": [0.05, 0.1], "teacher.optim.ema_snapshots": 2,
             "teacher.optim.images": 96}  # fmt: skip
    sizes = {"name": name, "data.train_images": 64, "data.test_images": 16}
    config = parse(tiny_tree(**sizes, **optim))
    Path("params.yaml").touch()
    if distributed.is_main_process():
        downsample.run(config, 8)
    distributed.barrier()
    stage_of_teacher.run(config)


def _alone() -> None:
    for name, make in CASES.items():
        _go(f"whole-{name}", make)
    _go("to-cut", MAKERS["distill"], stop_after=2)
    _stage("whole")


def _held(network: nn.Module) -> float:
    """The share of a network's weights that this process holds."""
    parameters = list(network.parameters())
    return sum(sharding.local(p).numel() for p in parameters) / sum(p.numel() for p in parameters)


def _cut() -> None:
    os.environ[sharding.SHARD] = "1"
    with distributed.group():
        for name, make in CASES.items():
            step = _go(f"cut-{name}", make)
            trained = next(iter(step.modules.values()))
            for network in (trained, step.modules["ema"]):
                assert 0.4 < _held(network) < 0.65, _held(network)
            for optimizer in step.optimizers.values():
                for parameter, state in optimizer.state.items():
                    assert sharding.local(state["exp_avg"]).shape == sharding.local(parameter).shape
        _go("to-cut", MAKERS["distill"])
        _go("to-whole", MAKERS["teacher"], stop_after=2)
        _same_start()
        _stage("cut")
        _refusals()


def _same_start() -> None:
    network = teacher()
    expected = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(float(distributed.is_main_process()))
    sharding.shard(CPU, network)
    for parameter, value in zip(network.parameters(), expected, strict=True):
        assert torch.equal(sharding.full_tensor(parameter.detach()), value)


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


def _whole_again() -> None:
    _go("to-whole", MAKERS["teacher"])


def _difference(a: Path, b: Path) -> float:
    files = sorted(f.name for f in a.glob("*.safetensors"))
    assert files == sorted(f.name for f in b.glob("*.safetensors")) and files
    worst = 0.0
    for name in files:
        left, right = (safetensors.torch.load_file(f / name) for f in (a, b))
        assert left.keys() == right.keys()
        worst = max(worst, *((left[k] - right[k]).abs().max().item() for k in left))
    return worst


def test_cut_weights_train_as_whole_ones_and_checkpoints_move_between(tmp_path: Path) -> None:
    """Every objective, distillation with adaptive weight and R1, in float64; restarts both ways."""
    assert run_group(1, _alone, folder=tmp_path, limit=900) == [0], log(tmp_path)
    assert run_group(2, _cut, folder=tmp_path, limit=900) == [0, 0], log(tmp_path) + log(
        tmp_path, 1
    )
    assert run_group(1, _whole_again, folder=tmp_path, limit=900) == [0], log(tmp_path)
    for name in CASES:
        assert _difference(tmp_path / f"whole-{name}", tmp_path / f"cut-{name}") < 1e-6, name
    assert _difference(tmp_path / "whole-distill", tmp_path / "to-cut") < 1e-6
    assert _difference(tmp_path / "whole-teacher", tmp_path / "to-whole") < 1e-6
    made = [tmp_path / "runs" / name / "b8" / "teacher" for name in ("whole", "cut")]
    assert len(list(made[1].glob("*.safetensors"))) == 1 + 2 * 2  # the average and its snapshots
    assert _difference(*made) < 1e-4  # float32
